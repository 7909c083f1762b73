//! Rows about one session or shared group.

use std::sync::Arc;

use hoopoe_codec::SubscribeOptions;
use hoopoe_core::{SessionId, SessionKey};

use super::VERSION;
use super::message::{put_whole, take_whole};
use super::wire::{Cursor, Fault, put_bytes, put_number, qos};
use crate::command::{InFlight, Phase, Source, StoredWill};

/// A session's own row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SessionRow {
    pub(crate) key: SessionKey,
    /// Session Expiry Interval in seconds.
    pub(crate) expiry_secs: u32,
    /// When its connection ended, in ms since the epoch; 0 while it is connected.
    pub(crate) disconnected_at_ms: u64,
}

/// How far delivery has come.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct ProgressRow {
    pub(crate) acknowledged: u64,
    pub(crate) weight: u64,
    pub(crate) sent: u64,
}

/// An outgoing exchange and its place in the order of sending.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ExchangeRow {
    pub(crate) ordinal: u64,
    pub(crate) in_flight: InFlight,
}

/// A shared group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct GroupRow {
    pub(crate) share: Arc<str>,
    pub(crate) filter: Arc<str>,
}

/// A member of a group that has a stored session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemberRow {
    pub(crate) session: SessionId,
    pub(crate) options: SubscribeOptions,
    pub(crate) identifier: u32,
}

pub(crate) fn put_session(out: &mut Vec<u8>, row: &SessionRow) {
    out.push(VERSION);
    put_bytes(out, row.key.tenant.as_bytes());
    put_bytes(out, row.key.user.as_bytes());
    put_bytes(out, row.key.client.as_bytes());
    put_number(out, u64::from(row.expiry_secs));
    put_number(out, row.disconnected_at_ms);
}

pub(crate) fn read_session(row: &[u8]) -> Result<SessionRow, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let key = SessionKey::new(cursor.text()?, cursor.text()?, cursor.text()?);
    let row = SessionRow { key, expiry_secs: cursor.u32()?, disconnected_at_ms: cursor.number()? };
    cursor.end()?;
    Ok(row)
}

pub(crate) fn put_progress(out: &mut Vec<u8>, row: &ProgressRow) {
    out.push(VERSION);
    put_number(out, row.acknowledged);
    put_number(out, row.weight);
    put_number(out, row.sent);
}

pub(crate) fn read_progress(row: &[u8]) -> Result<ProgressRow, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let row = ProgressRow {
        acknowledged: cursor.number()?,
        weight: cursor.number()?,
        sent: cursor.number()?,
    };
    cursor.end()?;
    Ok(row)
}

pub(crate) fn put_will(out: &mut Vec<u8>, will: &StoredWill) {
    out.push(VERSION);
    put_number(out, u64::from(will.delay_secs));
    put_number(out, will.expiry_secs.map_or(0, |secs| u64::from(secs) + 1));
    put_whole(out, &will.publication);
}

pub(crate) fn read_will(row: &[u8]) -> Result<StoredWill, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let delay_secs = cursor.u32()?;
    let expiry_secs = match cursor.number()?.checked_sub(1) {
        Some(secs) => Some(u32::try_from(secs).map_err(|_| "expiry too large")?),
        None => None,
    };
    let publication = take_whole(&mut cursor)?;
    cursor.end()?;
    Ok(StoredWill { publication, expiry_secs, delay_secs })
}

const FROM_GROUP: u8 = 1 << 2;
const RELEASED: u8 = 1 << 3;
const FROM_LOG: u8 = 1 << 4;

fn put_in_flight(out: &mut Vec<u8>, entry: &InFlight) {
    let (from, whose, seq) = match entry.source {
        Source::Queue(seq) => (0, None, seq),
        Source::Group(group, seq) => (FROM_GROUP, Some(group.0), seq),
        Source::Entry(log, seq) => (FROM_LOG, Some(log), seq),
    };
    let phase = if entry.phase == Phase::Released { RELEASED } else { 0 };
    out.push(entry.qos as u8 | from | phase);
    put_number(out, u64::from(entry.id));
    if let Some(whose) = whose {
        put_number(out, whose);
    }
    put_number(out, seq);
}

fn take_in_flight(cursor: &mut Cursor<'_>) -> Result<InFlight, Fault> {
    let flags = cursor.byte()?;
    let id = cursor.u16()?;
    let source = if flags & FROM_GROUP != 0 {
        Source::Group(SessionId(cursor.number()?), cursor.number()?)
    } else if flags & FROM_LOG != 0 {
        Source::Entry(cursor.number()?, cursor.number()?)
    } else {
        Source::Queue(cursor.number()?)
    };
    let phase = if flags & RELEASED != 0 { Phase::Released } else { Phase::Published };
    Ok(InFlight { id, source, phase, qos: qos(flags)? })
}

pub(crate) fn put_window(out: &mut Vec<u8>, window: &[InFlight]) {
    out.push(VERSION);
    window.iter().for_each(|entry| put_in_flight(out, entry));
}

pub(crate) fn read_window(row: &[u8]) -> Result<Vec<InFlight>, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let mut window = Vec::new();
    while !cursor.is_empty() {
        window.push(take_in_flight(&mut cursor)?);
    }
    Ok(window)
}

pub(crate) fn put_exchange(out: &mut Vec<u8>, row: &ExchangeRow) {
    out.push(VERSION);
    put_number(out, row.ordinal);
    put_in_flight(out, &row.in_flight);
}

pub(crate) fn read_exchange(row: &[u8]) -> Result<ExchangeRow, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let row = ExchangeRow { ordinal: cursor.number()?, in_flight: take_in_flight(&mut cursor)? };
    cursor.end()?;
    Ok(row)
}

pub(crate) fn put_subscription(out: &mut Vec<u8>, options: SubscribeOptions, identifier: u32) {
    out.extend_from_slice(&[VERSION, options.to_byte()]);
    put_number(out, u64::from(identifier));
}

pub(crate) fn read_subscription(row: &[u8]) -> Result<(SubscribeOptions, u32), Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let read = (take_options(&mut cursor)?, cursor.u32()?);
    cursor.end()?;
    Ok(read)
}

fn take_options(cursor: &mut Cursor<'_>) -> Result<SubscribeOptions, Fault> {
    SubscribeOptions::from_byte(cursor.byte()?).map_err(|fault| fault.what)
}

pub(crate) fn put_group(out: &mut Vec<u8>, row: &GroupRow) {
    out.push(VERSION);
    put_bytes(out, row.share.as_bytes());
    put_bytes(out, row.filter.as_bytes());
}

pub(crate) fn read_group(row: &[u8]) -> Result<GroupRow, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let row = GroupRow { share: cursor.text()?, filter: cursor.text()? };
    cursor.end()?;
    Ok(row)
}

pub(crate) fn put_member(out: &mut Vec<u8>, row: &MemberRow) {
    out.extend_from_slice(&[VERSION, row.options.to_byte()]);
    put_number(out, u64::from(row.identifier));
    put_number(out, row.session.0);
}

pub(crate) fn read_member(row: &[u8]) -> Result<MemberRow, Fault> {
    let mut cursor = Cursor::of(row, VERSION)?;
    let options = take_options(&mut cursor)?;
    let identifier = cursor.u32()?;
    let row = MemberRow { options, identifier, session: SessionId(cursor.number()?) };
    cursor.end()?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use hoopoe_codec::QoS;
    use hoopoe_core::PublicationParts;

    use super::*;

    #[test]
    fn session_rows_survive() {
        let row = SessionRow {
            key: SessionKey::new("t", "ü", ""),
            expiry_secs: u32::MAX,
            disconnected_at_ms: 1_700_000_000_000,
        };
        let mut out = Vec::new();
        put_session(&mut out, &row);
        assert_eq!(read_session(&out), Ok(row));
        out.push(0);
        assert_eq!(read_session(&out), Err("longer than it should be"));
    }

    #[test]
    fn wills_survive() {
        for expiry_secs in [None, Some(0), Some(u32::MAX)] {
            let publication = PublicationParts {
                topic: "bye",
                properties: &[1, 0],
                payload: b"!",
                qos: QoS::AtLeastOnce,
                retain: true,
                expires_at_ms: None,
            }
            .to_publication();
            let will = StoredWill { publication, expiry_secs, delay_secs: 7 };
            let mut out = Vec::new();
            put_will(&mut out, &will);
            assert_eq!(read_will(&out), Ok(will));
        }
    }

    #[test]
    fn windows_and_exchanges_survive() {
        let window = vec![
            InFlight {
                id: 1,
                source: Source::Queue(9),
                phase: Phase::Published,
                qos: QoS::AtLeastOnce,
            },
            InFlight {
                id: u16::MAX,
                source: Source::Group(SessionId(u64::MAX), 1),
                phase: Phase::Released,
                qos: QoS::ExactlyOnce,
            },
        ];
        let mut out = Vec::new();
        put_window(&mut out, &window);
        assert_eq!(read_window(&out).as_ref(), Ok(&window));
        for in_flight in window {
            let row = ExchangeRow { ordinal: 300, in_flight };
            let mut out = Vec::new();
            put_exchange(&mut out, &row);
            assert_eq!(read_exchange(&out), Ok(row));
        }
    }
}
