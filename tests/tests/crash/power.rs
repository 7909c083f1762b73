//! Power cuts: the files become what had been synced. That this finds a missing sync is shown with
//! a broker that does not sync.

use hoopoe_tests::broker::{Broker, Options};
use hoopoe_tests::connect::Connect;
use hoopoe_tests::crash::Settings;
use hoopoe_tests::crash::audit::Fault;
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

/// Not a matter of luck: the power is cut when an acknowledgement has just come, so there is always
/// something that no sync has followed.
#[test]
fn a_broker_that_does_not_sync_is_caught() {
    let durability = "os".to_owned();
    let settings = Settings { seed: SEED, kills: 4, acks: 300, power_cuts: true, durability };
    let outcome = crash(&settings);
    let lost = |fault: &Fault| {
        fault.what == "acknowledged, but never delivered"
            || fault.what == "a stored session was lost"
    };
    assert!(outcome.faults.iter().any(lost), "{}", outcome.summary());
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
    // The last one was acknowledged just now. Nothing waits for a sync in this setting; one of the
    // broker's own, some seconds after its start, would have to come in this very moment.
    cut_and_restart(&mut broker, &power);
    let kept = waiting(&broker).expect("the session was synced");
    assert!((MESSAGES..2 * MESSAGES).contains(&kept.len()), "{} kept", kept.len());
    assert_eq!(kept, (0..kept.len()).collect::<Vec<_>>(), "an unbroken beginning");
}
