//! The packets that count: PUBLISH of 256 bytes in and out, and its acknowledgement.
//!
//! `cargo bench -p hoopoe-codec`. One iteration is one packet, except for the streams, which are 64
//! packets in one buffer as a read from a socket brings them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hoopoe_codec::{
    Ack, AckKind, Packet, PacketId, PropertyBlock, Publish, PublishHead, PublishProperties, QoS,
    Receiver, Version, decode, frame_length, patch_packet_id,
};

const TOPIC: &str = "im/g/4711/msg/0001234";
const PAYLOAD: [u8; 256] = [b'x'; 256];
const STREAM_LEN: usize = 64;
const MAX_PACKET: u32 = 1 << 20;

/// Name, version, and whether with an expiry interval and two user properties.
const SHAPES: [(&str, Version, bool); 3] = [
    ("v311", Version::V311, false),
    ("v5", Version::V5, false),
    ("v5_properties", Version::V5, true),
];

fn user_properties() -> PropertyBlock {
    PropertyBlock::new().with("im-from", "alice").with("im-seq", "18446744073709551615")
}

fn publish(block: &PropertyBlock, with_properties: bool) -> Publish<'_> {
    let mut properties = PublishProperties::default();
    if with_properties {
        properties.message_expiry_secs = Some(3600);
        properties.user_properties = block.user_properties();
    }
    Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TOPIC,
        id: PacketId::new(4711),
        properties,
        payload: &PAYLOAD,
    }
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let block = user_properties();
    for (name, version, with_properties) in SHAPES {
        let mut frame = Vec::new();
        publish(&block, with_properties).encode(version, &mut frame);
        let stream = frame.repeat(STREAM_LEN);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("publish_{name}"), |bencher| {
            bencher.iter(|| decode(version, Receiver::Server, black_box(&frame)));
        });
        group.throughput(Throughput::Elements(STREAM_LEN as u64));
        group.bench_function(format!("stream_of_64_{name}"), |bencher| {
            bencher.iter(|| decode_stream(version, black_box(&stream)));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("puback_v5", |bencher| {
        bencher.iter(|| decode(Version::V5, Receiver::Server, black_box(&[0x40, 2, 0, 10])));
    });
    group.finish();
}

/// Cuts and decodes packet after packet, as a connection does.
fn decode_stream(version: Version, mut stream: &[u8]) -> usize {
    let mut payload_len = 0;
    while let Ok(Some(end)) = frame_length(stream, MAX_PACKET) {
        let (frame, rest) = stream.split_at(end);
        if let Ok(Packet::Publish(publish)) = decode(version, Receiver::Server, frame) {
            payload_len += black_box(publish).payload.len();
        }
        stream = rest;
    }
    payload_len
}

fn encoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(1));
    let block = user_properties();
    let mut out = Vec::with_capacity(1024);
    for (name, version, with_properties) in SHAPES {
        let publish = publish(&block, with_properties);
        group.bench_function(format!("publish_{name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&publish).encode(version, &mut out);
                out.len()
            });
        });
        let forwardable = publish.properties.forwardable();
        let head = head(version, &forwardable);
        group.bench_function(format!("head_and_payload_{name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&head).encode(PacketId::new(4711), &mut out);
                out.extend_from_slice(&PAYLOAD);
                out.len()
            });
        });
        group.bench_function(format!("patched_fan_out_{name}"), |bencher| {
            let mut shape = Vec::new();
            let offset = head.encode(None, &mut shape).expect("QoS 1 has an identifier");
            shape.extend_from_slice(&PAYLOAD);
            let id = PacketId::new(4711).expect("not 0");
            bencher.iter(|| {
                out.clear();
                out.extend_from_slice(black_box(&shape));
                patch_packet_id(&mut out, offset, black_box(id));
                out.len()
            });
        });
    }
    let ack = Ack::success(PacketId::MIN);
    group.bench_function("puback_v5", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&ack).encode(AckKind::PubAck, Version::V5, &mut out);
            out.len()
        });
    });
    group.finish();
}

fn head(version: Version, forwardable: &[u8]) -> PublishHead<'_> {
    PublishHead {
        version,
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: TOPIC,
        forwardable,
        message_expiry_secs: None,
        topic_alias: None,
        subscription_ids: &[],
        payload_len: PAYLOAD.len(),
    }
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
