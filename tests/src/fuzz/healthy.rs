//! Pairs of well-behaved clients beside the run: what one publishes the other receives, all of it,
//! in order, once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::vocabulary::HEALTHY;
use crate::client::RawClient;
use crate::connect::Connect;
use crate::unique_id;
use crate::wire::{Publish, Version};

/// Messages a publisher may be ahead of its subscriber.
const AHEAD: u64 = 32;
/// The payload that ends a conversation.
const END: &str = "end";

/// A pair that is exchanging messages.
pub struct Pair {
    stop: Arc<AtomicBool>,
    publisher: JoinHandle<u64>,
    subscriber: JoinHandle<(u64, Duration)>,
}

impl Pair {
    /// Starts a pair of one version; with a stored session or one that ends with its connection.
    pub fn start(address: SocketAddr, version: Version, persistent: bool) -> Pair {
        let stop = Arc::new(AtomicBool::new(false));
        let name = format!("{HEALTHY}{}", unique_id("pair"));
        let connect = |stem: &str| match persistent {
            true => Connect::persistent(version, &unique_id(stem)),
            false => Connect::new(version, &unique_id(stem)),
        };
        let mut receiver = RawClient::connect(address, &connect("receiver"));
        receiver.subscribe(&format!("{name}/+"), 2);
        let sender = RawClient::connect(address, &connect("sender"));
        let (progress, received) = std::sync::mpsc::sync_channel(AHEAD as usize);
        let publisher = std::thread::spawn({
            let stop = stop.clone();
            move || publish(sender, &name, &stop, &received)
        });
        let subscriber = std::thread::spawn(move || subscribe(receiver, &progress));
        Pair { stop, publisher, subscriber }
    }

    /// Ends the conversation; gives the number of messages and the longest time one took.
    pub fn finish(self) -> Result<(u64, Duration), String> {
        self.stop.store(true, Ordering::Release);
        let sent = self.publisher.join().map_err(|_| "a healthy publisher failed")?;
        let (received, longest) =
            self.subscriber.join().map_err(|_| "a healthy subscriber failed")?;
        if sent != received {
            return Err(format!("a healthy pair sent {sent} messages and received {received}"));
        }
        Ok((sent, longest))
    }

    /// Whether one of the two has failed already.
    pub fn has_failed(&self) -> bool {
        self.publisher.is_finished() || self.subscriber.is_finished()
    }
}

fn publish(
    mut client: RawClient,
    name: &str,
    stop: &AtomicBool,
    received: &std::sync::mpsc::Receiver<u64>,
) -> u64 {
    let mut number = 0;
    let mut seen = 0;
    while !stop.load(Ordering::Acquire) {
        for qos in [1, 2] {
            number += 1;
            client.publish(Publish::new(&format!("{name}/{qos}"), number.to_string()).qos(qos));
        }
        while number - seen >= AHEAD {
            let Ok(more) = received.recv() else { return number };
            seen = more;
        }
        seen = received.try_iter().last().unwrap_or(seen);
    }
    client.publish(Publish::new(&format!("{name}/1"), END).qos(1));
    number
}

fn subscribe(
    mut client: RawClient,
    progress: &std::sync::mpsc::SyncSender<u64>,
) -> (u64, Duration) {
    let (mut expected, mut longest) = (1, Duration::ZERO);
    loop {
        let waited = Instant::now();
        let publish = client.take_publish();
        longest = longest.max(waited.elapsed());
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        if text == END {
            return (expected - 1, longest);
        }
        assert_eq!(text, expected.to_string(), "the next message in order, lost or doubled");
        assert!(!publish.dup, "DUP although the connection is the first one");
        // The publisher may be gone already.
        let _ = progress.send(expected);
        expected += 1;
    }
}
