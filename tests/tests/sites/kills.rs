//! Sites that are killed and links that are cut at any moment: nothing acknowledged is lost,
//! nothing is doubled, and every site has the same order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hoopoe_tests::{Connect, RawClient, Received, Version, eventually};

use crate::world::{Sent, World, try_send};

/// A user who writes to another until told to stop, over whatever connection there is.
struct Writer {
    user: &'static str,
    to: &'static str,
    acknowledged: Vec<String>,
    last: u64,
    device: Option<RawClient>,
}

impl Writer {
    fn new(user: &'static str, to: &'static str) -> Writer {
        Writer { user, to, acknowledged: Vec::new(), last: 0, device: None }
    }

    /// Sends the next message, or the same again when its acknowledgement has not come.
    fn step(&mut self, world: &World) {
        if self.device.is_none() {
            let broker = &world.brokers[world.home(self.user)];
            let connect = Connect::v5(&format!("d-{}", self.user)).login(self.user, "any");
            let mut device = broker.open(Version::V5);
            if !matches!(device.try_login(&connect), Received::Packet(_)) {
                return;
            }
            self.device = Some(device);
        }
        let Some(device) = &mut self.device else { return };
        let text = format!("{} {:04}", self.user, self.last);
        let topic = format!("im/{}/msg/m{}", self.to, self.last);
        match try_send(device, &topic, &text) {
            Some(Sent::Seq(_) | Sent::Held) => {
                self.acknowledged.push(text);
                self.last += 1;
            }
            Some(Sent::Refused(code)) => panic!("{text}: refused with {code:#x}"),
            None => self.device = None,
        }
    }
}

#[test]
fn two_sites_lose_nothing_acknowledged_and_double_nothing() {
    let writers = vec![
        Writer::new("alice", "u/bob-ny"),
        Writer::new("bob-ny", "u/alice"),
        Writer::new("bert-ny", "u/alice"),
    ];
    nothing_is_lost(&["fra", "ny"], writers, &[("alice", "bob-ny"), ("alice", "bert-ny")], 8);
}

#[test]
fn three_sites_lose_nothing_acknowledged_and_double_nothing() {
    let writers = vec![
        Writer::new("alice", "u/bob-ny"),
        Writer::new("bob-ny", "u/alice"),
        Writer::new("bob-ny", "u/cid-sg"),
        Writer::new("cid-sg", "u/bob-ny"),
        Writer::new("cid-sg", "u/alice"),
    ];
    let pairs = [("alice", "bob-ny"), ("bob-ny", "cid-sg"), ("alice", "cid-sg")];
    nothing_is_lost(&["fra", "ny", "sg"], writers, &pairs, 9);
}

/// Users of these sites write while in each round a link is reset, cut, or all are, and a site is
/// killed.
fn nothing_is_lost(
    sites: &[&str],
    mut writers: Vec<Writer>,
    pairs: &[(&str, &str)],
    rounds: usize,
) {
    let mut world = World::start(sites, "answer_timeout_ms = 300");
    // One device for each, not one after the other.
    for (number, writer) in writers.iter_mut().enumerate() {
        for _ in 0..3 {
            writer.step(&world);
        }
        assert_eq!(writer.acknowledged.len(), 3, "writer {number}");
        writer.device = None;
    }
    for round in 0..rounds {
        let at = round % sites.len();
        let link = round % world.links.len();
        match round % 4 {
            0 => world.links[link].2.reset(),
            1 => world.links[link].2.cut(),
            2 => world.cut(),
            _ => {}
        }
        for writer in &mut writers {
            for _ in 0..10 {
                writer.step(&world);
            }
        }
        kill_while_written(&mut world, at, &mut writers);
        world.heal();
    }
    world.until_linked();
    for writer in &mut writers {
        let wanted = writer.last + 5;
        while writer.last < wanted {
            writer.step(&world);
        }
    }
    pairs.iter().for_each(|(low, high)| expect_all_of(&world, &writers, low, high));
}

/// Both have everything that was acknowledged to either, once, in one order that is that of each.
fn expect_all_of(world: &World, writers: &[Writer], low: &str, high: &str) {
    let (here, there) = (format!("u/{high}"), format!("u/{low}"));
    let mut wanted: Vec<String> = Vec::new();
    for writer in writers {
        let is_theirs = (writer.user == low && writer.to == here)
            || (writer.user == high && writer.to == there);
        if is_theirs {
            wanted.extend(writer.acknowledged.iter().cloned());
        }
    }
    wanted.sort();
    eventually(&format!("{low} and {high} have everything"), || {
        let (a, b) = (world.log(low, &here), world.log(high, &there));
        a.len() >= wanted.len() && a == b
    });
    let log = world.texts(low, &here);
    for user in [low, high] {
        let own: Vec<&String> = log.iter().filter(|text| text.starts_with(user)).collect();
        assert!(own.is_sorted(), "order of {user} in {log:?}");
    }
    let mut found = log;
    found.sort();
    assert_eq!(found, wanted);
}

/// Kills a site while its users write; they try again when it is back.
fn kill_while_written(world: &mut World, at: usize, writers: &mut [Writer]) {
    let pid = world.brokers[at].pid();
    let done = Arc::new(AtomicBool::new(false));
    let killer = {
        let done = done.clone();
        std::thread::spawn(move || {
            // Behind a few messages, at no particular moment.
            while !done.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            let _ = std::process::Command::new("kill").arg("-9").arg(pid.to_string()).status();
        })
    };
    for (number, writer) in writers.iter_mut().enumerate() {
        if number == 2 {
            done.store(true, Ordering::Release);
        }
        if world.home(writer.user) == at {
            writer.step(world);
        }
    }
    killer.join().expect("the killer has done it");
    world.brokers[at].kill();
    world.brokers[at].start_again();
    writers.iter_mut().filter(|w| world.home(w.user) == at).for_each(|w| w.device = None);
}
