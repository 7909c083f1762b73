//! The task of a link: when to connect, both connections while they stand, and what operators say.
//!
//! No rule of MQTT lives here: the step ([`Link`]) decides what becomes of packets. Both connections
//! are made and given up together, so that each broker goes on where the last pair of them ended.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hoopoe_codec::{
    AckKind, Disconnect, MAX_PACKET_LEN, Packet, PacketId, QoS, ReasonCode, RetainHandling, Version,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use crate::backoff::Backoff;
use crate::conn::{Inbox, Outbox, split};
use crate::dial::{AnyWire, dial};
use crate::greeting::{
    Greeting, LocalSession, Lost, greet_local, greet_remote, subscribe, unsubscribe,
};
use crate::link::{Encoder, End, Link, LinkFault, Sink};
use crate::noted::About;
use crate::rules::Rules;
use crate::settings::{LinkSettings, Start};
use crate::status::{State, Status};

/// Time for a connection and its CONNACK.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the local broker, which has nothing to wait for but its disk.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the last bytes of a connection that ends.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that may wait for one end before the other is not read: for QoS 0, which no window bounds.
const MOST_WAITING: usize = 1 << 20;
/// How often timers are looked at, and a lazy link looks for work.
const TICK: Duration = Duration::from_millis(250);

/// The local broker as a link needs it.
pub trait LocalEnd: Send + Sync {
    /// A new connection to it, already trusted.
    ///
    /// # Errors
    /// When the system gives none.
    fn open(&self) -> std::io::Result<AnyWire>;
    /// Messages that wait for the link there.
    fn queued(&self) -> u64;
}

/// What an operator tells a link.
#[derive(Debug)]
pub enum Order {
    /// No connection until it is resumed.
    Pause(oneshot::Sender<()>),
    /// Connect, whatever the start type.
    Resume(oneshot::Sender<()>),
    /// Forget what waits to be sent. The answer comes when it is gone.
    DropQueue(oneshot::Sender<()>),
}

/// What a link's task is made of.
pub struct LinkParts {
    /// What it is told.
    pub settings: LinkSettings,
    /// The local broker.
    pub local: Arc<dyn LocalEnd>,
    /// Filters that its session had before.
    pub known_filters: Vec<String>,
    /// Where it says how it is.
    pub status: Arc<Status>,
    /// What operators say.
    pub orders: mpsc::Receiver<Order>,
    /// Told once the local session is there: from then on nothing is missed.
    pub prepared: oneshot::Sender<()>,
}

/// Why messages pass no longer.
enum Ending {
    Lost(Lost),
    Order(Order),
    /// A lazy link has nothing to do.
    Idle,
    /// The local broker ends.
    Over,
}

/// Ends the local session of a link that is no more, and with it what waited.
///
/// # Errors
/// What the local broker says.
pub async fn forget(name: &str, local: &dyn LocalEnd) -> Result<(), Lost> {
    let (mut inbox, mut outbox) = split(local.open()?, MAX_PACKET_LEN as u32);
    let asked = LocalSession { window: 1, anew: true, ends: true, ..LocalSession::default() };
    let greeted = greet_local(name, asked, (&mut inbox, &mut outbox));
    timeout(LOCAL_TIMEOUT, greeted).await.unwrap_or(Err(Lost::Late(End::Local)))?;
    outbox.end().await?;
    Ok(())
}

/// Runs a link until the future is dropped, or nobody can give orders any more.
pub async fn run(parts: LinkParts) {
    let LinkParts { settings, local, known_filters, status, orders, prepared } = parts;
    let seed = now_ms() ^ (settings.name.len() as u64) << 48 ^ u64::from(std::process::id());
    let rules = Rules::new(&settings.rules);
    let mut task = LinkTask {
        backoff: Backoff::new(settings.backoff_min, settings.backoff_max, seed),
        wanted: Wanted::new(&settings, &rules, &known_filters),
        rules,
        settings,
        local,
        status,
        orders,
    };
    task.prepare(&known_filters).await;
    let _ = prepared.send(());
    task.run().await;
}

struct LinkTask {
    settings: LinkSettings,
    rules: Rules,
    local: Arc<dyn LocalEnd>,
    status: Arc<Status>,
    orders: mpsc::Receiver<Order>,
    backoff: Backoff,
    wanted: Wanted,
}

/// What the sessions at both brokers are to have.
struct Wanted {
    outward: Vec<(String, QoS)>,
    inward: Vec<(String, QoS)>,
    /// What the remote session may still have, although no rule asks for it any more.
    gone: Vec<String>,
    /// Of `outward`, where what is retained has yet to come into the queue. (The broker puts it there
    /// for whom it sees connected, and says when that is done.)
    fresh: Vec<(String, QoS)>,
    /// This process has subscribed in the remote session that is there.
    subscribed: bool,
}

impl Wanted {
    fn new(settings: &LinkSettings, rules: &Rules, known: &[String]) -> Wanted {
        let inward = inward_filters(settings, rules);
        let noted = |about: About| known.iter().filter_map(move |filter| about.noted(filter));
        let once = noted(About::Remote);
        let gone = once.filter(|once| inward.iter().all(|(filter, _)| filter != once));
        let gone = gone.map(str::to_owned).collect();
        let outward = rules.outward_filters();
        let is_fresh = |filter: &str| {
            let is_noted = noted(About::Retained).any(|noted| noted == filter);
            is_noted || known.iter().all(|known| known != filter)
        };
        let fresh = outward.iter().filter(|(filter, _)| settings.retained && is_fresh(filter));
        let fresh = fresh.cloned().collect();
        Wanted { outward, inward, gone, fresh, subscribed: false }
    }

    /// The filters of the local session: what goes out, and notes of what the remote one has.
    fn local(&self) -> Vec<(String, QoS)> {
        let inward = self.inward.iter().map(|(filter, _)| &**filter);
        let remote = inward.chain(self.gone.iter().map(|filter| &**filter));
        let fresh = self.fresh.iter().map(|(filter, _)| &**filter);
        let mut filters = self.outward.clone();
        filters.extend(About::Remote.notes(remote));
        filters.extend(About::Retained.notes(fresh));
        filters
    }

    /// A connection stands that has subscribed to all of it, and what is retained under the filters
    /// `scanned` stands in the queue: no end of the connection takes it any more. Gives the notes that
    /// are done with.
    fn done(&mut self, scanned: &[String]) -> Vec<String> {
        self.subscribed = true;
        let gone = std::mem::take(&mut self.gone);
        let mut notes = About::Remote.notes(gone.iter().map(|filter| &**filter));
        let is_scanned = |(filter, _): &mut (String, QoS)| scanned.contains(filter);
        let done: Vec<_> = self.fresh.extract_if(.., is_scanned).collect();
        notes.extend(About::Retained.notes(done.iter().map(|(filter, _)| &**filter)));
        notes.into_iter().map(|(note, _)| note).collect()
    }
}

impl LinkTask {
    /// Makes the local session and its subscriptions, so that messages wait for the link from here
    /// on, whether the remote broker is there or not.
    async fn prepare(&mut self, known_filters: &[String]) {
        while let Err(lost) = self.open_session(known_filters, false).await {
            self.failed(&lost);
            sleep(self.backoff.pause()).await;
        }
    }

    async fn open_session(&self, known: &[String], anew: bool) -> Result<(), Lost> {
        let (mut inbox, mut outbox) = split(self.local.open()?, MAX_PACKET_LEN as u32);
        let filters = self.wanted.local();
        let is_gone = |known: &&String| filters.iter().all(|(filter, _)| filter != *known);
        let gone: Vec<&String> = known.iter().filter(is_gone).collect();
        let done = async {
            let ends = (&mut inbox, &mut outbox);
            let asked = LocalSession { window: 1, anew, ..LocalSession::default() };
            greet_local(&self.settings.name, asked, ends).await?;
            unsubscribe(Version::V5, &gone, &mut outbox.bytes);
            subscribe(Version::V5, &filters, RetainHandling::DoNotSend, &mut outbox.bytes);
            // The broker answers in order: with the last answer all of it is on disk.
            Packet::PingReq.encode(Version::V5, &mut outbox.bytes);
            let mut answers = usize::from(!gone.is_empty()) + usize::from(!filters.is_empty());
            while answers > 0 {
                outbox.push().await?;
                inbox.fill().await?;
                while let Some(frame) =
                    inbox.next_frame().map_err(|fault| LinkFault::Illegal(End::Local, fault))?
                {
                    // SUBACK and UNSUBACK by their type: what they say is looked at when the link
                    // is connected. Messages stay unacknowledged.
                    answers -= usize::from(matches!(frame[0] >> 4, 9 | 11)).min(answers);
                }
            }
            let goodbye = Packet::Disconnect(Disconnect::with_code(ReasonCode::Success));
            goodbye.encode(Version::V5, &mut outbox.bytes);
            outbox.push().await?;
            // Until the broker has taken the session back.
            while inbox.fill().await.is_ok() {}
            Ok(())
        };
        timeout(LOCAL_TIMEOUT, done).await.unwrap_or(Err(Lost::Late(End::Local)))
    }

    async fn run(&mut self) {
        let mut wanted = self.settings.start != Start::Manual;
        loop {
            if !wanted {
                let Some(order) = self.orders.recv().await else { return };
                wanted = self.obey(order, wanted).await;
                continue;
            }
            if self.settings.start == Start::Lazy && self.local.queued() == 0 {
                self.enter(State::Idle);
                tokio::select! {
                    order = self.orders.recv() => {
                        let Some(order) = order else { return };
                        wanted = self.obey(order, wanted).await;
                    }
                    () = sleep(TICK) => {}
                }
                continue;
            }
            let began = Instant::now();
            match self.connect_and_carry().await {
                Ending::Over => return,
                Ending::Idle => {}
                Ending::Order(order) => wanted = self.obey(order, wanted).await,
                Ending::Lost(lost) => {
                    self.backoff.stood(began.elapsed());
                    self.failed(&lost);
                    if self.settings.start == Start::Once && self.status.connects() > 0 {
                        self.enter(State::Idle);
                        wanted = false;
                        continue;
                    }
                    self.enter(State::Waiting);
                    let pause = self.backoff.pause();
                    tokio::select! {
                        order = self.orders.recv() => {
                            let Some(order) = order else { return };
                            wanted = self.obey(order, wanted).await;
                        }
                        () = sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Does what an operator says; gives whether the link is to be connected from now on.
    async fn obey(&mut self, order: Order, wanted: bool) -> bool {
        match order {
            Order::Pause(done) => {
                self.enter(State::Paused);
                let _ = done.send(());
                false
            }
            Order::Resume(done) => {
                let _ = done.send(());
                true
            }
            Order::DropQueue(done) => {
                if self.settings.retained {
                    self.wanted.fresh.clone_from(&self.wanted.outward);
                }
                while let Err(lost) = self.open_session(&[], true).await {
                    self.failed(&lost);
                    sleep(self.backoff.pause()).await;
                }
                tracing::info!(link = self.settings.name, "the bridge's queue was dropped");
                let _ = done.send(());
                wanted
            }
        }
    }

    fn enter(&self, state: State) {
        if self.status.enter(state) {
            let (link, url) = (&self.settings.name, &self.settings.url);
            tracing::info!(link, %url, state = state.as_str(), "bridge");
        }
    }

    fn failed(&self, lost: &Lost) {
        tracing::warn!(link = self.settings.name, error = %lost, "bridge not connected");
        self.status.failed(now_ms(), lost.to_string());
    }

    async fn connect_and_carry(&mut self) -> Ending {
        self.enter(State::Connecting);
        let mut connected = tokio::select! {
            order = self.orders.recv() => return order.map_or(Ending::Over, Ending::Order),
            connected = connect(&self.settings, &self.rules, &*self.local, &self.wanted) => {
                match connected {
                    Ok(connected) => connected,
                    Err(lost) => return Ending::Lost(lost),
                }
            }
        };
        let end = self.carry(&mut connected).await;
        let in_flight = connected.link.in_flight();
        self.status.lost(in_flight, &mut connected.link.counts);
        if !matches!(end, Ending::Lost(_)) {
            // Both are told: the remote broker keeps the session, the local one the queue.
            let goodbye = Packet::Disconnect(Disconnect::with_code(ReasonCode::Success));
            goodbye.encode(self.settings.version, &mut connected.remote.outbox.bytes);
            goodbye.encode(Version::V5, &mut connected.local.outbox.bytes);
            let ends = async {
                let _ = connected.remote.outbox.end().await;
                let _ = connected.local.outbox.end().await;
            };
            let _ = timeout(END_TIMEOUT, ends).await;
        }
        end
    }

    async fn carry(&mut self, connected: &mut Connected) -> Ending {
        let Connected { link, local, remote, keep_alive, began } = connected;
        let mut tick = ticking();
        let lazy = self.settings.start == Start::Lazy;
        let mut busy_at = Instant::now();
        loop {
            let now_us = began.elapsed().as_micros() as u64;
            let local_open = match work(link, End::Local, local, remote, now_us) {
                Ok(open) => open,
                Err(fault) => return Ending::Lost(fault.into()),
            };
            let remote_open = match work(link, End::Remote, local, remote, now_us) {
                Ok(open) => open,
                Err(fault) => return Ending::Lost(fault.into()),
            };
            if link.is_ready() {
                let done = self.wanted.done(&link.take_scanned());
                if unsubscribe(Version::V5, &done, &mut local.outbox.bytes) {
                    link.asking(End::Local);
                }
                if self.status.state() != State::Connected {
                    self.enter(State::Connected);
                }
            }
            if link.counts != Default::default() {
                busy_at = Instant::now();
            }
            self.status.take(link.in_flight(), &mut link.counts);
            let pause =
                link.pause_us(End::Local, now_us).max(link.pause_us(End::Remote, now_us)).max(1);
            let (writes_local, writes_remote) =
                (local.outbox.wants_write(), remote.outbox.wants_write());
            if writes_remote {
                keep_alive.sent();
            }
            let done = tokio::select! {
                biased;
                order = self.orders.recv() => return order.map_or(Ending::Over, Ending::Order),
                done = local.outbox.push(), if writes_local => done,
                done = remote.outbox.push(), if writes_remote => done,
                done = local.inbox.fill(), if local_open => done,
                done = remote.inbox.fill(), if remote_open => {
                    keep_alive.heard();
                    done
                }
                _ = tick.tick() => {
                    // Nobody may ask for a while, and then is to hear how long it has been.
                    let _ = self.status.lag_ms(self.local.queued(), now_ms());
                    if let Err(lost) = keep_alive.tick(self.settings.version, &mut remote.outbox) {
                        return Ending::Lost(lost);
                    }
                    let rest = busy_at.elapsed() >= self.settings.idle_timeout;
                    if lazy && rest && link.in_flight() == 0 && self.local.queued() == 0 {
                        return Ending::Idle;
                    }
                    Ok(())
                }
                () = sleep(Duration::from_micros(pause)), if pause > 1 => Ok(()),
            };
            if let Err(error) = done {
                return Ending::Lost(error.into());
            }
        }
    }
}

/// One of the two connections.
struct Side {
    inbox: Inbox,
    outbox: Outbox,
}

impl Side {
    fn new(wire: AnyWire, max_packet: u32) -> Side {
        let (inbox, outbox) = split(wire, max_packet);
        Side { inbox, outbox }
    }
}

struct Connected {
    link: Link,
    local: Side,
    remote: Side,
    keep_alive: KeepAlive,
    began: Instant,
}

/// Makes both connections. The remote one is first: what it says of its session decides what the
/// local one is asked for.
async fn connect(
    settings: &LinkSettings,
    rules: &Rules,
    local: &dyn LocalEnd,
    wanted: &Wanted,
) -> Result<Connected, Lost> {
    let (mut remote, theirs) =
        timeout(CONNECT_TIMEOUT, reach(settings)).await.unwrap_or(Err(Lost::Late(End::Remote)))?;
    let window = settings.max_inflight.min(theirs.takes.receive_maximum);
    let mut near = Side::new(local.open()?, MAX_PACKET_LEN as u32);
    let ends = (&mut near.inbox, &mut near.outbox);
    let asked =
        LocalSession { window, incoming_lost: !theirs.session_present, ..LocalSession::default() };
    let greeted = greet_local(&settings.name, asked, ends);
    let ours = timeout(LOCAL_TIMEOUT, greeted).await.unwrap_or(Err(Lost::Late(End::Local)))?;
    let mut link = Link::new(settings, rules.clone(), ours.takes, theirs.takes);
    let retained = match settings.retained {
        true => RetainHandling::SendIfNew,
        false => RetainHandling::DoNotSend,
    };
    let to_local = &mut near.outbox.bytes;
    if ours.session_present {
        // It has been waiting for the link since its start; what is retained comes only now.
        if subscribe(Version::V5, &wanted.fresh, RetainHandling::Send, to_local) {
            link.asking(End::Local);
        }
    } else {
        if subscribe(Version::V5, &wanted.local(), retained, to_local) {
            link.asking(End::Local);
        }
        if theirs.session_present && rules.sends_exactly_once() {
            release_all(settings.version, &mut remote.outbox.bytes);
        }
    }
    let (version, to_remote) = (settings.version, &mut remote.outbox.bytes);
    if !(theirs.session_present && wanted.subscribed)
        && subscribe(version, &wanted.inward, retained, to_remote)
    {
        link.asking(End::Remote);
    }
    // Behind SUBSCRIBE: where filters overlap, nothing is missed in between.
    if theirs.session_present && unsubscribe(version, &wanted.gone, to_remote) {
        link.asking(End::Remote);
    }
    if let Some(id) = &theirs.broker_id {
        link.leads_to(id);
    }
    let keep_alive = KeepAlive::new(theirs.keep_alive_secs.unwrap_or(settings.keep_alive_secs));
    Ok(Connected { link, local: near, remote, keep_alive, began: Instant::now() })
}

async fn reach(settings: &LinkSettings) -> Result<(Side, Greeting), Lost> {
    // A 5.0 broker is told what is too large. One of 3.1.1 is not: it must be swallowed.
    let max_packet = match settings.version {
        Version::V5 => settings.max_packet_bytes,
        Version::V311 => MAX_PACKET_LEN as u32,
    };
    let mut remote = Side::new(dial(settings).await?, max_packet);
    let greeting = greet_remote(settings, (&mut remote.inbox, &mut remote.outbox)).await?;
    Ok((remote, greeting))
}

/// With a hop prefix, topics come with the brokers that they have passed, or plain.
fn inward_filters(settings: &LinkSettings, rules: &Rules) -> Vec<(String, QoS)> {
    let mut filters = rules.inward_filters();
    if let Some(prefix) = &settings.hop_prefix {
        let below = filters.iter().map(|(filter, qos)| (format!("{prefix}/+/{filter}"), *qos));
        filters.extend(below.collect::<Vec<_>>());
    }
    filters
}

/// The local session is new, so its identifiers begin anew, and the remote broker may still hold some
/// of the old one's as received: it would take new messages for their repetition. PUBREL ends them
/// ([MQTT-4.3.3-12]); for those it does not hold it is answered and does nothing.
fn release_all(version: Version, out: &mut Vec<u8>) {
    let mut encoder = Encoder { version, out };
    for id in (1..=u16::MAX).filter_map(PacketId::new) {
        encoder.ack(AckKind::PubRel, id, ReasonCode::Success);
    }
}

/// Works on what has come from one end, as long as the other can take it. Gives whether more is to
/// be read.
fn work(
    link: &mut Link,
    end: End,
    local: &mut Side,
    remote: &mut Side,
    now_us: u64,
) -> Result<bool, LinkFault> {
    let (from, other_waits) = match end {
        End::Local => (&mut local.inbox, remote.outbox.waiting()),
        End::Remote => (&mut remote.inbox, local.outbox.waiting()),
    };
    if other_waits > MOST_WAITING {
        return Ok(false);
    }
    let mut to_local = Encoder { version: Version::V5, out: &mut local.outbox.bytes };
    let version = link.remote_version();
    let mut to_remote = Encoder { version, out: &mut remote.outbox.bytes };
    while link.pause_us(end, now_us) == 0 {
        let frame = from.next_frame().map_err(|fault| LinkFault::Illegal(end, fault))?;
        let Some(frame) = frame else { return Ok(true) };
        match end {
            End::Local => link.on_local(now_us, frame, &mut to_local, &mut to_remote)?,
            End::Remote => link.on_remote(now_us, frame, &mut to_local, &mut to_remote)?,
        }
    }
    Ok(false)
}

/// Keeps the remote connection alive, and finds it dead.
struct KeepAlive {
    every: Duration,
    sent_at: Instant,
    heard_at: Instant,
    asked_at: Option<Instant>,
}

impl KeepAlive {
    fn new(secs: u16) -> KeepAlive {
        let now = Instant::now();
        let every = Duration::from_secs(u64::from(secs));
        KeepAlive { every, sent_at: now, heard_at: now, asked_at: None }
    }

    fn sent(&mut self) {
        self.sent_at = Instant::now();
    }

    fn heard(&mut self) {
        self.heard_at = Instant::now();
        self.asked_at = None;
    }

    /// PINGREQ when there was silence in either direction; without an answer the other is gone.
    fn tick(&mut self, version: Version, outbox: &mut Outbox) -> Result<(), Lost> {
        if self.every.is_zero() {
            return Ok(());
        }
        let silent = self.every.mul_f64(0.75);
        match self.asked_at {
            Some(asked) if asked.elapsed() >= self.every => Err(Lost::Late(End::Remote)),
            Some(_) => Ok(()),
            None => {
                if self.sent_at.elapsed() >= silent || self.heard_at.elapsed() >= silent {
                    Packet::PingReq.encode(version, &mut outbox.bytes);
                    self.asked_at = Some(Instant::now());
                }
                Ok(())
            }
        }
    }
}

fn ticking() -> Interval {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Unix time in milliseconds.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_retained_is_owed_until_the_broker_says_that_it_is_in_the_queue() {
        let filter = |text: &str| (text.to_owned(), QoS::AtLeastOnce);
        let mut wanted = Wanted {
            outward: vec![filter("a/#"), filter("b/#")],
            inward: Vec::new(),
            gone: vec!["old/#".to_owned()],
            fresh: vec![filter("a/#"), filter("b/#")],
            subscribed: false,
        };
        assert_eq!(wanted.done(&[]), ["$bridge/remote/old/#"], "no retained message has come yet");
        assert!(wanted.subscribed && wanted.done(&[]).is_empty());
        // A connection that ends here asks for both again, as after a restart.
        let notes: Vec<String> = wanted.local().into_iter().map(|(note, _)| note).collect();
        assert!(notes.contains(&"$bridge/retained/a/#".to_owned()), "{notes:?}");
        let scanned = ["b/#".to_owned(), "$bridge/remote/x".to_owned()];
        assert_eq!(wanted.done(&scanned), ["$bridge/retained/b/#"]);
        assert_eq!(wanted.fresh, [filter("a/#")]);
    }
}
