//! Where the broker listens: `tcp://host:port`, `wss://host:port/path`, `host:port`.
//!
//! Parsing only. A name is looked up when its listener is opened, by [`HostPort::resolve`].

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The path of a WebSocket listener that names none, as most MQTT clients expect it.
const DEFAULT_PATH: &str = "/mqtt";

/// Why a text is no address.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AddressError {
    /// `host:port` without `scheme://`.
    #[error("`{0}` names no transport: expected tcp://, tls://, ws:// or wss:// before host:port")]
    NoScheme(String),
    /// A scheme the broker does not speak.
    #[error("`{0}` is no transport: expected tcp://, tls://, ws:// or wss://")]
    UnknownScheme(String),
    /// No port, or something that is none.
    #[error("`{0}` names no port: expected host:port with a port from 0 to 65535")]
    NoPort(String),
    /// Something that is neither an address nor a name.
    #[error("`{0}` is no host: expected an address, [an IPv6 address], a name or localhost")]
    BadHost(String),
    /// A path where there is none, or one that HTTP could not carry.
    #[error("`{0}` is no path for this transport: expected /path, and only for ws:// and wss://")]
    BadPath(String),
}

/// How bytes travel on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// MQTT on TCP.
    Tcp,
    /// MQTT on TLS.
    Tls,
    /// MQTT on WebSocket.
    Ws,
    /// MQTT on WebSocket on TLS.
    Wss,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Tcp => "tcp",
            Scheme::Tls => "tls",
            Scheme::Ws => "ws",
            Scheme::Wss => "wss",
        }
    }

    /// Whether the listener needs a certificate.
    pub fn is_tls(self) -> bool {
        matches!(self, Scheme::Tls | Scheme::Wss)
    }

    /// Whether MQTT travels in WebSocket frames.
    pub fn is_websocket(self) -> bool {
        matches!(self, Scheme::Ws | Scheme::Wss)
    }
}

/// The host part of an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name, lower case; `localhost` is every loopback address it resolves to.
    Name(String),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Where.
    pub host: Host,
    /// The port; 0 lets the operating system choose one.
    pub port: u16,
}

impl HostPort {
    /// The port on 127.0.0.1.
    pub fn loopback(port: u16) -> HostPort {
        HostPort { host: Host::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)), port }
    }

    /// Whether only this machine can reach the address. A name other than `localhost` is not
    /// looked up: what it means may change while the broker runs.
    pub fn is_loopback(&self) -> bool {
        match &self.host {
            Host::Ip(ip) => ip.to_canonical().is_loopback(),
            Host::Name(name) => name == "localhost",
        }
    }

    /// Every socket address behind the host. For `localhost`, only addresses that are loopback:
    /// whatever a hosts file says, the listener stays on this machine.
    ///
    /// # Errors
    /// When the name cannot be looked up, or `localhost` names no loopback address.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let name = match &self.host {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, self.port)]),
            Host::Name(name) => name,
        };
        let mut found: Vec<SocketAddr> = (name.as_str(), self.port).to_socket_addrs()?.collect();
        if self.is_loopback() {
            found.retain(|address| address.ip().to_canonical().is_loopback());
        }
        found.sort();
        found.dedup();
        if found.is_empty() {
            let what = format!("{name} has no address to listen on");
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        Ok(found)
    }
}

impl FromStr for HostPort {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<HostPort, AddressError> {
        let (host, port) =
            text.rsplit_once(':').ok_or_else(|| AddressError::NoPort(text.to_owned()))?;
        // `u16::from_str` takes a leading plus sign, an address does not.
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AddressError::NoPort(text.to_owned()));
        }
        let port = port.parse().map_err(|_| AddressError::NoPort(text.to_owned()))?;
        Ok(HostPort { host: parse_host(host)?, port })
    }
}

/// An IPv6 address must be in brackets, so that its last group is not taken for the port.
fn parse_host(text: &str) -> Result<Host, AddressError> {
    let fault = || AddressError::BadHost(text.to_owned());
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let ip: Ipv6Addr = inner.parse().map_err(|_| fault())?;
        return Ok(Host::Ip(IpAddr::V6(ip)));
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(IpAddr::V4(ip)));
    }
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    // Something like 127.0.0.300 is a mistyped address, not a name.
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if text.is_empty() || numeric || !text.bytes().all(in_name) {
        return Err(fault());
    }
    Ok(Host::Name(text.to_ascii_lowercase()))
}

impl fmt::Display for HostPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => write!(out, "{}", SocketAddr::new(*ip, self.port)),
            Host::Name(name) => write!(out, "{name}:{}", self.port),
        }
    }
}

/// Where MQTT clients connect, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenerUrl {
    /// The transport.
    pub scheme: Scheme,
    /// Where.
    pub address: HostPort,
    /// The path of a WebSocket listener, with its slash; empty for the others.
    pub path: String,
}

impl ListenerUrl {
    /// The transport on 127.0.0.1, a WebSocket at its usual path.
    pub fn loopback(scheme: Scheme, port: u16) -> ListenerUrl {
        let path = if scheme.is_websocket() { DEFAULT_PATH } else { "" };
        ListenerUrl { scheme, address: HostPort::loopback(port), path: path.to_owned() }
    }
}

impl FromStr for ListenerUrl {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<ListenerUrl, AddressError> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| AddressError::NoScheme(text.to_owned()))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "tcp" => Scheme::Tcp,
            "tls" => Scheme::Tls,
            "ws" => Scheme::Ws,
            "wss" => Scheme::Wss,
            _ => return Err(AddressError::UnknownScheme(text.to_owned())),
        };
        let (address, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        let address = address.parse()?;
        let path = match (scheme.is_websocket(), path) {
            (true, "") => DEFAULT_PATH,
            // A bare slash says nothing, as in any URL.
            (false, "" | "/") => "",
            (true, path) if is_plain_path(path) => path,
            _ => return Err(AddressError::BadPath(text.to_owned())),
        };
        Ok(ListenerUrl { scheme, address, path: path.to_owned() })
    }
}

/// Only what stands for itself in a request line: no query, no escapes, no blanks.
fn is_plain_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    path.bytes().all(plain)
}

impl fmt::Display for ListenerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}{}", self.scheme.as_str(), self.address, self.path)
    }
}

impl TryFrom<String> for ListenerUrl {
    type Error = AddressError;

    fn try_from(text: String) -> Result<ListenerUrl, AddressError> {
        text.parse()
    }
}

impl From<ListenerUrl> for String {
    fn from(url: ListenerUrl) -> String {
        url.to_string()
    }
}

/// Where HTTP is served, if at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HttpAddress {
    /// Nowhere: the text `off`.
    Off,
    /// There.
    At(HostPort),
}

impl HttpAddress {
    /// The port on 127.0.0.1.
    pub fn loopback(port: u16) -> HttpAddress {
        HttpAddress::At(HostPort::loopback(port))
    }
}

impl FromStr for HttpAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<HttpAddress, AddressError> {
        if text == "off" { Ok(HttpAddress::Off) } else { text.parse().map(HttpAddress::At) }
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HttpAddress::Off => out.write_str("off"),
            HttpAddress::At(address) => address.fmt(out),
        }
    }
}

impl TryFrom<String> for HttpAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<HttpAddress, AddressError> {
        text.parse()
    }
}

impl From<HttpAddress> for String {
    fn from(address: HttpAddress) -> String {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_written_back() {
        let cases = [
            ("tcp://127.0.0.1:1883", "tcp://127.0.0.1:1883", true),
            ("TCP://0.0.0.0:1883/", "tcp://0.0.0.0:1883", false),
            ("tcp://[::1]:1883", "tcp://[::1]:1883", true),
            ("tls://[::]:8883", "tls://[::]:8883", false),
            ("tcp://[::ffff:127.0.0.1]:1", "tcp://[::ffff:127.0.0.1]:1", true),
            ("ws://localhost:8083", "ws://localhost:8083/mqtt", true),
            ("wss://chat.Example.org:443/a/b", "wss://chat.example.org:443/a/b", false),
            ("ws://127.0.0.9:0/", "ws://127.0.0.9:0/", true),
        ];
        for (text, written, loopback) in cases {
            let url: ListenerUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), written);
            assert_eq!(url.address.is_loopback(), loopback, "{text}");
            assert_eq!(written.parse::<ListenerUrl>().unwrap(), url);
        }
    }

    #[test]
    fn what_is_no_url_is_refused_with_its_fault() {
        use AddressError::*;
        type Fault = fn(String) -> AddressError;
        let cases: [(&str, Fault, &str); 14] = [
            ("127.0.0.1:1883", NoScheme, "127.0.0.1:1883"),
            ("mqtt://127.0.0.1:1883", UnknownScheme, "mqtt://127.0.0.1:1883"),
            ("tcp://127.0.0.1", NoPort, "127.0.0.1"),
            ("tcp://127.0.0.1:", NoPort, "127.0.0.1:"),
            ("tcp://127.0.0.1:+80", NoPort, "127.0.0.1:+80"),
            ("tcp://127.0.0.1:65536", NoPort, "127.0.0.1:65536"),
            ("tcp://:1883", BadHost, ""),
            ("tcp://::1:1883", BadHost, "::1"),
            ("tcp://[127.0.0.1]:1883", BadHost, "[127.0.0.1]"),
            ("tcp://127.0.0.300:1883", BadHost, "127.0.0.300"),
            ("tcp://user@host:1883", BadHost, "user@host"),
            ("tcp://127.0.0.1:1883/mqtt", BadPath, "tcp://127.0.0.1:1883/mqtt"),
            ("ws://127.0.0.1:1/a?b", BadPath, "ws://127.0.0.1:1/a?b"),
            ("wss://127.0.0.1:1/a b", BadPath, "wss://127.0.0.1:1/a b"),
        ];
        for (text, fault, named) in cases {
            assert_eq!(text.parse::<ListenerUrl>(), Err(fault(named.to_owned())), "{text}");
        }
    }

    #[test]
    fn http_can_be_off() {
        assert_eq!("off".parse(), Ok(HttpAddress::Off));
        assert_eq!("127.0.0.1:8080".parse(), Ok(HttpAddress::loopback(8080)));
        assert!("8080".parse::<HttpAddress>().is_err());
    }

    #[test]
    fn an_ip_resolves_to_itself_and_localhost_to_loopback() {
        let ip: HostPort = "[::1]:7".parse().unwrap();
        assert_eq!(ip.resolve().unwrap(), ["[::1]:7".parse().unwrap()]);
        let name: HostPort = "localhost:7".parse().unwrap();
        let found = name.resolve().unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7));
    }
}
