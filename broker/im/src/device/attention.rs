//! Background mode of one device (ruling 35): what still reaches an app that nobody looks at.
//!
//! 1:1 messages and mentions flow. Presence, signals and receipts stop. Entries of groups and
//! channels are held back; a `gap` names them, at once for the first and then at most once per
//! conversation and [`POKE_INTERVAL_MS`], so nothing is skipped silently and nothing comes out of
//! order: before a mention flows, what was held back before it is named.
//!
//! Deliberately not here: cursors. A gap that is told moves the device's cursor (ruling 21); what
//! was held back and not yet named when the app returns flows from the cursor as usual.

use std::collections::{BTreeMap, BTreeSet};

use hoopoe_core::seldom::Seldom;

use super::Gap;
use crate::id::ConvKey;

/// Least time between two pokes for a conversation, in milliseconds.
pub const POKE_INTERVAL_MS: u64 = 30_000;
/// Conversations that a device in the background keeps in mind: as many as groups and channels a
/// user may be in (ruling 37). What finds no place is named at once.
pub const HELD_CONVERSATIONS: usize = 1_000;

/// What wants to reach a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// A stored entry of a 1:1 conversation.
    Direct,
    /// A stored entry that mentions the user.
    Mention,
    /// Any other stored entry of a group or channel.
    Group,
    /// Presence of a watched user.
    Presence,
    /// A signal.
    Signal,
    /// A receipt, or where the user's other devices have read to.
    Receipt,
    /// `sys` events that are none of the above, answers of services, rooms joined.
    Other,
}

impl Arrival {
    /// What a publication of the broker's to an inbox topic is, stored entries aside.
    pub fn of_notice(topic: &str) -> Arrival {
        match topic.strip_prefix("im/me/").unwrap_or_default() {
            rest if rest.starts_with("pr/") => Arrival::Presence,
            rest if rest.starts_with("sig/") => Arrival::Signal,
            rest if rest.starts_with("sys/receipt/") => Arrival::Receipt,
            rest if rest.starts_with("sys/read/") => Arrival::Receipt,
            _ => Arrival::Other,
        }
    }
}

/// What is to be done with a stored entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is sent, after the gap if there is one.
    Send(Option<Gap>),
    /// It is not sent; the gap, if there is one, is told.
    Hold(Option<Gap>),
}

/// A conversation with something held back, or poked lately.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Held {
    poked_at: u64,
    /// Held back and not yet named.
    range: Option<(u64, u64)>,
}

/// The attention of one device.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Attention {
    background: bool,
    held: Seldom<BTreeMap<ConvKey, Held>>,
    /// When conversations with a range are to be poked.
    due: Seldom<BTreeSet<(u64, ConvKey)>>,
}

impl Attention {
    /// True while the app is in the background. Push counts the device as absent then.
    pub fn is_background(&self) -> bool {
        self.background
    }

    /// `im/me/bg`: the app went to the background.
    pub fn background(&mut self) {
        self.background = true;
    }

    /// `im/me/fg`: the app is looked at again. Gives what was held back and not yet named, by
    /// conversation: it flows now, from the device's cursor.
    pub fn foreground(&mut self) -> Vec<Gap> {
        self.background = false;
        self.due.release();
        std::mem::take(&mut self.held)
            .into_iter()
            .filter_map(|(conv, held)| held.range.map(|(from, to)| Gap { conv, from, to }))
            .collect()
    }

    /// Whether something that is not a stored entry of a group reaches the device.
    pub fn passes(&self, arrival: Arrival) -> bool {
        match arrival {
            Arrival::Direct | Arrival::Mention | Arrival::Other => true,
            Arrival::Group | Arrival::Presence | Arrival::Signal | Arrival::Receipt => {
                !self.background
            }
        }
    }

    /// A stored entry wants to go to the device; entries of a conversation come in ascending
    /// order.
    pub fn on_entry(&mut self, now: u64, conv: &ConvKey, seq: u64, arrival: Arrival) -> Verdict {
        if !self.background || arrival == Arrival::Direct {
            return Verdict::Send(None);
        }
        if self.passes(arrival) {
            return Verdict::Send(self.name(now, conv));
        }
        if let Some(held) = self.held.get_mut(conv) {
            if held.range.is_none() {
                self.due.insert((held.poked_at + POKE_INTERVAL_MS, conv.clone()));
            }
            held.range = Some((held.range.map_or(seq, |(from, _)| from), seq));
            return Verdict::Hold(self.poke(now, conv));
        }
        if self.held.len() >= HELD_CONVERSATIONS {
            self.held
                .retain(|_, held| held.range.is_some() || now < held.poked_at + POKE_INTERVAL_MS);
        }
        if self.held.len() < HELD_CONVERSATIONS {
            self.held.insert(conv.clone(), Held { poked_at: now, range: None });
        }
        Verdict::Hold(Some(Gap { conv: conv.clone(), from: seq, to: seq }))
    }

    /// When [`Attention::on_tick`] has something to name.
    pub fn next_timeout(&self) -> Option<u64> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Names what has been held back for an interval.
    pub fn on_tick(&mut self, now: u64) -> Vec<Gap> {
        let mut gaps = Vec::new();
        while let Some((_, conv)) = self.due.first().filter(|(at, _)| *at <= now).cloned() {
            gaps.extend(self.name(now, &conv));
        }
        gaps
    }

    /// Names what is held back of a conversation if its interval is over.
    fn poke(&mut self, now: u64, conv: &ConvKey) -> Option<Gap> {
        let held = self.held.get(conv)?;
        if now < held.poked_at + POKE_INTERVAL_MS { None } else { self.name(now, conv) }
    }

    /// Names what is held back of a conversation.
    fn name(&mut self, now: u64, conv: &ConvKey) -> Option<Gap> {
        let held = self.held.get_mut(conv)?;
        let (from, to) = held.range.take()?;
        self.due.remove(&(held.poked_at + POKE_INTERVAL_MS, conv.clone()));
        held.poked_at = now;
        Some(Gap { conv: conv.clone(), from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation as alice spells it.
    fn conv(wire: &str) -> ConvKey {
        ConvKey::from_wire("default", "alice", wire).unwrap()
    }

    /// Says what comes of a verdict: `send`, `hold`, with `[from..to]` before it.
    fn spell(verdict: Verdict) -> String {
        let (gap, word) = match verdict {
            Verdict::Send(gap) => (gap, "send"),
            Verdict::Hold(gap) => (gap, "hold"),
        };
        gap.map_or(word.to_owned(), |gap| {
            format!("[{} {}..{}] {word}", gap.conv.wire("alice"), gap.from, gap.to)
        })
    }

    #[test]
    fn only_what_cannot_wait_reaches_the_background() {
        let mut attention: Attention = Attention::default();
        let all = [
            (Arrival::Direct, true),
            (Arrival::Mention, true),
            (Arrival::Group, false),
            (Arrival::Presence, false),
            (Arrival::Signal, false),
            (Arrival::Receipt, false),
            (Arrival::Other, true),
        ];
        assert!(all.iter().all(|(arrival, _)| attention.passes(*arrival)));
        attention.background();
        assert!(attention.is_background());
        for (arrival, passes) in all {
            assert_eq!(attention.passes(arrival), passes, "{arrival:?}");
        }
        attention.foreground();
        assert!(all.iter().all(|(arrival, _)| attention.passes(*arrival)));
    }

    #[test]
    fn notices_are_told_apart_by_topic() {
        let cases = [
            ("im/me/pr/bob", Arrival::Presence),
            ("im/me/sig/u/bob/bob/typing", Arrival::Signal),
            ("im/me/sys/receipt/u/bob/read/7/bob", Arrival::Receipt),
            ("im/me/sys/read/g/team/9", Arrival::Receipt),
            ("im/me/sys/gap/g/team/1/9", Arrival::Other),
            ("im/me/sys/hello", Arrival::Other),
            ("im/me/res/7/ok", Arrival::Other),
            ("im/r/lobby/msg/chat", Arrival::Other),
        ];
        for (topic, arrival) in cases {
            assert_eq!(Arrival::of_notice(topic), arrival, "{topic}");
        }
    }

    #[test]
    fn group_entries_are_named_once_an_interval() {
        use Arrival::{Direct, Group, Mention};
        let mut attention = Attention::default();
        assert_eq!(spell(attention.on_entry(0, &conv("g/team"), 6, Group)), "send");
        attention.background();
        let cases = [
            (1_000, "g/team", 7, Group, "[g/team 7..7] hold", None),
            (2_000, "u/bob", 3, Direct, "send", None),
            (3_000, "g/team", 8, Group, "hold", Some(31_000)),
            (4_000, "g/team", 9, Group, "hold", Some(31_000)),
            (5_000, "g/other", 1, Group, "[g/other 1..1] hold", Some(31_000)),
            // A mention flows behind what is named before it, and that was a poke.
            (6_000, "g/team", 10, Mention, "[g/team 8..9] send", None),
            (7_000, "g/team", 11, Mention, "send", None),
            (30_000, "g/team", 12, Group, "hold", Some(36_000)),
            // Later than the timeout, before its tick.
            (36_500, "g/team", 13, Group, "[g/team 12..13] hold", None),
            (90_000, "g/team", 14, Group, "[g/team 14..14] hold", None),
            (90_001, "g/team", 15, Group, "hold", Some(120_000)),
        ];
        for (now, wire, seq, arrival, expected, timeout) in cases {
            assert_eq!(
                spell(attention.on_entry(now, &conv(wire), seq, arrival)),
                expected,
                "at {now}"
            );
            assert_eq!(attention.next_timeout(), timeout, "at {now}");
        }
        assert_eq!(attention.on_tick(119_999), []);
        assert_eq!(attention.on_tick(120_000), [Gap { conv: conv("g/team"), from: 15, to: 15 }]);
        assert_eq!(attention.next_timeout(), None);
    }

    #[test]
    fn what_was_not_named_flows_when_the_app_is_back() {
        let mut attention = Attention::default();
        attention.background();
        for (now, wire, seq) in [(1, "g/b", 1), (2, "g/b", 2), (3, "g/b", 3), (4, "g/a", 9)] {
            attention.on_entry(now, &conv(wire), seq, Arrival::Group);
        }
        assert_eq!(attention.foreground(), [Gap { conv: conv("g/b"), from: 2, to: 3 }]);
        assert_eq!(attention.next_timeout(), None);
        assert_eq!(spell(attention.on_entry(5, &conv("g/b"), 4, Arrival::Group)), "send");
        // The next background begins afresh.
        attention.background();
        assert_eq!(
            spell(attention.on_entry(6, &conv("g/b"), 5, Arrival::Group)),
            "[g/b 5..5] hold"
        );
    }

    #[test]
    fn what_is_kept_in_mind_is_bounded() {
        let mut attention: Attention = Attention::default();
        attention.background();
        let most = HELD_CONVERSATIONS;
        for number in 0..most {
            let group = conv(&format!("g/{number}"));
            assert!(matches!(
                attention.on_entry(0, &group, 1, Arrival::Group),
                Verdict::Hold(Some(_))
            ));
        }
        let last = conv("g/last");
        // No place: named at once, each time.
        for seq in 1..3 {
            let verdict = attention.on_entry(1, &last, seq, Arrival::Group);
            assert_eq!(
                verdict,
                Verdict::Hold(Some(Gap { conv: last.clone(), from: seq, to: seq }))
            );
        }
        assert_eq!(attention.held.len(), HELD_CONVERSATIONS);
        // Places of conversations without news are free after the interval.
        attention.on_entry(POKE_INTERVAL_MS, &last, 3, Arrival::Group);
        assert_eq!(attention.held.len(), 1);
    }
}
