//! Messages whose time is over: their body goes, and they count as unread no more (rulings 22
//! and 23). Until that is written, whoever reads them finds them void by their own time.
//!
//! What is to expire stands in rows in order of time; in memory is only when the first of them may
//! be due. Each site does this to what it has: there is no event of it.

use std::ops::ControlFlow;

use hoopoe_store::kv::Family;

use crate::entry::{EntryKind, VOID_EXPIRED};
use crate::id::ConvKey;
use crate::keys;
use crate::refusal::Fault;
use crate::shard::Work;

/// Messages of one step.
const STEP: usize = 256;
/// When rows could not be read they are looked for again after so long.
const AGAIN_MS: u64 = 1_000;

/// When the next message of a shard expires.
#[derive(Debug)]
pub(crate) struct Expiry {
    next_ms: Option<u64>,
}

impl Expiry {
    /// Not known: the rows are looked at.
    pub(crate) fn unknown() -> Expiry {
        Expiry { next_ms: Some(0) }
    }

    pub(crate) fn next_timeout(&self) -> Option<u64> {
        self.next_ms
    }

    fn note(&mut self, at_ms: u64) {
        self.next_ms = Some(self.next_ms.map_or(at_ms, |next| next.min(at_ms)));
    }
}

impl Work<'_> {
    /// A message is stored that expires.
    pub(crate) fn will_expire(&mut self, conv: &ConvKey, seq: u64, at_ms: u64) {
        let key = keys::expiry(self.shard, at_ms, conv, seq);
        self.txn.put(Family::Im, &key, vec![crate::rows::VERSION]);
        self.memory.expiry.note(at_ms);
    }

    /// Takes out the bodies of messages whose time is over.
    pub(crate) fn expire(&mut self) -> Result<(), Fault> {
        self.memory.expiry.next_ms = Some(self.now_ms + AGAIN_MS);
        let prefix = keys::expiry_prefix(self.shard);
        let (mut over, mut next_ms) = (Vec::new(), None);
        self.txn.scan(Family::Im, &prefix, b"", |key, _| {
            let at_ms = keys::expiry_time(key);
            if at_ms > self.now_ms || over.len() >= STEP {
                next_ms = Some(at_ms);
                return ControlFlow::Break(());
            }
            over.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        for key in over {
            if let Some((conv, seq)) = keys::expiry_of(&key)
                && let Some(entry) = self.entry(&conv, seq)?
                && entry.kind == EntryKind::Message
            {
                self.void(&entry, VOID_EXPIRED)?;
            }
            self.txn.delete(Family::Im, &key);
        }
        self.memory.expiry.next_ms = next_ms;
        Ok(())
    }
}
