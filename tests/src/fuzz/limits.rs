//! The settings a run's broker gets, drawn from the seed: small limits, so that they are reached.

use super::random::Random;
use super::vocabulary::HEALTHY;

/// The broker's limits as its clients have to know them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest packet taken.
    pub max_packet_bytes: u32,
    /// Receive Maximum.
    pub receive_maximum: u16,
    /// Topic Alias Maximum.
    pub topic_alias_max: u16,
    /// Subscriptions of one session.
    pub max_subscriptions: usize,
    /// Bytes of a client identifier.
    pub max_client_id_bytes: usize,
    /// Levels of a topic.
    pub max_topic_levels: usize,
    /// Bytes of a topic.
    pub max_topic_bytes: usize,
    /// What CONNACK may need with all its properties.
    pub connack_bytes: u32,
    /// Messages in flight to 3.1.1 clients.
    pub inflight_v311: u16,
    /// Waiting messages of one session.
    pub queue_messages: u32,
    /// Bytes that wait for one socket.
    pub write_buffer_bytes: u32,
    /// On what a message is before it is acknowledged.
    pub durability: &'static str,
    /// Worker threads.
    pub workers: usize,
    /// Shards.
    pub shards: usize,
}

impl Limits {
    /// The settings that belong to a run.
    pub fn draw(random: &mut Random) -> Limits {
        Limits {
            max_packet_bytes: [8 << 10, 64 << 10, 1 << 20][random.below(3)],
            receive_maximum: [5, 20, 256][random.below(3)],
            topic_alias_max: [0, 4, 64][random.below(3)],
            max_subscriptions: [20, 1000][random.below(2)],
            max_client_id_bytes: 64,
            max_topic_levels: 24,
            max_topic_bytes: 256,
            connack_bytes: 128,
            inflight_v311: [1, 10, 100][random.below(3)],
            queue_messages: [200, 100_000][random.below(2)],
            write_buffer_bytes: [1 << 20, 2 << 20][random.below(2)],
            durability: random.pick(&["memory", "os", "os", "sync"]),
            workers: random.within(1, 3),
            shards: random.within(1, 4),
        }
    }

    /// The configuration file.
    pub fn configuration(&self) -> String {
        format!(
            "[broker]\ndurability = \"{}\"\nworkers = {}\nshards = {}\n\n\
             [mqtt]\nmax_packet_bytes = {}\nreceive_maximum = {}\ntopic_alias_max = {}\n\
             max_subscriptions = {}\nmax_client_id_bytes = {}\nmax_topic_levels = {}\n\
             max_topic_bytes = {}\ninflight_v311 = {}\n\n\
             [queue]\nmax_messages = {}\n\n[limits]\nwrite_buffer_bytes = {}\n\n\
             [[listener]]\nurl = \"tcp://127.0.0.1:0\"\nim = false\n",
            self.durability,
            self.workers,
            self.shards,
            self.max_packet_bytes,
            self.receive_maximum,
            self.topic_alias_max,
            self.max_subscriptions,
            self.max_client_id_bytes,
            self.max_topic_levels,
            self.max_topic_bytes,
            self.inflight_v311,
            self.queue_messages,
            self.write_buffer_bytes,
        )
    }

    /// Whether a topic breaks the limits.
    pub fn is_too_long(&self, topic: &str) -> bool {
        topic.len() > self.max_topic_bytes || topic.split('/').count() > self.max_topic_levels
    }

    /// Whether nobody may publish to a topic.
    pub fn forbids(&self, topic: &str) -> bool {
        topic.starts_with('$')
            || topic == "im"
            || topic.starts_with("im/")
            || self.is_too_long(topic)
    }

    /// Whether a topic is the broker's or the healthy pairs' own.
    pub fn is_foreign(topic: &str) -> bool {
        topic.starts_with("$SYS/") || topic.starts_with(HEALTHY)
    }
}
