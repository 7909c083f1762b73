//! A publication on its way to many connections of one worker: encoded once per shape, copied per
//! receiver, the packet identifier patched in.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use hoopoe_codec::{PacketId, PublishHead, QoS, Version, patch_packet_id};
use hoopoe_core::{Publication, PublicationParts, seconds_left};

use super::output::{Output, SHARED_FROM_BYTES};
use crate::access::tenant::bare_topic;

/// What distinguishes the encodings of one publication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Version of the receiver.
    pub version: Version,
    /// QoS it is sent with.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// DUP flag.
    pub dup: bool,
}

#[derive(Debug)]
struct Frame {
    shape: Shape,
    head: Vec<u8>,
    id_at: Option<usize>,
    packet_len: usize,
}

/// Encodings of the present publication; the buffers are used again for the next.
#[derive(Debug, Default)]
pub struct Frames {
    frames: Vec<Frame>,
    used: usize,
}

impl Frames {
    /// Nothing is encoded.
    pub fn clear(&mut self) {
        self.used = 0;
    }
}

/// A publication while it is handed to receivers.
pub struct Message<'a> {
    /// Topic, properties, payload and flags as published.
    pub parts: PublicationParts<'a>,
    expiry_left_secs: Option<u32>,
    /// Borrowed where it is shared already: counting its holders up and down for each receiver would
    /// make the processor wait for all that was written for that receiver, which is seldom in its
    /// caches.
    publication: Option<Cow<'a, Arc<Publication>>>,
    payload: Option<Bytes>,
    frames: &'a mut Frames,
}

impl<'a> Message<'a> {
    /// A publication whose bytes lie in a read buffer.
    pub fn borrowed(parts: PublicationParts<'a>, frames: &'a mut Frames, now_ms: u64) -> Self {
        frames.used = 0;
        // Receivers of one publication are of one tenant and see their topics bare.
        let parts = PublicationParts { topic: bare_topic(parts.topic), ..parts };
        let expiry_left_secs = parts.expires_at_ms.map(|at| seconds_left(at, now_ms));
        Message { parts, expiry_left_secs, publication: None, payload: None, frames }
    }

    /// A publication that is shared already.
    pub fn shared(
        publication: &'a Arc<Publication>,
        frames: &'a mut Frames,
        now_ms: u64,
    ) -> Message<'a> {
        let mut message = Message::borrowed(publication.parts(), frames, now_ms);
        message.publication = Some(Cow::Borrowed(publication));
        message
    }

    /// A publication that was handed to others before, in the same turn: `frames` has what was
    /// encoded for them.
    pub fn again(
        publication: &'a Arc<Publication>,
        frames: &'a mut Frames,
        now_ms: u64,
    ) -> Message<'a> {
        let used = frames.used;
        let message = Message::shared(publication, frames, now_ms);
        message.frames.used = used;
        message
    }

    /// The publication as a shared one, made at the first call.
    pub fn publication(&mut self) -> Arc<Publication> {
        let made = || Cow::Owned(Arc::new(self.parts.to_publication()));
        Arc::clone(self.publication.get_or_insert_with(made))
    }

    /// True when the message has expired: it is sent to nobody any more ([MQTT-3.3.2-5]).
    pub fn expired(&self) -> bool {
        self.expiry_left_secs == Some(0)
    }

    /// Appends the packet for one receiver; false when it exceeds `maximum_packet`, then nothing
    /// is appended.
    pub fn write(
        &mut self,
        shape: Shape,
        id: Option<PacketId>,
        maximum_packet: u32,
        output: &mut Output,
    ) -> bool {
        let at = self.frame(shape);
        let frame = &self.frames.frames[at];
        if frame.packet_len > maximum_packet as usize {
            return false;
        }
        let start = output.bytes().len();
        if self.parts.payload.len() < SHARED_FROM_BYTES {
            output.bytes().reserve(frame.packet_len);
        }
        output.bytes().extend_from_slice(&frame.head);
        if let (Some(id_at), Some(id)) = (frame.id_at, id) {
            patch_packet_id(&mut output.bytes()[start..], id_at, id);
        }
        self.append_payload(output);
        true
    }

    /// As [`write`](Self::write), for a receiver with subscription identifiers or an alias.
    pub fn write_own(
        &mut self,
        shape: Shape,
        id: Option<PacketId>,
        identifiers: &[u32],
        alias: (bool, Option<u16>),
        maximum_packet: u32,
        output: &mut Output,
    ) -> bool {
        let (topic_known, topic_alias) = alias;
        let topic = if topic_known { "" } else { self.parts.topic };
        let head =
            PublishHead { topic, topic_alias, subscription_ids: identifiers, ..self.head(shape) };
        if head.packet_len() > maximum_packet as usize {
            return false;
        }
        head.encode(id, output.bytes());
        self.append_payload(output);
        true
    }

    fn head(&self, shape: Shape) -> PublishHead<'a> {
        PublishHead {
            version: shape.version,
            dup: shape.dup,
            qos: shape.qos,
            retain: shape.retain,
            topic: self.parts.topic,
            forwardable: self.parts.properties,
            message_expiry_secs: self.expiry_left_secs,
            topic_alias: None,
            subscription_ids: &[],
            payload_len: self.parts.payload.len(),
        }
    }

    fn frame(&mut self, shape: Shape) -> usize {
        let used = self.frames.used;
        if let Some(at) = self.frames.frames[..used].iter().position(|f| f.shape == shape) {
            return at;
        }
        let head = self.head(shape);
        if used == self.frames.frames.len() {
            self.frames.frames.push(Frame { shape, head: Vec::new(), id_at: None, packet_len: 0 });
        }
        let frame = &mut self.frames.frames[used];
        frame.shape = shape;
        frame.head.clear();
        frame.packet_len = head.packet_len();
        frame.id_at = head.encode(None, &mut frame.head);
        self.frames.used += 1;
        used
    }

    fn append_payload(&mut self, output: &mut Output) {
        if self.parts.payload.len() < SHARED_FROM_BYTES {
            output.push_payload(self.parts.payload, None);
            return;
        }
        if self.payload.is_none() {
            self.payload = Some(self.publication().payload_bytes());
        }
        output.push_payload(self.parts.payload, self.payload.as_ref());
    }
}
