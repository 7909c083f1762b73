//! Tokens: made, used as password and over HTTP, bound, revoked, kept over a restart.

use hoopoe_tests::broker::Options;
use hoopoe_tests::wire::code;
use hoopoe_tests::{Broker, Connect, Http, Publish};
use serde_json::json;

use crate::{admin, device, im, login_code, options};

fn token(broker: &Broker, body: serde_json::Value) -> (String, String) {
    let made = admin(broker).call("tokens", body);
    let text = |name: &str| made[name].as_str().expect("a text").to_owned();
    (text("id"), text("token"))
}

#[test]
fn token_is_a_password_and_a_bearer_until_it_is_revoked() {
    let mut broker = options().start();
    let (id, text) = token(&broker, json!({ "user": "alice", "ttl": 3600 }));
    let alice = |broker: &Broker| Http::new(broker.http()).bearer(&text);
    let listed = alice(&broker).call("tokens/list", json!({}));
    assert_eq!(listed["tokens"][0]["id"], json!(id));
    assert!(!listed.to_string().contains(&text), "shown once");
    // Others, and other users, get nowhere with it, development mode or not.
    let connect = Connect::v5("phone-1").login("alice", &text);
    let mut phone = device(&broker, connect.clone());
    for (user, password) in [("bob", text.clone()), ("alice", text.replace("hpt_", "hpt_x"))] {
        let connect = Connect::v5("phone-2").login(user, &password);
        let code = login_code(&broker, &connect);
        let is_token = password.len() == text.len();
        let expected = if is_token { code::BAD_USER_NAME_OR_PASSWORD } else { code::SUCCESS };
        assert_eq!(code, expected, "{user}");
    }
    phone.ping();
    phone.cut();
    // It is in the store.
    broker.kill_and_restart();
    let mut phone = device(&broker, connect.clone());
    assert_eq!(alice(&broker).call("time/now", json!({}))["now"].as_u64().map(|_| ()), Some(()));
    alice(&broker).call("tokens/revoke", json!({ "id": id }));
    phone.expect_disconnect(code::NOT_AUTHORIZED);
    assert_eq!(alice(&broker).refused("time/now", json!({}), 401), "not_allowed");
    assert_eq!(login_code(&broker, &connect), code::BAD_USER_NAME_OR_PASSWORD);
    broker.restart();
    assert_eq!(login_code(&broker, &connect), code::BAD_USER_NAME_OR_PASSWORD);
}

#[test]
fn token_of_a_device_is_for_that_device() {
    let broker = options().start();
    let (_, text) = token(&broker, json!({ "user": "alice", "device": "phone-1" }));
    let login = |client: &str| Connect::v5(client).login("alice", &text);
    assert_eq!(login_code(&broker, &login("phone-2")), code::BAD_USER_NAME_OR_PASSWORD);
    device(&broker, login("phone-1")).ping();
    let alice = Http::new(broker.http()).bearer(&text);
    assert_eq!(alice.refused("tokens/create", json!({ "device": "x" }), 403), "not_allowed");
    alice.call("tokens/create", json!({}));
    let listed = alice.call("tokens/list", json!({}));
    let devices: Vec<_> =
        listed["tokens"].as_array().unwrap().iter().map(|t| &t["device"]).collect();
    assert_eq!(devices, ["phone-1", "phone-1"]);
}

#[test]
fn device_makes_a_token_over_mqtt() {
    let broker = options().start();
    let mut phone = device(&broker, Connect::v5("phone-1").login("alice", ""));
    phone.publish(Publish::new("im/svc/tokens/create/r1", "{\"ttl\":60}").qos(1));
    let answer = phone.take_publish();
    assert_eq!(answer.topic, "im/me/res/r1/ok");
    let made: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
    let alice = Http::new(broker.http()).bearer(made["token"].as_str().unwrap());
    alice.call("user/set", json!({ "name": "Alice" }));
    // A user's token sends nothing over HTTP and administers nothing.
    let message = json!({ "to": "u/bob", "cid": "1", "payload": "x" });
    assert_eq!(alice.refused("messages", message, 403), "not_allowed");
    assert_eq!(alice.refused("admin/users/list", json!({}), 403), "not_allowed");
    assert_eq!(alice.acting_for("bob").refused("time/now", json!({}), 403), "not_allowed");
}

#[test]
fn a_user_changes_no_more_a_second_over_http_than_over_mqtt() {
    let limits = "[im]\nsends_per_sec = 1\nsend_burst = 60\n";
    let broker = Options::new().configuration(limits).start();
    let made = Http::new(broker.http()).call("tokens", json!({ "user": "alice" }));
    let alice = Http::new(broker.http()).bearer(made["token"].as_str().unwrap());
    // Of 400 users each ten count as one more: what is left of 60 is not enough for as many again.
    let users: Vec<String> = (0..400).map(|n| format!("user-{n}")).collect();
    let group = |n: usize| json!({ "group": format!("g{n}"), "name": "x", "members": users });
    alice.call("group/create", group(0));
    let refused = alice.refused("group/create", group(1), 429);
    assert_eq!(refused, "limit");
    alice.call("group/list", json!({}));
}

#[test]
fn development_mode_gives_tokens_to_whom_is_named_until_there_are_accounts() {
    let broker = options().start();
    let nobody = Http::new(broker.http());
    let made = nobody.call("tokens", json!({ "user": "alice" }));
    let alice = Http::new(broker.http()).bearer(made["token"].as_str().unwrap());
    alice.call("time/now", json!({}));
    assert_eq!(nobody.refused("tokens", json!({}), 400), "bad_request");
    assert_eq!(nobody.refused("tokens/list", json!({}), 401), "not_allowed");
    admin(&broker).call("admin/users/create", json!({ "user": "bob", "password": "secret" }));
    assert_eq!(nobody.refused("tokens", json!({ "user": "alice" }), 401), "not_allowed");
    // Tokens of before are good; a name alone is believed no more.
    alice.call("time/now", json!({}));
    let bare = Connect::v5("phone-1").login("alice", "");
    assert_eq!(login_code(&broker, &bare), code::BAD_USER_NAME_OR_PASSWORD);
}

#[test]
fn user_exchanges_a_password_for_a_token() {
    let broker = options().start();
    let account = json!({ "user": "alice", "password": "secret" });
    admin(&broker).call("admin/users/create", account);
    // `alice:secret` and `alice:wrong`
    let basic =
        |text: &str| Http::new(broker.http()).header("authorization", &format!("Basic {text}"));
    let made = basic("YWxpY2U6c2VjcmV0").call("tokens", json!({ "device": "phone-1" }));
    let text = made["token"].as_str().unwrap();
    device(&broker, Connect::v5("phone-1").login("alice", text)).ping();
    assert_eq!(basic("YWxpY2U6d3Jvbmc=").refused("tokens", json!({}), 401), "not_allowed");
    assert_eq!(basic("nonsense").refused("tokens", json!({}), 401), "not_allowed");
    assert_eq!(basic("YWxpY2U6c2VjcmV0").refused("time/now", json!({}), 401), "not_allowed");
}

#[test]
fn service_account_sends_for_itself_and_others() {
    let broker = options().start();
    let roles = json!({ "user": "shop", "roles": ["service"] });
    admin(&broker).call("admin/users/create", roles);
    let (_, text) = token(&broker, json!({ "user": "shop" }));
    let (_, bobs) = token(&broker, json!({ "user": "bob" }));
    let mut bob = device(&broker, Connect::v5("phone-1").login("bob", &bobs));
    let shop = Http::new(broker.http()).bearer(&text);
    shop.call("messages", json!({ "to": "u/bob", "cid": "1", "payload": "mine" }));
    assert_eq!(im(&bob.expect_message("im/me/in/u/shop", "mine"), "im-from"), "shop");
    let message = json!({ "from": "alice", "to": "u/bob", "cid": "1", "payload": "hers" });
    shop.call("messages", message);
    bob.expect_message("im/me/in/u/alice", "hers");
    admin(&broker).call("admin/users/disable", json!({ "user": "shop" }));
    let message = json!({ "to": "u/bob", "cid": "2", "payload": "no more" });
    assert_eq!(shop.refused("messages", message, 401), "not_allowed");
}
