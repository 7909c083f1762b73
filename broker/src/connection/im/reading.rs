//! Entries that have been read for a device and wait for room, page behind page as they came from
//! the reader.

use std::collections::VecDeque;
use std::vec::IntoIter;

use hoopoe_core::seldom::Seldom;
use hoopoe_im::entry::Entry;

/// The pages of a device; a word while there are none.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Each with its stream; none is empty.
    pages: Seldom<VecDeque<(u32, IntoIter<Entry>)>>,
}

impl Pages {
    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    pub(super) fn push(&mut self, stream: u32, entries: Vec<Entry>) {
        if !entries.is_empty() {
            self.pages.push_back((stream, entries.into_iter()));
        }
    }

    /// The next entry, with its stream.
    pub(super) fn pop(&mut self) -> Option<(u32, Entry)> {
        let pages = self.pages.if_made()?;
        let (stream, entries) = pages.front_mut()?;
        let next = entries.next().map(|entry| (*stream, entry));
        if entries.as_slice().is_empty() {
            pages.pop_front();
        }
        next
    }

    /// Keeps the entries that `keep` says.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        let Some(pages) = self.pages.if_made() else { return };
        pages.retain_mut(|(_, entries)| {
            if !entries.as_slice().iter().all(&mut keep) {
                let kept: Vec<Entry> = std::mem::take(entries).filter(&mut keep).collect();
                *entries = kept.into_iter();
            }
            !entries.as_slice().is_empty()
        });
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.pages.iter().flat_map(|(_, entries)| entries.as_slice())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let pages = self.pages.if_made().into_iter().flatten();
        pages.flat_map(|(_, entries)| entries.as_mut_slice())
    }

    /// Gives the memory back: a device that has caught up may never read another page.
    pub(super) fn release(&mut self) {
        self.pages.release();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hoopoe_im::entry::EntryKind;
    use hoopoe_im::id::ConvKey;

    use super::*;

    fn entry(seq: u64) -> Entry {
        let conv = ConvKey::group("default", "team");
        Entry { seq, ..Entry::bare(conv, "ann".into(), EntryKind::Message) }
    }

    fn rest(pages: &mut Pages) -> Vec<(u32, u64)> {
        let rest = std::iter::from_fn(|| pages.pop()).map(|(stream, entry)| (stream, entry.seq));
        rest.collect()
    }

    #[test]
    fn pages_are_taken_in_their_order_without_what_is_dropped() {
        let seqs = BTreeSet::from([2, 3, 4, 9]);
        for dropped in [vec![], vec![3], vec![2, 4], vec![3, 4], vec![9], vec![2, 3, 4, 9]] {
            let mut pages = Pages::default();
            pages.push(7, Vec::new());
            assert!(pages.is_empty() && pages.pop().is_none());
            pages.push(7, (1..=4).map(entry).collect());
            pages.push(8, vec![entry(9)]);
            assert_eq!(pages.pop().map(|(stream, entry)| (stream, entry.seq)), Some((7, 1)));
            pages.retain(|entry| !dropped.contains(&entry.seq));
            pages.iter_mut().for_each(|entry| entry.seq *= 10);
            let left = seqs.iter().filter(|seq| !dropped.contains(seq));
            let left: Vec<(u32, u64)> =
                left.map(|seq| (if *seq == 9 { 8 } else { 7 }, seq * 10)).collect();
            assert_eq!(pages.is_empty(), left.is_empty(), "{dropped:?}");
            assert_eq!(rest(&mut pages), left, "{dropped:?}");
            assert!(pages.is_empty());
        }
    }
}
