//! Connections of all clients on one thread: bytes out, whole packets in, in the order they came.
//!
//! One task per connection and direction does nothing but move bytes; who a connection belongs to
//! and what packets mean is decided elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{AbortHandle, spawn_local};

use super::history::{Client, Link};
use crate::wire::{self, Packet, Version};

/// What came over a connection.
#[derive(Debug)]
pub struct Arrival {
    /// Which connection.
    pub link: Link,
    /// Whose.
    pub client: Client,
    /// A packet, or the end.
    pub packet: Option<Packet>,
}

#[derive(Debug)]
struct Open {
    client: Client,
    version: Version,
    buffer: Vec<u8>,
    outgoing: UnboundedSender<Vec<u8>>,
    tasks: [AbortHandle; 2],
}

/// All open connections.
#[derive(Debug)]
pub struct Links {
    /// Where the broker is; `None` while it is down.
    address: Option<SocketAddr>,
    sender: UnboundedSender<(Link, Vec<u8>)>,
    receiver: UnboundedReceiver<(Link, Vec<u8>)>,
    open: BTreeMap<Link, Open>,
    arrived: VecDeque<Arrival>,
    last: Link,
}

impl Links {
    /// No connections yet, to a broker at `address`.
    pub fn new(address: SocketAddr) -> Links {
        let (sender, receiver) = unbounded_channel();
        let (open, arrived) = (BTreeMap::new(), VecDeque::new());
        Links { address: Some(address), sender, receiver, open, arrived, last: 0 }
    }

    /// The broker is elsewhere now, or down.
    pub fn move_to(&mut self, address: Option<SocketAddr>) {
        self.address = address;
    }

    /// Whether there is a broker to connect to.
    pub fn is_up(&self) -> bool {
        self.address.is_some()
    }

    /// Opens a connection.
    pub fn open(&mut self, client: Client, version: Version) -> Link {
        let address = self.address.expect("connections are opened while the broker is up");
        let stream = std::net::TcpStream::connect_timeout(&address, crate::DEADLINE)
            .unwrap_or_else(|error| panic!("{client}: no connection to {address}: {error}"));
        stream.set_nonblocking(true).expect("a socket can be made non-blocking");
        stream.set_nodelay(true).expect("TCP_NODELAY can be set");
        let stream = TcpStream::from_std(stream).expect("the runtime takes a socket");
        let (mut from, mut to) = stream.into_split();
        self.last += 1;
        let link = self.last;
        let sender = self.sender.clone();
        let reading = spawn_local(async move {
            let mut chunk = vec![0; 16 * 1024];
            // A reset is an end like any other; nothing in it is the end.
            while let Ok(count @ 1..) = from.read(&mut chunk).await {
                if sender.send((link, chunk[..count].to_vec())).is_err() {
                    return;
                }
            }
            // The run may be over.
            let _ = sender.send((link, Vec::new()));
        });
        let (outgoing, mut queue) = unbounded_channel::<Vec<u8>>();
        let writing = spawn_local(async move {
            while let Some(bytes) = queue.recv().await {
                if to.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        let tasks = [reading.abort_handle(), writing.abort_handle()];
        let open = Open { client, version, buffer: Vec::new(), outgoing, tasks };
        self.open.insert(link, open);
        link
    }

    /// Sends bytes, unless the connection has ended.
    pub fn send(&self, link: Link, bytes: Vec<u8>) {
        if let Some(open) = self.open.get(&link) {
            // The other side may just have gone; its end is noticed by reading.
            let _ = open.outgoing.send(bytes);
        }
    }

    /// Ends a connection at once; nothing more comes over it, what was not sent yet is lost.
    pub fn cut(&mut self, link: Link) {
        if let Some(open) = self.open.remove(&link) {
            open.tasks.iter().for_each(AbortHandle::abort);
            self.arrived.retain(|arrival| arrival.link != link);
        }
    }

    /// Whether any connection is open.
    pub fn any_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// What came, if anything has come.
    pub fn try_next(&mut self) -> Option<Arrival> {
        while self.arrived.is_empty() {
            let (link, bytes) = self.receiver.try_recv().ok()?;
            self.take(link, &bytes);
        }
        self.arrived.pop_front()
    }

    /// What comes next; `None` when nothing comes for so long.
    pub async fn next(&mut self, patience: Duration) -> Option<Arrival> {
        while self.arrived.is_empty() {
            let received = tokio::time::timeout(patience, self.receiver.recv()).await;
            let (link, bytes) = received.ok()??;
            self.take(link, &bytes);
        }
        self.arrived.pop_front()
    }

    fn take(&mut self, link: Link, bytes: &[u8]) {
        let Some(open) = self.open.get_mut(&link) else { return };
        let client = open.client;
        if bytes.is_empty() {
            self.open.remove(&link);
            self.arrived.push_back(Arrival { link, client, packet: None });
            return;
        }
        open.buffer.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(length) =
            (used < open.buffer.len()).then(|| wire::frame_length(&open.buffer[used..])).flatten()
        {
            let packet = wire::decode(open.version, &open.buffer[used..used + length]);
            self.arrived.push_back(Arrival { link, client, packet: Some(packet) });
            used += length;
        }
        open.buffer.drain(..used);
    }
}
