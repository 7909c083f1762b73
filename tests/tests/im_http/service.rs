//! Services and messages of back ends.

use hoopoe_tests::{Connect, Http, Publish};
use serde_json::{Value, json};

use crate::{ADMIN, admin, device, im, options};

#[test]
fn back_end_sends_once_per_cid_and_the_device_gets_it() {
    let broker = options().start();
    let admin = admin(&broker);
    let mut bob = device(&broker, Connect::v5("phone-1").login("bob", ""));
    let message = json!({
        "from": "shop", "to": "u/bob", "cid": "order-7", "payload": "sent today",
        "content_type": "text/plain",
    });
    let sent = admin.call("messages", message.clone());
    assert_eq!(sent["seq"], 1);
    let publish = bob.expect_message("im/me/in/u/shop", "sent today");
    assert_eq!(im(&publish, "im-from"), "shop");
    assert_eq!(im(&publish, "im-id"), sent["id"]);
    let again = admin.call("messages", message);
    assert_eq!(again, json!({ "seq": 1, "id": sent["id"], "ts": sent["ts"], "dup": true }));
    bob.ping();
    for (body, names) in [
        (json!({ "to": "u/bob", "cid": "1" }), "from"),
        (json!({ "from": "shop", "to": "u/bob" }), "cid"),
        (json!({ "from": "shop", "to": "r/room", "cid": "1" }), "to"),
    ] {
        let answer = admin.try_call("messages", body);
        assert_eq!(answer.status, 400);
        assert!(answer.json()["message"].as_str().unwrap().contains(names), "{answer:?}");
    }
}

#[test]
fn services_answer_as_over_mqtt() {
    let broker = options().start();
    let (alice, bob) = (admin(&broker).acting_for("alice"), admin(&broker).acting_for("bob"));
    let mut phone = device(&broker, Connect::v5("phone-1").login("alice", ""));
    phone.publish(Publish::new("im/u/bob/msg/c1", b"hi \xff").qos(1));
    phone.publish(Publish::new("im/u/bob/msg/c2", "there").qos(1));
    let pulled = bob.call("sync/pull", json!({ "conv": "u/alice" }));
    assert_eq!((&pulled["count"], &pulled["last"]), (&json!(2), &json!(2)));
    let entries = pulled["entries"].as_array().unwrap();
    assert_eq!(entries[0]["payload_base64"], "aGkg/w==");
    assert_eq!((&entries[0]["payload"], &entries[0]["cid"]), (&Value::Null, &Value::Null));
    assert_eq!((&entries[1]["payload"], &entries[1]["from"]), (&json!("there"), &json!("alice")));
    // The sender's own cid comes back to the sender.
    let own = alice.call("sync/pull", json!({ "conv": "u/bob", "from": 2 }));
    assert_eq!(own["entries"][0]["cid"], "c2");
    let heads = bob.call("sync/heads", json!({}));
    assert_eq!(heads["unread_total"], 2);
    assert_eq!(bob.call("conv/clear", json!({ "conv": "u/alice" }))["read"], 2);
    assert_eq!(bob.call("sync/counts", json!({}))["unread_total"], 0);
    bob.call("user/set", json!({ "name": "Bob" }));
    assert_eq!(alice.call("user/info", json!({ "user": "bob" }))["name"], "Bob");
}

#[test]
fn what_cannot_be_done_has_its_status_and_the_error_body() {
    let broker = options().start();
    let nobody = Http::new(broker.http());
    let bob = admin(&broker).acting_for("bob");
    assert_eq!(nobody.refused("time/now", json!({}), 401), "not_allowed");
    assert_eq!(nobody.clone().bearer("wrong").refused("time/now", json!({}), 401), "not_allowed");
    assert_eq!(admin(&broker).refused("time/now", json!({}), 400), "bad_request");
    assert_eq!(bob.refused("time/fly", json!({}), 404), "not_found");
    assert_eq!(bob.refused("time/now", json!({ "colour": 1 }), 400), "bad_request");
    assert_eq!(bob.refused("sync/pull", json!({ "conv": "nonsense" }), 400), "bad_request");
    assert_eq!(bob.refused("tokens/revoke", json!({ "id": "none" }), 404), "not_found");
    for length in [70_000, 300_000] {
        let large = json!({ "conv": "x".repeat(length) });
        assert_eq!(bob.refused("sync/pull", large, 413), "limit");
    }
    assert_eq!(bob.refused("user/set", json!({ "name": "x".repeat(1_000) }), 413), "limit");
    let payload = "x".repeat(64 * 1024 + 1);
    let large = json!({ "from": "shop", "to": "u/bob", "cid": "1", "payload": payload });
    assert_eq!(admin(&broker).refused("messages", large, 413), "limit");
    let answer = bob.ask("GET", "/v1/time/now", "");
    assert_eq!((answer.status, &answer.json()["error"]), (405, &json!("method_not_allowed")));
    let answer = bob.ask("POST", "/v1/none/such/path", "");
    assert_eq!((answer.status, &answer.json()["error"]), (404, &json!("not_found")));
}

#[test]
fn pages_may_only_when_they_are_named() {
    let origins = "[http]\norigins = [\"https://chat.example.org\"]\n";
    let broker = options().configuration(origins).start();
    let page = |origin: &str| Http::new(broker.http()).header("origin", origin);
    let named = page("https://chat.example.org");
    let preflight = named.ask("OPTIONS", "/v1/time/now", "");
    assert_eq!(preflight.status, 204, "{preflight:?}");
    let allowed = preflight.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://chat.example.org"));
    assert!(preflight.header("access-control-allow-headers").unwrap().contains("authorization"));
    let answer = named.bearer(ADMIN).acting_for("bob").try_call("time/now", json!({}));
    assert_eq!(answer.status, 200);
    assert!(answer.header("access-control-allow-origin").is_some());
    let other = page("https://evil.example");
    assert_eq!(other.ask("OPTIONS", "/v1/time/now", "").status, 403);
    let answer = other.bearer(ADMIN).acting_for("bob").try_call("time/now", json!({}));
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (403, None));
}

#[test]
fn whoever_asks_too_often_is_told_to_wait() {
    let slow = "[http]\nrequests_per_sec = 1\nrequest_burst = 1\n";
    let broker = options().configuration(slow).start();
    let token = admin(&broker).call("tokens", json!({ "user": "alice" }));
    let alice = Http::new(broker.http()).bearer(token["token"].as_str().unwrap());
    // The bucket holds one request; of a few in a row some are refused, however slow the machine.
    hoopoe_tests::eventually("a request is refused", || {
        let answer = alice.try_call("time/now", json!({}));
        answer.status == 429 && answer.header("retry-after") == Some("1")
    });
    // The admin token has no rate, and others have their own.
    for _ in 0..3 {
        admin(&broker).acting_for("alice").call("time/now", json!({}));
    }
}

#[test]
fn every_documented_route_answers() {
    let broker = options().start();
    let admin = admin(&broker).acting_for("alice");
    let document = Http::new(broker.http()).ask("GET", "/v1/openapi.json", "").json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 70, "{}", paths.len());
    for (path, methods) in paths {
        if methods.get("get").is_some() {
            let answer = admin.ask("GET", path, "");
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            continue;
        }
        let schema = &methods["post"]["requestBody"]["content"]["application/json"]["schema"];
        let needs = schema["required"].as_array().is_some_and(|names| !names.is_empty());
        // A field that nobody knows: the route is there, and its reader is reached.
        let answer = admin.ask("POST", path, "{\"no_such_field\":1}");
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.json()["message"].as_str().unwrap().contains("no_such_field"), "{path}");
        if needs {
            assert_eq!(admin.ask("POST", path, "{}").status, 400, "{path}");
        }
    }
}
