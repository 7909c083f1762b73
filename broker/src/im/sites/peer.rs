//! Another site as this broker sees it: whether it is reached, and what operators are told of it.
//!
//! Owns counts and the last word of shards on what they owe. Deliberately not here: frames.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use hoopoe_bridge::LastError;
use hoopoe_im::site::owing::Owed;
use parking_lot::Mutex;
use serde::Serialize;

/// Rates are means over about so many rounds.
const RATE_ROUNDS: f64 = 10.0;

/// What another site is to this one.
#[derive(Debug)]
pub struct Peer {
    /// Its name.
    pub site: Arc<str>,
    /// Where what is for it is published.
    pub(super) topic: String,
    /// The worker whose plans hold that topic.
    pub(super) worker: usize,
    /// When it was heard last.
    pub(super) heard_ms: AtomicU64,
    /// Its home rules are others: said once.
    pub(super) differs: AtomicBool,
    paused: AtomicBool,
    up: AtomicBool,
    since_ms: AtomicU64,
    losses: AtomicU64,
    traffic: Traffic,
    /// What each shard owes it.
    owed: Mutex<Box<[Owed]>>,
    rates: Mutex<Means>,
    last_error: Mutex<Option<LastError>>,
}

#[derive(Debug, Default)]
struct Traffic {
    frames_in: AtomicU64,
    frames_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    dropped: AtomicU64,
}

/// What a line to another site is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SiteState {
    /// It is heard, and hears this site.
    Up,
    /// It is not.
    Down,
    /// An operator has paused it.
    Paused,
    /// Its home rules are others.
    Differs,
}

impl SiteState {
    /// The word for logs and topics.
    pub fn as_str(self) -> &'static str {
        match self {
            SiteState::Up => "up",
            SiteState::Down => "down",
            SiteState::Paused => "paused",
            SiteState::Differs => "differs",
        }
    }
}

/// What has passed since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize)]
pub struct SiteCounts {
    /// Frames to the site; one message is one or two of them.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames from it.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames to it that were left out because a worker was behind; what is owed is said again.
    pub dropped: u64,
}

/// What passes in a second, in the mean of the last ten.
#[derive(Clone, Copy, PartialEq, Default, Debug, Serialize)]
pub struct SiteRates {
    /// Frames to the site.
    pub sent: f64,
    /// Frames from it.
    pub received: f64,
    /// Bytes to it.
    pub sent_bytes: f64,
    /// Bytes from it.
    pub received_bytes: f64,
}

#[derive(Debug, Default)]
struct Means {
    at_ms: u64,
    counts: SiteCounts,
    rates: SiteRates,
}

/// How a line to another site is doing.
#[derive(Clone, Debug)]
pub struct SiteReport {
    /// What it is at.
    pub state: SiteState,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// How often it was lost.
    pub losses: u64,
    /// What waits for it.
    pub owed: Owed,
    /// How long the oldest of that has waited, at most.
    pub lag_ms: u64,
    /// What has passed.
    pub counts: SiteCounts,
    /// What passes.
    pub rates: SiteRates,
    /// What went wrong last.
    pub last_error: Option<LastError>,
}

impl Peer {
    /// Not heard yet.
    pub(super) fn new(
        site: Arc<str>,
        topic: String,
        worker: usize,
        shards: u16,
        now_ms: u64,
    ) -> Peer {
        Peer {
            site,
            topic,
            worker,
            heard_ms: AtomicU64::new(0),
            differs: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            up: AtomicBool::new(false),
            since_ms: AtomicU64::new(now_ms),
            losses: AtomicU64::new(0),
            traffic: Traffic::default(),
            owed: Mutex::new(vec![Owed::default(); shards.into()].into()),
            rates: Mutex::new(Means { at_ms: now_ms, ..Means::default() }),
            last_error: Mutex::new(None),
        }
    }

    /// It is heard, and hears this site.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// An operator keeps it from being reached.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// Pauses it, or lets it go on; true when that is news.
    pub(super) fn set_paused(&self, paused: bool, now_ms: u64) -> bool {
        let is_new = self.paused.swap(paused, Ordering::AcqRel) != paused;
        if is_new {
            self.since_ms.store(now_ms, Ordering::Relaxed);
        }
        is_new
    }

    /// It is reached, or not any more; when that is news, how long it was as it was.
    pub(super) fn set_up(&self, up: bool, now_ms: u64) -> Option<u64> {
        if self.up.swap(up, Ordering::AcqRel) == up {
            return None;
        }
        if !up {
            self.losses.fetch_add(1, Ordering::Relaxed);
        }
        Some(now_ms.saturating_sub(self.since_ms.swap(now_ms, Ordering::Relaxed)))
    }

    pub(super) fn went_wrong(&self, now_ms: u64, what: &str) {
        *self.last_error.lock() = Some(LastError { at_ms: now_ms, what: what.to_owned() });
    }

    pub(super) fn count_in(&self, bytes: usize) {
        self.traffic.frames_in.fetch_add(1, Ordering::Relaxed);
        self.traffic.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_out(&self, bytes: usize) {
        self.traffic.frames_out.fetch_add(1, Ordering::Relaxed);
        self.traffic.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self) {
        self.traffic.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// What a shard owes it.
    pub(super) fn note_owed(&self, shard: u16, owed: Owed) {
        if let Some(place) = self.owed.lock().get_mut(usize::from(shard)) {
            *place = owed;
        }
    }

    /// A round is over: what has passed in it.
    pub(super) fn measure(&self, now_ms: u64) {
        let counts = self.counts();
        let mut means = self.rates.lock();
        let secs = now_ms.saturating_sub(means.at_ms) as f64 / 1000.0;
        if secs <= 0.0 {
            return;
        }
        let before = means.counts;
        let follow = |mean: &mut f64, now: u64, before: u64| {
            let moved = *mean + (now.saturating_sub(before) as f64 / secs - *mean) / RATE_ROUNDS;
            // A mean only nears zero: what is left of old traffic is not shown for ever.
            *mean = if moved < 0.01 { 0.0 } else { moved };
        };
        follow(&mut means.rates.sent, counts.sent, before.sent);
        follow(&mut means.rates.received, counts.received, before.received);
        follow(&mut means.rates.sent_bytes, counts.sent_bytes, before.sent_bytes);
        follow(&mut means.rates.received_bytes, counts.received_bytes, before.received_bytes);
        (means.at_ms, means.counts) = (now_ms, counts);
    }

    fn counts(&self) -> SiteCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Traffic { frames_in, frames_out, bytes_in, bytes_out, dropped } = &self.traffic;
        SiteCounts {
            sent: read(frames_out),
            sent_bytes: read(bytes_out),
            received: read(frames_in),
            received_bytes: read(bytes_in),
            dropped: read(dropped),
        }
    }

    fn state(&self) -> SiteState {
        if self.is_paused() {
            SiteState::Paused
        } else if self.is_up() {
            SiteState::Up
        } else if self.differs.load(Ordering::Relaxed) {
            SiteState::Differs
        } else {
            SiteState::Down
        }
    }

    /// How the line to it is doing.
    pub fn report(&self, now_ms: u64) -> SiteReport {
        let owed = self.owed.lock().iter().fold(Owed::default(), |sum, owed| sum.with(owed));
        SiteReport {
            state: self.state(),
            since_ms: self.since_ms.load(Ordering::Relaxed),
            losses: self.losses.load(Ordering::Relaxed),
            lag_ms: owed.since_ms.map_or(0, |since| now_ms.saturating_sub(since)),
            owed,
            counts: self.counts(),
            rates: self.rates.lock().rates,
            last_error: self.last_error.lock().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Peer {
        Peer::new("ny".into(), String::new(), 0, 2, 1_000)
    }

    #[test]
    fn a_line_tells_what_it_is_at_and_since_when() {
        let peer = peer();
        let shown = |at| {
            let report = peer.report(at);
            (report.state, report.since_ms, report.losses)
        };
        assert_eq!(shown(1_500), (SiteState::Down, 1_000, 0));
        peer.differs.store(true, Ordering::Relaxed);
        assert_eq!(shown(1_500).0, SiteState::Differs);
        assert_eq!(peer.set_up(true, 2_000), Some(1_000));
        assert_eq!(peer.set_up(true, 2_500), None);
        assert_eq!(shown(3_000), (SiteState::Up, 2_000, 0));
        assert!(peer.set_paused(true, 4_000));
        assert!(!peer.set_paused(true, 4_100));
        peer.set_up(false, 4_000);
        assert_eq!(shown(5_000), (SiteState::Paused, 4_000, 1));
    }

    #[test]
    fn the_oldest_of_all_shards_is_how_far_it_lags() {
        let peer = peer();
        let owed = |numbers, since| Owed { numbers, bytes: 10, held: 1, since_ms: Some(since) };
        peer.note_owed(0, owed(3, 1_800));
        peer.note_owed(1, owed(4, 1_200));
        let report = peer.report(2_000);
        assert_eq!((report.owed.numbers, report.owed.bytes, report.lag_ms), (7, 20, 800));
        peer.note_owed(1, Owed::default());
        assert_eq!(peer.report(2_000).lag_ms, 200);
    }

    #[test]
    fn rates_near_what_passes_and_go_back_to_nothing() {
        let peer = peer();
        for round in 1..=60 {
            (0..100).for_each(|_| peer.count_out(7));
            peer.measure(1_000 + round * 1_000);
        }
        let rates = peer.report(0).rates;
        assert!((99.0..=100.0).contains(&rates.sent), "{rates:?}");
        assert!((693.0..=700.0).contains(&rates.sent_bytes), "{rates:?}");
        for round in 61..=300 {
            peer.measure(1_000 + round * 1_000);
        }
        assert_eq!(peer.report(0).rates, SiteRates::default());
    }
}
