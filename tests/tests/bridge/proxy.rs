//! A network between a link and its remote broker that can be cut at any packet, swallow some, and
//! keep every one waiting for a while.
//!
//! It forwards whole packets, each written in pieces, and asks a plan about every one. What has
//! passed is noted in a [`Record`].

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hoopoe_tests::wire::frame_length;
use socket2::SockRef;

use crate::record::{Record, described};

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the link to the remote broker.
    Out,
    /// Back.
    In,
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives.
    Pass,
    /// It does not arrive, and nobody hears of it. What follows it does: of a stream that keeps
    /// its order, only acknowledgements may be treated so.
    Swallow,
    /// Nor does anything that goes this way behind it, as long as the connection stands.
    Silence,
    /// The connection is cut before it.
    CutBefore,
    /// The connection is cut in the middle of it.
    CutWithin,
    /// The connection is cut behind it.
    CutAfter,
    /// The connection is reset in place of it: what else is on its way is gone too.
    Reset,
}

impl Fate {
    fn cuts(self) -> bool {
        !matches!(self, Fate::Pass | Fate::Swallow | Fate::Silence)
    }

    fn arrives(self) -> bool {
        matches!(self, Fate::Pass | Fate::CutAfter)
    }
}

type Plan = Box<dyn FnMut(Way, u8) -> Fate + Send>;

/// How long packets wait, for each direction by itself.
struct Delays {
    dice: [Dice; 2],
    most: Duration,
}

struct Shared {
    upstream: SocketAddr,
    plan: Plan,
    cuts: usize,
    delays: Option<Delays>,
    connections: usize,
    /// Kills of the remote broker so far.
    kills: usize,
    record: Record,
    /// Each packet and its fate, for people.
    trace: Vec<String>,
}

impl Shared {
    /// How long the next packet that goes this way waits.
    fn delay(&mut self, way: Way) -> Duration {
        let Some(Delays { dice, most }) = &mut self.delays else { return Duration::ZERO };
        Duration::from_micros(dice[way as usize].roll(most.as_micros() as u64 + 1))
    }
}

/// The network.
#[derive(Clone)]
pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// In front of a broker.
    pub fn to(upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let shared = Shared {
            upstream,
            plan: Box::new(|_, _| Fate::Pass),
            cuts: 0,
            delays: None,
            connections: 0,
            kills: 0,
            record: Record::default(),
            trace: Vec::new(),
        };
        let proxy = Proxy { address, shared: Arc::new(Mutex::new(shared)) };
        let accepting = proxy.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                accepting.carry(stream);
            }
        });
        proxy
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of packets from now on; it is asked with the packet type.
    pub fn plan(&self, plan: impl FnMut(Way, u8) -> Fate + Send + 'static) {
        self.lock().plan = Box::new(plan);
    }

    /// From now on packets wait, up to so long, each direction by itself: acknowledgements cross with
    /// messages and with cuts. Their order stays, as in any connection.
    pub fn delay(&self, seed: u64, most: Duration) {
        let dice = [Dice::new(seed), Dice::new(!seed)];
        self.lock().delays = Some(Delays { dice, most });
    }

    /// Everything passes, at once.
    pub fn heal(&self) {
        let mut shared = self.lock();
        shared.plan = Box::new(|_, _| Fate::Pass);
        shared.delays = None;
    }

    /// How often a plan has cut connections.
    pub fn cuts(&self) -> usize {
        self.lock().cuts
    }

    /// The remote broker has been killed, and has not been started again yet.
    pub fn was_killed(&self) {
        self.lock().kills += 1;
    }

    /// What has passed.
    pub fn recorded<T>(&self, read: impl FnOnce(&Record) -> T) -> T {
        read(&self.lock().record)
    }

    /// Every packet so far and its fate, in lines.
    pub fn trace(&self) -> String {
        self.lock().trace.join("\n")
    }

    fn carry(&self, near: TcpStream) {
        let mut shared = self.lock();
        shared.connections += 1;
        // Read before the connection is made: at worst it counts as one to the broker before.
        let (upstream, number, kills) = (shared.upstream, shared.connections, shared.kills);
        drop(shared);
        // A broker that is away: the link is cut off, and comes again.
        let Ok(far) = TcpStream::connect(upstream) else { return };
        let reset = Arc::new(AtomicBool::new(false));
        for (from, to, way) in [(&near, &far, Way::Out), (&far, &near, Way::In)] {
            let reset = reset.clone();
            let from = from.try_clone().expect("a socket can be shared");
            let to = to.try_clone().expect("a socket can be shared");
            let proxy = self.clone();
            std::thread::spawn(move || {
                if proxy.forward((&from, &to), way, (number, kills)) == Some(Fate::Reset) {
                    reset.store(true, Ordering::SeqCst);
                }
                for one in [&from, &to] {
                    // Either may be gone, or the other thread have been first.
                    let _ = if reset.load(Ordering::SeqCst) {
                        // The other thread wakes and says nothing; with the last handle the socket
                        // is closed, and says RST.
                        let linger = SockRef::from(one).set_linger(Some(Duration::ZERO));
                        linger.and_then(|()| one.shutdown(Shutdown::Read))
                    } else {
                        one.shutdown(Shutdown::Both)
                    };
                }
            });
        }
    }

    /// Forwards until the connection ends; gives the fate that ended it, if it was one.
    fn forward(
        &self,
        (mut from, mut to): (&TcpStream, &TcpStream),
        way: Way,
        (number, kills): (usize, usize),
    ) -> Option<Fate> {
        let (mut buffer, mut chunk) = (Vec::new(), [0; 4096]);
        let mut silent = false;
        loop {
            let Ok(count @ 1..) = from.read(&mut chunk) else { return None };
            buffer.extend_from_slice(&chunk[..count]);
            while let Some(length) = whole(&buffer) {
                let frame: Vec<u8> = buffer.drain(..length).collect();
                let delay = self.lock().delay(way);
                if !delay.is_zero() {
                    std::thread::park_timeout(delay);
                }
                let mut shared = self.lock();
                let fate = (shared.plan)(way, frame[0] >> 4);
                // Kept here and not in the plan: another plan may come before the connection ends,
                // and no network gives the later packets of a stream without the earlier.
                silent |= fate == Fate::Silence;
                shared.cuts += usize::from(fate.cuts());
                shared.trace.push(format!("{number} {way:?} {} {fate:?}", described(&frame)));
                // What a link says is said; what it hears is what arrives.
                if way == Way::Out || (fate.arrives() && !silent) {
                    shared.record.note(number, kills, way, &frame);
                }
                drop(shared);
                let half = frame.len() / 2;
                let arrives = match fate {
                    _ if silent => 0,
                    Fate::Pass | Fate::CutAfter => frame.len(),
                    Fate::CutWithin => half,
                    Fate::Swallow | Fate::Silence | Fate::CutBefore | Fate::Reset => 0,
                };
                // In two pieces, so that packets are cut by what reads them too.
                let (first, second) = frame[..arrives].split_at(half.min(arrives));
                if to.write_all(first).and_then(|()| to.write_all(second)).is_err() {
                    return None;
                }
                if fate.cuts() {
                    return Some(fate);
                }
            }
        }
    }
}

fn whole(buffer: &[u8]) -> Option<usize> {
    if buffer.len() < 2 {
        return None;
    }
    frame_length(buffer).filter(|length| *length <= buffer.len())
}

/// Cuts at the packets of this type that go this way, at each of these counts.
pub fn at(
    way: Way,
    kind: u8,
    counts: &'static [usize],
    fate: Fate,
) -> impl FnMut(Way, u8) -> Fate + Send {
    let mut seen = 0;
    move |going, packet| {
        if going != way || packet != kind {
            return Fate::Pass;
        }
        seen += 1;
        if counts.contains(&seen) { fate } else { Fate::Pass }
    }
}

/// This becomes of the next packet, and no other.
pub fn once(fate: Fate) -> impl FnMut(Way, u8) -> Fate + Send {
    let mut next = Some(fate);
    move |_, _| next.take().unwrap_or(Fate::Pass)
}

/// Numbers from a seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `bound`.
    pub fn roll(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[test]
fn a_silent_way_stays_silent_whatever_plan_comes() {
    let broker = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = Proxy::to(broker.local_addr().expect("it has an address"));
    let mut link = TcpStream::connect(proxy.address).expect("the proxy listens");
    let (mut far, _) = broker.accept().expect("the proxy connects");
    // QoS 0 on the topic `t`.
    let message = |number: u8| [0x30, 4, 0, 1, b't', number];
    let take = |from: &mut TcpStream| {
        let mut frame = [0; 6];
        from.read_exact(&mut frame).map(|()| frame)
    };
    let mut count = 0;
    proxy.plan(move |way, _| {
        count += usize::from(way == Way::Out);
        if way == Way::Out && count == 2 { Fate::Silence } else { Fate::Pass }
    });
    for number in 1..=3 {
        link.write_all(&message(number)).expect("the proxy reads");
    }
    assert_eq!(take(&mut far).expect("the first arrives"), message(1));
    // The plan has been asked about all three.
    while proxy.trace().lines().count() < 3 {
        std::thread::yield_now();
    }
    proxy.heal();
    link.write_all(&message(4)).expect("the proxy reads");
    far.write_all(&message(5)).expect("the proxy reads");
    assert_eq!(take(&mut link).expect("the other way is open"), message(5));
    drop(link);
    take(&mut far).expect_err("nothing but the end comes behind what was lost");
    // A new connection knows nothing of it.
    let mut link = TcpStream::connect(proxy.address).expect("the proxy listens");
    let (mut far, _) = broker.accept().expect("the proxy connects");
    link.write_all(&message(6)).expect("the proxy reads");
    assert_eq!(take(&mut far).expect("it arrives"), message(6));
}
