//! What a batch of unknown outcome would have made heard (ruling 12). Once the rows have been read
//! again it is known what was written after all: devices hear of it then, because nobody sends it
//! to them later and nothing else may follow in the conversation.
//!
//! At most one batch is in doubt: nothing is written before the store was read again.
//!
//! Deliberately not here: answers, as whoever waited for one is cut off and asks again; what other
//! shards are owed, which the outbox keeps.

use hoopoe_store::{PendingBatch, StoreError};

use super::{ImShard, Work, due, owed, read_lines, read_outbox};
use crate::conversation::expiry::Expiry;
use crate::effect::Effect;

impl ImShard {
    /// The batch that these effects rest on may have been written or not.
    pub fn doubt(&mut self, effects: Vec<Effect>) {
        self.memory.in_doubt.extend(effects);
    }

    /// The store was read again after a fault: what is owed to other shards is told once more, as
    /// nobody may have heard of it, what is due is read, the lines to other sites go on behind the
    /// last number that is there, and what was written after all is announced.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn recovered(&mut self) -> Result<Vec<Effect>, StoreError> {
        let outbox = read_outbox(self.rows.kv(), self.shard)?;
        let next = outbox.last().map_or(1, |(number, _)| number + 1);
        self.memory.outbox_next = self.memory.outbox_next.max(next);
        let (due, unlit) = due::load(self.rows.kv(), self.shard, self.shards)?;
        self.memory.due.extend(due);
        self.memory.unlit = unlit;
        self.memory.expiry = Expiry::unknown();
        let (kv, settings) = (self.rows.kv(), &self.settings);
        let lines = read_lines(kv, settings, self.shard, self.shards, 0)?;
        self.memory.lines.read_again(lines);
        let mut effects = owed(outbox);
        effects.extend(self.written_after_all()?);
        Ok(effects)
    }

    fn written_after_all(&mut self) -> Result<Vec<Effect>, StoreError> {
        let in_doubt = std::mem::take(&mut self.memory.in_doubt);
        #[cfg(feature = "planted")]
        if hoopoe_core::planted::has(hoopoe_core::planted::Bug::SilentRecovery) {
            return Ok(Vec::new());
        }
        // Only to be read through: nothing is put into it.
        let mut batch = PendingBatch::new();
        let mut work = self.work(0, &mut batch);
        let known: Result<Vec<_>, _> =
            in_doubt.iter().map(|effect| work.as_written(effect)).collect();
        match known {
            Ok(known) => Ok(known.into_iter().flatten().collect()),
            Err(error) => {
                self.memory.in_doubt = in_doubt;
                Err(error)
            }
        }
    }
}

impl Work<'_> {
    /// The effect by what the rows say now; nothing when its batch was not written.
    fn as_written(&mut self, effect: &Effect) -> Result<Option<Effect>, StoreError> {
        Ok(match effect {
            Effect::Entry(entry) => {
                let stored = self.entry(&entry.conv, entry.seq)?;
                let stored = stored.filter(|stored| stored.id == entry.id);
                stored.map(|stored| Effect::Entry(stored.into()))
            }
            Effect::EntryFor { user, entry } => {
                let stored = self.entry(&entry.conv, entry.seq)?;
                let stored = stored.filter(|stored| stored.id == entry.id);
                stored.map(|stored| Effect::EntryFor { user: user.clone(), entry: stored.into() })
            }
            Effect::Listed { user, conv, .. } => {
                let row = self.user_conv(user, conv)?;
                row.map(|row| Effect::Listed { user: user.clone(), conv: conv.clone(), row })
            }
            Effect::Skip { user, conv, through } => {
                let row = self.user_conv(user, conv)?;
                row.filter(|row| row.cleared >= *through).map(|_| effect.clone())
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hoopoe_store::kv::{Batch, Family};
    use hoopoe_store::memory::FaultKind;

    use crate::command::Command;
    use crate::effect::Answer;
    use crate::entry::{Entry, EntryKind};
    use crate::keys;
    use crate::rig::{Outcome, Rig, conv_of, message};
    use crate::settings::ImSettings;
    use crate::site::line::{LineKey, SiteNews};
    use crate::site::wire::{Body, Frame, Numbered};
    use crate::site::{HomeRule, Sites, WhenDown};

    /// A site whose groups live at another one, which is not reached.
    fn rig() -> Rig {
        let home = HomeRule { groups: Some("*".into()), site: "fra".into(), ..HomeRule::default() };
        let sites = Sites {
            id: "ny".into(),
            homes: vec![home],
            otherwise: "ny".into(),
            when_down: WhenDown::Hold,
            answer_ms: 2_000,
            held_max: 1_000,
            links: Vec::new(),
        };
        let settings = ImSettings { sites: Some(Arc::new(sites)), ..ImSettings::default() };
        Rig::with_shards(settings, 1)
    }

    /// Whether a message for the other site is owed to it now.
    fn is_held(rig: &mut Rig, text: &str) -> bool {
        let send = |asker| Command::Send(Box::new(message(asker, "alice", "g/team", text)));
        let asker = rig.post(send);
        rig.settle();
        matches!(rig.outcome(asker), Some(Outcome::Answer(Answer::Held)))
    }

    fn owed(rig: &Rig, number: u64) -> Option<Vec<u8>> {
        let line: LineKey = (conv_of("alice", "g/team").slot().get(), "fra".into());
        rig.kv().get(Family::Im, &keys::site_owed(&line, number)).unwrap()
    }

    #[test]
    fn a_number_that_comes_to_light_when_the_store_is_reopened_is_not_given_again() {
        let mut rig = rig();
        assert!(is_held(&mut rig, "one"));
        rig.fail_write(FaultKind::UnknownLost);
        assert!(!is_held(&mut rig, "two"));
        // The log had it all the same.
        let line: LineKey = (conv_of("alice", "g/team").slot().get(), "fra".into());
        let mut log = Batch::default();
        log.put(Family::Im, &keys::site_owed(&line, 2), b"two");
        rig.kv().reopen().unwrap();
        rig.kv().write(&log, true).unwrap();
        rig.recover();
        assert!(is_held(&mut rig, "three"));
        assert_eq!(owed(&rig, 2).as_deref(), Some(&b"two"[..]));
        assert!(owed(&rig, 3).is_some());
    }

    #[test]
    fn until_the_numbers_are_known_nothing_is_owed_and_nothing_acknowledged() {
        let mut rig = rig();
        rig.fail_write(FaultKind::Refused);
        assert!(!is_held(&mut rig, "one"));
        rig.reopen();
        assert!(!is_held(&mut rig, "two"));
        assert_eq!(rig.owed_to_sites(), 0);
        // What the other site asks for has to be answered.
        let conv = conv_of("alice", "u/bob");
        let entry = Entry::bare(conv.clone(), "alice".into(), EntryKind::Message);
        let mut row = Vec::new();
        entry.encode(&mut row);
        let slot = conv.slot().get();
        let body = Body::Ask { conv, privileged: true, row: row.into() }.encode().into();
        let asked = Frame::Numbered(Numbered { slot, born: 1, after: 0, number: 1, body });
        let ask = |rig: &mut Rig| {
            rig.site_says("fra", SiteNews::Frame(Box::new(asked.clone())));
            rig.settle();
            let frames = rig.frames.drain(..).map(|(_, frame)| Frame::decode(&frame).unwrap());
            frames.filter(|frame| matches!(frame, Frame::Heard { number: 1, .. })).count()
        };
        assert_eq!(ask(&mut rig), 0);
        rig.recover();
        assert_eq!(ask(&mut rig), 1);
        assert_eq!((rig.pulled("bob", "u/alice"), rig.owed_to_sites()), (vec![1], 1));
        assert!(is_held(&mut rig, "three"));
    }

    #[test]
    fn other_sites_are_owed_again_whichever_row_could_not_be_read() {
        for nth in (1..20).chain([1_000, 4_000, 12_000]) {
            for kind in [FaultKind::Refused, FaultKind::UnknownLost, FaultKind::UnknownWritten] {
                let mut rig = rig();
                assert!(is_held(&mut rig, "one"));
                rig.fail_write(kind);
                rig.fail_read(nth);
                is_held(&mut rig, "two");
                rig.recover();
                rig.fail_read(0);
                assert!(is_held(&mut rig, "three"), "{kind:?} {nth}");
            }
        }
    }
}
