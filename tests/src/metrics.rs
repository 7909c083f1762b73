//! Reads the broker's HTTP listener: a request, its answer, and sums over the metrics it shows.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::DEADLINE;

/// Status and body of a GET.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)
        .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("a read timeout can be set");
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the request can be sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the answer comes in time");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status in {head}")), body.to_owned())
}

/// The sum of all series of a metric, or of the one series given with its labels.
pub fn sum(address: SocketAddr, name: &str) -> f64 {
    let (_, text) = get(address, "/metrics");
    let mut found = None;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        if series == name || series.split('{').next() == Some(name) {
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            found = Some(found.unwrap_or(0.0) + value);
        }
    }
    found.unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
}
