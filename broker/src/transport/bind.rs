//! Opening listening sockets.
//!
//! Owns nothing afterwards. Options for accepted sockets are set on the listening one: Linux hands
//! them down to every connection, which spares five system calls per accept.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};
use thiserror::Error;

/// Connections that may wait to be accepted; the system caps it at `net.core.somaxconn`.
pub const BACKLOG_DEFAULT: u32 = 4096;
/// Silence after which the system asks whether a peer is still there.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Questions without answer that end a connection.
pub const KEEPALIVE_PROBES: u32 = 4;
/// How long sent bytes may stay unacknowledged before a connection ends: half-open links go.
pub const USER_TIMEOUT: Duration = Duration::from_secs(60);

/// How a listening socket and the connections it yields are set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindOptions {
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// Lets several processes listen on the same port, to hand over without a gap.
    pub reuse_port: bool,
    /// See [`KEEPALIVE_IDLE`].
    pub keepalive_idle: Duration,
    /// See [`KEEPALIVE_INTERVAL`].
    pub keepalive_interval: Duration,
    /// See [`KEEPALIVE_PROBES`].
    pub keepalive_probes: u32,
    /// See [`USER_TIMEOUT`].
    pub user_timeout: Duration,
}

impl Default for BindOptions {
    fn default() -> Self {
        BindOptions {
            backlog: BACKLOG_DEFAULT,
            reuse_port: false,
            keepalive_idle: KEEPALIVE_IDLE,
            keepalive_interval: KEEPALIVE_INTERVAL,
            keepalive_probes: KEEPALIVE_PROBES,
            user_timeout: USER_TIMEOUT,
        }
    }
}

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// The host name has no address.
    #[error("cannot listen on {host}:{port}: {fault}")]
    Unresolved {
        /// The host as written.
        host: String,
        /// The port as written.
        port: u16,
        /// What the resolver said.
        fault: String,
    },
    /// Somebody else listens there.
    #[error("cannot listen on {0}: the port is taken by another process or listener")]
    Taken(SocketAddr),
    /// Ports below 1024 need a privilege.
    #[error("cannot listen on {0}: permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)")]
    Denied(SocketAddr),
    /// The address belongs to another machine.
    #[error("cannot listen on {0}: this machine has no such address")]
    NotOurs(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {address}: {step}: {cause}")]
    System {
        /// The address.
        address: SocketAddr,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        cause: io::Error,
    },
}

/// The addresses a host and port stand for.
///
/// # Errors
/// When the host has none.
pub fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, BindError> {
    let unresolved = |fault: &dyn fmt::Display| BindError::Unresolved {
        host: host.to_owned(),
        port,
        fault: fault.to_string(),
    };
    let bare = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    let mut addresses = Vec::new();
    for address in (bare, port).to_socket_addrs().map_err(|fault| unresolved(&fault))? {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(unresolved(&"the name has no address"));
    }
    Ok(addresses)
}

/// Listens on each of the addresses. Of several (a name such as `localhost` stands for an IPv4 and
/// an IPv6 one), those this machine does not have are left out as long as one remains. `[::]` takes
/// IPv4 as well.
///
/// # Errors
/// Names the address and why.
pub fn bind(
    addresses: &[SocketAddr],
    options: &BindOptions,
) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut missing = None;
    for address in addresses {
        match listen(*address, options) {
            Ok(listener) => listeners.push(listener),
            Err(fault @ BindError::NotOurs(_)) => missing = Some(fault),
            Err(fault) => return Err(fault),
        }
    }
    match missing {
        Some(fault) if listeners.is_empty() => Err(fault),
        _ => Ok(listeners),
    }
}

fn listen(address: SocketAddr, options: &BindOptions) -> Result<TcpListener, BindError> {
    let at = |step| move |cause| bind_error(address, step, cause);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(at("open"))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified()).map_err(at("set IPv6 only"))?;
    }
    // Without it, a broker that just stopped keeps its port for a minute.
    socket.set_reuse_address(true).map_err(at("reuse the address"))?;
    if options.reuse_port {
        socket.set_reuse_port(true).map_err(at("reuse the port"))?;
    }
    socket.bind(&address.into()).map_err(at("bind"))?;
    set_connection_options(&socket, options).map_err(at("set connection options"))?;
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    socket.listen(backlog).map_err(at("listen"))?;
    socket.set_nonblocking(true).map_err(at("make non-blocking"))?;
    Ok(socket.into())
}

/// Options that accepted connections inherit.
fn set_connection_options(socket: &Socket, options: &BindOptions) -> io::Result<()> {
    // A worker writes once per turn: waiting for more to send would only delay.
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(options.keepalive_idle)
        .with_interval(options.keepalive_interval)
        .with_retries(options.keepalive_probes);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    Ok(())
}

fn bind_error(address: SocketAddr, step: &'static str, cause: io::Error) -> BindError {
    match cause.kind() {
        io::ErrorKind::AddrInUse => BindError::Taken(address),
        io::ErrorKind::PermissionDenied => BindError::Denied(address),
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs(address),
        // A machine without IPv6 refuses the socket itself.
        _ if cause.raw_os_error() == Some(libc::EAFNOSUPPORT) => BindError::NotOurs(address),
        _ => BindError::System { address, step, cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::TcpStream;

    fn loopback() -> Vec<SocketAddr> {
        vec!["127.0.0.1:0".parse().unwrap()]
    }

    #[test]
    fn accepted_connections_inherit_the_options() {
        let options = BindOptions {
            keepalive_idle: Duration::from_secs(61),
            keepalive_interval: Duration::from_secs(16),
            keepalive_probes: 5,
            user_timeout: Duration::from_secs(62),
            ..BindOptions::default()
        };
        let listener = bind(&loopback(), &options).unwrap().remove(0);
        listener.set_nonblocking(false).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), options.keepalive_idle);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), options.keepalive_interval);
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), options.keepalive_probes);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(options.user_timeout));
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = bind(&loopback(), &BindOptions::default()).unwrap().remove(0);
        let address = first.local_addr().unwrap();
        let fault = bind(&[address], &BindOptions::default()).unwrap_err();
        assert!(matches!(fault, BindError::Taken(taken) if taken == address));
        assert!(fault.to_string().contains(&address.to_string()), "{fault}");
        assert!(fault.to_string().contains("taken"), "{fault}");
    }

    #[test]
    fn a_shared_port_may_be_taken_twice() {
        let options = BindOptions { reuse_port: true, ..BindOptions::default() };
        let first = bind(&loopback(), &options).unwrap().remove(0);
        let address = first.local_addr().unwrap();
        assert_eq!(bind(&[address], &options).unwrap().len(), 1);
    }

    #[test]
    fn foreign_addresses_are_left_out_while_one_remains() {
        let foreign: SocketAddr = "192.0.2.1:0".parse().unwrap();
        let fault = bind(&[foreign], &BindOptions::default()).unwrap_err();
        assert!(matches!(fault, BindError::NotOurs(address) if address == foreign));
        let both = [foreign, loopback()[0]];
        let listeners = bind(&both, &BindOptions::default()).unwrap();
        assert_eq!(listeners.len(), 1);
        assert!(listeners[0].local_addr().unwrap().ip().is_loopback());
    }

    #[test]
    fn hosts_resolve_with_or_without_brackets() {
        assert_eq!(resolve("127.0.0.1", 1883).unwrap(), ["127.0.0.1:1883".parse().unwrap()]);
        assert_eq!(resolve("[::1]", 1883).unwrap(), ["[::1]:1883".parse().unwrap()]);
        assert_eq!(resolve("::1", 1883).unwrap(), ["[::1]:1883".parse().unwrap()]);
        let fault = resolve("not a host", 1883).unwrap_err();
        assert!(fault.to_string().contains("not a host:1883"), "{fault}");
    }
}
