//! Live or replay, on positions alone.

use super::*;

fn conv() -> ConvKey {
    ConvKey::group("default", "team")
}

fn start(cursor: u64, head: u64) -> Start {
    let intervals = vec![Interval { from: 1, until: None }];
    Start { conv: conv(), cursor, head, intervals }
}

#[test]
fn live_entries_wait_until_what_is_before_them_is_read() {
    let mut device = Device::new();
    assert_eq!(device.live(&conv(), 12, true, false), Live::Nothing, "the list is not there yet");
    assert_eq!(device.load(vec![start(5, 10)], 200), []);
    let read = device.next_read(3).unwrap();
    assert_eq!((read.from, read.to), (6, 8));
    assert_eq!(device.live(&conv(), 13, true, false), Live::Nothing, "it would overtake");
    device.read(8);
    let read = device.next_read(100).unwrap();
    assert_eq!((read.from, read.to), (9, 13), "with what came live meanwhile");
    device.read(13);
    assert_eq!(device.next_read(100), None);
    assert_eq!(device.live(&conv(), 14, true, false), Live::Send { stream: 0 });
    assert_eq!(device.live(&conv(), 15, false, false), Live::Nothing, "no room");
    let read = device.next_read(100).unwrap();
    assert_eq!((read.from, read.to), (15, 15));
}

#[test]
fn a_long_absence_becomes_a_gap_and_the_newest_entries() {
    let mut device = Device::new();
    let gaps = device.load(vec![start(10, 1_000)], 200);
    assert_eq!(gaps, [Gap { conv: conv(), from: 11, to: 800 }]);
    assert_eq!(device.take_moves(), [(conv(), 800, 0)], "the cursor passes the gap, recv does not");
    let read = device.next_read(1_000).unwrap();
    assert_eq!((read.from, read.to), (801, 1_000));
}

#[test]
fn only_what_a_member_may_see_is_read() {
    let mut device = Device::new();
    let intervals = vec![Interval { from: 5, until: Some(7) }, Interval { from: 20, until: None }];
    device.load(vec![Start { conv: conv(), cursor: 0, head: 22, intervals }], 200);
    let read = device.next_read(100).unwrap();
    assert_eq!((read.from, read.to), (5, 7));
    device.read(7);
    let read = device.next_read(100).unwrap();
    assert_eq!((read.from, read.to), (20, 22));
    device.read(22);
    assert_eq!(device.next_read(100), None);
    // The membership ends: what comes later is not for this device.
    let ended = vec![Interval { from: 5, until: Some(7) }, Interval { from: 20, until: Some(23) }];
    device.listed(Start { conv: conv(), cursor: 0, head: 0, intervals: ended }, 200);
    assert_eq!(device.live(&conv(), 23, true, false), Live::Send { stream: 0 });
    assert_eq!(device.live(&conv(), 24, true, false), Live::Nothing);
    assert_eq!(device.next_read(100), None);
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
    while let Some(read) = device.next_read(5) {
        order.push((read.conv, read.from, read.to));
        device.read(read.to);
    }
    let expected = [(conv(), 1, 5), (other.clone(), 1, 5), (conv(), 6, 10), (other, 6, 10)];
    assert_eq!(order, expected);
}

/// Another device of the user has all of it, and the list says so: this one goes on where it is.
#[test]
fn news_of_the_list_move_no_device_that_is_behind() {
    let mut device = Device::new();
    device.load(vec![start(1, 5)], 200);
    let intervals = vec![Interval { from: 1, until: Some(5) }];
    device.listed(Start { conv: conv(), cursor: 5, head: 5, intervals }, 200);
    let read = device.next_read(100).map(|read| (read.from, read.to));
    assert_eq!(read, Some((2, 5)));
}
