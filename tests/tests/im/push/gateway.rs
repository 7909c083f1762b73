//! A push gateway that does what a test tells it, request by request; then it takes everything.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use hoopoe_tests::DEADLINE;
use hoopoe_tests::certificate::Certificates;
use hoopoe_tests::tls::accept;
use serde_json::Value;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// 200, over a connection that is kept.
    Take,
    /// The same in chunks, a byte at a time, and closed.
    TakeSlowly,
    /// An answer with this status.
    Status(u16),
    /// No answer; the connection stays open.
    Hang,
    /// Closed without an answer.
    Close,
    /// Closed within an answer that would have taken it.
    CloseMidAnswer,
    /// Something that is no HTTP.
    Nonsense,
}

/// A request that came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) fate: Fate,
    pub(super) signature: String,
    pub(super) pushes: Vec<Value>,
}

/// A gateway that runs.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    requests: Receiver<Request>,
    sender: Sender<Request>,
    fates: Arc<Mutex<VecDeque<Fate>>>,
    stop: Arc<AtomicBool>,
    served: Option<std::thread::JoinHandle<()>>,
    /// What it shows, when it speaks TLS.
    certificates: Option<Arc<Certificates>>,
    /// Pushes of a request that were not asked for yet.
    left: VecDeque<Value>,
}

impl Gateway {
    pub(super) fn start(fates: &[Fate]) -> Gateway {
        Gateway::over(fates, None)
    }

    /// The same over TLS, when there are certificates.
    pub(super) fn over(fates: &[Fate], certificates: Option<Arc<Certificates>>) -> Gateway {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let (sender, requests) = channel();
        let fates = Arc::new(Mutex::new(fates.iter().copied().collect()));
        let stop = Arc::new(AtomicBool::new(true));
        let (served, left) = (None, VecDeque::new());
        let mut gateway =
            Gateway { address, requests, sender, fates, stop, served, certificates, left };
        gateway.open();
        gateway
    }

    /// Listens, again at the address it had.
    pub(super) fn open(&mut self) {
        let listener = TcpListener::bind(self.address).expect("the address is free");
        self.address = listener.local_addr().expect("it has an address");
        self.stop = Arc::new(AtomicBool::new(false));
        let (stop, sender, fates) = (self.stop.clone(), self.sender.clone(), self.fates.clone());
        let certificates = self.certificates.clone();
        self.served = Some(std::thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::Acquire) {
                    break;
                }
                open.extend(stream.try_clone());
                let (sender, fates) = (sender.clone(), fates.clone());
                let certificates = certificates.clone();
                std::thread::spawn(move || {
                    let socket = stream.try_clone().expect("a second handle");
                    match certificates {
                        Some(shown) => {
                            serve(&mut BufReader::new(accept(stream, &shown)), &sender, &fates);
                        }
                        None => serve(&mut BufReader::new(stream), &sender, &fates),
                    }
                    // Others hold it too: closed is closed.
                    let _ = socket.shutdown(std::net::Shutdown::Both);
                });
            }
            for stream in open {
                // Closed by the other side already, perhaps.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        }));
    }

    /// Whether nothing has come so far that was not asked for.
    pub(super) fn is_quiet(&self) -> bool {
        self.requests.try_recv().is_err()
    }

    /// Nobody listens any more, and connections are cut.
    pub(super) fn close(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.address));
        if let Some(served) = self.served.take() {
            served.join().expect("the gateway ends");
        }
    }

    /// The next request, whatever became of it.
    pub(super) fn request(&mut self) -> Request {
        self.requests.recv_timeout(DEADLINE).expect("a request comes in time")
    }

    /// The next push that was taken.
    pub(super) fn push(&mut self) -> Value {
        loop {
            if let Some(push) = self.left.pop_front() {
                return push;
            }
            let request = self.request();
            if matches!(request.fate, Fate::Take | Fate::TakeSlowly) {
                self.left.extend(request.pushes);
            }
        }
    }

    /// Conversation and seq of the next pushes that were taken.
    pub(super) fn seqs(&mut self, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.push()["seq"].as_u64().expect("a seq")).collect()
    }

    /// The settings that send pushes here.
    pub(super) fn settings(&self, more: &str) -> String {
        let url = match &self.certificates {
            Some(_) => format!("https://localhost:{}/push", self.address.port()),
            None => format!("http://{}/push", self.address),
        };
        let hangs = self.fates.lock().expect("no test failed here").contains(&Fate::Hang);
        // Waited for only where it is part of the test.
        let timeout_ms = if hangs { 2_000 } else { 60_000 };
        format!(
            "[im.push]\nurl = \"{url}\"\nsecret = \"a secret of this test\"\n\
             retry_first_ms = 10\nretry_max_secs = 1\ntimeout_ms = {timeout_ms}\n{more}\n"
        )
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.close();
    }
}

fn serve<S: Read + Write>(
    reader: &mut BufReader<S>,
    sender: &Sender<Request>,
    fates: &Mutex<VecDeque<Fate>>,
) {
    while let Some((signature, body)) = read_request(reader) {
        let fate = fates.lock().expect("no test failed here").pop_front().unwrap_or(Fate::Take);
        let body: Value = serde_json::from_slice(&body).expect("a body of JSON");
        let pushes = body["pushes"].as_array().expect("a list of pushes").clone();
        let mut answer = |text: &str| {
            // The broker may have gone.
            let _ = reader.get_mut().write_all(text.as_bytes());
        };
        match fate {
            Fate::Take => answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
            Fate::TakeSlowly => {
                let text = "HTTP/1.1 202 Yes\r\ntransfer-encoding: chunked\r\n\
                    connection: close\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
                for at in 0..text.len() {
                    answer(&text[at..=at]);
                }
            }
            Fate::Status(status) => {
                answer(&format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n"));
            }
            Fate::CloseMidAnswer => answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"),
            Fate::Nonsense => answer("well, well\r\n\r\n"),
            Fate::Hang | Fate::Close => {}
        }
        if sender.send(Request { fate, signature, pushes }).is_err() {
            return;
        }
        match fate {
            Fate::Take | Fate::Status(_) => {}
            Fate::Hang => {
                // Until the broker has had enough of it.
                let _ = reader.read_to_end(&mut Vec::new());
                return;
            }
            _ => return,
        }
    }
}

fn read_request(reader: &mut BufReader<impl Read>) -> Option<(String, Vec<u8>)> {
    let (mut signature, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "x-hoopoe-signature" => value.clone_into(&mut signature),
                "content-length" => length = value.parse().ok()?,
                _ => {}
            }
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((signature, body))
}
