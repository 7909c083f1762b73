//! Where a device stands in a conversation in which it has no cursor of its own.
//!
//! A new session begins, per conversation, where its user is: at the user's `recv`. Nothing is
//! written about that, however long the list is. While the user's `recv` stays, it says where the
//! device is; whoever moves it first leaves behind a cursor, where it was, for every such device
//! that has none. So what comes after the beginning is owed to the device until itself has
//! acknowledged it, whoever has received or read it meanwhile, also in conversations that come
//! into being later: there `recv` begins before the first entry.
//!
//! A user's row names these devices. Those that it does not name (of before there was the row, or
//! one too many) have everything from the user's join on: they may hear things twice, and miss
//! nothing.

use hoopoe_store::StoreError;
use hoopoe_store::kv::Family;

use crate::command::{Device, User};
use crate::keys::{self, user_kind};
use crate::rows::number_row;
use crate::service::query::Query;
use crate::shard::Work;

/// Devices of a user that are named; beyond it, those that began first no more.
const MOST: usize = 16;

fn key_of(user: &User) -> keys::Key {
    keys::user(&user.tenant, &user.id, user_kind::BEGUN)
}

impl Work<'_> {
    fn begun(&mut self, user: &User) -> Result<Vec<String>, StoreError> {
        Ok(self.txn.json(&key_of(user))?.unwrap_or_default())
    }

    /// A new session of a device; what an earlier one has left is removed.
    pub(crate) fn begins(&mut self, device: &Device) -> Result<(), StoreError> {
        if !device.stored {
            return self.begins_no_more(&device.user, &device.client);
        }
        let before = self.begun(&device.user)?;
        if before.last().is_some_and(|last| **last == *device.client) {
            return Ok(());
        }
        let others = before.into_iter().filter(|client| **client != *device.client);
        let mut begun: Vec<String> = others.chain([device.client.to_string()]).collect();
        begun.drain(..begun.len().saturating_sub(MOST));
        // Lost in a crash, it names the device no more.
        self.txn.put_lazily(Family::Im, &key_of(&device.user), crate::txn::json_row(&begun));
        Ok(())
    }

    /// The device has no session that outlives its connection.
    pub(crate) fn begins_no_more(&mut self, user: &User, client: &str) -> Result<(), StoreError> {
        let mut begun = self.begun(user)?;
        let before = begun.len();
        begun.retain(|known| *known != *client);
        if begun.is_empty() && before > 0 {
            self.txn.delete(Family::Im, &key_of(user));
        } else if begun.len() < before {
            self.txn.put_lazily(Family::Im, &key_of(user), crate::txn::json_row(&begun));
        }
        Ok(())
    }

    /// The user's `recv` is about to leave `recv`: the devices that stand there by it stay.
    pub(crate) fn leave_devices(
        &mut self,
        user: &User,
        wire: &str,
        recv: u64,
    ) -> Result<(), StoreError> {
        for client in self.begun(user)? {
            let key = keys::cursor(&user.tenant, &user.id, &client, wire);
            if !self.txn.has(Family::Im, &key)? {
                self.txn.put(Family::Im, &key, number_row(recv));
            }
        }
        Ok(())
    }
}

impl Query {
    /// Whether the device stands at the user's `recv` where it has no cursor. To be asked after
    /// the list and the cursors are read, in this order: what moves meanwhile is replayed then.
    pub(crate) fn has_begun(&self, user: &User, client: &str) -> Result<bool, StoreError> {
        let begun: Vec<String> = self.json(&key_of(user))?.unwrap_or_default();
        Ok(begun.iter().any(|known| *known == *client))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::{Command, DeviceMove, Progress};
    use crate::rig::{Rig, conv_of, user};
    use crate::settings::ImSettings;

    fn device(client: &str, kept: bool) -> Box<Device> {
        Box::new(Device {
            user: user("bob"),
            client: client.into(),
            location: hoopoe_core::Location::new(0, 1, client.len() as u32),
            address_class: "network",
            stored: true,
            kept,
            heads_only: false,
        })
    }

    /// A device of bob's connects; gives where it begins, as `conversation cursor..head`.
    fn connect(rig: &mut Rig, client: &str, kept: bool) -> Vec<String> {
        rig.post(|_| Command::Connected(device(client, kept)));
        rig.settle();
        let bob = user("bob");
        let login = rig.query().login(&bob, client, kept, false, |_| {}).unwrap();
        let place = |wire: &&str| {
            let (cursor, head) = login.starts.place(&conv_of("bob", wire))?;
            Some(format!("{wire} {cursor}..{head}"))
        };
        ["u/alice", "u/bob", "u/carol", "g/team"].iter().filter_map(place).collect()
    }

    fn leave(rig: &mut Rig, client: &str) {
        rig.post(|_| Command::Disconnected(device(client, false)));
        rig.settle();
    }

    fn acknowledge(rig: &mut Rig, client: &str, wire: &str, through: u64) {
        let moves = vec![DeviceMove { conv: conv_of("bob", wire), cursor: through, recv: through }];
        let (user, client) = (user("bob"), client.into());
        let progress = Progress { user, client, stored: true, moves, at_once: true };
        rig.post(|_| Command::Progress(Box::new(progress)));
        rig.settle();
    }

    fn send(rig: &mut Rig, from: &str, wire: &str, count: usize) {
        for _ in 0..count {
            rig.send(from, wire, "x").unwrap();
        }
        rig.pass(2_000);
    }

    #[test]
    fn the_first_connection_says_where_a_device_begins() {
        let mut rig = Rig::new(ImSettings::default());
        rig.call(
            "alice",
            "group/create",
            json!({ "group": "team", "name": "x", "members": ["bob"] }),
        )
        .unwrap();
        send(&mut rig, "alice", "u/bob", 5);
        send(&mut rig, "alice", "g/team", 2);
        send(&mut rig, "bob", "u/bob", 2);
        send(&mut rig, "bob", "u/carol", 1);
        connect(&mut rig, "web-1", false);
        acknowledge(&mut rig, "web-1", "u/alice", 5);
        acknowledge(&mut rig, "web-1", "g/team", 3);
        rig.read("bob", "u/alice", 5);
        let there = ["u/alice 5..5", "u/bob 2..2", "u/carol 1..1", "g/team 3..3"];
        assert_eq!(connect(&mut rig, "ios-1", false), there);
        leave(&mut rig, "ios-1");
        assert_eq!(connect(&mut rig, "ios-1", true), there, "what the user has is not replayed");
        // Written with the next thing that somebody waits for.
        rig.call("bob", "user/set", json!({ "name": "Bob" })).unwrap();
        rig.crash();
        assert_eq!(connect(&mut rig, "ios-1", true), there);
        let mut cursors = rig.query().cursors(&user("bob"), "ios-1").unwrap();
        assert_eq!(cursors.of(&conv_of("bob", "u/alice"), "bob"), None, "nothing is written");
    }

    /// Whoever has received or read it meanwhile.
    #[test]
    fn what_came_after_a_device_began_is_owed_to_it() {
        let mut rig = Rig::new(ImSettings::default());
        send(&mut rig, "alice", "u/bob", 5);
        connect(&mut rig, "web-1", false);
        acknowledge(&mut rig, "web-1", "u/alice", 3);
        assert_eq!(connect(&mut rig, "ios-1", false), ["u/alice 3..5"]);
        leave(&mut rig, "ios-1");
        send(&mut rig, "carol", "u/bob", 1);
        send(&mut rig, "bob", "u/bob", 1);
        for (wire, last) in [("u/alice", 5), ("u/carol", 1)] {
            acknowledge(&mut rig, "web-1", wire, last);
            rig.read("bob", wire, last);
        }
        rig.crash();
        let owed = ["u/alice 3..5", "u/bob 0..1", "u/carol 0..1"];
        assert_eq!(connect(&mut rig, "ios-1", true), owed);
        leave(&mut rig, "ios-1");
        // Moved by the user's word alone.
        send(&mut rig, "alice", "u/bob", 1);
        connect(&mut rig, "pc-1", false);
        rig.read("bob", "u/alice", 6);
        let of_alice = |starts: Vec<String>| starts[0].clone();
        assert_eq!(of_alice(connect(&mut rig, "pc-1", true)), "u/alice 5..6");
        assert_eq!(of_alice(connect(&mut rig, "ios-1", true)), "u/alice 3..6");
        assert_eq!(of_alice(connect(&mut rig, "ios-1", false)), "u/alice 6..6", "a new session");
    }

    #[test]
    fn a_device_that_is_not_named_misses_nothing() {
        let mut rig = Rig::new(ImSettings::default());
        send(&mut rig, "alice", "u/bob", 2);
        connect(&mut rig, "web-1", false);
        acknowledge(&mut rig, "web-1", "u/alice", 2);
        connect(&mut rig, "ios-1", false);
        for n in 0..MOST {
            connect(&mut rig, &format!("bot-{n}"), false);
        }
        assert_eq!(connect(&mut rig, "ios-1", true), ["u/alice 0..2"]);
        assert_eq!(connect(&mut rig, "bot-0", true), ["u/alice 2..2"]);
        let begun = rig.query().json::<Vec<String>>(&key_of(&user("bob"))).unwrap().unwrap();
        assert_eq!(begun.len(), MOST);
    }
}
