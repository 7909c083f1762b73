//! The PROXY protocol header (versions 1 and 2) that a load balancer puts in front of a connection.
//!
//! Owns the header's bytes until it is whole. Which sources may send one is the listener's setting;
//! the extra fields of version 2 are read past.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};
use thiserror::Error;

/// Longest version 1 header, line end included, as the protocol states.
const V1_BYTES_MAX: usize = 107;
/// Longest version 2 header taken, extra fields included. Balancers send a few hundred bytes.
const V2_BYTES_MAX: usize = 2048;
/// The fixed part of a version 2 header.
const V2_FIXED_BYTES: usize = 16;
const V1_PREFIX: &[u8] = b"PROXY ";

/// Why a connection behind a proxy was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProxyFault {
    /// The connection does not come from a proxy this listener trusts.
    #[error("connection from an address that is not a trusted proxy")]
    Untrusted,
    /// The first bytes are no PROXY header.
    #[error("no PROXY protocol header at the start of the connection")]
    Missing,
    /// The header is longer than taken.
    #[error("PROXY protocol header too long")]
    TooLong,
    /// The header contradicts the protocol.
    #[error("malformed PROXY protocol header")]
    Malformed,
}

/// A PROXY header being received.
#[derive(Debug, Default)]
pub(super) struct ProxyHeader {
    held: Vec<u8>,
}

/// A whole PROXY header.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Proxied {
    /// How many of the bytes fed last belong to the header.
    pub(super) consumed: usize,
    /// The client's address; none when the proxy speaks for itself (LOCAL) or does not know.
    pub(super) source: Option<SocketAddr>,
}

/// What the bytes held so far are.
enum Shape {
    Unfinished,
    V1(usize),
    V2(usize),
}

impl ProxyHeader {
    /// Takes bytes; `None` until the header is whole.
    pub(super) fn feed(&mut self, raw: &[u8]) -> Result<Option<Proxied>, ProxyFault> {
        let held_before = self.held.len();
        let room = V2_BYTES_MAX - held_before;
        self.held.extend_from_slice(&raw[..raw.len().min(room)]);
        let (length, source) = match shape(&self.held)? {
            Shape::Unfinished => return Ok(None),
            Shape::V1(length) => (length, v1_source(&self.held[..length])?),
            Shape::V2(length) => (length, v2_source(&self.held[..length])?),
        };
        Ok(Some(Proxied { consumed: length - held_before, source }))
    }
}

/// Finds the version and end of the header before any of it is interpreted.
fn shape(held: &[u8]) -> Result<Shape, ProxyFault> {
    if starts_alike(held, v2::PROTOCOL_PREFIX) {
        let Some(&[high, low]) = held.get(V2_FIXED_BYTES - 2..V2_FIXED_BYTES) else {
            return Ok(Shape::Unfinished);
        };
        let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([high, low]));
        return match length {
            _ if length > V2_BYTES_MAX => Err(ProxyFault::TooLong),
            _ if length > held.len() => Ok(Shape::Unfinished),
            _ => Ok(Shape::V2(length)),
        };
    }
    if !starts_alike(held, V1_PREFIX) {
        return Err(ProxyFault::Missing);
    }
    let line = &held[..held.len().min(V1_BYTES_MAX)];
    match line.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => Ok(Shape::V1(end + 2)),
        None if line.len() == V1_BYTES_MAX => Err(ProxyFault::TooLong),
        None => Ok(Shape::Unfinished),
    }
}

/// Whether `held` and `prefix` agree as far as both go.
fn starts_alike(held: &[u8], prefix: &[u8]) -> bool {
    held.iter().zip(prefix).all(|(own, expected)| own == expected)
}

fn v1_source(line: &[u8]) -> Result<Option<SocketAddr>, ProxyFault> {
    let header = v1::Header::try_from(line).map_err(|_| ProxyFault::Malformed)?;
    Ok(match header.addresses {
        v1::Addresses::Tcp4(ip) => Some(client(ip.source_address, ip.source_port)),
        v1::Addresses::Tcp6(ip) => Some(client(ip.source_address, ip.source_port)),
        v1::Addresses::Unknown => None,
    })
}

fn v2_source(header: &[u8]) -> Result<Option<SocketAddr>, ProxyFault> {
    let header = v2::Header::try_from(header).map_err(|_| ProxyFault::Malformed)?;
    // LOCAL: the proxy's own connection, a health check; the real peer stays. The protocol byte
    // must say "stream" for the addresses to be those of a TCP client.
    if header.command == v2::Command::Local || header.protocol != v2::Protocol::Stream {
        return Ok(None);
    }
    Ok(match header.addresses {
        v2::Addresses::IPv4(ip) => Some(client(ip.source_address, ip.source_port)),
        v2::Addresses::IPv6(ip) => Some(client(ip.source_address, ip.source_port)),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    })
}

fn client(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into().to_canonical(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2_header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = v2::PROTOCOL_PREFIX.to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    const V4_BODY: [u8; 12] = [198, 51, 100, 7, 10, 0, 0, 1, 0xC3, 0x50, 0x07, 0x5B];

    fn v6_body() -> Vec<u8> {
        let mut body = Vec::new();
        body.extend("2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        body.extend("::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        body.extend([0xC3, 0x50, 0x07, 0x5B]);
        body
    }

    fn whole_headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let mut long = V4_BODY.to_vec();
        long.resize(V2_BYTES_MAX - V2_FIXED_BYTES, 0);
        vec![
            (
                b"PROXY TCP4 198.51.100.7 10.0.0.1 50000 1883\r\n".to_vec(),
                Some("198.51.100.7:50000"),
            ),
            (b"PROXY TCP6 2001:db8::7 ::1 50000 1883\r\n".to_vec(), Some("[2001:db8::7]:50000")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), None),
            (v2_header(0x21, 0x11, &V4_BODY), Some("198.51.100.7:50000")),
            (v2_header(0x21, 0x21, &v6_body()), Some("[2001:db8::7]:50000")),
            (v2_header(0x21, 0x11, &long), Some("198.51.100.7:50000")),
            (v2_header(0x20, 0x11, &V4_BODY), None),
            (v2_header(0x20, 0x00, &[]), None),
            (v2_header(0x21, 0x00, &[]), None),
            (v2_header(0x21, 0x12, &V4_BODY), None),
        ]
    }

    #[test]
    fn whole_headers_name_the_client_and_leave_the_rest() {
        for (header, source) in whole_headers() {
            let mut raw = header.clone();
            raw.extend_from_slice(b"\x10\x0c\r\nMQTT");
            let found = ProxyHeader::default().feed(&raw).unwrap().unwrap();
            assert_eq!(found.consumed, header.len());
            assert_eq!(found.source, source.map(|text| text.parse().unwrap()));
        }
    }

    #[test]
    fn headers_may_come_byte_by_byte() {
        for (header, source) in whole_headers() {
            let mut proxy = ProxyHeader::default();
            let (last, first) = header.split_last().unwrap();
            for byte in first {
                assert_eq!(proxy.feed(&[*byte]), Ok(None));
            }
            let found = proxy.feed(&[*last, 0x10, 0x0C]).unwrap().unwrap();
            assert_eq!(found.consumed, 1);
            assert_eq!(found.source, source.map(|text| text.parse().unwrap()));
        }
    }

    #[test]
    fn faulty_headers_are_refused() {
        let mut endless = b"PROXY TCP4 ".to_vec();
        endless.resize(V1_BYTES_MAX, b'1');
        let mut huge = v2_header(0x21, 0x11, &V4_BODY);
        huge[14..16].copy_from_slice(&[0xFF, 0xFF]);
        let cases = [
            (b"\x10\x0c\x00\x04MQTT".to_vec(), ProxyFault::Missing),
            (b"GET / HTTP/1.1\r\n".to_vec(), ProxyFault::Missing),
            (b"PROXYTCP4".to_vec(), ProxyFault::Missing),
            (b"\r\n\r\n\x00\r\nQUIX".to_vec(), ProxyFault::Missing),
            (endless, ProxyFault::TooLong),
            (huge, ProxyFault::TooLong),
            (b"PROXY TCP4 198.51.100.7 10.0.0.1 50000\r\n".to_vec(), ProxyFault::Malformed),
            (b"PROXY TCP4 198.51.100.777 10.0.0.1 5 1\r\n".to_vec(), ProxyFault::Malformed),
            (b"PROXY TCP4 ::1 ::1 5 1\r\n".to_vec(), ProxyFault::Malformed),
            (b"PROXY TCP4 1.1.1.1 1.1.1.1 70000 1\r\n".to_vec(), ProxyFault::Malformed),
            (b"PROXY \xff\xfe\r\n".to_vec(), ProxyFault::Malformed),
            (v2_header(0x31, 0x11, &V4_BODY), ProxyFault::Malformed),
            (v2_header(0x22, 0x11, &V4_BODY), ProxyFault::Malformed),
            (v2_header(0x21, 0x41, &V4_BODY), ProxyFault::Malformed),
            (v2_header(0x21, 0x11, &V4_BODY[..8]), ProxyFault::Malformed),
            (v2_header(0x21, 0x21, &V4_BODY), ProxyFault::Malformed),
        ];
        for (raw, fault) in cases {
            assert_eq!(ProxyHeader::default().feed(&raw), Err(fault), "{raw:?}");
        }
    }
}
