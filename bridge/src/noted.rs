//! What a link remembers over restarts of its broker: what it has subscribed to at the remote one, and
//! from which of its own filters it has yet to send what is retained.
//!
//! A remote session that is kept keeps its subscriptions, those of rules too that have been taken out
//! of the settings. The link has no store, but a session at the local broker, whose subscriptions are
//! stored: so each filter of the remote session stands there as well, below a tree to which nobody can
//! publish. It is noted before SUBSCRIBE is sent, and goes when the remote broker has answered
//! UNSUBSCRIBE, or says that it knows nothing of the session. In the same way a local filter that is
//! new is noted until all that is retained under it stands in the queue of the local session: the broker
//! puts it there for whom it sees connected, and says when that is done.

use hoopoe_codec::{QoS, check_filter};

/// What is noted below a tree of its own. Topics that begin with `$` are the broker's; none is
/// published below these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// The remote session has this filter.
    Remote,
    /// What is retained under this filter is yet to be sent.
    Retained,
}

impl About {
    fn tree(self) -> &'static str {
        match self {
            About::Remote => "$bridge/remote/",
            About::Retained => "$bridge/retained/",
        }
    }

    /// The local filters that note these. One that is too long with the tree before it is not noted:
    /// 65,500 bytes are enough for anybody else.
    pub fn notes<'a>(self, filters: impl Iterator<Item = &'a str>) -> Vec<(String, QoS)> {
        let tree = self.tree();
        let notes = filters.map(|filter| (format!("{tree}{filter}"), QoS::AtMostOnce));
        notes.filter(|(note, _)| check_filter(note).is_ok()).collect()
    }

    /// The filter that a local one notes, if it is such a note.
    pub fn noted(self, filter: &str) -> Option<&str> {
        filter.strip_prefix(self.tree())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_the_filter() {
        let long = "x".repeat(65_530);
        for (about, other) in [(About::Remote, About::Retained), (About::Retained, About::Remote)] {
            let notes = about.notes(["#", "a/+/b", &long].into_iter());
            let read: Vec<_> = notes.iter().map(|(note, _)| about.noted(note)).collect();
            assert_eq!(read, [Some("#"), Some("a/+/b")]);
            assert!(notes.iter().all(|(note, _)| other.noted(note).is_none()));
            assert_eq!(about.noted("a/#"), None);
        }
    }
}
