//! A node with all its threads, as clients see it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::connection::{Listener, Seats};
use crate::settings::Door;
use crate::telemetry::Dropped;
use crate::transport::{Carrier, GateLimits, ListenerGate, ListenerTransport, WebSocketSettings};

/// How long a client waits for the broker.
const LIMIT: Duration = Duration::from_secs(30);

/// A node in memory.
struct Running {
    node: Node,
    settings: Settings,
    threads: Option<Threads>,
}

impl Running {
    fn start() -> Running {
        let mut settings = Settings::default();
        (settings.broker.workers, settings.broker.shards) = (1, 1);
        settings.broker.durability = Durability::Memory;
        let access = Arc::new(Access::open(&settings.access).unwrap());
        let store = Store::open(&store_settings(&settings)).unwrap();
        let (node, parts) = Node::prepare(&settings, access, store, clock::now_ms()).unwrap();
        let threads = Some(Threads::start(parts, &node).unwrap());
        Running { node, settings, threads }
    }

    /// A connection, as an acceptor hands it to the worker.
    fn open(&self, carrier: Carrier) -> Client {
        let (theirs, ours) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        ours.set_read_timeout(Some(LIMIT)).unwrap();
        let listener = Listener {
            url: "test".to_owned(),
            transport: Arc::new(ListenerTransport::new(carrier)),
            door: Arc::new(Door { anonymous: true, development: true }).into(),
            limits: Arc::new(plain_limits(&self.settings)).into(),
            subject_as_user: false,
            im: false,
            connect_timeout_secs: 60,
            bridge: None,
        };
        let open = GateLimits { connections_max: 1, connect_rate: None };
        let permit = ListenerGate::new(&open, Instant::now()).enter().unwrap();
        let seat = self.node.seats.take();
        self.node.env.fabric.workers[0].put(Mail::Accepted {
            stream: theirs.into(),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            listener: Arc::new(listener),
            seats: Seats { permit, seat },
        });
        Client(ours)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.node.env.fabric.workers[0].put(Mail::Stop { hurry: true });
        let ended = self.threads.take().map(|threads| threads.join(&self.node.store));
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// The client's end.
struct Client(UnixStream);

impl Client {
    /// MQTT below WebSocket frames.
    fn over_websocket(running: &Running) -> Client {
        let web = WebSocketSettings {
            path: "/mqtt".to_owned(),
            origins: Vec::new(),
            local_pages_only: false,
        };
        let mut client = running.open(Carrier::WebSocket(Arc::new(web)));
        client.send(
            b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
              Sec-WebSocket-Protocol: mqtt\r\n\r\n",
        );
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.extend(client.take(1));
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        client
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// A frame whose mask changes nothing.
    fn send_frame(&mut self, kind: u8, payload: &[u8]) {
        let head = [kind, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        self.send(&[&head, payload].concat());
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn take_to_end(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// The next packet, which is a short one of this kind.
    fn expect(&mut self, first: u8) -> Vec<u8> {
        let head = self.take(2);
        assert_eq!(head[0], first, "{head:02x?}");
        self.take(usize::from(head[1]))
    }

    /// A session of MQTT 5.0 that is kept for 100 seconds; whether it was there.
    fn log_in(running: &Running, id: &str, clean: bool) -> (Client, bool) {
        let mut client = running.open(Carrier::Tcp);
        let flags = [5, if clean { 2 } else { 0 }, 0, 0, 5, 0x11, 0, 0, 0, 100];
        client.send(&packet(0x10, &[&text("MQTT"), &flags, &text(id)]));
        let connack = client.expect(0x20);
        assert_eq!(connack[1], 0, "let in");
        (client, connack[0] == 1)
    }

    /// Ends in order; the session has gone back to its shard then.
    fn log_out(mut self) {
        self.send(&[0xE0, 0]);
        self.take_to_end();
    }
}

fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    assert!(body.len() < 128);
    [&[first, body.len() as u8], &body[..]].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

/// RFC 6455, 5.5.1: with the same status.
#[test]
fn a_close_frame_is_answered_before_and_after_connect() {
    let running = Running::start();
    let normal = 1000_u16.to_be_bytes();
    let gone = 1001_u16.to_be_bytes();
    let with_reason = [&normal[..], b"bye"].concat();
    for connected in [false, true] {
        for (status, answer) in
            [(&normal[..], &normal[..]), (&gone, &gone), (&with_reason, &normal), (&[], &[])]
        {
            let mut client = Client::over_websocket(&running);
            if connected {
                client.send_frame(0x82, b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01w");
                assert_eq!(client.take(6), [0x82, 4, 0x20, 2, 0, 0]);
            }
            client.send_frame(0x88, status);
            let expected = [&[0x88, answer.len() as u8], answer].concat();
            assert_eq!(client.take_to_end(), expected, "connected: {connected}");
        }
    }
}

/// A fault in a frame is told with its status, whoever the client is.
#[test]
fn a_faulty_frame_is_answered_before_and_after_connect() {
    let running = Running::start();
    for connected in [false, true] {
        let mut client = Client::over_websocket(&running);
        if connected {
            client.send_frame(0x82, b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01f");
            assert_eq!(client.take(6), [0x82, 4, 0x20, 2, 0, 0]);
        }
        client.send_frame(0x81, b"text");
        assert_eq!(client.take_to_end(), [&[0x88, 2][..], &1003_u16.to_be_bytes()].concat());
    }
}

#[test]
fn what_has_expired_in_a_stored_queue_is_counted_once() {
    let running = Running::start();
    let counters = &running.node.env.telemetry.workers[0];
    let (mut subscriber, _) = Client::log_in(&running, "s", true);
    subscriber.send(&packet(0x82, &[&[0, 1, 0], &text("t"), &[1]]));
    subscriber.expect(0x90);
    subscriber.log_out();
    let (mut publisher, _) = Client::log_in(&running, "p", true);
    for id in 1..=4 {
        // Message Expiry Interval: none is left.
        publisher.send(&packet(0x32, &[&text("t"), &[0, id, 5, 2, 0, 0, 0, 0], b"x"]));
        publisher.expect(0x40);
    }
    for id in 5..=6 {
        publisher.send(&packet(0x32, &[&text("t"), &[0, id, 0], b"y"]));
        publisher.expect(0x40);
        let (mut back, present) = Client::log_in(&running, "s", false);
        assert!(present);
        let publish = back.expect(0x32);
        assert_eq!(publish.last(), Some(&b'y'), "what has not expired");
        assert_eq!(counters.drops(Dropped::Expired), 4);
        back.send(&packet(0x40, &[&publish[3..5]]));
        back.log_out();
    }
}
