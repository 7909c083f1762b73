//! Runs made by hand, told step by step.

use std::sync::Arc;

use crate::Version;
use crate::chat::cast::{Cast, Conv, DeviceRole};
use crate::chat::entry::{Entry, Kind};
use crate::chat::event::{Answer, Deed, Event, Line, Link, Sent, What};
use crate::chat::judge::{Fault, Judge};
use crate::crash::message::{Attempt, Message};

/// Devices: two of ann, one of bob, one of eve, who is in nothing.
pub(super) const PHONE: usize = 0;
pub(super) const DESK: usize = 1;
pub(super) const BOB: usize = 2;
pub(super) const EVE: usize = 3;
/// Conversations.
pub(super) const PAIR: usize = 0;
pub(super) const TEAM: usize = 1;
pub(super) const NEWS: usize = 2;

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

pub(super) struct Story {
    pub(super) judge: Judge,
    pub(super) logs: [Vec<Entry>; 3],
    pub(super) links: [Link; 4],
    pub(super) last_link: Link,
}

impl Story {
    /// All are connected; the team has ann and bob.
    pub(super) fn begin() -> Story {
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

    pub(super) fn comes(&mut self, device: usize, present: bool) {
        self.last_link += 1;
        let link = self.last_link;
        self.links[device] = link;
        self.judge.note(Event::Connect { device, link, anew: false });
        self.judge.note(Event::Connected { device, link, present });
        self.judge.note(Event::Hello { device, link });
    }

    pub(super) fn asks(&mut self, device: usize, conv: usize, what: What) -> usize {
        let deed = self.judge.register(Deed { device, conv, what, cid: !what.is_call(), qos: 1 });
        let meant = self.judge.deed(deed);
        self.judge.note(Event::Asked { deed, meant, attempt: 1 });
        deed
    }

    pub(super) fn body(&self, deed: usize, attempt: u16) -> Vec<u8> {
        let Deed { device, conv, .. } = self.judge.deed(deed);
        let message = Message { publisher: device as u16, topic: conv as u16, seq: deed as u32 };
        Attempt { message, number: attempt }.payload(0)
    }

    /// The broker stores an entry.
    pub(super) fn append(
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

    pub(super) fn change(&mut self, op: &str, users: &[&str]) -> u64 {
        let change = serde_json::json!({ "op": op, "users": users, "by": "ann" });
        self.append(TEAM, "ann", Kind::Member, 0, change.to_string().into_bytes())
    }

    pub(super) fn answered(&mut self, deed: usize, seq: u64) {
        let entry = &self.logs[self.judge.deed(deed).conv][seq as usize - 1];
        let sent = Sent { seq, id: entry.id.clone(), ts: entry.ts };
        self.judge.note(Event::Answered { deed, answer: Answer::Sent(sent) });
    }

    /// Sent, stored, acknowledged.
    pub(super) fn sends(&mut self, device: usize, conv: usize) -> u64 {
        self.operates(device, conv, What::Send)
    }

    /// Asked, and answered.
    pub(super) fn does(&mut self, device: usize, conv: usize, what: What) {
        let deed = self.asks(device, conv, what);
        self.judge.note(Event::Answered { deed, answer: Answer::Done });
    }

    /// So many seconds later.
    pub(super) fn passes(&mut self, secs: u64) {
        self.judge.now_ms += secs * 1000;
    }

    pub(super) fn stores(&mut self, deed: usize) -> u64 {
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

    pub(super) fn operates(&mut self, device: usize, conv: usize, what: What) -> u64 {
        let deed = self.asks(device, conv, what);
        let seq = self.stores(deed);
        self.answered(deed, seq);
        seq
    }

    pub(super) fn is_sent(&mut self, device: usize, conv: usize, entry: Entry) {
        let link = self.links[device];
        self.judge.note(Event::Delivered { device, link, conv, entry });
    }

    /// Delivered as it stands now, and acknowledged.
    pub(super) fn gets(&mut self, device: usize, conv: usize, seq: u64) {
        let entry = self.logs[conv][seq as usize - 1].clone();
        self.is_sent(device, conv, entry);
        self.judge.note(Event::Acknowledged { device, conv, seq });
    }

    /// Sent by ann's phone, and all the others have it.
    pub(super) fn talks(&mut self, conv: usize) -> u64 {
        let seq = self.sends(PHONE, conv);
        self.gets(DESK, conv, seq);
        self.gets(BOB, conv, seq);
        seq
    }

    /// Everybody tells the list and pulls; `twist` changes what a user is told.
    pub(super) fn rests_with(
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

    pub(super) fn members(&self, conv: usize) -> Vec<crate::chat::log::Member> {
        let mut log = crate::chat::log::Log::default();
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

    pub(super) fn rests(&mut self) -> Vec<Fault> {
        self.rests_with(|_| {}, None)
    }
}

#[track_caller]
pub(super) fn clean(mut story: Story) {
    assert_eq!(story.rests(), []);
}

#[track_caller]
pub(super) fn says(faults: &[Fault], what: &str) {
    assert!(faults.iter().any(|fault| fault.what.contains(what)), "{what:?} not in {faults:#?}");
}
