//! A connection between a simulated client and the broker: two streams of bytes that arrive when
//! and in what pieces the seed says, that break, fall silent, or take little at a time.
//!
//! Owns what is on its way. What the bytes mean is not known here.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hoopoe::connection::Ready;
use hoopoe::transport::Pipe;
use mio::Token;

#[derive(Debug, Default)]
struct Wire {
    token: Option<Token>,
    /// Arrived at the broker, not read yet.
    arrived: VecDeque<u8>,
    /// Bytes that the broker has read.
    read: u64,
    /// Nothing will follow what has arrived.
    ended: bool,
    /// To be reported to the broker.
    readable: bool,
    writable: bool,
    /// Written by the broker, not arrived at the client.
    written: VecDeque<u8>,
    /// Bytes that may be on their way to the client.
    capacity: usize,
    /// The broker was told to wait for room.
    blocked: bool,
    /// The broker writes no more, or has closed.
    finished: bool,
    closed: bool,
}

type Shared = Arc<Mutex<Wire>>;

fn lock(wire: &Shared) -> MutexGuard<'_, Wire> {
    wire.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The broker's end.
#[derive(Debug)]
pub struct BrokerEnd(Shared);

/// The client's end, and everything in between.
#[derive(Debug)]
pub struct Link {
    wire: Shared,
    /// Sent by the client, not arrived at the broker.
    sent: VecDeque<u8>,
    sent_total: u64,
    /// Nothing passes any more, in either direction.
    dead: bool,
    /// Bytes of the broker that were looked at by `news`.
    looked_at: usize,
}

impl Link {
    /// A connection that holds so many bytes on their way to the client.
    pub fn new(capacity: usize) -> (Link, BrokerEnd) {
        let wire: Shared = Arc::new(Mutex::new(Wire { capacity, ..Wire::default() }));
        let end = BrokerEnd(wire.clone());
        (Link { wire, sent: VecDeque::new(), sent_total: 0, dead: false, looked_at: 0 }, end)
    }

    /// The client sends. Gives the number of bytes it has sent in all.
    pub fn send(&mut self, bytes: &[u8]) -> u64 {
        if !self.dead {
            self.sent.extend(bytes);
        }
        self.sent_total += bytes.len() as u64;
        self.sent_total
    }

    /// Bytes on their way to the broker.
    pub fn upward(&self) -> usize {
        self.sent.len()
    }

    /// Bytes on their way to the client.
    pub fn downward(&self) -> usize {
        if self.dead { 0 } else { lock(&self.wire).written.len() }
    }

    /// Lets some bytes arrive at the broker.
    pub fn carry_up(&mut self, count: usize) {
        let mut wire = lock(&self.wire);
        let count = count.min(self.sent.len());
        wire.arrived.extend(self.sent.drain(..count));
        wire.readable = true;
    }

    /// Lets some bytes arrive at the client.
    pub fn carry_down(&mut self, count: usize) -> Vec<u8> {
        let mut wire = lock(&self.wire);
        let count = count.min(wire.written.len());
        self.looked_at = self.looked_at.saturating_sub(count);
        if std::mem::take(&mut wire.blocked) {
            wire.writable = true;
        }
        wire.written.drain(..count).collect()
    }

    /// Breaks: what is on its way is lost. `noticed` says whether the broker hears of it.
    pub fn cut(&mut self, noticed: bool) {
        self.dead = true;
        self.sent.clear();
        let mut wire = lock(&self.wire);
        wire.written.clear();
        self.looked_at = 0;
        if noticed {
            wire.ended = true;
            wire.readable = true;
        }
    }

    /// What the broker has not begun to read never arrives.
    pub fn withdraw(&mut self) {
        let mut wire = lock(&self.wire);
        if wire.read == 0 {
            wire.arrived.clear();
        }
    }

    /// The client closes in order: everything it sent arrives, then the end.
    pub fn close(&mut self) {
        let rest = self.sent.len();
        self.carry_up(rest);
        self.cut(true);
    }

    /// What the broker is to be told about this connection.
    pub fn take_ready(&mut self) -> Option<Ready> {
        let mut wire = lock(&self.wire);
        let token = wire.token?;
        let readable = std::mem::take(&mut wire.readable);
        let writable = std::mem::take(&mut wire.writable);
        (!wire.closed && (readable || writable)).then_some(Ready { token, readable, writable })
    }

    /// Whether the broker is to be told something.
    pub fn is_ready(&self) -> bool {
        let wire = lock(&self.wire);
        wire.token.is_some() && !wire.closed && (wire.readable || wire.writable)
    }

    /// The broker sends nothing more: all it sent has arrived.
    pub fn is_over(&self) -> bool {
        let wire = lock(&self.wire);
        self.dead || ((wire.closed || wire.finished) && wire.written.is_empty())
    }

    /// Whether the broker has read so many of the client's bytes while it still listened to them:
    /// at the end of a connection it reads on for nothing. One whose last bytes wait for room, or
    /// have room and do not know it yet, may be at its end.
    pub fn was_heard(&self, bytes: u64) -> bool {
        let wire = lock(&self.wire);
        let waits = wire.blocked || wire.writable;
        wire.read >= bytes && !wire.finished && !wire.closed && !waits
    }

    /// The broker has closed its end.
    pub fn is_closed(&self) -> bool {
        lock(&self.wire).closed
    }

    /// The broker had to wait for room.
    pub fn is_blocked(&self) -> bool {
        let wire = lock(&self.wire);
        wire.blocked || wire.writable
    }

    /// Bytes that the broker has written since this was last asked.
    pub fn news(&mut self) -> Vec<u8> {
        let wire = lock(&self.wire);
        let news = wire.written.iter().skip(self.looked_at).copied().collect();
        self.looked_at = wire.written.len();
        news
    }
}

impl Drop for BrokerEnd {
    fn drop(&mut self) {
        lock(&self.0).closed = true;
    }
}

impl Pipe for BrokerEnd {
    fn registered(&mut self, token: Token) {
        lock(&self.0).token = Some(token);
    }

    fn shutdown_write(&mut self) {
        lock(&self.0).finished = true;
    }
}

impl Read for BrokerEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = lock(&self.0);
        if wire.arrived.is_empty() {
            return if wire.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = wire.arrived.len().min(buffer.len());
        for (into, byte) in buffer.iter_mut().zip(wire.arrived.drain(..count)) {
            *into = byte;
        }
        wire.read += count as u64;
        // The end is an event of its own.
        wire.readable |= wire.ended;
        Ok(count)
    }
}

impl Write for BrokerEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = lock(&self.0);
        if wire.ended {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let count = bytes.len().min(wire.capacity.saturating_sub(wire.written.len()));
        if count == 0 && !bytes.is_empty() {
            wire.blocked = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.written.extend(&bytes[..count]);
        Ok(count)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let joined: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.write(&joined)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
