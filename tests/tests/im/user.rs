//! A user's device as these tests drive it: connected, its inbox read by topic, services called.
//! The broker runs in development mode: who connects with a user name is that user.

use std::io::{Read, Write};
use std::net::TcpStream;

use hoopoe_tests::{Broker, Connect, DEADLINE, Publish, RawClient, Version, unique_id};
use serde_json::Value;

/// A device of `user` with a session that ends with its connection; its hello has been read.
pub(crate) fn device(broker: &Broker, version: Version, user: &str) -> RawClient {
    device_with(broker, &Connect::new(version, &unique_id("d")), user)
}

/// The same with a CONNECT of one's own.
pub(crate) fn device_with(broker: &Broker, connect: &Connect, user: &str) -> RawClient {
    let mut device = broker.connect(&connect.clone().login(user, "any"));
    await_topic(&mut device, "im/me/sys/hello");
    device
}

/// The next publication whose topic begins like this; those before it are taken and dropped.
pub(crate) fn await_topic(device: &mut RawClient, begins: &str) -> Publish {
    loop {
        let publish = device.take_publish();
        if publish.topic.starts_with(begins) {
            return publish;
        }
    }
}

/// Calls a service in the form both versions know; returns status and body.
pub(crate) fn call(device: &mut RawClient, operation: &str, body: &Value) -> (String, Value) {
    let request = unique_id("q");
    let topic = format!("im/svc/{operation}/{request}");
    device.publish(Publish::new(&topic, body.to_string()).qos(1));
    let begins = format!("im/me/res/{request}/");
    let answer = await_topic(device, &begins);
    let status = answer.topic[begins.len()..].to_owned();
    (status, serde_json::from_slice(&answer.payload).expect("answers are JSON"))
}

/// The body of an answer that must be `ok`.
pub(crate) fn call_ok(device: &mut RawClient, operation: &str, body: &Value) -> Value {
    let (status, answer) = call(device, operation, body);
    assert_eq!(status, "ok", "{operation} {body}: {answer}");
    answer
}

/// A call over HTTP; returns status and body.
pub(crate) fn post(broker: &Broker, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
    let mut stream = TcpStream::connect_timeout(&broker.http(), DEADLINE).expect("HTTP is open");
    stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout can be set");
    let body = body.to_string();
    let bearer = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: broker\r\nconnection: close\r\n{}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        bearer.unwrap_or_default(),
        body.len(),
    );
    stream.write_all(request.as_bytes()).expect("the request can be sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer comes in time");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status in {head}"));
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{answer}: {error}")))
}
