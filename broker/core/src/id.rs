//! Identifiers that cross rooms: who a session belongs to, where its rows live, where it is now.
//!
//! Deliberately not here: packet identifiers (codec) and anything that hands identifiers out.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Number of slots that routing keys are hashed over. Fixed for ever: rows carry their slot.
pub const SLOTS: u16 = 4096;

/// A slot of the routing table: the unit of ownership of durable state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a routing key.
    pub fn of(key: &[u8]) -> Slot {
        Slot((xxhash_rust::xxh3::xxh3_64(key) & u64::from(SLOTS - 1)) as u16)
    }

    /// The slot of a number; `None` from [`SLOTS`] on.
    pub fn numbered(number: u16) -> Option<Slot> {
        (number < SLOTS).then_some(Slot(number))
    }

    /// The slot's number, below [`SLOTS`].
    pub fn get(self) -> u16 {
        self.0
    }

    /// The shard that owns this slot when there are `shards` of them.
    pub fn shard(self, shards: usize) -> usize {
        usize::from(self.0) % shards
    }
}

/// Who a session belongs to. Equal client ids of two users are two sessions (invariant 13).
///
/// One pointer, shared by all who keep the key of a session: its connection, its seat, its record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionKey(Arc<Names>);

/// What makes a [`SessionKey`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Names {
    /// Isolated world of users and topics.
    pub tenant: Arc<str>,
    /// The authenticated user; empty for anonymous clients.
    pub user: Arc<str>,
    /// The MQTT client identifier.
    pub client: Arc<str>,
}

impl Deref for SessionKey {
    type Target = Names;

    fn deref(&self) -> &Names {
        &self.0
    }
}

impl SessionKey {
    /// The key of a user's client.
    pub fn new(
        tenant: impl Into<Arc<str>>,
        user: impl Into<Arc<str>>,
        client: impl Into<Arc<str>>,
    ) -> SessionKey {
        let (tenant, user, client) = (tenant.into(), user.into(), client.into());
        SessionKey(Arc::new(Names { tenant, user, client }))
    }

    /// The same key, with the texts that `other` has as well held once for both. Most sessions of a
    /// broker are of one tenant.
    pub fn sharing(self, other: &SessionKey) -> SessionKey {
        let tenant = if self.tenant == other.tenant { &other.tenant } else { &self.tenant };
        let user = if self.user == other.user { &other.user } else { &self.user };
        SessionKey::new(tenant.clone(), user.clone(), self.client.clone())
    }

    /// The slot of the user's shard: by user, for anonymous clients by client id (ruling 1).
    pub fn slot(&self) -> Slot {
        let (tag, name) =
            if self.user.is_empty() { (b'c', &self.client) } else { (b'u', &self.user) };
        let mut key = Vec::with_capacity(self.tenant.len() + name.len() + 2);
        key.extend_from_slice(self.tenant.as_bytes());
        key.extend_from_slice(&[0, tag]);
        key.extend_from_slice(name.as_bytes());
        Slot::of(&key)
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.user.is_empty() {
            write!(f, "{}", self.client)
        } else {
            write!(f, "{}/{}", self.user, self.client)
        }
    }
}

/// A stored session or a shared-subscription group: its slot and a number, never used again.
///
/// Layout: slot in the upper 12 bits, a number dense per slot below. A clean start makes a new
/// one, which voids every row of the old one at once (ruling 9).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

impl SessionId {
    /// The `number`-th session of a slot.
    pub fn new(slot: Slot, number: u64) -> SessionId {
        debug_assert!(number < 1 << 52);
        SessionId(u64::from(slot.get()) << 52 | number)
    }

    /// The slot that owns the session's rows.
    pub fn slot(self) -> Slot {
        Slot((self.0 >> 52) as u16)
    }
}

/// Where a connection lives: worker, place in the worker's slab, and the place's generation, so
/// that a delivery to a connection that is gone finds nobody instead of its successor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Location(u64);

impl Location {
    /// No connection: the session is offline.
    pub const NOWHERE: Location = Location(0);

    /// `generation` counts from 1 and wraps within 24 bits.
    pub fn new(worker: u8, generation: u32, place: u32) -> Location {
        debug_assert!(generation & 0xff_ffff != 0);
        Location(
            u64::from(worker) << 56 | u64::from(generation & 0xff_ffff) << 32 | u64::from(place),
        )
    }

    /// The number of the worker that owns the connection.
    pub fn worker(self) -> usize {
        (self.0 >> 56) as usize
    }

    /// Generation of the place in the worker's slab.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    /// Place in the worker's slab.
    pub fn place(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    /// The number as one word, for an atomic.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// Back from one word.
    pub fn from_bits(bits: u64) -> Location {
        Location(bits)
    }
}

/// A packet identifier within the session it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PacketIdent {
    /// The session whose client chose the identifier.
    pub session: SessionId,
    /// The identifier.
    pub id: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_keeps_its_parts() {
        let location = Location::new(7, 0x12_3456, 0xdead_beef);
        assert_eq!(location.worker(), 7);
        assert_eq!(location.generation(), 0x12_3456);
        assert_eq!(location.place(), 0xdead_beef);
        assert_eq!(Location::from_bits(location.to_bits()), location);
    }

    #[test]
    fn keys_share_what_they_have_in_common() {
        let alice = SessionKey::new("default", "alice", "phone");
        let (web, bob) =
            (SessionKey::new("default", "alice", "web"), SessionKey::new("x", "b", "phone"));
        let shared = web.clone().sharing(&alice);
        assert_eq!(shared, web);
        assert!(
            Arc::ptr_eq(&shared.tenant, &alice.tenant) && Arc::ptr_eq(&shared.user, &alice.user)
        );
        assert_eq!(bob.clone().sharing(&alice), bob);
        assert_eq!(size_of::<SessionKey>(), size_of::<usize>());
    }

    #[test]
    fn a_session_id_carries_its_slot() {
        let slot = Slot::of(b"alice");
        let id = SessionId::new(slot, 42);
        assert_eq!(id.slot(), slot);
        assert_eq!(id.0 & 0xff, 42);
    }

    #[test]
    fn equal_client_ids_of_two_users_have_their_own_slots() {
        let key = |user: &str| SessionKey::new("default", user, "phone");
        assert_eq!(key("alice").slot(), key("alice").slot());
        assert_ne!(key("alice").slot(), key("bob").slot());
    }
}
