//! The services `user` and `conv`: what a user changes of their own.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::effect::Effect;
use crate::id::ConvKey;
use crate::keys::{self, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::rows::UserConv;
use crate::service::Caller;
use crate::service::ops::{ConvMute, ConvSwitch, UserSet};
use crate::shard::Work;

/// Bytes of a name or an address of a picture.
const TEXT_MAX_BYTES: usize = 256;
/// Bytes of `info`.
pub(crate) const INFO_MAX_BYTES: usize = 4 * 1024;

/// A user's profile.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// Name to show.
    #[serde(default)]
    pub name: String,
    /// Address of a picture.
    #[serde(default)]
    pub avatar: String,
    /// Anything.
    #[serde(default)]
    pub info: Value,
}

/// Refuses `info` that is too large.
pub(crate) fn check_info(info: Option<&Value>) -> Result<(), Refusal> {
    match info {
        Some(info) if info.to_string().len() > INFO_MAX_BYTES => {
            Err(Refusal::too_large(format!("info: larger than {INFO_MAX_BYTES} bytes")))
        }
        _ => Ok(()),
    }
}

/// Refuses a text that is too long, naming the field.
pub(crate) fn check_text(field: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > TEXT_MAX_BYTES {
        let text = format!("{field}: longer than {TEXT_MAX_BYTES} bytes");
        return Err(Refusal::too_large(text));
    }
    Ok(())
}

/// The conversation that a request names.
pub(crate) fn conv_of(caller: &Caller, wire: &str) -> Result<ConvKey, Refusal> {
    let user = &caller.user;
    ConvKey::from_wire(&user.tenant, &user.id, wire).ok_or_else(|| {
        Refusal::bad_request(format!("conv: {wire:?} is not u/…, g/… or c/… with a valid id"))
    })
}

impl Work<'_> {
    pub(crate) fn user_set(&mut self, caller: &Caller, set: &UserSet) -> Result<Value, Fault> {
        check_text("name", set.name.as_deref().unwrap_or_default())?;
        check_text("avatar", set.avatar.as_deref().unwrap_or_default())?;
        check_info(set.info.as_ref())?;
        let user = &caller.user;
        let key = keys::user(&user.tenant, &user.id, user_kind::ACCOUNT);
        let mut profile: Profile = self.txn.json(&key)?.unwrap_or_default();
        if let Some(name) = &set.name {
            profile.name.clone_from(name);
        }
        if let Some(avatar) = &set.avatar {
            profile.avatar.clone_from(avatar);
        }
        if let Some(info) = &set.info {
            profile.info.clone_from(info);
        }
        self.txn.put_json(&key, &profile);
        Ok(json!({
            "user": user.id, "name": profile.name, "avatar": profile.avatar, "info": profile.info,
        }))
    }

    fn change_conv(
        &mut self,
        caller: &Caller,
        wire: &str,
        change: impl FnOnce(&mut UserConv),
    ) -> Result<Value, Fault> {
        let conv = conv_of(caller, wire)?;
        let mut row = self.user_conv_or_new(&caller.user, &conv)?;
        change(&mut row);
        self.put_user_conv(&caller.user, &conv, &row);
        Ok(json!({}))
    }

    pub(crate) fn conv_pin(&mut self, caller: &Caller, pin: &ConvSwitch) -> Result<Value, Fault> {
        self.change_conv(caller, &pin.conv, |row| row.pinned = pin.on)
    }

    pub(crate) fn conv_mute(&mut self, caller: &Caller, mute: &ConvMute) -> Result<Value, Fault> {
        let until = if mute.on { mute.until.unwrap_or(u64::MAX) } else { 0 };
        self.change_conv(caller, &mute.conv, |row| row.muted_until = until)
    }

    pub(crate) fn conv_hide(&mut self, caller: &Caller, hide: &ConvSwitch) -> Result<Value, Fault> {
        let head = self.committed_head(&conv_of(caller, &hide.conv)?)?;
        self.change_conv(caller, &hide.conv, |row| row.hidden_at = hide.on.then_some(head.last))
    }

    /// Sets `read` and the visible minimum to the head (ruling 22).
    pub(crate) fn conv_clear(&mut self, caller: &Caller, wire: &str) -> Result<Value, Fault> {
        let conv = conv_of(caller, wire)?;
        let user = &caller.user;
        self.flush_cursors(Some(user))?;
        let head = self.committed_head(&conv)?;
        let mut row = self.user_conv_or_new(user, &conv)?;
        let before = row.read;
        row.read = row.read.max(head.last);
        row.recv = row.recv.max(head.last);
        row.read_count = row.read_count.max(head.count);
        row.cleared = row.cleared.max(head.last);
        #[cfg(feature = "planted")]
        if hoopoe_core::planted::has(hoopoe_core::planted::Bug::ForgetClear) {
            row.cleared = 0;
        }
        self.put_user_conv(user, &conv, &row);
        self.cursor_moved(user, &conv, before, &row);
        let through = row.cleared;
        self.txn.effect(Effect::Skip { user: user.clone(), conv, through });
        Ok(json!({ "read": row.read, "min": row.first() }))
    }
}
