//! Carrying out what a shard's IM step has made happen: letters to workers, work for readers,
//! commands to other shards.

use std::sync::Arc;

use hoopoe_codec::QoS;
use hoopoe_core::{Location, PublicationParts};
use hoopoe_im::command::{Forward, SendSignal};
use hoopoe_im::effect::Effect;
use hoopoe_im::entry::{Entry, EntryKind};
use hoopoe_im::id::{ConvKey, ConvKind, conv_topic, inbox_topic, left_topic};
use hoopoe_im::{Answer, Asker, Command, User};
use smallvec::SmallVec;

use super::mail::Receivers;
use super::{ImMail, ImRead, Reply};
use crate::connection::Env;
use crate::fabric::{Delivery, Mail, Terms, TransientReceiver};
use crate::shard::ReadJob;

/// Devices of one worker.
type OfWorker = (usize, Receivers);

/// The devices reachable under topics, by worker; each once.
pub(super) fn by_worker(env: &Env, topics: &[&str]) -> SmallVec<[OfWorker; 2]> {
    by_worker_with(env, topics, SmallVec::new())
}

/// As [`by_worker`], and devices that are known already.
pub(super) fn by_worker_with(
    env: &Env,
    topics: &[&str],
    known: SmallVec<[Location; 16]>,
) -> SmallVec<[OfWorker; 2]> {
    let mut found = known;
    let sources = topics.len() + usize::from(!found.is_empty());
    for topic in topics {
        env.im.reach.matches(topic, |_, location| found.push(*location));
    }
    if sources > 1 {
        found.sort_unstable_by_key(|location| location.to_bits());
        found.dedup();
    }
    let Some(first) = found.first().map(|location| location.worker()) else {
        return SmallVec::new();
    };
    // Most often all are on one worker: the list is made once.
    if found.iter().all(|location| location.worker() == first) {
        return SmallVec::from_iter([(first, Receivers::from_slice(&found))]);
    }
    let mut workers: SmallVec<[OfWorker; 2]> = SmallVec::new();
    for location in found {
        let worker = location.worker();
        match workers.iter_mut().find(|(at, _)| *at == worker) {
            Some((_, list)) => list.push(location),
            None => workers.push((worker, Receivers::from_slice(&[location]))),
        }
    }
    workers
}

/// Carries effects out for one shard.
pub struct ImEffects {
    shard: u16,
    env: Arc<Env>,
    /// Recalls, for whom a body may still wait. Every worker has them before anybody hears of one:
    /// whoever does finds no worker that does not know of it (ruling 24).
    first: Vec<Vec<Mail>>,
    mail: Vec<Vec<Mail>>,
    /// What acknowledges, and ends connections. It goes out when every worker has the rest.
    then: Vec<Vec<Mail>>,
}

impl ImEffects {
    /// For the shard of that number.
    pub fn new(shard: usize, env: Arc<Env>) -> ImEffects {
        let empty = || env.fabric.workers.iter().map(|_| Vec::new()).collect();
        let (first, mail, then) = (empty(), empty(), empty());
        ImEffects { shard: shard as u16, env, first, mail, then }
    }

    /// Carries out what a commit released.
    pub fn release(
        &mut self,
        effects: impl IntoIterator<Item = Effect>,
        is_big: impl Fn(&ConvKey) -> bool,
    ) {
        let mut jobs = Vec::new();
        for effect in effects {
            let big = match &effect {
                Effect::Entry(entry) => is_big(&entry.conv),
                _ => false,
            };
            self.carry_out(effect, big, &mut jobs);
        }
        for letters in [&mut self.first, &mut self.mail, &mut self.then] {
            for (mailbox, letters) in self.env.fabric.workers.iter().zip(letters) {
                mailbox.put_all(letters);
            }
        }
        self.env.fabric.readers.put_all(&mut jobs);
    }

    fn carry_out(&mut self, effect: Effect, big: bool, jobs: &mut Vec<ReadJob>) {
        match effect {
            Effect::Answer { asker, answer } => self.answer(asker, answer),
            Effect::Entry(entry) => self.committed(&entry, big),
            Effect::EntryFor { user, entry } => {
                self.entry(&[&inbox_topic(entry.conv.tenant(), &user)], &entry, false);
            }
            Effect::Signal(signal) => self.signal(&signal),
            Effect::Notice { user, topic, payload } => self.notice(&user, &topic, &payload),
            Effect::Listed { user, conv, row } => jobs.push(self.listed(user, conv, row)),
            Effect::Skip { user, conv, through } => {
                for (worker, receivers) in self.inbox(&user) {
                    let conv = conv.clone();
                    self.mail[worker].push(Mail::Im(ImMail::Skip { receivers, conv, through }));
                }
            }
            Effect::Site { site, frame } => self.env.im.say_to_site(&site, &frame),
            Effect::Owed { site, shard, owed } => {
                if let Some(sites) = self.env.im.sites() {
                    sites.note_owed(&site, shard, owed);
                }
            }
            Effect::Forward { outbox, forward } => {
                if let Forward::Listed(listed) = &*forward
                    && listed.intervals.last().is_some_and(|interval| interval.until.is_some())
                {
                    // Who is no member any more hears nothing live from this commit on; what is
                    // before it is read by cursor.
                    let user = User { tenant: listed.tenant.clone(), id: listed.user.clone() };
                    // Who has no device here listens to nothing; one that comes reads the end itself.
                    if !self.inbox(&user).is_empty() {
                        let env = self.env.clone();
                        env.im.departures.left(&user, &listed.conv, listed.version, || {
                            self.leave(&user, &listed.conv);
                        });
                    }
                }
                let slot = forward.slot();
                let outbox = outbox.map(|number| (self.shard, number));
                let fabric = &self.env.fabric;
                let command = Command::Forward { outbox, forward };
                fabric.shards[fabric.shard_of(slot)].put(command.into());
            }
            Effect::ForwardDone { shard, outbox } => {
                let done = Command::ForwardDone { outbox };
                self.env.fabric.shards[usize::from(shard)].put(done.into());
            }
            Effect::ForwardRefused { shard, outbox } => {
                let refused = Command::ForwardRefused { outbox };
                self.env.fabric.shards[usize::from(shard)].put(refused.into());
            }
            Effect::Attended { user, attended } => {
                if let Some(push) = self.env.im.push() {
                    push.attended(user, attended);
                }
            }
            Effect::PushToken { user, takes, attended } => {
                if let Some(push) = self.env.im.push() {
                    push.token(user, takes, attended);
                }
            }
            Effect::Swept { entries, bytes } => self.env.im.space.swept(entries, bytes),
            Effect::Walked { alive_bytes } => self.env.im.space.walked(self.shard, alive_bytes),
            Effect::Token { hash, owner: Some(owner) } => {
                self.env.access.tokens().put(hash, owner);
            }
            Effect::Token { hash, owner: None } => {
                if self.env.access.tokens().remove(&hash) {
                    self.env.access.logins_changed();
                }
            }
            Effect::Account { user, account } => {
                self.env.access.accounts().put(user, account);
                self.env.access.logins_changed();
            }
            Effect::Read(call) => jobs.push(ReadJob::Im(ImRead::Call(call))),
            Effect::Login(device) => jobs.push(ReadJob::Im(ImRead::Login(device))),
            Effect::Kick { user, client, reason, notice } => {
                for (worker, receivers) in self.inbox(&user) {
                    let (client, notice) = (client.clone(), notice.clone());
                    self.then[worker].push(Mail::Im(ImMail::Kick {
                        receivers,
                        client,
                        reason,
                        notice,
                    }));
                }
            }
        }
    }

    /// An entry of a conversation's log is on disk: its members hear of it, and push does.
    fn committed(&mut self, entry: &Arc<Entry>, big: bool) {
        let tenant = entry.conv.tenant();
        let topics: SmallVec<[String; 2]> = match entry.conv.pair_users() {
            Some((low, high)) if low == high => [inbox_topic(tenant, low)].into_iter().collect(),
            Some((low, high)) => {
                [inbox_topic(tenant, low), inbox_topic(tenant, high)].into_iter().collect()
            }
            None => [conv_topic(&entry.conv)].into_iter().collect(),
        };
        let topics: SmallVec<[&str; 2]> = topics.iter().map(String::as_str).collect();
        self.entry(&topics, entry, big);
        if matches!(entry.kind, EntryKind::Recall | EntryKind::Burn) {
            let left = left_topic(&entry.conv);
            let whom = [&topics[..], &[&left]].concat();
            for (worker, receivers) in by_worker(&self.env, &whom) {
                let entry = entry.clone();
                self.first[worker].push(Mail::Im(ImMail::Forget { entry, receivers }));
            }
        }
        if let Some(push) = self.env.im.push() {
            push.entry(entry);
        }
    }

    /// A conversation in a user's list has changed: the devices listen to it, or no longer. They do
    /// not begin to when the conversation has let go of the user since, of which the list is told
    /// next; they hear of the change all the same.
    fn listed(&self, user: User, conv: ConvKey, row: hoopoe_im::rows::UserConv) -> ReadJob {
        let row = Box::new(row);
        let mut listening = Vec::new();
        if conv.kind() != ConvKind::User {
            let listen = || self.listen(&user, &conv_topic(&conv), row.is_current());
            let now_listen = self.env.im.departures.listed(&user, &conv, &row, listen);
            listening = now_listen.unwrap_or_default();
            if let Some(push) = self.env.im.push() {
                push.listed(&conv);
            }
        }
        ReadJob::Im(ImRead::Listed { user, conv, row, listening })
    }

    fn inbox(&self, user: &User) -> SmallVec<[OfWorker; 2]> {
        by_worker(&self.env, &[&inbox_topic(&user.tenant, &user.id)])
    }

    fn answer(&mut self, asker: Asker, answer: Answer) {
        match asker {
            Asker::Nobody => {}
            Asker::Connection(reply) => {
                let mail = Mail::Im(ImMail::Answer { reply, answer });
                self.then[reply.location.worker()].push(mail);
            }
            Asker::Http(number) => self.env.im.answer_http(number, Reply::Answer(answer)),
        }
    }

    fn entry(&mut self, topics: &[&str], entry: &Arc<Entry>, big: bool) {
        for (worker, receivers) in by_worker(&self.env, topics) {
            let entry = entry.clone();
            self.mail[worker].push(Mail::Im(ImMail::Entry { entry, big, receivers }));
        }
    }

    /// A plain QoS 0 publication to all devices of a user.
    fn notice(&mut self, user: &User, topic: &str, payload: &[u8]) {
        let workers = self.inbox(user);
        if workers.is_empty() {
            return;
        }
        let publication = Arc::new(system_publication(topic, payload));
        for (worker, receivers) in workers {
            let delivery = Delivery {
                publication: publication.clone(),
                receivers: receivers.iter().map(|at| at_most_once(*at)).collect(),
                publisher: 0,
            };
            self.mail[worker].push(Mail::Deliver(delivery));
        }
    }

    /// A signal goes to the other user's devices, or to the group's but for the sender's.
    fn signal(&mut self, signal: &SendSignal) {
        let SendSignal { conv, from, location, kind, properties, payload, .. } = signal;
        let (name, topic) = match conv.pair_users() {
            Some(_) => {
                let peer = conv.peer_of(&from.id);
                (format!("u/{}", from.id), inbox_topic(conv.tenant(), peer))
            }
            None => (format!("g/{}", conv.id()), conv_topic(conv)),
        };
        let workers = by_worker(&self.env, &[&topic]);
        if workers.is_empty() {
            return;
        }
        let topic = format!("im/me/sig/{name}/{}/{kind}", from.id);
        let parts = PublicationParts {
            topic: &topic,
            properties,
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at_ms: None,
        };
        let publication = Arc::new(parts.to_publication());
        for (worker, receivers) in workers {
            let others = receivers.iter().filter(|at| *at != location);
            let delivery = Delivery {
                publication: publication.clone(),
                receivers: others.map(|at| at_most_once(*at)).collect(),
                publisher: 0,
            };
            self.mail[worker].push(Mail::Deliver(delivery));
        }
    }

    /// The user's devices listen to a group or channel, or no longer. Gives those that do now.
    fn listen(&self, user: &User, topic: &str, listens: bool) -> Vec<Location> {
        let mut listening = Vec::new();
        for (_, receivers) in self.inbox(user) {
            for location in receivers.iter() {
                if listens {
                    self.env.im.reach.insert(topic, location.to_bits(), *location);
                    listening.push(*location);
                } else {
                    self.env.im.reach.remove(topic, location.to_bits());
                }
            }
        }
        listening
    }

    /// The user's devices hear no more of a conversation but for recalls: what was read for them
    /// before may still wait for room (ruling 24).
    fn leave(&mut self, user: &User, conv: &ConvKey) {
        self.listen(user, &conv_topic(conv), false);
        let topic = left_topic(conv);
        for (worker, receivers) in self.inbox(user) {
            for location in receivers.iter() {
                self.env.im.reach.insert(&topic, location.to_bits(), *location);
            }
            let conv = conv.clone();
            self.mail[worker].push(Mail::Im(ImMail::Left { receivers, conv }));
        }
    }

    /// Nobody must wait for what may or may not have happened (ruling 12).
    pub fn lose(&mut self, askers: Vec<Asker>) {
        for asker in askers {
            match asker {
                Asker::Nobody => {}
                Asker::Connection(reply) => {
                    let reason = hoopoe_codec::ReasonCode::ServerUnavailable;
                    let worker = reply.location.worker();
                    self.mail[worker].push(Mail::TakenOver { location: reply.location, reason });
                    // A connection that is leaving hands its session back when nothing is owed.
                    let code = hoopoe_codec::ReasonCode::UnspecifiedError;
                    self.then[worker].push(Mail::Committed { reply, code });
                }
                // Dropping the sender tells the waiting request.
                Asker::Http(number) => self.env.im.forget_http(number),
            }
        }
    }
}

/// A publication of the profile itself.
pub fn system_publication(topic: &str, payload: &[u8]) -> hoopoe_core::Publication {
    PublicationParts {
        topic,
        properties: &[],
        payload,
        qos: QoS::AtMostOnce,
        retain: false,
        expires_at_ms: None,
    }
    .to_publication()
}

fn at_most_once(location: Location) -> TransientReceiver {
    TransientReceiver {
        location,
        subscriber: location.to_bits(),
        terms: Terms {
            qos: QoS::AtMostOnce,
            retain_as_published: false,
            identifiers: SmallVec::new(),
        },
        own: None,
    }
}
