//! Conversations with messages that burn once they are read: only their rows are looked through
//! when a cursor moves.
//!
//! A conversation may be listed without having such a message; none with one is missing.

use foldhash::HashSet;

use crate::id::ConvKey;

/// Conversations in the list; beyond it all count as being in it.
const MOST: usize = 65_536;

/// The list of one shard.
#[derive(Debug, Default)]
pub(crate) struct Unlit {
    convs: HashSet<ConvKey>,
    /// The list is not whole.
    unsure: bool,
}

impl Unlit {
    /// A message that burns is stored.
    pub(crate) fn add(&mut self, conv: &ConvKey) {
        if !self.unsure && !self.convs.contains(conv) {
            if self.convs.len() >= MOST {
                self.doubt();
                return;
            }
            self.convs.insert(conv.clone());
        }
    }

    /// Whether there may be one.
    pub(crate) fn may_have(&self, conv: &ConvKey) -> bool {
        self.unsure || self.convs.contains(conv)
    }

    /// There is none any more, by what is committed or about to be.
    pub(crate) fn remove(&mut self, conv: &ConvKey) {
        self.convs.remove(conv);
    }

    /// A step or a batch is lost, and what was removed may be back: every conversation is looked
    /// through until the rows are read again.
    pub(crate) fn doubt(&mut self) {
        self.convs = HashSet::default();
        self.unsure = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_conversation_is_missing() {
        let conv = |n| ConvKey::group("default", &format!("g{n}"));
        let mut unlit = Unlit::default();
        unlit.add(&conv(0));
        assert!(unlit.may_have(&conv(0)) && !unlit.may_have(&conv(1)));
        unlit.remove(&conv(0));
        assert!(!unlit.may_have(&conv(0)));
        (0..=MOST).for_each(|n| unlit.add(&conv(n)));
        assert!(unlit.may_have(&conv(MOST + 1)), "there are too many to be listed");
        assert!(unlit.convs.is_empty());
    }
}
