//! Live or replay, on positions alone.

use smallvec::smallvec;

use super::*;
use crate::rows::UserConv;

fn conv() -> ConvKey {
    ConvKey::group("default", "team")
}

fn start(cursor: u64, head: u64) -> Start {
    let intervals = since(1);
    Start { conv: conv(), cursor, head, intervals, version: 1 }
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
    assert_eq!(device.load([start(5, 10)].into_iter().collect(), 200), []);
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
    let gaps = device.load([start(10, 1_000)].into_iter().collect(), 200);
    assert_eq!(gaps, [Gap { conv: conv(), from: 11, to: 800 }]);
    assert_eq!(device.take_moves(), [(conv(), 800, 0)], "the cursor passes the gap, recv does not");
    let read = one_read(&mut device, 1_000);
    assert_eq!((read.from, read.to), (801, 1_000));
}

#[test]
fn only_what_a_member_may_see_is_read() {
    let mut device = Device::new();
    let intervals =
        smallvec![Interval { from: 5, until: Some(7) }, Interval { from: 20, until: None }];
    device.load([Start { intervals, ..start(0, 22) }].into_iter().collect(), 200);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (5, 7));
    device.read(0, 7);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (20, 22));
    device.read(0, 22);
    assert_eq!(device.next_reads(100), []);
    // The membership ends: what comes later is not for this device.
    let ended =
        smallvec![Interval { from: 5, until: Some(7) }, Interval { from: 20, until: Some(23) }];
    device.listed(Start { intervals: ended, version: 2, ..start(0, 0) }, 200);
    assert_eq!(device.live(&conv(), 23, true, false), Live::Send { stream: 0 });
    assert_eq!(device.live(&conv(), 24, true, false), Live::Nothing);
    assert_eq!(device.next_reads(100), []);
}

#[test]
fn a_device_does_not_get_its_own_entry_and_its_cursor_passes_it() {
    let mut device = Device::new();
    device.load([start(0, 0)].into_iter().collect(), 200);
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
    device.load([start(0, 10), pair].into_iter().collect(), 200);
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

/// The head was read before the user was back, the membership after it.
#[test]
fn what_came_between_two_memberships_is_not_for_a_quiet_device() {
    let mut device = Device::new();
    device.load([Start { cursor: 3, head: 3, ..came_back() }].into_iter().collect(), 200);
    assert_eq!(device.live(&conv(), 4, true, false), Live::Nothing);
    assert_eq!(device.live(&conv(), 6, true, false), Live::Nothing);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (6, 6));
}

/// Another device of the user has all of it, and the list says so: this one goes on where it is.
#[test]
fn news_of_the_list_move_no_device_that_is_behind() {
    let mut device = Device::new();
    device.load([start(1, 5)].into_iter().collect(), 200);
    let intervals = smallvec![Interval { from: 1, until: Some(5) }];
    device.listed(Start { intervals, version: 2, ..start(5, 5) }, 200);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (2, 5));
}

/// A member up to 3, and again from 6 on.
fn came_back() -> Start {
    let intervals =
        smallvec![Interval { from: 1, until: Some(3) }, Interval { from: 6, until: None }];
    Start { intervals, version: 3, ..start(0, 6) }
}

#[test]
fn news_of_a_membership_count_in_its_order() {
    let ended = || Start {
        intervals: smallvec![Interval { from: 1, until: Some(3) }],
        version: 2,
        ..start(0, 3)
    };
    let mut device = Device::new();
    device.load([start(3, 3)].into_iter().collect(), 200);
    device.listed(came_back(), 200);
    device.listed(ended(), 200);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (6, 6), "what ended before is no news");
    // The list was read before the news, and arrives after them.
    let mut device = Device::new();
    device.listed(came_back(), 200);
    device.listed(ended(), 200);
    device.load([start(3, 3)].into_iter().collect(), 200);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (6, 6));
    // Or it knows more.
    let mut device = Device::new();
    device.listed(ended(), 200);
    device.load([Start { cursor: 3, ..came_back() }].into_iter().collect(), 200);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (6, 6));
}

#[test]
fn a_group_of_which_entries_come_first_begins_where_the_list_says() {
    let joined = |head| {
        let intervals = since(8);
        Start { intervals, ..start(7, head) }
    };
    let mut device = Device::new();
    device.load(Starts::default(), 200);
    assert_eq!(device.live(&conv(), 8, true, false), Live::Nothing);
    assert_eq!(device.next_reads(100), [], "since when the user is there is not known yet");
    assert_eq!(device.listed(joined(7), 200), None);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (8, 8));
    // The same while the list is being read.
    let mut device = Device::new();
    assert_eq!(device.live(&conv(), 8, true, false), Live::Nothing);
    assert_eq!(device.load(Starts::default(), 200), []);
    assert_eq!(device.next_reads(100), []);
    assert_eq!(device.listed(joined(7), 200), None);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (8, 8));
    // And when the list says so before it has arrived.
    let mut device = Device::new();
    assert_eq!(device.live(&conv(), 9, true, false), Live::Nothing);
    assert_eq!(device.listed(joined(8), 200), None);
    assert_eq!(device.load(Starts::default(), 200), []);
    let read = one_read(&mut device, 100);
    assert_eq!((read.from, read.to), (8, 9));
}

#[test]
fn a_device_begins_where_the_user_joined_and_not_where_others_are() {
    let row = |intervals: &[(u64, Option<u64>)], recv, version| {
        let interval = |(from, until): &(u64, Option<u64>)| Interval { from: *from, until: *until };
        let intervals = intervals.iter().map(interval).collect();
        UserConv { recv, intervals, version, ..UserConv::default() }
    };
    let cursor = |conv: &ConvKey, row| Start::of_listed(conv, row, 9).cursor;
    assert_eq!(cursor(&conv(), row(&[(6, None)], 5, 1)), 5);
    assert_eq!(cursor(&conv(), row(&[(1, None)], 5, 1)), 5, "the history is there to be pulled");
    let left = row(&[(6, Some(8))], 7, 2);
    assert_eq!(cursor(&conv(), left), 5, "another device has got 6 and 7, this one has not");
    let pair = ConvKey::pair("default", "alice", "bob");
    assert_eq!(cursor(&pair, row(&[(1, None)], 5, 0)), 0);
}
