//! Where the clients connect to, from which local addresses, and what to tell the user when the
//! machine says no.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

use hoopoe_codec::Version;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::transport::Wire;

/// Bytes asked for as the buffer of a narrow connection; the system has a least of its own.
const NARROW_BUFFER: usize = 1024;
/// Bytes of a segment of a narrow connection: what IPv4 asks of everybody.
const NARROW_SEGMENT: u32 = 536;

/// The broker and how to speak to it.
pub(crate) struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Local addresses, used in turn; empty: the system chooses.
    pub binds: Vec<IpAddr>,
    /// Protocol version.
    pub version: Version,
    /// TCP, TLS, WebSocket.
    pub wire: Wire,
    /// Keep-alive in CONNECT; 0 switches it off.
    pub keep_alive_secs: u16,
}

impl Target {
    /// Address, wire and version, for people.
    pub(crate) fn describe(&self) -> String {
        let version = match self.version {
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        };
        format!("{} over {}, MQTT {version}", self.address, self.wire)
    }

    /// Begins to connect; the socket is ready when epoll says so. `narrow`: with the smallest buffer
    /// there is, and segments so small that the other side's is small, too.
    pub(super) fn open(&self, client: u32, narrow: bool) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(self.address), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        if narrow {
            socket.set_recv_buffer_size(NARROW_BUFFER)?;
            socket.set_tcp_mss(NARROW_SEGMENT)?;
        }
        if !self.binds.is_empty() {
            let ip = self.binds[client as usize % self.binds.len()];
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        match socket.connect(&self.address.into()) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
            Err(e) => return Err(e),
        }
        Ok(socket.into())
    }
}

/// What a failed connect means, with the remedy.
pub(crate) fn explain_connect(error: &io::Error, target: &Target, open: u64) -> String {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    match code {
        Some(Errno::MFILE | Errno::NFILE) => format!(
            "too few file descriptors: {open} connections are open and the system allows no more; \
             raise the limit (`ulimit -n`, or LimitNOFILE of the service) or use fewer clients"
        ),
        Some(Errno::ADDRNOTAVAIL | Errno::ADDRINUSE) => format!(
            "no local port is left towards {} ({open} connections are open): give several source \
             addresses, such as --bind 127.0.0.2,127.0.0.3, or widen \
             net.ipv4.ip_local_port_range",
            target.address
        ),
        Some(Errno::CONNREFUSED) => format!(
            "connection refused at {}: nothing listens there, or its queue of new connections is \
             full; start the broker, check --host and --port, or lower --pending",
            target.address
        ),
        Some(Errno::TIMEDOUT) => {
            format!("no answer from {}: is a firewall between?", target.address)
        }
        Some(Errno::NETUNREACH | Errno::HOSTUNREACH) => {
            format!("{} cannot be reached from here", target.address)
        }
        _ => format!("cannot connect to {}: {error}", target.address),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_its_remedy() {
        let target = Target {
            address: SocketAddr::from(([127, 0, 0, 1], 1883)),
            binds: Vec::new(),
            version: Version::V311,
            wire: Wire::default(),
            keep_alive_secs: 0,
        };
        for (errno, remedy) in [
            (Errno::MFILE, "ulimit -n"),
            (Errno::ADDRNOTAVAIL, "--bind"),
            (Errno::CONNREFUSED, "--pending"),
            (Errno::TIMEDOUT, "firewall"),
        ] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let text = explain_connect(&error, &target, 5);
            assert!(text.contains(remedy), "{text}");
        }
    }
}
