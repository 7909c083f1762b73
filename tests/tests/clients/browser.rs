//! MQTT.js in a page of a real browser.
//!
//! The test serves the page itself, so the broker sees a page of this machine as its origin; the
//! page reports back to where it came from.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use hoopoe_tests::program::{self, Program};
use hoopoe_tests::{DEADLINE, Publish, Version, reaper, unique_topic};
use serde_json::Value;

use crate::scenario::place;

/// A browser starts slowly where many tests run beside it.
const BROWSER_PATIENCE: u32 = 4;

/// Serves the page and its script; sends on what the page reports.
fn serve() -> (SocketAddr, Receiver<Value>) {
    let page = std::fs::read(program::package_file("clients/mqttjs/page.html"));
    let page = page.expect("the page is part of the tests");
    let script = std::fs::read(program::node_modules().join("mqtt/dist/mqtt.min.js"));
    let script = script.expect("MQTT.js holds a script for browsers");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let (sender, reports) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            // A connection the browser opened ahead of need and closed again is no request.
            let Some((path, body)) = request(&stream) else { continue };
            let (kind, content): (_, &[u8]) = match path.as_str() {
                "/mqtt.js" => ("text/javascript", &script),
                "/report" => ("text/plain", b""),
                _ => ("text/html", &page),
            };
            answer(stream, kind, content);
            if path == "/report" {
                let report = serde_json::from_slice(&body).expect("the page reports JSON");
                if sender.send(report).is_err() {
                    return;
                }
            }
        }
    });
    (address, reports)
}

fn request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let target = first.split_whitespace().nth(1)?;
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

fn answer(mut stream: TcpStream, kind: &str, content: &[u8]) {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        content.len()
    );
    // The browser may have gone on to something else.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content));
}

/// Opens an address in a browser with a profile of its own.
fn browse(url: &str) -> Program {
    let profile = reaper::temporary_folder("browser");
    let mut command = Command::new(program::chromium());
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]);
    command.args(["--no-first-run", "--disable-background-networking"]);
    command.args(["--disable-component-update", "--disable-sync"]);
    command.arg(format!("--user-data-dir={}", profile.display())).arg(url);
    Program::start(command)
}

#[test]
fn page_publishes_and_receives_over_websocket() {
    for version in Version::BOTH {
        let topic = unique_topic("page");
        let mut watcher = place().broker.client(version);
        watcher.subscribe(&topic, 2);
        let (address, reports) = serve();
        let level = if version == Version::V5 { 5 } else { 4 };
        let broker = place().broker.address("ws");
        let url = format!("http://{address}/?topic={topic}&version={level}&url=ws://{broker}/mqtt");
        let browser = browse(&url);
        for qos in 0..3 {
            let publish = watcher.expect_patiently(BROWSER_PATIENCE);
            assert_eq!(publish.payload, format!("from the page {qos}").into_bytes());
            assert_eq!(publish.qos, qos);
            watcher.complete(&publish);
        }
        watcher.publish(Publish::new(&topic, "from the test").qos(1));
        let report = reports.recv_timeout(DEADLINE).expect("the page reports");
        assert_eq!(report["result"], "done", "{report}");
        let mut log: Vec<&str> =
            report["log"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        // The page sees a QoS 2 message when its handshake is over, perhaps after later ones.
        log[2..].sort_unstable();
        let wanted = [
            "connected",
            "subscribed 2",
            "0 from the page 0",
            "1 from the page 1",
            "1 from the test",
            "2 from the page 2",
        ];
        assert_eq!(log, wanted);
        browser.kill();
    }
}
