//! What operators do, over HTTP and by `hoopoe ctl`.

use hoopoe_tests::program::{self, Program};
use hoopoe_tests::wire::code;
use hoopoe_tests::{Broker, Connect, Http, Publish, Version, eventually, unique_topic};
use serde_json::json;

use crate::{ADMIN, admin, device, login_code, options};

const ADMINISTRATIVE_ACTION: u8 = 0x98;

#[test]
fn account_lives_from_create_to_delete() {
    let mut broker = options().start();
    let ops = |broker: &Broker| admin(broker);
    let created =
        ops(&broker).call("admin/users/create", json!({ "user": "alice", "password": "secret" }));
    assert_eq!((&created["user"], &created["disabled"]), (&json!("alice"), &json!(false)));
    let again = json!({ "user": "alice", "password": "other" });
    assert_eq!(ops(&broker).refused("admin/users/create", again, 409), "exists");
    let login = |password: &str| Connect::v5("phone-1").login("alice", password);
    assert_eq!(login_code(&broker, &login("other")), code::BAD_USER_NAME_OR_PASSWORD);
    let mut phone = device(&broker, login("secret"));
    let id = json!({ "user": "alice" });
    // Kicked at once, and locked out over a restart too.
    ops(&broker).call("admin/users/disable", id.clone());
    phone.expect_disconnect(code::NOT_AUTHORIZED);
    broker.restart();
    assert_eq!(login_code(&broker, &login("secret")), code::BAD_USER_NAME_OR_PASSWORD);
    ops(&broker).call("admin/users/enable", id.clone());
    let mut phone = device(&broker, login("secret"));
    let reset = json!({ "user": "alice", "password": "another" });
    ops(&broker).call("admin/users/reset", reset);
    phone.expect_disconnect(code::NOT_AUTHORIZED);
    assert_eq!(login_code(&broker, &login("secret")), code::BAD_USER_NAME_OR_PASSWORD);
    device(&broker, login("another")).disconnect();
    ops(&broker).acting_for("alice").call("user/set", json!({ "name": "Alice" }));
    let export = ops(&broker).call("admin/users/export", id);
    assert_eq!(export["profile"]["name"], "Alice");
    assert!(!export.to_string().contains("argon2"), "no hash leaves the broker");
    ops(&broker).call("admin/users/create", json!({ "user": "bob" }));
    let found = ops(&broker).call("admin/users/search", json!({ "text": "ali" }));
    assert_eq!(found["users"].as_array().map(Vec::len), Some(1));
    ops(&broker).call("admin/users/delete", json!({ "user": "alice", "erase": true }));
    let found = ops(&broker).call("admin/users/list", json!({}));
    assert_eq!(found["users"][0]["user"], "bob");
    let export = ops(&broker).call("admin/users/export", json!({ "user": "alice" }));
    assert_eq!((&export["profile"]["name"], &export["account"]), (&json!(""), &json!(null)));
    assert_eq!(login_code(&broker, &login("another")), code::BAD_USER_NAME_OR_PASSWORD);
}

/// What an erased user owned goes to a moderator, or is closed, also over a restart.
#[test]
fn rooms_of_an_erased_user_are_somebody_elses_or_closed() {
    let mut broker = options().start();
    for user in ["alice", "bob"] {
        admin(&broker).call("admin/users/create", json!({ "user": user }));
    }
    let of = |broker: &Broker, user: &str| admin(broker).acting_for(user);
    for room in ["hers", "alone"] {
        of(&broker, "alice").call("room/create", json!({ "room": room }));
    }
    let role = json!({ "room": "hers", "user": "bob", "role": "moderator" });
    of(&broker, "alice").call("room/role", role);
    admin(&broker).call("admin/users/delete", json!({ "user": "alice", "erase": true }));
    for _ in 0..2 {
        let owner = |room: &str| {
            of(&broker, "bob").call("room/info", json!({ "room": room }))["owner"].clone()
        };
        assert_eq!((owner("hers"), owner("alone")), (json!("bob"), json!(null)));
        broker.restart();
    }
    // An operator opens it again.
    of(&broker, "carol").call("room/create", json!({ "room": "alone" }));
}

/// An account of another tenant logs in by its full name, over MQTT and for a token.
#[test]
fn accounts_of_tenants_log_in_by_their_full_names() {
    let configuration = "[access]\ntenants = true\n[[im.tenant]]\nname = \"acme\"\n\
        device_policy = \"single\"\n";
    let mut broker = options().configuration(configuration).start();
    let of_acme = |broker: &Broker| admin(broker).header("x-hoopoe-tenant", "acme");
    let account = json!({ "user": "alice", "password": "of acme" });
    of_acme(&broker).call("admin/users/create", account);
    let account = json!({ "user": "alice", "password": "of all" });
    admin(&broker).call("admin/users/create", account);
    of_acme(&broker).call("admin/users/create", json!({ "user": "bob", "password": "bobs" }));
    let login = |user: &str, password: &str| Connect::v5("phone-1").login(user, password);
    for _ in 0..2 {
        let refused = code::BAD_USER_NAME_OR_PASSWORD;
        assert_eq!(login_code(&broker, &login("alice", "of acme")), refused);
        assert_eq!(login_code(&broker, &login("acme/alice", "of all")), refused);
        let mut alice = device(&broker, login("acme/alice", "of acme"));
        let mut namesake = device(&broker, login("alice", "of all"));
        let mut bob = device(&broker, login("acme/bob", "bobs"));
        alice.publish(Publish::new("im/u/bob/msg", "of the same world").qos(1));
        bob.expect_message("im/me/in/u/alice", "of the same world");
        namesake.ping();
        // The tenant's own device policy.
        let mut tablet = device(&broker, Connect::v5("pad-1").login("acme/bob", "bobs"));
        while !bob.take_publish().topic.starts_with("im/me/sys/kicked/pad/") {}
        bob.expect_disconnect(ADMINISTRATIVE_ACTION);
        tablet.ping_past_publishes();
        broker.restart();
    }
    of_acme(&broker).call("admin/users/disable", json!({ "user": "alice" }));
    let refused = code::BAD_USER_NAME_OR_PASSWORD;
    assert_eq!(login_code(&broker, &login("acme/alice", "of acme")), refused);
    device(&broker, login("alice", "of all")).ping();
    // `acme/bob:bobs`, for a token, which is for the same tenant.
    let basic = Http::new(broker.http()).header("authorization", "Basic YWNtZS9ib2I6Ym9icw==");
    let text = basic.call("tokens", json!({}))["token"].as_str().unwrap().to_owned();
    for user in ["bob", "acme/bob"] {
        assert_eq!(login_code(&broker, &login(user, &text)), code::SUCCESS, "{user}");
    }
    assert_eq!(login_code(&broker, &login("evil/bob", &text)), refused);
}

#[test]
fn clients_and_sessions_are_listed_and_ended() {
    let broker = options().start();
    let topic = unique_topic("ops");
    let connect = Connect::persistent(Version::V5, "sensor-1").login("alice", "");
    let mut away = broker.connect(&connect);
    assert_eq!(away.take_publish().topic, "im/me/sys/hello");
    away.subscribe(&topic, 1);
    let listed = admin(&broker).call("admin/clients/list", json!({ "user": "alice" }));
    assert_eq!(listed["clients"][0]["client"], "sensor-1");
    assert_eq!(listed["clients"][0]["subscriptions"], 1);
    let filters = admin(&broker).call("admin/subscriptions/list", json!({ "user": "alice" }));
    assert_eq!(filters["subscriptions"][0]["filter"], json!(topic));
    let kicked = admin(&broker).call("admin/clients/kick", json!({ "client": "sensor-1" }));
    assert_eq!(kicked["kicked"], 1);
    away.expect_disconnect(ADMINISTRATIVE_ACTION);
    let mut publisher = broker.v5();
    publisher.publish(Publish::new(&topic, "one").qos(1));
    publisher.publish(Publish::new(&topic, "two").qos(1));
    let queues = admin(&broker).call("admin/queues/list", json!({ "client": "sensor-1" }));
    assert_eq!(queues["sessions"][0]["messages"], 2);
    assert!(queues["sessions"][0]["bytes"].as_u64() > Some(6));
    let none = admin(&broker).refused("admin/clients/kick", json!({ "client": "sensor-1" }), 404);
    assert_eq!(none, "not_found");
    let session = json!({ "user": "alice", "client": "sensor-1" });
    admin(&broker).call("admin/sessions/delete", session);
    eventually("the session is gone", || {
        let sessions = admin(&broker).call("admin/sessions/list", json!({ "user": "alice" }));
        sessions["sessions"] == json!([])
    });
    assert!(!broker.connect(&connect).connack.session_present);
}

#[test]
fn retained_messages_are_listed_and_deleted() {
    let broker = options().start();
    let mut client = broker.v5();
    for name in ["a", "b", "c"] {
        client.publish(Publish::new(&format!("ops/{name}"), name).qos(1).retain());
    }
    let page = admin(&broker).call("admin/retained/list", json!({ "filter": "ops/+", "limit": 2 }));
    let topics = |page: &serde_json::Value| -> Vec<String> {
        let messages = page["messages"].as_array().unwrap().iter();
        messages.map(|m| m["topic"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(topics(&page), ["ops/a", "ops/b"]);
    let rest = json!({ "filter": "ops/+", "limit": 2, "next": page["next"] });
    assert_eq!(topics(&admin(&broker).call("admin/retained/list", rest)), ["ops/c"]);
    admin(&broker).call("admin/retained/delete", json!({ "topic": "ops/b" }));
    eventually("it is gone", || {
        let page = admin(&broker).call("admin/retained/list", json!({ "filter": "ops/+" }));
        topics(&page) == ["ops/a", "ops/c"]
    });
    client.subscribe("ops/b", 1);
    client.ping();
    let wrong = admin(&broker).refused("admin/retained/delete", json!({ "topic": "a/#" }), 400);
    assert_eq!(wrong, "bad_request");
}

#[test]
fn every_call_of_an_operator_is_recorded_without_secrets() {
    let mut broker = options().start();
    admin(&broker).call("admin/users/create", json!({ "user": "alice", "password": "hush-hush" }));
    admin(&broker).refused("admin/users/enable", json!({ "user": "nobody" }), 404);
    admin(&broker).refused("admin/users/fly", json!({}), 404);
    broker.restart();
    let audit = admin(&broker).call("admin/audit/list", json!({ "limit": 3 }));
    let records = audit["records"].as_array().unwrap();
    let calls: Vec<_> = records
        .iter()
        .map(|r| (r["record"]["call"].clone(), r["record"]["status"].clone()))
        .collect();
    let expected = [
        (json!("admin/users/fly"), json!(404)),
        (json!("admin/users/enable"), json!(404)),
        (json!("admin/users/create"), json!(200)),
    ];
    assert_eq!(calls, expected);
    assert_eq!(records[2]["record"]["about"]["user"], "alice");
    assert!(!audit.to_string().contains("hush-hush"), "{audit}");
    // What operators do for users is recorded too; what they read for them is not, and what
    // others try cannot fill the record.
    let ops = admin(&broker).acting_for("alice");
    let made = ops.call("tokens/create", json!({}));
    ops.call("sync/heads", json!({}));
    let alice = hoopoe_tests::Http::new(broker.http()).bearer(made["token"].as_str().unwrap());
    alice.refused("admin/users/list", json!({}), 403);
    let audit = admin(&broker).call("admin/audit/list", json!({ "limit": 2 }));
    let before = &audit["records"][1]["record"];
    assert_eq!((&before["call"], &before["status"]), (&json!("admin/audit/list"), &json!(200)));
    let token = &audit["records"][0]["record"];
    assert_eq!(
        (&token["call"], &token["about"]["user"]),
        (&json!("tokens/create"), &json!("alice"))
    );
    assert!(!audit.to_string().contains("hpt_"), "{audit}");
}

fn ctl(broker: &Broker, words: &[&str]) -> Vec<String> {
    let mut command = program::hoopoe_command();
    command.arg("ctl").args(words).arg("--url").arg(format!("http://{}", broker.http()));
    command.env("HOOPOE_HTTP__ADMIN_TOKEN", ADMIN);
    Program::start(command).succeed()
}

#[test]
fn ctl_does_what_the_api_does() {
    let broker = options().start();
    let made = ctl(&broker, &["users", "create", "shop", "--role", "service", "--no-password"]);
    assert!(made.contains(&"user: shop".to_owned()), "{made:?}");
    let table = ctl(&broker, &["users", "list"]);
    assert!(table[0].starts_with("USER") && table[1].starts_with("shop"), "{table:?}");
    let token = ctl(&broker, &["token", "shop", "--ttl", "60"]);
    let token = token.iter().find_map(|line| line.strip_prefix("token: ")).unwrap();
    let mut shop = device(&broker, Connect::v5("bot-1").login("shop", token));
    let clients = ctl(&broker, &["clients", "list", "--json"]);
    let clients: serde_json::Value = serde_json::from_str(&clients.join("\n")).unwrap();
    assert_eq!(clients[0]["client"], "bot-1");
    ctl(&broker, &["clients", "kick", "--user", "shop"]);
    shop.expect_disconnect(ADMINISTRATIVE_ACTION);
    let called = ctl(&broker, &["call", "user/info", "{}", "--as", "shop"]);
    assert!(called.iter().any(|line| line == "user: shop"), "{called:?}");
    let audit = ctl(&broker, &["audit"]);
    assert!(audit.iter().any(|line| line.contains("admin/clients/kick")), "{audit:?}");
}

#[test]
fn admin_token_can_come_from_a_file_and_short_ones_are_refused() {
    use hoopoe_tests::broker::Options;
    let options = Options::new();
    let file = options.folder().join("token");
    std::fs::write(&file, format!("{ADMIN}\n")).unwrap();
    let text = format!("[http]\nadmin_token_file = {file:?}\n");
    let broker = options.configuration(&text).start();
    admin(&broker).call("admin/users/list", json!({}));
    let short = Options::new().environment("HOOPOE_HTTP__ADMIN_TOKEN", "short");
    let (status, said) = short.run_to_end();
    assert!(!status.success() && said.contains("http.admin_token"), "{said}");
}
