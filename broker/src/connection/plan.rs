//! Who gets a publication to a topic: the index's answer, merged per receiver and sorted by where
//! the receivers are. A worker keeps plans and uses them while the index's stamp stands still.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use hoopoe_codec::QoS;
use hoopoe_core::index::{Index, Stamp};
use hoopoe_core::{Location, Route, SessionId, Subscription};
use smallvec::SmallVec;

use crate::fabric::{Terms, TransientReceiver};

/// A stored session that gets the publication.
#[derive(Debug)]
pub struct StoredReceiver {
    /// Its session.
    pub session: SessionId,
    /// Where it is, if connected: for copies at QoS 0.
    pub route: Arc<Route>,
    /// Subscriber number and terms, as for transient receivers.
    pub receiver: TransientReceiver,
}

/// Who gets a publication to one topic.
#[derive(Debug)]
pub struct Plan {
    topic: Box<str>,
    stamp: Stamp,
    /// Receivers connected to this worker.
    pub local: Arc<[TransientReceiver]>,
    /// Receivers connected to other workers.
    pub remote: Vec<(usize, Arc<[TransientReceiver]>)>,
    /// Stored sessions.
    pub stored: Vec<StoredReceiver>,
    /// Shared groups.
    pub groups: Vec<SessionId>,
    /// Highest QoS granted to a stored session.
    pub stored_qos: Option<QoS>,
}

impl Plan {
    /// True when nobody subscribes to the topic.
    pub fn is_empty(&self) -> bool {
        self.local.is_empty()
            && self.remote.is_empty()
            && self.stored.is_empty()
            && self.groups.is_empty()
    }
}

/// Plans that a worker keeps; when there are more, all are dropped (they are cheap to make).
const MOST_PLANS: usize = 16_384;
/// Bytes of a topic whose plan is kept: longer ones are rare, and would make the plans large.
const KEPT_TOPIC_BYTES: usize = 1024;

/// The plans of one worker.
pub struct Plans {
    worker: usize,
    plans: HashMap<u64, Rc<Plan>, foldhash::fast::RandomState>,
}

impl Plans {
    /// No plans yet, for the worker of that number.
    pub fn new(worker: usize) -> Plans {
        Plans { worker, plans: HashMap::default() }
    }

    /// The plan for a topic of that hash.
    pub fn get(&mut self, index: &Index<Subscription>, topic: &str, hash: u64) -> Rc<Plan> {
        let stamp = index.stamp(hash);
        if let Some(plan) = self.plans.get(&hash)
            && plan.stamp == stamp
            && *plan.topic == *topic
        {
            return plan.clone();
        }
        let plan = Rc::new(make(index, topic, stamp, self.worker));
        if topic.len() > KEPT_TOPIC_BYTES {
            return plan;
        }
        if self.plans.len() >= MOST_PLANS {
            self.plans.clear();
        }
        self.plans.insert(hash, plan.clone());
        plan
    }
}

/// The matching subscriptions of one subscriber.
struct Match {
    subscriber: u64,
    subscription: Subscription,
}

fn make(index: &Index<Subscription>, topic: &str, stamp: Stamp, worker: usize) -> Plan {
    let mut matches: SmallVec<[Match; 8]> = SmallVec::new();
    index.matches(topic, |subscriber, subscription| {
        matches.push(Match { subscriber, subscription: subscription.clone() });
    });
    // A stable sort: identifiers stay in the index's order, exact filters first.
    matches.sort_by_key(|found| found.subscriber);
    let mut local = Vec::new();
    let mut remote: Vec<(usize, Vec<TransientReceiver>)> = Vec::new();
    let (mut stored, mut groups) = (Vec::new(), Vec::new());
    for same in matches.chunk_by(|a, b| a.subscriber == b.subscriber) {
        let route = &same[0].subscription.route;
        if route.is_group() {
            groups.extend(route.session());
            continue;
        }
        let receiver = receiver(same);
        if let Some(session) = route.session() {
            stored.push(StoredReceiver { session, route: route.clone(), receiver });
        } else if receiver.location.worker() == worker {
            local.push(receiver);
        } else {
            let at = receiver.location.worker();
            match remote.iter_mut().find(|(worker, _)| *worker == at) {
                Some((_, receivers)) => receivers.push(receiver),
                None => remote.push((at, vec![receiver])),
            }
        }
    }
    Plan {
        topic: topic.into(),
        stamp,
        local: local.into(),
        remote: remote.into_iter().map(|(worker, list)| (worker, list.into())).collect(),
        stored_qos: stored.iter().map(|s: &StoredReceiver| s.receiver.terms.qos).max(),
        stored,
        groups,
    }
}

/// One receiver from all its matching subscriptions: one copy, at the highest QoS granted, with
/// all identifiers.
fn receiver(same: &[Match]) -> TransientReceiver {
    let route = &same[0].subscription.route;
    let location = if route.session().is_some() { Location::NOWHERE } else { route.location() };
    let own = same
        .iter()
        .any(|found| found.subscription.options.no_local)
        .then(|| Box::new(merge(same.iter().filter(|found| !found.subscription.options.no_local))));
    TransientReceiver {
        location,
        subscriber: route.subscriber,
        terms: merge(same.iter()).unwrap_or(Terms {
            qos: QoS::AtMostOnce,
            retain_as_published: false,
            identifiers: SmallVec::new(),
        }),
        own,
    }
}

fn merge<'a>(subscriptions: impl Iterator<Item = &'a Match>) -> Option<Terms> {
    let mut merged: Option<Terms> = None;
    for Match { subscription, .. } in subscriptions {
        let terms = merged.get_or_insert_with(|| Terms {
            qos: QoS::AtMostOnce,
            retain_as_published: false,
            identifiers: SmallVec::new(),
        });
        terms.qos = terms.qos.max(subscription.options.qos);
        terms.retain_as_published |= subscription.options.retain_as_published;
        if subscription.identifier != 0 {
            terms.identifiers.push(subscription.identifier);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_of_long_topics_are_made_and_not_kept() {
        let (index, mut plans) = (Index::new(), Plans::new(0));
        let topics = ["x".repeat(KEPT_TOPIC_BYTES + 1), "x".repeat(KEPT_TOPIC_BYTES)];
        for (hash, topic) in topics.iter().enumerate() {
            assert_eq!(*plans.get(&index, topic, hash as u64).topic, **topic);
            assert_eq!(plans.plans.len(), hash);
        }
    }
}
