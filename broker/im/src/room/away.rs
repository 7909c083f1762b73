//! A room that lives at another site, as a site with viewers of it has it: the same ring and the
//! same rules, but messages, sums and counters come from the home. And what the home takes from
//! such a site.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::message::Said;
use super::{Post, Room, RoomMessage, RoomRow, RoomSettings};
use crate::refusal::Refusal;
use crate::topic::Lane;

/// A message of the home.
#[derive(Clone, Copy, Debug)]
pub struct Relayed<'a> {
    /// Its number.
    pub n: u64,
    /// Its lane.
    pub lane: Lane,
    /// Who said it; `None` for the room's own.
    pub from: Option<&'a Arc<str>>,
    /// When.
    pub ts_ms: u64,
    /// When it expires.
    pub expires_at_ms: Option<u64>,
    /// The sender's properties.
    pub properties: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

#[derive(Deserialize)]
struct Sum {
    likes: BTreeMap<String, u64>,
}

impl Room {
    /// A room of another site, with nobody in it and nothing heard from its home.
    pub fn new_away(id: Arc<str>, now_ms: u64) -> Room {
        let mut room = Room::new(id, RoomRow::default(), now_ms);
        room.n = 0;
        room.is_away = true;
        room
    }

    /// What the home says the room is.
    pub fn set_row(&mut self, row: RoomRow, now_ms: u64) {
        for user in row.bans.keys().filter(|user| row.is_banned(user, now_ms)) {
            self.ring.forget(user);
        }
        self.row = row;
    }

    /// What the room is is not known any more.
    pub fn forget_row(&mut self) {
        self.row = RoomRow::default();
    }

    /// A message of the home; `None` when it is known.
    pub fn relay(&mut self, settings: &RoomSettings, of: Relayed<'_>) -> Option<Arc<RoomMessage>> {
        if of.n <= self.n {
            return None;
        }
        self.n = of.n;
        let Relayed { n, lane, from, ts_ms, expires_at_ms, properties, payload } = of;
        let room = &self.id.clone();
        let said = Said { room, n, lane, from, ts_ms, expires_at_ms, properties, payload };
        let message = Arc::new(RoomMessage::new(said));
        if lane != Lane::Like {
            self.ring.push(settings, &message);
        }
        Some(message)
    }

    /// A user is in the room no more, with no device; whether there was one.
    pub fn put_out(&mut self, settings: &RoomSettings, now_ms: u64, user: &str) -> bool {
        self.remove(settings, now_ms, user)
    }

    /// Everybody leaves; who was here.
    pub fn put_all_out(&mut self, now_ms: u64) -> Vec<Arc<str>> {
        self.clear(now_ms)
    }

    /// Everybody who is here.
    pub fn users(&self) -> Vec<Arc<str>> {
        self.viewers.keys().cloned().collect()
    }

    /// Judges what somebody wants to say in a room whose home is to say it.
    ///
    /// # Errors
    /// Why it may not be said.
    pub fn may_post(
        &mut self,
        settings: &RoomSettings,
        now_ms: u64,
        post: &Post<'_>,
    ) -> Result<(), Refusal> {
        self.judge(settings, now_ms, post)
    }

    /// What was liked at another site; what a room does not take of it is left out.
    pub fn add_likes(&mut self, settings: &RoomSettings, now_ms: u64, sum: &[u8]) {
        let Ok(Sum { likes }) = serde_json::from_slice(sum) else { return };
        for (word, count) in likes {
            // Refused words are not counted, as for viewers here.
            let _ = self.likes.add_many(settings, now_ms, word.as_bytes(), count);
        }
        self.counts_changed(settings, now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 5_000;

    fn away() -> (Room, RoomSettings) {
        (Room::new_away("show".into(), NOW), RoomSettings::default())
    }

    fn said<'a>(n: u64, from: &'a Arc<str>) -> Relayed<'a> {
        let (ts_ms, expires_at_ms) = (NOW, None);
        let lane = Lane::Chat;
        Relayed { n, lane, from: Some(from), ts_ms, expires_at_ms, properties: &[], payload: b"x" }
    }

    #[test]
    fn what_the_home_says_comes_once_and_stays_in_the_ring() {
        let (mut room, settings) = away();
        let ann = "ann".into();
        room.join(&settings, NOW, &ann).unwrap();
        assert!(room.relay(&settings, said(7, &ann)).is_some());
        assert!(room.relay(&settings, said(7, &ann)).is_none());
        assert!(room.relay(&settings, said(9, &ann)).is_some());
        let (ring, n) = room.look_back(NOW);
        assert_eq!((ring.len(), n), (2, 9));
    }

    #[test]
    fn a_room_away_counts_nothing_of_its_own_and_gives_likes_away() {
        let (mut room, settings) = away();
        let ann = "ann".into();
        room.join(&settings, NOW, &ann).unwrap();
        let post = Post {
            from: &ann,
            lane: Lane::Like,
            properties: &[],
            payload: b"",
            expires_at_ms: None,
        };
        room.publish(&settings, NOW, post).unwrap();
        let later = NOW + 60_000;
        let output = room.on_tick(&settings, later);
        assert!(output.likes.is_none() && output.stat.is_none());
        let sum = output.sum.unwrap();
        let mut home = Room::new("show".into(), RoomRow::default(), NOW);
        home.join(&settings, NOW, &"bob".into()).unwrap();
        home.add_likes(&settings, later, &sum);
        let likes = home.on_tick(&settings, later + 60_000).likes.unwrap();
        assert!(String::from_utf8_lossy(likes.payload()).contains(r#""like":1"#));
        // Without viewers it is forgotten, whoever owns it.
        room.set_row(RoomRow { owner: Some("zoe".into()), ..RoomRow::default() }, NOW);
        room.leave(&settings, later, "ann");
        assert_eq!(room.unwanted_since(), Some(later));
    }

    #[test]
    fn the_rules_of_the_home_are_asked_before_anything_leaves() {
        let (mut room, settings) = away();
        let ann = "ann".into();
        room.join(&settings, NOW, &ann).unwrap();
        let post = Post {
            from: &ann,
            lane: Lane::Chat,
            properties: &[],
            payload: b"x",
            expires_at_ms: None,
        };
        assert!(room.may_post(&settings, NOW, &post).is_ok());
        let mutes = [("ann".to_owned(), NOW + 1)].into();
        room.set_row(RoomRow { mutes, ..RoomRow::default() }, NOW);
        assert!(room.may_post(&settings, NOW, &post).is_err());
        let bans = [("bob".to_owned(), NOW + 1)].into();
        room.set_row(RoomRow { bans, ..RoomRow::default() }, NOW);
        assert!(room.may_join("bob", NOW).is_err());
        assert!(room.may_post(&settings, NOW, &post).is_ok());
    }

    #[test]
    fn what_is_not_known_any_more_bars_nobody() {
        let (mut room, _) = away();
        room.set_row(RoomRow { closed_ms: Some(NOW), ..RoomRow::default() }, NOW);
        assert!(room.may_join("ann", NOW).is_err());
        room.forget_row();
        assert!(room.may_join("ann", NOW).is_ok());
    }
}
