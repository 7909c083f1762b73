//! What falls due without anybody asking, found again at the start.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use hoopoe_core::SLOTS;
use hoopoe_store::StoreError;
use hoopoe_store::kv::{Family, SharedKv, Span};

use crate::conversation::operate::Burn;
use crate::conversation::tally::Tally;
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
    /// A reader's cursor has passed more messages that burn: who, behind which, up to which.
    LightOn(ConvKey, Arc<str>, u64, u64),
    /// A temporary group ends.
    GroupEnd(ConvKey),
    /// What a user said in a conversation is being erased.
    Erase(ConvKey, Arc<str>),
    /// Reactions to a message of a big group or channel are told.
    Tally(ConvKey, u64),
}

impl Work<'_> {
    pub(super) fn fall_due(&mut self, due: Due) -> Result<(), Fault> {
        if let Due::Burn(conv, _)
        | Due::Light(conv)
        | Due::LightOn(conv, ..)
        | Due::GroupEnd(conv)
        | Due::Tally(conv, _) = &due
            && self.foreign_home(conv).is_some()
        {
            // Its home does it.
            return Ok(());
        }
        match due {
            Due::Burn(conv, seq) => self.burn(&conv, seq),
            Due::Light(conv) => self.light_read(&conv),
            Due::LightOn(conv, reader, after, read) => self.light(&conv, &reader, after, read),
            Due::GroupEnd(conv) => self.group_ended(&conv),
            Due::Erase(conv, user) => self.erase_on(&conv, &user),
            Due::Tally(conv, seq) => self.tell_tally(&conv, seq),
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
    let slots = (shard..SLOTS).step_by(usize::from(shards));
    let kinds = [conv_kind::GROUP, conv_kind::BURN, conv_kind::ERASE, conv_kind::TALLY];
    scan_slots(kv, slots, &kinds, |kind, name, key, row| {
        match kind {
            conv_kind::BURN => {
                let burn: Burn = crate::txn::read_json(key, row)?;
                match (burn.due_ms, numbered(name)) {
                    (Some(at), Some(conv)) => {
                        due.insert((at, Due::Burn(conv, keys::seq_of(key))));
                    }
                    (None, Some(conv)) => {
                        unlit.add(&conv);
                        due.insert((0, Due::Light(conv)));
                    }
                    (_, None) => {}
                }
            }
            conv_kind::GROUP => {
                let group: GroupRow = crate::txn::read_json(key, row)?;
                let at = match group.dissolved {
                    true => group.untold.map(|_| 0),
                    false => group.until_ms,
                };
                if let (Some(at), Some(conv)) = (at, conv_of(Some(name))) {
                    due.insert((at, Due::GroupEnd(conv)));
                }
            }
            conv_kind::TALLY => {
                let tally: Tally = crate::txn::read_json(key, row)?;
                if let (Some(at), Some(conv)) = (tally.due_ms, numbered(name)) {
                    due.insert((at, Due::Tally(conv, keys::seq_of(key))));
                }
            }
            _ => {
                let text = std::str::from_utf8(name).unwrap_or_default();
                if let Some((conv, user)) = text.split_once('\0')
                    && let Some(conv) = ConvKey::parse(conv)
                {
                    due.insert((0, Due::Erase(conv, user.into())));
                }
            }
        }
        Ok(())
    })?;
    Ok((due, unlit))
}

/// The conversation of a row that is named by it and a number.
fn numbered(name: &[u8]) -> Option<ConvKey> {
    conv_of(name.len().checked_sub(9).and_then(|end| name.get(..end)))
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

/// Visits the rows of some kinds in many slots, once, as at the start: the kind, what stands behind
/// it, the key, the row. Both lists in rising order.
pub(crate) fn scan_slots(
    kv: &SharedKv,
    slots: impl Iterator<Item = u16>,
    kinds: &[u8],
    mut each: impl FnMut(u8, &[u8], &[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (mut bounds, mut result) = (Vec::new(), Ok(()));
    for [high, low] in slots.map(u16::to_be_bytes) {
        bounds.extend(kinds.iter().map(|kind| ([high, low, *kind], [high, low, kind + 1])));
    }
    let spans: Vec<(&[u8], &[u8])> = bounds.iter().map(|(from, to)| (&from[..], &to[..])).collect();
    kv.scan_each_once(Family::Im, &spans, &mut |at, key, row| {
        let (from, _) = &bounds[at];
        if result.is_err() || !key.starts_with(from) {
            return ControlFlow::Break(());
        }
        result = each(from[2], &key[from.len()..], key, row);
        ControlFlow::Continue(())
    })?;
    result
}
