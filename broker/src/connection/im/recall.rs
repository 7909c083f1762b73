//! Recalls among the letters of one turn: they reach what lies before them in the same mailbox, so
//! that whoever has heard of a recall finds no worker that sends the body later (ruling 24).

use std::sync::Arc;

use hoopoe_im::entry::{Entry, EntryKind, VOID_BURNT, VOID_RECALLED};

use crate::connection::worker::Worker;
use crate::fabric::Mail;
use crate::im::ImMail;

impl Worker {
    /// Takes the bodies of messages out of letters that came together with their recall, and out
    /// of what waits for one of these letters to be sent.
    pub(in crate::connection) fn im_forget_recalled(&mut self, letters: &mut [Mail]) {
        #[cfg(feature = "planted")]
        if hoopoe_core::planted::has(hoopoe_core::planted::Bug::ReplayRecalled) {
            return;
        }
        let mut events: Vec<(Arc<Entry>, u8)> = Vec::new();
        for letter in letters.iter() {
            let Mail::Im(
                ImMail::Entry { entry, receivers, .. } | ImMail::Forget { entry, receivers },
            ) = letter
            else {
                continue;
            };
            let reason = match entry.kind {
                EntryKind::Recall => VOID_RECALLED,
                EntryKind::Burn => VOID_BURNT,
                _ => continue,
            };
            events.push((entry.clone(), reason));
            for location in receivers.iter() {
                self.im_forget_body(*location, entry);
            }
        }
        if !events.is_empty() {
            forget_in(letters, &events);
        }
    }
}

fn forget_in(letters: &mut [Mail], events: &[(Arc<Entry>, u8)]) {
    for letter in letters {
        match letter {
            Mail::Im(ImMail::Entry { entry, .. }) => {
                for (event, reason) in events {
                    if let Some(left) = left_of(entry, event, *reason) {
                        *entry = Arc::new(left);
                    }
                }
            }
            Mail::Im(ImMail::Entries { pages, .. }) => {
                let pages = pages.iter_mut().flatten();
                pages.for_each(|page| forget_among(&mut page.entries, events));
            }
            Mail::Im(ImMail::Found { found: Ok(found), .. }) => {
                forget_among(&mut found.entries, events);
            }
            _ => {}
        }
    }
}

fn forget_among(entries: &mut [Entry], events: &[(Arc<Entry>, u8)]) {
    for entry in entries {
        for (event, reason) in events {
            if let Some(left) = left_of(entry, event, *reason) {
                *entry = left;
            }
        }
    }
}

/// What a recall or a burning, for that `reason`, leaves of an entry; `None` if it is about
/// another one.
pub(super) fn left_of(entry: &Entry, event: &Entry, reason: u8) -> Option<Entry> {
    if event.conv != entry.conv {
        return None;
    }
    match entry.kind {
        EntryKind::Message if entry.seq == event.reference => Some(entry.voided(reason)),
        EntryKind::Edit if entry.reference == event.reference => Some(entry.emptied()),
        _ => None,
    }
}
