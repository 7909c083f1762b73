//! Live or replay, on positions alone.

use super::*;

fn conv() -> ConvKey {
    ConvKey::group("default", "team")
}

fn start(cursor: u64, head: u64) -> Start {
    let intervals = vec![Interval { from: 1, until: None }];
    Start { conv: conv(), cursor, head, intervals }
}

fn one_read(device: &mut Device, most: u64) -> Read {
    let mut reads = device.next_reads(most);
    assert_eq!(reads.len(), 1);
    reads.remove(0)
}

#[test]
fn live_entries_wait_until_what_is_before_them_is_read() {
    let mut device = Device::new();
    assert_eq!(device.live(&conv(), 12, true, false), Live::Nothing, "the list is not there yet");
    assert_eq!(device.load(vec![start(5, 10)], 200), []);
    let read = one_read(&mut device, 3);
    assert_eq!((read.from, read.to), (6, 8));
    assert_eq!(device.live(&conv(), 13, true, false), Live::Nothing, "it would overtake");
    device.read(0, 8);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (9, 13), "with what came live meanwhile");
    device.read(0, 13);
    assert_eq!(device.next_reads(100), []);
    assert_eq!(device.live(&conv(), 14, true, false), Live::Send { stream: 0 });
    assert_eq!(device.live(&conv(), 15, false, false), Live::Nothing, "no room");
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (15, 15));
}

#[test]
fn a_long_absence_becomes_a_gap_and_the_newest_entries() {
    let mut device = Device::new();
    let gaps = device.load(vec![start(10, 1_000)], 200);
    assert_eq!(gaps, [Gap { conv: conv(), from: 11, to: 800 }]);
    assert_eq!(device.take_moves(), [(conv(), 800, 0)], "the cursor passes the gap, recv does not");
    let read = one_read(&mut device, 1_000);
    assert_eq!((read.from, read.to), (801, 1_000));
}

#[test]
fn only_what_a_member_may_see_is_read() {
    let mut device = Device::new();
    let intervals = vec![Interval { from: 5, until: Some(7) }, Interval { from: 20, until: None }];
    device.load(vec![Start { conv: conv(), cursor: 0, head: 22, intervals }], 200);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (5, 7));
    device.read(0, 7);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (20, 22));
    device.read(0, 22);
    assert_eq!(device.next_reads(100), []);
    // The membership ends: what comes later is not for this device.
    let ended = vec![Interval { from: 5, until: Some(7) }, Interval { from: 20, until: Some(23) }];
    device.listed(Start { conv: conv(), cursor: 0, head: 0, intervals: ended }, 200);
    assert_eq!(device.live(&conv(), 23, true, false), Live::Send { stream: 0 });
    assert_eq!(device.live(&conv(), 24, true, false), Live::Nothing);
    assert_eq!(device.next_reads(100), []);
}

#[test]
fn a_device_does_not_get_its_own_entry_and_its_cursor_passes_it() {
    let mut device = Device::new();
    device.load(vec![start(0, 0)], 200);
    assert_eq!(device.live(&conv(), 1, true, true), Live::Nothing);
    assert_eq!(device.take_moves(), [(conv(), 1, 0)]);
    assert_eq!(device.live(&conv(), 2, true, false), Live::Send { stream: 0 });
    device.acknowledged(0, 2, true);
    assert_eq!(device.take_moves(), [(conv(), 2, 2)]);
}

#[test]
fn streams_take_turns() {
    let mut device = Device::new();
    let other = ConvKey::pair("default", "alice", "bob");
    let pair = Start { conv: other.clone(), ..start(0, 10) };
    device.load(vec![start(0, 10), pair], 200);
    let mut order = Vec::new();
    loop {
        let reads = device.next_reads(8);
        if reads.is_empty() {
            break;
        }
        assert_eq!(device.next_reads(8), [], "one thing after the other");
        for Read { stream, conv, from, to } in reads {
            order.push((conv, from, to));
            device.read(stream, to);
        }
    }
    let expected = [(conv(), 1, 8), (other.clone(), 1, 8), (conv(), 9, 10), (other, 9, 10)];
    assert_eq!(order, expected);
}

#[test]
fn a_quiet_conversation_goes_on_where_it_stood() {
    let pair = |n: u32| ConvKey::pair("default", "alice", &format!("u{n}"));
    let mut device = Device::new();
    let starts = (0..3).map(|n| Start { conv: pair(n), ..start(7, 7) });
    assert_eq!(device.live(&pair(1), 8, true, false), Live::Nothing, "the list is not there yet");
    assert_eq!(device.load(starts.chain([start(3, 3)]).collect(), 200), []);
    assert_eq!(device.streams.len(), 1, "only what has news");
    assert_eq!(device.listens_to().collect::<Vec<_>>(), [&conv()]);
    assert_eq!(one_read(&mut device, 9), Read { stream: 0, conv: pair(1), from: 8, to: 8 });
    assert_eq!(device.live(&pair(0), 7, true, false), Live::Nothing, "it was in the list");
    assert_eq!(device.live(&pair(0), 8, true, false), Live::Send { stream: 1 });
    assert_eq!(device.live(&pair(2), 9, true, false), Live::Nothing, "8 is missing");
    assert_eq!(device.live(&conv(), 4, true, true), Live::Nothing);
    assert_eq!(device.take_moves(), [(conv(), 4, 0)], "its own");
    // A pair that is new to the user begins at its beginning.
    assert_eq!(device.live(&pair(9), 1, true, false), Live::Send { stream: 4 });
}

/// Another device of the user has all of it, and the list says so: this one goes on where it is.
#[test]
fn news_of_the_list_move_no_device_that_is_behind() {
    let mut device = Device::new();
    device.load(vec![start(1, 5)], 200);
    let intervals = vec![Interval { from: 1, until: Some(5) }];
    device.listed(Start { conv: conv(), cursor: 5, head: 5, intervals }, 200);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (2, 5));
}
