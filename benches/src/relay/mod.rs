//! The relay that does nothing: the least that anything with one socket per client and epoll can do,
//! to hold brokers against.
//!
//! Packets are cut out of the bytes read, looked up by their exact topic, copied to the subscribers'
//! buffers with a fresh packet identifier, and acknowledged at once. Nothing is checked, kept, queued,
//! retained or matched: no wildcards, no sessions, no wills, no windows, nothing between clients of
//! different protocol versions. It is a measuring rod, never a broker.

mod packets;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use hoopoe_codec::{Version, frame_length};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::Timespec;
use socket2::{Domain, Protocol, Socket, Type};

const LISTENER_KEY: u64 = u64::MAX;
const SCRATCH_LEN: usize = 256 * 1024;
const EVENTS_PER_TURN: usize = 1024;
/// From so many events in a turn on, the relay counts as busy.
const BUSY_EVENTS: usize = 8;
/// Turns made before writing, at most.
const MAX_TURNS_UNWRITTEN: usize = 4;
const MAX_PACKET: u32 = 16 << 20;
/// A receiver that leaves this much unread is disconnected: the relay has no other bound.
const MAX_UNWRITTEN: usize = 64 << 20;
const BACKLOG: i32 = 4096;

/// Where a topic's messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route {
    connection: u32,
    qos: u8,
    version: Version,
}

struct Connection {
    stream: TcpStream,
    partial: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    dirty: bool,
    blocked: bool,
    /// Known from CONNECT on.
    version: Option<Version>,
    last_id: u16,
    topics: Vec<Box<[u8]>>,
}

/// The relay.
pub(crate) struct Relay {
    epoll: OwnedFd,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<u32>,
    routes: HashMap<Box<[u8]>, Vec<Route>, foldhash::fast::RandomState>,
    dirty: Vec<u32>,
}

impl Relay {
    /// Listens there.
    pub(crate) fn listen(address: SocketAddr) -> Result<Relay> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.bind(&address.into()).with_context(|| format!("listening on {address}"))?;
        socket.listen(BACKLOG)?;
        let listener: TcpListener = socket.into();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER_KEY), EventFlags::IN)?;
        Ok(Relay {
            epoll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            routes: HashMap::default(),
            dirty: Vec::new(),
        })
    }

    /// The address it listens on.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Relays until asked to stop.
    pub(crate) fn serve(&mut self, stop: &AtomicBool) -> Result<()> {
        let mut scratch = vec![0; SCRATCH_LEN];
        let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        while !stop.load(Ordering::Relaxed) {
            // Under load, what has become ready meanwhile is taken along before anything is written:
            // the fewer writes, the lower the limit that brokers are held against.
            let mut count = self.turn(&tick, &mut scratch)?;
            let mut more = 0;
            while count >= BUSY_EVENTS && more < MAX_TURNS_UNWRITTEN {
                count = self.turn(&at_once, &mut scratch)?;
                more += 1;
            }
            self.flush();
        }
        Ok(())
    }

    /// Waits for events and handles them; returns how many there were.
    fn turn(&mut self, wait: &Timespec, scratch: &mut [u8]) -> Result<usize> {
        let mut space = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS_PER_TURN];
        let events = match epoll::wait(&self.epoll, &mut space, Some(wait)) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(0),
            Err(e) => return Err(io::Error::from(e).into()),
        };
        for event in &*events {
            let (flags, key) = (event.flags, event.data.u64());
            if key == LISTENER_KEY {
                self.accept();
            } else {
                self.on_event(key as u32, flags, scratch);
            }
        }
        Ok(events.len())
    }

    /// Takes every waiting connection; one that cannot be had is refused, not fatal.
    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if stream.set_nonblocking(true).and(stream.set_nodelay(true)).is_err() {
                continue;
            }
            let index = self.free.pop().unwrap_or(self.connections.len() as u32);
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            if epoll::add(&self.epoll, &stream, EventData::new_u64(index.into()), flags).is_err() {
                self.free.push(index);
                continue;
            }
            let connection = Connection {
                stream,
                partial: Vec::new(),
                out: Vec::new(),
                written: 0,
                dirty: false,
                blocked: false,
                version: None,
                last_id: 0,
                topics: Vec::new(),
            };
            if index as usize == self.connections.len() {
                self.connections.push(Some(connection));
            } else {
                self.connections[index as usize] = Some(connection);
            }
        }
    }

    fn on_event(&mut self, index: u32, flags: EventFlags, scratch: &mut [u8]) {
        let Some(c) = &mut self.connections[index as usize] else { return };
        if c.blocked && flags.contains(EventFlags::OUT) {
            c.blocked = false;
            mark(c, index, &mut self.dirty);
        }
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        if !ended && !flags.contains(EventFlags::IN) {
            return;
        }
        loop {
            let Some(c) = &mut self.connections[index as usize] else { return };
            match c.stream.read(scratch) {
                Ok(0) => return self.close(index),
                Ok(n) => {
                    if self.on_bytes(index, &scratch[..n]).is_none() {
                        return self.close(index);
                    }
                    if n < scratch.len() && !ended {
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(index),
            }
        }
    }

    /// Handles all whole packets; `None` ends the connection.
    fn on_bytes(&mut self, index: u32, bytes: &[u8]) -> Option<()> {
        let c = self.connections[index as usize].as_mut()?;
        if c.partial.is_empty() {
            let used = self.on_frames(index, bytes)?;
            if used < bytes.len() {
                let c = self.connections[index as usize].as_mut()?;
                c.partial.extend_from_slice(&bytes[used..]);
            }
            return Some(());
        }
        let mut joined = std::mem::take(&mut c.partial);
        joined.extend_from_slice(bytes);
        let used = self.on_frames(index, &joined)?;
        joined.drain(..used);
        self.connections[index as usize].as_mut()?.partial = joined;
        Some(())
    }

    fn on_frames(&mut self, index: u32, bytes: &[u8]) -> Option<usize> {
        let mut used = 0;
        while let Some(len) = frame_length(&bytes[used..], MAX_PACKET).ok()? {
            let Some(frame) = bytes.get(used..used + len) else { break };
            self.on_frame(index, frame)?;
            used += len;
        }
        Some(used)
    }

    fn close(&mut self, index: u32) {
        let Some(c) = self.connections[index as usize].take() else { return };
        for topic in &c.topics {
            if let Some(routes) = self.routes.get_mut(topic) {
                routes.retain(|route| route.connection != index);
                if routes.is_empty() {
                    self.routes.remove(topic);
                }
            }
        }
        self.free.push(index);
    }

    /// One write for each connection that has something to say.
    fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let Some(c) = &mut self.connections[index as usize] else { continue };
            c.dirty = false;
            if !c.blocked && !write_out(c) {
                self.close(index);
            }
        }
        self.dirty = dirty;
    }
}

#[inline]
fn mark(c: &mut Connection, index: u32, dirty: &mut Vec<u32>) {
    if !c.dirty {
        c.dirty = true;
        dirty.push(index);
    }
}

/// False when the connection is broken, or reads too slowly.
fn write_out(c: &mut Connection) -> bool {
    while c.written < c.out.len() {
        match c.stream.write(&c.out[c.written..]) {
            Ok(0) => return false,
            Ok(n) => c.written += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                c.blocked = true;
                return c.out.len() - c.written < MAX_UNWRITTEN;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    c.out.clear();
    c.written = 0;
    true
}

/// Listens, says where, and relays until asked to stop.
pub(crate) fn run(address: SocketAddr, stop: &Arc<AtomicBool>) -> Result<()> {
    let mut relay = Relay::listen(address)?;
    eprintln!("relay listens on {}; it copies packets and does nothing else", relay.address()?);
    relay.serve(stop)
}
