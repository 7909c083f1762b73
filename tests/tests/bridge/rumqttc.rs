//! Why no link of QoS 2 speaks through rumqttc: a client that is rebuilt gives new packet identifiers,
//! and then QoS 2 is no longer exactly once. If this test fails, the decision can be made anew.

use hoopoe_tests::wire::packet_type;
use hoopoe_tests::{Broker, Publish, Version};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, Event, EventLoop, Incoming, MqttOptions};

use crate::proxy::{Fate, Proxy, Way, at};

fn client(proxy: &Proxy) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new("rebuilt", "127.0.0.1", proxy.address.port());
    options.set_clean_start(false).set_session_expiry_interval(Some(3600));
    AsyncClient::new(options, 10)
}

/// Publishes with QoS 2 and sees it through; false when the connection ends before that.
async fn publish(client: &mut (AsyncClient, EventLoop), text: &str) -> bool {
    client.0.publish("spike", QoS::ExactlyOnce, false, text.to_owned()).await.expect("it is taken");
    loop {
        match client.1.poll().await {
            Ok(Event::Incoming(Incoming::PubComp(_))) => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

/// What a subscriber gets of what `scenario` publishes over a network that is cut before the PUBREC of
/// that number, with new clients from then on.
fn delivered(cut_at: &'static [usize], before: &[&str], after: &[&str]) -> Vec<String> {
    let broker = Broker::start();
    let proxy = Proxy::to(broker.tcp());
    proxy.plan(at(Way::In, packet_type::PUBREC, cut_at, Fate::CutBefore));
    let mut subscriber = broker.client(Version::V5);
    subscriber.subscribe("#", 2);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async {
        let mut first = client(&proxy);
        let (last, others) = before.split_last().expect("a message");
        for text in others {
            assert!(publish(&mut first, text).await);
        }
        assert!(!publish(&mut first, last).await, "it is cut");
        let mut second = client(&proxy);
        for text in after {
            assert!(publish(&mut second, text).await);
        }
    });
    broker.v5().publish(Publish::new("end", "").qos(2));
    let mut got = Vec::new();
    loop {
        let publish = subscriber.take_publish();
        if publish.topic == "end" {
            return got;
        }
        got.push(String::from_utf8_lossy(&publish.payload).into_owned());
    }
}

#[test]
fn a_rebuilt_rumqttc_doubles_and_loses_qos_2() {
    // What was not acknowledged is sent again by the new client, under another identifier: doubled.
    assert_eq!(delivered(&[2], &["one", "two"], &["two"]), ["one", "two", "two"]);
    // The new client begins with the identifier that the broker still holds as received: lost.
    assert_eq!(delivered(&[1], &["one"], &["two", "three"]), ["one", "three"]);
}
