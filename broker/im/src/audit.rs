//! The record of what operators did: one row per call, the oldest giving way (the last 10,000).
//!
//! Owns the numbering of the records. Deliberately not here: who is an operator.

use std::ops::{Bound, ControlFlow};

use hoopoe_core::Slot;
use hoopoe_store::kv::{Family, Span};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::keys;
use crate::refusal::{Fault, Refusal};
use crate::service::query::{Query, page_size};
use crate::shard::Work;

/// Records that are kept.
const KEPT: u64 = 10_000;

/// A call of an operator.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When, ms since the epoch.
    pub ts: u64,
    /// `admin`, or the service account.
    pub who: String,
    /// The address it came from.
    pub address: String,
    /// The call: `admin/users/disable`.
    pub call: String,
    /// What it was about, as the call names it, without secrets.
    pub about: Value,
    /// The HTTP status of the answer.
    pub status: u16,
}

/// The slot whose shard keeps the record.
pub fn slot() -> Slot {
    Slot::of(b"audit")
}

impl Work<'_> {
    pub(crate) fn audit(&mut self, record: &Record) -> Result<(), Fault> {
        let number = match self.memory.audit_next {
            Some(number) => number,
            None => {
                let keys = self.txn.keys(Family::Im, &keys::audit_prefix(), usize::MAX)?;
                keys.last().map_or(1, |key| keys::seq_of(key) + 1)
            }
        };
        self.memory.audit_next = Some(number + 1);
        self.txn.put_json(&keys::audit(number), record);
        if let Some(oldest) = number.checked_sub(KEPT) {
            self.txn.delete(Family::Im, &keys::audit(oldest));
        }
        Ok(())
    }
}

impl Query {
    /// The newest records before number `next`, newest first.
    ///
    /// # Errors
    /// When `limit` or `next` make no sense, or rows cannot be read.
    pub fn audit(&self, limit: Option<u32>, next: Option<&str>) -> Result<Value, Fault> {
        let size = page_size(limit)?;
        let before = match next {
            None => u64::MAX,
            Some(next) => {
                next.parse().map_err(|_| Refusal::bad_request("next: not from an answer"))?
            }
        };
        let (low, high) = (keys::audit(0), keys::audit(before));
        let span = Span { from: Bound::Included(&low), to: Bound::Excluded(&high), reverse: true };
        let (mut records, mut last, mut result) = (Vec::new(), None, Ok(()));
        self.scan(Family::Im, span, &mut |key, row| {
            if records.len() >= size {
                return ControlFlow::Break(());
            }
            match crate::txn::read_json::<Record>(key, row) {
                Ok(record) => {
                    records.push(json!({ "number": keys::seq_of(key), "record": record }));
                    last = Some(keys::seq_of(key));
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    result = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        result?;
        let full = records.len() >= size;
        let mut answer = json!({ "records": records });
        if let Some(last) = last.filter(|last| full && *last > 1) {
            answer["next"] = last.to_string().into();
        }
        Ok(answer)
    }
}
