//! The content hook: asked before a message is stored; open or closed while it does not answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use hoopoe_tests::certificate::Certificates;
use hoopoe_tests::reaper::temporary_folder;
use hoopoe_tests::tls::accept;
use hoopoe_tests::wire::code;
use hoopoe_tests::{Connect, Publish, unique_address};
use serde_json::{Value, json};

use crate::{admin, device, options};

/// A service that refuses payloads with `rude` in them, and tells what it was asked. It lives as
/// long as the test's process.
fn judge() -> (String, Receiver<Value>) {
    let (address, questions) = judge_over(|stream| stream);
    (format!("http://{address}/judge"), questions)
}

/// The same over what `layer` makes of a connection.
fn judge_over<S: Read + Write>(
    layer: impl Fn(TcpStream) -> S + Clone + Send + 'static,
) -> (SocketAddr, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (asked, questions) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let (asked, layer) = (asked.clone(), layer.clone());
            thread::spawn(move || {
                let mut reader = BufReader::new(layer(stream));
                while let Some(question) = read_question(&mut reader) {
                    let rude = question["payload"].as_str().is_some_and(|p| p.contains("rude"));
                    let verdict = json!({ "allow": !rude, "message": "mind your words" });
                    let body = verdict.to_string();
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                    // The test may have ended.
                    let _ = asked.send(question);
                    if reader.get_mut().write_all((head + &body).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, questions)
}

fn read_question(reader: &mut BufReader<impl Read>) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

#[test]
fn refused_content_is_never_stored() {
    let (url, questions) = judge();
    // However slow the machine: an answer is waited for.
    let text = format!("[im.hook]\nurl = {url:?}\ntimeout_ms = 20000\non_failure = \"closed\"\n");
    let broker = options().configuration(&text).start();
    let mut alice = device(&broker, Connect::v5("phone-1").login("alice", ""));
    let mut bob = device(&broker, Connect::v5("phone-2").login("bob", ""));
    let send =
        |cid: &str, payload: &str| Publish::new(&format!("im/u/bob/msg/{cid}"), payload).qos(1);
    assert_eq!(alice.try_publish(send("c1", "hello")), code::SUCCESS);
    bob.expect_message("im/me/in/u/alice", "hello");
    assert_eq!(alice.try_publish(send("c2", "rude words")), code::NOT_AUTHORIZED);
    let edit = Publish::new("im/me/op/edit/u/bob/1", "rude edit").qos(1);
    assert_eq!(alice.try_publish(edit), code::NOT_AUTHORIZED);
    assert_eq!(alice.try_publish(send("c3", "kind words")), code::SUCCESS);
    bob.expect_message("im/me/in/u/alice", "kind words");
    // Seq stays dense: what was refused is nowhere.
    let pulled = admin(&broker).acting_for("bob").call("sync/pull", json!({ "conv": "u/alice" }));
    assert_eq!((&pulled["count"], &pulled["last"]), (&json!(2), &json!(2)));
    let first = questions.recv().unwrap();
    for (field, value) in [
        ("tenant", "default"),
        ("from", "alice"),
        ("device", "phone-1"),
        ("conv", "u/bob"),
        ("kind", "message"),
        ("cid", "c1"),
        ("payload", "hello"),
        ("payload_base64", "aGVsbG8="),
    ] {
        assert_eq!(first[field], value, "{field}");
    }
    assert_eq!(questions.recv().unwrap()["cid"], "c2");
    let edit = questions.recv().unwrap();
    assert_eq!((&edit["kind"], &edit["ref"]), (&json!("edit"), &json!(1)));
    // Back ends are not asked about.
    let message = json!({ "from": "shop", "to": "u/bob", "cid": "1", "payload": "rude price" });
    admin(&broker).call("messages", message);
    bob.expect_message("im/me/in/u/shop", "rude price");
}

#[test]
fn a_judge_over_tls_is_asked_when_its_authority_is_trusted() {
    let folder = temporary_folder("judge");
    let certificates = Arc::new(Certificates::generate(&folder));
    let shown = certificates.clone();
    let (address, questions) = judge_over(move |stream| accept(stream, &shown));
    let other = temporary_folder("other");
    let stranger = Certificates::generate(&other);
    for (authority, allowed) in
        [(&certificates.authority, code::SUCCESS), (&stranger.authority, code::QUOTA_EXCEEDED)]
    {
        let text = format!(
            "[im.hook]\nurl = \"https://localhost:{}/judge\"\nca_file = {authority:?}\n\
             timeout_ms = 20000\non_failure = \"closed\"\n",
            address.port()
        );
        let broker = options().configuration(&text).start();
        let mut alice = device(&broker, Connect::v5("phone-1").login("alice", ""));
        for cid in ["c1", "c2"] {
            let send = Publish::new(&format!("im/u/bob/msg/{cid}"), "over TLS").qos(1);
            assert_eq!(alice.try_publish(send), allowed, "{cid}");
        }
    }
    assert_eq!(questions.recv().unwrap()["payload"], "over TLS");
    assert_eq!(questions.recv().unwrap()["cid"], "c2");
    assert!(questions.try_recv().is_err(), "whoever cannot be trusted is told nothing");
    let text = "[im.hook]\nurl = \"https://localhost:1/\"\nca_file = \"/nowhere/ca.pem\"\n";
    let (status, said) = options().configuration(text).run_to_end();
    assert!(!status.success() && said.contains("/nowhere/ca.pem"), "{said}");
}

#[test]
fn without_an_answer_the_setting_decides() {
    // Nobody listens there.
    let free = unique_address();
    for (on_failure, expected) in [("open", code::SUCCESS), ("closed", code::QUOTA_EXCEEDED)] {
        let text = format!("[im.hook]\nurl = \"http://{free}/\"\non_failure = {on_failure:?}\n");
        let broker = options().configuration(&text).start();
        let mut alice = device(&broker, Connect::v5("phone-1").login("alice", ""));
        for cid in ["c1", "c2"] {
            let send = Publish::new(&format!("im/u/bob/msg/{cid}"), "x").qos(1);
            assert_eq!(alice.try_publish(send), expected, "{on_failure} {cid}");
        }
    }
}
