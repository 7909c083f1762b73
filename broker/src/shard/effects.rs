//! What a commit makes happen, carried to where it happens: letters to workers, changes of the
//! index, commands to other shards.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hoopoe_codec::{QoS, ReasonCode, RetainHandling, SharedFilter, SubscribeOptions};
use hoopoe_core::{Publication, Route, SessionId, Slot, Subscription};
use hoopoe_store::Restored;
use hoopoe_store::command::{Command, GroupCommand, ReplyTo, StoredSubscription};
use hoopoe_store::effect::{Effect, LiveReceiver};

use crate::connection::{Env, group_slot};
use crate::fabric::{Mail, WORKER_MAIL_HIGH, WORKER_MAIL_HIGH_BYTES};
use crate::telemetry::ShardCounters;

/// Letters in a worker's mailbox beyond which live entries are left out; the worker reads them
/// by cursor instead.
const LIVE_HIGH: usize = 4 * WORKER_MAIL_HIGH;
/// Bytes of messages in them.
const LIVE_HIGH_BYTES: usize = 4 * WORKER_MAIL_HIGH_BYTES;

/// Carries effects out for one shard.
pub(super) struct Effects {
    shard: usize,
    env: Arc<Env>,
    counters: Arc<ShardCounters>,
    /// Deliveries and sessions first, then what acknowledges: a copy at QoS 0 that goes out after
    /// an acknowledgement cannot overtake the entry that was committed with it.
    first: Vec<Vec<Mail>>,
    then: Vec<Vec<Mail>>,
    lost: Vec<bool>,
    next_publisher: usize,
}

impl Effects {
    pub(super) fn new(shard: usize, env: Arc<Env>, counters: Arc<ShardCounters>) -> Effects {
        let workers = env.fabric.workers.len();
        Effects {
            shard,
            env,
            counters,
            first: (0..workers).map(|_| Vec::new()).collect(),
            then: (0..workers).map(|_| Vec::new()).collect(),
            lost: vec![false; workers],
            next_publisher: shard,
        }
    }

    /// Carries out what a commit released.
    pub(super) fn release(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out(effect);
        }
        self.send();
    }

    fn send(&mut self) {
        let workers = &self.env.fabric.workers;
        for (worker, mailbox) in workers.iter().enumerate() {
            if self.lost[worker] && mailbox.len() < LIVE_HIGH {
                self.lost[worker] = false;
                self.first[worker].push(Mail::LiveLost);
            }
            mailbox.put_all(&mut self.first[worker]);
        }
        for (worker, mailbox) in workers.iter().enumerate() {
            mailbox.put_all(&mut self.then[worker]);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Opened(opened) => {
                self.first[opened.reply.location.worker()].push(Mail::Opened(opened));
            }
            Effect::TakenOver { location, reason } => {
                self.first[location.worker()].push(Mail::TakenOver { location, reason });
            }
            Effect::Committed { reply, code, .. } => {
                self.then[reply.location.worker()].push(Mail::Committed { reply, code });
            }
            Effect::Live { publication, receivers, .. } => self.live(&publication, receivers),
            Effect::Offer { location, group, entry } => {
                let entry = Box::new(entry);
                self.first[location.worker()].push(Mail::Offer { location, group, entry });
            }
            Effect::GroupMade { route, share, filter } => {
                route_group(&self.env, route, &share, &filter);
            }
            Effect::GroupEnded { group, share, filter } => {
                self.env.fabric.index.remove(&filter, group.0);
                let name = group_name(&share, &filter);
                self.env.groups.remove_if(&*name, |_, of| *of == group);
            }
            Effect::SessionEnded { session, filters, kept } => {
                self.session_ended(session, &filters, &kept);
            }
            Effect::Publish { outbox, key, publication } => {
                let worker = self.next_publisher % self.first.len();
                self.next_publisher += 1;
                let shard = self.shard;
                self.then[worker].push(Mail::Publish { shard, outbox, key, publication });
            }
            Effect::Overflowed { messages, .. } => self.counters.overflowed.add(messages),
        }
    }

    /// One letter per worker, however many receivers it has.
    fn live(&mut self, publication: &Arc<Publication>, receivers: Vec<LiveReceiver>) {
        let mut receivers = receivers;
        receivers.sort_by_key(|receiver| receiver.location.worker());
        while let Some(last) = receivers.last() {
            let worker = last.location.worker();
            let from = receivers.partition_point(|r| r.location.worker() < worker);
            let batch = receivers.split_off(from);
            let mailbox = &self.env.fabric.workers[worker];
            let high = mailbox.len() > LIVE_HIGH || mailbox.bytes() > LIVE_HIGH_BYTES;
            if self.lost[worker] || high {
                self.lost[worker] = true;
                continue;
            }
            let publication = publication.clone();
            self.first[worker].push(Mail::Live { publication, receivers: batch });
        }
    }

    fn session_ended(&self, session: SessionId, filters: &[Arc<str>], kept: &[(SessionId, u64)]) {
        let subscriber = session.0;
        let tell = |slot: Slot, command: GroupCommand| {
            let owner = &self.env.fabric.shards[self.env.fabric.shard_of(slot)];
            owner.put(Command::Group(Box::new(command)).into());
        };
        for (group, seq) in kept {
            let (group, seq) = (*group, *seq);
            tell(group.slot(), GroupCommand::Done { group, subscriber, seq, reply: None });
        }
        for filter in filters {
            match SharedFilter::parse(filter) {
                Some(Ok(shared)) => {
                    let leave = GroupCommand::Leave {
                        share: shared.group.into(),
                        filter: shared.filter.into(),
                        subscriber,
                        ended: true,
                        reply: None,
                    };
                    tell(group_slot(shared.group, shared.filter), leave);
                }
                _ => {
                    self.env.fabric.index.remove(filter, subscriber);
                }
            }
        }
    }

    /// Puts what a shard found in the store into the index, and carries on its outbox. A write
    /// whose outcome was unknown may have been done: its entries are in queues and nobody was told.
    pub(super) fn restored(&mut self, restored: Restored) {
        route_restored(&self.env, &restored);
        self.lost.fill(true);
        self.release(restored.outbox);
    }

    /// Publications with RETAIN are committed, or refused: scans find what there is to find.
    pub(super) fn retained_settled(&self, publications: u64) {
        if publications > 0 {
            self.env.retained.under_way.fetch_sub(publications, Ordering::AcqRel);
        }
    }

    /// What was asked for may have happened or not: the connection is closed (ruling 12). It waits
    /// for no answer any more, else it would keep the session from the client's next connection.
    pub(super) fn lose(&mut self, reply: ReplyTo) {
        let location = reply.location;
        let reason = ReasonCode::ServerUnavailable;
        self.first[location.worker()].push(Mail::TakenOver { location, reason });
        let code = ReasonCode::UnspecifiedError;
        self.then[location.worker()].push(Mail::Committed { reply, code });
    }
}

/// Puts the routes of a shard's sessions and groups into the index.
pub fn route_restored(env: &Env, restored: &Restored) {
    for session in &restored.sessions {
        for subscription in &session.subscriptions {
            let filter = &subscription.filter;
            if !filter.starts_with("$share/") && !hoopoe_im::is_reserved(filter) {
                let route = session.route.clone();
                let StoredSubscription { filter, options, identifier } = subscription.clone();
                let subscriber = route.subscriber;
                let subscription = Subscription { route, options, identifier };
                env.fabric.index.insert(&filter, subscriber, subscription);
            }
        }
    }
    for group in &restored.groups {
        route_group(env, group.route.clone(), &group.share, &group.filter);
    }
}

/// A group's route goes into the index before any member's SUBACK.
fn route_group(env: &Env, route: Arc<Route>, share: &str, filter: &str) {
    let Some(group) = route.session() else { return };
    env.groups.insert(group_name(share, filter), group);
    let subscription = Subscription { route, options: EVERYTHING, identifier: 0 };
    env.fabric.index.insert(filter, group.0, subscription);
}

/// Carries on what an earlier run of the broker left in a shard's outbox.
pub fn start_outbox(shard: usize, env: &Arc<Env>, restored: Restored) {
    let counters = env.telemetry.shards[shard].clone();
    Effects::new(shard, env.clone(), counters).release(restored.outbox);
}

/// A group takes what any member could be sent; each member's own terms come with the offer.
const EVERYTHING: SubscribeOptions = SubscribeOptions {
    qos: QoS::ExactlyOnce,
    no_local: false,
    retain_as_published: true,
    retain_handling: RetainHandling::DoNotSend,
};

fn group_name(share: &str, filter: &str) -> Box<str> {
    format!("$share/{share}/{filter}").into()
}
