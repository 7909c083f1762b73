//! One connection's socket and buffers, and the last packets both ways for the report of a failure.

use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Instant;

use hoopoe_codec::{MAX_PACKET_LEN, Receiver, Version, decode, decode_connect, frame_length};

use super::answers::Request;
use super::conversation::{Conversation, Stage};
use super::ledger::Ledger;
use super::limits::Limits;
use super::random::Random;
use crate::DEADLINE;

/// Packets kept for the report of a failure, and bytes of each.
const TRANSCRIPT_PACKETS: usize = 400;
const TRANSCRIPT_BYTES: usize = 300;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;

/// A connection with everything the run knows of it.
pub struct Link {
    /// The model.
    pub conversation: Conversation,
    /// What the client means to do about packets it received.
    pub requests: VecDeque<Request>,
    /// Packets it will still make up.
    pub actions: usize,
    /// Turns in which nothing is read.
    pub stalled: usize,
    /// When something was last written.
    pub heard: Instant,
    /// The next packet identifier.
    pub next_id: u16,
    /// Close as soon as everything is written, without waiting for the broker.
    pub hasty: bool,
    socket: TcpStream,
    out: Vec<u8>,
    /// The packets of `out`, each with how many bytes of it are left to write.
    queued: VecDeque<(usize, Passed)>,
    input: Vec<u8>,
    transcript: Transcript,
}

/// A packet that passed, either way.
#[derive(Clone, Debug)]
struct Passed {
    /// The ledger's counter when it did.
    at: u64,
    direction: char,
    length: usize,
    /// Its beginning.
    bytes: Vec<u8>,
}

/// The last packets of a connection both ways.
#[derive(Clone, Debug)]
pub struct Transcript {
    number: u64,
    version: Version,
    packets: VecDeque<Passed>,
}

/// What reading brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Socket {
    /// Nothing more at the moment.
    Open,
    /// The end.
    Closed,
}

impl Link {
    /// Opens a connection; sends nothing.
    pub fn open(address: SocketAddr, number: u64, limits: Rc<Limits>) -> Link {
        let socket = TcpStream::connect_timeout(&address, DEADLINE)
            .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
        socket.set_nodelay(true).expect("TCP_NODELAY can be set");
        socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        Link {
            conversation: Conversation::new(number, limits),
            requests: VecDeque::new(),
            actions: 0,
            stalled: 0,
            heard: Instant::now(),
            next_id: 1,
            hasty: false,
            socket,
            out: Vec::new(),
            queued: VecDeque::new(),
            input: Vec::new(),
            transcript: Transcript { number, version: Version::V5, packets: VecDeque::new() },
        }
    }

    /// Puts a packet behind those that wait to be written.
    pub fn queue(&mut self, packet: &[u8]) {
        if !packet.is_empty() {
            self.queued.push_back((packet.len(), Passed::new('>', packet)));
            self.out.extend_from_slice(packet);
        }
    }

    /// Bytes that wait to be written.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Writes some of what waits: mostly all of it, sometimes a few bytes.
    pub fn write(&mut self, random: &mut Random, ledger: &mut Ledger) {
        let count = match random.below(12) {
            0 => random.below(self.out.len() + 1),
            1 => random.within(1, 3).min(self.out.len()),
            _ => self.out.len(),
        };
        if count == 0 {
            return;
        }
        match self.socket.write(&self.out[..count]) {
            Ok(count) => {
                self.heard = Instant::now();
                self.conversation.written(&self.out[..count], ledger);
                self.transcript.version = self.conversation.version();
                self.out.drain(..count);
                self.note_written(count, ledger.now());
            }
            Err(error) if is_pause(error.kind()) => {}
            // The broker has closed: reading tells.
            Err(_) => {
                self.out.clear();
                self.queued.clear();
            }
        }
    }

    /// Reads what is there; each packet is judged.
    pub fn read(&mut self, ledger: &mut Ledger) -> Result<Socket, String> {
        let mut chunk = [0u8; READ_BYTES];
        let end = match self.socket.read(&mut chunk) {
            Ok(0) => true,
            Ok(count) => {
                self.input.extend_from_slice(&chunk[..count]);
                false
            }
            Err(error) if is_pause(error.kind()) => return Ok(Socket::Open),
            Err(_) => true,
        };
        let mut used = 0;
        while let Some(length) = frame_length(&self.input[used..], MAX_PACKET_LEN as u32)
            .map_err(|fault| format!("no packet begins here: {fault}"))?
        {
            let frame = self.input[used..used + length].to_vec();
            used += length;
            self.transcript.note(Passed::new('<', &frame), ledger.now());
            let request = self.conversation.received(&frame, ledger)?;
            if request != Request::Nothing {
                self.requests.push_back(request);
            }
        }
        self.input.drain(..used);
        if !end {
            return Ok(Socket::Open);
        }
        self.transcript.note(Passed::new('|', &[]), ledger.now());
        self.conversation.closed(ledger)?;
        self.leave_transcript(ledger);
        Ok(Socket::Closed)
    }

    /// Gives the connection up without a word.
    pub fn cut(&mut self, ledger: &mut Ledger) {
        self.conversation.tell(ledger, "cut");
        // The broker may have closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
        if let Some(hello) = self.conversation.hello.as_ref().filter(|hello| hello.tracked)
            && self.conversation.stage == Stage::Greeting
        {
            ledger.connected(&hello.client_id, false);
        }
        self.leave_transcript(ledger);
    }

    fn leave_transcript(&mut self, ledger: &mut Ledger) {
        if let Some(hello) = self.conversation.hello.as_ref().filter(|hello| hello.tracked) {
            ledger.leave_transcript(&hello.client_id, self.transcript.clone());
        }
    }

    fn note_written(&mut self, mut count: usize, now: u64) {
        while let Some((left, _)) = self.queued.front_mut() {
            if *left > count {
                *left -= count;
                return;
            }
            count -= *left;
            if let Some((_, passed)) = self.queued.pop_front() {
                self.transcript.note(passed, now);
            }
        }
    }

    /// The last packets both ways, the terms, and what is owed.
    pub fn report(&self, ledger: &Ledger) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        let conversation = &self.conversation;
        let _ = writeln!(text, "connection {}: {:?}", conversation.number, conversation.hello);
        let _ = writeln!(
            text,
            "{:?}, resumed {}, doom {:?}, excuse {:?}, disconnected {}, {} bytes not written",
            conversation.stage,
            conversation.resumed,
            conversation.doom,
            conversation.excuse,
            conversation.ended,
            self.out.len()
        );
        if let Some(hello) = &conversation.hello {
            text += &ledger.history(&hello.client_id);
        }
        let _ = writeln!(text, "owed: {:?}", conversation.expected);
        let _ = writeln!(text, "in flight: {:?}", conversation.in_flight);
        let _ = write!(text, "{}", self.transcript);
        for (_, packet) in &self.queued {
            let _ = writeln!(text, "not written: {}", self.transcript.describe(packet));
        }
        if let Some(hello) = &conversation.hello {
            for earlier in ledger.transcripts(&hello.client_id) {
                let _ = write!(text, "{earlier}");
            }
        }
        text
    }
}

impl Passed {
    fn new(direction: char, packet: &[u8]) -> Passed {
        let bytes = packet[..packet.len().min(TRANSCRIPT_BYTES)].to_vec();
        Passed { at: 0, direction, length: packet.len(), bytes }
    }
}

impl Transcript {
    fn note(&mut self, passed: Passed, now: u64) {
        if self.packets.len() == TRANSCRIPT_PACKETS {
            self.packets.pop_front();
        }
        self.packets.push_back(Passed { at: now, ..passed });
    }

    fn describe(&self, passed: &Passed) -> String {
        let receiver = if passed.direction == '>' { Receiver::Server } else { Receiver::Client };
        let decoded = match passed.bytes.first() {
            Some(first) if first >> 4 == 1 => {
                decode_connect(&passed.bytes).map(|connect| format!("{connect:?}"))
            }
            Some(_) => {
                decode(self.version, receiver, &passed.bytes).map(|packet| format!("{packet:?}"))
            }
            None => return "closed".to_owned(),
        };
        match decoded {
            Ok(mut text) => {
                if text.len() > 400 {
                    let cut = (0..=400).rev().find(|at| text.is_char_boundary(*at));
                    text.truncate(cut.unwrap_or(0));
                }
                text
            }
            Err(_) => {
                let hex = passed.bytes.iter().take(64).map(|byte| format!("{byte:02x}"));
                let hex: Vec<String> = hex.collect();
                format!("{} bytes: {}", passed.length, hex.join(" "))
            }
        }
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "packets of connection {}:", self.number)?;
        for passed in &self.packets {
            writeln!(f, "{:5} {} {}", passed.at, passed.direction, self.describe(passed))?;
        }
        Ok(())
    }
}

fn is_pause(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
