//! One room in memory: who is in it, what was said last, what is being counted.
//!
//! A step: it is told who comes, goes and speaks and what time it is, and says what is to be sent.
//! Who is asked to send it, and to whom, is not its business. A refusal changes nothing but the
//! sender's rate.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bucket::Bucket;
use super::likes::Likes;
use super::message::Said;
use super::ring::Ring;
use super::{RoomMessage, RoomRow, RoomSettings, Ticket};
use crate::refusal::Refusal;
use crate::topic::Lane;

/// Numbers of one millisecond: no room says more.
const N_PER_MS: u64 = 1_000;

/// Counters wait for so long at least, so that a crowd that comes at once is one message.
const STAT_GATHER_MS: u64 = 500;

/// One user in the room, over whichever devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Viewer {
    connections: u32,
    sends: Bucket,
    likes: Bucket,
    signals: Bucket,
}

/// The counters of a room.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Counts {
    viewers: usize,
    likes: u64,
    messages: u64,
}

/// A room.
#[derive(Debug)]
pub struct Room {
    pub(super) id: Arc<str>,
    pub(super) row: RoomRow,
    pub(super) ring: Ring,
    pub(super) viewers: BTreeMap<Arc<str>, Viewer>,
    pub(super) likes: Likes,
    pub(super) n: u64,
    /// It lives at another site.
    pub(super) is_away: bool,
    messages: u64,
    told: Counts,
    told_ms: u64,
    stat_due_ms: Option<u64>,
    empty_since_ms: Option<u64>,
}

/// What one who comes in gets.
#[derive(Debug)]
pub struct Joined {
    /// The last messages, oldest first; they go outside the buckets.
    pub ring: Vec<Arc<RoomMessage>>,
    /// The count of messages so far: live ones have a higher `n`.
    pub n: u64,
    /// The user was not in the room with another device.
    pub first: bool,
}

/// One connection has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// The user is in the room with no other device.
    pub last: bool,
}

/// What a sender wants to say.
#[derive(Clone, Copy, Debug)]
pub struct Post<'a> {
    /// The authenticated sender.
    pub from: &'a Arc<str>,
    /// The lane.
    pub lane: Lane,
    /// MQTT 5 properties that pass unaltered, in wire form.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// When it expires, in ms since the epoch.
    pub expires_at_ms: Option<u64>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub enum Posted {
    /// It goes to everybody in the room.
    Message(Arc<RoomMessage>),
    /// It has been counted, and goes out with the next sum.
    Counted,
}

/// What is to be sent to everybody in the room.
#[derive(Clone, Default, Debug)]
pub struct RoomOutput {
    /// The sum of likes, on the lane `like`.
    pub likes: Option<Arc<RoomMessage>>,
    /// The sum of likes of a room that lives elsewhere, for its home.
    pub sum: Option<Vec<u8>>,
    /// The counters as JSON, for `im/r/{room}/stat`.
    pub stat: Option<String>,
}

impl Room {
    /// A room with nobody in it.
    pub fn new(id: Arc<str>, row: RoomRow, now_ms: u64) -> Room {
        Room {
            id,
            row,
            ring: Ring::default(),
            viewers: BTreeMap::new(),
            likes: Likes::default(),
            // Numbers rise also over a restart, and over a room that was forgotten meanwhile: who
            // compares them takes nothing new for old. Below 2^53, for readers of JSON.
            n: now_ms * N_PER_MS,
            is_away: false,
            messages: 0,
            told: Counts::default(),
            told_ms: 0,
            stat_due_ms: None,
            empty_since_ms: Some(now_ms),
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What of it is stored.
    pub fn row(&self) -> &RoomRow {
        &self.row
    }

    /// Users in the room.
    pub fn viewers(&self) -> usize {
        self.viewers.len()
    }

    /// Whether the user is in the room.
    pub fn has(&self, user: &str) -> bool {
        self.viewers.contains_key(user)
    }

    /// Why the user may not come in, if so.
    pub fn may_join(&self, user: &str, now_ms: u64) -> Result<(), Refusal> {
        let row = &self.row;
        if row.closed_ms.is_some() {
            Err(Refusal::not_allowed("the room is closed"))
        } else if row.is_banned(user, now_ms) {
            Err(Refusal::not_allowed("you are banned from this room"))
        } else if row.ticket == Ticket::Invite
            && !row.is_steward(user)
            && !row.invited.contains(user)
        {
            Err(Refusal::not_allowed("this room is for those who are invited"))
        } else {
            Ok(())
        }
    }

    /// One connection of a user comes in.
    pub fn join(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        user: &Arc<str>,
    ) -> Result<Joined, Refusal> {
        self.may_join(user, now_ms)?;
        let viewer = self.viewers.entry(user.clone()).or_insert_with(|| Viewer {
            connections: 0,
            sends: Bucket::full(settings.sends.burst, now_ms),
            likes: Bucket::full(settings.likes.burst, now_ms),
            signals: Bucket::full(settings.signals.burst, now_ms),
        });
        viewer.connections += 1;
        let first = viewer.connections == 1;
        self.empty_since_ms = None;
        self.counts_changed(settings, now_ms);
        let (ring, n) = self.look_back(now_ms);
        Ok(Joined { ring, n, first })
    }

    /// The last messages, oldest first, and the count of messages so far.
    pub fn look_back(&self, now_ms: u64) -> (Vec<Arc<RoomMessage>>, u64) {
        (self.ring.snapshot(now_ms), self.n)
    }

    /// One connection of a user leaves; `None` when the user is not in the room any more, as
    /// after a ban.
    pub fn leave(&mut self, settings: &RoomSettings, now_ms: u64, user: &str) -> Option<Left> {
        let viewer = self.viewers.get_mut(user)?;
        viewer.connections -= 1;
        let last = viewer.connections == 0;
        if last {
            self.remove(settings, now_ms, user);
        }
        Some(Left { last })
    }

    /// The user is in the room no more, with no device; whether there was one.
    pub(super) fn remove(&mut self, settings: &RoomSettings, now_ms: u64, user: &str) -> bool {
        let was_here = self.viewers.remove(user).is_some();
        if self.viewers.is_empty() {
            self.emptied(now_ms);
        }
        self.counts_changed(settings, now_ms);
        was_here
    }

    /// Everybody leaves; who was here.
    pub(super) fn clear(&mut self, now_ms: u64) -> Vec<Arc<str>> {
        self.ring = Ring::default();
        self.likes = Likes::default();
        self.emptied(now_ms);
        std::mem::take(&mut self.viewers).into_keys().collect()
    }

    /// Nobody hears counters any more; whoever comes next has not heard any.
    fn emptied(&mut self, now_ms: u64) {
        self.stat_due_ms = None;
        self.told = Counts::default();
        self.empty_since_ms.get_or_insert(now_ms);
    }

    /// Somebody speaks. Order of judgement: being here, being heard, form, rate.
    pub fn publish(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        post: Post<'_>,
    ) -> Result<Posted, Refusal> {
        self.judge(settings, now_ms, &post)?;
        if post.lane == Lane::Like {
            self.likes.add(settings, now_ms, post.payload)?;
            self.counts_changed(settings, now_ms);
            return Ok(Posted::Counted);
        }
        let message = Arc::new(RoomMessage::new(Said {
            room: &self.id,
            n: self.n + 1,
            lane: post.lane,
            from: Some(post.from),
            ts_ms: now_ms,
            expires_at_ms: post.expires_at_ms,
            properties: post.properties,
            payload: post.payload,
        }));
        self.n += 1;
        self.messages += 1;
        self.ring.push(settings, &message);
        self.counts_changed(settings, now_ms);
        Ok(Posted::Message(message))
    }

    pub(super) fn judge(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        post: &Post<'_>,
    ) -> Result<(), Refusal> {
        self.may_speak(post.from, now_ms)?;
        if post.payload.len() > settings.payload_bytes {
            return Err(Refusal::limit("the payload is larger than a room takes"));
        }
        let viewer = self.viewers.get_mut(post.from).ok_or_else(not_here)?;
        let (bucket, rate, what) = match post.lane {
            Lane::Like => {
                (&mut viewer.likes, settings.likes, "you like faster than the room counts")
            }
            _ => (&mut viewer.sends, settings.sends, "you send faster than the room allows"),
        };
        if bucket.take(rate.per_sec, rate.burst, now_ms) {
            Ok(())
        } else {
            Err(Refusal::limit(what))
        }
    }

    /// Somebody sends a signal of so many bytes; what may be said may be signalled.
    pub fn signal(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        from: &str,
        payload_len: usize,
    ) -> Result<(), Refusal> {
        self.may_speak(from, now_ms)?;
        if payload_len > settings.signal_bytes {
            return Err(Refusal::limit("the payload is larger than a signal's may be"));
        }
        let viewer = self.viewers.get_mut(from).ok_or_else(not_here)?;
        let rate = settings.signals;
        if viewer.signals.take(rate.per_sec, rate.burst, now_ms) {
            Ok(())
        } else {
            Err(Refusal::limit("you send signals faster than the room allows"))
        }
    }

    fn may_speak(&self, user: &str, now_ms: u64) -> Result<(), Refusal> {
        if !self.has(user) {
            Err(not_here())
        } else if self.row.is_banned(user, now_ms) {
            Err(Refusal::not_allowed("you are banned from this room"))
        } else if self.row.is_muted(user, now_ms) {
            Err(Refusal::not_allowed("you are muted in this room"))
        } else {
            Ok(())
        }
    }

    /// When [`on_tick`](Self::on_tick) has something to do, if nothing else happens.
    pub fn next_timeout(&self) -> Option<u64> {
        [self.likes.due_ms(), self.stat_due_ms].into_iter().flatten().min()
    }

    /// Time has come: what is due now.
    pub fn on_tick(&mut self, settings: &RoomSettings, now_ms: u64) -> RoomOutput {
        let mut sum = self.likes.take(settings, now_ms);
        let own = if self.is_away { None } else { sum.take() };
        let likes = own.map(|sum| {
            self.n += 1;
            Arc::new(RoomMessage::new(Said {
                room: &self.id,
                n: self.n,
                lane: Lane::Like,
                from: None,
                ts_ms: now_ms,
                expires_at_ms: None,
                properties: &[],
                payload: &sum,
            }))
        });
        let stat = self.stat_due_ms.take_if(|due| *due <= now_ms).and_then(|_| self.stat(now_ms));
        RoomOutput { likes, sum, stat }
    }

    /// Since when nobody has been in it, if nobody wants it either and it may be forgotten.
    pub fn unwanted_since(&self) -> Option<u64> {
        self.empty_since_ms.filter(|_| self.viewers.is_empty() && self.may_be_forgotten())
    }

    /// Nothing was said in it that somebody who comes in could see or count.
    pub fn is_blank(&self) -> bool {
        self.messages == 0 && self.likes.total == 0 && self.ring.is_empty()
    }

    /// Without viewers nobody wants it, here at least. What is closed stays so, owned or not; and
    /// what an admin has ruled in a room of nobody holds: it is stored.
    fn may_be_forgotten(&self) -> bool {
        let RoomRow { version, owner, closed_ms, .. } = &self.row;
        self.is_away || (*version == 0 && owner.is_none() && closed_ms.is_none())
    }

    /// Counters are sent when they differ from the last ones that were.
    fn stat(&mut self, now_ms: u64) -> Option<String> {
        let counts = self.counts();
        let changed = counts != self.told;
        self.told = counts;
        self.told_ms = now_ms;
        let Counts { viewers, likes, messages } = counts;
        changed.then(|| {
            format!(
                r#"{{"viewers":{viewers},"likes":{likes},"messages":{messages},"ts":{now_ms}}}"#
            )
        })
    }

    fn counts(&self) -> Counts {
        Counts { viewers: self.viewers.len(), likes: self.likes.total, messages: self.messages }
    }

    pub(super) fn counts_changed(&mut self, settings: &RoomSettings, now_ms: u64) {
        // The home counts.
        if self.is_away {
            return;
        }
        if self.stat_due_ms.is_none() && !self.viewers.is_empty() && self.counts() != self.told {
            let next = self.told_ms + settings.stat_interval_ms;
            self.stat_due_ms = Some(next.max(now_ms + STAT_GATHER_MS));
        }
    }

    /// Some of those who are in the room; `turn` says where to begin, so that not always the same
    /// are named.
    pub fn sample(&self, limit: usize, turn: u64) -> Vec<&str> {
        let spare = self.viewers.len().saturating_sub(limit) as u64;
        let skip = (turn % (spare + 1)) as usize;
        self.viewers.keys().skip(skip).take(limit).map(|user| &**user).collect()
    }
}

fn not_here() -> Refusal {
    Refusal::not_allowed("you are not in this room")
}
