//! Recalls among the letters of one turn: they reach what lies before them in the same mailbox, so
//! that whoever has heard of a recall finds no worker that sends the body later (ruling 24).

use std::sync::Arc;

use foldhash::HashMap;
use hoopoe_im::entry::{Entry, EntryKind, VOID_BURNT, VOID_RECALLED};
use hoopoe_im::id::ConvKey;

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
        let mut taken = Taken::default();
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
            taken.entry((entry.conv.clone(), entry.reference)).or_insert(reason);
            for location in receivers.iter() {
                self.im_forget_body(*location, entry);
            }
        }
        if !taken.is_empty() {
            forget_in(letters, &taken);
        }
    }
}

/// Why messages lose their body, each by its conversation and its number.
type Taken = HashMap<(ConvKey, u64), u8>;

fn forget_in(letters: &mut [Mail], taken: &Taken) {
    for letter in letters {
        match letter {
            Mail::Im(ImMail::Entry { entry, .. }) => {
                if let Some(left) = left_among(entry, taken) {
                    *entry = Arc::new(left);
                }
            }
            Mail::Im(ImMail::Entries { pages, .. }) => {
                let pages = pages.iter_mut().flatten();
                pages.for_each(|page| forget_among(&mut page.entries, taken));
            }
            Mail::Im(ImMail::Found { found: Ok(found), .. }) => {
                forget_among(&mut found.entries, taken);
            }
            _ => {}
        }
    }
}

fn forget_among(entries: &mut [Entry], taken: &Taken) {
    for entry in entries {
        if let Some(left) = left_among(entry, taken) {
            *entry = left;
        }
    }
}

fn left_among(entry: &Entry, taken: &Taken) -> Option<Entry> {
    let of = message_of(entry)?;
    let reason = taken.get(&(entry.conv.clone(), of))?;
    Some(left(entry, *reason))
}

/// What a recall or a burning, for that `reason`, leaves of an entry; `None` if it is about
/// another one.
pub(super) fn left_of(entry: &Entry, event: &Entry, reason: u8) -> Option<Entry> {
    let is_its = event.conv == entry.conv && message_of(entry) == Some(event.reference);
    is_its.then(|| left(entry, reason))
}

/// The number of the message whose text an entry has.
fn message_of(entry: &Entry) -> Option<u64> {
    match entry.kind {
        EntryKind::Message => Some(entry.seq),
        EntryKind::Edit => Some(entry.reference),
        _ => None,
    }
}

fn left(entry: &Entry, reason: u8) -> Entry {
    if entry.kind == EntryKind::Message { entry.voided(reason) } else { entry.emptied() }
}
