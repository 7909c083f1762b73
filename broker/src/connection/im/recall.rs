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
            Mail::Im(ImMail::Entry { entry, .. }) => forget(entry, events),
            Mail::Im(ImMail::Entries { pages, .. }) => {
                let pages = pages.iter_mut().flatten();
                let entries = pages.flat_map(|page| &mut page.entries);
                entries.for_each(|entry| forget(entry, events));
            }
            Mail::Im(ImMail::Found { found: Ok(found), .. }) => {
                found.entries.iter_mut().for_each(|entry| forget(entry, events));
            }
            _ => {}
        }
    }
}

fn forget(entry: &mut Arc<Entry>, events: &[(Arc<Entry>, u8)]) {
    for (event, reason) in events {
        if event.conv != entry.conv {
            continue;
        }
        if entry.kind == EntryKind::Message && entry.seq == event.reference {
            *entry = Arc::new(entry.voided(*reason));
        } else if entry.kind == EntryKind::Edit && entry.reference == event.reference {
            *entry = Arc::new(entry.emptied());
        }
    }
}
