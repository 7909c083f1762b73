//! What is said in a room, as its ring and its receivers share it: encoded once for each version
//! of MQTT, whoever and however many receive it.

use std::sync::{Arc, OnceLock};

use hoopoe_codec::{QoS, Version};
use hoopoe_core::{Publication, PublicationParts};
use xxhash_rust::xxh3::xxh3_64;

use crate::envelope;
use crate::topic::Lane;

/// Stands for the sender of a sum of likes, where a topic needs a level.
const NOBODY: &str = "-";

/// One message of a room; never stored.
#[derive(Debug)]
pub struct RoomMessage {
    /// The room's count of messages up to this one.
    pub n: u64,
    /// Its lane.
    pub lane: Lane,
    /// Who said it; `None` for the room's own sums of likes.
    pub from: Option<Arc<str>>,
    /// Hash of the sender, for shapers.
    pub sender: u32,
    room: Arc<str>,
    /// When it was said.
    pub ts_ms: u64,
    /// The sender's own properties, in wire form.
    pub properties: Box<[u8]>,
    v5: Arc<Publication>,
    v311: OnceLock<Arc<Publication>>,
}

/// What a [`RoomMessage`] is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    pub room: &'a Arc<str>,
    pub n: u64,
    pub lane: Lane,
    pub from: Option<&'a Arc<str>>,
    pub ts_ms: u64,
    pub expires_at_ms: Option<u64>,
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

impl RoomMessage {
    pub(super) fn new(said: Said<'_>) -> RoomMessage {
        let v5 = encode(&said, Version::V5);
        RoomMessage {
            n: said.n,
            lane: said.lane,
            from: said.from.cloned(),
            sender: said.from.map_or(0, |user| sender_hash(user)),
            room: said.room.clone(),
            ts_ms: said.ts_ms,
            properties: said.properties.into(),
            v5,
            v311: OnceLock::new(),
        }
    }

    /// The message for a receiver of that version.
    pub fn publication(&self, version: Version) -> &Arc<Publication> {
        match version {
            Version::V5 => &self.v5,
            Version::V311 => self.v311.get_or_init(|| {
                let said = Said {
                    room: &self.room,
                    n: self.n,
                    lane: self.lane,
                    from: self.from.as_ref(),
                    ts_ms: self.ts_ms,
                    expires_at_ms: self.v5.expires_at_ms,
                    properties: &[],
                    payload: self.v5.payload(),
                };
                encode(&said, Version::V311)
            }),
        }
    }

    /// The payload, as it was sent.
    pub fn payload(&self) -> &[u8] {
        self.v5.payload()
    }

    /// When it is over; `None`: never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.v5.expires_at_ms
    }

    /// Whether it is over ([MQTT-3.3.2-5]).
    pub fn expired(&self, now_ms: u64) -> bool {
        self.v5.expires_at_ms.is_some_and(|at| at <= now_ms)
    }

    /// Bytes that the message may come to hold.
    pub fn weight(&self) -> usize {
        2 * self.v5.bytes().len() + size_of::<RoomMessage>()
    }
}

fn encode(said: &Said<'_>, version: Version) -> Arc<Publication> {
    let message = envelope::RoomMessage {
        room: said.room,
        lane: said.lane,
        n: said.n,
        from: said.from.map_or(NOBODY, |user| user),
        ts_ms: said.ts_ms,
        properties: said.properties,
        payload: said.payload,
    };
    let mut publication = envelope::room_message(&message, version);
    publication.expires_at_ms = said.expires_at_ms;
    Arc::new(publication)
}

/// A signal as those in the room get it, on `im/r/{room}/sig/{from}/{kind}`.
pub fn signal(
    room: &str,
    from: &str,
    kind: &str,
    properties: &[u8],
    payload: &[u8],
) -> Publication {
    let topic = ["im/r/", room, "/sig/", from, "/", kind].concat();
    plain(&topic, properties, payload)
}

/// Counters as those in the room get them, on `im/r/{room}/stat`.
pub fn stat(room: &str, counters: &str) -> Publication {
    plain(&["im/r/", room, "/stat"].concat(), &[], counters.as_bytes())
}

fn plain(topic: &str, properties: &[u8], payload: &[u8]) -> Publication {
    let parts = PublicationParts {
        topic,
        properties,
        payload,
        qos: QoS::AtMostOnce,
        retain: false,
        expires_at_ms: None,
    };
    parts.to_publication()
}

/// The hash by which shapers tell senders apart.
pub fn sender_hash(user: &str) -> u32 {
    xxh3_64(user.as_bytes()) as u32
}
