//! Who has lately said what in the conversations of a shard: receipts ask for it, and would read
//! the same entries again for every reader.
//!
//! In memory only, and bounded; what is not known here is read from the log. Deliberately not
//! here: who is told (`receipts`).

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;

use crate::id::ConvKey;

/// Messages remembered of one conversation: as many as a receipt looks back.
pub(crate) const MOST_OF_ONE: usize = 200;
/// Messages and conversations remembered; beyond it all are forgotten, and read again when they are
/// asked for.
const MOST_OF_ALL: usize = 65_536;

/// The last entries of the conversations written lately.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    convs: HashMap<ConvKey, Tail>,
    messages: usize,
}

/// The last entries of one conversation.
#[derive(Debug)]
struct Tail {
    /// Everything from here on is known.
    from: u64,
    messages: VecDeque<(u64, Arc<str>)>,
}

impl Tails {
    /// An entry is appended. `sender`: of a message; events are nobody's.
    pub(crate) fn append(&mut self, conv: &ConvKey, seq: u64, sender: Option<&Arc<str>>) {
        if self.messages + self.convs.len() >= MOST_OF_ALL {
            self.forget();
        }
        if !self.convs.contains_key(conv) {
            self.convs.insert(conv.clone(), Tail { from: seq, messages: VecDeque::new() });
        }
        let Some(tail) = self.convs.get_mut(conv) else { return };
        // What was appended at this seq before was never committed.
        while tail.messages.back().is_some_and(|(last, _)| *last >= seq) {
            tail.messages.pop_back();
            self.messages -= 1;
        }
        tail.from = tail.from.min(seq);
        if let Some(sender) = sender {
            if tail.messages.len() >= MOST_OF_ONE
                && let Some((oldest, _)) = tail.messages.pop_front()
            {
                tail.from = oldest + 1;
                self.messages -= 1;
            }
            tail.messages.push_back((seq, sender.clone()));
            self.messages += 1;
        }
    }

    /// A message is void: it is nobody's any more.
    pub(crate) fn void(&mut self, conv: &ConvKey, seq: u64) {
        if let Some(tail) = self.convs.get_mut(conv)
            && let Ok(at) = tail.messages.binary_search_by_key(&seq, |(seq, _)| *seq)
        {
            tail.messages.remove(at);
            self.messages -= 1;
        }
    }

    /// The senders of the messages `from` to `to`, the newest first, if they are known.
    pub(crate) fn senders(
        &self,
        conv: &ConvKey,
        from: u64,
        to: u64,
    ) -> Option<impl Iterator<Item = &Arc<str>>> {
        let tail = self.convs.get(conv).filter(|tail| tail.from <= from)?;
        let end = tail.messages.partition_point(|(seq, _)| *seq <= to);
        let begin = tail.messages.partition_point(|(seq, _)| *seq < from);
        Some(tail.messages.range(begin..end.max(begin)).rev().map(|(_, sender)| sender))
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&mut self) {
        self.convs.clear();
        self.messages = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(tails: &Tails, from: u64, to: u64) -> Option<String> {
        let conv = ConvKey::group("default", "team");
        let senders = tails.senders(&conv, from, to)?;
        Some(senders.map(|sender| &**sender).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn the_last_senders_are_known() {
        let conv = ConvKey::group("default", "team");
        let [a, b]: [Arc<str>; 2] = ["a".into(), "b".into()];
        let mut tails = Tails::default();
        assert_eq!(senders(&tails, 1, 9), None);
        for (seq, sender) in [(4, Some(&a)), (5, Some(&b)), (6, None), (7, Some(&a))] {
            tails.append(&conv, seq, sender);
        }
        assert_eq!(senders(&tails, 3, 7), None, "3 was before");
        assert_eq!(senders(&tails, 4, 7).unwrap(), "a b a");
        assert_eq!(senders(&tails, 5, 6).unwrap(), "b");
        assert_eq!(senders(&tails, 8, 7).unwrap(), "");
        // The batch with 7 was lost.
        tails.append(&conv, 7, Some(&b));
        assert_eq!(senders(&tails, 4, 9).unwrap(), "b b a");
        tails.void(&conv, 5);
        assert_eq!(senders(&tails, 4, 9).unwrap(), "b a");
        tails.forget();
        assert_eq!(senders(&tails, 4, 9), None);
        assert_eq!(tails.messages, 0);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let conv = ConvKey::group("default", "team");
        let mut tails = Tails::default();
        for seq in 1..=300 {
            tails.append(&conv, seq, Some(&"a".into()));
        }
        assert_eq!(tails.messages, MOST_OF_ONE);
        assert_eq!(senders(&tails, 100, 300), None);
        assert_eq!(senders(&tails, 101, 300).unwrap().len(), 2 * 200 - 1);
    }
}
