//! Bytes on their way to a socket: small packets copied one after the other, large payloads
//! shared and woven in, all written with one system call per turn.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::Bytes;

/// Payloads from this size on are shared between receivers instead of copied: below it, copying
/// is cheaper than counting references and writing from many places.
pub const SHARED_FROM_BYTES: usize = 4096;

/// Slices per vectored write.
const MOST_SLICES: usize = 64;

/// Capacity that a buffer may keep when it goes back to the pool: a page of a conversation's entries
/// does not make it grow anew.
const KEPT_CAPACITY: usize = 64 * 1024;
/// Bytes that the system has taken and that may yet stand before what waits; more are forgotten as
/// soon as they are the greater part.
const WRITTEN_KEPT: usize = 16 * 1024;

#[derive(Debug)]
struct Shared {
    /// Position in `bytes` before which the data goes.
    at: usize,
    data: Bytes,
}

/// What is to be written to one socket.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    written: usize,
    shared: VecDeque<Shared>,
    shared_bytes: usize,
}

/// Bytes of buffers kept for the next turns.
const POOLED_BYTES: usize = 16 << 20;
/// Buffers kept, however small.
const POOLED_OUTPUTS: usize = 8192;

/// Buffers between two uses. They are boxed because a connection without output holds a pointer
/// only, and takes and gives back its buffer without copying.
#[derive(Debug, Default)]
pub struct Pool {
    #[expect(clippy::vec_box, reason = "boxes go back and forth, their contents stay")]
    free: Vec<Box<Output>>,
    bytes: usize,
}

impl Pool {
    /// An empty buffer.
    pub fn take(&mut self) -> Box<Output> {
        let Some(output) = self.free.pop() else { return Box::default() };
        self.bytes -= output.bytes.capacity();
        output
    }

    /// A buffer that is not needed any more; what it held is forgotten.
    pub fn give(&mut self, mut output: Box<Output>) {
        output.clear();
        let bytes = output.bytes.capacity();
        if self.free.len() < POOLED_OUTPUTS && self.bytes + bytes <= POOLED_BYTES {
            self.bytes += bytes;
            self.free.push(output);
        }
    }
}

/// How a write ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// Everything is with the system.
    Done,
    /// The socket takes no more now.
    Blocked,
}

impl Output {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written + self.shared_bytes
    }

    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer that packets are encoded into.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends a payload: shared if it is large, copied otherwise.
    pub fn push_payload(&mut self, payload: &[u8], shared: Option<&Bytes>) {
        match shared {
            Some(data) if data.len() >= SHARED_FROM_BYTES => {
                self.shared_bytes += data.len();
                self.shared.push_back(Shared { at: self.bytes.len(), data: data.clone() });
            }
            _ => self.bytes.extend_from_slice(payload),
        }
    }

    /// Writes as much as the socket takes.
    pub fn write_to(&mut self, socket: &mut impl Write) -> io::Result<Flush> {
        while !self.is_empty() {
            let result = if self.shared.is_empty() {
                socket.write(&self.bytes[self.written..])
            } else {
                socket.write_vectored(&self.slices())
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.forget_written();
                    return Ok(Flush::Blocked);
                }
                Err(e) => return Err(e),
            }
        }
        self.clear();
        Ok(Flush::Done)
    }

    /// A receiver that reads, but never so much that nothing waits, must not make the buffer grow
    /// by all that it has ever been sent.
    fn forget_written(&mut self) {
        if self.written > WRITTEN_KEPT && self.written > self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            for shared in &mut self.shared {
                shared.at -= self.written;
            }
            self.written = 0;
        }
    }

    /// Gives every piece in order and leaves nothing.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        let mut from = self.written;
        for shared in &self.shared {
            each(&self.bytes[from..shared.at]);
            each(&shared.data);
            from = shared.at;
        }
        each(&self.bytes[from..]);
        self.clear();
    }

    /// Empties the buffer; a very large one gives its memory back.
    pub fn clear(&mut self) {
        self.written = 0;
        self.shared.clear();
        self.shared_bytes = 0;
        if self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    fn slices(&self) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(MOST_SLICES.min(2 * self.shared.len() + 1));
        let mut from = self.written;
        for shared in self.shared.iter().take(MOST_SLICES / 2) {
            if shared.at > from {
                slices.push(IoSlice::new(&self.bytes[from..shared.at]));
            }
            slices.push(IoSlice::new(&shared.data));
            from = shared.at;
        }
        if slices.len() < MOST_SLICES && self.shared.len() <= MOST_SLICES / 2 {
            slices.push(IoSlice::new(&self.bytes[from..]));
        }
        slices
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let end = self.shared.front().map_or(self.bytes.len(), |shared| shared.at);
            let copied = count.min(end - self.written);
            self.written += copied;
            count -= copied;
            let Some(shared) = self.shared.front_mut().filter(|_| count > 0) else { continue };
            let part = count.min(shared.data.len());
            bytes::Buf::advance(&mut shared.data, part);
            self.shared_bytes -= part;
            count -= part;
            if shared.data.is_empty() {
                self.shared.pop_front();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes at most `step` bytes a call and blocks every other call.
    struct Slow {
        taken: Vec<u8>,
        step: usize,
        blocked: bool,
    }

    impl Write for Slow {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.blocked = !self.blocked;
            if self.blocked {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = buf.len().min(self.step);
            self.taken.extend_from_slice(&buf[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes as much as it has room for.
    struct Reader {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Reader {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let count = buf.len().min(self.room);
            self.room -= count;
            self.taken.extend_from_slice(&buf[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn filled() -> (Output, Vec<u8>) {
        let mut output = Output::default();
        let mut expected = Vec::new();
        for n in 0..200u32 {
            let head = n.to_be_bytes();
            output.bytes().extend_from_slice(&head);
            expected.extend_from_slice(&head);
            let size = if n % 3 == 0 { SHARED_FROM_BYTES + n as usize } else { 7 };
            let payload = Bytes::from(vec![n as u8; size]);
            output.push_payload(&payload, Some(&payload));
            expected.extend_from_slice(&payload);
        }
        (output, expected)
    }

    #[test]
    fn every_byte_arrives_in_order_however_little_the_socket_takes() {
        for step in [1, 1000, 100_000] {
            let (mut output, expected) = filled();
            assert_eq!(output.len(), expected.len());
            let mut socket = Slow { taken: Vec::new(), step, blocked: false };
            while output.write_to(&mut socket).unwrap() == Flush::Blocked {}
            assert!(socket.taken == expected, "step {step}");
            assert!(output.is_empty());
        }
    }

    #[test]
    fn what_is_written_takes_no_room_although_something_always_waits() {
        let mut output = Output::default();
        let mut socket = Reader { taken: Vec::new(), room: 0 };
        let (mut expected, mut most) = (Vec::new(), 0);
        for n in 0..1000u32 {
            let head = [n as u8; 4 * 1024];
            let payload = Bytes::from(vec![!n as u8; SHARED_FROM_BYTES]);
            output.bytes().extend_from_slice(&head);
            output.push_payload(&payload, Some(&payload));
            expected.extend_from_slice(&head);
            expected.extend_from_slice(&payload);
            if n > 2 {
                socket.room = 8 * 1024;
                assert_eq!(output.write_to(&mut socket).unwrap(), Flush::Blocked);
            }
            most = most.max(output.bytes.capacity());
        }
        assert!(most <= 4 * WRITTEN_KEPT, "{most} bytes held");
        socket.room = usize::MAX;
        assert_eq!(output.write_to(&mut socket).unwrap(), Flush::Done);
        assert!(socket.taken == expected);
    }

    #[test]
    fn draining_gives_the_same_bytes() {
        let (mut output, expected) = filled();
        let mut taken = Vec::new();
        output.drain(|piece| taken.extend_from_slice(piece));
        assert!(taken == expected);
        assert!(output.is_empty());
    }
}
