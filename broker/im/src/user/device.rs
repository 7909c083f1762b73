//! The devices of a user: which there are, and what is kept of them.

use std::sync::Arc;

use hoopoe_codec::ReasonCode;
use hoopoe_store::kv::Family;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::command::{Device, User};
use crate::effect::Effect;
use crate::id::DeviceClass;
use crate::keys::{self, user_kind};
use crate::refusal::{Fault, Refusal};
use crate::service::Caller;
use crate::service::ops::PushToken;
use crate::shard::Work;
use crate::user::services::check_text;

/// Devices of one user that are listed.
const MOST_LISTED: usize = 200;
/// Bytes of a push token.
const PUSH_TOKEN_MAX_BYTES: usize = 4 * 1024;

/// A device as it is kept. Each login writes it: what most do not have is left out.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DeviceRow {
    /// When it connected last, ms since the epoch.
    pub since_ms: u64,
    /// When it was seen to be gone last, ms since the epoch.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gone_ms: u64,
    /// Its session outlives its connection: it has cursors of its own.
    pub stored: bool,
    /// What kind of address it came from.
    #[serde(default)]
    pub address_class: String,
    /// Push service and token, when it has given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push: Option<(String, String)>,
}

pub(crate) fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

impl Work<'_> {
    /// A device is connected: a new session has no cursors of its own any more.
    pub(crate) fn connected(&mut self, device: &Device) -> Result<(), Fault> {
        let user = &device.user;
        let attended = self.memory.seats.is_attended(user);
        for loser in self.memory.seats.take(self.now_ms, self.settings, device) {
            self.kick(user, Some(loser), &device.client);
        }
        let key = keys::user_name(&user.tenant, &user.id, user_kind::DEVICE, &device.client);
        let before: Option<DeviceRow> = self.txn.json(&key)?;
        if !device.kept && before.as_ref().is_some_and(|row| row.stored) {
            let prefix = keys::cursor_prefix(&user.tenant, &user.id, &device.client);
            for key in self.txn.keys(Family::Im, &prefix, usize::MAX)? {
                self.txn.delete(Family::Im, &key);
            }
        }
        if !device.kept {
            self.begins(device)?;
        }
        let row = DeviceRow {
            since_ms: self.now_ms,
            gone_ms: 0,
            stored: device.stored,
            address_class: device.address_class.to_owned(),
            push: before.and_then(|row| row.push),
        };
        self.txn.put_lazily(Family::Im, &key, crate::txn::json_row(&row));
        self.flush_cursors(Some(user))?;
        self.tell_attended(user, attended);
        self.presence_connected(device)
    }

    /// Ends connections of a user; each is told which class of device came, and when (ruling 36).
    pub(crate) fn kick(&mut self, user: &User, client: Option<Arc<str>>, by: &str) {
        let class = DeviceClass::of(by).as_str();
        let notice = format!("im/me/sys/kicked/{class}/{}", self.now_ms);
        let reason = ReasonCode::AdministrativeAction;
        let user = user.clone();
        self.txn.effect(Effect::Kick { user, client, reason, notice: Some(notice) });
    }

    /// `device/list`
    pub(crate) fn device_list(&mut self, caller: &Caller) -> Result<Value, Fault> {
        let user = &caller.user;
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::DEVICE);
        let mut devices = Vec::new();
        for key in self.txn.keys(Family::Im, &prefix, MOST_LISTED)? {
            let Some(row) = self.txn.json::<DeviceRow>(&key)? else { continue };
            let client = keys::name_behind(&key, &prefix);
            let seat = self.memory.seats.of(user).iter().find(|seat| *seat.client == *client);
            devices.push(json!({
                "device": client,
                "class": DeviceClass::of(client).as_str(),
                "online": seat.is_some(),
                "since": seat.map_or(row.since_ms, |seat| seat.since_ms),
                "address_class": row.address_class,
                "push": row.push.is_some(),
            }));
        }
        Ok(json!({ "devices": devices }))
    }

    /// `device/kick`
    pub(crate) fn device_kick(&mut self, caller: &Caller, client: &str) -> Result<Value, Fault> {
        let user = &caller.user;
        if !self.memory.seats.has(user, client) {
            return Err(Refusal::not_found(format!("device {client:?} is not connected")).into());
        }
        let by = caller.device.clone();
        self.kick(user, Some(client.into()), &by);
        Ok(json!({}))
    }

    /// `device/push-token`
    pub(crate) fn device_push_token(
        &mut self,
        caller: &Caller,
        push: &PushToken,
    ) -> Result<Value, Fault> {
        if caller.device.is_empty() {
            return Err(Refusal::bad_request("a push token belongs to a connected device").into());
        }
        check_text("provider", &push.provider)?;
        if push.token.len() > PUSH_TOKEN_MAX_BYTES {
            let text = format!("token: longer than {PUSH_TOKEN_MAX_BYTES} bytes");
            return Err(Refusal::limit(text).into());
        }
        let user = &caller.user;
        let key = keys::user_name(&user.tenant, &user.id, user_kind::DEVICE, &caller.device);
        let mut row: DeviceRow = self.txn.json(&key)?.unwrap_or_default();
        let (provider, token) = (push.provider.clone(), push.token.clone());
        row.push = (!token.is_empty()).then_some((provider, token));
        self.txn.put_json(&key, &row);
        self.tell_push_token(user)?;
        Ok(json!({}))
    }

    /// A device is gone: what it has acknowledged is written.
    pub(crate) fn disconnected(&mut self, device: &Device) -> Result<(), Fault> {
        let user = &device.user;
        let attended = self.memory.seats.is_attended(user);
        self.memory.seats.leave(device);
        self.tell_attended(user, attended);
        self.presence_gone(device);
        if !self.memory.seats.has(user, &device.client) {
            let key = keys::user_name(&user.tenant, &user.id, user_kind::DEVICE, &device.client);
            if let Some(row) = self.txn.json::<DeviceRow>(&key)? {
                let row = DeviceRow { gone_ms: self.now_ms, ..row };
                self.txn.put_lazily(Family::Im, &key, crate::txn::json_row(&row));
            }
        }
        self.flush_cursors(Some(user))
    }
}
