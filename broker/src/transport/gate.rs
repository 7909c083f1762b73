//! What a listener lets in: how many connections at once, and how often one address may come.
//!
//! Owns the open count, the connect rates and the counts of one listener; shared by its acceptor,
//! by the connections that hold permits, and by metrics. Who may log in is not decided here.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use thiserror::Error;

use super::connect_rate::{ConnectRate, ConnectRates};

/// The limits of one listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateLimits {
    /// Connections open at once.
    pub connections_max: usize,
    /// How often one address may connect; none: as often as it likes.
    pub connect_rate: Option<ConnectRate>,
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The listener has all the connections it may have.
    #[error("the listener's connection limit is reached")]
    Full,
    /// The address connects too often.
    #[error("this address connects too often")]
    TooOften,
    /// The listener takes connections from its proxies only.
    #[error("the address is not a trusted proxy")]
    Untrusted,
}

/// How often what happened, since the listener was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GateCounts {
    /// Connections let in.
    pub accepted: u64,
    /// Refused: limit of open connections.
    pub refused_full: u64,
    /// Refused: connect rate.
    pub refused_too_often: u64,
    /// Refused: not a proxy.
    pub refused_untrusted: u64,
    /// Errors of the system while accepting.
    pub accept_errors: u64,
}

/// The limits and counts of one listener.
#[derive(Debug)]
pub struct ListenerGate {
    connections_max: usize,
    rates: Option<Mutex<ConnectRates>>,
    opened: Instant,
    open: AtomicUsize,
    accepted: AtomicU64,
    refused_full: AtomicU64,
    refused_too_often: AtomicU64,
    refused_untrusted: AtomicU64,
    accept_errors: AtomicU64,
}

/// A connection's place at its listener; dropping it frees the place.
#[derive(Debug)]
pub struct ConnectionPermit {
    gate: Arc<ListenerGate>,
}

impl ListenerGate {
    /// A gate with these limits; `now` is the moment its rates count from.
    pub fn new(limits: &GateLimits, now: Instant) -> Arc<Self> {
        Arc::new(ListenerGate {
            connections_max: limits.connections_max,
            rates: limits.connect_rate.map(|rate| Mutex::new(ConnectRates::new(rate))),
            opened: now,
            open: AtomicUsize::new(0),
            accepted: AtomicU64::new(0),
            refused_full: AtomicU64::new(0),
            refused_too_often: AtomicU64::new(0),
            refused_untrusted: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
        })
    }

    /// Lets a connection in, or says why not.
    ///
    /// # Errors
    /// The connect rate is asked first, so that connections refused for being too many are charged
    /// to their address as well.
    pub fn admit(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
    ) -> Result<ConnectionPermit, Refusal> {
        self.charge(address, now)?;
        self.enter()
    }

    /// Lets a proxy's connection in without charging the proxy's address: the client's is charged
    /// by [`charge`](Self::charge) once the PROXY header has named it.
    ///
    /// # Errors
    /// When the listener is full.
    pub fn enter(self: &Arc<Self>) -> Result<ConnectionPermit, Refusal> {
        let entered = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
            (open < self.connections_max).then_some(open + 1)
        });
        if entered.is_err() {
            return Err(self.refuse(Refusal::Full));
        }
        self.accepted.fetch_add(1, Ordering::Relaxed);
        Ok(ConnectionPermit { gate: Arc::clone(self) })
    }

    /// Charges a connection to an address.
    ///
    /// # Errors
    /// When the address connects too often.
    pub fn charge(&self, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        let since = now.saturating_duration_since(self.opened);
        match &self.rates {
            Some(rates) if !rates.lock().admit(since, address) => {
                Err(self.refuse(Refusal::TooOften))
            }
            _ => Ok(()),
        }
    }

    /// Counts a refusal and passes it on.
    pub(super) fn refuse(&self, refusal: Refusal) -> Refusal {
        let count = match refusal {
            Refusal::Full => &self.refused_full,
            Refusal::TooOften => &self.refused_too_often,
            Refusal::Untrusted => &self.refused_untrusted,
        };
        count.fetch_add(1, Ordering::Relaxed);
        refusal
    }

    pub(super) fn count_accept_error(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The counts so far.
    pub fn counts(&self) -> GateCounts {
        GateCounts {
            accepted: self.accepted.load(Ordering::Relaxed),
            refused_full: self.refused_full.load(Ordering::Relaxed),
            refused_too_often: self.refused_too_often.load(Ordering::Relaxed),
            refused_untrusted: self.refused_untrusted.load(Ordering::Relaxed),
            accept_errors: self.accept_errors.load(Ordering::Relaxed),
        }
    }
}

impl ConnectionPermit {
    /// The gate of the listener the connection came in by.
    pub fn gate(&self) -> &Arc<ListenerGate> {
        &self.gate
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_bound_the_open_connections() {
        let now = Instant::now();
        let limits = GateLimits { connections_max: 2, connect_rate: None };
        let gate = ListenerGate::new(&limits, now);
        let address = IpAddr::from([203, 0, 113, 5]);
        let first = gate.admit(address, now).unwrap();
        let _second = gate.admit(address, now).unwrap();
        assert_eq!(gate.admit(address, now).unwrap_err(), Refusal::Full);
        assert_eq!(gate.open_connections(), 2);
        drop(first);
        let _third = gate.admit(address, now).unwrap();
        assert_eq!(
            gate.counts(),
            GateCounts { accepted: 3, refused_full: 1, ..GateCounts::default() }
        );
    }

    #[test]
    fn a_proxied_client_is_charged_for_itself() {
        let now = Instant::now();
        let rate = ConnectRate { per_sec: 1, burst: 1 };
        let limits = GateLimits { connections_max: 10, connect_rate: Some(rate) };
        let gate = ListenerGate::new(&limits, now);
        let permits: Vec<_> = (0..3).map(|_| gate.enter().unwrap()).collect();
        let client = IpAddr::from([203, 0, 113, 5]);
        assert_eq!(permits[0].gate().charge(client, now), Ok(()));
        assert_eq!(permits[1].gate().charge(client, now), Err(Refusal::TooOften));
        let other = IpAddr::from([203, 0, 113, 6]);
        assert_eq!(permits[2].gate().charge(other, now), Ok(()));
        assert_eq!(gate.counts().refused_too_often, 1);
    }
}
