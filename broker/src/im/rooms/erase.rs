//! An erased user goes from the rooms that live here: as their owner, from their lists and from
//! what was said last.
//!
//! Rooms are ruled in memory and stored afterwards. Whoever erases waits until each row is on disk
//! and says so here; what was not stored is given out once more when the call is repeated.
//!
//! Deliberately not here: who inherits (`hoopoe_im::room`), and rooms that live at other sites,
//! where the user is erased by that site's operator.

use std::sync::Arc;

use hoopoe_im::room::{Moderated, RoomRow};

use super::{LiveRoom, Rooms, lower, name, raise};

impl Rooms {
    /// Takes a user out of every room of the tenant. Gives the rooms that are to be stored, with
    /// their rows.
    pub fn erase(&self, now_ms: u64, tenant: &str, user: &str) -> Vec<(Arc<str>, RoomRow)> {
        // No entry of the map is locked while rooms are: they are served the other way round.
        let all = self.rooms.iter().map(|entry| entry.value().clone());
        let here = |live: &Arc<LiveRoom>| &*live.tenant == tenant && live.home.is_none();
        let all: Vec<Arc<LiveRoom>> = all.filter(here).collect();
        all.iter().filter_map(|live| self.erase_from(now_ms, live, user)).collect()
    }

    fn erase_from(
        &self,
        now_ms: u64,
        live: &Arc<LiveRoom>,
        user: &str,
    ) -> Option<(Arc<str>, RoomRow)> {
        let mut state = live.state.lock();
        let owner = state.room.row().owner.clone();
        let key = name(&live.tenant, &live.id);
        match state.room.erase(now_ms, user) {
            Some(Moderated { evicted, .. }) => {
                if owner.as_deref() == Some(user) {
                    lower(&self.owned, &live.tenant, user);
                    if let Some(heir) = &state.room.row().owner {
                        raise(&self.owned, &live.tenant, heir);
                    }
                }
                self.unstored.insert(key);
                self.changed_for_guests(live, &mut state, true, &evicted);
                self.evict(live, &state, evicted);
                self.remind(live, &self.later(live, &mut state));
            }
            None if self.unstored.contains(&key) => {}
            None => return None,
        }
        Some((live.id.clone(), state.room.row().clone()))
    }

    /// A row that [`erase`](Self::erase) gave out is on disk.
    pub fn row_stored(&self, tenant: &str, room: &str) {
        self.unstored.remove(&name(tenant, room));
    }
}
