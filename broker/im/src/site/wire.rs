//! What sites say to each other, and how it is spelled.
//!
//! A [`Frame`] is one publication of a link. Numbered frames carry a `Body`, which is also what
//! the rows of a line hold. Deliberately not here: who may say what.

use std::sync::Arc;

use bytes::Bytes;
use hoopoe_codec::ReasonCode;
use hoopoe_store::wire::{Cursor, put_bytes, put_number};

use super::room::RoomFrame;
use crate::command::{Forward, User};
use crate::id::{ConvKey, MessageId};
use crate::refusal::{Refusal, Word};
use crate::rows::Sent;

/// Version of the frames.
const VERSION: u8 = 1;

/// What is wrong with a frame.
pub type Fault = &'static str;

/// One publication of a link.
#[derive(Clone, PartialEq, Debug)]
pub enum Frame {
    /// Something that is owed.
    Numbered(Numbered),
    /// Everything of a line up to a number is committed.
    Heard {
        /// The line's slot.
        slot: u16,
        /// The line's life.
        born: u64,
        /// The number.
        number: u64,
    },
    /// The site is there.
    Alive {
        /// Hash of its home rules.
        rules: u64,
        /// It hears the other site.
        hears: bool,
    },
    /// A QoS 0 publication for all devices of a user.
    Notice {
        /// The user.
        user: User,
        /// Topic.
        topic: String,
        /// Payload.
        payload: Bytes,
    },
    /// A signal.
    Signal(Signal),
    /// A service call for the home of what it concerns.
    Call(RemoteCall),
    /// The answer to a call.
    Answer {
        /// The call's number.
        number: u64,
        /// The answer, or a refusal.
        result: Result<serde_json::Value, Refusal>,
    },
    /// Something about a live room.
    Room(Box<RoomFrame>),
}

/// See [`Frame::Numbered`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Numbered {
    /// The line's slot.
    pub slot: u16,
    /// When the line began: numbers of another life mean nothing.
    pub born: u64,
    /// The number before it that must have been applied; 0: nothing.
    pub after: u64,
    /// Its number.
    pub number: u64,
    /// What is owed.
    pub body: Bytes,
}

/// A signal between sites.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signal {
    /// The conversation whose members hear it.
    pub conv: ConvKey,
    /// The sender.
    pub from: Arc<str>,
    /// The home has judged it.
    pub judged: bool,
    /// The sender's site.
    pub site: Arc<str>,
    /// The sending connection there.
    pub location: u64,
    /// A word of the client's.
    pub kind: Arc<str>,
    /// The sender's properties.
    pub properties: Bytes,
    /// The payload.
    pub payload: Bytes,
}

/// A service call for another site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteCall {
    /// Its number at the site that asks.
    pub number: u64,
    /// Who calls.
    pub user: User,
    /// The device.
    pub device: Arc<str>,
    /// An operator: may do what an owner may.
    pub privileged: bool,
    /// The service and operation, `group/info`.
    pub name: String,
    /// The body.
    pub body: Bytes,
}

/// What a numbered frame carries.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Body {
    /// An entry of a conversation, for its replica.
    Entry { conv: ConvKey, seq: u64, loud: bool, big: bool, row: Bytes },
    /// The same, in a line's row: the entry is read from the log when it leaves.
    Reference { conv: ConvKey, seq: u64, loud: bool, big: bool },
    /// A send or an operation, for the conversation's home.
    Ask { conv: ConvKey, privileged: bool, row: Bytes },
    /// What an ask has led to.
    Told { asked: u64, outcome: Outcome },
    /// What one shard owes another.
    Forward(Box<Forward>),
    /// A row of a conversation, for its replica.
    Row { conv: ConvKey, kind: u8, name: String, value: Bytes },
}

/// See [`Body::Told`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Sent { sent: Sent, repeated: bool },
    Refused(Refusal),
}

mod tag {
    pub const NUMBERED: u8 = 1;
    pub const HEARD: u8 = 2;
    pub const ALIVE: u8 = 3;
    pub const NOTICE: u8 = 4;
    pub const SIGNAL: u8 = 5;
    pub const CALL: u8 = 6;
    pub const ANSWER: u8 = 7;
    pub const ROOM: u8 = 8;
    pub const ENTRY: u8 = 1;
    pub const REFERENCE: u8 = 2;
    pub const ASK: u8 = 3;
    pub const TOLD: u8 = 4;
    pub const FORWARD: u8 = 5;
    pub const ROW: u8 = 6;
}

const WORDS: [Word; 8] = [
    Word::BadRequest,
    Word::NotFound,
    Word::NotAllowed,
    Word::Exists,
    Word::Limit,
    Word::Conflict,
    Word::Unavailable,
    Word::TooLarge,
];

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

fn put_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    let word = WORDS.iter().position(|word| *word == refusal.word).unwrap_or_default();
    out.extend_from_slice(&[word as u8, refusal.code as u8]);
    put_text(out, &refusal.message);
}

fn refusal(cursor: &mut Cursor<'_>) -> Result<Refusal, Fault> {
    let word = *WORDS.get(usize::from(cursor.byte()?)).ok_or("unknown word of a refusal")?;
    let mut refusal = Refusal::new(word, "");
    refusal.code = ReasonCode::try_from(cursor.byte()?).map_err(|_| "unknown reason code")?;
    refusal.message = cursor.text()?.to_string().into();
    Ok(refusal)
}

fn flag(cursor: &mut Cursor<'_>) -> Result<bool, Fault> {
    match cursor.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err("neither yes nor no"),
    }
}

fn conv(cursor: &mut Cursor<'_>) -> Result<ConvKey, Fault> {
    ConvKey::parse(&cursor.text()?).ok_or("no conversation")
}

fn user(cursor: &mut Cursor<'_>) -> Result<User, Fault> {
    Ok(User { tenant: cursor.text()?, id: cursor.text()? })
}

fn bytes(cursor: &mut Cursor<'_>) -> Result<Bytes, Fault> {
    cursor.bytes().map(Bytes::copy_from_slice)
}

impl Frame {
    /// The bytes of a publication.
    pub fn encode(&self) -> Bytes {
        let mut out = vec![VERSION];
        match self {
            Frame::Numbered(Numbered { slot, born, after, number, body }) => {
                out.reserve(body.len() + 40);
                out.push(tag::NUMBERED);
                for value in [u64::from(*slot), *born, *after, *number] {
                    put_number(&mut out, value);
                }
                out.extend_from_slice(body);
            }
            Frame::Heard { slot, born, number } => {
                out.push(tag::HEARD);
                for value in [u64::from(*slot), *born, *number] {
                    put_number(&mut out, value);
                }
            }
            Frame::Alive { rules, hears } => {
                out.push(tag::ALIVE);
                put_number(&mut out, *rules);
                out.push(u8::from(*hears));
            }
            Frame::Notice { user, topic, payload } => {
                out.push(tag::NOTICE);
                for text in [&user.tenant, &user.id, &**topic] {
                    put_text(&mut out, text);
                }
                out.extend_from_slice(payload);
            }
            Frame::Signal(signal) => {
                out.push(tag::SIGNAL);
                out.push(u8::from(signal.judged));
                put_number(&mut out, signal.location);
                let texts = [signal.conv.as_str(), &signal.from, &signal.site, &signal.kind];
                texts.into_iter().for_each(|text| put_text(&mut out, text));
                put_bytes(&mut out, &signal.properties);
                out.extend_from_slice(&signal.payload);
            }
            Frame::Call(RemoteCall { number, user, device, privileged, name, body }) => {
                out.extend_from_slice(&[tag::CALL, u8::from(*privileged)]);
                put_number(&mut out, *number);
                let texts = [&*user.tenant, &user.id, device, name];
                texts.into_iter().for_each(|text| put_text(&mut out, text));
                out.extend_from_slice(body);
            }
            Frame::Answer { number, result } => {
                out.push(tag::ANSWER);
                put_number(&mut out, *number);
                out.push(u8::from(result.is_ok()));
                match result {
                    Ok(value) => out.extend_from_slice(value.to_string().as_bytes()),
                    Err(refusal) => put_refusal(&mut out, refusal),
                }
            }
            Frame::Room(frame) => {
                out.push(tag::ROOM);
                frame.put(&mut out);
            }
        }
        out.into()
    }

    /// The frame of a publication.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(payload: &[u8]) -> Result<Frame, Fault> {
        let mut cursor = Cursor::of(payload, VERSION)?;
        let frame = match cursor.byte()? {
            tag::NUMBERED => {
                return Ok(Frame::Numbered(Numbered {
                    slot: cursor.u16()?,
                    born: cursor.number()?,
                    after: cursor.number()?,
                    number: cursor.number()?,
                    body: Bytes::copy_from_slice(cursor.rest()),
                }));
            }
            tag::HEARD => Frame::Heard {
                slot: cursor.u16()?,
                born: cursor.number()?,
                number: cursor.number()?,
            },
            tag::ALIVE => Frame::Alive { rules: cursor.number()?, hears: flag(&mut cursor)? },
            tag::NOTICE => {
                let (user, topic) = (user(&mut cursor)?, cursor.text()?.to_string());
                let payload = Bytes::copy_from_slice(cursor.rest());
                return Ok(Frame::Notice { user, topic, payload });
            }
            tag::SIGNAL => {
                let (judged, location) = (flag(&mut cursor)?, cursor.number()?);
                return Ok(Frame::Signal(Signal {
                    conv: conv(&mut cursor)?,
                    from: cursor.text()?,
                    judged,
                    site: cursor.text()?,
                    location,
                    kind: cursor.text()?,
                    properties: bytes(&mut cursor)?,
                    payload: Bytes::copy_from_slice(cursor.rest()),
                }));
            }
            tag::CALL => {
                return Ok(Frame::Call(RemoteCall {
                    privileged: flag(&mut cursor)?,
                    number: cursor.number()?,
                    user: user(&mut cursor)?,
                    device: cursor.text()?,
                    name: cursor.text()?.to_string(),
                    body: Bytes::copy_from_slice(cursor.rest()),
                }));
            }
            tag::ANSWER => {
                let number = cursor.number()?;
                if flag(&mut cursor)? {
                    let value = serde_json::from_slice(cursor.rest());
                    let value = value.map_err(|_| "an answer that is no JSON")?;
                    return Ok(Frame::Answer { number, result: Ok(value) });
                }
                Frame::Answer { number, result: Err(refusal(&mut cursor)?) }
            }
            tag::ROOM => Frame::Room(Box::new(RoomFrame::read(&mut cursor)?)),
            _ => return Err("unknown kind of frame"),
        };
        cursor.end()?;
        Ok(frame)
    }

    /// The slot whose shard it is for; `None` for what no shard has to judge.
    pub fn slot(&self) -> Option<u16> {
        match self {
            Frame::Numbered(Numbered { slot, .. }) | Frame::Heard { slot, .. } => Some(*slot),
            Frame::Signal(signal) => Some(signal.conv.slot().get()),
            Frame::Notice { user, .. } => Some(user.slot().get()),
            Frame::Alive { .. } | Frame::Call(_) | Frame::Answer { .. } | Frame::Room(_) => None,
        }
    }
}

impl Body {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        match self {
            Body::Entry { conv, seq, loud, big, row } => {
                out.reserve(row.len() + 80);
                out.extend_from_slice(&[tag::ENTRY, u8::from(*loud), u8::from(*big)]);
                put_number(&mut out, *seq);
                put_text(&mut out, conv.as_str());
                out.extend_from_slice(row);
            }
            Body::Reference { conv, seq, loud, big } => {
                out.extend_from_slice(&[tag::REFERENCE, u8::from(*loud), u8::from(*big)]);
                put_number(&mut out, *seq);
                put_text(&mut out, conv.as_str());
            }
            Body::Ask { conv, privileged, row } => {
                out.extend_from_slice(&[tag::ASK, u8::from(*privileged)]);
                put_text(&mut out, conv.as_str());
                out.extend_from_slice(row);
            }
            Body::Told { asked, outcome } => {
                out.push(tag::TOLD);
                put_number(&mut out, *asked);
                match outcome {
                    Outcome::Sent { sent, repeated } => {
                        out.extend_from_slice(&[1, u8::from(*repeated)]);
                        for number in [sent.seq, sent.id.0, sent.ts_ms] {
                            put_number(&mut out, number);
                        }
                    }
                    Outcome::Refused(refusal) => {
                        out.push(0);
                        put_refusal(&mut out, refusal);
                    }
                }
            }
            Body::Forward(forward) => {
                out.push(tag::FORWARD);
                // Plain structures with text keys: there is nothing that JSON cannot hold.
                serde_json::to_writer(&mut out, forward).unwrap_or_default();
            }
            Body::Row { conv, kind, name, value } => {
                out.extend_from_slice(&[tag::ROW, *kind]);
                put_text(&mut out, conv.as_str());
                put_text(&mut out, name);
                out.extend_from_slice(value);
            }
        }
        out
    }

    pub(crate) fn decode(body: &[u8]) -> Result<Body, Fault> {
        let mut cursor = Cursor::of(body, VERSION)?;
        let decoded = match cursor.byte()? {
            tag::ENTRY => {
                let (loud, big) = (flag(&mut cursor)?, flag(&mut cursor)?);
                let (seq, conv) = (cursor.number()?, conv(&mut cursor)?);
                let row = Bytes::copy_from_slice(cursor.rest());
                return Ok(Body::Entry { conv, seq, loud, big, row });
            }
            tag::REFERENCE => {
                let (loud, big) = (flag(&mut cursor)?, flag(&mut cursor)?);
                let (seq, conv) = (cursor.number()?, conv(&mut cursor)?);
                Body::Reference { conv, seq, loud, big }
            }
            tag::ASK => {
                let (privileged, conv) = (flag(&mut cursor)?, conv(&mut cursor)?);
                let row = Bytes::copy_from_slice(cursor.rest());
                return Ok(Body::Ask { conv, privileged, row });
            }
            tag::TOLD => {
                let asked = cursor.number()?;
                let outcome = if flag(&mut cursor)? {
                    let repeated = flag(&mut cursor)?;
                    let (seq, id) = (cursor.number()?, MessageId(cursor.number()?));
                    let sent = Sent { seq, id, ts_ms: cursor.number()? };
                    Outcome::Sent { sent, repeated }
                } else {
                    Outcome::Refused(refusal(&mut cursor)?)
                };
                Body::Told { asked, outcome }
            }
            tag::FORWARD => {
                let forward = serde_json::from_slice(cursor.rest());
                return Ok(Body::Forward(Box::new(forward.map_err(|_| "no step of a shard")?)));
            }
            tag::ROW => {
                let (kind, conv) = (cursor.byte()?, conv(&mut cursor)?);
                let name = cursor.text()?.to_string();
                let value = Bytes::copy_from_slice(cursor.rest());
                return Ok(Body::Row { conv, kind, name, value });
            }
            _ => return Err("unknown kind of body"),
        };
        cursor.end()?;
        Ok(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> User {
        User { tenant: "t".into(), id: "alice".into() }
    }

    #[test]
    fn frames_survive() {
        let refused = Refusal::not_allowed("the receiver has blocked the sender");
        let numbered =
            Numbered { slot: 4_095, born: 1 << 41, after: 7, number: 9, body: vec![1, 2].into() };
        let signal = Signal {
            conv: ConvKey::group("t", "team"),
            from: "alice".into(),
            judged: true,
            site: "fra".into(),
            location: u64::MAX,
            kind: "typing".into(),
            properties: Bytes::new(),
            payload: vec![0; 3].into(),
        };
        let call = RemoteCall {
            number: 3,
            user: alice(),
            device: "ios-1".into(),
            privileged: false,
            name: "group/info".to_owned(),
            body: "{}".into(),
        };
        let frames = [
            Frame::Numbered(numbered),
            Frame::Heard { slot: 1, born: 2, number: 3 },
            Frame::Alive { rules: 5, hears: true },
            Frame::Notice { user: alice(), topic: "im/me/sys/x".into(), payload: "y".into() },
            Frame::Signal(signal),
            Frame::Call(call),
            Frame::Answer { number: 1, result: Ok(serde_json::json!({ "a": 1 })) },
            Frame::Answer { number: 2, result: Err(refused) },
        ];
        for frame in frames {
            let encoded = frame.encode();
            assert_eq!(Frame::decode(&encoded).as_ref(), Ok(&frame));
            for cut in 0..3 {
                assert!(Frame::decode(&encoded[..cut]).is_err(), "{frame:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn bodies_survive() {
        let conv = ConvKey::pair("t", "alice", "bob");
        let sent = Sent { seq: 3, id: MessageId(9), ts_ms: 77 };
        let cursors = Forward::Cursors { conv: conv.clone(), user: "bob".into(), recv: 2, read: 1 };
        let row: Bytes = vec![1, 2, 3].into();
        let bodies = [
            Body::Entry { conv: conv.clone(), seq: 5, loud: true, big: false, row: row.clone() },
            Body::Reference { conv: conv.clone(), seq: 5, loud: false, big: true },
            Body::Ask { conv: conv.clone(), privileged: true, row: row.clone() },
            Body::Told { asked: 4, outcome: Outcome::Sent { sent, repeated: true } },
            Body::Told { asked: 4, outcome: Outcome::Refused(Refusal::limit("too much")) },
            Body::Forward(Box::new(cursors)),
            Body::Row { conv, kind: 0x14, name: "bob".to_owned(), value: row },
        ];
        for body in bodies {
            assert_eq!(Body::decode(&body.encode()).as_ref(), Ok(&body));
        }
    }
}
