//! Random histories against a model of queues that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::rig::*;
use crate::command::*;
use crate::settings::ShardSettings;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const MAX_MESSAGES: u64 = 5;
/// Weight of a message with a one-byte topic and a three-byte payload.
const WEIGHT: u64 = 36;

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<usize>),
    Acknowledge(usize, u64),
    Reconnect(usize),
    CleanStart(usize),
    Restart,
    Tick,
    Reclaim,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..NAMES.len();
    prop_oneof![
        8 => proptest::sample::subsequence(vec![0, 1, 2, 3], 0..=4).prop_map(Step::Publish),
        4 => (who.clone(), 0..4u64).prop_map(|(who, more)| Step::Acknowledge(who, more)),
        2 => who.clone().prop_map(Step::Reconnect),
        1 => who.prop_map(Step::CleanStart),
        1 => Just(Step::Restart),
        1 => Just(Step::Tick),
        1 => Just(Step::Reclaim),
    ]
}

/// A queue: number → payload; and what was acknowledged.
#[derive(Default)]
struct Queue {
    head: u64,
    acknowledged: u64,
    entries: BTreeMap<u64, String>,
}

impl Queue {
    fn push(&mut self, payload: &str) {
        self.head += 1;
        self.entries.insert(self.head, payload.to_owned());
        self.acknowledge(self.head.saturating_sub(MAX_MESSAGES));
    }

    fn acknowledge(&mut self, seq: u64) {
        self.acknowledged = self.acknowledged.max(seq);
        self.entries = self.entries.split_off(&(self.acknowledged + 1));
    }
}

struct Play {
    rig: Rig,
    clients: Vec<Client>,
    queues: Vec<Queue>,
    published: u64,
}

impl Play {
    fn start() -> Play {
        let settings =
            ShardSettings { queue_max_messages: MAX_MESSAGES, ..ShardSettings::default() };
        let mut rig = Rig::memory_with(settings);
        let clients = NAMES.map(|name| rig.connect_as(name)).into();
        Play { rig, clients, queues: NAMES.map(|_| Queue::default()).into(), published: 0 }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Publish(to) => {
                self.published += 1;
                let payload = format!("{:03}", self.published);
                let ids: Vec<_> = to.iter().map(|who| self.clients[*who].id()).collect();
                self.rig.publish(&ids, &payload);
                to.iter().for_each(|who| self.queues[*who].push(&payload));
            }
            Step::Acknowledge(who, more) => {
                let queue = &mut self.queues[*who];
                let seq = (queue.acknowledged + more).min(queue.head);
                queue.acknowledge(seq);
                let progress = self.clients[*who].progress(seq, seq * WEIGHT, queue.head);
                self.rig.run(vec![Command::Progress(progress)]);
            }
            Step::Reconnect(who) => {
                let client = &self.clients[*who];
                self.rig.close(client, CloseCause::Abnormal);
                self.connect(*who, false);
            }
            Step::CleanStart(who) => {
                self.rig.close(&self.clients[*who], CloseCause::Normal);
                self.connect(*who, true);
                self.queues[*who] = Queue::default();
            }
            Step::Restart => {
                // Written first, so that the model need not know what a crash may take back.
                self.rig.pass(1_000);
                self.rig.restart_in_place(0);
                (0..NAMES.len()).for_each(|who| self.connect(who, false));
            }
            Step::Tick => drop(self.rig.pass(1_000)),
            Step::Reclaim => self.rig.store.reclaim().expect("reclaims"),
        }
    }

    fn connect(&mut self, who: usize, clean_start: bool) {
        let open = Open { clean_start, ..self.rig.open(NAMES[who]) };
        self.clients[who] = self.rig.connect(open);
    }

    fn check(&self) {
        let mut queued = 0;
        for (client, queue) in self.clients.iter().zip(&self.queues) {
            let expected: Vec<(u64, String)> =
                queue.entries.iter().map(|(seq, payload)| (*seq, payload.clone())).collect();
            assert_eq!(self.rig.queue(client.id(), queue.acknowledged + 1), expected);
            let session = &self.rig.view.sessions[&client.id()];
            assert_eq!(session.head, queue.head);
            assert_eq!(session.load().messages, expected.len() as u64);
            assert_eq!(session.load().bytes, expected.len() as u64 * WEIGHT);
            queued += expected.len() as u64;
        }
        assert_eq!(self.rig.view.queued.messages, queued);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn queues_hold_what_the_model_says(steps in proptest::collection::vec(step(), 1..60)) {
        let mut play = Play::start();
        for step in &steps {
            play.take(step);
            play.check();
        }
    }
}
