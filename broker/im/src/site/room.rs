//! What sites say to each other about live rooms, and how it is spelled.
//!
//! A site with viewers names them to the room's home, and passes on what they say; the home sends
//! such a site one stream, shaped as for one viewer, and what the site has to know to judge like
//! itself. Nothing of it is numbered or stored: what is lost is lost, and who is there is compared
//! every few seconds.

use std::sync::Arc;

use bytes::Bytes;
use hoopoe_store::wire::{Cursor, put_bytes, put_number};

use super::wire::Fault;
use crate::topic::Lane;

/// One frame about a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomFrame {
    /// The room's tenant.
    pub tenant: Arc<str>,
    /// The room.
    pub room: Arc<str>,
    /// What is said.
    pub word: RoomWord,
}

/// Something that is said in a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spoken {
    /// Of a site with viewers: which of its posts this is. Of the home: the message's number.
    pub n: u64,
    /// Who said it; empty for the room's own.
    pub from: Arc<str>,
    /// The sending connection, where the frame is for or from the sender's site.
    pub location: u64,
    /// When; 0 before the home has taken it.
    pub ts_ms: u64,
    /// When it expires; 0: never.
    pub expires_at_ms: u64,
    /// The sender's properties.
    pub properties: Bytes,
    /// The payload.
    pub payload: Bytes,
}

/// See [`RoomFrame`]. Up to [`Here`](Self::Here) said by sites with viewers, the rest by the home.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomWord {
    /// Users come in; a part of all who are there, when there are parts.
    Joins {
        /// The number of this part.
        part: u64,
        /// How many parts there are; 0: these come besides.
        parts: u64,
        /// Who.
        users: Vec<Arc<str>>,
    },
    /// A user leaves.
    Leaves {
        /// Who.
        user: Arc<str>,
    },
    /// A viewer says something.
    Post {
        /// The lane.
        lane: Lane,
        /// What.
        spoken: Spoken,
    },
    /// A viewer signals.
    Signal {
        /// The client's word.
        kind: Arc<str>,
        /// What.
        spoken: Spoken,
    },
    /// What viewers liked, as one sum.
    Likes {
        /// Which of the site's posts this is.
        n: u64,
        /// The sum.
        sum: Bytes,
    },
    /// So many are here.
    Here {
        /// Users.
        viewers: u64,
        /// Hash of who they are.
        hash: u64,
    },
    /// Who is there?
    Who,
    /// What the room is.
    Row(Bytes),
    /// A message.
    Said {
        /// It was said before the site came in.
        past: bool,
        /// The lane.
        lane: Lane,
        /// What.
        spoken: Spoken,
    },
    /// A signal.
    Signalled {
        /// The client's word.
        kind: Arc<str>,
        /// What.
        spoken: Spoken,
    },
    /// Counters.
    Stat(Bytes),
    /// A user leaves, or (empty) everybody.
    Out {
        /// Who.
        user: Arc<str>,
        /// Why a user was not let in; empty for a ban, and for a room that was closed.
        why: String,
    },
}

const LANES: [Lane; 3] = [Lane::Hi, Lane::Chat, Lane::Like];

fn put_spoken(out: &mut Vec<u8>, spoken: &Spoken) {
    for number in [spoken.n, spoken.location, spoken.ts_ms, spoken.expires_at_ms] {
        put_number(out, number);
    }
    for part in [spoken.from.as_bytes(), &spoken.properties, &spoken.payload] {
        put_bytes(out, part);
    }
}

fn bytes(cursor: &mut Cursor<'_>) -> Result<Bytes, Fault> {
    cursor.bytes().map(Bytes::copy_from_slice)
}

fn spoken(cursor: &mut Cursor<'_>) -> Result<Spoken, Fault> {
    Ok(Spoken {
        n: cursor.number()?,
        location: cursor.number()?,
        ts_ms: cursor.number()?,
        expires_at_ms: cursor.number()?,
        from: cursor.text()?,
        properties: bytes(cursor)?,
        payload: bytes(cursor)?,
    })
}

fn lane(cursor: &mut Cursor<'_>) -> Result<Lane, Fault> {
    LANES.get(usize::from(cursor.byte()?)).copied().ok_or("unknown lane")
}

fn put_lane(out: &mut Vec<u8>, lane: Lane) {
    out.push(LANES.iter().position(|of| *of == lane).unwrap_or_default() as u8);
}

impl RoomFrame {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.tenant.as_bytes());
        put_bytes(out, self.room.as_bytes());
        match &self.word {
            RoomWord::Joins { part, parts, users } => {
                out.push(1);
                for number in [*part, *parts, users.len() as u64] {
                    put_number(out, number);
                }
                users.iter().for_each(|user| put_bytes(out, user.as_bytes()));
            }
            RoomWord::Leaves { user } => {
                out.push(2);
                put_bytes(out, user.as_bytes());
            }
            RoomWord::Post { lane, spoken } => {
                out.push(3);
                put_lane(out, *lane);
                put_spoken(out, spoken);
            }
            RoomWord::Signal { kind, spoken } | RoomWord::Signalled { kind, spoken } => {
                out.push(if matches!(self.word, RoomWord::Signal { .. }) { 4 } else { 10 });
                put_bytes(out, kind.as_bytes());
                put_spoken(out, spoken);
            }
            RoomWord::Likes { n, sum } => {
                out.push(5);
                put_number(out, *n);
                put_bytes(out, sum);
            }
            RoomWord::Here { viewers, hash } => {
                out.push(6);
                put_number(out, *viewers);
                put_number(out, *hash);
            }
            RoomWord::Who => out.push(7),
            RoomWord::Row(row) => {
                out.push(8);
                put_bytes(out, row);
            }
            RoomWord::Said { past, lane, spoken } => {
                out.extend_from_slice(&[9, u8::from(*past)]);
                put_lane(out, *lane);
                put_spoken(out, spoken);
            }
            RoomWord::Stat(counters) => {
                out.push(11);
                put_bytes(out, counters);
            }
            RoomWord::Out { user, why } => {
                out.push(12);
                put_bytes(out, user.as_bytes());
                put_bytes(out, why.as_bytes());
            }
        }
    }

    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<RoomFrame, Fault> {
        let (tenant, room) = (cursor.text()?, cursor.text()?);
        let word = match cursor.byte()? {
            1 => {
                let (part, parts, count) = (cursor.number()?, cursor.number()?, cursor.number()?);
                // Not more is reserved than the frame can hold.
                let users = (0..count).map(|_| cursor.text()).collect::<Result<Vec<_>, _>>()?;
                RoomWord::Joins { part, parts, users }
            }
            2 => RoomWord::Leaves { user: cursor.text()? },
            3 => RoomWord::Post { lane: lane(cursor)?, spoken: spoken(cursor)? },
            4 => RoomWord::Signal { kind: cursor.text()?, spoken: spoken(cursor)? },
            5 => RoomWord::Likes { n: cursor.number()?, sum: bytes(cursor)? },
            6 => RoomWord::Here { viewers: cursor.number()?, hash: cursor.number()? },
            7 => RoomWord::Who,
            8 => RoomWord::Row(bytes(cursor)?),
            9 => RoomWord::Said {
                past: cursor.byte()? == 1,
                lane: lane(cursor)?,
                spoken: spoken(cursor)?,
            },
            10 => RoomWord::Signalled { kind: cursor.text()?, spoken: spoken(cursor)? },
            11 => RoomWord::Stat(bytes(cursor)?),
            12 => RoomWord::Out { user: cursor.text()?, why: cursor.text()?.to_string() },
            _ => return Err("unknown word about a room"),
        };
        Ok(RoomFrame { tenant, room, word })
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Frame;
    use super::*;

    #[test]
    fn words_about_rooms_survive() {
        let spoken = Spoken {
            n: 1 << 52,
            from: "bob-ny".into(),
            location: u64::MAX,
            ts_ms: 7,
            expires_at_ms: 0,
            properties: vec![1, 2].into(),
            payload: "hi".into(),
        };
        let kind: Arc<str> = "offer".into();
        let words = [
            RoomWord::Joins { part: 1, parts: 3, users: vec!["a".into(), "b".into()] },
            RoomWord::Leaves { user: "a".into() },
            RoomWord::Post { lane: Lane::Hi, spoken: spoken.clone() },
            RoomWord::Signal { kind: kind.clone(), spoken: spoken.clone() },
            RoomWord::Likes { n: 4, sum: "{}".into() },
            RoomWord::Here { viewers: 3, hash: u64::MAX },
            RoomWord::Who,
            RoomWord::Row("{}".into()),
            RoomWord::Said { past: true, lane: Lane::Like, spoken: spoken.clone() },
            RoomWord::Signalled { kind, spoken },
            RoomWord::Stat("{}".into()),
            RoomWord::Out { user: "a".into(), why: "banned".to_owned() },
        ];
        for word in words {
            let frame = RoomFrame { tenant: "t".into(), room: "show".into(), word };
            let frame = Frame::Room(Box::new(frame));
            let encoded = frame.encode();
            assert_eq!(Frame::decode(&encoded).as_ref(), Ok(&frame));
            assert!(Frame::decode(&encoded[..encoded.len() - 1]).is_err(), "{frame:?}");
        }
    }
}
