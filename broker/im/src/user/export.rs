//! Everything that is kept of a user, as one JSON document: for the user who asks for it.

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::account::Account;
use super::services::Profile;
use crate::command::User;
use crate::entry::EntryKind;
use crate::id::is_id;
use crate::keys::{self, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::service::lists::shown_until;
use crate::service::query::Query;

/// Messages of the user in an export, the newest of each conversation first to be left out.
const MESSAGES_MAX: usize = 10_000;
/// Entries read at a time.
const PAGE: usize = 500;
/// Their bytes, about.
const PAGE_BYTES: usize = 1 << 20;

impl Query {
    /// Profile, account, devices, roster, conversations with cursors, tokens without secrets, and
    /// the user's own messages.
    ///
    /// # Errors
    /// When there is no such user id, or rows cannot be read.
    pub fn export(&self, user: &User) -> Result<Value, Fault> {
        if !is_id(&user.id) {
            return Err(Refusal::bad_request(format!("user: {:?} is no valid id", user.id)).into());
        }
        let own = |kind| keys::user(&user.tenant, &user.id, kind);
        let profile: Profile = self.json(&own(user_kind::ACCOUNT))?.unwrap_or_default();
        let account: Option<Account> = self.json(&own(user_kind::LOGIN))?;
        let (mut conversations, mut messages, mut complete) = (Vec::new(), Vec::new(), true);
        for (conv, row) in self.conversations(user)? {
            let head = self.head(&conv)?;
            complete &= self.own_messages(user, &conv, head.last, &mut messages)?;
            let mut list = json!(row);
            list["muted_until"] = shown_until(row.muted_until);
            conversations.push(json!({
                "conv": conv.wire(&user.id), "last": head.last, "list": list,
            }));
        }
        let tokens = self.tokens_list(user)?;
        Ok(json!({
            "user": user.id,
            "exported": self.now_ms(),
            "profile": profile,
            "account": account.map(|account| account.shown(&user.id)),
            "devices": self.named_rows(user, user_kind::DEVICE)?,
            "roster": self.named_rows(user, user_kind::ROSTER)?,
            "conversations": conversations,
            "tokens": tokens["tokens"],
            "messages": messages,
            "complete": complete,
        }))
    }

    fn named_rows(&self, user: &User, kind: u8) -> Result<Vec<Value>, Fault> {
        let prefix = keys::user_prefix(&user.tenant, &user.id, kind);
        let mut rows = Vec::new();
        self.names(&prefix, None, |name, key, row| {
            // Rows that are not JSON are positions, which the conversations show.
            if let Ok(row) = crate::txn::read_json::<Value>(key, row) {
                rows.push(json!({ "name": name, "row": row }));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    /// False when there were more than an export holds.
    fn own_messages(
        &self,
        user: &User,
        conv: &crate::id::ConvKey,
        last: u64,
        messages: &mut Vec<Value>,
    ) -> Result<bool, Fault> {
        let mut from = 1;
        while from <= last {
            let page = self.entries(conv, from, last, PAGE, PAGE_BYTES, false)?;
            let Some(end) = page.last() else { break };
            from = end.seq + 1;
            for entry in page.iter().filter(|entry| *entry.from == *user.id) {
                if entry.kind != EntryKind::Message && entry.kind != EntryKind::Edit {
                    continue;
                }
                if messages.len() >= MESSAGES_MAX {
                    return Ok(false);
                }
                messages.push(json!({
                    "conv": conv.wire(&user.id), "seq": entry.seq, "ts": entry.ts_ms,
                    "text": String::from_utf8_lossy(&entry.payload),
                }));
            }
        }
        Ok(true)
    }
}
