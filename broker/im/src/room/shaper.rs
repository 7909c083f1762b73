//! How much of a room one receiver gets: a bucket per lane, and fair shares of the senders.
//!
//! Counters (`stat`, sums of likes) are few by construction and always pass. `chat`, `hi` and
//! signals have a bucket each that holds one second's rate. Once `chat` has run dry, the last
//! quarter of its bucket is kept for senders that have not been heard lately: a sender with `c`
//! messages among the last ones needs `c` tokens more than a silent one. So somebody who says one
//! thing gets through beside somebody who says a thousand, and no token goes unused.
//!
//! A shaper allocates nothing and its decisions depend on its inputs alone. Rates are not kept
//! per receiver but come in, so that it stays small: a room of 10,000 has 10,000 of them.

use super::bucket::{elapsed_ms, refilled};

/// Senders told apart; those beyond share a place.
const PLACES: u32 = 16;
/// Counts are halved after so many messages: what "lately" means.
const WINDOW_MESSAGES: u8 = 24;
/// The low three bits of each place.
const HALVES: u64 = 0x7777_7777_7777_7777;
/// A message costs so much.
const TOKEN: u32 = 1000;

/// What a receiver is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// The lane `hi`.
    Hi,
    /// The lane `chat`.
    Chat,
    /// Sums of likes, and counters.
    Counters,
    /// Signals.
    Signal,
}

/// Per second and receiver; 0 is no limit. One second's worth may come at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShaperRates {
    /// Messages of the lane `chat`.
    pub chat_per_sec: u32,
    /// Messages of the lane `hi`.
    pub hi_per_sec: u32,
    /// Signals.
    pub signals_per_sec: u32,
}

/// The shaper of one receiver in one room.
#[derive(Clone, Debug)]
pub struct Shaper {
    /// Messages of each place among the last ones, four bits a place.
    heard: u64,
    chat: u32,
    hi: u32,
    signals: u32,
    at: u32,
    /// Messages since the counts were halved.
    counted: u8,
    /// The chat bucket has run dry and not been full since.
    over: bool,
}

const _: () = assert!(size_of::<Shaper>() <= 32);

impl Shaper {
    /// Full buckets.
    pub fn new(rates: &ShaperRates, now_ms: u64) -> Shaper {
        Shaper {
            heard: 0,
            chat: rates.chat_per_sec.saturating_mul(TOKEN),
            hi: rates.hi_per_sec.saturating_mul(TOKEN),
            signals: rates.signals_per_sec.saturating_mul(TOKEN),
            at: now_ms as u32,
            counted: 0,
            over: false,
        }
    }

    /// Whether the receiver gets it. `backed_up`: its socket does not take what it is sent; then
    /// only `hi` passes.
    pub fn admit(
        &mut self,
        rates: &ShaperRates,
        now_ms: u64,
        flow: Flow,
        sender: u32,
        backed_up: bool,
    ) -> bool {
        if backed_up && flow != Flow::Hi {
            return false;
        }
        self.refill(rates, now_ms);
        match flow {
            Flow::Counters => true,
            Flow::Hi => take(&mut self.hi, rates.hi_per_sec, 0),
            Flow::Signal => take(&mut self.signals, rates.signals_per_sec, 0),
            Flow::Chat => self.admit_chat(rates.chat_per_sec, sender),
        }
    }

    fn refill(&mut self, rates: &ShaperRates, now_ms: u64) {
        let now = now_ms as u32;
        let elapsed = elapsed_ms(self.at, now);
        self.at = now;
        if elapsed == 0 {
            return;
        }
        let fill = |tokens: &mut u32, rate: u32| *tokens = refilled(*tokens, elapsed, rate, rate);
        fill(&mut self.chat, rates.chat_per_sec);
        fill(&mut self.hi, rates.hi_per_sec);
        fill(&mut self.signals, rates.signals_per_sec);
        if self.chat == rates.chat_per_sec.saturating_mul(TOKEN) {
            // A second with next to nothing: nobody is owed anything.
            self.over = false;
            self.heard = 0;
        }
    }

    fn admit_chat(&mut self, per_sec: u32, sender: u32) -> bool {
        let shift = (sender % PLACES) * 4;
        let heard = (self.heard >> shift & 15) as u32;
        let reserved = if self.over { heard.min(per_sec / 4) } else { 0 };
        if !take(&mut self.chat, per_sec, reserved) {
            self.over = true;
            return false;
        }
        if heard < 15 {
            self.heard += 1 << shift;
        }
        self.counted += 1;
        if self.counted >= WINDOW_MESSAGES {
            self.counted = 0;
            self.heard = self.heard >> 1 & HALVES;
        }
        true
    }
}

/// Takes a token and leaves at least `reserved` others.
fn take(tokens: &mut u32, per_sec: u32, reserved: u32) -> bool {
    if per_sec == 0 {
        return true;
    }
    let enough = *tokens >= TOKEN.saturating_mul(reserved + 1);
    if enough {
        *tokens -= TOKEN;
    }
    enough
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::sender_hash;

    const RATES: ShaperRates =
        ShaperRates { chat_per_sec: 20, hi_per_sec: 10, signals_per_sec: 20 };

    /// Senders that say something every so many ms, over a time; what each got through.
    fn got_through(senders: &[(u32, u64)], secs: u64) -> Vec<usize> {
        let mut shaper = Shaper::new(&RATES, 0);
        let mut got = vec![0; senders.len()];
        for now_ms in 0..secs * 1000 {
            for (place, (sender, every_ms)) in senders.iter().enumerate() {
                if now_ms % every_ms == 0
                    && shaper.admit(&RATES, now_ms, Flow::Chat, *sender, false)
                {
                    got[place] += 1;
                }
            }
        }
        got
    }

    #[test]
    fn each_lane_gets_one_seconds_rate_at_once_and_then_its_rate() {
        let cases = [(Flow::Chat, 20, 215), (Flow::Hi, 10, 110), (Flow::Signal, 20, 220)];
        for (flow, burst, in_ten_seconds) in cases {
            let mut shaper = Shaper::new(&RATES, 0);
            let mut admitted = |times: &mut dyn Iterator<Item = u64>| {
                times.filter(|at| shaper.admit(&RATES, *at, flow, 7, false)).count()
            };
            assert_eq!(admitted(&mut std::iter::repeat_n(0, 1000)), burst, "{flow:?}");
            let more = admitted(&mut (1..=10_000)) + burst;
            assert!(more.abs_diff(in_ten_seconds) <= 1, "{flow:?}: {more}");
        }
    }

    #[test]
    fn counters_always_pass_and_cost_nothing() {
        let mut shaper = Shaper::new(&RATES, 0);
        assert!((0..1000).all(|_| shaper.admit(&RATES, 0, Flow::Counters, 0, false)));
        let chat = (0..1000).filter(|_| shaper.admit(&RATES, 0, Flow::Chat, 1, false)).count();
        assert_eq!(chat, 20);
    }

    #[test]
    fn a_backed_up_receiver_gets_nothing_but_hi() {
        for (flow, passes) in
            [(Flow::Hi, true), (Flow::Chat, false), (Flow::Counters, false), (Flow::Signal, false)]
        {
            let mut shaper = Shaper::new(&RATES, 0);
            assert_eq!(shaper.admit(&RATES, 0, flow, 1, true), passes, "{flow:?}");
            assert!(shaper.admit(&RATES, 0, flow, 1, false), "{flow:?}: and nothing was charged");
        }
    }

    #[test]
    fn who_says_little_gets_through_beside_who_says_much() {
        let got = got_through(&[(1, 1), (2, 500), (3, 3_000)], 60);
        assert!(got[1] >= 118, "{got:?}: all but what fell into the first burst");
        assert_eq!(got[2], 20, "{got:?}");
        assert!(got.iter().sum::<usize>() >= 20 * 60, "{got:?}: no token goes unused");
    }

    #[test]
    fn equals_get_equal_shares() {
        let senders: Vec<(u32, u64)> =
            (0..40).map(|n| (sender_hash(&format!("user-{n}")), 20)).collect();
        let got = got_through(&senders, 60);
        let total: usize = got.iter().sum();
        assert!((1200..=1230).contains(&total), "{got:?}");
        let heard = got.iter().filter(|got| **got > 0).count();
        assert!(heard >= 20, "{got:?}: of forty that say the same, half at least are heard");
        assert!(got.iter().all(|got| *got < 200), "{got:?}: none takes it all");
    }

    #[test]
    fn the_same_inputs_get_the_same_answers() {
        let senders = [(9, 3), (10, 7), (11, 90)];
        assert_eq!(got_through(&senders, 20), got_through(&senders, 20));
    }

    #[test]
    fn no_rate_is_no_limit() {
        let rates = ShaperRates { chat_per_sec: 0, hi_per_sec: 0, signals_per_sec: 0 };
        let mut shaper = Shaper::new(&rates, 0);
        for flow in [Flow::Hi, Flow::Chat, Flow::Signal] {
            assert!((0..1000).all(|_| shaper.admit(&rates, 0, flow, 1, false)), "{flow:?}");
        }
    }
}
