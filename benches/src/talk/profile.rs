//! What the IM profile adds to a conversation: envelopes, answers and notices.
//!
//! Owns the last position seen per (receiver, conversation). Positions must rise; what they leave out
//! can only be what the receiver said itself, which its own session never gets. Loss and doubling of
//! payloads are the ledger's.

use hoopoe_codec::Version;

use crate::net::{Incoming, Net};

/// A reader moves its cursor with every so many messages.
pub(crate) const READ_EVERY: u64 = 10;

/// A receiver's place in a conversation.
#[derive(Clone, Copy, Default)]
struct Position {
    last: u64,
    passed_over: u64,
}

/// An answer of a service.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Who asked.
    pub client: u32,
    /// `ok`, `end` or an error word.
    pub status: String,
    /// The body.
    pub body: Vec<u8>,
}

/// Books of the profile.
pub(crate) struct Profile {
    version: Version,
    positions: Vec<Position>,
    /// Answers that nobody has taken yet.
    pub answers: Vec<Answer>,
    /// Entries pulled since the last answer, by client: how many, and the last position.
    pub pulled: Vec<Pulled>,
    /// Notices that something was left out.
    pub gaps: u64,
    /// Notices that a send was refused.
    pub errors: u64,
    /// Notices that somebody has received or read.
    pub receipts: u64,
    /// Clients that were told where their conversations stand.
    pub hellos: u64,
    /// Sums of likes.
    pub likes: u64,
    /// Readers move their `read` cursors.
    pub reads: bool,
    out_of_order: u64,
}

/// Entries of one pull.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulled {
    /// How many have come.
    pub count: u32,
    /// Position of the last.
    pub last: u64,
    /// One of them was not next to the one before.
    pub torn: bool,
}

impl Profile {
    /// Books for `slots` slots of the ledger and `clients` clients.
    pub(crate) fn new(version: Version, slots: usize, clients: usize) -> Profile {
        Profile {
            version,
            positions: vec![Position::default(); slots],
            answers: Vec::new(),
            pulled: vec![Pulled::default(); clients],
            gaps: 0,
            errors: 0,
            receipts: 0,
            hellos: 0,
            likes: 0,
            reads: false,
            out_of_order: 0,
        }
    }

    /// Takes what is not a message; the position of what is one (0 where there is none).
    #[inline]
    pub(super) fn sort(&mut self, client: u32, message: &Incoming<'_>) -> Option<u64> {
        let topic = message.topic.strip_prefix(b"im/")?;
        if topic.starts_with(b"me/in/") {
            return self.position(message, 5);
        }
        if topic.starts_with(b"r/") {
            return match level(topic, 2)? {
                b"msg" if level(topic, 3)? == b"like" => {
                    self.likes += 1;
                    None
                }
                b"msg" => self.position(message, 5),
                _ => None,
            };
        }
        self.take(client, topic, message);
        None
    }

    fn take(&mut self, client: u32, topic: &[u8], message: &Incoming<'_>) {
        if let Some(answer) = topic.strip_prefix(b"me/res/") {
            let Some(status) = level(answer, 1) else { return };
            if status == b"m" {
                let seq = self.position(message, 5).unwrap_or(0);
                self.pulled[client as usize].note(seq);
                return;
            }
            let status = String::from_utf8_lossy(status).into_owned();
            self.answers.push(Answer { client, status, body: message.payload.to_vec() });
        } else if topic == b"me/sys/hello" {
            self.hellos += 1;
        } else if topic.starts_with(b"me/sys/receipt/") {
            self.receipts += 1;
        } else if topic.starts_with(b"me/sys/gap/") {
            self.gaps += 1;
        } else if topic.starts_with(b"me/sys/err/") {
            self.errors += 1;
        }
    }

    /// The position in the envelope, which 3.1.1 has at a level of the topic; nothing for an event,
    /// whose kind 3.1.1 has four levels further.
    fn position(&self, message: &Incoming<'_>, seq_at: usize) -> Option<u64> {
        let number = match self.version {
            Version::V311 => {
                let mut levels = message.topic.split(|byte| *byte == b'/').skip(seq_at);
                let number = levels.next()?;
                if levels.nth(3).is_some() {
                    return None;
                }
                number
            }
            Version::V5 => {
                if property(message.properties, b"im-kind").is_some() {
                    return None;
                }
                property(message.properties, b"im-seq")?
            }
        };
        std::str::from_utf8(number).ok()?.parse().ok()
    }

    /// Books the position of a message that had not been here before.
    #[inline]
    pub(super) fn note(&mut self, slot: u32, seq: u64) {
        let place = &mut self.positions[slot as usize];
        if seq <= place.last {
            self.out_of_order += 1;
            return;
        }
        if place.last > 0 {
            place.passed_over += seq - place.last - 1;
        }
        place.last = seq;
    }

    /// Positions passed over at this slot.
    pub(super) fn passed_over(&self, slot: u32) -> u64 {
        self.positions[slot as usize].passed_over
    }

    /// How many came at a position that was not above the last.
    pub(super) fn out_of_order(&self) -> u64 {
        self.out_of_order
    }
}

impl Pulled {
    fn note(&mut self, seq: u64) {
        self.torn |= seq == 0 || (self.count > 0 && self.last.abs_diff(seq) != 1);
        self.count += 1;
        self.last = seq;
    }
}

/// Moves the reader's cursor in the conversation whose message came on this topic.
pub(super) fn read(net: &mut Net, client: u32, topic: &[u8], seq: u64) {
    let mut levels = topic.split(|byte| *byte == b'/').skip(3);
    let (Some(kind), Some(id)) = (levels.next(), levels.next()) else { return };
    let (kind, id) = (String::from_utf8_lossy(kind), String::from_utf8_lossy(id));
    net.publish_text(client, &format!("im/me/cur/{kind}/{id}/read/{seq}"), b"");
}

/// The level of a topic at this index.
fn level(topic: &[u8], index: usize) -> Option<&[u8]> {
    topic.split(|byte| *byte == b'/').nth(index)
}

/// The value of the user property of this name, found by its bytes: a name behind the length of a
/// user property's name. Payloads are elsewhere, so that only a value could be taken for one.
fn property<'a>(block: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = block.windows(name.len()).position(|window| window == name)?;
    let (len, rest) = block.get(at + name.len()..)?.split_first_chunk::<2>()?;
    rest.get(..u16::from_be_bytes(*len).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incoming<'a>(topic: &'a str, properties: &'a [u8]) -> Incoming<'a> {
        Incoming { dup: false, topic: topic.as_bytes(), properties, payload: b"{}", at_ns: 0 }
    }

    #[test]
    fn envelopes_of_both_versions_are_read() {
        let cases = [
            ("im/me/in/u/bob/17/bob/1700/0000000040000", Some(17)),
            ("im/me/in/g/team/18/bob/1700/0000000040000", Some(18)),
            ("im/me/in/g/team/19/bob/1700/0000000040000/member/0", None),
            ("im/r/hall/msg/chat/20/bob/1700", Some(20)),
            ("im/r/hall/msg/like/21/bob/1700", None),
            ("im/r/hall/stat", None),
            ("im/me/sys/hello", None),
        ];
        for (topic, seq) in cases {
            let mut profile = Profile::new(Version::V311, 1, 1);
            assert_eq!(profile.sort(0, &incoming(topic, b"")), seq, "{topic}");
        }
        let message = b"\x26\0\x06im-seq\0\x0217\x26\0\x06im-cnt\0\x019";
        let event = b"\x26\0\x06im-seq\0\x0217\x26\0\x07im-kind\0\x06member";
        let mut profile = Profile::new(Version::V5, 1, 1);
        assert_eq!(profile.sort(0, &incoming("im/me/in/u/bob", message)), Some(17));
        assert_eq!(profile.sort(0, &incoming("im/me/in/g/team", event)), None);
    }

    #[test]
    fn answers_pulls_and_notices_are_kept_apart() {
        let mut profile = Profile::new(Version::V311, 1, 2);
        for topic in [
            "im/me/res/r/m/8/bob/1700/0000000040000",
            "im/me/res/r/m/7/bob/1700/0000000040000",
            "im/me/res/r/end",
            "im/me/sys/receipt/u/bob/recv/3/bob",
            "im/me/sys/gap/u/bob/1/2",
            "im/me/sys/err/-/151",
        ] {
            assert_eq!(profile.sort(1, &incoming(topic, b"")), None);
        }
        let pulled = profile.pulled[1];
        assert_eq!((pulled.count, pulled.last, pulled.torn), (2, 7, false));
        assert_eq!((profile.answers[0].client, &*profile.answers[0].status), (1, "end"));
        assert_eq!((profile.receipts, profile.gaps, profile.errors), (1, 1, 1));
    }

    #[test]
    fn positions_that_do_not_rise_and_those_left_out_are_counted() {
        let mut profile = Profile::new(Version::V5, 2, 1);
        for seq in [5, 6, 9, 9, 8, 10] {
            profile.note(1, seq);
        }
        assert_eq!((profile.out_of_order(), profile.passed_over(1)), (2, 2));
    }
}
