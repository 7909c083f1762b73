//! What is said in a room, as its ring and its receivers share it.

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::topic::Lane;

/// One message of a room; shared by all that it concerns, never stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomMessage {
    /// The room's count of messages up to this one.
    pub n: u64,
    /// Its lane.
    pub lane: Lane,
    /// Who said it; `None` for the room's own sums of likes.
    pub from: Option<Arc<str>>,
    /// Hash of the sender, for shapers.
    pub sender: u32,
    /// When the room took it, in ms since the epoch.
    pub ts_ms: u64,
    /// When it expires, in ms since the epoch ([MQTT-3.3.2-5]).
    pub expires_at_ms: Option<u64>,
    /// The sender's MQTT 5 properties that pass unaltered, in wire form.
    pub properties: Box<[u8]>,
    /// The payload, untouched.
    pub payload: Bytes,
}

impl RoomMessage {
    /// Bytes that the message holds.
    pub fn weight(&self) -> usize {
        self.properties.len() + self.payload.len() + size_of::<RoomMessage>()
    }
}

/// The hash by which shapers tell senders apart.
pub fn sender_hash(user: &str) -> u32 {
    xxh3_64(user.as_bytes()) as u32
}
