//! The client engine: many MQTT connections on one thread, around one epoll.
//!
//! Owns the sockets, the packet identifiers in flight and the bytes not yet written. What the clients
//! say and what is made of the answers belongs to a [`Driver`]. Reads go into one lent buffer, writes
//! are collected and made once per turn and connection: that is what keeps it far below a broker's
//! cost. Messages and their acknowledgements are cut by hand; everything else goes through the codec.

mod address;
mod client;
mod input;
mod output;
mod transport;

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use hoopoe_codec::ReasonCode;
use rustix::event::epoll;
use rustix::event::epoll::EventFlags;
use rustix::thread::set_current_timer_slack;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

pub(crate) use address::{Target, explain_connect};
pub(crate) use client::{Down, Greeting, State};
pub(crate) use input::{cut_ack, cut_publish};
pub(crate) use output::Template;
pub(crate) use transport::{Tls, TlsOptions, WebSocketAt, Wire};

use client::Client;

/// Bytes lent to every read.
const SCRATCH_LEN: usize = 256 * 1024;
/// Events taken per turn.
const EVENTS_PER_TURN: usize = 1024;
/// Bytes that may wait for a socket before its client counts as having no room.
const MAX_UNWRITTEN: usize = 1 << 20;
/// The largest packet accepted from a broker.
const MAX_PACKET: u32 = 64 << 20;
/// Empty buffers kept to be written into again, and the largest of them.
const MAX_SPARE: usize = EVENTS_PER_TURN;
const MAX_SPARE_LEN: usize = 64 * 1024;
/// Marks the timer in epoll's data, where clients have their index.
const TIMER_KEY: u64 = u64::MAX;

/// What a scenario attached to a publication; comes back when the broker has settled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The scenario's channel.
    pub channel: u32,
    /// The scenario's number for the message.
    pub number: u32,
}

/// A message that arrived.
pub(crate) struct Incoming<'a> {
    /// The broker says that it may have sent this before.
    pub dup: bool,
    /// Its topic, not checked.
    pub topic: &'a [u8],
    /// Its properties as they are on the wire (MQTT 5).
    pub properties: &'a [u8],
    /// Application bytes.
    pub payload: &'a [u8],
    /// When it was read from the socket.
    pub at_ns: u64,
}

/// What a scenario makes of the events of its clients. All hooks may publish at once.
pub(crate) trait Driver {
    /// CONNACK said yes.
    fn on_up(&mut self, _net: &mut Net, _client: u32, _session_present: bool) {}
    /// SUBACK arrived; `refused` filters were not granted.
    fn on_subscribed(&mut self, _net: &mut Net, _client: u32, _refused: usize) {}
    /// A message arrived (QoS 2: once per packet identifier's life).
    fn on_message(&mut self, _net: &mut Net, _client: u32, _message: &Incoming<'_>) {}
    /// PUBACK or PUBCOMP arrived, or PUBREC with an error.
    fn on_settled(&mut self, _net: &mut Net, _client: u32, _token: Token, _code: ReasonCode) {}
    /// The connection ended before the broker had settled this publication: it may have it or not.
    /// Called before `on_down`.
    fn on_unsettled(&mut self, _net: &mut Net, _client: u32, _token: Token) {}
    /// The connection ended, or did not come about. Not called for [`Net::leave`].
    fn on_down(&mut self, _net: &mut Net, _client: u32, _why: Down) {}
}

/// A driver that listens to nothing.
pub(crate) struct Idle;
impl Driver for Idle {}

/// Totals of one thread, for progress and plots.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// PUBLISH packets written.
    pub published: u64,
    /// PUBLISH packets read.
    pub delivered: u64,
    /// Publications settled by the broker.
    pub settled: u64,
    /// Bytes read from sockets.
    pub bytes_in: u64,
    /// Bytes written to sockets.
    pub bytes_out: u64,
    /// Connections that are up.
    pub up: u64,
}

/// The engine of one thread.
pub(crate) struct Net {
    epoll: OwnedFd,
    timer: OwnedFd,
    timer_at_ns: u64,
    thread: usize,
    target: Arc<Target>,
    clients: Vec<Client>,
    dirty: Vec<u32>,
    /// Buffers to write into, the one used last on top: few, and in the processor's cache, where one
    /// of its own for each of thousands of clients would not be.
    spare: Vec<Vec<u8>>,
    scratch: Vec<u8>,
    totals: Totals,
    pinged_ns: u64,
    ping_next: usize,
    /// When the bytes in hand were read.
    read_ns: u64,
    /// Clients whose connections hold little that was not read.
    narrow: Range<u32>,
    /// Never sleeps.
    spin: bool,
}

impl Net {
    /// The engine of thread number `thread`, which connects to `target`.
    pub(crate) fn new(target: Arc<Target>, thread: usize) -> io::Result<Self> {
        // Due times are kept to the microsecond: by default the kernel may wake us 50 of them late.
        // Where it may not be asked for more, late it is.
        let _ = set_current_timer_slack(NonZeroU64::new(1));
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let timer_key = epoll::EventData::new_u64(TIMER_KEY);
        epoll::add(&epoll, &timer, timer_key, EventFlags::IN | EventFlags::ET)?;
        Ok(Net {
            epoll,
            timer,
            timer_at_ns: 0,
            thread,
            target,
            clients: Vec::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            scratch: vec![0; SCRATCH_LEN],
            totals: Totals::default(),
            pinged_ns: crate::clock::now_ns(),
            ping_next: 0,
            read_ns: 0,
            narrow: 0..0,
            spin: false,
        })
    }

    /// Adds `count` clients, not yet connected; returns the index of the first.
    pub(crate) fn add_clients(&mut self, count: usize) -> u32 {
        let first = self.clients.len() as u32;
        self.clients.resize_with(self.clients.len() + count, Client::default);
        first
    }

    /// Whether to look for events all the time instead of sleeping until there are some.
    pub(crate) fn spin(&mut self, spin: bool) {
        self.spin = spin;
    }

    /// Number of the thread that it runs on.
    pub(crate) fn thread(&self) -> usize {
        self.thread
    }

    /// Totals since the start.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// When the client's connection was begun.
    pub(crate) fn opened_ns(&self, client: u32) -> u64 {
        self.clients[client as usize].opened_ns
    }

    /// When the packet in hand was read from its socket.
    pub(crate) fn read_ns(&self) -> u64 {
        self.read_ns
    }

    /// Connections of these clients, when they are opened, are to hold little that was not read.
    pub(crate) fn narrow(&mut self, who: Range<u32>) {
        self.narrow = who;
    }

    /// Reads nothing more of what these clients are sent, until they connect again.
    pub(crate) fn stop_reading(&mut self, who: Range<u32>) {
        for client in who {
            self.clients[client as usize].deaf = true;
        }
    }

    /// Where the client is in its life.
    pub(crate) fn state(&self, client: u32) -> State {
        self.clients[client as usize].state
    }

    /// Publications of this client that the broker has not settled.
    pub(crate) fn unsettled(&self, client: u32) -> usize {
        self.clients[client as usize].inflight.len()
    }

    /// Writes what is waiting, waits for events until `until_ns` at the latest (never longer than
    /// `wait`), and hands them to the driver.
    pub(crate) fn turn<D: Driver>(
        &mut self,
        driver: &mut D,
        wait: Duration,
        until_ns: Option<u64>,
    ) -> io::Result<()> {
        self.keep_alive();
        self.flush(driver);
        let (wait, look_until_ns) = if self.spin {
            let end = crate::clock::now_ns() + u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
            (Some(Duration::ZERO), until_ns.map_or(end, |until| until.min(end)))
        } else {
            (self.arm(wait, until_ns)?, 0)
        };
        let timeout = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        let mut space = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_PER_TURN];
        loop {
            let events = match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
                Ok((events, _)) => events,
                Err(rustix::io::Errno::INTR) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            let none = events.is_empty();
            for event in events {
                let (flags, key) = (event.flags, event.data.u64());
                if key != TIMER_KEY {
                    self.on_event(driver, key as u32, flags);
                }
            }
            if !(none && crate::clock::now_ns() < look_until_ns) {
                return Ok(());
            }
        }
    }

    /// Arms the timer for due times nearer than epoll's milliseconds can say. The timer then ends the
    /// wait: a timeout beside it would be one more timer of the kernel's, set and unset in each turn.
    fn arm(&mut self, wait: Duration, until_ns: Option<u64>) -> io::Result<Option<Duration>> {
        let Some(until) = until_ns else { return Ok(Some(wait)) };
        let left = Duration::from_nanos(until.saturating_sub(crate::clock::now_ns()));
        if left >= wait || left.is_zero() {
            return Ok(Some(left.min(wait)));
        }
        if self.timer_at_ns != until {
            self.timer_at_ns = until;
            let at = Itimerspec {
                it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
                it_value: Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                },
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &at)?;
        }
        Ok(None)
    }

    fn on_event<D: Driver>(&mut self, driver: &mut D, client: u32, flags: EventFlags) {
        if self.clients[client as usize].stream.is_none() || self.clients[client as usize].deaf {
            return; // closed earlier in this turn, or not listening
        }
        if self.clients[client as usize].state == State::Connecting {
            self.finish_connect(driver, client, flags);
        } else if flags.contains(EventFlags::OUT) && self.clients[client as usize].blocked {
            self.clients[client as usize].blocked = false;
            self.writing(client);
        }
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let readable = ended || flags.contains(EventFlags::IN);
        if readable && self.clients[client as usize].stream.is_some() {
            self.read(driver, client, ended);
        }
    }

    /// The client, which is about to write: listed for the turn's end, with a buffer to write into.
    #[inline]
    fn writing(&mut self, client: u32) -> &mut Client {
        let c = &mut self.clients[client as usize];
        if !c.dirty {
            c.dirty = true;
            self.dirty.push(client);
        }
        if c.out.capacity() == 0 {
            c.out = self.spare.pop().unwrap_or_default();
        }
        c
    }

    /// Takes back the buffer of a client that has written everything.
    #[inline]
    fn take_back(spare: &mut Vec<Vec<u8>>, c: &mut Client) {
        if c.out.is_empty() && c.out.capacity() > 0 {
            let buffer = std::mem::take(&mut c.out);
            if spare.len() < MAX_SPARE && buffer.capacity() <= MAX_SPARE_LEN {
                spare.push(buffer);
            }
        }
    }
}
