//! What a person sees at the start: where the broker listens, where it stores, how durable it is,
//! and what to try next.

use std::io::{self, Write};
use std::net::SocketAddr;

use super::listeners::OpenListener;
use crate::settings::{Durability, Settings};

/// Prints the start-up lines; each listener's line and the last one are for programs too.
pub(super) fn print(settings: &Settings, open: &[OpenListener], http: Option<SocketAddr>) {
    // A closed standard output is no reason not to serve.
    let _ = write(&mut io::stdout().lock(), settings, open, http);
}

fn write(
    out: &mut impl Write,
    settings: &Settings,
    open: &[OpenListener],
    http: Option<SocketAddr>,
) -> io::Result<()> {
    writeln!(out, "hoopoe {}", env!("CARGO_PKG_VERSION"))?;
    for open in open {
        writeln!(out, "listening on {}", open.url)?;
    }
    if let Some(http) = http {
        writeln!(out, "http on {http}  (/health /ready /metrics, API below /v1)")?;
    }
    let folder = settings.broker.data_dir.display();
    match settings.broker.durability {
        Durability::Sync => {
            writeln!(out, "storing in {folder}, durability sync: an acknowledgement means on disk")?
        }
        Durability::Os => writeln!(
            out,
            "storing in {folder}, durability os: survives a crash of the broker, \
             not of the machine"
        )?,
        Durability::Memory => {
            writeln!(out, "storing nothing, durability memory: a stop loses sessions and queues")?;
        }
    }
    if open.iter().any(|open| open.listener.door.load().development) {
        writeln!(
            out,
            "development mode on loopback: no users are configured, a user name is believed"
        )?;
    } else if open.iter().any(|open| open.listener.door.load().anonymous) {
        writeln!(out, "anonymous clients are let in")?;
    }
    if let Some(plain) = open.iter().find(|open| open.url.starts_with("tcp://"))
        && let Ok(address) = plain.url.trim_start_matches("tcp://").parse::<SocketAddr>()
    {
        let (host, port) = (address.ip(), address.port());
        writeln!(out, "try:  mosquitto_sub -h {host} -p {port} -t 'hello/#' -v")?;
        writeln!(out, "      mosquitto_pub -h {host} -p {port} -t hello/world -m 'hi there'")?;
    }
    writeln!(out, "ready")?;
    out.flush()
}
