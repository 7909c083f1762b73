//! A user's device as these tests drive it: connected, its inbox read by topic, services called.
//! The broker runs in development mode: who connects with a user name is that user.

use hoopoe_tests::{Broker, Connect, Publish, RawClient, Version, unique_id};
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
