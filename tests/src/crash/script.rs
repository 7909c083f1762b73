//! What is decided by the seed: who does what next, and when the broker is killed.
//!
//! Every round has its own stream of decisions, so that a round is the same whatever the speed of
//! the rounds before. How far a round comes before its kill depends on the broker.

use super::cast::{Cast, Temper};
use super::history::Leaving;
use super::random::Random;
use crate::wire::Version;

/// One decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// A publisher publishes.
    Publish {
        /// Who.
        publisher: usize,
        /// On which of its topics.
        topic: usize,
        /// QoS.
        qos: u8,
        /// Size of the payload, roughly.
        filler: usize,
        /// Removes the retained message.
        cleared: bool,
    },
    /// A publisher opens another connection.
    PublisherAgain {
        /// Who.
        publisher: usize,
        /// What becomes of the old one.
        how: Leaving,
    },
    /// A receiver goes, or comes if it was away.
    Toggle {
        /// Who.
        receiver: usize,
        /// How it goes.
        how: Leaving,
    },
    /// A receiver opens another connection.
    Again {
        /// Who.
        receiver: usize,
        /// What becomes of the old one.
        how: Leaving,
    },
    /// A receiver starts a new session.
    Anew {
        /// Who.
        receiver: usize,
        /// Whether it ends the old one before.
        how: Leaving,
    },
    /// A receiver unsubscribes, or subscribes again.
    ToggleFilter {
        /// Who.
        receiver: usize,
        /// Which.
        filter: usize,
    },
    /// A receiver keeps back so many answers from now on.
    Hold {
        /// Who.
        receiver: usize,
        /// How many.
        answers: usize,
    },
}

/// When the broker is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// After so many publications were acknowledged since its start.
    Acked(usize),
    /// After so many clients were accepted since its start.
    Accepted(usize),
}

/// A start takes less than that, in ms.
const LONG_START_MS: usize = 200;

/// The decisions of one round.
#[derive(Clone, Debug)]
pub struct Round {
    /// When it ends.
    pub trigger: Trigger,
    /// Nobody does anything for a while before it ends: what is written lazily is written then.
    pub rest: bool,
    /// After how many ms the starts that follow are killed, too, before the one that succeeds.
    pub false_starts_ms: Vec<u64>,
    random: Random,
}

impl Round {
    /// Round `number` of a seed; `acks` acknowledgements are an ordinary length.
    pub fn of_seed(seed: u64, number: usize, cast: &Cast, acks: usize) -> Round {
        let mut random = Random::of_part(seed, 1000 + number as u64);
        let clients = cast.publishers.len() + cast.receivers.len();
        let trigger = match random.below(10) {
            0 => Trigger::Accepted(random.between(1, clients * 2 / 3)),
            1 => Trigger::Acked(random.between(1, 20)),
            2..=7 => Trigger::Acked(random.between(acks / 4, acks)),
            _ => Trigger::Acked(random.between(acks, 2 * acks)),
        };
        let rest = random.chance(8);
        let starts = if random.chance(25) { random.between(1, 2) } else { 0 };
        let false_starts_ms = (0..starts).map(|_| random.below(LONG_START_MS) as u64).collect();
        Round { trigger, rest, false_starts_ms, random }
    }

    /// The next decision.
    pub fn action(&mut self, cast: &Cast) -> Action {
        let random = &mut self.random;
        if random.chance(90) {
            return publish(cast, random);
        }
        if random.chance(10) {
            let publisher = random.between(1, cast.publishers.len() - 1);
            let how = *random.pick(&[Leaving::Cut, Leaving::TakeOver]);
            return Action::PublisherAgain { publisher, how };
        }
        let receiver = random.below(cast.receivers.len());
        let role = &cast.receivers[receiver];
        let how = *random.pick(&[Leaving::Disconnect, Leaving::Cut]);
        match role.temper {
            Temper::Steady => publish(cast, random),
            Temper::Slow => Action::Hold { receiver, answers: random.below(40) },
            Temper::Restless | Temper::Expiring => Action::Toggle { receiver, how },
            Temper::Contested => {
                let how =
                    *random.pick(&[Leaving::TakeOver, Leaving::TakeOver, Leaving::Disconnect]);
                Action::Again { receiver, how }
            }
            Temper::Fickle if role.filters.len() > 1 => {
                let filter = random.between(1, role.filters.len() - 1);
                Action::ToggleFilter { receiver, filter }
            }
            Temper::Fickle => Action::Again { receiver, how },
            Temper::Forgetful => match random.below(3) {
                0 if role.version == Version::V5 => Action::Toggle { receiver, how: Leaving::End },
                1 => Action::Anew { receiver, how: Leaving::End },
                _ => Action::Anew { receiver, how: Leaving::Disconnect },
            },
        }
    }
}

fn publish(cast: &Cast, random: &mut Random) -> Action {
    let publisher = random.between(1, cast.publishers.len() - 1);
    let topic = random.below(cast.publishers[publisher].topics.len());
    let role = &cast.publishers[publisher].topics[topic];
    let qos = role.qos.unwrap_or(1 + random.below(2) as u8);
    let cleared = role.kept && random.chance(20);
    let filler = match random.below(100) {
        0 => 20_000,
        1..=10 => random.below(4_000),
        _ => random.below(200),
    };
    Action::Publish { publisher, topic, qos, filler, cleared }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_the_same_every_time() {
        let cast = Cast::of_seed(5, 6, 14);
        let decisions = |number| {
            let mut round = Round::of_seed(5, number, &cast, 400);
            let actions: Vec<Action> = (0..500).map(|_| round.action(&cast)).collect();
            (round.trigger, round.rest, round.false_starts_ms, actions)
        };
        assert_eq!(decisions(3), decisions(3));
        assert_ne!(decisions(3), decisions(4));
    }
}
