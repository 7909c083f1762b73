//! Who has lately said what in the conversations of a shard: receipts ask for it, and would read
//! the same entries again for every reader.
//!
//! In memory only, and bounded; what is not known here is read from the log. Deliberately not
//! here: who is told (`receipts`).

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;
use smallvec::SmallVec;

use crate::id::ConvKey;

/// Entries remembered of one conversation: what a receipt looks back, from as far behind the last
/// entry as readers of a busy group are when their receipt is due.
const MOST_OF_ONE: usize = 1_024;
/// Bytes of what is remembered, nearly; beyond it all is forgotten, and read again when it is asked
/// for.
const MOST_BYTES: usize = 8 << 20;
/// Bytes of a conversation besides its entries: key, table, first sender.
const CONV_BYTES: usize = 192;
/// Bytes of one more sender.
const PERSON_BYTES: usize = 48;
/// An entry of nobody.
const NOBODY: u8 = u8::MAX;

/// The last entries of the conversations written lately.
#[derive(Debug, Default)]
pub(crate) struct Tails {
    convs: HashMap<ConvKey, Tail>,
    bytes: usize,
}

/// The last entries of one conversation.
#[derive(Debug)]
struct Tail {
    /// The seq of the first that is known.
    from: u64,
    /// Who is sender of something, in the order of their first.
    people: SmallVec<[Arc<str>; 2]>,
    /// The senders from there on by their place, one for each seq; events and what is void are
    /// [`NOBODY`]'s.
    senders: VecDeque<u8>,
}

impl Tail {
    fn new(seq: u64) -> Tail {
        Tail { from: seq, people: SmallVec::new(), senders: VecDeque::new() }
    }

    /// The place of a seq; beyond the last for what is not there yet.
    fn place(&self, seq: u64) -> usize {
        usize::try_from(seq.saturating_sub(self.from)).unwrap_or(usize::MAX)
    }

    fn bytes(&self) -> usize {
        CONV_BYTES + self.people.len() * PERSON_BYTES + self.senders.len()
    }

    /// The number of a sender; `None` when there have been too many.
    fn number(&mut self, sender: &Arc<str>) -> Option<u8> {
        let known = self.people.iter().position(|person| person == sender);
        let at = known.unwrap_or(self.people.len());
        let number = u8::try_from(at).ok().filter(|number| *number != NOBODY)?;
        if known.is_none() {
            self.people.push(sender.clone());
        }
        Some(number)
    }

    fn append(&mut self, seq: u64, sender: Option<&Arc<str>>) {
        if seq < self.from || self.place(seq) > self.senders.len() {
            *self = Tail::new(seq);
        }
        // What was appended at this seq before was never committed.
        self.senders.truncate(self.place(seq));
        if self.senders.len() >= MOST_OF_ONE {
            self.senders.pop_front();
            self.from += 1;
        }
        let number = sender.map_or(Some(NOBODY), |sender| self.number(sender));
        let number = number.unwrap_or_else(|| {
            // Most of them are not among the last any more.
            *self = Tail::new(seq);
            self.people.extend(sender.cloned());
            0
        });
        self.senders.push_back(number);
    }
}

impl Tails {
    /// An entry is appended. `sender`: of a message; events are nobody's.
    pub(crate) fn append(&mut self, conv: &ConvKey, seq: u64, sender: Option<&Arc<str>>) {
        if self.bytes >= MOST_BYTES {
            self.forget();
        }
        if let Some(tail) = self.convs.get_mut(conv) {
            self.bytes -= tail.bytes();
            tail.append(seq, sender);
            self.bytes += tail.bytes();
            return;
        }
        let mut tail = Tail::new(seq);
        tail.append(seq, sender);
        self.bytes += tail.bytes();
        self.convs.insert(conv.clone(), tail);
    }

    /// A message is void: it is nobody's any more.
    pub(crate) fn void(&mut self, conv: &ConvKey, seq: u64) {
        let Some(tail) = self.convs.get_mut(conv).filter(|tail| tail.from <= seq) else { return };
        let place = tail.place(seq);
        if let Some(sender) = tail.senders.get_mut(place) {
            *sender = NOBODY;
        }
    }

    /// Who has sent the messages `from` to `to`, each once, if that is known.
    pub(crate) fn senders(
        &self,
        conv: &ConvKey,
        from: u64,
        to: u64,
    ) -> Option<impl Iterator<Item = &Arc<str>>> {
        let tail = self.convs.get(conv).filter(|tail| tail.from <= from)?;
        let end = tail.place(to.saturating_add(1)).min(tail.senders.len());
        let begin = tail.place(from).min(end);
        let mut has_sent = [false; NOBODY as usize + 1];
        for number in tail.senders.range(begin..end) {
            has_sent[usize::from(*number)] = true;
        }
        Some(tail.people.iter().zip(has_sent).filter_map(|(person, has)| has.then_some(person)))
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&mut self) {
        self.convs.clear();
        self.bytes = 0;
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
        assert_eq!(senders(&tails, 4, 7).unwrap(), "a b");
        assert_eq!(senders(&tails, 5, 6).unwrap(), "b");
        assert_eq!(senders(&tails, 8, 7).unwrap(), "");
        // The batch with 7 was lost.
        tails.append(&conv, 7, Some(&b));
        assert_eq!(senders(&tails, 4, 9).unwrap(), "a b");
        assert_eq!(senders(&tails, 7, 9).unwrap(), "b");
        tails.void(&conv, 5);
        assert_eq!(senders(&tails, 4, 6).unwrap(), "a");
        tails.forget();
        assert_eq!(senders(&tails, 4, 9), None);
        assert_eq!(tails.bytes, 0);
    }

    #[test]
    fn what_is_remembered_of_one_is_bounded() {
        let conv = ConvKey::group("default", "team");
        let mut tails = Tails::default();
        for seq in 1..=1_100 {
            tails.append(&conv, seq, Some(&"a".into()));
        }
        assert_eq!(tails.bytes, CONV_BYTES + PERSON_BYTES + MOST_OF_ONE);
        assert_eq!(senders(&tails, 76, 1_100), None);
        assert_eq!(senders(&tails, 77, 1_100).unwrap(), "a");
        // More senders than have numbers: what was before is forgotten.
        for seq in 1_101..=1_400 {
            tails.append(&conv, seq, Some(&format!("u{seq}").into()));
        }
        assert_eq!(senders(&tails, 1_399, 1_400).unwrap(), "u1399 u1400");
        let known = (1_101..=1_400).find(|from| senders(&tails, *from, 1_400).is_some()).unwrap();
        let people = senders(&tails, known, 1_400).unwrap().split(' ').count() as u64;
        assert_eq!(people, 1_401 - known);
        assert!(tails.bytes <= CONV_BYTES + 255 * PERSON_BYTES + MOST_OF_ONE);
    }

    #[test]
    fn what_is_remembered_of_all_is_bounded() {
        let mut tails = Tails::default();
        for number in 0..50_000 {
            tails.append(&ConvKey::group("default", &format!("g{number}")), 1, Some(&"a".into()));
            assert!(tails.bytes <= MOST_BYTES + CONV_BYTES + PERSON_BYTES + 1);
        }
        assert!(tails.convs.len() < 50_000);
    }
}
