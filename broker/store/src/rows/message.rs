//! Rows that hold publications: queue entries, shared bodies, retained messages.

use bytes::Bytes;
use hoopoe_codec::QoS;
use hoopoe_core::{Publication, SessionId};
use smallvec::SmallVec;

use super::VERSION;
use super::wire::{Cursor, Fault, put_number, qos};

const RETAIN: u8 = 1 << 2;
const EXPIRES: u8 = 1 << 3;
const SPLIT: u8 = 1 << 4;
const IDENTIFIERS: u8 = 1 << 5;

/// The receiver's part of a queue entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EntryHead<'a> {
    /// Effective QoS.
    pub(crate) qos: QoS,
    /// RETAIN flag to send.
    pub(crate) retain: bool,
    /// Running total of the queue's bytes, this entry included.
    pub(crate) weight: u64,
    /// Subscription Identifiers.
    pub(crate) identifiers: &'a [u32],
}

/// A queue row as it is read.
#[derive(Debug)]
pub(crate) struct QueueRow<'a> {
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) weight: u64,
    pub(crate) identifiers: SmallVec<[u32; 1]>,
    pub(crate) content: EntryContent<'a>,
}

/// Where an entry's message is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum EntryContent<'a> {
    /// In the row.
    Inline(Body<'a>),
    /// In the body row of this number.
    Split(u64),
}

/// A message in a row, borrowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Body<'a> {
    topic_len: usize,
    properties_len: usize,
    qos: QoS,
    retain: bool,
    expires_at_ms: Option<u64>,
    bytes: &'a [u8],
}

impl Body<'_> {
    /// Length of topic, properties and payload.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True when the message has expired.
    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }

    /// The publication, with its bytes copied by `copy`.
    pub(crate) fn to_publication(
        self,
        copy: impl FnOnce(&[u8]) -> Bytes,
    ) -> Result<Publication, Fault> {
        Publication::from_stored(
            copy(self.bytes),
            self.topic_len,
            self.properties_len,
            self.qos,
            self.retain,
            self.expires_at_ms,
        )
        .ok_or("message lengths do not fit")
    }
}

/// An entry with its message in the row.
pub(crate) fn put_entry(out: &mut Vec<u8>, head: &EntryHead<'_>, message: &Publication) {
    put_head(out, head, 0);
    put_message(out, message);
    out.extend_from_slice(message.bytes());
}

/// An entry whose message is in a body row.
pub(crate) fn put_reference(out: &mut Vec<u8>, head: &EntryHead<'_>, body: u64) {
    put_head(out, head, SPLIT);
    put_number(out, body);
}

fn put_head(out: &mut Vec<u8>, head: &EntryHead<'_>, split: u8) {
    let retain = if head.retain { RETAIN } else { 0 };
    let identifiers = if head.identifiers.is_empty() { 0 } else { IDENTIFIERS };
    out.extend_from_slice(&[VERSION, head.qos as u8 | retain | split | identifiers]);
    put_number(out, head.weight);
    if !head.identifiers.is_empty() {
        put_number(out, head.identifiers.len() as u64);
        head.identifiers.iter().for_each(|id| put_number(out, u64::from(*id)));
    }
}

/// A queue entry.
pub(crate) fn read_entry(row: &[u8]) -> Result<QueueRow<'_>, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let flags = cursor.byte()?;
    let weight = cursor.number()?;
    let mut identifiers = SmallVec::new();
    if flags & IDENTIFIERS != 0 {
        for _ in 0..cursor.number()? {
            identifiers.push(cursor.u32()?);
        }
    }
    let content = if flags & SPLIT != 0 {
        let body = cursor.number()?;
        cursor.end()?;
        EntryContent::Split(body)
    } else {
        let mut body = take_message(&mut cursor)?;
        body.bytes = cursor.rest();
        EntryContent::Inline(body)
    };
    Ok(QueueRow { qos: qos(flags)?, retain: flags & RETAIN != 0, weight, identifiers, content })
}

/// Only the running total of an entry.
pub(crate) fn read_weight(row: &[u8]) -> Result<u64, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    cursor.byte()?;
    cursor.number()
}

/// A body that several entries share, with their list: the body is dead when all of them are.
/// The list comes last, so that readers of the message never touch it.
pub(crate) fn put_body(out: &mut Vec<u8>, message: &Publication, fan_out: &[(SessionId, u64)]) {
    out.push(VERSION);
    put_whole(out, message);
    for (session, seq) in fan_out {
        out.extend_from_slice(&session.0.to_be_bytes());
        put_number(out, *seq);
    }
}

/// The list of a body row, read as it is walked.
pub(crate) fn body_fan_out(
    row: &[u8],
) -> Result<impl Iterator<Item = Result<(SessionId, u64), Fault>> + '_, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    take_message(&mut cursor)?;
    cursor.bytes()?;
    let mut next = move || {
        let session = cursor.take(8)?;
        let session = u64::from_be_bytes(session.try_into().map_err(|_| "ends early")?);
        Ok((SessionId(session), cursor.number()?, cursor.is_empty()))
    };
    let mut over = cursor.is_empty();
    Ok(std::iter::from_fn(move || {
        if over {
            return None;
        }
        let entry = next();
        over = entry.as_ref().map_or(true, |(_, _, last)| *last);
        Some(entry.map(|(session, seq, _)| (session, seq)))
    }))
}

/// The message of a body row.
pub(crate) fn read_body(row: &[u8]) -> Result<Body<'_>, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let mut body = take_message(&mut cursor)?;
    body.bytes = cursor.bytes()?;
    Ok(body)
}

/// A retained message and the position it was stored at.
pub(crate) fn put_retained(out: &mut Vec<u8>, position: u64, message: &Publication) {
    out.push(VERSION);
    put_number(out, position);
    put_message(out, message);
    out.extend_from_slice(message.bytes());
}

/// Position and message of a retained row.
pub(crate) fn read_retained(row: &[u8]) -> Result<(u64, Body<'_>), Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let position = cursor.number()?;
    let mut body = take_message(&mut cursor)?;
    body.bytes = cursor.rest();
    Ok((position, body))
}

/// The part of a message before its bytes.
pub(super) fn put_message(out: &mut Vec<u8>, message: &Publication) {
    let retain = if message.retain { RETAIN } else { 0 };
    let expires = if message.expires_at_ms.is_some() { EXPIRES } else { 0 };
    out.push(message.qos as u8 | retain | expires);
    put_number(out, message.topic_len() as u64);
    put_number(out, message.properties_len() as u64);
    if let Some(at) = message.expires_at_ms {
        put_number(out, at);
    }
}

/// A message's part before its bytes, with no bytes yet.
pub(super) fn take_message<'a>(cursor: &mut Cursor<'a>) -> Result<Body<'a>, Fault> {
    let flags = cursor.byte()?;
    let (topic_len, properties_len) = (cursor.len()?, cursor.len()?);
    let expires_at_ms = if flags & EXPIRES != 0 { Some(cursor.number()?) } else { None };
    Ok(Body {
        topic_len,
        properties_len,
        qos: qos(flags)?,
        retain: flags & RETAIN != 0,
        expires_at_ms,
        bytes: &[],
    })
}

/// A whole message with its length before it, for rows that hold more than it.
pub(super) fn put_whole(out: &mut Vec<u8>, message: &Publication) {
    put_message(out, message);
    super::wire::put_bytes(out, message.bytes());
}

/// Reads what [`put_whole`] wrote.
pub(super) fn take_whole(cursor: &mut Cursor<'_>) -> Result<Publication, Fault> {
    let mut body = take_message(cursor)?;
    body.bytes = cursor.bytes()?;
    body.to_publication(Bytes::copy_from_slice)
}

#[cfg(test)]
mod tests {
    use hoopoe_core::PublicationParts;
    use proptest::prelude::*;

    use super::*;

    fn message(expires_at_ms: Option<u64>) -> Publication {
        PublicationParts {
            topic: "room/1",
            properties: &[1, 1],
            payload: b"hello",
            qos: QoS::ExactlyOnce,
            retain: true,
            expires_at_ms,
        }
        .to_publication()
    }

    #[test]
    fn entries_survive_with_and_without_their_body() {
        let head = EntryHead {
            qos: QoS::AtLeastOnce,
            retain: true,
            weight: 123_456,
            identifiers: &[1, 268_435_455],
        };
        let mut row = Vec::new();
        put_entry(&mut row, &head, &message(Some(99)));
        let read = read_entry(&row).expect("reads");
        assert_eq!((read.qos, read.retain, read.weight), (head.qos, true, 123_456));
        assert_eq!(&read.identifiers[..], head.identifiers);
        let EntryContent::Inline(body) = read.content else { panic!("inline") };
        assert!(body.is_expired(99) && !body.is_expired(98));
        assert_eq!(body.to_publication(Bytes::copy_from_slice), Ok(message(Some(99))));
        assert_eq!(read_weight(&row), Ok(123_456));

        row.clear();
        put_reference(&mut row, &EntryHead { identifiers: &[], ..head }, 1 << 50);
        let read = read_entry(&row).expect("reads");
        assert!(matches!(read.content, EntryContent::Split(body) if body == 1 << 50));
    }

    #[test]
    fn bodies_and_retained_messages_survive() {
        let list = [(SessionId(7), 1), (SessionId(u64::MAX), u64::MAX)];
        let mut row = Vec::new();
        put_body(&mut row, &message(None), &list);
        let read: Result<Vec<_>, _> = body_fan_out(&row).expect("reads").collect();
        assert_eq!(read.as_deref(), Ok(&list[..]));
        let body = read_body(&row).expect("reads");
        assert_eq!(body.to_publication(Bytes::copy_from_slice), Ok(message(None)));

        row.clear();
        put_retained(&mut row, 42, &message(None));
        let (position, body) = read_retained(&row).expect("reads");
        assert_eq!(position, 42);
        assert_eq!(body.to_publication(Bytes::copy_from_slice), Ok(message(None)));
    }

    proptest! {
        #[test]
        fn no_row_can_panic_a_reader(row in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut row = row;
            if let Some(first) = row.first_mut() {
                *first = VERSION;
            }
            let _ = read_entry(&row).map(|read| match read.content {
                EntryContent::Inline(body) => {
                    body.to_publication(Bytes::copy_from_slice).is_ok()
                }
                EntryContent::Split(_) => false,
            });
            let _ = read_weight(&row);
            let _ = read_body(&row).map(|body| body.to_publication(Bytes::copy_from_slice));
            let _ = body_fan_out(&row).map(|list| list.take(100).filter(Result::is_ok).count());
            let _ = read_retained(&row).map(|(_, body)| body.len());
        }
    }
}
