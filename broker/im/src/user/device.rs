//! The devices of a user: which there are, and what is kept of them.

use hoopoe_store::kv::Family;
use serde::{Deserialize, Serialize};

use crate::command::Device;
use crate::keys::{self, user_kind};
use crate::refusal::Fault;
use crate::shard::Work;

/// A device as it is kept.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct DeviceRow {
    /// When it connected last, ms since the epoch.
    pub since_ms: u64,
    /// Its session outlives its connection: it has cursors of its own.
    pub stored: bool,
    /// What kind of address it came from.
    #[serde(default)]
    pub address_class: String,
    /// Push service and token, when it has given one.
    #[serde(default)]
    pub push: Option<(String, String)>,
}

impl Work<'_> {
    /// A device is connected: a new session has no cursors of its own any more.
    pub(crate) fn connected(&mut self, device: &Device) -> Result<(), Fault> {
        let user = &device.user;
        let key = keys::user_name(&user.tenant, &user.id, user_kind::DEVICE, &device.client);
        let before: Option<DeviceRow> = self.txn.json(&key)?;
        if !device.kept && before.as_ref().is_some_and(|row| row.stored) {
            let prefix = keys::cursor_prefix(&user.tenant, &user.id, &device.client);
            for key in self.txn.keys(Family::Im, &prefix, usize::MAX)? {
                self.txn.delete(Family::Im, &key);
            }
        }
        let row = DeviceRow {
            since_ms: self.now_ms,
            stored: device.stored,
            address_class: device.address_class.to_owned(),
            push: before.and_then(|row| row.push),
        };
        self.txn.put_lazily(Family::Im, &key, crate::txn::json_row(&row));
        Ok(())
    }

    /// A device is gone: what it has acknowledged is written.
    pub(crate) fn disconnected(&mut self, device: &Device) -> Result<(), Fault> {
        self.flush_cursors(Some(&device.user))
    }
}
