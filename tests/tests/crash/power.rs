//! Power cuts: the files become what had been synced. That this finds a missing sync is shown with
//! a broker that does not sync.

use hoopoe_tests::broker::{Broker, Options};
use hoopoe_tests::connect::Connect;
use hoopoe_tests::crash::Settings;
use hoopoe_tests::crash::power::Power;
use hoopoe_tests::wire::{Publish, Version};

use super::{SEED, crash, expect_nothing_wrong};

/// Messages per step.
const MESSAGES: usize = 50;

#[test]
fn what_clients_were_promised_holds_through_power_cuts() {
    let settings =
        Settings { seed: SEED, kills: 6, acks: 300, power_cuts: true, ..Settings::default() };
    expect_nothing_wrong(&crash(&settings));
}

#[test]
fn a_broker_that_does_not_sync_is_caught() {
    let durability = "os".to_owned();
    let settings = Settings { seed: SEED, kills: 2, acks: 300, power_cuts: true, durability };
    let outcome = crash(&settings);
    let lost = |what: &str| outcome.faults.iter().any(|fault| fault.what.contains(what));
    assert!(lost("acknowledged, but never delivered"), "{}", outcome.summary());
}

/// A broker whose syncs are watched, and a stored session for `t`.
fn watched(durability: &str) -> (Broker, Power) {
    let options = Options::new().argument("--durability").argument(durability);
    let (options, power) = Power::watch(options);
    let broker = options.start();
    let mut absent = broker.connect(&Connect::persistent(Version::V5, "absent"));
    absent.subscribe("t", 1);
    absent.disconnect();
    (broker, power)
}

/// Publishes the numbers from `first` on, each acknowledged before the next.
fn publish(broker: &Broker, first: usize) {
    let mut publisher = broker.v5();
    for number in first..first + MESSAGES {
        publisher.publish(Publish::new("t", number.to_string()).qos(1));
    }
    publisher.disconnect();
}

fn cut_and_restart(broker: &mut Broker, power: &Power) {
    broker.kill();
    power.cut();
    broker.start_again();
}

/// What the absent session has got, in order, if it is still there.
fn waiting(broker: &Broker) -> Option<Vec<usize>> {
    let connect = Connect::persistent(Version::V5, "absent");
    let mut client = broker.connect(&connect);
    let present = client.connack.session_present;
    // What comes before this message is all there was.
    client.subscribe("end", 1);
    client.publish(Publish::new("end", "").qos(1));
    let mut numbers = Vec::new();
    loop {
        let publish = client.take_publish();
        if publish.topic == "end" {
            break;
        }
        let text = String::from_utf8_lossy(&publish.payload).into_owned();
        numbers.push(text.parse().unwrap_or_else(|error| panic!("{text}: {error}")));
    }
    present.then_some(numbers)
}

#[test]
fn with_sync_a_power_cut_loses_nothing_acknowledged() {
    let (mut broker, power) = watched("sync");
    publish(&broker, 0);
    cut_and_restart(&mut broker, &power);
    publish(&broker, MESSAGES);
    cut_and_restart(&mut broker, &power);
    assert_eq!(waiting(&broker), Some((0..2 * MESSAGES).collect()));
}

#[test]
fn with_os_a_power_cut_loses_what_was_not_synced_and_nothing_else() {
    let (mut broker, power) = watched("os");
    publish(&broker, 0);
    // A clean stop syncs.
    broker.stop();
    broker.start_again();
    publish(&broker, MESSAGES);
    cut_and_restart(&mut broker, &power);
    // Nothing is acknowledged by a receiver and no session ends, so nothing was synced since.
    assert_eq!(waiting(&broker), Some((0..MESSAGES).collect()));
}

#[test]
fn a_power_cut_at_once_takes_a_session_that_was_not_synced() {
    let (mut broker, power) = watched("os");
    publish(&broker, 0);
    cut_and_restart(&mut broker, &power);
    assert_eq!(waiting(&broker), None);
}
