//! MQTT over WebSocket.

use hoopoe_tests::wire::PINGREQ;
use hoopoe_tests::{
    Connect, Packet, Publish, RawClient, Version, shared_broker, unique_id, unique_topic, websocket,
};
use tungstenite::Message;

const PATH: &str = "/mqtt";

fn open(version: Version) -> RawClient {
    let address = shared_broker().address("ws");
    let (link, _) = websocket::open(address, PATH, &["mqtt"]).expect("the handshake succeeds");
    RawClient::over(Box::new(link), version)
}

#[test]
fn subprotocol_mqtt_is_chosen() {
    let address = shared_broker().address("ws");
    for offered in [&["mqtt"][..], &["chat", "mqtt"], &["mqtt", "mqttv3.1"]] {
        let (_, chosen) = websocket::open(address, PATH, offered).expect("the handshake succeeds");
        assert_eq!(chosen.as_deref(), Some("mqtt"), "offered {offered:?}");
    }
}

#[test]
fn other_subprotocols_are_not_chosen() {
    // A server may refuse the handshake, or go on without naming a subprotocol: then the client
    // gives up by itself. It must not name one that is not MQTT.
    let address = shared_broker().address("ws");
    if let Ok((_, chosen)) = websocket::open(address, PATH, &["chat"]) {
        assert_eq!(chosen, None);
    }
}

#[test]
fn messages_travel_over_websocket() {
    for version in Version::BOTH {
        for qos in 0..3 {
            let topic = unique_topic("ws");
            let mut client = open(version);
            client.login(&Connect::new(version, &unique_id("ws")));
            client.subscribe(&topic, qos);
            client.publish(Publish::new(&topic, "from ws").qos(qos));
            client.expect_message(&topic, "from ws");
            shared_broker().client(version).publish(Publish::new(&topic, "from tcp").qos(qos));
            client.expect_message(&topic, "from tcp");
        }
    }
}

#[test]
fn packets_need_not_end_where_frames_end() {
    for version in Version::BOTH {
        let topic = unique_topic("ws");
        let mut bytes = Connect::new(version, &unique_id("ws")).encode();
        let none = Default::default();
        bytes.extend(hoopoe_tests::wire::subscribe(version, 1, &[(&topic, 0)], &none));
        for number in 0..5 {
            bytes.extend(Publish::new(&topic, format!("{number}")).encode(version));
        }
        bytes.extend_from_slice(&PINGREQ);
        // All packets in one frame, then one byte in each, then pieces across the borders.
        for piece in [bytes.len(), 1, 5, 13] {
            let mut client = open(version);
            for part in bytes.chunks(piece) {
                client.send(part);
            }
            assert!(matches!(client.next_packet(), Packet::ConnAck(connack) if connack.code == 0));
            assert!(matches!(client.next_packet(), Packet::SubAck(_)));
            let mut numbers = 0;
            loop {
                match client.next_packet() {
                    Packet::Publish(publish) => {
                        assert_eq!(publish.payload, format!("{numbers}").into_bytes());
                        numbers += 1;
                    }
                    Packet::PingResp => {}
                    other => panic!("{other:?}"),
                }
                if numbers == 5 {
                    break;
                }
            }
        }
    }
}

#[test]
fn frames_that_are_not_binary_close_the_connection() {
    let address = shared_broker().address("ws");
    for connected in [false, true] {
        let (mut link, _) = websocket::open(address, PATH, &["mqtt"]).expect("the handshake");
        if connected {
            let connect = Connect::v311(&unique_id("ws")).encode();
            link.send_message(Message::Binary(connect.into()));
            let mut connack = [0; 4];
            std::io::Read::read_exact(&mut link, &mut connack).expect("a CONNACK");
            assert_eq!(connack, [0x20, 2, 0, 0]);
        }
        link.send_message(Message::Text("hello".into()));
        link.expect_closed();
    }
}

#[test]
fn large_message_comes_whole_over_websocket() {
    let topic = unique_topic("ws");
    let payload: Vec<u8> = (0..500_000u32).map(|number| (number % 251) as u8).collect();
    let mut client = open(Version::V5);
    client.login(&Connect::v5(&unique_id("ws")));
    client.subscribe(&topic, 1);
    client.publish(Publish::new(&topic, &payload).qos(1));
    client.expect_message(&topic, &payload);
}

#[test]
fn wrong_path_is_refused() {
    let address = shared_broker().address("ws");
    assert!(websocket::open(address, "/elsewhere", &["mqtt"]).is_err());
}
