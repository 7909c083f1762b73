//! Taking connections off a listening socket and handing them out.
//!
//! Owns one listening socket. One acceptor per listener serves all workers, so that they fill
//! evenly; the kernel's own spreading (one socket per worker) balances by hash, not by load. Not
//! here: the choice of the worker and the way to it, which the caller brings as a closure.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gate::{ConnectionPermit, ListenerGate, Refusal};
use super::listener::ListenerTransport;
use super::peer::canonical;

/// Connections taken in one go before other tasks of the thread get their turn.
const ACCEPT_BATCH: usize = 64;
/// Where several come, more are let gather before the next look, unwatched: to be woken for each, and
/// to wake its worker, costs as much as to accept it (`storm`: 1.46 of the connections per CPU second).
/// The runtime's clock makes about a millisecond of it.
const GATHERING: Duration = Duration::from_micros(100);
/// Pause after the first failure for want of file descriptors or memory; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest such pause: new clients wait no longer than this after descriptors come free.
const PAUSE_LONGEST: Duration = Duration::from_secs(1);
/// Failures are logged once per this period.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// A connection that was let in.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking, with the listener's options.
    pub stream: TcpStream,
    /// The socket's peer: the client, or the proxy in front of it.
    pub peer: SocketAddr,
    /// To be held as long as the connection is open.
    pub permit: ConnectionPermit,
}

/// Accepts connections of one listener.
pub struct Acceptor {
    listener: TcpListener,
    transport: Arc<ListenerTransport>,
    gate: Arc<ListenerGate>,
}

impl Acceptor {
    /// An acceptor for a socket from [`bind`](super::bind()).
    pub fn new(
        listener: TcpListener,
        transport: Arc<ListenerTransport>,
        gate: Arc<ListenerGate>,
    ) -> Self {
        Acceptor { listener, transport, gate }
    }

    /// Accepts until the future is dropped, which closes the listening socket. `hand_out` gets
    /// every connection let in; it must not block.
    ///
    /// # Errors
    /// Only if the socket cannot be used at all.
    pub async fn run(self, mut hand_out: impl FnMut(Accepted)) -> io::Result<()> {
        self.listener.set_nonblocking(true)?;
        let local = self.listener.local_addr()?;
        let mut faults = AcceptFaults::default();
        let mut watched = None;
        let mut first = None;
        loop {
            let mut taken = 0;
            let mut verdict = Verdict::Continue;
            while taken < ACCEPT_BATCH && verdict == Verdict::Continue {
                match first.take().unwrap_or_else(|| self.listener.accept()) {
                    Ok((stream, peer)) => {
                        faults.on_success();
                        if let Some(accepted) = admit(&self.transport, &self.gate, stream, peer) {
                            hand_out(accepted);
                        }
                    }
                    Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => break,
                    Err(fault) => {
                        verdict = faults.on_error(Instant::now(), &fault);
                        report(&self.gate, local, verdict, &fault);
                    }
                }
                taken += 1;
            }
            match (verdict, taken) {
                (Verdict::Pause { pause, .. }, _) => tokio::time::sleep(pause).await,
                (_, ACCEPT_BATCH) => tokio::task::yield_now().await,
                (_, 0 | 1) => first = Some(accept_first(&self.listener, &mut watched).await),
                _ => {
                    watched = None;
                    tokio::time::sleep(GATHERING).await;
                }
            }
        }
    }
}

/// Waits for a connection. The runtime watches a twin of the socket, kept in `watched`, and takes
/// this one connection; the rest is taken past it, which spares registering each with it in vain.
async fn accept_first(
    listener: &TcpListener,
    watched: &mut Option<tokio::net::TcpListener>,
) -> io::Result<(TcpStream, SocketAddr)> {
    let watched = match watched {
        Some(watched) => watched,
        None => watched.insert(tokio::net::TcpListener::from_std(listener.try_clone()?)?),
    };
    let (stream, peer) = watched.accept().await?;
    Ok((stream.into_std()?, peer))
}

fn report(gate: &ListenerGate, local: SocketAddr, verdict: Verdict, fault: &io::Error) {
    if let Verdict::Pause { log, .. } = verdict {
        gate.count_accept_error();
        if log {
            tracing::error!(%local, %fault, "cannot accept connections");
        }
    }
}

/// Lets a connection in, or closes it by dropping it.
fn admit(
    transport: &ListenerTransport,
    gate: &Arc<ListenerGate>,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Accepted> {
    let peer = canonical(peer);
    let entered = if !transport.admits_source(peer.ip()) {
        Err(gate.refuse(Refusal::Untrusted))
    } else if transport.proxies.is_some() {
        gate.enter()
    } else {
        gate.admit(peer.ip(), Instant::now())
    };
    match entered {
        Ok(permit) => {
            // A socket that cannot be made non-blocking is dead already.
            stream.set_nonblocking(true).ok()?;
            Some(Accepted { stream, peer, permit })
        }
        Err(refusal) => {
            tracing::debug!(%peer, %refusal, "connection refused");
            None
        }
    }
}

/// What to do after a failed accept: a step without clock or socket.
#[derive(Debug, Default)]
struct AcceptFaults {
    pause: Option<Duration>,
    logged: Option<Instant>,
}

/// See [`AcceptFaults::on_error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The fault concerns one connection: take the next.
    Continue,
    /// The fault concerns the process or the machine: wait, and say so if `log`.
    Pause {
        /// How long.
        pause: Duration,
        /// Whether this is the first one in a while.
        log: bool,
    },
}

impl AcceptFaults {
    /// Judges an error of accept. Out of descriptors (EMFILE, ENFILE) or memory, the waiting
    /// connection stays in the queue and accept would fail again at once: hence the pause.
    fn on_error(&mut self, now: Instant, fault: &io::Error) -> Verdict {
        if is_the_connections_own(fault) {
            return Verdict::Continue;
        }
        let pause = self.pause.map_or(PAUSE_FIRST, |last| (last * 2).min(PAUSE_LONGEST));
        self.pause = Some(pause);
        let log = self.logged.is_none_or(|last| now.duration_since(last) >= LOG_PERIOD);
        if log {
            self.logged = Some(now);
        }
        Verdict::Pause { pause, log }
    }

    /// A connection was accepted: the next fault pauses briefly again.
    fn on_success(&mut self) {
        self.pause = None;
    }
}

/// Faults of a connection that died while it waited. Linux reports the network errors of the new
/// socket through accept.
fn is_the_connections_own(fault: &io::Error) -> bool {
    matches!(
        fault.raw_os_error(),
        Some(
            libc::ECONNABORTED
                | libc::ECONNRESET
                | libc::EINTR
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP
                | libc::ETIMEDOUT
        )
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::pin::pin;

    use tokio::sync::mpsc;

    use super::*;
    use crate::transport::{
        BindOptions, Carrier, GateLimits, Networks, WorkerSeats, bind, connect_rate::ConnectRate,
    };

    fn gate(connections_max: usize, connect_rate: Option<ConnectRate>) -> Arc<ListenerGate> {
        ListenerGate::new(&GateLimits { connections_max, connect_rate }, Instant::now())
    }

    /// The longest that a test waits.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Runs an acceptor on a loopback port; `body` gets the port's address and what it hands out.
    fn accepting(
        transport: ListenerTransport,
        gate: &Arc<ListenerGate>,
        body: impl AsyncFnOnce(SocketAddr, mpsc::UnboundedReceiver<Accepted>),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let address = "127.0.0.1:0".parse().unwrap();
            let listener = bind(&[address], &BindOptions::default()).unwrap().remove(0);
            let address = listener.local_addr().unwrap();
            let (send, receive) = mpsc::unbounded_channel();
            let acceptor = Acceptor::new(listener, Arc::new(transport), Arc::clone(gate));
            let run = acceptor.run(move |accepted| send.send(accepted).unwrap());
            tokio::select! {
                ended = pin!(run) => panic!("the acceptor ended: {ended:?}"),
                ended = tokio::time::timeout(LIMIT, body(address, receive)) => {
                    ended.expect("every connection is handed out or closed");
                }
            }
        });
    }

    /// Reads until the other side closes.
    async fn until_closed(stream: TcpStream) -> Vec<u8> {
        tokio::task::spawn_blocking(move || {
            let mut stream = stream;
            let mut bytes = Vec::new();
            // A reset is a close as well.
            let _ = stream.read_to_end(&mut bytes);
            bytes
        })
        .await
        .unwrap()
    }

    #[test]
    fn connections_are_handed_out_with_their_permits() {
        let gate = gate(100, None);
        let seats = WorkerSeats::new(2);
        accepting(ListenerTransport::new(Carrier::Tcp), &gate, async |address, mut handed| {
            let clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
            let mut held = Vec::new();
            for client in &clients {
                let accepted = handed.recv().await.unwrap();
                assert_eq!(accepted.peer, client.local_addr().unwrap());
                held.push((accepted, seats.take()));
            }
            assert_eq!(gate.open_connections(), 5);
            assert_eq!(seats.taken(0) + seats.taken(1), 5);
            assert!(seats.taken(0).abs_diff(seats.taken(1)) <= 1);
            held.clear();
            assert_eq!(gate.open_connections(), 0);
            // Who comes alone after many is seen as well.
            for _ in 0..2 {
                let client = TcpStream::connect(address).unwrap();
                let accepted = handed.recv().await.unwrap();
                assert_eq!(accepted.peer, client.local_addr().unwrap());
            }
        });
    }

    #[test]
    fn connections_beyond_the_limit_are_closed() {
        let gate = gate(1, None);
        accepting(ListenerTransport::new(Carrier::Tcp), &gate, async |address, mut handed| {
            let _first = TcpStream::connect(address).unwrap();
            let accepted = handed.recv().await.unwrap();
            let second = TcpStream::connect(address).unwrap();
            assert!(until_closed(second).await.is_empty());
            drop(accepted);
            let _third = TcpStream::connect(address).unwrap();
            handed.recv().await.unwrap();
            assert_eq!(gate.counts().refused_full, 1);
            assert_eq!(gate.counts().accepted, 2);
        });
    }

    #[test]
    fn an_address_that_connects_too_often_is_closed() {
        // One connection per address within the burst; the rate refills in a second at the
        // earliest, and an hour of the test's time would not change the first refusal.
        let gate = gate(100, Some(ConnectRate { per_sec: 1, burst: 2 }));
        let address: SocketAddr = "203.0.113.9:5000".parse().unwrap();
        let now = Instant::now();
        let admitted = (0..5).filter(|_| gate.admit(address.ip(), now).is_ok()).count();
        assert_eq!(admitted, 2);
        assert_eq!(gate.counts().refused_too_often, 3);
    }

    #[test]
    fn a_listener_behind_proxies_takes_nobody_else() {
        let gate = gate(100, None);
        let proxies = Some(Networks::from_iter(["10.0.0.0/8".parse().unwrap()]));
        let transport = ListenerTransport { carrier: Carrier::Tcp, proxies };
        accepting(transport, &gate, async |address, mut handed| {
            let stranger = TcpStream::connect(address).unwrap();
            assert!(until_closed(stranger).await.is_empty());
            assert_eq!(gate.counts().refused_untrusted, 1);
            assert!(handed.try_recv().is_err());
        });
    }

    #[test]
    fn want_of_descriptors_pauses_and_is_logged_once() {
        let mut faults = AcceptFaults::default();
        let start = Instant::now();
        let emfile = io::Error::from_raw_os_error(libc::EMFILE);
        let pauses: Vec<_> = [0, 20, 60, 9_999, 10_000]
            .map(|millis| faults.on_error(start + Duration::from_millis(millis), &emfile))
            .to_vec();
        let expected: Vec<_> = [(20, true), (40, false), (80, false), (160, false), (320, true)]
            .map(|(millis, log)| Verdict::Pause { pause: Duration::from_millis(millis), log })
            .to_vec();
        assert_eq!(pauses, expected);
        for _ in 0..10 {
            let enfile = io::Error::from_raw_os_error(libc::ENFILE);
            let Verdict::Pause { pause, .. } = faults.on_error(start, &enfile) else {
                panic!("no pause")
            };
            assert!(pause <= PAUSE_LONGEST);
        }
        faults.on_success();
        let after = faults.on_error(start, &emfile);
        assert!(matches!(after, Verdict::Pause { pause: PAUSE_FIRST, .. }), "{after:?}");
    }

    #[test]
    fn a_connection_that_died_in_the_queue_costs_no_pause() {
        let mut faults = AcceptFaults::default();
        for code in [libc::ECONNABORTED, libc::ECONNRESET, libc::EPROTO, libc::ETIMEDOUT] {
            let fault = io::Error::from_raw_os_error(code);
            assert_eq!(faults.on_error(Instant::now(), &fault), Verdict::Continue);
        }
    }
}
