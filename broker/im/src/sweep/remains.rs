//! What users and devices leave behind: devices that do not come back, their cursors, mentions
//! that are read, and how far was pushed to users who take no pushes any more.

use hoopoe_store::kv::Family;

use super::{Budget, Row};
use crate::command::User;
use crate::id::ConvKey;
use crate::keys::{self, user_kind};
use crate::refusal::Fault;
use crate::rows::UserConv;
use crate::shard::Work;
use crate::user::device::DeviceRow;

/// Devices of a user that are looked at.
const MOST_DEVICES: usize = 200;

fn user_of(key: &[u8]) -> Option<(User, &str)> {
    let (tenant, user, behind) = keys::user_of(key)?;
    let behind = std::str::from_utf8(behind).ok()?;
    Some((User { tenant: tenant.into(), id: user.into() }, behind))
}

impl Work<'_> {
    /// A device that has not been seen for long goes, with its cursors and its push token. Its
    /// session has expired long before.
    pub(super) fn sweep_device(
        &mut self,
        key: &[u8],
        row: &[u8],
        budget: &mut Budget,
    ) -> Result<Row, Fault> {
        let Some((user, client)) = user_of(key) else { return Ok(Row::Done) };
        let keep_ms = self.settings.device_keep_secs * 1000;
        let device: DeviceRow = crate::txn::read_json(key, row)?;
        let is_fresh = |device: &DeviceRow| {
            device.gone_ms >= device.since_ms && device.gone_ms + keep_ms >= self.now_ms
        };
        if keep_ms == 0 || is_fresh(&device) || self.memory.seats.has(&user, client) {
            return Ok(Row::Done);
        }
        // As it is now: it may have come this moment.
        let device = self.txn.json::<DeviceRow>(key)?.filter(|device| !is_fresh(device));
        let Some(device) = device else { return Ok(Row::Done) };
        if device.gone_ms < device.since_ms {
            // The process ended while it was connected: its time counts from now on.
            let row = DeviceRow { gone_ms: self.now_ms, ..device };
            self.txn.put_lazily(Family::Im, key, crate::txn::json_row(&row));
            return Ok(Row::Done);
        }
        self.begins_no_more(&user, client)?;
        let cursors = keys::cursor_prefix(&user.tenant, &user.id, client);
        let cursors = self.txn.keys(Family::Im, &cursors, budget.removals)?;
        let more = cursors.len() >= budget.removals;
        budget.removed(cursors.len() + 1);
        for cursor in &cursors {
            self.txn.delete(Family::Im, cursor);
        }
        if more {
            return Ok(Row::More);
        }
        self.txn.delete(Family::Im, key);
        if device.push.is_some() {
            self.tell_push_token(&user)?;
        }
        Ok(Row::Done)
    }

    /// A cursor goes with its device.
    pub(super) fn sweep_cursor(&mut self, key: &[u8], budget: &mut Budget) -> Result<Row, Fault> {
        let Some((user, behind)) = user_of(key) else { return Ok(Row::Done) };
        let client = behind.split('\0').next().unwrap_or_default();
        let device = keys::user_name(&user.tenant, &user.id, user_kind::DEVICE, client);
        budget.look();
        if self.txn.peek(Family::Im, &device)?.is_none() && !self.txn.has(Family::Im, &device)? {
            self.txn.delete(Family::Im, key);
            budget.removed(1);
        }
        Ok(Row::Done)
    }

    /// A mention goes when it is read, and with its message.
    pub(super) fn sweep_mention(&mut self, key: &[u8], budget: &mut Budget) -> Result<Row, Fault> {
        let Some((tenant, id, behind)) = keys::user_of(key) else { return Ok(Row::Done) };
        let user = User { tenant: tenant.into(), id: id.into() };
        let wire = behind.len().checked_sub(9).map(|end| &behind[..end]);
        let wire = wire.and_then(|wire| std::str::from_utf8(wire).ok()).unwrap_or_default();
        let Some(conv) = ConvKey::from_wire(tenant, id, wire) else { return Ok(Row::Done) };
        budget.look();
        let row_key = keys::user_name(tenant, id, user_kind::CONV, &conv.wire(&user.id));
        let row = self.txn.peek_row::<UserConv>(&row_key)?;
        let seq = keys::seq_of(key);
        let over = row.is_some_and(|row| seq <= row.read) || seq < self.committed_head(&conv)?.min;
        if over {
            self.txn.delete(Family::Im, key);
            budget.removed(1);
        }
        Ok(Row::Done)
    }

    /// How far was pushed matters only while there is somebody to push to.
    pub(super) fn sweep_pushed(&mut self, key: &[u8], budget: &mut Budget) -> Result<Row, Fault> {
        let Some((user, _)) = user_of(key) else { return Ok(Row::Done) };
        budget.look();
        if !self.has_push(&user)? {
            self.txn.delete(Family::Im, key);
            budget.removed(1);
        }
        Ok(Row::Done)
    }

    /// Whether a device of the user has given a push token.
    pub(crate) fn has_push(&mut self, user: &User) -> Result<bool, Fault> {
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::DEVICE);
        let (mut found, mut fault) = (false, None);
        let mut left = MOST_DEVICES;
        self.txn.scan(Family::Im, &prefix, b"", |key, row| {
            match crate::txn::read_json::<DeviceRow>(key, row) {
                Ok(device) => found = device.push.is_some(),
                Err(error) => fault = Some(error),
            }
            left -= 1;
            if found || fault.is_some() || left == 0 {
                return std::ops::ControlFlow::Break(());
            }
            std::ops::ControlFlow::Continue(())
        })?;
        fault.map_or(Ok(found), |error| Err(error.into()))
    }
}
