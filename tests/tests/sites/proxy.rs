//! The network between two sites: an address that stays, whatever becomes of the broker behind it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Default)]
struct Shared {
    upstream: Option<SocketAddr>,
    open: Vec<TcpStream>,
}

/// The network.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

impl Proxy {
    /// Leads nowhere yet.
    pub(crate) fn new() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let proxy = Proxy { address, shared: Arc::default() };
        let accepting = proxy.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                accepting.carry(near);
            }
        });
        proxy
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever connects from now on comes to this broker.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        self.lock().upstream = Some(upstream);
    }

    /// Every connection is cut, and none is made.
    pub(crate) fn cut(&self) {
        self.lock().upstream = None;
        self.reset();
    }

    /// Every connection is cut.
    pub(crate) fn reset(&self) {
        for stream in self.lock().open.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn carry(&self, near: TcpStream) {
        let mut shared = self.lock();
        let Some(far) = shared.upstream.and_then(|to| TcpStream::connect(to).ok()) else { return };
        for (from, to) in [(&near, &far), (&far, &near)] {
            let share = |stream: &TcpStream| stream.try_clone().expect("a socket can be shared");
            shared.open.push(share(from));
            let (from, to) = (share(from), share(to));
            std::thread::spawn(move || forward(from, to));
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        // The other direction may have been first.
        let _ = stream.shutdown(Shutdown::Both);
    }
}
