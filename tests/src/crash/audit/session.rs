//! Whether a stored session has to be there, may be, or must be gone.

use crate::crash::history::{Entry, Event, Leaving, Link};
use crate::wire::Version;

/// How much later than due a session may end: the restart's grace, and a busy machine.
const EXPIRY_SLACK_MS: u64 = 4_000;
/// How much earlier than due a session may end: clocks are read at different times.
const EXPIRY_EARLY_MS: u64 = 100;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Existence {
    No,
    Maybe,
    Yes,
}

/// Whose session a connection has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Got {
    /// The one that was there.
    Known,
    /// A new one.
    New,
    /// The one that was there, or one that a CONNECT made whose answer was lost.
    Either,
}

/// One client's stored session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    version: Version,
    /// After which absence it ends; `None`: never within a run.
    expiry_ms: Option<u64>,
    exists: Existence,
    /// The last CONNECT, whether it asked for a new session, and when it was sent.
    link: Option<Link>,
    clean: bool,
    answered: bool,
    connect_ms: u64,
    /// The connection whose DISCONNECT was to end the session.
    ending: Option<Link>,
    /// A CONNECT without answer may have found nothing, and made a new session.
    replaced: bool,
    /// When the broker had taken note of that.
    ended_ms: Option<u64>,
    /// Since when the client is away at the earliest, and at the latest.
    away_ms: Option<(u64, u64)>,
}

impl Session {
    pub(super) fn new(version: Version, expiry_ms: Option<u64>) -> Session {
        Session {
            version,
            expiry_ms,
            exists: Existence::No,
            link: None,
            clean: false,
            answered: false,
            connect_ms: 0,
            ending: None,
            replaced: false,
            ended_ms: None,
            away_ms: None,
        }
    }

    /// Takes note of what happens to the connection; tells when the client has got a session.
    pub(super) fn judge(&mut self, entry: &Entry, ready_ms: u64) -> Result<Option<Got>, String> {
        match entry.event {
            Event::Connect { link, clean, .. } => {
                self.link = Some(link);
                self.clean = clean;
                self.answered = false;
                self.connect_ms = entry.at_ms;
                self.ending = None;
                if clean {
                    self.exists = Existence::Maybe;
                }
            }
            Event::Left { link, how, .. } => {
                if how == Leaving::End {
                    self.exists = Existence::Maybe;
                    self.ending = Some(link);
                }
                self.away(link, entry.at_ms);
            }
            Event::Closed { link, killed, .. } => {
                if self.link == Some(link) && !self.answered {
                    // The CONNECT may have been carried out, and CONNACK lost.
                    self.replaced |= self.exists != Existence::Yes
                        || self.ended_ms.is_some()
                        || self.may_have_expired(entry.at_ms);
                    if self.exists == Existence::No {
                        self.exists = Existence::Maybe;
                    }
                }
                if self.ending == Some(link) && !killed {
                    self.ended_ms = Some(entry.at_ms);
                }
                self.away(link, entry.at_ms);
            }
            Event::Connected { link, present, .. } if self.link == Some(link) => {
                return self.connected(entry.at_ms, present, ready_ms).map(Some);
            }
            _ => {}
        }
        Ok(None)
    }

    /// A crash: what it had noted a moment before may be forgotten.
    pub(super) fn killed(&mut self, at_ms: u64, lazy_ms: u64) {
        if self.ended_ms.is_some_and(|ended| ended + lazy_ms > at_ms) {
            self.ended_ms = None;
        }
    }

    fn away(&mut self, link: Link, at_ms: u64) {
        if self.link != Some(link) {
            return;
        }
        let (earliest, _) = self.away_ms.unwrap_or((at_ms, at_ms));
        self.away_ms = Some((earliest, at_ms));
    }

    fn may_have_expired(&self, at_ms: u64) -> bool {
        let expiry = self.expiry_ms.zip(self.away_ms);
        expiry.is_some_and(|(expiry, (earliest, _))| at_ms + EXPIRY_EARLY_MS >= earliest + expiry)
    }

    fn connected(&mut self, at_ms: u64, present: bool, ready_ms: u64) -> Result<Got, String> {
        let may_have_expired = self.may_have_expired(at_ms);
        let has_expired = self.expiry_ms.zip(self.away_ms).is_some_and(|(expiry, (_, latest))| {
            self.connect_ms > latest.max(ready_ms) + expiry + EXPIRY_SLACK_MS
        });
        let existed = self.exists;
        let ended = self.ended_ms.is_some() || has_expired;
        // Clean Session 1 of 3.1.1 is a session that ends with its connection [MQTT-3.1.2-6].
        let kept = !(self.clean && self.version == Version::V311);
        self.exists = if kept { Existence::Yes } else { Existence::No };
        self.ended_ms = None;
        self.away_ms = None;
        self.answered = true;
        let replaced = std::mem::take(&mut self.replaced);
        if present && self.clean {
            return Err("a session is present although a new one was asked for".to_owned());
        }
        if present && !replaced && (ended || existed == Existence::No) {
            return Err("a session that had ended has come back".to_owned());
        }
        if !present && existed == Existence::Yes && !ended && !may_have_expired {
            return Err("a stored session was lost".to_owned());
        }
        Ok(match (present, replaced) {
            (false, _) => Got::New,
            (true, true) => Got::Either,
            (true, false) => Got::Known,
        })
    }
}
