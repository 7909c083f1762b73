//! The pages over a real socket.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{AdminState, Gauges, NodePhase, serve};
use crate::telemetry::Telemetry;

/// A listener on a port of its own, on a thread of its own.
struct Server {
    address: SocketAddr,
    state: Arc<AdminState>,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<std::io::Result<()>>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

impl Server {
    fn start() -> Server {
        let telemetry = Arc::new(Telemetry::new(1, 4));
        let gauges = Box::new(Gauges::default);
        let state = Arc::new(AdminState::new(telemetry, Vec::new(), gauges, "memory"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = state.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(listener, served, None, async {
                let _ = stopped.await;
            }))
        });
        Server { address, state, stop, thread }
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    }

    /// Sends one request and reads to the end of the connection.
    fn ask(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap().unwrap();
    }
}

#[test]
fn health_is_ok_in_every_phase() {
    let server = Server::start();
    for phase in [NodePhase::Starting, NodePhase::Ready, NodePhase::Stopping] {
        server.state.set_phase(phase);
        assert_eq!(server.state.phase(), phase);
        let answer = server.get("/health");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    }
    server.stop();
}

#[test]
fn ready_gives_its_reasons() {
    let server = Server::start();
    let shards = &server.state.instruments.telemetry.shards;
    for (phase, unwritable, status, reasons) in [
        (NodePhase::Starting, &[][..], 503, json!(["starting"])),
        (NodePhase::Ready, &[], 200, json!([])),
        (NodePhase::Ready, &[1, 3], 503, json!(["store_not_writable"])),
        (NodePhase::Stopping, &[0], 503, json!(["stopping", "store_not_writable"])),
    ] {
        server.state.set_phase(phase);
        for (number, shard) in shards.iter().enumerate() {
            shard.writable.store(!unwritable.contains(&number), Ordering::Release);
        }
        let answer = server.get("/ready");
        let readiness = answer.json();
        assert_eq!(answer.status, status, "{phase:?}");
        assert_eq!(readiness["ready"], json!(status == 200));
        assert_eq!(readiness["reasons"], reasons);
        assert_eq!(readiness["shards_not_writable"], json!(unwritable));
        assert_eq!(readiness["durability"], json!("memory"));
    }
    server.stop();
}

#[test]
fn metrics_are_text_for_prometheus() {
    let server = Server::start();
    server.state.instruments.telemetry.workers[0].connects.add(5);
    let answer = server.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.body.contains("\nhoopoe_connects_total 5\n"), "{}", answer.body);
    server.stop();
}

#[test]
fn other_pages_and_methods_are_refused() {
    let server = Server::start();
    for path in ["/", "/metrics/", "/health/x", "/admin"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.json()["error"].clone()), (404, json!("not_found")));
    }
    let request =
        "POST /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let answer = server.ask(request);
    assert_eq!((answer.status, answer.json()["error"].clone()), (405, json!("method_not_allowed")));
    let answer = server.ask("HEAD /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert_eq!((answer.status, answer.body.as_str()), (503, ""));
    server.stop();
}

#[test]
fn what_is_too_large_is_refused_and_disturbs_nobody() {
    let server = Server::start();
    let headers: String = (0..100).map(|number| format!("x-{number}: y\r\n")).collect();
    let answer = server.ask(&format!("GET /health HTTP/1.1\r\nhost: x\r\n{headers}\r\n"));
    assert_eq!(answer.status, 431);
    let long = "y".repeat(super::server::HEAD_BYTES_MAX);
    let answer = server.ask(&format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {long}"));
    assert_eq!(answer.status, 431);
    assert_eq!(server.get("/health").status, 200);
    server.stop();
}

#[test]
fn what_a_refusal_leaves_of_a_request_does_not_cost_the_connection() {
    let server = Server::start();
    let mut kept = TcpStream::connect(server.address).unwrap();
    kept.set_nodelay(true).unwrap();
    let mut answered = |path: &str| {
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 7\r\n\r\n");
        kept.write_all(head.as_bytes()).unwrap();
        kept.write_all(b"{\"a\":1}").unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"}") {
            let mut byte = [0];
            kept.read_exact(&mut byte).expect("the connection stays");
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    };
    for _ in 0..10 {
        assert!(answered("/ready").starts_with("HTTP/1.1 405"));
        assert!(answered("/nowhere").starts_with("HTTP/1.1 404"));
    }
    let head = "POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n";
    let most = "x".repeat(super::unread::MOST_BYTES + 1);
    let answer = server.ask(&format!("{head}{most}"));
    assert_eq!(answer.status, 404);
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    server.stop();
}

#[test]
fn idle_connections_do_not_hold_up_the_end() {
    let server = Server::start();
    let mut idle = TcpStream::connect(server.address).unwrap();
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut first = [0; 15];
    idle.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    server.stop();
    let mut rest = String::new();
    idle.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("ok"), "{rest}");
}
