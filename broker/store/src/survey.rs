//! What operators see of stored sessions: whose they are, what they subscribe to, what waits.
//!
//! Read from committed rows, in the order of session ids, a page at a time. It decides nothing.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use hoopoe_core::{SessionId, SessionKey};

use crate::error::{Damaged, StoreError};
use crate::keys::{self, session_kind};
use crate::kv::{Family, Span};
use crate::read::Reader;
use crate::rows::{self, ProgressRow};

/// A stored session.
#[derive(Clone, Debug)]
pub struct SessionSurvey {
    /// Its id.
    pub id: SessionId,
    /// Whose.
    pub key: SessionKey,
    /// Session Expiry Interval in seconds.
    pub expiry_secs: u32,
    /// When its connection ended, ms since the epoch; 0 while it is connected.
    pub disconnected_at_ms: u64,
    /// Its filters with the QoS of each.
    pub subscriptions: Vec<(Arc<str>, u8)>,
    /// Messages that wait in its queue.
    pub queued_messages: u64,
    /// Their bytes.
    pub queued_bytes: u64,
}

impl Reader {
    /// Stored sessions behind `after` that `wanted` picks, at most `limit`.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn survey_sessions(
        &self,
        after: Option<SessionId>,
        limit: usize,
        mut wanted: impl FnMut(&SessionKey) -> bool,
    ) -> Result<Vec<SessionSurvey>, StoreError> {
        let mut found = Vec::new();
        let mut next = after.map_or(0, |after| after.0.saturating_add(1));
        // From one session's own row to the next: rows of other kinds are skipped by seeking.
        while found.len() < limit {
            let Some((id, row)) = self.first_session(next)? else { break };
            if let Some(row) = row
                && wanted(&row.key)
            {
                found.push(self.survey(id, row)?);
            }
            let Some(behind) = id.0.checked_add(1) else { break };
            next = behind;
        }
        Ok(found)
    }

    /// The first session or group from an id on; of a group no row.
    fn first_session(
        &self,
        from: u64,
    ) -> Result<Option<(SessionId, Option<rows::SessionRow>)>, StoreError> {
        let from = from.to_be_bytes();
        let mut found: Result<Option<(SessionId, Option<rows::SessionRow>)>, Damaged> = Ok(None);
        let span = Span { from: Bound::Included(&from), to: Bound::Unbounded, reverse: false };
        self.kv().scan(Family::Session, span, &mut |key, value| {
            found = match keys::session_of(key) {
                Some(id) if key.get(8) == Some(&session_kind::SESSION) => {
                    let read = rows::read_session(value).map(|row| Some((id, Some(row))));
                    read.map_err(rows::at(Family::Session, key))
                }
                Some(id) => Ok(Some((id, None))),
                None => Ok(None),
            };
            ControlFlow::Break(())
        })?;
        Ok(found?)
    }

    fn survey(&self, id: SessionId, row: rows::SessionRow) -> Result<SessionSurvey, StoreError> {
        let key = keys::session(id, session_kind::PROGRESS);
        let progress = match self.kv().get(Family::Session, &key)? {
            Some(value) => rows::read_progress(&value).map_err(rows::at(Family::Session, &key))?,
            None => ProgressRow::default(),
        };
        let (last, weight) = self.queue_end(id)?;
        let floor = self.floor(id).unwrap_or(0).max(progress.acknowledged);
        Ok(SessionSurvey {
            id,
            key: row.key,
            expiry_secs: row.expiry_secs,
            disconnected_at_ms: row.disconnected_at_ms,
            subscriptions: self.subscriptions_of(id)?,
            queued_messages: last.saturating_sub(floor),
            queued_bytes: if last > floor { weight.saturating_sub(progress.weight) } else { 0 },
        })
    }

    fn subscriptions_of(&self, id: SessionId) -> Result<Vec<(Arc<str>, u8)>, StoreError> {
        let prefix = keys::session(id, session_kind::SUBSCRIPTION);
        let (mut found, mut fault): (_, Option<Damaged>) = (Vec::new(), None);
        self.kv().scan_below(
            Family::Session,
            &prefix,
            Bound::Included(&prefix),
            &mut |key, value| {
                let Some(filter) = key.strip_prefix(&prefix[..]) else {
                    return ControlFlow::Break(());
                };
                match (std::str::from_utf8(filter), rows::read_subscription(value)) {
                    (Ok(filter), Ok((options, _))) => {
                        found.push((filter.into(), options.qos as u8));
                        ControlFlow::Continue(())
                    }
                    _ => {
                        fault = Some(rows::at(Family::Session, key)("subscription"));
                        ControlFlow::Break(())
                    }
                }
            },
        )?;
        fault.map_or(Ok(found), |fault| Err(fault.into()))
    }

    /// Number and running weight of the last entry of a queue.
    fn queue_end(&self, id: SessionId) -> Result<(u64, u64), StoreError> {
        let (low, high) = (keys::queue(id, 0), keys::queue(id, u64::MAX));
        let span = Span { from: Bound::Included(&low), to: Bound::Included(&high), reverse: true };
        let mut end = (0, 0);
        self.kv().scan(Family::Queue, span, &mut |key, value| {
            if let (Some((_, seq)), Ok(row)) = (keys::queue_of(key), rows::read_entry(value)) {
                end = (seq, row.weight);
            }
            ControlFlow::Break(())
        })?;
        Ok(end)
    }
}
