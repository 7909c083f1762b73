//! What rooms allow and how much they pass on; the defaults are the profile's.

use crate::refusal::Refusal;

/// How often one user may do something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendRate {
    /// Times a second in the long run; 0 is no limit.
    pub per_sec: u32,
    /// Times at once.
    pub burst: u32,
}

/// Limits of rooms (ruling 37 and section 7 of the profile).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomSettings {
    /// SUBSCRIBE to a room that nobody created makes an open one without an owner.
    pub auto_create: bool,
    /// Messages kept for those who join.
    pub ring_messages: usize,
    /// Bytes of those.
    pub ring_bytes: usize,
    /// Messages of the lane `chat` that one receiver gets a second.
    pub chat_per_sec: u32,
    /// Messages of the lane `hi` that one receiver gets a second.
    pub hi_per_sec: u32,
    /// Messages of one sender.
    pub sends: SendRate,
    /// Likes of one sender.
    pub likes: SendRate,
    /// Signals of one sender, and of all together that one receiver gets a second.
    pub signals: SendRate,
    /// Largest payload of a message.
    pub payload_bytes: usize,
    /// Largest payload of a signal.
    pub signal_bytes: usize,
    /// Likes of so many ms become one message.
    pub like_merge_ms: u64,
    /// Different words in one such message.
    pub like_words: usize,
    /// Longest word.
    pub like_word_bytes: usize,
    /// Shortest time between two counters messages.
    pub stat_interval_ms: u64,
    /// Rooms that a user may be in.
    pub joined_max: usize,
    /// Rooms that a user may own.
    pub owned_max: usize,
    /// Rooms in memory.
    pub rooms_max: usize,
    /// A room in which something was said, that nobody owns and nobody is in, is forgotten after
    /// this time.
    pub empty_ms: u64,
    /// Users on each of a room's lists: muted, banned, invited, moderators.
    pub listed_max: usize,
}

impl RoomSettings {
    /// Whether one more fits onto a list of users.
    pub(super) fn has_place(&self, listed: usize) -> Result<(), Refusal> {
        if listed < self.listed_max {
            Ok(())
        } else {
            Err(Refusal::limit("the list is as long as it may be"))
        }
    }
}

impl Default for RoomSettings {
    fn default() -> RoomSettings {
        RoomSettings {
            auto_create: true,
            ring_messages: 50,
            ring_bytes: 256 * 1024,
            chat_per_sec: 20,
            hi_per_sec: 10,
            sends: SendRate { per_sec: 50, burst: 500 },
            likes: SendRate { per_sec: 20, burst: 20 },
            signals: SendRate { per_sec: 20, burst: 20 },
            payload_bytes: 64 * 1024,
            signal_bytes: 4 * 1024,
            like_merge_ms: 500,
            like_words: 32,
            like_word_bytes: 32,
            stat_interval_ms: 5_000,
            joined_max: 10,
            owned_max: 100,
            rooms_max: 100_000,
            empty_ms: 300_000,
            listed_max: 10_000,
        }
    }
}
