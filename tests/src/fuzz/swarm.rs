//! Many connections, driven by one generator: who connects, who sends what, who goes how.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::answers::Request;
use super::compose::Composer;
use super::conversation::Stage;
use super::ledger::Ledger;
use super::limits::Limits;
use super::link::{Link, Socket};
use super::mutate::mutate;
use super::random::Random;
use super::vocabulary::{TRACKED, WILD};
use crate::DEADLINE;

/// Connections at a time.
const CONNECTIONS: usize = 20;
/// Bytes that may wait for the broker before a client makes up more.
const MOST_WAITING: usize = 256 * 1024;
/// Answers that may be owed before a client makes up more.
const MOST_OWED: usize = 200;
/// Connections are read every few milliseconds; after such a pause the machine has stood still.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// How long the broker may take to close a connection it has to close.
const CLOSING_TIME: Duration = Duration::from_secs(15);

/// The connections of a run.
pub struct Swarm {
    random: Random,
    limits: Rc<Limits>,
    address: SocketAddr,
    /// What is known beyond one connection.
    pub ledger: Ledger,
    links: Vec<Option<Link>>,
    connections: u64,
    /// Packets made up.
    pub packets: u64,
    /// When a connection was last read.
    last_look: Instant,
}

impl Swarm {
    /// A swarm that has not begun.
    pub fn new(random: Random, limits: Rc<Limits>, address: SocketAddr) -> Swarm {
        Swarm {
            random,
            limits,
            address,
            ledger: Ledger::default(),
            links: (0..CONNECTIONS).map(|_| None).collect(),
            connections: 0,
            packets: 0,
            last_look: Instant::now(),
        }
    }

    /// Connections that were opened.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// Every connection does a little.
    pub fn turn(&mut self) -> Result<(), String> {
        let mut busy = false;
        for at in 0..self.links.len() {
            busy |= match self.links[at].take() {
                None => {
                    self.links[at] = self.begin();
                    true
                }
                Some(mut link) => {
                    self.act(&mut link);
                    let busy = link.waiting() > 0 || !link.requests.is_empty();
                    self.links[at] = self.exchange(link)?;
                    busy
                }
            };
        }
        if !busy {
            std::thread::yield_now();
        }
        Ok(())
    }

    fn composer(&mut self) -> Composer<'_> {
        self.packets += 1;
        let publication = self.ledger.number_publication();
        Composer { random: &mut self.random, publication }
    }

    /// Opens a connection and writes CONNECT, or something else.
    fn begin(&mut self) -> Option<Link> {
        let tracked = !self.random.once_in(4);
        let client_id = self.random.pick(if tracked { &TRACKED } else { &WILD });
        if tracked && !self.ledger.may_connect(client_id) {
            return None;
        }
        self.connections += 1;
        let mut link = Link::open(self.address, self.connections, self.limits.clone());
        link.actions = self.random.within(1, 150);
        if !tracked {
            link.conversation.excused("others may use the client identifier");
        }
        let version = link.conversation.version();
        let mut packet = match self.random.below(60) {
            0 if !tracked => self.composer().subscribe(version, 1),
            _ => self.composer().connect(client_id, tracked),
        };
        if !tracked && self.random.once_in(8) {
            mutate(&mut self.random, &mut packet);
        }
        if tracked {
            self.ledger.connecting(client_id);
        }
        link.queue(&packet);
        Some(link)
    }

    /// Makes up packets for a connection.
    fn act(&mut self, link: &mut Link) {
        self.answer(link);
        let expected = &link.conversation.expected;
        let owed = expected.pubacks.len() + expected.subacks.len() + expected.pubrecs.len();
        if link.conversation.is_over() || link.waiting() > MOST_WAITING || owed > MOST_OWED {
            return;
        }
        // A client that breaks the broker's Receive Maximum does so on purpose only.
        let full = link.conversation.unfinished + 1 >= usize::from(self.limits.receive_maximum);
        if link.actions == 0 {
            if link.waiting() == 0 && link.conversation.stage != Stage::Greeting {
                self.leave(link);
            }
            return;
        }
        if link.conversation.stage == Stage::Silent || self.random.once_in(3) {
            return;
        }
        if link.conversation.stage == Stage::Greeting && !self.random.once_in(8) {
            return;
        }
        link.actions -= 1;
        let version = link.conversation.version();
        let id = self.identifier(link);
        let mut packet = match self.random.below(100) {
            0..=54 if !full || self.random.once_in(200) => {
                let publication = self.ledger.number_publication();
                self.packets += 1;
                let mut composer = Composer { random: &mut self.random, publication };
                composer.publish(&link.conversation, id)
            }
            0..=54 => Vec::new(),
            55..=76 => self.composer().subscribe(version, id),
            77..=88 => self.composer().unsubscribe(version, id),
            89..=96 => vec![0xC0, 0],
            97 if self.random.once_in(4) => self.composer().stray_answer(version),
            98 if self.random.once_in(8) => self.composer().misplaced(version),
            99 => {
                link.stalled = self.random.within(1, 400);
                Vec::new()
            }
            _ => Vec::new(),
        };
        if self.random.once_in(250) {
            mutate(&mut self.random, &mut packet);
        }
        link.queue(&packet);
    }

    fn identifier(&mut self, link: &mut Link) -> u16 {
        if self.random.once_in(150) {
            return self.random.within(1, 4) as u16;
        }
        link.next_id = link.next_id.wrapping_add(1).max(1);
        while link.conversation.exchanges.contains(&link.next_id) {
            link.next_id = link.next_id.wrapping_add(1).max(1);
        }
        link.next_id
    }

    /// Answers the broker's packets: mostly at once, sometimes late, out of order or never.
    fn answer(&mut self, link: &mut Link) {
        if link.conversation.is_over() || link.waiting() > MOST_WAITING {
            return;
        }
        let mut count = link.requests.len();
        if self.random.once_in(4) {
            count = self.random.below(count + 1);
        }
        for _ in 0..count {
            let at =
                if self.random.once_in(30) { self.random.below(link.requests.len()) } else { 0 };
            let Some(request) = link.requests.remove(at) else { break };
            if request == Request::Begin {
                self.go_on(link);
            } else if !self.random.once_in(300) {
                let version = link.conversation.version();
                let packet = self.composer().answer(version, request);
                link.queue(&packet);
            }
        }
    }

    /// After CONNACK: what an earlier connection did not finish is sent again.
    fn go_on(&mut self, link: &mut Link) {
        if !link.conversation.resumed || self.random.once_in(5) {
            return;
        }
        let again: Vec<Vec<u8>> = {
            let session = link.conversation.session.borrow();
            session.unfinished.iter().map(|(_, packet)| packet.clone()).collect()
        };
        for packet in again {
            self.packets += 1;
            link.queue(&packet);
        }
    }

    fn leave(&mut self, link: &mut Link) {
        match self.random.below(12) {
            0..=4 => {
                let version = link.conversation.version();
                let packet = self.composer().disconnect(version);
                link.queue(&packet);
                link.hasty = self.random.once_in(3);
            }
            5..=8 => {
                link.hasty = true;
            }
            // Goes on, until another takes the session over.
            _ => link.actions = self.random.within(1, 200),
        }
    }

    /// Writes and reads; gives the connection back while it lasts.
    fn exchange(&mut self, mut link: Link) -> Result<Option<Link>, String> {
        let silent = link.conversation.stage == Stage::Silent;
        link.write(&mut self.random, &mut self.ledger);
        if silent && link.conversation.stage != Stage::Silent {
            self.announce(&link);
        }
        if link.hasty && link.waiting() == 0 && link.conversation.stage != Stage::Greeting {
            link.cut(&mut self.ledger);
            return Ok(None);
        }
        let must_close = link.conversation.doom.clone();
        if link.stalled > 0 && must_close.is_none() {
            link.stalled -= 1;
            return Ok(Some(link));
        }
        excuse_silence(&mut link);
        self.excuse_standstill(&mut link);
        let accepted = link.conversation.accepted;
        let result = link.read(&mut self.ledger);
        // The broker's DISCONNECT may have come with the CONNACK.
        if !accepted && link.conversation.accepted {
            self.take_over(&link);
        }
        match result {
            Err(fault) => Err(format!("{fault}\n{}", link.report(&self.ledger))),
            Ok(Socket::Closed) => Ok(None),
            Ok(Socket::Open) => match must_close {
                Some((why, since)) if since.elapsed() > CLOSING_TIME => {
                    Err(format!("still open after a fault: {why}\n{}", link.report(&self.ledger)))
                }
                _ => Ok(Some(link)),
            },
        }
    }

    /// When the machine has stood still, the broker may have waited in vain for any connection.
    fn excuse_standstill(&mut self, link: &mut Link) {
        let now = Instant::now();
        if now - std::mem::replace(&mut self.last_look, now) >= STOOD_STILL {
            for link in self.links.iter_mut().flatten().chain([link]) {
                link.conversation.stood_still = true;
            }
        }
    }

    /// A CONNECT has been written: others with its identifier may be closed from now on.
    fn announce(&mut self, new: &Link) {
        let Some(hello) = &new.conversation.hello else { return };
        for link in self.links.iter_mut().flatten() {
            let same =
                link.conversation.hello.as_ref().is_some_and(|h| h.client_id == hello.client_id);
            if same {
                link.conversation.excused(format!("taken over by {}", new.conversation.number));
            }
        }
    }

    /// A CONNACK has come: what is still read on older connections belongs to no session.
    fn take_over(&mut self, new: &Link) {
        let Some(hello) = new.conversation.hello.as_ref().filter(|hello| hello.tracked) else {
            return;
        };
        for link in self.links.iter_mut().flatten() {
            let same =
                link.conversation.hello.as_ref().is_some_and(|h| h.client_id == hello.client_id);
            if same {
                link.conversation.detach();
            }
        }
    }

    /// Lets every connection come to rest: all answers that are owed have to arrive.
    pub fn settle(&mut self) -> Result<(), String> {
        for link in self.links.iter_mut().flatten() {
            link.stalled = 0;
            if !link.conversation.is_over() && link.conversation.stage == Stage::Open {
                link.queue(&[0xC0, 0]);
            }
        }
        let started = Instant::now();
        loop {
            let mut waits = None;
            for at in 0..self.links.len() {
                let Some(mut link) = self.links[at].take() else { continue };
                if link.hasty {
                    link.cut(&mut self.ledger);
                    continue;
                }
                self.answer(&mut link);
                let Some(link) = self.exchange(link)? else { continue };
                let conversation = &link.conversation;
                let settled = match conversation.stage {
                    Stage::Silent => conversation.doom.is_none(),
                    Stage::Open if conversation.is_over() => false,
                    Stage::Open => conversation.expected.is_empty(),
                    Stage::Greeting | Stage::Ending => false,
                };
                if !settled || link.waiting() > 0 {
                    waits = Some(at);
                }
                self.links[at] = Some(link);
            }
            let Some(at) = waits else { return Ok(()) };
            if started.elapsed() > DEADLINE {
                let link = self.links[at]
                    .as_ref()
                    .map(|link| link.report(&self.ledger))
                    .unwrap_or_default();
                return Err(format!("answers are owed and do not come\n{link}"));
            }
            std::thread::yield_now();
        }
    }
}

/// A client that is not heard for its keep alive may be closed; one without CONNECT as well.
fn excuse_silence(link: &mut Link) {
    let silence = link.heard.elapsed();
    let keep_alive = link.conversation.hello.as_ref().map_or(5, |hello| hello.keep_alive_secs);
    if keep_alive > 0 && silence >= Duration::from_secs(u64::from(keep_alive)) {
        link.conversation.excused("not heard for its keep alive");
    }
}
