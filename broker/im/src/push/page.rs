//! What a user is to be told of in one conversation, as it is now.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use hoopoe_core::SLOTS;
use hoopoe_store::StoreError;
use hoopoe_store::kv::{Family, SharedKv, Span};

use crate::command::User;
use crate::entry::{Entry, EntryKind};
use crate::group::GroupRow;
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind, user_kind};
use crate::rows::{Head, UserConv, may_see, read_number, since};
use crate::service::query::Query;
use crate::user::device::DeviceRow;

/// Entries looked at for one page.
const LOOK_ENTRIES: usize = 256;
/// Bytes of them.
const LOOK_BYTES: usize = 1 << 20;

/// Who is pushed to, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// A device of the user is looked at: it has its time to acknowledge.
    pub attended: bool,
    /// That time.
    pub after_ms: u64,
    /// What is older is not pushed any more; 0 for no limit.
    pub max_age_ms: u64,
    /// Pushes of one page.
    pub most: usize,
}

/// A device with a push token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PushDevice {
    /// Its client id.
    pub device: String,
    /// Its push service.
    pub provider: String,
    /// What that service knows it by.
    pub token: String,
}

/// A message the user is to be told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Push {
    /// Its seq.
    pub seq: u64,
    /// The sender.
    pub from: Arc<str>,
    /// Commit time, ms since the epoch.
    pub ts_ms: u64,
    /// It mentions the user.
    pub mentioned: bool,
    /// The user has muted the conversation.
    pub muted: bool,
    /// Its content.
    pub payload: Bytes,
}

/// What there is to push of a conversation.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PushPage {
    /// To whom.
    pub devices: Vec<PushDevice>,
    /// Unread messages of the conversation.
    pub unread: u64,
    /// Of what, in order.
    pub pushes: Vec<Push>,
    /// Everything up to here was looked at.
    pub through: u64,
    /// Entries that were looked at.
    pub looked: u64,
    /// When to look again, if there is more.
    pub again_ms: Option<u64>,
}

/// Visits the users who have given a push token, each at least once.
///
/// # Errors
/// When rows cannot be read.
pub fn users_with_tokens(kv: &SharedKv, mut each: impl FnMut(User)) -> Result<(), StoreError> {
    for slot in 0..SLOTS {
        let [high, low] = slot.to_be_bytes();
        let (from, to) = ([high, low, user_kind::DEVICE], [high, low, user_kind::DEVICE + 1]);
        let mut result = Ok(());
        kv.scan(
            Family::Im,
            Span::half_open(&from, &to),
            &mut |key, row| match crate::txn::read_json::<DeviceRow>(key, row) {
                Ok(device) => {
                    if let (Some(_), Some((tenant, id, _))) = (device.push, keys::user_of(key)) {
                        each(User { tenant: tenant.into(), id: id.into() });
                    }
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    result = Err(error);
                    ControlFlow::Break(())
                }
            },
        )?;
        result?;
    }
    Ok(())
}

impl Query {
    /// What there is to push of a conversation.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn push_page(
        &self,
        user: &User,
        conv: &ConvKey,
        terms: &Terms,
    ) -> Result<PushPage, StoreError> {
        let mut page = PushPage { devices: self.push_devices(user)?, ..PushPage::default() };
        let Some(row) = self.push_row(user, conv)?.filter(|_| !page.devices.is_empty()) else {
            return Ok(page);
        };
        let from = self.owed_from(user, conv, &row)?;
        let head = self.head(conv)?;
        page.through = from - 1;
        if head.last < from {
            return Ok(page);
        }
        let sparse = self.mentions_only(conv)?;
        let entries = self.push_entries(user, conv, from.max(head.min), &head, sparse)?;
        let cut = entries.len() >= LOOK_ENTRIES
            || (!sparse && entries.last().is_some_and(|entry| entry.seq < head.last));
        for entry in &entries {
            if terms.attended && entry.ts_ms + terms.after_ms > self.now_ms() {
                page.again_ms = Some(entry.ts_ms + terms.after_ms);
                break;
            }
            if page.pushes.len() >= terms.most {
                page.again_ms = Some(self.now_ms());
                break;
            }
            page.through = entry.seq;
            page.looked += 1;
            page.pushes.extend(self.push_of(user, entry, &row, terms));
        }
        if page.again_ms.is_none() && cut {
            page.again_ms = Some(self.now_ms());
        }
        if !page.pushes.is_empty() {
            page.unread = self.unread(conv, &row, &head)?;
        }
        Ok(page)
    }

    /// The list's row; a pair's conversation may not be listed yet.
    fn push_row(&self, user: &User, conv: &ConvKey) -> Result<Option<UserConv>, StoreError> {
        let row = self.user_conv(user, conv)?;
        let new = || {
            let intervals = since(1);
            (conv.kind() == ConvKind::User).then(|| UserConv { intervals, ..UserConv::default() })
        };
        Ok(row.or_else(new))
    }

    /// The first entry the user may have to be told of.
    fn owed_from(&self, user: &User, conv: &ConvKey, row: &UserConv) -> Result<u64, StoreError> {
        let wire = conv.wire(&user.id);
        let key = keys::user_name(&user.tenant, &user.id, user_kind::PUSHED, &wire);
        let pushed = self.get(Family::Im, &key)?;
        let pushed = pushed.map_or(Ok(0), |row| read_number(&key, &row))?;
        Ok((row.recv.max(row.read).max(pushed) + 1).max(row.first()))
    }

    /// Entries from a seq on; of big conversations only those that mention the user by name.
    fn push_entries(
        &self,
        user: &User,
        conv: &ConvKey,
        from: u64,
        head: &Head,
        sparse: bool,
    ) -> Result<Vec<Entry>, StoreError> {
        if !sparse {
            return self.entries(conv, from, head.last, LOOK_ENTRIES, LOOK_BYTES, false);
        }
        let mut entries = Vec::new();
        for seq in self.mentioned_at(user, conv, from, head.last)? {
            entries.extend(self.entry(conv, seq)?);
        }
        Ok(entries)
    }

    /// Channels and big groups push mentions only (ruling 34).
    fn mentions_only(&self, conv: &ConvKey) -> Result<bool, StoreError> {
        match conv.kind() {
            ConvKind::User => Ok(false),
            ConvKind::Channel => Ok(true),
            ConvKind::Group => {
                let group = self.json::<GroupRow>(&keys::conv(conv, conv_kind::GROUP))?;
                Ok(group.is_none_or(|group| group.big))
            }
        }
    }

    fn mentioned_at(
        &self,
        user: &User,
        conv: &ConvKey,
        from: u64,
        to: u64,
    ) -> Result<Vec<u64>, StoreError> {
        let wire = conv.wire(&user.id);
        let low = keys::mention(&user.tenant, &user.id, &wire, from);
        let high = keys::mention(&user.tenant, &user.id, &wire, u64::MAX);
        let mut seqs = Vec::new();
        self.im_rows(&low, &high, |key| {
            seqs.push(keys::seq_of(key));
            seqs.len() < LOOK_ENTRIES
        })?;
        // By name, or as one of all.
        seqs.extend(self.seqs(conv, conv_kind::AT_ALL, from, to)?);
        seqs.sort_unstable();
        seqs.dedup();
        seqs.truncate(LOOK_ENTRIES);
        Ok(seqs)
    }

    /// The push of an entry, if there is to be one.
    fn push_of(&self, user: &User, entry: &Entry, row: &UserConv, terms: &Terms) -> Option<Push> {
        let old = terms.max_age_ms > 0 && entry.ts_ms + terms.max_age_ms < self.now_ms();
        if entry.kind != EntryKind::Message || entry.from == user.id || old {
            return None;
        }
        let mentioned = entry.at_all || entry.mentions.contains(&user.id);
        // Sent while the conversation was muted, even if it is not any more.
        let muted = entry.ts_ms < row.muted_until;
        if (muted && !mentioned) || !may_see(&row.intervals, entry.seq) {
            return None;
        }
        Some(Push {
            seq: entry.seq,
            from: entry.from.clone(),
            ts_ms: entry.ts_ms,
            mentioned,
            muted,
            payload: entry.payload.clone(),
        })
    }

    fn push_devices(&self, user: &User) -> Result<Vec<PushDevice>, StoreError> {
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::DEVICE);
        let mut devices = Vec::new();
        self.names(&prefix, None, |client, key, row| {
            let row: DeviceRow = crate::txn::read_json(key, row)?;
            if let Some((provider, token)) = row.push {
                devices.push(PushDevice { device: client.to_owned(), provider, token });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(devices)
    }

    /// The conversations of which a user may have to be told something, for after a start.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn push_owed(&self, user: &User) -> Result<Vec<ConvKey>, StoreError> {
        let mut owed = Vec::new();
        for (conv, row) in self.conversations(user)? {
            let from = self.owed_from(user, &conv, &row)?;
            if self.head(&conv)?.last >= from {
                owed.push(conv);
            }
        }
        Ok(owed)
    }

    /// The members of a small group, present ones; `None` for a big group.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn members_to_push(&self, conv: &ConvKey) -> Result<Option<Vec<Arc<str>>>, StoreError> {
        if self.mentions_only(conv)? {
            return Ok(None);
        }
        self.everybody_to_push(conv)
    }

    /// Who is pushed to for a message that mentions all: every member; none where all users are.
    ///
    /// # Errors
    ///
    /// When rows cannot be read.
    pub fn everybody_to_push(&self, conv: &ConvKey) -> Result<Option<Vec<Arc<str>>>, StoreError> {
        let everyone = keys::everyone(conv.tenant(), conv.id());
        if conv.kind() == ConvKind::Channel && self.get(Family::Im, &everyone)?.is_some() {
            return Ok(None);
        }
        let prefix = keys::conv_prefix(conv, conv_kind::MEMBER);
        let mut members = Vec::new();
        self.names(&prefix, None, |name, key, row| {
            let member: crate::group::MemberRow = crate::txn::read_json(key, row)?;
            if member.is_current() {
                members.push(Arc::from(name));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Some(members))
    }
}
