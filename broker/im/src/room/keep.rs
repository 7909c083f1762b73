//! The stored row of a room: written by the shard that owns the room's slot, read at the start.

use hoopoe_core::{SLOTS, Slot};
use hoopoe_store::StoreError;
use hoopoe_store::kv::SharedKv;

use super::RoomRow;
use crate::command::Asker;
use crate::effect::Answer;
use crate::keys;
use crate::refusal::Fault;
use crate::shard::Work;

/// A room's row is to be stored before somebody hears the answer to what changed it.
#[derive(Clone, Debug)]
pub struct KeepRoom {
    /// The room's tenant.
    pub tenant: Box<str>,
    /// Its id.
    pub room: Box<str>,
    /// The row as it is now.
    pub row: RoomRow,
    /// What is answered.
    pub answer: serde_json::Value,
    /// To whom.
    pub asker: Asker,
}

impl KeepRoom {
    /// The slot that owns the row.
    pub fn slot(&self) -> Slot {
        crate::id::room_slot(&self.tenant, &self.room)
    }
}

impl Work<'_> {
    /// Rooms are changed on many threads and their rows may come here in another order: a later
    /// version is never overwritten by an earlier one.
    pub(crate) fn keep_room(&mut self, keep: &KeepRoom) -> Result<Answer, Fault> {
        let key = keys::room(&keep.tenant, &keep.room);
        let before: Option<RoomRow> = self.txn.json(&key)?;
        if before.is_none_or(|row| row.version < keep.row.version) {
            self.txn.put_json(&key, &keep.row);
        }
        Ok(Answer::Value(keep.answer.clone()))
    }
}

/// Gives every stored room: tenant, id and row.
///
/// # Errors
/// When rows cannot be read.
pub fn stored_rooms(
    kv: &SharedKv,
    mut each: impl FnMut(&str, &str, RoomRow),
) -> Result<(), StoreError> {
    crate::shard::due::scan_slots(kv, 0..SLOTS, &[keys::ROOM], |_, name, key, row| {
        let row = crate::txn::read_json(key, row)?;
        let name = std::str::from_utf8(name).ok().and_then(|name| name.split_once('\0'));
        if let Some((tenant, room)) = name {
            each(tenant, room, row);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hoopoe_store::kv::{Batch, Family};
    use hoopoe_store::{MemoryKv, PendingBatch};

    use super::*;
    use crate::{Command, ImSettings, ImShard, Pending};

    fn keep(room: &str, version: u64) -> Command {
        let row = RoomRow { version, ..RoomRow::default() };
        Command::KeepRoom(Box::new(KeepRoom {
            tenant: "t".into(),
            room: room.into(),
            row,
            answer: serde_json::json!({}),
            asker: Asker::Nobody,
        }))
    }

    fn kv_with(rooms: &[(&str, u64)]) -> SharedKv {
        let kv: SharedKv = Arc::new(MemoryKv::new(None));
        let mut rows = Batch::default();
        for (name, version) in rooms {
            let row = RoomRow { version: *version, ..RoomRow::default() };
            rows.put(Family::Im, &keys::room("t", name), &crate::txn::json_row(&row));
        }
        kv.write(&rows, true).unwrap();
        kv
    }

    #[test]
    fn stored_rooms_are_found_again() {
        let kv = kv_with(&[("b", 2), ("a", 1), ("c:x", 3)]);
        let mut found = Vec::new();
        stored_rooms(&kv, |tenant, room, row| found.push((tenant.to_owned() + room, row.version)))
            .unwrap();
        found.sort();
        assert_eq!(found, [("ta".to_owned(), 1), ("tb".to_owned(), 2), ("tc:x".to_owned(), 3)]);
    }

    #[test]
    fn a_later_version_is_not_overwritten() {
        let (mut shard, _) =
            ImShard::open(kv_with(&[("b", 2)]), 0, 1, ImSettings::default(), 0).unwrap();
        for (version, written) in [(1, false), (2, false), (3, true)] {
            let (mut batch, mut pending) = (PendingBatch::new(), Pending::default());
            shard.apply(1, keep("b", version), true, &mut batch, &mut pending);
            assert_eq!(batch.is_empty(), !written, "version {version}");
            assert!(!pending.is_empty(), "it is answered either way");
        }
    }
}
