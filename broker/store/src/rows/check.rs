//! Whether a row can be read: key and value of every kind there is. What a repair keeps, and what
//! the fixtures of older formats are held to.

use super::{Fault, read_body, read_entry, read_retained};
use super::{read_exchange, read_group, read_member, read_progress, read_session};
use super::{read_format, read_outbox, read_shard, read_subscription, read_will, read_window};
use crate::keys::{self, session_kind, shard_kind};
use crate::kv::Family;

/// Reads a row as its owner would; what it holds is given up.
pub(crate) fn check(family: Family, key: &[u8], value: &[u8]) -> Result<(), Fault> {
    match family {
        Family::Meta if key == keys::FORMAT => read_format(value).map(drop),
        Family::Meta => Err("unknown row"),
        Family::Shard => check_shard(key, value),
        Family::Session => check_session(key, value),
        Family::Queue => {
            keys::queue_of(key).ok_or("queue key")?;
            let row = read_entry(value)?;
            match row.content {
                super::EntryContent::Inline(body) => {
                    body.to_publication(bytes::Bytes::copy_from_slice).map(drop)
                }
                super::EntryContent::Split(_) => Ok(()),
            }
        }
        Family::Body => {
            keys::u64_at(key, 0).filter(|_| key.len() == 8).ok_or("body key")?;
            read_body(value)?.to_publication(bytes::Bytes::copy_from_slice).map(drop)
        }
        Family::Retained => {
            std::str::from_utf8(key).map_err(|_| "topic is not UTF-8")?;
            let (_, body) = read_retained(value)?;
            body.to_publication(bytes::Bytes::copy_from_slice).map(drop)
        }
        #[allow(unreachable_patterns, reason = "families of other rooms come and go")]
        // Their rows are carried as they are; their owners judge them.
        _ => Ok(()),
    }
}

fn check_shard(key: &[u8], value: &[u8]) -> Result<(), Fault> {
    match key.get(2) {
        Some(&shard_kind::HEAD) => read_shard(value).map(drop),
        Some(&shard_kind::OUTBOX) => {
            keys::outbox_number(key).ok_or("outbox key")?;
            read_outbox(value).map(drop)
        }
        Some(&shard_kind::APPLIED) => keys::outbox_number(key).map(drop).ok_or("mark key"),
        Some(&shard_kind::MARKER) => keys::marker_of(key).map(drop).ok_or("marker key"),
        _ => Err("unknown kind of row"),
    }
}

fn check_session(key: &[u8], value: &[u8]) -> Result<(), Fault> {
    keys::session_of(key).ok_or("session key")?;
    let (kind, rest) = key[8..].split_first().ok_or("session key")?;
    match *kind {
        session_kind::SESSION => read_session(value).map(drop),
        session_kind::PROGRESS => read_progress(value).map(drop),
        session_kind::WILL => read_will(value).map(drop),
        session_kind::WINDOW => read_window(value).map(drop),
        session_kind::EXCHANGE if rest.len() == 2 => read_exchange(value).map(drop),
        session_kind::DONE if rest.len() == 8 => Ok(()),
        session_kind::SUBSCRIPTION => {
            std::str::from_utf8(rest).map_err(|_| "filter is not UTF-8")?;
            read_subscription(value).map(drop)
        }
        session_kind::GROUP => read_group(value).map(drop),
        session_kind::MEMBER if rest.len() == 8 => read_member(value).map(drop),
        _ => Err("unknown kind of row"),
    }
}
