//! What operators see of connected clients, and how they end their connections.
//!
//! Each worker answers for its own connections, once; it walks over them between two turns.

use std::sync::Arc;

use hoopoe_codec::{ReasonCode, Version};
use tokio::sync::oneshot;

use super::closing::Cause;
use super::worker::Worker;
use super::{Connection, Phase};

/// A question to a worker.
#[derive(Debug)]
pub struct Census {
    /// Only clients of this tenant.
    pub tenant: Arc<str>,
    /// Only clients of this user; empty for anonymous ones.
    pub user: Option<String>,
    /// Only this client id.
    pub client: Option<String>,
    /// Only client ids that contain this.
    pub part: Option<String>,
    /// Only clients behind this one, by user and client id.
    pub after: Option<(String, String)>,
    /// Clients at most, the first by user and client id.
    pub limit: usize,
    /// Their connections end, with this reason.
    pub kick: Option<ReasonCode>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Vec<ClientFacts>>,
}

/// A connected client.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientFacts {
    /// Its user; empty for an anonymous client.
    pub user: Arc<str>,
    /// Its client id.
    pub client: Arc<str>,
    /// Its tenant.
    pub tenant: Arc<str>,
    /// Where it connects from.
    pub address: String,
    /// Where it came in.
    pub listener: String,
    /// `3.1.1` or `5.0`.
    pub version: &'static str,
    /// Seconds.
    pub keep_alive_secs: u16,
    /// Session Expiry Interval.
    pub expiry_secs: u32,
    /// It is a device of an IM user.
    pub im: bool,
    /// Its filters.
    pub subscriptions: Vec<String>,
    /// Messages on their way to it.
    pub in_flight: usize,
}

impl Census {
    fn wants(&self, facts: &super::session::Session) -> bool {
        let key = &facts.key;
        *key.tenant == *self.tenant
            && self.user.as_ref().is_none_or(|user| **user == *key.user)
            && self.client.as_ref().is_none_or(|client| **client == *key.client)
            && self.part.as_ref().is_none_or(|part| key.client.contains(part.as_str()))
            && self.after.as_ref().is_none_or(|(user, client)| {
                (&*key.user, &*key.client) > (user.as_str(), client.as_str())
            })
    }
}

impl Worker {
    /// Answers a census, and ends connections if that was asked.
    pub(super) fn census(&mut self, census: Census) {
        let mut found = Vec::new();
        for (_, connection) in &self.connections {
            let Phase::Active(session) = &connection.phase else { continue };
            if census.wants(session) {
                found.push((facts(connection, session), connection.location));
            }
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found.truncate(census.limit);
        if let Some(reason) = census.kick {
            for (_, location) in &found {
                self.end_session(*location, Cause::Fault(reason));
            }
        }
        // Whoever asked may have gone.
        let _ = census.reply.send(found.into_iter().map(|(facts, _)| facts).collect());
    }
}

fn facts(connection: &Connection, session: &super::session::Session) -> ClientFacts {
    ClientFacts {
        user: session.key.user.clone(),
        client: session.key.client.clone(),
        tenant: session.key.tenant.clone(),
        address: connection.peer.to_string(),
        listener: connection.listener.url.clone(),
        version: match session.version {
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        },
        keep_alive_secs: connection.keep_alive_secs,
        expiry_secs: session.expiry_secs,
        im: session.im.is_some(),
        subscriptions: session.subscriptions.iter().map(str::to_owned).collect(),
        in_flight: session.window.in_flight(),
    }
}
