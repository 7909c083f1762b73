//! What a link has subscribed to at the remote broker, remembered over restarts of this one.
//!
//! A remote session that is kept keeps its subscriptions, those of rules too that have been taken out
//! of the settings. The link has no store, but a session at the local broker, whose subscriptions are
//! stored: so each filter of the remote session stands there as well, below a tree to which nobody can
//! publish. It is noted before SUBSCRIBE is sent, and goes when the remote broker has answered
//! UNSUBSCRIBE, or says that it knows nothing of the session.

use hoopoe_codec::{QoS, check_filter};

/// Topics that begin with `$` are the broker's; none is published below this one.
const TREE: &str = "$bridge/remote/";

/// The local filters that note these remote ones. One that is too long with the tree before it is
/// not noted: 65,520 bytes are enough for anybody else.
pub fn notes<'a>(filters: impl Iterator<Item = &'a str>) -> Vec<(String, QoS)> {
    let notes = filters.map(|filter| (format!("{TREE}{filter}"), QoS::AtMostOnce));
    notes.filter(|(note, _)| check_filter(note).is_ok()).collect()
}

/// The remote filter that a local one notes, if it is such a note.
pub fn noted(filter: &str) -> Option<&str> {
    filter.strip_prefix(TREE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_says_the_filter() {
        let long = "x".repeat(65_530);
        let notes = notes(["#", "a/+/b", &long].into_iter());
        let read: Vec<_> = notes.iter().map(|(note, _)| noted(note)).collect();
        assert_eq!(read, [Some("#"), Some("a/+/b")]);
        assert_eq!(noted("a/#"), None);
    }
}
