//! The other sites, as this broker reaches them: publications of QoS 0 below `$hoopoe/site/`, which
//! links alone may send and hear.
//!
//! A link carries `$hoopoe/site/{to}/{from}`; what it loses is said again by the lines of
//! `hoopoe-im`, which own what is owed. Here: which site is heard, who may speak for which, and
//! the service calls that wait for another site's answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use hoopoe_im::command::Command;
use hoopoe_im::id::ConvKey;
use hoopoe_im::refusal::{Refusal, Word};
use hoopoe_im::service::{Call, Caller, parse};
use hoopoe_im::site::Sites;
use hoopoe_im::site::line::{SiteLetter, SiteNews};
use hoopoe_im::site::wire::{Frame, RemoteCall};
use hoopoe_im::{Answer, Asker};

use super::{ImMail, Reply, system_publication, wall_ms};
use crate::connection::Env;
use crate::fabric::{Fabric, Mail, Mailbox, WORKER_MAIL_HIGH};

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

/// What another site is to this one.
#[derive(Debug)]
pub struct Peer {
    /// Its name.
    pub site: Arc<str>,
    /// Where what is for it is published.
    topic: String,
    /// The worker whose plans hold that topic.
    worker: usize,
    /// When it was heard last.
    heard_ms: AtomicU64,
    up: AtomicBool,
    /// Its home rules are others: said once.
    differs: AtomicBool,
    /// Frames from it.
    pub frames_in: AtomicU64,
    /// Frames to it.
    pub frames_out: AtomicU64,
    /// Frames that were left out because the worker was behind.
    pub dropped: AtomicU64,
}

impl Peer {
    /// It is heard, and hears this site.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }
}

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
    pub fn new(rules: Arc<Sites>, workers: Vec<Arc<Mailbox<Mail>>>) -> SiteNode {
        let peers = rules.peers().into_iter().enumerate().map(|(number, site)| Peer {
            topic: format!("{TREE}{site}/{}", rules.id),
            worker: number % workers.len().max(1),
            site,
            heard_ms: AtomicU64::new(0),
            up: AtomicBool::new(false),
            differs: AtomicBool::new(false),
            frames_in: AtomicU64::new(0),
            frames_out: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
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

    fn peer(&self, site: &str) -> Option<&Peer> {
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
        let Some(peer) = self.peer(site) else { return };
        let Some(worker) = self.workers.get(peer.worker) else { return };
        if worker.len() > WORKER_MAIL_HIGH {
            peer.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        peer.frames_out.fetch_add(1, Ordering::Relaxed);
        worker.put(Mail::System(Arc::new(system_publication(&peer.topic, frame))));
    }

    /// The site where a conversation lives that is not this one.
    pub fn foreign(&self, conv: &ConvKey) -> Option<Arc<str>> {
        self.rules.foreign(conv).cloned()
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
        let number = self.next_call.fetch_add(1, Ordering::Relaxed);
        let until_ms = wall_ms() + CALL_MS;
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
        Ok(())
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
        let peer = self.peer(from)?;
        peer.frames_in.fetch_add(1, Ordering::Relaxed);
        let frame = match Frame::decode(payload) {
            Ok(frame) => frame,
            Err(what) => {
                tracing::warn!(site = from, what, "not understood");
                return None;
            }
        };
        match frame {
            Frame::Alive { rules, hears } => self.alive(&env.fabric, peer, rules, hears, now_ms),
            Frame::Call(call) => self.called(env, peer, call),
            Frame::Answer { number, result } => self.answered(env, peer, number, result),
            frame => {
                let news = SiteNews::Frame(Box::new(frame));
                return Some(Command::Site(Box::new(SiteLetter { site: peer.site.clone(), news })));
            }
        }
        None
    }

    fn alive(&self, fabric: &Fabric, peer: &Peer, rules: u64, hears: bool, now_ms: u64) {
        let site = &*peer.site;
        if rules != self.hash {
            if !peer.differs.swap(true, Ordering::Relaxed) {
                tracing::error!(site, "its home rules are others: nothing is exchanged with it");
            }
            return;
        }
        peer.differs.store(false, Ordering::Relaxed);
        peer.heard_ms.store(now_ms, Ordering::Release);
        if hears {
            self.set_up(fabric, peer, true);
        }
    }

    fn set_up(&self, fabric: &Fabric, peer: &Peer, up: bool) {
        if peer.up.swap(up, Ordering::AcqRel) == up {
            return;
        }
        if up {
            tracing::info!(site = %peer.site, "reached");
        } else {
            tracing::warn!(site = %peer.site, "not reached any more");
        }
        for shard in &fabric.shards {
            let (site, news) = (peer.site.clone(), SiteNews::Link { up });
            shard.put(Command::Site(Box::new(SiteLetter { site, news })).into());
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
        let (service, op) = name.split_once('/').unwrap_or((&name, ""));
        let mut op = match parse(service, op, &body) {
            Ok(op) => op,
            Err(refusal) => return refuse(refusal),
        };
        super::complete(&mut op);
        let caller = Caller { user, device, privileged };
        let call = Call { caller, op, asker: Asker::Nobody };
        if call.conv().is_none_or(|conv| self.foreign(&conv).is_some()) {
            return refuse(Refusal::conflict("this does not live here"));
        }
        let Some(asker) = env.im.wait_for_site(&peer.site, number) else {
            return refuse(Refusal::new(Word::Unavailable, "too many calls wait"));
        };
        env.im.put_call(&env.fabric, Call { asker, ..call });
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

    /// Says that this site is there, and sees who is not heard any more.
    fn tick(&self, env: &Env, now_ms: u64) {
        for peer in &self.peers {
            let hears = peer.heard_ms.load(Ordering::Acquire) + SILENCE_MS > now_ms;
            self.say(&peer.site, &Frame::Alive { rules: self.hash, hears }.encode());
            if !hears {
                self.set_up(&env.fabric, peer, false);
            }
        }
        let late: Vec<u64> = self
            .calls
            .iter()
            .filter(|waiting| waiting.until_ms <= now_ms)
            .map(|waiting| *waiting.key())
            .collect();
        for number in late {
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
            sites.tick(&env, wall_ms());
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
        let node = SiteNode::new(Arc::new(rules), Vec::new());
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
