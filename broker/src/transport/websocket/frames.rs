//! WebSocket frames after the upgrade: the payload of binary frames is MQTT, the rest is answered.
//!
//! Owns the place in the current frame. Payload is unmasked as it comes and never collected; only a
//! header (14 bytes) and a control frame (125 bytes) are held until they are whole.

use std::io::Cursor;

use thiserror::Error;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::transport::layers::Flow;

/// Longest frame header from a client: two bytes, eight of length, four of mask.
const HEADER_BYTES_MAX: usize = 14;
/// Longest payload of a control frame (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// Frame lengths are 63 bits wide (RFC 6455, 5.2).
const LENGTH_MAX: u64 = i64::MAX as u64;

/// Why frames from a client were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// A frame with text.
    #[error("MQTT comes in binary frames, this is a text frame")]
    Text,
    /// A frame that is not masked.
    #[error("a client's frame must be masked")]
    Unmasked,
    /// A frame with reserved bits, a reserved kind or an impossible length.
    #[error("malformed frame header")]
    Header,
    /// A control frame in fragments or longer than 125 bytes.
    #[error("malformed control frame")]
    Control,
    /// A fragment that continues nothing, or a new message within one.
    #[error("fragments out of order")]
    Fragments,
    /// A close frame with an impossible status.
    #[error("malformed close frame")]
    Close,
}

impl FrameFault {
    fn close_code(self) -> CloseCode {
        match self {
            FrameFault::Text => CloseCode::Unsupported,
            _ => CloseCode::Protocol,
        }
    }
}

/// The frames of one connection.
#[derive(Debug, Default)]
pub(super) struct Frames {
    place: Place,
    /// Between the first and the last fragment of a message.
    in_message: bool,
    close_sent: bool,
}

/// The place in the stream of frames.
#[derive(Debug)]
enum Place {
    /// In a header; these bytes of it have come.
    Header { held: [u8; HEADER_BYTES_MAX], length: usize },
    /// In the payload of a data frame.
    Payload { remaining: u64, mask: [u8; 4] },
    /// In a control frame's payload; it is held, still masked.
    Control { kind: Control, remaining: u64, mask: [u8; 4], held: Vec<u8> },
    /// After a close frame or a fault: nothing more is read.
    Closed,
}

impl Default for Place {
    fn default() -> Self {
        Place::Header { held: [0; HEADER_BYTES_MAX], length: 0 }
    }
}

impl Frames {
    /// Takes bytes; appends payload to `plain` and answers to `out`, also when this fails.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Flow, FrameFault> {
        let mut rest = bytes;
        while !rest.is_empty() && !matches!(self.place, Place::Closed) {
            if let Err(fault) = self.step(&mut rest, plain, out) {
                self.end_with(&u16::from(fault.close_code()).to_be_bytes(), out);
                return Err(fault);
            }
        }
        Ok(if matches!(self.place, Place::Closed) { Flow::Closed } else { Flow::Open })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.close_sent
    }

    /// Appends a close frame, once. What the client still sends is read: it may hold MQTT packets
    /// that were under way.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        self.send_close(&u16::from(CloseCode::Normal).to_be_bytes(), out);
    }

    fn end_with(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.place = Place::Closed;
        self.send_close(payload, out);
    }

    fn send_close(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.close_sent, true) {
            write_frame(OpCode::Control(Control::Close), payload, out);
        }
    }

    /// Reads one header, or as much of one payload as there is.
    fn step(
        &mut self,
        rest: &mut &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), FrameFault> {
        match &mut self.place {
            Place::Header { held, length } => {
                if let Some((header, payload_length)) = read_header(held, length, rest)? {
                    self.place = self.begin(&header, payload_length)?;
                    self.finish_control(out)?;
                }
            }
            Place::Payload { remaining, mask } => {
                let taken = take(rest, remaining);
                let start = plain.len();
                plain.extend_from_slice(taken);
                unmask(&mut plain[start..], *mask);
                mask.rotate_left(taken.len() % 4);
                if *remaining == 0 {
                    self.place = Place::default();
                }
            }
            Place::Control { remaining, held, .. } => {
                held.extend_from_slice(take(rest, remaining));
                self.finish_control(out)?;
            }
            Place::Closed => *rest = &[],
        }
        Ok(())
    }

    /// Checks a header and says where it leads.
    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<Place, FrameFault> {
        if header.rsv1 || header.rsv2 || header.rsv3 || length > LENGTH_MAX {
            return Err(FrameFault::Header);
        }
        let Some(mask) = header.mask else {
            return Err(FrameFault::Unmasked);
        };
        match header.opcode {
            OpCode::Control(kind) => {
                if !header.is_final || length > CONTROL_BYTES_MAX {
                    return Err(FrameFault::Control);
                }
                return Ok(Place::Control { kind, remaining: length, mask, held: Vec::new() });
            }
            // Anything but binary data frames ends the connection [MQTT-6.0.0-1].
            OpCode::Data(Data::Text) => return Err(FrameFault::Text),
            OpCode::Data(Data::Binary) if !self.in_message => {}
            OpCode::Data(Data::Continue) if self.in_message => {}
            OpCode::Data(Data::Binary | Data::Continue) => return Err(FrameFault::Fragments),
            OpCode::Data(Data::Reserved(_)) => return Err(FrameFault::Header),
        }
        self.in_message = !header.is_final;
        // One frame may hold several packets or part of one: MQTT does not see frames
        // [MQTT-6.0.0-2].
        Ok(if length == 0 { Place::default() } else { Place::Payload { remaining: length, mask } })
    }

    /// Answers a control frame that has come whole.
    fn finish_control(&mut self, out: &mut Vec<u8>) -> Result<(), FrameFault> {
        let Place::Control { kind, remaining: 0, mask, held } = &mut self.place else {
            return Ok(());
        };
        let kind = *kind;
        let mut payload = std::mem::take(held);
        unmask(&mut payload, *mask);
        self.place = Place::default();
        match kind {
            Control::Ping if !self.close_sent => {
                write_frame(OpCode::Control(Control::Pong), &payload, out);
            }
            Control::Ping | Control::Pong => {}
            Control::Close => {
                let status = close_status(&payload)?;
                self.end_with(status, out);
            }
            Control::Reserved(_) => return Err(FrameFault::Header),
        }
        Ok(())
    }
}

/// Completes the header in `held` from `rest`; `None` if there is not enough.
fn read_header(
    held: &mut [u8; HEADER_BYTES_MAX],
    length: &mut usize,
    rest: &mut &[u8],
) -> Result<Option<(FrameHeader, u64)>, FrameFault> {
    let held_before = *length;
    let taken = rest.len().min(HEADER_BYTES_MAX - held_before);
    held[held_before..held_before + taken].copy_from_slice(&rest[..taken]);
    let mut cursor = Cursor::new(&held[..held_before + taken]);
    match FrameHeader::parse(&mut cursor).map_err(|_| FrameFault::Header)? {
        Some(found) => {
            let used = usize::try_from(cursor.position()).unwrap_or(HEADER_BYTES_MAX);
            *rest = &rest[used - held_before..];
            Ok(Some(found))
        }
        None => {
            *length += taken;
            *rest = &rest[taken..];
            Ok(None)
        }
    }
}

/// Takes up to `remaining` bytes off the front of `rest`.
fn take<'a>(rest: &mut &'a [u8], remaining: &mut u64) -> &'a [u8] {
    let count = usize::try_from(*remaining).unwrap_or(usize::MAX).min(rest.len());
    let (taken, after) = rest.split_at(count);
    *rest = after;
    *remaining -= count as u64;
    taken
}

/// Removes the mask, eight bytes at a time.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, tail) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// The status to echo from a close frame's payload, empty when it has none.
fn close_status(payload: &[u8]) -> Result<&[u8], FrameFault> {
    match payload {
        [] => Ok(&[]),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            if code.is_allowed() && std::str::from_utf8(reason).is_ok() {
                Ok(&payload[..2])
            } else {
                Err(FrameFault::Close)
            }
        }
        [_] => Err(FrameFault::Close),
    }
}

/// Appends one binary frame; nothing for no bytes.
pub(super) fn write_binary(payload: &[u8], out: &mut Vec<u8>) {
    if !payload.is_empty() {
        write_frame(OpCode::Data(Data::Binary), payload, out);
    }
}

fn write_frame(opcode: OpCode, payload: &[u8], out: &mut Vec<u8>) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    out.reserve(header.len(payload.len() as u64) + payload.len());
    header
        .format(payload.len() as u64, out)
        .expect("a frame header is written to a Vec, which takes every write");
    out.extend_from_slice(payload);
}
