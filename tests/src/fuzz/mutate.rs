//! Damages packets: a bit, a byte, a length, a piece too many or too few.

use super::random::Random;

/// Changes a packet in a few places.
pub fn mutate(random: &mut Random, packet: &mut Vec<u8>) {
    for _ in 0..random.within(1, 3) {
        once(random, packet);
    }
}

fn once(random: &mut Random, packet: &mut Vec<u8>) {
    let at = random.below(packet.len());
    match random.below(9) {
        0 => flip(random, packet, at),
        1 => {
            if let Some(byte) = packet.get_mut(at) {
                *byte = random.byte();
            }
        }
        2 => {
            if let Some(byte) = packet.get_mut(at) {
                let few = [0, 1, 0x7F, 0x80, 0xFF, b'+', b'#', b'/', b'$'];
                *byte = few[random.below(few.len())];
            }
        }
        3 => {
            // A piece less, with the length put right.
            let end = (at + random.within(1, 4)).min(packet.len());
            packet.drain(at.max(2).min(end)..end);
            set_length(packet);
        }
        4 => {
            // A piece more, with the length put right.
            let piece = random.within(1, 4);
            let piece = random.bytes(piece);
            let at = at.max(2).min(packet.len());
            packet.splice(at..at, piece);
            set_length(packet);
        }
        5 => packet.truncate(at + 1),
        6 => {
            // A piece of itself once more.
            let end = (at + random.within(1, 8)).min(packet.len());
            let piece = packet[at.min(end)..end].to_vec();
            packet.extend(piece);
            set_length(packet);
        }
        7 => {
            if let Some(first) = packet.first_mut() {
                *first = random.byte();
            }
        }
        _ => {
            if let Some(length) = packet.get_mut(1) {
                *length = length.wrapping_add(random.within(1, 3) as u8);
            }
        }
    }
}

fn flip(random: &mut Random, packet: &mut [u8], at: usize) {
    if let Some(byte) = packet.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

/// Puts a one-byte remaining length right, where there is one.
fn set_length(packet: &mut [u8]) {
    let rest = packet.len().saturating_sub(2);
    if let (Some(length), Ok(rest)) = (packet.get_mut(1), u8::try_from(rest))
        && rest < 0x80
        && *length < 0x80
    {
        *length = rest;
    }
}
