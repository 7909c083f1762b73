//! Runs made by hand, each with one thing wrong, or with something that looks wrong and is not.

use std::sync::Arc;

use super::cast::{Cast, Conv, DeviceRole};
use super::entry::{Entry, Kind};
use super::event::{Answer, Deed, Event, Line, Link, Sent, What};
use super::judge::{Fault, Judge};
use crate::Version;
use crate::crash::message::{Attempt, Message};

/// Devices: two of ann, one of bob, one of eve, who is in nothing.
const PHONE: usize = 0;
const DESK: usize = 1;
const BOB: usize = 2;
const EVE: usize = 3;
/// Conversations.
const PAIR: usize = 0;
const TEAM: usize = 1;
const NEWS: usize = 2;

fn cast() -> Cast {
    let device = |name: &str, user| DeviceRole {
        name: name.to_owned(),
        user,
        version: Version::V5,
        stored: true,
        exactly_once: false,
        receive_maximum: 9,
        diligence: 100,
    };
    Cast {
        users: ["ann", "bob", "eve"].map(str::to_owned).to_vec(),
        devices: vec![
            device("ios-0", 0),
            device("web-0", 0),
            device("ios-0", 1),
            device("ios-0", 2),
        ],
        convs: vec![
            Conv::Pair(0, 1),
            Conv::Group { id: "team".to_owned(), owner: 0, members: vec![1], shows_all: false },
            Conv::Channel { id: "news".to_owned(), owner: 0, publishers: Vec::new() },
        ],
    }
}

struct Story {
    judge: Judge,
    logs: [Vec<Entry>; 3],
    links: [Link; 4],
    last_link: Link,
}

impl Story {
    /// All are connected; the team has ann and bob.
    fn begin() -> Story {
        let judge = Judge::new(Arc::new(cast()), true);
        let mut story = Story { judge, logs: Default::default(), links: [0; 4], last_link: 0 };
        for device in [PHONE, DESK, BOB, EVE] {
            story.comes(device, false);
        }
        story.change("join", &["ann", "bob"]);
        for device in [PHONE, DESK, BOB] {
            story.gets(device, TEAM, 1);
        }
        story
    }

    fn comes(&mut self, device: usize, present: bool) {
        self.last_link += 1;
        let link = self.last_link;
        self.links[device] = link;
        self.judge.note(Event::Connect { device, link });
        self.judge.note(Event::Connected { device, link, present });
        self.judge.note(Event::Hello { device, link });
    }

    fn asks(&mut self, device: usize, conv: usize, what: What) -> usize {
        let deed = self.judge.register(Deed { device, conv, what, cid: !what.is_call(), qos: 1 });
        self.judge.note(Event::Asked { deed, attempt: 1 });
        deed
    }

    fn body(&self, deed: usize, attempt: u16) -> Vec<u8> {
        let Deed { device, conv, .. } = self.judge.deed(deed);
        let message = Message { publisher: device as u16, topic: conv as u16, seq: deed as u32 };
        Attempt { message, number: attempt }.payload(0)
    }

    /// The broker stores an entry.
    fn append(
        &mut self,
        conv: usize,
        from: &str,
        kind: Kind,
        reference: u64,
        payload: Vec<u8>,
    ) -> u64 {
        let seq = self.logs[conv].len() as u64 + 1;
        let before = self.logs[conv].last().and_then(|entry| entry.count).unwrap_or(0);
        self.logs[conv].push(Entry {
            seq,
            id: format!("{seq:013}"),
            ts: self.judge.now_ms.max(1_000 + seq),
            from: from.to_owned(),
            kind,
            reference,
            count: Some(before + u64::from(kind == Kind::Message)),
            cid: None,
            payload,
        });
        seq
    }

    fn change(&mut self, op: &str, users: &[&str]) -> u64 {
        let change = serde_json::json!({ "op": op, "users": users, "by": "ann" });
        self.append(TEAM, "ann", Kind::Member, 0, change.to_string().into_bytes())
    }

    fn answered(&mut self, deed: usize, seq: u64) {
        let entry = &self.logs[self.judge.deed(deed).conv][seq as usize - 1];
        let sent = Sent { seq, id: entry.id.clone(), ts: entry.ts };
        self.judge.note(Event::Answered { deed, answer: Answer::Sent(sent) });
    }

    /// Sent, stored, acknowledged.
    fn sends(&mut self, device: usize, conv: usize) -> u64 {
        self.operates(device, conv, What::Send)
    }

    /// Asked, and answered.
    fn does(&mut self, device: usize, conv: usize, what: What) {
        let deed = self.asks(device, conv, what);
        self.judge.note(Event::Answered { deed, answer: Answer::Done });
    }

    /// So many seconds later.
    fn passes(&mut self, secs: u64) {
        self.judge.now_ms += secs * 1000;
    }

    fn stores(&mut self, deed: usize) -> u64 {
        let Deed { device, conv, what, .. } = self.judge.deed(deed);
        let cast = self.judge.cast.clone();
        let from = &cast.users[cast.devices[device].user];
        let (kind, of) = match what {
            What::Recall(of) => (Kind::Recall, of),
            What::Edit(of) => (Kind::Edit, of),
            _ => (Kind::Message, 0),
        };
        let body = if kind == Kind::Recall { Vec::new() } else { self.body(deed, 1) };
        if of > 0 {
            let entry = &mut self.logs[conv][of as usize - 1];
            entry.payload.clone_from(&body);
            entry.kind = if kind == Kind::Recall { Kind::Void } else { entry.kind };
        }
        self.append(conv, from, kind, of, body)
    }

    fn operates(&mut self, device: usize, conv: usize, what: What) -> u64 {
        let deed = self.asks(device, conv, what);
        let seq = self.stores(deed);
        self.answered(deed, seq);
        seq
    }

    fn is_sent(&mut self, device: usize, conv: usize, entry: Entry) {
        let link = self.links[device];
        self.judge.note(Event::Delivered { device, link, conv, entry });
    }

    /// Delivered as it stands now, and acknowledged.
    fn gets(&mut self, device: usize, conv: usize, seq: u64) {
        let entry = self.logs[conv][seq as usize - 1].clone();
        self.is_sent(device, conv, entry);
        self.judge.note(Event::Acknowledged { device, conv, seq });
    }

    /// Sent by ann's phone, and all the others have it.
    fn talks(&mut self, conv: usize) -> u64 {
        let seq = self.sends(PHONE, conv);
        self.gets(DESK, conv, seq);
        self.gets(BOB, conv, seq);
        seq
    }

    /// Everybody tells the list and pulls; `twist` changes what a user is told.
    fn rests_with(
        &mut self,
        twist: impl Fn(&mut Line),
        leave_out: Option<(usize, u64)>,
    ) -> Vec<Fault> {
        let since = self.judge.order();
        let cast = self.judge.cast.clone();
        for (user, device) in [(0, PHONE), (1, BOB), (2, EVE)] {
            let mut lines = Vec::new();
            for conv in [PAIR, TEAM, NEWS] {
                let member = self.members(conv)[user].clone();
                let log = self.logs[conv].clone();
                if member.sees.is_empty() || log.is_empty() {
                    continue;
                }
                let deed = self.asks(device, conv, What::Pull(1));
                for entry in log.iter().filter(|entry| member.may_see(entry.seq)) {
                    if leave_out != Some((user, entry.seq)) {
                        self.judge.note(Event::Pulled { deed, entry: entry.clone() });
                    }
                }
                let until = member.sees.last().and_then(|(_, until)| *until);
                let last = until.unwrap_or(u64::MAX).min(log.len() as u64);
                let min = member.sees[0].0;
                self.judge.note(Event::PullEnded { deed, next: None, min, last });
                let own =
                    log.iter().filter(|e| e.kind != Kind::Recall && e.from == cast.users[user]);
                let own = own.filter(|e| matches!(e.kind, Kind::Message | Kind::Void));
                let read = own.map(|entry| entry.seq).max().unwrap_or(0);
                let open = log.iter().filter(|e| e.seq > read && e.kind == Kind::Message).count();
                let counts = |e: &&Entry| matches!(e.kind, Kind::Message | Kind::Void);
                let count = log.iter().filter(|e| e.seq <= last && counts(e)).count() as u64;
                let unread = open as u64;
                let mut line = Line { conv, last, count, unread, read, recv: read, min };
                twist(&mut line);
                lines.push(line);
            }
            let deed = self.asks(device, 0, What::Heads);
            self.judge.note(Event::Listed { deed, lines });
        }
        self.judge.verdict(since)
    }

    fn members(&self, conv: usize) -> Vec<super::log::Member> {
        let mut log = super::log::Log::default();
        for entry in &self.logs[conv] {
            let _ = log.seen(entry, None);
        }
        let mut members = log.intervals(&self.judge.cast.convs[conv], &self.judge.cast.users);
        if conv == NEWS {
            // Ann's channel, which bob follows.
            members[0].sees.push((1, None));
            members[1].sees.push((1, None));
        }
        members
    }

    fn rests(&mut self) -> Vec<Fault> {
        self.rests_with(|_| {}, None)
    }
}

#[track_caller]
fn clean(mut story: Story) {
    assert_eq!(story.rests(), []);
}

#[track_caller]
fn says(faults: &[Fault], what: &str) {
    assert!(faults.iter().any(|fault| fault.what.contains(what)), "{what:?} not in {faults:#?}");
}

#[test]
fn an_ordinary_talk_is_clean() {
    let mut story = Story::begin();
    for conv in [PAIR, TEAM] {
        let seq = story.talks(conv);
        story.talks(conv);
        for device in [DESK, BOB] {
            let recall = (device == DESK).then(|| story.operates(PHONE, conv, What::Recall(seq)));
            let _ = recall;
        }
        let head = story.logs[conv].len() as u64;
        story.gets(DESK, conv, head);
        story.gets(BOB, conv, head);
    }
    clean(story);
}

#[test]
fn what_was_acknowledged_is_there_under_its_number() {
    let mut story = Story::begin();
    story.talks(PAIR);
    story.sends(PHONE, PAIR);
    story.logs[PAIR].pop();
    says(&story.rests(), "nobody knows entry 2");

    // The number was given away a second time.
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.logs[PAIR].clear();
    let deed = story.asks(DESK, PAIR, What::Send);
    story.stores(deed);
    story.gets(BOB, PAIR, 1);
    story.logs[PAIR][0].id = "other".to_owned();
    story.comes(BOB, true);
    story.gets(BOB, PAIR, 1);
    says(&story.rests(), "id and time was");

    let mut story = Story::begin();
    let deed = story.asks(PHONE, PAIR, What::Send);
    story.judge.note(Event::Answered { deed, answer: Answer::Done });
    says(&story.rests(), "is not stored");
}

#[test]
fn a_number_names_one_message_and_a_message_one_number() {
    let mut story = Story::begin();
    let (first, second) =
        (story.asks(PHONE, PAIR, What::Send), story.asks(PHONE, PAIR, What::Send));
    story.stores(first);
    story.gets(BOB, PAIR, 1);
    story.logs[PAIR][0].payload = story.body(second, 1);
    story.gets(DESK, PAIR, 1);
    says(&story.judge.faults, "number 1 was");

    let mut story = Story::begin();
    let deed = story.asks(PHONE, PAIR, What::Send);
    let seq = story.stores(deed);
    story.answered(deed, seq);
    story.judge.note(Event::Asked { deed, attempt: 2 });
    let body = story.body(deed, 2);
    let again = story.append(PAIR, "ann", Kind::Message, 0, body);
    story.answered(deed, again);
    says(&story.judge.faults, "stored 2 times");
}

#[test]
fn entries_come_in_order_and_none_is_skipped() {
    let mut story = Story::begin();
    story.talks(PAIR);
    story.sends(PHONE, PAIR);
    story.sends(PHONE, PAIR);
    story.gets(DESK, PAIR, 2);
    story.gets(DESK, PAIR, 3);
    story.gets(BOB, PAIR, 3);
    says(&story.rests(), "gets 3 before 2");

    let mut story = Story::begin();
    story.talks(PAIR);
    story.talks(PAIR);
    story.gets(BOB, PAIR, 1);
    says(&story.judge.faults, "1 came after 2");

    let mut story = Story::begin();
    story.talks(PAIR);
    story.sends(PHONE, PAIR);
    story.gets(DESK, PAIR, 2);
    says(&story.rests(), "d2 has not got 2");
}

#[test]
fn what_was_not_acknowledged_comes_again_and_what_was_may_not() {
    // Acknowledged over the last connection: the session goes on behind it.
    let mut story = Story::begin();
    story.talks(PAIR);
    story.comes(BOB, true);
    story.talks(PAIR);
    clean(story);

    // Not acknowledged: to be sent again before what follows.
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.gets(DESK, PAIR, 1);
    let entry = story.logs[PAIR][0].clone();
    story.is_sent(BOB, PAIR, entry);
    story.comes(BOB, true);
    story.talks(PAIR);
    says(&story.rests(), "d2 gets 2 before 1");
}

#[test]
fn a_new_session_begins_where_its_user_is() {
    let mut story = Story::begin();
    story.talks(PAIR);
    story.comes(DESK, false);
    story.talks(PAIR);
    clean(story);

    // Bob has received nothing with any device.
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.gets(DESK, PAIR, 1);
    story.comes(BOB, false);
    story.talks(PAIR);
    says(&story.rests(), "d2 gets 2 before 1");
}

#[test]
fn gaps_name_what_is_left_out() {
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.sends(PHONE, PAIR);
    for device in [DESK, BOB] {
        story.judge.note(Event::Gap { device, conv: PAIR, from: 1, to: 1 });
        story.gets(device, PAIR, 2);
    }
    clean(story);
}

#[test]
fn a_device_never_gets_its_own_and_nobody_what_is_not_for_it() {
    let mut story = Story::begin();
    story.sends(PHONE, PAIR);
    story.gets(PHONE, PAIR, 1);
    says(&story.judge.faults, "its own entry");

    let mut story = Story::begin();
    let seq = story.talks(TEAM);
    story.gets(EVE, TEAM, seq);
    says(&story.rests(), "which is not for it");

    // Bob is out from the kick on, which he still sees.
    let mut story = Story::begin();
    story.talks(TEAM);
    let kick = story.change("kick", &["bob"]);
    story.gets(PHONE, TEAM, kick);
    story.gets(DESK, TEAM, kick);
    story.gets(BOB, TEAM, kick);
    let seq = story.sends(PHONE, TEAM);
    story.gets(DESK, TEAM, seq);
    story.gets(BOB, TEAM, seq);
    says(&story.rests(), "which is not for it");
}

#[test]
fn who_is_out_writes_nothing() {
    let mut story = Story::begin();
    let deed = story.asks(EVE, TEAM, What::Send);
    let seq = story.stores(deed);
    story.answered(deed, seq);
    [PHONE, DESK, BOB].iter().for_each(|device| story.gets(*device, TEAM, seq));
    says(&story.rests(), "eve is no member");

    let mut story = Story::begin();
    let block = story.asks(BOB, PAIR, What::Block);
    story.judge.note(Event::Answered { deed: block, answer: Answer::Done });
    story.talks(PAIR);
    says(&story.rests(), "passed a block");

    let mut story = Story::begin();
    let deed = story.asks(PHONE, PAIR, What::Send);
    story.judge.note(Event::Answered { deed, answer: Answer::Refused("135".to_owned()) });
    says(&story.rests(), "refused without a reason");
}

#[test]
fn a_recalled_body_never_comes_later() {
    // Written before the recall was acknowledged, for all that can be known: allowed.
    let mut story = Story::begin();
    let seq = story.sends(PHONE, PAIR);
    let body = story.logs[PAIR][0].clone();
    story.gets(DESK, PAIR, seq);
    let recall = story.operates(PHONE, PAIR, What::Recall(seq));
    story.is_sent(BOB, PAIR, body.clone());
    story.judge.note(Event::Acknowledged { device: BOB, conv: PAIR, seq });
    story.gets(BOB, PAIR, recall);
    story.gets(DESK, PAIR, recall);
    clean(story);

    // Bob's connection began after that, or has answered a ping sent after that.
    for ping in [false, true] {
        let mut story = Story::begin();
        let seq = story.sends(PHONE, PAIR);
        let body = story.logs[PAIR][0].clone();
        story.operates(PHONE, PAIR, What::Recall(seq));
        if ping {
            story.judge.note(Event::Ping { device: BOB });
            story.judge.note(Event::Pong { device: BOB });
        } else {
            story.comes(BOB, true);
        }
        story.is_sent(BOB, PAIR, body);
        says(&story.judge.faults, "which was recalled before");
    }

    // The event of an edit carries a body, too.
    let mut story = Story::begin();
    let seq = story.talks(PAIR);
    let edit = story.operates(PHONE, PAIR, What::Edit(seq));
    let entry = story.logs[PAIR][edit as usize - 1].clone();
    story.operates(PHONE, PAIR, What::Recall(seq));
    story.comes(BOB, true);
    story.is_sent(BOB, PAIR, entry);
    says(&story.judge.faults, "which was recalled before");

    // Still in the log.
    let mut story = Story::begin();
    let seq = story.talks(PAIR);
    let body = story.logs[PAIR][0].clone();
    let recall = story.operates(PHONE, PAIR, What::Recall(seq));
    story.gets(DESK, PAIR, recall);
    story.gets(BOB, PAIR, recall);
    story.logs[PAIR][0] = body;
    says(&story.rests(), "which was recalled before");
}

#[test]
fn lists_and_pulls_say_what_the_log_says() {
    type Twist = fn(&mut Line);
    let table: [(Twist, &str); 7] = [
        (|line| line.unread += 1, "unread"),
        (|line| line.read = 0, "has read up to"),
        (|line| line.count += 1, "is 2..2 with 2"),
        (|line| line.last += 1, "nobody knows entry 3"),
        (|line| line.last -= 1, "is 2..2 with 1"),
        (|line| line.recv += 100, "has received up to"),
        (|line| line.min += 1, "sees from 2 on"),
    ];
    for (twist, what) in table {
        let mut story = Story::begin();
        story.talks(PAIR);
        story.talks(PAIR);
        says(&story.rests_with(twist, None), what);
    }
    let mut story = Story::begin();
    story.talks(PAIR);
    story.talks(PAIR);
    says(&story.rests_with(|_| {}, Some((1, 1))), "bob pulls Some(2) where Some(1)");
    let mut story = Story::begin();
    story.talks(PAIR);
    story.talks(PAIR);
    story.logs[PAIR][1].count = Some(7);
    story.comes(EVE, true);
    says(&story.rests(), "count was 2, is 7");
}

#[test]
fn a_channel_has_publishers_and_followers() {
    let follow = |story: &mut Story| {
        story.does(PHONE, NEWS, What::Create);
        story.does(BOB, NEWS, What::Join);
    };
    let mut story = Story::begin();
    follow(&mut story);
    story.talks(NEWS);
    clean(story);

    let mut story = Story::begin();
    follow(&mut story);
    let seq = story.sends(BOB, NEWS);
    story.gets(PHONE, NEWS, seq);
    story.gets(DESK, NEWS, seq);
    says(&story.rests(), "bob is no publisher");

    let mut story = Story::begin();
    follow(&mut story);
    let seq = story.talks(NEWS);
    story.gets(EVE, NEWS, seq);
    says(&story.rests(), "which is not for it");

    // Who has gone hears nothing of what is said then.
    let mut story = Story::begin();
    follow(&mut story);
    story.does(BOB, NEWS, What::Leave);
    story.talks(NEWS);
    says(&story.rests(), "which is not for it");

    let mut story = Story::begin();
    follow(&mut story);
    let seq = story.sends(PHONE, NEWS);
    story.gets(DESK, NEWS, seq);
    says(&story.rests(), "d2 has not got 1");
}

#[test]
fn a_message_burns_once_it_was_read_for_so_long() {
    let burn = |story: &mut Story, wait: u64, read: bool| {
        story.operates(PHONE, PAIR, What::Burning(2));
        story.gets(DESK, PAIR, 1);
        story.gets(BOB, PAIR, 1);
        if read {
            story.does(BOB, PAIR, What::Read(1));
        }
        story.passes(wait);
    };
    let burns = |story: &mut Story| {
        story.logs[PAIR][0].kind = Kind::Void;
        story.logs[PAIR][0].payload.clear();
        let seq = story.append(PAIR, "ann", Kind::Burn, 1, Vec::new());
        [PHONE, DESK, BOB].iter().for_each(|device| story.gets(*device, PAIR, seq));
    };
    let told = |line: &mut Line| {
        (line.read, line.recv, line.unread) = (1, 1, 0);
    };
    for (wait, read, what) in
        [(3, true, None), (1, true, Some("burns at")), (9, false, Some("burns at"))]
    {
        let mut story = Story::begin();
        story.passes(5);
        burn(&mut story, wait, read);
        burns(&mut story);
        let faults = story.rests_with(
            |line| {
                if line.conv == PAIR && read {
                    told(line)
                }
            },
            None,
        );
        match what {
            Some(what) => says(&faults, what),
            None => assert_eq!(faults, []),
        }
    }
    let mut story = Story::begin();
    burn(&mut story, 60, true);
    says(&story.rests(), "what should have burnt");

    let mut story = Story::begin();
    story.passes(5);
    burn(&mut story, 3, true);
    let body = story.logs[PAIR][0].clone();
    burns(&mut story);
    story.comes(BOB, true);
    story.is_sent(BOB, PAIR, body);
    says(&story.judge.faults, "which was recalled before");
}

#[test]
fn what_has_expired_is_void_and_nothing_else_is() {
    let send = |story: &mut Story| {
        story.passes(5);
        story.operates(PHONE, PAIR, What::Fleeting(2));
        story.gets(DESK, PAIR, 1);
    };
    let void = |story: &mut Story| {
        story.logs[PAIR][0].kind = Kind::Void;
        story.logs[PAIR][0].payload.clear();
        story.gets(BOB, PAIR, 1);
    };
    // A list counts it still.
    let counted = |line: &mut Line| line.unread = u64::from(line.conv == PAIR && line.read == 0);
    let mut story = Story::begin();
    send(&mut story);
    story.passes(3);
    void(&mut story);
    assert_eq!(story.rests_with(counted, None), []);

    let mut story = Story::begin();
    send(&mut story);
    story.passes(1);
    void(&mut story);
    says(&story.rests(), "void, and nobody has recalled it");

    let mut story = Story::begin();
    send(&mut story);
    story.passes(9);
    story.comes(BOB, true);
    story.gets(BOB, PAIR, 1);
    says(&story.judge.faults, "that had expired");
}

#[test]
fn what_was_cleared_is_gone_and_what_is_hidden_comes_back_with_news() {
    let mut story = Story::begin();
    story.talks(PAIR);
    story.does(BOB, PAIR, What::Clear);
    says(&story.rests(), "bob sees from 1 on, cleared 1..1");

    let mut story = Story::begin();
    story.talks(PAIR);
    story.does(BOB, PAIR, What::Hide(true));
    says(&story.rests(), "bob: in the list");

    let gone = |story: &mut Story| {
        story.rests_with(
            |line| {
                if line.conv == PAIR {
                    line.conv = usize::MAX
                }
            },
            None,
        )
    };
    let mut story = Story::begin();
    story.talks(PAIR);
    says(&gone(&mut story), "bob: not in the list");

    let mut story = Story::begin();
    story.talks(PAIR);
    for device in [PHONE, BOB] {
        story.does(device, PAIR, What::Hide(true));
    }
    assert_eq!(gone(&mut story), []);

    let mut story = Story::begin();
    story.talks(PAIR);
    story.does(BOB, PAIR, What::Hide(true));
    story.talks(PAIR);
    says(&gone(&mut story), "bob: not in the list");

    // Hidden perhaps, as the answer was lost: its entries are asked for all the same.
    let mut story = Story::begin();
    story.talks(PAIR);
    story.asks(BOB, PAIR, What::Hide(true));
    gone(&mut story);
    assert!(story.judge.listed(1).contains(&PAIR));
}

#[test]
fn what_all_have_cleared_before_anybody_saw_it_is_not_missed() {
    let unseen = |cleared: bool| {
        let mut story = Story::begin();
        story.talks(PAIR);
        // Without an id of its own the acknowledgement tells no number.
        let deed = story.asks(PHONE, PAIR, What::Send);
        story.stores(deed);
        story.judge.note(Event::Answered { deed, answer: Answer::Done });
        for device in [PHONE, BOB].into_iter().filter(|_| cleared) {
            story.does(device, PAIR, What::Clear);
        }
        story.talks(PAIR);
        story.judge.verdict(story.judge.order())
    };
    assert_eq!(unseen(true), []);
    says(&unseen(false), "nobody knows entry 2");
}

#[test]
fn what_retention_has_taken_may_be_named_over_a_connection_that_is_lost() {
    let gets_the_third = |lost: bool, keep: u64| {
        let mut story = Story::begin();
        story.judge.keep = Some(keep);
        for _ in 0..3 {
            let seq = story.sends(PHONE, PAIR);
            story.gets(DESK, PAIR, seq);
        }
        if lost {
            let link = story.last_link + 1;
            story.judge.note(Event::Connect { device: BOB, link });
        }
        story.last_link += 1;
        story.comes(BOB, true);
        story.gets(BOB, PAIR, 3);
        let since = story.judge.order();
        story.judge.verdict(since)
    };
    let missed = |faults: &[Fault]| faults.iter().any(|f| f.what.contains("d2 gets 3 before"));
    assert!(!missed(&gets_the_third(true, 1)));
    assert!(missed(&gets_the_third(true, 2)), "1 alone may have been named");
    assert!(missed(&gets_the_third(false, 1)), "nothing was lost");
}

#[test]
fn what_is_refused_when_it_is_asked_again_may_have_been_done() {
    let cleared = |attempts: u16| {
        let mut story = Story::begin();
        story.talks(PAIR);
        let deed = story.asks(BOB, PAIR, What::Clear);
        for attempt in 2..=attempts {
            story.judge.note(Event::Asked { deed, attempt });
        }
        let answer = Answer::Refused("unavailable".to_owned());
        story.judge.note(Event::Answered { deed, answer });
        let since = story.judge.order();
        let deed = story.asks(BOB, PAIR, What::Heads);
        let pair = Line { conv: PAIR, last: 1, count: 1, unread: 0, read: 1, recv: 1, min: 2 };
        let team = Line { conv: TEAM, last: 1, count: 0, unread: 0, read: 0, recv: 1, min: 1 };
        story.judge.note(Event::Listed { deed, lines: vec![pair, team] });
        story.judge.verdict(since)
    };
    assert_eq!(cleared(2), []);
    says(&cleared(1), "bob sees from 2 on");
}

#[test]
fn what_nobody_has_seen_is_missed_unless_all_have_cleared_it() {
    let cleared_by = |devices: &[usize]| {
        let mut story = Story::begin();
        story.does(PHONE, PAIR, What::Send);
        for device in devices {
            story.does(*device, PAIR, What::Clear);
        }
        let since = story.judge.order();
        let deed = story.asks(BOB, PAIR, What::Pull(1));
        story.judge.note(Event::PullEnded { deed, next: None, min: 2, last: 1 });
        story.judge.verdict(since)
    };
    assert_eq!(cleared_by(&[PHONE, BOB]), []);
    says(&cleared_by(&[BOB]), "nobody knows entry 1");
}

#[test]
fn retention_takes_what_is_beyond_it_and_nothing_else() {
    let kept = |from: u64, keep: u64| {
        let mut story = Story::begin();
        story.judge.keep = Some(keep);
        (0..4).for_each(|_| {
            story.talks(PAIR);
        });
        let told = |line: &mut Line| {
            if line.conv == PAIR {
                (line.min, line.unread) = (from, line.unread.min(5 - from));
            }
        };
        story.rests_with(told, None)
    };
    let pulls = |fault: &Fault| fault.what.contains("pulls");
    assert!(kept(3, 2).iter().all(pulls));
    says(&kept(4, 2), "sees from 4 on");
}
