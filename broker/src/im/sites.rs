//! The other sites, as this broker reaches them: publications of QoS 0 below `$hoopoe/site/`, which
//! links alone may send and hear.
//!
//! A link carries `$hoopoe/site/{to}/{from}`; what it loses is said again by the lines of
//! `hoopoe-im`, which own what is owed. Here: which site is heard, who may speak for which, and
//! the service calls that wait for another site's answer.

mod peer;

pub use peer::{Peer, SiteCounts, SiteRates, SiteReport, SiteState};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use hoopoe_im::command::Command;
use hoopoe_im::id::{ConvKey, is_id};
use hoopoe_im::refusal::{Refusal, Word};
use hoopoe_im::room::room_call;
use hoopoe_im::service::{Call, Caller, parse};
use hoopoe_im::site::Sites;
use hoopoe_im::site::line::{SiteLetter, SiteNews};
use hoopoe_im::site::owing::Owed;
use hoopoe_im::site::wire::{Frame, RemoteCall};
use hoopoe_im::{Answer, Asker, User};

use super::{ImMail, Reply, system_publication};
use crate::clock::now_ms;
use crate::connection::Env;
use crate::fabric::{Mail, Mailbox, WORKER_MAIL_HIGH};

/// What stands before every topic between sites.
const TREE: &str = "$hoopoe/site/";
/// How often a site says that it is there.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Silence after which a site is not reached.
const SILENCE_MS: u64 = 3_500;
/// How long a call waits for another site's answer.
const CALL_MS: u64 = 10_000;
/// Calls that may wait.
const MOST_CALLS: usize = 4_096;
/// How long somebody who wants to come into a room waits for its home.
const ENTER_MS: u64 = 5_000;
/// Those who may wait for that. A crowd beyond it comes in unasked.
const MOST_ENTERING: usize = MOST_CALLS / 2;
/// The call by which a site asks whether a user may come into a room; the body is the room's id.
const ENTER: &str = "room/enter";

/// A call that waits for another site.
struct Waiting {
    asker: Asker,
    site: Arc<str>,
    until_ms: u64,
}

/// The other sites.
pub struct SiteNode {
    rules: Arc<Sites>,
    hash: u64,
    peers: Box<[Peer]>,
    calls: DashMap<u64, Waiting>,
    next_call: AtomicU64,
    workers: Vec<Arc<Mailbox<Mail>>>,
}

/// What a topic between sites says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SiteTopic<'a> {
    /// For whom; in a filter of a link, itself.
    pub to: &'a str,
    /// By whom; a wildcard in a filter.
    pub from: &'a str,
}

/// The two ends in a topic or filter between sites.
pub fn site_topic(topic: &str) -> Option<SiteTopic<'_>> {
    let (to, from) = topic.strip_prefix(TREE)?.split_once('/')?;
    Some(SiteTopic { to, from })
}

/// Whether a topic or filter lies below what links alone may use.
pub fn is_site_tree(topic: &str) -> bool {
    topic.starts_with(TREE)
}

impl SiteNode {
    /// Nobody was heard yet.
    pub fn new(rules: Arc<Sites>, shards: u16, workers: Vec<Arc<Mailbox<Mail>>>) -> SiteNode {
        let now_ms = now_ms();
        let peers = rules.peers().into_iter().enumerate().map(|(number, site)| {
            let topic = format!("{TREE}{site}/{}", rules.id);
            Peer::new(site, topic, number % workers.len().max(1), shards, now_ms)
        });
        SiteNode {
            hash: rules.rules_hash(),
            peers: peers.collect(),
            rules,
            calls: DashMap::new(),
            next_call: AtomicU64::new(1),
            workers,
        }
    }

    /// The rules that all sites share.
    pub fn rules(&self) -> &Arc<Sites> {
        &self.rules
    }

    /// The other sites.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// The other site of that name.
    pub fn peer(&self, site: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| *peer.site == *site)
    }

    /// Whether a link of the site `of` may publish to a topic. `None`: a link of this broker's
    /// own, which may speak for every site.
    pub fn may_publish(&self, of: Option<&str>, topic: &str) -> bool {
        let Some(SiteTopic { to, from }) = site_topic(topic) else { return false };
        *to == *self.rules.id && self.peer(from).is_some() && of.is_none_or(|of| of == from)
    }

    /// Whether a link of the site `of` may subscribe to a filter.
    pub fn may_subscribe(&self, of: Option<&str>, filter: &str) -> bool {
        let Some(SiteTopic { to, .. }) = site_topic(filter) else { return false };
        self.peer(to).is_some() && of.is_none_or(|of| of == to)
    }

    /// Says something to another site, by way of the link that listens for it.
    pub fn say(&self, site: &str, frame: &Bytes) {
        let Some(peer) = self.peer(site).filter(|peer| !peer.is_paused()) else { return };
        let Some(worker) = self.workers.get(peer.worker) else { return };
        if worker.len() > WORKER_MAIL_HIGH {
            return peer.count_dropped();
        }
        peer.count_out(frame.len());
        worker.put(Mail::System(Arc::new(system_publication(&peer.topic, frame))));
    }

    /// The site where a conversation lives that is not this one.
    pub fn foreign(&self, conv: &ConvKey) -> Option<Arc<str>> {
        self.rules.foreign(conv).cloned()
    }

    /// The other site where a call is judged, if it is one.
    pub fn home_of_call(&self, call: &Call) -> Option<Arc<str>> {
        if let Some(conv) = call.conv() {
            return self.foreign(&conv);
        }
        // What is wrong with a call is said here; a room without an id gets one at the home of
        // everything that no rule names.
        let (room, _) = room_call(&call.op)?.ok()?;
        let tenant = &call.caller.user.tenant;
        self.rules.foreign_room(tenant, room.as_deref().unwrap_or("")).cloned()
    }

    /// Carries a service call to the site where it is judged. A refusal comes at once.
    ///
    /// # Errors
    /// When the site is not reached, or too many calls wait.
    pub fn ask(
        &self,
        site: Arc<str>,
        caller: &Caller,
        name: &str,
        body: &[u8],
        asker: Asker,
    ) -> Result<(), Refusal> {
        let unavailable = |text: String| Refusal::new(Word::Unavailable, text);
        if !self.peer(&site).is_some_and(Peer::is_up) {
            return Err(unavailable(format!("site {site}, where this lives, is not reached")));
        }
        if self.calls.len() >= MOST_CALLS {
            return Err(unavailable("too many calls wait for other sites".to_owned()));
        }
        self.call(site, caller, (name, body), (asker, CALL_MS));
        Ok(())
    }

    fn call(
        &self,
        site: Arc<str>,
        caller: &Caller,
        (name, body): (&str, &[u8]),
        (asker, wait_ms): (Asker, u64),
    ) {
        let number = self.next_call.fetch_add(1, Ordering::Relaxed);
        let until_ms = now_ms() + wait_ms;
        self.calls.insert(number, Waiting { asker, site: site.clone(), until_ms });
        let call = RemoteCall {
            number,
            user: caller.user.clone(),
            device: caller.device.clone(),
            privileged: caller.privileged,
            name: name.to_owned(),
            body: Bytes::copy_from_slice(body),
        };
        self.say(&site, &Frame::Call(call).encode());
    }

    /// Asks a room's home whether a user may come in. False: so many ask that nobody else waits.
    pub fn ask_to_enter(
        &self,
        home: Arc<str>,
        (user, device): (User, Arc<str>),
        room: &str,
        asker: Asker,
    ) -> bool {
        if self.calls.len() >= MOST_ENTERING {
            return false;
        }
        let caller = Caller { user, device, privileged: false };
        self.call(home, &caller, (ENTER, room.as_bytes()), (asker, ENTER_MS));
        true
    }

    /// A call of another site has been carried out here.
    pub fn answer(&self, site: &str, number: u64, reply: Reply) {
        let result = match reply {
            Reply::Answer(Answer::Value(value)) => Ok(value),
            Reply::Answer(Answer::Refused(refusal)) => Err(refusal),
            Reply::Answer(_) => Ok(serde_json::json!({})),
            Reply::Found(found) => Ok(found.value),
        };
        self.say(site, &Frame::Answer { number, result }.encode());
    }

    /// A publication of the site `from`. Gives what is for a shard.
    pub fn arrived(&self, env: &Env, from: &str, payload: &[u8], now_ms: u64) -> Option<Command> {
        let peer = self.peer(from).filter(|peer| !peer.is_paused())?;
        peer.count_in(payload.len());
        let frame = match Frame::decode(payload) {
            Ok(frame) => frame,
            Err(what) => {
                tracing::warn!(site = from, what, "not understood");
                peer.went_wrong(now_ms, &format!("a frame is not understood: {what}"));
                return None;
            }
        };
        match frame {
            Frame::Alive { rules, hears } => self.alive(env, peer, rules, hears, now_ms),
            Frame::Call(call) => self.called(env, peer, call),
            Frame::Answer { number, result } => self.answered(env, peer, number, result),
            Frame::Room(room) => {
                env.im.rooms.from_site(&env.im.overload, now_ms, &peer.site, *room)
            }
            frame => {
                let news = SiteNews::Frame(Box::new(frame));
                return Some(Command::Site(Box::new(SiteLetter { site: peer.site.clone(), news })));
            }
        }
        None
    }

    fn alive(&self, env: &Env, peer: &Peer, rules: u64, hears: bool, now_ms: u64) {
        let site = &*peer.site;
        if rules != self.hash {
            peer.went_wrong(now_ms, "its home rules are others");
            if !peer.differs.swap(true, Ordering::Relaxed) {
                tracing::error!(site, "its home rules are others: nothing is exchanged with it");
            }
            return;
        }
        peer.differs.store(false, Ordering::Relaxed);
        peer.heard_ms.store(now_ms, Ordering::Release);
        if hears {
            self.set_up(env, peer, true, now_ms);
        }
    }

    fn set_up(&self, env: &Env, peer: &Peer, up: bool, now_ms: u64) {
        let Some(before_ms) = peer.set_up(up, now_ms) else { return };
        let owed = peer.report(now_ms).owed.numbers;
        if up {
            tracing::info!(site = %peer.site, owed, down_ms = before_ms, "reached");
        } else {
            tracing::warn!(site = %peer.site, owed, up_ms = before_ms, "not reached any more");
        }
        for shard in &env.fabric.shards {
            let (site, news) = (peer.site.clone(), SiteNews::Link { up });
            shard.put(Command::Site(Box::new(SiteLetter { site, news })).into());
        }
        env.im.rooms.site_is(&peer.site, up, now_ms);
        if !up {
            self.give_up(env, |waiting| waiting.site == peer.site);
        }
    }

    /// Another site's user calls a service for something that lives here.
    fn called(&self, env: &Env, peer: &Peer, call: RemoteCall) {
        let RemoteCall { number, user, device, privileged, name, body } = call;
        let refuse = |refusal| {
            self.answer(&peer.site, number, Reply::Answer(Answer::Refused(refusal)));
        };
        if !privileged && *self.rules.home_of_user(&user.tenant, &user.id) != peer.site {
            return refuse(Refusal::not_allowed(format!("{} lives elsewhere", user.id)));
        }
        if name == ENTER {
            let judged = self.may_enter(env, &user, &body);
            let answer = judged.map_or_else(Answer::Refused, |()| Answer::Done);
            return self.answer(&peer.site, number, Reply::Answer(answer));
        }
        let (service, op) = name.split_once('/').unwrap_or((&name, ""));
        let mut op = match parse(service, op, &body) {
            Ok(op) => op,
            Err(refusal) => return refuse(refusal),
        };
        super::complete(&mut op);
        let caller = Caller { user, device, privileged };
        let call = Call { caller, op, asker: Asker::Nobody };
        let is_of_room = room_call(&call.op).is_some();
        if (call.conv().is_none() && !is_of_room) || self.home_of_call(&call).is_some() {
            return refuse(Refusal::conflict("this does not live here"));
        }
        let Some(asker) = env.im.wait_for_site(&peer.site, number) else {
            return refuse(Refusal::new(Word::Unavailable, "too many calls wait"));
        };
        let call = Call { asker, ..call };
        match env.im.call_room(&env.fabric, now_ms(), &call) {
            None => env.im.put_call(&env.fabric, call),
            Some(Some(answer)) => tell(env, asker, answer),
            // It is answered once the room is stored.
            Some(None) => {}
        }
    }

    /// Whether another site's user may come into a room that lives here.
    fn may_enter(&self, env: &Env, user: &User, room: &[u8]) -> Result<(), Refusal> {
        let room = std::str::from_utf8(room).ok().filter(|room| is_id(room));
        let room = room.ok_or_else(|| Refusal::bad_request("not the id of a room"))?;
        if self.rules.foreign_room(&user.tenant, room).is_some() {
            return Err(Refusal::conflict("this does not live here"));
        }
        env.im.rooms.may_join(now_ms(), &user.tenant, room, &user.id)
    }

    fn answered(
        &self,
        env: &Env,
        peer: &Peer,
        number: u64,
        result: Result<serde_json::Value, Refusal>,
    ) {
        let waiting = self.calls.remove_if(&number, |_, waiting| waiting.site == peer.site);
        if let Some((_, waiting)) = waiting {
            let answer = result.map_or_else(Answer::Refused, Answer::Value);
            tell(env, waiting.asker, answer);
        }
    }

    /// Pauses the line to a site: nothing passes, what is owed waits. Or lets it go on. False when
    /// there is no such site.
    pub fn pause(&self, env: &Env, site: &str, paused: bool) -> bool {
        let Some(peer) = self.peer(site) else { return false };
        let now_ms = now_ms();
        if peer.set_paused(paused, now_ms) {
            tracing::info!(site, paused, "an operator's word");
        }
        if paused {
            peer.heard_ms.store(0, Ordering::Release);
            self.set_up(env, peer, false, now_ms);
        }
        true
    }

    /// What a shard owes a site.
    pub fn note_owed(&self, site: &str, shard: u16, owed: Owed) {
        if let Some(peer) = self.peer(site) {
            peer.note_owed(shard, owed);
        }
    }

    /// How the lines to the other sites are doing.
    pub fn reports(&self) -> Vec<(&str, SiteReport)> {
        let now_ms = now_ms();
        self.peers.iter().map(|peer| (&*peer.site, peer.report(now_ms))).collect()
    }

    /// Says that this site is there, and sees who is not heard any more.
    fn tick(&self, env: &Env, now_ms: u64) {
        for peer in &self.peers {
            let hears = peer.heard_ms.load(Ordering::Acquire) + SILENCE_MS > now_ms;
            self.say(&peer.site, &Frame::Alive { rules: self.hash, hears }.encode());
            if !hears && peer.is_up() {
                peer.went_wrong(now_ms, &format!("not heard for {SILENCE_MS} ms"));
                self.set_up(env, peer, false, now_ms);
            }
            peer.measure(now_ms);
            for shard in &env.fabric.shards {
                let (site, news) = (peer.site.clone(), SiteNews::Count);
                shard.put(Command::Site(Box::new(SiteLetter { site, news })).into());
            }
        }
        env.im.rooms.compare_with_sites(now_ms);
        self.give_up(env, |waiting| waiting.until_ms <= now_ms);
    }

    /// Calls for which no answer is waited for any more.
    fn give_up(&self, env: &Env, which: impl Fn(&Waiting) -> bool) {
        let late = self.calls.iter().filter(|waiting| which(waiting)).map(|of| *of.key());
        for number in late.collect::<Vec<u64>>() {
            if let Some((_, Waiting { asker, site, .. })) = self.calls.remove(&number) {
                let text = format!("site {site} has not answered: look whether it was done");
                let refusal = Refusal::new(Word::Unavailable, text);
                tell(env, asker, Answer::Refused(refusal));
            }
        }
    }
}

fn tell(env: &Env, asker: Asker, answer: Answer) {
    match asker {
        Asker::Nobody => {}
        Asker::Connection(reply) => {
            let mail = Mail::Im(ImMail::Answer { reply, answer });
            env.fabric.workers[reply.location.worker()].put(mail);
        }
        Asker::Http(number) => env.im.answer_http(number, Reply::Answer(answer)),
    }
}

/// Keeps the sites in touch, until it is aborted.
pub async fn keep_in_touch(env: Arc<Env>) {
    let mut rounds = tokio::time::interval(ALIVE_EVERY);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        if let Some(sites) = env.im.sites() {
            sites.tick(&env, now_ms());
        }
    }
}

#[cfg(test)]
mod tests {
    use hoopoe_im::site::{HomeRule, WhenDown};

    use super::*;

    #[test]
    fn a_link_speaks_for_its_own_site_alone() {
        let at = |site: &str| HomeRule {
            users: Some(format!("*-{site}")),
            site: site.into(),
            ..HomeRule::default()
        };
        let rules = Sites {
            id: "fra".into(),
            homes: vec![at("ny"), at("sg")],
            otherwise: "fra".into(),
            when_down: WhenDown::Hold,
            answer_ms: 1,
            held_max: 1,
            links: Vec::new(),
        };
        let node = SiteNode::new(Arc::new(rules), 1, Vec::new());
        for (of, topic, may) in [
            (Some("ny"), "$hoopoe/site/fra/ny", true),
            (None, "$hoopoe/site/fra/ny", true),
            (Some("ny"), "$hoopoe/site/fra/sg", false),
            (Some("ny"), "$hoopoe/site/sg/ny", false),
            (None, "$hoopoe/site/fra/la", false),
            (None, "$hoopoe/site/fra", false),
        ] {
            assert_eq!(node.may_publish(of, topic), may, "{of:?} to {topic}");
        }
        for (of, filter, may) in [
            (Some("ny"), "$hoopoe/site/ny/#", true),
            (Some("ny"), "$hoopoe/site/ny/+", true),
            (None, "$hoopoe/site/sg/#", true),
            (Some("ny"), "$hoopoe/site/sg/#", false),
            (Some("ny"), "$hoopoe/site/+/fra", false),
            (None, "$hoopoe/site/#", false),
        ] {
            assert_eq!(node.may_subscribe(of, filter), may, "{of:?} to {filter}");
        }
    }
}
