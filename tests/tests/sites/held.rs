//! Sends while the link is cut.

use hoopoe_tests::{Publish, Version, code};

use crate::world::{Sent, World, await_topic, property, send};

#[test]
fn what_is_held_is_sent_when_the_link_is_back() {
    let mut world = World::start(&["fra", "ny"], "answer_timeout_ms = 1000");
    let mut a = world.device(Version::V5, "alice");
    let mut b = world.device(Version::V5, "bob-ny");
    assert_eq!(send(&mut b, "im/u/alice/msg/first", "0"), Sent::Seq(1));
    world.cut();
    // The first may wait for the answer that does not come, the others need not.
    for n in 1..=20 {
        let sent = send(&mut b, &format!("im/u/alice/msg/c{n}"), &n.to_string());
        assert_eq!(sent, Sent::Held, "{n}");
    }
    assert_eq!(send(&mut b, "im/u/alice/msg/c3", "3"), Sent::Held);
    let mut old = world.device(Version::V311, "bert-ny");
    old.publish(Publish::new("im/u/alice/msg/o1", "from 3.1.1").qos(1));
    // What the disk has, a crash does not take.
    let at = world.site("ny");
    world.brokers[at].kill();
    world.brokers[at].start_again();
    let mut b = world.device(Version::V5, "bob-ny");
    let mut old = world.device(Version::V311, "bert-ny");
    world.heal();
    for n in 1..=20 {
        let told = await_topic(&mut b, &format!("im/me/sys/sent/c{n}/u/alice/{}/", n + 1));
        assert!(told.payload.is_empty());
    }
    await_topic(&mut old, "im/me/sys/sent/o1/u/alice/1/");
    let mut texts = Vec::new();
    while texts.len() < 22 {
        let got = await_topic(&mut a, "im/me/in/u/b");
        if got.topic.ends_with("bob-ny") {
            let seq = property(&got, "im-seq").expect("a seq");
            assert_eq!(seq, (texts.len() + 1).to_string());
            texts.push(String::from_utf8(got.payload).expect("text"));
        }
        if texts.len() == 21 {
            break;
        }
    }
    let wanted: Vec<String> = (0..=20).map(|n| n.to_string()).collect();
    assert_eq!(texts, wanted);
    assert_eq!(world.texts("bob-ny", "u/alice"), wanted);
    assert_eq!(send(&mut b, "im/u/alice/msg/c3", "3"), Sent::Seq(4), "known by its name");
}

#[test]
fn a_broker_that_does_not_hold_refuses() {
    let world = World::start(&["fra", "ny"], "when_down = \"refuse\"");
    let mut b = world.device(Version::V5, "bob-ny");
    world.cut();
    world.until_cut("ny", "fra");
    let sent = send(&mut b, "im/u/alice/msg/c", "x");
    assert_eq!(sent, Sent::Refused(code::QUOTA_EXCEEDED));
    // What lives here goes on.
    assert_eq!(send(&mut b, "im/u/bert-ny/msg/c", "x"), Sent::Seq(1));
    world.heal();
    world.until_linked();
    assert_eq!(send(&mut b, "im/u/alice/msg/c", "x"), Sent::Seq(1));
}
