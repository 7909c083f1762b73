//! A network between a link and its remote broker that can be cut at any packet, and swallow some.
//!
//! It forwards whole packets, each written in pieces, and asks a plan about every one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hoopoe_tests::wire::frame_length;

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
    /// It does not arrive, and nobody hears of it.
    Swallow,
    /// The connection is cut before it.
    CutBefore,
    /// The connection is cut in the middle of it.
    CutWithin,
    /// The connection is cut behind it.
    CutAfter,
}

type Plan = Box<dyn FnMut(Way, u8) -> Fate + Send>;

struct Shared {
    upstream: SocketAddr,
    plan: Plan,
    cuts: usize,
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
        let plan: Plan = Box::new(|_, _| Fate::Pass);
        let shared = Shared { upstream, plan, cuts: 0 };
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

    /// The broker has moved.
    pub fn leads_to(&self, upstream: SocketAddr) {
        self.lock().upstream = upstream;
    }

    /// What becomes of packets from now on; it is asked with the packet type.
    pub fn plan(&self, plan: impl FnMut(Way, u8) -> Fate + Send + 'static) {
        self.lock().plan = Box::new(plan);
    }

    /// Everything passes.
    pub fn heal(&self) {
        self.plan(|_, _| Fate::Pass);
    }

    /// How often a plan has cut connections.
    pub fn cuts(&self) -> usize {
        self.lock().cuts
    }

    fn carry(&self, near: TcpStream) {
        let upstream = self.lock().upstream;
        // A broker that is away: the link is cut off, and comes again.
        let Ok(far) = TcpStream::connect(upstream) else { return };
        for (from, to, way) in [(&near, &far, Way::Out), (&far, &near, Way::In)] {
            let from = from.try_clone().expect("a socket can be shared");
            let to = to.try_clone().expect("a socket can be shared");
            let proxy = self.clone();
            std::thread::spawn(move || {
                proxy.forward(&from, &to, way);
                for one in [&from, &to] {
                    // The other thread may have been first.
                    let _ = one.shutdown(Shutdown::Both);
                }
            });
        }
    }

    fn forward(&self, mut from: &TcpStream, mut to: &TcpStream, way: Way) {
        let (mut buffer, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let Ok(count @ 1..) = from.read(&mut chunk) else { return };
            buffer.extend_from_slice(&chunk[..count]);
            while let Some(length) = whole(&buffer) {
                let frame: Vec<u8> = buffer.drain(..length).collect();
                let mut shared = self.lock();
                let fate = (shared.plan)(way, frame[0] >> 4);
                shared.cuts += usize::from(!matches!(fate, Fate::Pass | Fate::Swallow));
                drop(shared);
                let half = frame.len() / 2;
                let arrives = match fate {
                    Fate::Pass | Fate::CutAfter => frame.len(),
                    Fate::CutWithin => half,
                    Fate::Swallow | Fate::CutBefore => 0,
                };
                // In two pieces, so that packets are cut by what reads them too.
                let (first, second) = frame[..arrives].split_at(half.min(arrives));
                if to.write_all(first).and_then(|()| to.write_all(second)).is_err() {
                    return;
                }
                if !matches!(fate, Fate::Pass | Fate::Swallow) {
                    return;
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
