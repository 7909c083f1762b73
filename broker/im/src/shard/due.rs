//! What falls due without anybody asking, found again at the start.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use hoopoe_core::SLOTS;
use hoopoe_store::StoreError;
use hoopoe_store::kv::{Family, SharedKv, Span};

use crate::conversation::operate::Burn;
use crate::conversation::unlit::Unlit;
use crate::group::GroupRow;
use crate::id::ConvKey;
use crate::keys::{self, conv_kind};
use crate::refusal::Fault;
use crate::shard::Work;

/// Something that is due at a time.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Due {
    /// A message burns.
    Burn(ConvKey, u64),
    /// Somebody may have read messages that burn, and the conversation was not told.
    Light(ConvKey),
    /// A temporary group ends.
    GroupEnd(ConvKey),
    /// What a user said in a conversation is being erased.
    Erase(ConvKey, Arc<str>),
}

impl Work<'_> {
    pub(super) fn fall_due(&mut self, due: Due) -> Result<(), Fault> {
        if let Due::Burn(conv, _) | Due::Light(conv) | Due::GroupEnd(conv) = &due
            && self.foreign_home(conv).is_some()
        {
            // Its home does it.
            return Ok(());
        }
        match due {
            Due::Burn(conv, seq) => self.burn(&conv, seq),
            Due::Light(conv) => self.light_read(&conv),
            Due::GroupEnd(conv) => self.group_ended(&conv),
            Due::Erase(conv, user) => self.erase_on(&conv, &user),
        }
    }
}

/// Everything of a shard's slots that is due at some time, and where messages wait to be read
/// before they burn.
pub(crate) fn load(
    kv: &SharedKv,
    shard: u16,
    shards: u16,
) -> Result<(BTreeSet<(u64, Due)>, Unlit), StoreError> {
    let (mut due, mut unlit) = (BTreeSet::new(), Unlit::default());
    for slot in (shard..SLOTS).step_by(usize::from(shards)) {
        scan(kv, slot, conv_kind::BURN, |name, key, row| {
            let burn: Burn = crate::txn::read_json(key, row)?;
            let name = name.len().checked_sub(9).and_then(|end| name.get(..end));
            match (burn.due_ms, conv_of(name)) {
                (Some(at), Some(conv)) => {
                    due.insert((at, Due::Burn(conv, keys::seq_of(key))));
                }
                (None, Some(conv)) => {
                    unlit.add(&conv);
                    due.insert((0, Due::Light(conv)));
                }
                (_, None) => {}
            }
            Ok(())
        })?;
        scan(kv, slot, conv_kind::GROUP, |name, key, row| {
            let group: GroupRow = crate::txn::read_json(key, row)?;
            let at = match group.dissolved {
                true => group.untold.map(|_| 0),
                false => group.until_ms,
            };
            if let (Some(at), Some(conv)) = (at, conv_of(Some(name))) {
                due.insert((at, Due::GroupEnd(conv)));
            }
            Ok(())
        })?;
        scan(kv, slot, conv_kind::ERASE, |name, _, _| {
            let text = std::str::from_utf8(name).unwrap_or_default();
            if let Some((conv, user)) = text.split_once('\0')
                && let Some(conv) = ConvKey::parse(conv)
            {
                due.insert((0, Due::Erase(conv, user.into())));
            }
            Ok(())
        })?;
    }
    Ok((due, unlit))
}

fn conv_of(name: Option<&[u8]>) -> Option<ConvKey> {
    ConvKey::parse(std::str::from_utf8(name?).ok()?)
}

/// Visits the rows of a kind in a slot: what stands behind the kind, the key, the row.
pub(crate) fn scan(
    kv: &SharedKv,
    slot: u16,
    kind: u8,
    mut each: impl FnMut(&[u8], &[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let [high, low] = slot.to_be_bytes();
    let (from, to) = ([high, low, kind], [high, low, kind + 1]);
    let mut result = Ok(());
    kv.scan(Family::Im, Span::half_open(&from, &to), &mut |key, row| {
        result = each(&key[from.len()..], key, row);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}
