//! The IM profile at run time: what all threads share of it, and how its effects are carried out.
//!
//! The rules are in the package `hoopoe-im`. Here: who is reachable under which internal topic
//! ([`ImNode::reach`]), the HTTP calls that wait for an answer, and the carrying of a commit's
//! effects to workers, readers and other shards.

mod departures;
mod effects;
pub mod hook;
mod mail;
pub mod overload;
pub mod push;
mod reader;
pub mod rooms;
pub mod sites;
mod space;

pub use effects::{ImEffects, system_publication};
pub use mail::{ImMail, ImRead, Page};
pub use reader::read;
pub use space::LogSpace;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use hoopoe_core::Location;
use hoopoe_core::index::Index;
use hoopoe_im::effect::Answer;
use hoopoe_im::id::MessageId;
use hoopoe_im::overload::Shed;
use hoopoe_im::refusal::Refusal;
use hoopoe_im::room::{Caller, KeepRoom, room_call};
use hoopoe_im::service::query::Found;
use hoopoe_im::service::{Call, Op};
use hoopoe_im::user::pace::Pace;
use hoopoe_im::{Asker, Command, Heads, ImSettings, User};
use tokio::sync::oneshot;

use crate::clock::now_ms;
use crate::fabric::{Fabric, Mail, Mailbox};
use crate::telemetry::ImGauges;
use departures::Departures;
use hook::Hook;
use overload::Overload;
use push::PushHook;
use rooms::{Rooms, Served};
use sites::SiteNode;

/// HTTP calls that may wait for an answer.
const MOST_HTTP_CALLS: usize = 4_096;

/// A call that makes a token gets one that was drawn for it. Without random numbers it stays
/// without, and is refused.
fn mint_if_asked(op: &mut Op) {
    if let Op::TokensCreate(create) = op {
        create.minted = crate::access::mint()
            .inspect_err(|error| tracing::error!(%error, "no token could be drawn"))
            .ok();
    }
}

/// Draws what a request leaves to the broker: a token, the id of a group or channel.
pub fn complete(op: &mut Op) {
    mint_if_asked(op);
    hoopoe_im::service::complete(op, || {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).ok()?;
        Some(MessageId(u64::from_le_bytes(random)))
    });
}

/// An id for what is created without one.
fn fresh_id() -> Option<String> {
    let mut random = [0u8; 10];
    getrandom::fill(&mut random).ok()?;
    Some(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Users whose pace is remembered; beyond it those who have not sent lately are forgotten.
const MOST_PACES: usize = 1 << 18;
/// Users named in a call that count as a message more.
const USERS_FOR_ONE: usize = 10;

/// What an HTTP call gets.
#[derive(Debug)]
pub enum Reply {
    /// From a shard.
    Answer(Answer),
    /// From a reader.
    Found(Box<Found>),
}

/// What all threads share of the profile.
pub struct ImNode {
    /// Limits and choices.
    pub settings: ImSettings,
    /// Connected devices by internal topic: of a user, a group or channel, a room.
    pub reach: Index<Location>,
    /// Live rooms.
    pub rooms: Rooms,
    /// Who has left a moment ago.
    pub departures: Departures,
    /// Where the conversations used lately stand.
    pub heads: Arc<Heads>,
    /// What retention has left to be given back.
    pub space: LogSpace,
    /// What is given up while there is too much.
    pub overload: Overload,
    /// How fast users send, and signal, by the hash of tenant and user.
    sends: DashMap<u64, Pace>,
    signals: DashMap<u64, Pace>,
    http: DashMap<u64, Waiter>,
    next_http: AtomicU64,
    hook: OnceLock<Hook>,
    push: OnceLock<PushHook>,
    sites: Option<Arc<SiteNode>>,
}

/// Who waits outside the broker's connections.
enum Waiter {
    /// An HTTP request.
    Http(oneshot::Sender<Reply>),
    /// A call of another site, by its number there.
    Site(Arc<str>, u64),
}

impl Waiter {
    fn is_gone(&self) -> bool {
        matches!(self, Waiter::Http(waiting) if waiting.is_closed())
    }
}

impl ImNode {
    /// Nobody is connected yet.
    pub fn new(
        settings: ImSettings,
        rooms: Rooms,
        shards: u16,
        workers: &[Arc<Mailbox<Mail>>],
    ) -> ImNode {
        let sites = settings.sites.clone();
        let sites = sites.map(|rules| Arc::new(SiteNode::new(rules, shards, workers.to_vec())));
        if let Some(sites) = &sites {
            rooms.join_sites(sites.clone());
        }
        ImNode {
            overload: Overload::new(settings.overload.clone(), shards),
            sites,
            settings,
            reach: Index::new(),
            departures: Departures::default(),
            rooms,
            heads: Arc::default(),
            space: LogSpace::new(shards),
            sends: DashMap::new(),
            signals: DashMap::new(),
            http: DashMap::new(),
            next_http: AtomicU64::new(1),
            hook: OnceLock::new(),
            push: OnceLock::new(),
        }
    }

    /// Whether a user may send a message, or an operation on one, now (ruling 37).
    pub fn may_send(&self, now_ms: u64, user: &User) -> bool {
        let ImSettings { send_rate, send_burst, .. } = self.settings;
        take(&self.sends, 1, (send_rate, send_burst), now_ms, user)
    }

    /// Whether a user may make a call now. One that changes something counts as a message, and one
    /// that names many users as one for each ten of them more.
    pub fn may_call(&self, now_ms: u64, user: &User, op: &Op) -> bool {
        let ImSettings { send_rate, send_burst, .. } = self.settings;
        let cost = u32::try_from(1 + op.users_named() / USERS_FOR_ONE).unwrap_or(u32::MAX);
        !op.writes() || take(&self.sends, cost, (send_rate, send_burst), now_ms, user)
    }

    /// Whether a user may signal now.
    pub fn may_signal(&self, now_ms: u64, user: &User) -> bool {
        let rate = self.settings.signal_rate;
        take(&self.signals, 1, (rate, rate), now_ms, user)
    }

    /// Makes a call for somebody who waits over HTTP; `None` when too many wait.
    pub fn call(&self, fabric: &Fabric, mut call: Call) -> Option<oneshot::Receiver<Reply>> {
        let (asker, receiver) = self.wait()?;
        call.asker = asker;
        complete(&mut call.op);
        let caller = &call.caller;
        let refusal = if matches!(call.op, Op::SyncPull(_)) && self.overload.sheds(Shed::Pulls) {
            Some(overloaded())
        } else if !caller.privileged && !self.may_call(now_ms(), &caller.user, &call.op) {
            Some(too_fast())
        } else {
            None
        };
        if let Some(refusal) = refusal {
            if let Asker::Http(number) = asker {
                self.answer_http(number, Reply::Answer(Answer::Refused(refusal)));
            }
            return Some(receiver);
        }
        if let Some(answer) = self.call_room(fabric, now_ms(), &call) {
            if let (Asker::Http(number), Some(answer)) = (asker, answer) {
                self.answer_http(number, Reply::Answer(answer));
            }
            return Some(receiver);
        }
        self.put_call(fabric, call);
        Some(receiver)
    }

    /// Puts a call before its shard.
    pub fn put_call(&self, fabric: &Fabric, call: Call) {
        let slot = call.slot();
        let call = Box::new(call);
        let command = if call.op.writes() { Command::Call(call) } else { Command::Read(call) };
        fabric.shards[fabric.shard_of(slot)].put(command.into());
    }

    /// Rooms are ruled where they live.
    ///
    /// # Errors
    /// When that is another site.
    fn check_room_home(&self, tenant: &str, room: &str) -> Result<(), Refusal> {
        let site = self.sites().and_then(|sites| sites.rules().foreign_room(tenant, room));
        match site {
            None => Ok(()),
            Some(site) => {
                let text = format!("this room lives at site {site}");
                Err(Refusal::not_allowed(text))
            }
        }
    }

    /// Says something to another site, if there are any.
    pub fn say_to_site(&self, site: &str, frame: &bytes::Bytes) {
        if let Some(sites) = self.sites() {
            sites.say(site, frame);
        }
    }

    /// The other sites, when there are any.
    pub fn sites(&self) -> Option<&Arc<SiteNode>> {
        self.sites.as_ref()
    }

    /// Carries a call to the site where it is judged, for somebody who waits over HTTP. `None`:
    /// it is judged here.
    ///
    /// # Errors
    /// When it cannot be carried there.
    pub fn call_elsewhere(
        &self,
        call: &Call,
        name: &str,
        body: &[u8],
    ) -> Option<Result<oneshot::Receiver<Reply>, Refusal>> {
        let sites = self.sites()?;
        let site = sites.home_of_call(call)?;
        let Some((asker, receiver)) = self.wait() else {
            let text = "too many calls wait";
            return Some(Err(Refusal::new(hoopoe_im::refusal::Word::Unavailable, text)));
        };
        let asked = sites.ask(site, &call.caller, name, body, asker);
        if let (Err(_), Asker::Http(number)) = (&asked, asker) {
            self.forget_http(number);
        }
        Some(asked.map(|()| receiver))
    }

    /// Carries out a call to the service `room`, which is answered here or, when it has changed a
    /// row, once that is stored (the inner `None`). The outer `None`: it is for another service.
    pub fn call_room(&self, fabric: &Fabric, now_ms: u64, call: &Call) -> Option<Option<Answer>> {
        let (id, asked) = match room_call(&call.op)? {
            Ok(asked) => asked,
            Err(refusal) => return Some(Some(Answer::Refused(refusal))),
        };
        let user = &call.caller.user;
        // An id that is drawn lives where everything lives that no rule names.
        if let Err(refusal) = self.check_room_home(&user.tenant, id.as_deref().unwrap_or("")) {
            return Some(Some(Answer::Refused(refusal)));
        }
        let caller = Caller { user: &user.id, admin: call.caller.privileged };
        let served =
            self.rooms.serve(now_ms, &user.tenant, caller, (id.as_deref(), asked), fresh_id);
        let Served { room, answer, store } = match served {
            Ok(served) => served,
            Err(refusal) => return Some(Some(Answer::Refused(refusal))),
        };
        let Some(row) = store else { return Some(Some(Answer::Value(answer))) };
        let (tenant, room) = ((&*user.tenant).into(), (&*room).into());
        let keep = KeepRoom { tenant, room, row, answer, asker: call.asker };
        fabric.shards[fabric.shard_of(keep.slot())].put(Command::KeepRoom(Box::new(keep)).into());
        Some(None)
    }

    /// Content is judged by this from now on.
    pub fn set_hook(&self, hook: Hook) {
        // Set once, at the start.
        let _ = self.hook.set(hook);
    }

    /// Who judges content, if somebody does.
    pub fn hook(&self) -> Option<&Hook> {
        self.hook.get()
    }

    /// Users are pushed to by this from now on.
    pub fn set_push(&self, push: PushHook) {
        // Set once, at the start.
        let _ = self.push.set(push);
    }

    /// Who pushes to users, if somebody does.
    pub fn push(&self) -> Option<&PushHook> {
        self.push.get()
    }

    /// What retention and pushes have come to.
    pub fn gauges(&self) -> ImGauges {
        let entries_taken = self.space.entries_taken();
        let (overload_level, shed) = self.overload.counts();
        let Some(counts) = self.push().map(PushHook::counts) else {
            return ImGauges { entries_taken, overload_level, shed, ..ImGauges::default() };
        };
        ImGauges {
            entries_taken,
            overload_level,
            shed,
            pushes_sent: counts.sent.load(Ordering::Relaxed),
            pushes_failed: counts.failed.load(Ordering::Relaxed),
            pushes_given_up: counts.given_up.load(Ordering::Relaxed),
            pushes_waiting: counts.waiting(),
        }
    }

    /// A place to wait for an answer; `None` when too many wait.
    pub fn wait(&self) -> Option<(Asker, oneshot::Receiver<Reply>)> {
        let (sender, receiver) = oneshot::channel();
        let asker = self.wait_as(Waiter::Http(sender))?;
        Some((asker, receiver))
    }

    /// A place for another site to wait for an answer; `None` when too many wait.
    pub fn wait_for_site(&self, site: &Arc<str>, number: u64) -> Option<Asker> {
        self.wait_as(Waiter::Site(site.clone(), number))
    }

    fn wait_as(&self, waiter: Waiter) -> Option<Asker> {
        if self.http.len() >= MOST_HTTP_CALLS {
            // Whoever has gone away makes room.
            self.http.retain(|_, waiting| !waiting.is_gone());
            if self.http.len() >= MOST_HTTP_CALLS {
                return None;
            }
        }
        let number = self.next_http.fetch_add(1, Ordering::Relaxed);
        self.http.insert(number, waiter);
        Some(Asker::Http(number))
    }

    /// An HTTP call will not be answered.
    pub fn forget_http(&self, number: u64) {
        self.http.remove(&number);
    }

    /// Answers an HTTP call.
    pub fn answer_http(&self, number: u64, reply: Reply) {
        match self.http.remove(&number) {
            // Nobody waits any more: nothing to be told.
            Some((_, Waiter::Http(waiting))) => drop(waiting.send(reply)),
            Some((_, Waiter::Site(site, number))) => {
                if let Some(sites) = self.sites() {
                    sites.answer(&site, number, reply);
                }
            }
            None => {}
        }
    }
}

/// What whoever asks for something that is given up is told.
pub fn overloaded() -> Refusal {
    Refusal::limit("the broker is overloaded and gives this up for a while: try again later")
}

/// What who sends or changes more than the rate allows is told.
pub fn too_fast() -> Refusal {
    Refusal::limit("more per second than a user may send")
}

/// Whether a service at this address can be asked: who may sign for it can be read.
///
/// # Errors
/// When the file with the authorities cannot be used.
pub fn check_service(url: &str, authorities: Option<&Path>) -> anyhow::Result<()> {
    hook::exchange::Service::new(url, authorities, None, Duration::ZERO).map(drop)
}

/// One token of a user's bucket.
fn take(
    paces: &DashMap<u64, Pace>,
    cost: u32,
    (per_sec, burst): (u32, u32),
    now_ms: u64,
    user: &User,
) -> bool {
    if paces.len() >= MOST_PACES {
        paces.retain(|_, pace| !pace.is_full(per_sec, burst, now_ms));
    }
    let key = [user.tenant.as_bytes(), &[0], user.id.as_bytes()];
    let hash = key.iter().fold(0, |hash, part| xxhash_rust::xxh3::xxh3_64_with_seed(part, hash));
    let mut pace = paces.entry(hash).or_insert_with(|| Pace::new(burst, now_ms));
    pace.take_many(cost, per_sec, burst, now_ms)
}
