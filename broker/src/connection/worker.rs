//! The worker's loop: wait for sockets and letters, let the steps work, write once per turn.
//!
//! A turn reads every ready socket, handles every letter, and then flushes: each socket that
//! got something is written with one system call, each other thread gets its letters in one
//! batch (`turn`). Who has much to write reads first what has come meanwhile. No rule of MQTT lives
//! in this file.

mod deadlines;
mod turn;

pub(super) use deadlines::keep_alive_limit;
pub(super) use turn::{Turn, mark_dirty};

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hoopoe_core::Location;
use hoopoe_im::envelope::Envelope;
use mio::{Events, Poll, Token};
use slab::Slab;

use self::deadlines::Lifetime;
use super::message::Frames;
use super::output::Pool;
use super::plan::Plans;
use super::publish::InternalSubmit;
use super::room::LocalRooms;
use super::socket::{Received, Socket};
use super::wheel::Wheel;
use super::{Connection, Env, Listener, Phase, Seats};
use crate::clock;
use crate::fabric::{Mail, Mailbox};
use crate::telemetry::{WorkerCounters, resident_memory};
use crate::transport::{Flow, Layers, Stream};

/// Bytes read from one socket at a time.
const READ_BYTES: usize = 64 * 1024;
/// Events taken from the system at a time.
const EVENTS: usize = 1024;
/// Sockets to be written in a turn from which on letters leave before, other workers are let in, and
/// what has come meanwhile is read: of all that a turn does, writing to a socket costs most, and as
/// much for one packet as for ten.
const BUSY_SOCKETS: usize = 32;
/// How often a busy worker looks for more before it writes.
const GATHERINGS: usize = 8;
/// Connections that a worker takes.
const MOST_CONNECTIONS: usize = 1 << 22;
/// While some other thread is behind, sockets are looked at again after this time.
const PRESSURE_PAUSE: Duration = Duration::from_millis(1);
/// The token of the mailbox's waker; connections use their place.
pub const WAKE: Token = Token(usize::MAX);

/// What a worker is made of, made by the node before its thread starts.
pub struct WorkerParts {
    /// The worker's number.
    pub number: usize,
    /// The system's event queue.
    pub poll: Poll,
    /// Where its letters arrive.
    pub mailbox: Arc<Mailbox<Mail>>,
    /// What all share.
    pub env: Arc<Env>,
    /// Its counters.
    pub counters: Arc<WorkerCounters>,
}

/// The time of a turn, read once at its beginning.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Milliseconds since the epoch.
    pub wall_ms: u64,
    /// Since the worker started, but for time in which it stood still: goes on whatever is done to
    /// the clock.
    pub up: Duration,
}

impl Moment {
    fn now(life: &mut Lifetime) -> Moment {
        Moment { wall_ms: clock::now_ms(), up: life.turn(Instant::now()) }
    }
}

/// A socket that may be read or written again.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// What it was registered under.
    pub token: Token,
    /// There are bytes, or the end of them.
    pub readable: bool,
    /// It takes bytes again.
    pub writable: bool,
}

impl From<&mio::event::Event> for Ready {
    fn from(event: &mio::event::Event) -> Ready {
        Ready {
            token: event.token(),
            readable: event.is_readable() || event.is_read_closed() || event.is_error(),
            writable: event.is_writable(),
        }
    }
}

fn ready(events: &Events) -> impl Iterator<Item = Ready> {
    events.iter().filter(|event| event.token() != WAKE).map(Ready::from)
}

/// One worker thread's whole state.
pub struct Worker {
    pub(super) number: usize,
    pub(super) env: Arc<Env>,
    pub(super) counters: Arc<WorkerCounters>,
    pub(super) connections: Slab<Connection>,
    pub(super) plans: Plans,
    pub(super) frames: Frames,
    /// Room for the forms of entries.
    pub(super) spare_frames: Vec<Frames>,
    /// Topic and properties of the entry that is being written.
    pub(super) envelope: Envelope,
    pub(super) rooms: LocalRooms,
    pub(super) turn: Turn,
    pub(super) internal: HashMap<u64, InternalSubmit, foldhash::fast::RandomState>,
    pub(super) next_internal: u64,
    pub(super) now_ms: u64,
    pub(super) now_secs: u64,
    pub(super) wheel: Wheel,
    pub(super) stopping: bool,
    /// Sessions that shards were asked for: each comes, and one that is not wanted goes back.
    pub(super) opening: usize,
    pub(super) access_generation: u64,
    poll: Poll,
    mailbox: Arc<Mailbox<Mail>>,
    letters: Vec<Mail>,
    life: Lifetime,
    generation: u32,
    pub(super) pool: Pool,
    scratch: Vec<u8>,
    plain: Vec<u8>,
}

impl Worker {
    /// A worker ready to run.
    pub fn new(parts: WorkerParts) -> Worker {
        let WorkerParts { number, poll, mailbox, env, counters } = parts;
        let turn = Turn {
            to_workers: env.fabric.workers.iter().map(|_| Vec::new()).collect(),
            to_shards: env.fabric.shards.iter().map(|_| Vec::new()).collect(),
            ..Turn::default()
        };
        Worker {
            number,
            access_generation: env.access.generation(),
            env,
            counters,
            connections: Slab::new(),
            plans: Plans::new(number),
            frames: Frames::default(),
            spare_frames: Vec::new(),
            envelope: Envelope::default(),
            rooms: LocalRooms::default(),
            turn,
            internal: HashMap::default(),
            next_internal: 0,
            now_ms: 0,
            now_secs: 0,
            wheel: Wheel::new(0),
            stopping: false,
            opening: 0,
            poll,
            mailbox,
            letters: Vec::new(),
            life: Lifetime::new(Instant::now()),
            generation: 0,
            pool: Pool::default(),
            scratch: vec![0; READ_BYTES],
            plain: Vec::new(),
        }
    }

    /// Runs until the node stops and every session has gone back to its shard.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let now = Moment::now(&mut self.life);
        self.tick(now);
        loop {
            let pressed = self.env.fabric.under_pressure();
            self.wait(&mut events, pressed)?;
            let now = Moment::now(&mut self.life);
            self.env.im.overload.observe(&self.env.fabric, now.wall_ms);
            self.begin_turn(now, ready(&events), pressed);
            let mut left = GATHERINGS;
            while left > 0 && self.is_busy() {
                left -= 1;
                self.post_early();
                self.take_events(&mut events, Duration::ZERO)?;
                if !self.gather(ready(&events)) {
                    break;
                }
            }
            if self.end_turn() {
                return Ok(());
            }
        }
    }

    /// The first part of a turn: what has become ready is noted, letters are opened, sockets read
    /// unless some other thread is behind.
    pub fn begin_turn(&mut self, now: Moment, ready: impl Iterator<Item = Ready>, pressed: bool) {
        let second_has_passed = self.tick(now);
        self.take_in(ready, pressed);
        if second_has_passed {
            self.look_at_deadlines();
        }
        self.look_at_rooms();
    }

    /// Whether so many sockets are to be written that it is worth while to look for more first. No
    /// more than a turn's events are gathered, and nothing where a client sends more than is read at
    /// a time: it would fill the buffers of those it writes to.
    fn is_busy(&self) -> bool {
        (BUSY_SOCKETS..EVENTS).contains(&self.turn.dirty.len())
            && self.turn.again.is_empty()
            && !self.env.fabric.under_pressure()
    }

    /// The second part of a turn, or none, or several: what has come since its beginning belongs to
    /// it. False when nothing has.
    pub fn gather(&mut self, ready: impl Iterator<Item = Ready>) -> bool {
        self.take_in(ready, false)
    }

    fn take_in(&mut self, ready: impl Iterator<Item = Ready>, pressed: bool) -> bool {
        let mut any = false;
        for socket in ready {
            any = true;
            self.noted(socket);
        }
        any |= self.open_letters();
        if !pressed {
            let mut again = std::mem::take(&mut self.turn.again);
            for location in again.drain(..) {
                self.read_guarded(location);
            }
            // What has to be read once more came meanwhile; the longer memory is kept.
            again.append(&mut self.turn.again);
            self.turn.again = again;
        }
        any
    }

    /// The end of a turn: everything that came of it is sent. True when the worker has ended.
    pub fn end_turn(&mut self) -> bool {
        if self.turn.dirty.len() >= BUSY_SOCKETS && self.post() {
            // Where workers share a core, the other one answers now: a socket is written once,
            // with what acknowledges its client's messages and what others have sent to it.
            std::thread::yield_now();
            self.open_letters();
        }
        self.flush();
        let done = self.connections.is_empty() && self.internal.is_empty() && self.opening == 0;
        let ended = self.stopping && done;
        if ended {
            self.flush();
        }
        ended
    }

    /// True when there were some.
    fn open_letters(&mut self) -> bool {
        let mut letters = std::mem::take(&mut self.letters);
        let any = self.mailbox.take(&mut letters);
        if any {
            self.im_forget_recalled(&mut letters);
            for letter in letters.drain(..) {
                self.open_letter(letter);
            }
        }
        self.letters = letters;
        any
    }

    /// The second of its life in which the last turn was: timers have a resolution of one.
    pub fn second(&self) -> u64 {
        self.now_secs
    }

    /// Whether a turn has something to do that no event and no letter will announce.
    pub fn is_restless(&self) -> bool {
        !self.turn.again.is_empty()
    }

    fn wait(&mut self, events: &mut Events, pressed: bool) -> io::Result<()> {
        let timeout = if self.turn.again.is_empty() {
            let into_second = self.life.at(Instant::now()).subsec_millis();
            let next_second = u64::from(1001 - into_second);
            let room = self.rooms.next_look_ms().map(|at| at.saturating_sub(self.now_ms));
            Duration::from_millis(room.unwrap_or(next_second).min(next_second))
        } else if pressed {
            PRESSURE_PAUSE
        } else {
            Duration::ZERO
        };
        // A letter put before the poll has woken it already: nothing is missed in between.
        self.take_events(events, timeout)
    }

    fn take_events(&mut self, events: &mut Events, timeout: Duration) -> io::Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            result => result,
        }
    }

    /// True when it is another second.
    fn tick(&mut self, now: Moment) -> bool {
        // Wall time never runs backwards within a worker: expiries do not come back to life.
        self.now_ms = self.now_ms.max(now.wall_ms);
        let now_secs = now.up.as_secs();
        if now_secs == self.now_secs {
            return false;
        }
        self.now_secs = now_secs;
        self.report_progress();
        self.im_name_passed();
        self.im_report();
        self.im_pokes();
        self.check_logins();
        if self.number == 0
            && self.env.im.overload.wants_memory()
            && let Some(bytes) = resident_memory()
        {
            self.env.im.overload.note_memory(bytes);
        }
        true
    }

    fn noted(&mut self, ready: Ready) {
        let place = ready.token.0;
        let Some(connection) = self.connections.get_mut(place) else { return };
        if ready.writable && connection.blocked {
            connection.blocked = false;
            mark_dirty(&mut self.turn, connection, place);
        }
        if ready.readable {
            connection.readable = true;
            self.turn.again.push(connection.location);
        }
    }

    /// The connection at `location`, if it is still that one.
    pub(super) fn connection(&mut self, location: Location) -> Option<&mut Connection> {
        self.connections
            .get_mut(location.place())
            .filter(|connection| connection.location == location)
    }

    /// Takes over a socket.
    pub(super) fn accepted(
        &mut self,
        stream: Stream,
        peer: SocketAddr,
        listener: Arc<Listener>,
        seats: Seats,
    ) {
        if self.stopping || self.connections.len() >= MOST_CONNECTIONS {
            return;
        }
        let layers = Layers::new(&listener.transport, peer);
        let mut socket = Socket::new(stream, layers);
        self.generation = (self.generation + 1) & 0xff_ffff;
        self.generation = self.generation.max(1);
        let entry = self.connections.vacant_entry();
        let place = entry.key();
        let location = Location::new(self.number as u8, self.generation, place as u32);
        if let Err(error) = socket.stream().register(self.poll.registry(), Token(place)) {
            tracing::warn!(%error, "socket not registered");
            return;
        }
        // The present second has begun already: one more, so that none is short.
        let deadline_secs = self.now_secs + listener.connect_timeout_secs + 1;
        entry.insert(Connection {
            location,
            limits: listener.limits.load_full(),
            listener,
            seats,
            peer,
            socket: Some(socket),
            phase: Phase::Greeting,
            leaving: None,
            partial: Vec::new(),
            output: None,
            dirty: false,
            readable: false,
            blocked: false,
            paused: false,
            clogged: false,
            finishing: false,
            keep_alive_secs: 0,
            heard_secs: self.now_secs,
            deadline_secs,
        });
        self.counters.connections.add(1);
        self.wheel.schedule(location, deadline_secs);
    }

    /// A bug met while working on what a client sent ends that client's connection, not the
    /// others'.
    fn read_guarded(&mut self, location: Location) {
        if catch_unwind(AssertUnwindSafe(|| self.read(location))).is_err() {
            let label = self.connection(location).map(|connection| connection.label());
            tracing::error!(client = label, "a bug: the connection that met it is closed");
            self.scratch.resize(READ_BYTES, 0);
            self.socket_ended(location, None);
        }
    }

    /// Reads a socket once and works on what came.
    pub(super) fn read(&mut self, location: Location) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(connection) = self.connection(location)
            && connection.readable
            && !connection.paused
            && !connection.holds_back()
            && let Some(socket) = &mut connection.socket
        {
            match socket.read(&mut scratch) {
                Ok(Received::Bytes { count, more }) => {
                    connection.readable = more;
                    if more {
                        self.turn.again.push(location);
                    }
                    self.counters.bytes_in.add(count as u64);
                    self.bytes_arrived(location, &mut scratch[..count]);
                }
                Ok(Received::Nothing) => connection.readable = false,
                Ok(Received::End) => {
                    connection.readable = false;
                    self.socket_ended(location, None);
                }
                Err(error) => self.socket_ended(location, Some(error.into())),
            }
        }
        self.scratch = scratch;
    }

    fn bytes_arrived(&mut self, location: Location, raw: &mut [u8]) {
        let now_secs = self.now_secs;
        let Some(connection) = self.connection(location) else { return };
        connection.heard_secs = now_secs;
        if connection.finishing {
            return;
        }
        let Some(socket) = &mut connection.socket else { return };
        if socket.layers().is_none() {
            self.consume(location, raw);
        } else {
            self.layered_bytes_arrived(location, raw);
        }
    }

    fn layered_bytes_arrived(&mut self, location: Location, raw: &mut [u8]) {
        let mut plain = std::mem::take(&mut self.plain);
        let Some(connection) = self.connections.get_mut(location.place()) else { return };
        let Some(socket) = &mut connection.socket else { return };
        let was_ready = socket.is_ready();
        let mut unwrapped = socket.unwrap(raw, &mut plain);
        if !was_ready && socket.is_ready() && !connection.charge_proxied() {
            // The address that the PROXY header named connects too often.
            plain.clear();
            unwrapped = Ok(Some(Flow::Closed));
        }
        let Some(socket) = &mut connection.socket else { return };
        if socket.wants_write() {
            mark_dirty(&mut self.turn, connection, location.place());
        }
        match unwrapped {
            Ok(None) => self.consume(location, raw),
            Ok(Some(Flow::Open)) => self.consume(location, &plain),
            Ok(Some(Flow::Closed)) => {
                self.consume(location, &plain);
                self.socket_ended(location, None);
            }
            Err(fault) => {
                self.consume(location, &plain);
                self.socket_ended(location, Some(fault.into()));
            }
        }
        plain.clear();
        if plain.capacity() > READ_BYTES * 4 {
            plain = Vec::new();
        }
        self.plain = plain;
    }

    /// Takes a connection out once its socket and its session are gone.
    pub(super) fn release(&mut self, location: Location) {
        let place = location.place();
        let gone = self.connection(location).is_some_and(|connection| {
            connection.socket.is_none()
                && connection.leaving.is_none()
                && matches!(connection.phase, Phase::Ended)
        });
        if gone {
            self.connections.remove(place);
            self.counters.connections.sub(1);
        }
    }

    /// Closes the socket now.
    pub(super) fn close_socket(&mut self, location: Location) {
        let registry = self.poll.registry();
        let connection = self.connections.get_mut(location.place());
        if let Some(connection) = connection.filter(|c| c.location == location) {
            if let Some(mut socket) = connection.socket.take() {
                socket.stream().deregister(registry);
            }
            connection.partial = Vec::new();
            connection.output = None;
        }
        self.release(location);
    }
}
