//! A socket without manners: it sends what it likes and reads when it likes.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use hoopoe_tests::{Connect, DEADLINE};

/// A connection written to without regard for what comes back.
pub(crate) struct Rude {
    stream: TcpStream,
    /// Read and not used yet.
    input: VecDeque<u8>,
}

impl Rude {
    /// Opens a connection; sends nothing.
    pub(crate) fn open(address: SocketAddr) -> Rude {
        let stream = TcpStream::connect_timeout(&address, DEADLINE)
            .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout can be set");
        Rude { stream, input: VecDeque::new() }
    }

    /// Opens a connection and sends CONNECT; the CONNACK is read.
    pub(crate) fn connect(address: SocketAddr, connect: &Connect) -> Rude {
        let mut rude = Rude::open(address);
        rude.send(&connect.encode());
        let head = rude.read_exactly(2);
        let rest = rude.read_exactly(usize::from(head[1]));
        assert_eq!((head[0], rest[1]), (0x20, 0), "CONNACK");
        rude
    }

    /// Sends; false when the broker has closed.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends the same bytes again and again, until `most` bytes are sent or the broker takes no
    /// more. What was begun is finished by [`read_answers`](Self::read_answers).
    pub(crate) fn flood(&mut self, unit: &[u8], most: usize) -> Flooded {
        let block = unit.repeat((32 * 1024 / unit.len()).max(1));
        self.stream.set_write_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        let (mut sent, mut at) = (0, 0);
        let mut refused = false;
        while sent < most {
            match self.stream.write(&block[at..]) {
                Ok(0) => break,
                Ok(count) => {
                    sent += count;
                    at = (at + count) % block.len();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(error.kind()) => {
                    refused = true;
                    break;
                }
                Err(_) => break,
            }
        }
        self.stream.set_write_timeout(None).expect("a timeout can be taken back");
        let begun = sent % unit.len();
        let whole = sent / unit.len();
        let rest = if begun > 0 { unit[begun..].to_vec() } else { Vec::new() };
        Flooded { units: whole + usize::from(begun > 0), rest, refused }
    }

    /// Sends the rest of the unit that was begun, while one answer after the other is read: the
    /// broker takes nothing before it has got rid of some.
    pub(crate) fn read_answers(&mut self, flooded: &Flooded, answer: &[u8]) {
        let mut stream = self.stream.try_clone().expect("a socket can be cloned");
        std::thread::scope(|scope| {
            let rest = scope.spawn(move || stream.write_all(&flooded.rest));
            for number in 0..flooded.units {
                assert_eq!(self.read_exactly(answer.len()), answer, "answer {number}");
            }
            rest.join().expect("no panic").expect("the broker reads on");
        });
    }

    /// Reads some bytes; `None` at the end of the connection.
    pub(crate) fn read(&mut self, most: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; most];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => {
                    buffer.truncate(count);
                    return Some(buffer);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_timeout(error.kind()) => {
                    panic!("the broker sent nothing within {DEADLINE:?}")
                }
                Err(_) => return None,
            }
        }
    }

    /// Reads what is there, but no more than `most` bytes.
    pub(crate) fn read_ready(&mut self, most: usize) {
        self.stream.set_nonblocking(true).expect("a socket can be made non-blocking");
        let mut buffer = vec![0; 32 * 1024];
        let mut left = most;
        while left > 0 {
            let room = left.min(buffer.len());
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => panic!("the broker has closed"),
                Ok(count) => left -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("reading: {error}"),
            }
        }
        self.stream.set_nonblocking(false).expect("a socket can be made blocking");
    }

    /// Reads exactly so many bytes.
    pub(crate) fn read_exactly(&mut self, count: usize) -> Vec<u8> {
        while self.input.len() < count {
            let more = self.read(64 * 1024).expect("the broker has closed");
            self.input.extend(more);
        }
        self.input.drain(..count).collect()
    }

    /// Reads one MQTT packet.
    pub(crate) fn read_packet(&mut self) -> Vec<u8> {
        let mut packet = self.read_exactly(1);
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.read_exactly(1)[0];
            packet.push(byte);
            length |= usize::from(byte & 0x7F) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        packet.extend(self.read_exactly(length));
        packet
    }

    /// Reads to the end of the connection, which must come in time; gives how long it took.
    pub(crate) fn expect_end(&mut self) -> Duration {
        let started = Instant::now();
        while self.read(64 * 1024).is_some() {}
        started.elapsed()
    }
}

/// How far a flood got.
pub(crate) struct Flooded {
    units: usize,
    rest: Vec<u8>,
    /// The broker took no more.
    pub refused: bool,
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// WebSocket by hand, so that frames can be as wrong as they like.
impl Rude {
    /// Asks for a WebSocket and reads the answer.
    pub(crate) fn upgrade(&mut self) {
        assert!(self.send(
            b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
              Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
              Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        ));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read_exactly(1));
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    }

    /// A binary frame, masked.
    pub(crate) fn frame(bytes: &[u8]) -> Vec<u8> {
        let mask = [0x11, 0x22, 0x33, 0x44];
        let mut frame = vec![0x82];
        match u16::try_from(bytes.len()) {
            Ok(length) if length < 126 => frame.push(0x80 | length as u8),
            Ok(length) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            Err(_) => panic!("a longer frame than these tests need"),
        }
        frame.extend(mask);
        frame.extend(bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// Sends a binary frame.
    pub(crate) fn send_frame(&mut self, bytes: &[u8]) {
        assert!(self.send(&Rude::frame(bytes)), "the broker has closed");
    }
}
