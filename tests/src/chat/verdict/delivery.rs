//! What devices got: nothing that is not for them, in order, and in the end everything.

use std::collections::BTreeSet;

use super::super::entry::Kind;
use super::super::event::What;
use super::super::judge::Step;
use super::Verdict;

impl Verdict<'_> {
    /// Entries that a device has appended itself: it does not get them.
    fn own(&self, device: usize) -> BTreeSet<u64> {
        let mut own = BTreeSet::new();
        for (number, known) in &self.deeds {
            if known.deed.device != device {
                continue;
            }
            own.extend(self.judge.stored.get(number).into_iter().flatten());
            let event = match known.deed.what {
                What::Recall(of) => Some((Kind::Recall, of)),
                What::Edit(of) => Some((Kind::Edit, of)),
                _ => None,
            };
            if let Some((kind, of)) = event {
                // Whose it is of those who tried is not told when it has no body.
                let log = &self.judge.logs[self.conv];
                let name = &self.judge.cast.users[self.judge.cast.devices[device].user];
                let by_user = log
                    .events(kind, of)
                    .filter(|(_, fact)| fact.from.as_ref() == Some(name) && fact.body.is_none());
                own.extend(by_user.map(|(seq, _)| seq));
            }
        }
        own
    }

    /// What a device got: nothing that its user may not see, nothing skipped, and in the end all.
    pub(super) fn deliveries(&mut self, device: usize) {
        let user = self.judge.cast.devices[device].user;
        let own = self.own(device);
        let (mut acked, mut gaps, mut came) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
        let (mut base, mut passed) = (Some(0), 0);
        let mut found = Vec::new();
        let (_, cleared) = self.cleared(user);
        let is_covered = |seq: u64, acked: &BTreeSet<u64>, came: &BTreeSet<u64>, gaps: &[_]| {
            let named = gaps.iter().any(|(from, to)| (*from..=*to).contains(&seq));
            let had = acked.contains(&seq) || came.contains(&seq);
            had || named || own.contains(&seq) || seq <= cleared || !self.must_see(user, seq)
        };
        for step in &self.judge.seen[device].steps[self.conv] {
            match *step {
                // What retention had taken was named there, if at all (ruling 21).
                // A session that began there began where the user was.
                Step::Unheard { at, anew } => {
                    let gone = self.floor_below(self.last_at(at)) - 1;
                    let begun = if anew { self.received(user, at) } else { 0 };
                    gaps.push((1, gone.max(begun)));
                }
                Step::Link { present } => {
                    came.clear();
                    passed = 0;
                    if !present {
                        acked.clear();
                        gaps.clear();
                        base = None;
                    }
                }
                Step::Hello { at } => {
                    base.get_or_insert_with(|| self.received(user, at));
                }
                Step::Came { seq, .. } => {
                    if !self.may_see(user, seq) {
                        found.push((seq, format!("d{device} gets {seq}, which is not for it")));
                    }
                    let from = passed.max(base.unwrap_or(u64::MAX)).saturating_add(1);
                    let skipped = (from..seq).find(|seq| !is_covered(*seq, &acked, &came, &gaps));
                    if let Some(skipped) = skipped {
                        found.push((skipped, format!("d{device} gets {seq} before {skipped}")));
                    }
                    passed = passed.max(seq);
                    came.insert(seq);
                }
                Step::Acked { seq } => {
                    acked.insert(seq);
                }
                Step::Gap { from, to } => gaps.push((from, to)),
            }
        }
        let head = self.judge.logs[self.conv].head();
        let from = base.unwrap_or(u64::MAX).saturating_add(1);
        if let Some(missing) = (from..=head).find(|seq| !is_covered(*seq, &acked, &came, &gaps)) {
            found.push((missing, format!("d{device} has not got {missing}")));
        }
        for (seq, what) in found {
            self.fault(seq, what);
        }
    }
}
