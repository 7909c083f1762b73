//! Writes that fail for real: acknowledging stops, QoS 0 and reads go on, `/ready` and the log say
//! why, and once the disk takes writes again the same process serves on with everything it has
//! acknowledged.

use std::path::PathBuf;

use hoopoe_tests::broker::Options;
use hoopoe_tests::disk::{Disk, limit_file_size, say_not_possible};
use hoopoe_tests::stored::Stored;
use hoopoe_tests::wire::packet_type;
use hoopoe_tests::{
    Broker, Connect, Packet, Properties, Property, Publish, RawClient, Received, Version, code,
    eventually, metrics, unique_id, unique_topic,
};

/// Payloads that fill what a log has left of its room.
const PAYLOAD_BYTES: usize = 48 << 10;
/// Messages within which a disk without room must have been noticed: RocksDB may have set room for
/// a whole log aside.
const MESSAGES_MAX: usize = 4_000;
/// Messages that wait for the session that reads on during the fault.
const WAITING: u8 = 6;
/// A file system on which the reserve and a log find room.
const DISK_MEGABYTES: usize = 192;

/// What goes wrong and how it is mended.
struct Trouble<'a> {
    cause: &'a dyn Fn(&Broker),
    /// Part of what the system calls it.
    words: &'a str,
    cure: Cure<'a>,
}

/// How it is mended.
enum Cure<'a> {
    /// Under the running broker, which goes on by itself.
    Running(&'a dyn Fn(&Broker)),
    /// Only when it has ended.
    Stopped(&'a dyn Fn()),
}

/// Clients that are connected when it happens.
struct Bystanders {
    talker: RawClient,
    listener: RawClient,
    topic: String,
    /// A stored session that takes one message at a time.
    reader: RawClient,
    reading: String,
    /// A stored publisher, which repeats a message of QoS 2.
    repeater: RawClient,
    repeating: Connect,
}

impl Bystanders {
    fn connect(broker: &Broker) -> Bystanders {
        let (topic, reading) = (unique_topic("talk"), unique_topic("read"));
        let mut listener = broker.v311();
        listener.subscribe(&topic, 0);
        let one = Properties(vec![Property::ReceiveMaximum(1)]);
        let mut connect = Connect::persistent(Version::V5, &unique_id("reader"));
        connect.properties.0.extend(one.0);
        let mut reader = broker.connect(&connect);
        reader.subscribe(&reading, 1);
        let mut talker = broker.v5();
        for number in 0..WAITING {
            talker.publish(Publish::new(&reading, [number]).qos(1));
        }
        let repeating = Connect::persistent(Version::V5, &unique_id("repeater"));
        let repeater = broker.connect(&repeating);
        Bystanders { talker, listener, topic, reader, reading, repeater, repeating }
    }

    /// QoS 0 and what is stored flow while nothing can be written.
    fn go_on(&mut self, stored: &Stored) {
        for number in 0..20u8 {
            self.talker.publish(Publish::new(&self.topic, [number]));
            self.listener.expect_message(&self.topic, [number]);
        }
        for number in 0..WAITING / 2 {
            self.reader.expect_message(&self.reading, [number]);
        }
        let (topic, payload) = stored.any_retained();
        self.listener.subscribe(topic, 0);
        assert!(self.listener.expect_message(topic, payload).retain);
        self.listener.unsubscribe(&[topic]);
    }

    /// What is new is refused. What is repeated is not, since it may be stored from its first time:
    /// the client would use its identifier for another, which would be taken for the repetition.
    fn are_refused(&mut self) {
        let fresh = Publish::new(&self.topic, "fresh").qos(2).id(3);
        self.repeater.send_publish(fresh);
        let refused = self.repeater.expect_ack(packet_type::PUBREC, 3).code;
        assert_eq!(refused, code::QUOTA_EXCEEDED);
        self.repeater.send_publish(self.repetition());
        match self.repeater.receive() {
            Received::Packet(Packet::Disconnect(disconnect)) => {
                assert_eq!(disconnect.code, code::IMPLEMENTATION_SPECIFIC);
            }
            other => panic!("{other:?} for a repetition"),
        }
        assert_eq!(self.repeater.receive(), Received::Closed);
    }

    fn repetition(&self) -> Publish {
        Publish::new(&self.topic, "repeated").qos(2).id(4).dup()
    }

    /// Their connections have outlived the fault.
    fn are_still_there(&mut self, broker: &Broker) {
        for number in WAITING / 2..WAITING {
            self.reader.expect_message(&self.reading, [number]);
        }
        self.talker.publish(Publish::new(&self.topic, "again").qos(1));
        self.listener.expect_message(&self.topic, "again");
        self.reader.ping();
        self.repeater = broker.connect(&self.repeating);
        self.repeater.send_publish(self.repetition());
        assert_eq!(self.repeater.expect_ack(packet_type::PUBREC, 4).code, 0);
        self.listener.expect_message(&self.topic, "repeated");
    }
}

/// Publishes to the first session until the broker acknowledges no more.
fn publish_until_refused(broker: &Broker, stored: &mut Stored) {
    let topic = stored.first_topic().to_owned();
    let mut publisher = broker.v5();
    for number in 0..MESSAGES_MAX {
        let mut payload = format!("large {number} ").into_bytes();
        // Bytes that do not compress, so that files grow as the log does.
        let mut seed = number as u64 + 1;
        payload.extend((0..PAYLOAD_BYTES).map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        }));
        let id = publisher.send_publish(Publish::new(&topic, &payload).qos(1));
        match publisher.receive() {
            Received::Packet(Packet::PubAck(ack)) if ack.code == 0 => {
                assert_eq!(ack.id, id);
                stored.acknowledged(&payload);
            }
            // Refused before it was written, or nobody knows: no acknowledgement either way.
            Received::Packet(Packet::PubAck(ack)) => {
                assert_eq!(ack.code, code::QUOTA_EXCEEDED);
                return;
            }
            Received::Packet(Packet::Disconnect(disconnect)) => {
                assert_eq!(disconnect.code, code::IMPLEMENTATION_SPECIFIC);
                assert_eq!(publisher.receive(), Received::Closed);
                return;
            }
            other => panic!("{other:?} for a PUBLISH"),
        }
    }
    panic!("{MESSAGES_MAX} messages were acknowledged on a disk that takes none");
}

/// Nothing is acknowledged, and everybody is told why.
fn acknowledging_has_stopped(broker: &Broker, stored: &Stored, talker: &mut RawClient, why: &str) {
    eventually("/ready says why nothing is written", || {
        let (status, body) = metrics::get(broker.http(), "/ready");
        let said = body.contains("store_not_writable") && body.contains(why);
        status == 503 && said
    });
    broker.wait_for_log("commit failed");
    broker.wait_for_log(why);
    let id = talker.send_publish(Publish::new(stored.first_topic(), "refused").qos(1));
    let refused = talker.expect_ack(packet_type::PUBACK, id).code;
    assert_eq!(refused, code::QUOTA_EXCEEDED, "refused before it was written");
    for connect in [Connect::v5(&unique_id("new")), Connect::persistent(Version::V5, "new-too")] {
        let mut newcomer = broker.open(Version::V5);
        newcomer.send(&connect.encode());
        newcomer.expect_refused(&[code::SERVER_UNAVAILABLE]);
    }
    let mut newcomer = broker.open(Version::V311);
    newcomer.send(&Connect::v311(&unique_id("new")).encode());
    newcomer.expect_refused(&[3]);
    let (status, body) = metrics::get(broker.http(), "/health");
    assert_eq!((status, body.trim()), (200, "ok"), "a restart would not help");
}

fn goes_through(mut broker: Broker, trouble: &Trouble<'_>) {
    let mut stored = Stored::fill(&broker, 4, 6);
    let mut bystanders = Bystanders::connect(&broker);
    (trouble.cause)(&broker);
    publish_until_refused(&broker, &mut stored);
    acknowledging_has_stopped(&broker, &stored, &mut bystanders.talker, trouble.words);
    bystanders.go_on(&stored);
    bystanders.are_refused();
    let cure = match trouble.cure {
        Cure::Running(cure) => cure,
        Cure::Stopped(cure) => {
            broker.kill();
            cure();
            broker.start_again();
            return stored.is_all_there_at_least(&broker);
        }
    };
    cure(&broker);
    eventually("the store is written again", || metrics::get(broker.http(), "/ready").0 == 200);
    bystanders.are_still_there(&broker);
    let mut publisher = broker.v5();
    stored.publish(&mut publisher, "afterwards");
    // What the process says it has is what a restart finds.
    let backup = hoopoe_tests::reaper::temporary_folder("afterwards");
    copy_of(&broker, &backup);
    stored.is_all_there_at_least(&broker);
    broker.kill_and_restart();
    broker.v5().publish(Publish::new(stored.first_topic(), "served").qos(1));
    let copy = Options::new();
    std::fs::create_dir_all(copy.data()).expect("the folder can be made");
    std::fs::rename(backup.join("db"), copy.data().join("db")).expect("one file system");
    stored.is_all_there_at_least(&copy.start());
}

/// A backup made by the broker itself, to be read by another.
fn copy_of(broker: &Broker, to: &PathBuf) {
    let mut command = hoopoe_tests::program::wrapped_hoopoe_command(broker.wrapper());
    command.arg("backup").arg(to).arg("--data").arg(broker.data());
    let (status, said) = hoopoe_tests::program::run_to_end(command);
    assert!(status.success(), "{said}");
}

#[test]
fn a_file_that_may_not_grow_stops_acknowledgements_until_it_may() {
    goes_through(
        Broker::start(),
        &Trouble {
            cause: &|broker| limit_file_size(broker.pid(), Some(100 << 10)),
            words: "File too large",
            cure: Cure::Running(&|broker| limit_file_size(broker.pid(), None)),
        },
    );
}

#[test]
fn a_full_disk_stops_acknowledgements_until_there_is_room() {
    let options = Options::new();
    let disk = match Disk::small(options.folder(), DISK_MEGABYTES) {
        Ok(disk) => disk,
        Err(why) => return say_not_possible("a full disk", &why),
    };
    let reserve = disk.path().join("data/reserve");
    let broker = options.wrapped(disk.entry()).start();
    let bytes = std::fs::metadata(&reserve).expect("there is a reserve").len();
    let neighbour = std::cell::RefCell::new(None);
    goes_through(
        broker,
        &Trouble {
            cause: &|_| *neighbour.borrow_mut() = Some(disk.fill()),
            words: "No space left on device",
            cure: Cure::Running(&|_| {
                // It was given up, and is not there while there is no room for it.
                eventually("the reserve is given up", || !reserve.exists());
                neighbour.take();
                eventually("the reserve is made again", || {
                    std::fs::metadata(&reserve).is_ok_and(|file| file.len() == bytes)
                });
            }),
        },
    );
}

/// A file system in a file, without journal: a failed write there fails and is forgotten. Without
/// extents, too: with them Linux 6.18 lets the first sync succeed that finds the disk below full,
/// and what was written is gone as soon as it is read from there again.
fn image(folder: &str, options: &str) -> String {
    format!(
        "truncate -s {DISK_MEGABYTES}m {folder}/image && \
         mkfs.ext4 -q -O ^has_journal,^extent,^64bit -E lazy_itable_init=0,nodiscard {folder}/image && \
         mount -o loop,{options} {folder}/image \"$1\""
    )
}

#[test]
fn a_sync_that_fails_stops_acknowledgements_until_it_succeeds() {
    let options = Options::new();
    // The device keeps its blocks on a disk that is too small for them: the file system takes a
    // write, and only the sync finds that it cannot be kept.
    let below = hoopoe_tests::reaper::temporary_folder("below");
    let below = below.display();
    let script = format!(
        "mount -t tmpfs -o size=96m hoopoe {below} && {}",
        image(&below.to_string(), "errors=continue")
    );
    let disk = match Disk::mounted(options.folder(), &script) {
        Ok(disk) => disk,
        Err(why) => return say_not_possible("a sync that fails", &why),
    };
    let grow = format!("mount -o remount,size=400m {below}");
    let broker = options.wrapped(disk.entry()).start();
    goes_through(
        broker,
        &Trouble {
            cause: &|_| {
                let fill = format!("head -c 200m /dev/zero > {below}/filler; true");
                disk.run(&fill).expect("the disk below can be filled");
            },
            words: "While fdatasync",
            cure: Cure::Running(&|_| disk.run(&grow).expect("the disk below can grow")),
        },
    );
}

#[test]
fn a_disk_that_turns_read_only_stops_acknowledgements() {
    let options = Options::new();
    let below = hoopoe_tests::reaper::temporary_folder("image");
    let below = below.display();
    let find = "error=/sys/fs/ext4/$(basename $(findmnt -n -o SOURCE \"$1\"))/trigger_fs_error";
    let script = format!(
        "{} && {find} && {{ test -w $error || {{ echo no $error >&2; false; }}; }}",
        image(&below.to_string(), "errors=remount-ro")
    );
    let again = format!("umount \"$1\" && mount -o loop {below}/image \"$1\"");
    let disk = match Disk::mounted(options.folder(), &script) {
        Ok(disk) => disk,
        Err(why) => return say_not_possible("a disk that turns read-only", &why),
    };
    let turn = format!("{find} && echo 1 > $error");
    let broker = options.wrapped(disk.entry()).start();
    goes_through(
        broker,
        &Trouble {
            cause: &|_| disk.run(&turn).expect("the file system can be told of an error"),
            words: "Read-only file system",
            // The file system stays so until it is mounted anew.
            cure: Cure::Stopped(&|| disk.run(&again).expect("it can be mounted again")),
        },
    );
}
