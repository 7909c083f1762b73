//! One connection as two buffers: bytes that came and are no whole packet yet, bytes that wait to
//! be written. Both can wait at the same time, and a wait that is given up loses nothing.

use std::io;

use hoopoe_codec::{Fault, frame_length};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use crate::dial::AnyWire;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;
/// Capacity that an empty buffer keeps.
const KEPT_BYTES: usize = 256 * 1024;

/// What comes.
pub struct Inbox {
    reader: ReadHalf<AnyWire>,
    bytes: Vec<u8>,
    used: usize,
    /// The largest packet taken.
    pub max_packet: u32,
}

/// What goes.
pub struct Outbox {
    writer: WriteHalf<AnyWire>,
    /// What waits; to be appended to.
    pub bytes: Vec<u8>,
    written: usize,
    flushed: bool,
}

/// The two halves of a connection.
pub fn split(wire: AnyWire, max_packet: u32) -> (Inbox, Outbox) {
    let (reader, writer) = tokio::io::split(wire);
    let inbox = Inbox { reader, bytes: Vec::new(), used: 0, max_packet };
    (inbox, Outbox { writer, bytes: Vec::new(), written: 0, flushed: true })
}

impl Inbox {
    /// Reads more.
    ///
    /// # Errors
    /// At the end of the stream too.
    pub async fn fill(&mut self) -> io::Result<()> {
        if self.used > 0 {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
        if self.bytes.is_empty() && self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.reserve(READ_BYTES);
        match self.reader.read_buf(&mut self.bytes).await? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")),
            _ => Ok(()),
        }
    }

    /// The next whole packet.
    ///
    /// # Errors
    /// When what comes is no packet, or one that is too large.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, Fault> {
        let rest = &self.bytes[self.used..];
        match frame_length(rest, self.max_packet)? {
            Some(length) if length <= rest.len() => {
                let start = self.used;
                self.used += length;
                Ok(Some(&self.bytes[start..start + length]))
            }
            _ => Ok(None),
        }
    }
}

impl Outbox {
    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether there is something to write.
    pub fn wants_write(&self) -> bool {
        !self.flushed || self.waiting() > 0
    }

    /// Writes everything that waits.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn push(&mut self) -> io::Result<()> {
        while self.waiting() > 0 {
            self.flushed = false;
            self.written += self.writer.write(&self.bytes[self.written..]).await?;
        }
        self.bytes.clear();
        self.written = 0;
        if self.bytes.capacity() > KEPT_BYTES {
            self.bytes = Vec::new();
        }
        // TLS and WebSocket may have kept something back.
        self.writer.flush().await?;
        self.flushed = true;
        Ok(())
    }

    /// Writes what waits and ends the stream.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn end(&mut self) -> io::Result<()> {
        self.push().await?;
        self.writer.shutdown().await
    }
}
