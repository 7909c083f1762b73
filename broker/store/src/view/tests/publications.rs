//! Publications: dense numbers, shared bodies, full queues, retained messages, readers.

use std::sync::Arc;

use hoopoe_codec::QoS;
use hoopoe_core::{Publication, PublicationParts};

use super::over_both;
use super::rig::*;
use crate::command::*;
use crate::effect::Effect;
use crate::settings::{Overflow, ShardSettings};

/// Weight of a message with a one-byte topic and a one-byte payload.
const SMALL: u64 = 34;

fn retained(topic: &str, payload: &str, expires_at_ms: Option<u64>) -> Command {
    let publication = PublicationParts {
        topic,
        properties: &[],
        payload: payload.as_bytes(),
        qos: QoS::AtLeastOnce,
        retain: true,
        expires_at_ms,
    };
    Command::Publish(Box::new(Publish {
        publication: Arc::new(publication.to_publication()),
        retain: true,
        reply: Some(ReplyTo { location: hoopoe_core::Location::new(0, 1, 1), token: 0 }),
        ..publication_to_none()
    }))
}

fn publication_to_none() -> Publish {
    publication(&[], "")
}

fn topics(rig: &Rig, filters: &[&str]) -> Vec<String> {
    let reader = rig.store.reader();
    let (mut found, mut after) = (Vec::new(), None::<String>);
    loop {
        let page =
            reader.read_retained(rig.now, filters, after.as_deref(), 2, 1 << 20).expect("reads");
        let topic = |(_, message): &(u64, Publication)| message.topic().to_owned();
        found.extend(page.messages.iter().map(topic));
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

over_both! {
    fn every_queue_is_dense(rig) {
        let (alice, bob) = (rig.connect_as("alice"), rig.connect_as("bob"));
        rig.close(&bob, CloseCause::Normal);
        let both = [alice.id(), bob.id()];
        let effects = rig.publish(&both, "1");
        assert_eq!(brief(&effects), ["committed 00", "live [1]"], "bob is not there");
        rig.publish(&both[..1], "2");
        let effects = rig.publish(&both, "3");
        assert_eq!(brief(&effects), ["committed 00", "live [3]"]);
        assert_eq!(rig.queue(bob.id(), 1), [(1, "1".into()), (2, "3".into())]);
        assert_eq!(rig.queue(alice.id(), 2), [(2, "2".into()), (3, "3".into())]);
        assert_eq!(rig.view.sessions[&bob.id()].route.queued(), 2);
    }

    fn a_shared_body_lives_until_its_last_entry_is_done(rig) {
        let clients: Vec<Client> = ["a", "b", "c"].map(|name| rig.connect_as(name)).into();
        let ids: Vec<_> = clients.iter().map(Client::id).collect();
        rig.publish(&ids, "x");
        for (at, client) in clients.iter().enumerate() {
            for id in &ids[at..] {
                assert_eq!(rig.queue(*id, 1), [(1, "x".into())]);
            }
            rig.run(vec![Command::Progress(client.progress(1, SMALL, 1))]);
            rig.pass(5_000);
            rig.store.reclaim().expect("reclaims");
        }
        if let Some(memory) = &rig.memory {
            assert!(memory.is_empty(crate::kv::Family::Body));
            assert!(memory.is_empty(crate::kv::Family::Queue));
        }
    }

    fn entries_carry_their_receivers_terms(rig) {
        let alice = rig.connect_as("alice");
        let mut publish = publication(&[alice.id()], "x");
        publish.receivers[0].qos = QoS::ExactlyOnce;
        publish.receivers[0].retain = true;
        publish.receivers[0].identifiers = [7, 9].into_iter().collect();
        rig.run(vec![Command::Publish(Box::new(publish))]);
        let entry = rig.store.reader().read_entry(alice.id(), 1).expect("reads").expect("is there");
        assert_eq!((entry.qos, entry.retain, entry.seq, entry.weight), (QoS::ExactlyOnce, true, 1, SMALL));
        assert_eq!(&entry.identifiers[..], [7, 9]);
    }

    fn expired_entries_are_passed_over(rig) {
        let alice = rig.connect_as("alice");
        for (payload, expires) in [("1", None), ("2", Some(5_000)), ("3", Some(20_000)), ("4", Some(1))] {
            let mut publish = publication(&[alice.id()], payload);
            let message = publish.publication.parts();
            let expires_at_ms = expires.map(|ms: u64| rig.now + ms);
            let message = PublicationParts { expires_at_ms, ..message }.to_publication();
            publish.publication = Arc::new(message);
            rig.run(vec![Command::Publish(Box::new(publish))]);
        }
        rig.now += 5_000;
        let page = rig.store.reader().read_queue(rig.now, alice.id(), 1, 10, 1 << 20).expect("reads");
        let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
        assert_eq!(seqs, [1, 3]);
        assert_eq!((page.through, page.weight, page.more), (4, 4 * SMALL, false));
        assert_eq!(page.expired, 2);
    }

    fn an_expired_message_with_a_shared_body_counts_for_each_queue(rig) {
        let (alice, bob) = (rig.connect_as("alice"), rig.connect_as("bob"));
        let mut publish = publication(&[alice.id(), bob.id()], "x");
        let expires_at_ms = Some(rig.now + 1);
        let message = PublicationParts { expires_at_ms, ..publish.publication.parts() }.to_publication();
        publish.publication = Arc::new(message);
        rig.run(vec![Command::Publish(Box::new(publish))]);
        rig.now += 1;
        for session in [alice.id(), bob.id()] {
            let page = rig.store.reader().read_queue(rig.now, session, 1, 10, 1 << 20).expect("reads");
            assert_eq!((page.entries.len(), page.expired, page.through), (0, 1, 1));
        }
    }

    fn pages_end_where_they_are_told(rig) {
        let alice = rig.connect_as("alice");
        for _ in 0..10 {
            rig.publish(&[alice.id()], "x");
        }
        let reader = rig.store.reader();
        let read = |from, entries, bytes| {
            let page = reader.read_queue(0, alice.id(), from, entries, bytes).expect("reads");
            (page.entries.len(), page.through, page.more)
        };
        assert_eq!(read(1, 3, 1 << 20), (3, 3, true));
        assert_eq!(read(8, 3, 1 << 20), (3, 10, false));
        assert_eq!(read(1, 100, 2 * SMALL as usize), (3, 3, true));
        assert_eq!(read(1, 100, 0), (1, 1, true));
        assert_eq!(read(11, 100, 1 << 20), (0, 0, false));
    }

    fn a_retained_message_is_replaced_and_removed(rig) {
        for (topic, payload) in [("a/b", "1"), ("a", "2"), ("a/c", "3"), ("b", "4"), ("$x", "5")] {
            assert_eq!(brief(&rig.run(vec![retained(topic, payload, None)])), ["committed 00"]);
        }
        assert_eq!(topics(rig, &["#"]), ["a", "a/b", "a/c", "b"]);
        assert_eq!(topics(rig, &["a/#"]), ["a", "a/b", "a/c"]);
        assert_eq!(topics(rig, &["+"]), ["a", "b"]);
        assert_eq!(topics(rig, &["b", "a/+", "a/b"]), ["a/b", "a/c", "b"]);
        assert_eq!(topics(rig, &["$x", "a"]), ["$x", "a"]);
        assert_eq!(rig.store.reader().counts().retained, 5);
        rig.run(vec![retained("a/b", "", None), retained("b", "new", None), retained("none", "", None)]);
        assert_eq!(rig.store.reader().counts().retained, 4);
        rig.restart_in_place(0);
        assert_eq!(rig.store.reader().counts().retained, 4);
        assert_eq!(topics(rig, &["#"]), ["a", "a/c", "b"]);
    }

    fn positions_of_retained_messages_grow(rig) {
        let mut last = 0;
        for round in 0..4 {
            if round == 2 {
                rig.restart_in_place(0);
            }
            let effects = rig.run(vec![retained("a", "x", None)]);
            let Effect::Committed { position, .. } = effects[0] else { panic!("committed") };
            assert!(position > last, "round {round}");
            last = position;
            let page = rig.store.reader().read_retained(0, &["a"], None, 9, 1 << 20).expect("reads");
            assert_eq!(page.messages[0].0, position);
        }
    }

    fn expired_retained_messages_go_unless_replaced(rig) {
        let at = Some(rig.now + 10);
        rig.run(vec![retained("a", "1", at), retained("b", "2", at), retained("c", "3", None)]);
        rig.now += 10;
        let page = rig.store.reader().read_retained(rig.now, &["#"], None, 9, 1 << 20).expect("reads");
        assert_eq!((page.messages.len(), page.expired.len()), (1, 2));
        rig.run(vec![
            retained("b", "new", None),
            Command::ExpireRetained { topics: page.expired },
        ]);
        assert_eq!(topics(rig, &["#"]), ["b", "c"]);
        assert_eq!(rig.store.reader().counts().retained, 2);
    }
}

fn limited(settings: ShardSettings) -> Rig {
    Rig::memory_with(settings)
}

#[test]
fn a_full_queue_drops_its_oldest() {
    let cases = [
        (3, 1 << 20, &[3, 4, 5][..], 2),
        (100, 3 * SMALL, &[3, 4, 5], 2),
        (1, 1 << 20, &[5], 4),
        (100, 1, &[5], 4),
    ];
    for one_batch in [false, true] {
        for (queue_max_messages, queue_max_bytes, left, dropped) in cases {
            let settings =
                ShardSettings { queue_max_messages, queue_max_bytes, ..ShardSettings::default() };
            let mut rig = limited(settings);
            let alice = rig.connect_as("alice");
            rig.close(&alice, CloseCause::Normal);
            let commands: Vec<_> = (0..5).map(|_| rig.publication(&[alice.id()], "x")).collect();
            let effects = match one_batch {
                true => rig.run(commands),
                false => commands.into_iter().flat_map(|one| rig.run(vec![one])).collect(),
            };
            let overflowed = effects.iter().map(|effect| match effect {
                Effect::Overflowed { messages, .. } => *messages,
                _ => 0,
            });
            assert_eq!(overflowed.sum::<u64>(), dropped);
            rig.pass(5_000);
            let seqs: Vec<u64> = rig.queue(alice.id(), 1).into_iter().map(|(seq, _)| seq).collect();
            assert_eq!(seqs, left, "{queue_max_messages} {queue_max_bytes} {one_batch}");
            rig.restart_in_place(0);
            let stored = rig.connect_as("alice").session.expect("stored");
            assert_eq!((stored.acknowledged, stored.head), (dropped, 5));
        }
    }
}

#[test]
fn a_full_queue_may_refuse_the_whole_publication() {
    let settings = ShardSettings {
        queue_max_messages: 2,
        overflow: Overflow::Refuse,
        ..ShardSettings::default()
    };
    let mut rig = limited(settings);
    let (alice, bob) = (rig.connect_as("alice"), rig.connect_as("bob"));
    rig.publish(&[alice.id()], "1");
    rig.publish(&[alice.id()], "2");
    let effects = rig.publish(&[bob.id(), alice.id()], "3");
    assert_eq!(brief(&effects), ["committed 97"]);
    assert_eq!(rig.queue(bob.id(), 1), []);
    rig.run(vec![Command::Progress(alice.progress(1, SMALL, 2))]);
    let effects = rig.publish(&[bob.id(), alice.id()], "3");
    assert_eq!(brief(&effects), ["committed 00", "live [1, 3]"]);
}

#[test]
fn the_number_of_retained_messages_is_limited() {
    let settings = ShardSettings { retained_max: 2, ..ShardSettings::default() };
    let mut rig = limited(settings);
    let effects = rig.run(vec![
        retained("a", "1", None),
        retained("b", "1", None),
        retained("c", "1", None),
        retained("a", "2", None),
        retained("b", "", None),
        retained("c", "2", None),
    ]);
    let expected = ["00", "00", "9a", "00", "00", "00"].map(|code| format!("committed {code}"));
    assert_eq!(brief(&effects), expected);
    assert_eq!(topics(&rig, &["#"]), ["a", "c"]);
    // Whoever is subscribed gets it all the same.
    let alice = rig.connect_as("alice");
    let Command::Publish(mut publish) = retained("d", "1", None) else { panic!("a publication") };
    let (session, qos) = (alice.id(), QoS::AtLeastOnce);
    publish.receivers.push(Receiver {
        session,
        qos,
        retain: false,
        identifiers: Default::default(),
    });
    let effects = rig.run(vec![Command::Publish(publish)]);
    assert_eq!(brief(&effects), ["committed 9a", "live [1]"]);
    assert_eq!(topics(&rig, &["#"]), ["a", "c"]);
}

#[test]
fn a_retained_message_that_cannot_be_read_is_not_said_to_be_removed() {
    let mut rig = Rig::memory();
    rig.run(vec![retained("a", "kept", None)]);
    rig.restart_in_place(0);
    let memory = rig.memory.clone().expect("memory");
    memory.fail_read(1);
    assert_eq!(brief(&rig.run(vec![retained("a", "", None)])), ["committed 88"]);
    assert_eq!(brief(&rig.run(vec![retained("a", "", None)])), ["committed 00"]);
    assert_eq!(rig.store.reader().counts().retained, 0);
}
