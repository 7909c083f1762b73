//! Applause: counted by word, sent as one sum a moment later.

use std::collections::BTreeMap;

use serde::Serialize;

use super::RoomSettings;
use crate::refusal::Refusal;

/// The word of a like without payload.
const DEFAULT_WORD: &str = "like";

/// Likes of the present moment, and how many there have been.
#[derive(Debug, Default)]
pub struct Likes {
    words: BTreeMap<Box<str>, u64>,
    due_ms: Option<u64>,
    /// Since the room is in memory.
    pub total: u64,
}

#[derive(Serialize)]
struct Sum<'a> {
    likes: &'a BTreeMap<Box<str>, u64>,
    ms: u64,
}

impl Likes {
    /// Counts one; the payload is its word.
    pub fn add(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        payload: &[u8],
    ) -> Result<(), Refusal> {
        self.add_many(settings, now_ms, payload, 1)
    }

    /// Counts so many of the same word.
    pub fn add_many(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        payload: &[u8],
        more: u64,
    ) -> Result<(), Refusal> {
        let word = word(settings, payload)?;
        if let Some(count) = self.words.get_mut(word) {
            *count = count.saturating_add(more);
        } else if self.words.len() >= settings.like_words {
            return Err(Refusal::limit("too many different words are liked at once"));
        } else {
            self.words.insert(word.into(), more);
        }
        self.total = self.total.saturating_add(more);
        self.due_ms.get_or_insert(now_ms + settings.like_merge_ms);
        Ok(())
    }

    /// When the sum is due.
    pub fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    /// The sum, if it is due: `{"likes":{word:count},"ms":500}`.
    pub fn take(&mut self, settings: &RoomSettings, now_ms: u64) -> Option<Vec<u8>> {
        self.due_ms.take_if(|due| *due <= now_ms)?;
        let words = std::mem::take(&mut self.words);
        serde_json::to_vec(&Sum { likes: &words, ms: settings.like_merge_ms }).ok()
    }
}

fn word<'a>(settings: &RoomSettings, payload: &'a [u8]) -> Result<&'a str, Refusal> {
    if payload.is_empty() {
        return Ok(DEFAULT_WORD);
    }
    std::str::from_utf8(payload)
        .ok()
        .filter(|word| word.len() <= settings.like_word_bytes && !word.contains(char::is_control))
        .ok_or_else(|| Refusal::bad_request("the payload of a like is one short word"))
}
