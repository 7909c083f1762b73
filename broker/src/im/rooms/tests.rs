//! The node's rooms with workers that only collect their letters.

use hoopoe_im::refusal::Word;
use hoopoe_im::topic::Lane;

use super::*;

const NOW: u64 = 1_000_000;

fn rooms_with(settings: RoomSettings, workers: usize) -> Rooms {
    Rooms::new(settings, (0..workers).map(|_| Arc::new(Mailbox::parked())).collect())
}

fn join(rooms: &Rooms, worker: usize, room: &str, user: &str) -> Result<Arc<LiveRoom>, Word> {
    let joined = rooms.join(worker, NOW, ("t", room), &user.into());
    joined.map(|(live, _, _)| live).map_err(|refusal| refusal.word)
}

fn say(rooms: &Rooms, worker: usize, live: &Arc<LiveRoom>, user: &str) -> Todo {
    let from = &user.into();
    let post = Post { from, lane: Lane::Chat, properties: &[], payload: b"x", expires_at_ms: None };
    rooms.publish(worker, NOW, live, post, Location::NOWHERE).unwrap()
}

/// The numbers of the messages in a worker's mailbox, which is empty afterwards.
fn letters(rooms: &Rooms, worker: usize) -> Vec<u64> {
    let mut letters = Vec::new();
    rooms.workers[worker].take(&mut letters);
    let number = |mail: &Mail| match mail {
        Mail::Room(letter) => match &letter.news {
            RoomNews::Message { message, .. } => Some(message.n - NOW * 1_000),
            _ => None,
        },
        _ => None,
    };
    letters.iter().filter_map(number).collect()
}

fn call(rooms: &Rooms, user: &str, id: Option<&str>, call: RoomCall) -> Result<Served, Word> {
    let caller = Caller { user, admin: false };
    let served = rooms.serve(NOW, "t", caller, (id, call), || Some("made".into()));
    served.map_err(|refusal| refusal.word)
}

fn create() -> RoomCall {
    RoomCall::Create { name: String::new(), ticket: hoopoe_im::room::Ticket::Open }
}

#[test]
fn workers_with_viewers_get_one_letter_each_in_order() {
    let rooms = rooms_with(RoomSettings::default(), 3);
    let live = join(&rooms, 0, "r", "ann").unwrap();
    for user in ["bob", "cat", "dan"] {
        join(&rooms, 2, "r", user).unwrap();
    }
    for worker in [0, 2, 2, 0] {
        let user = if worker == 0 { "ann" } else { "bob" };
        assert!(say(&rooms, worker, &live, user).letters.is_empty(), "its own take the same way");
    }
    for (worker, expected) in [(0, vec![1, 2, 3, 4]), (1, vec![]), (2, vec![1, 2, 3, 4])] {
        assert_eq!(letters(&rooms, worker), expected, "worker {worker}");
    }
    for user in ["bob", "cat", "dan"] {
        rooms.leave(2, NOW, &live, user);
    }
    say(&rooms, 0, &live, "ann");
    assert_eq!((letters(&rooms, 0), letters(&rooms, 2)), (vec![5], vec![]));
}

#[test]
fn a_single_worker_is_handed_its_letters() {
    let rooms = rooms_with(RoomSettings::default(), 1);
    let live = join(&rooms, 0, "r", "ann").unwrap();
    assert_eq!(say(&rooms, 0, &live, "ann").letters.len(), 1);
    assert!(letters(&rooms, 0).is_empty());
}

#[test]
fn a_user_is_in_so_many_rooms_over_all_devices() {
    let rooms = rooms_with(RoomSettings { joined_max: 2, ..RoomSettings::default() }, 2);
    let first = join(&rooms, 0, "a", "ann").unwrap();
    join(&rooms, 1, "b", "ann").unwrap();
    assert_eq!(join(&rooms, 1, "c", "ann").unwrap_err(), Word::Limit);
    assert_eq!(rooms.may_join(NOW, "t", "c", "ann").unwrap_err().word, Word::Limit);
    join(&rooms, 1, "a", "ann").unwrap();
    join(&rooms, 0, "c", "bob").unwrap();
    rooms.leave(0, NOW, &first, "ann");
    assert_eq!(join(&rooms, 1, "c", "ann").unwrap_err(), Word::Limit, "in there with the other");
    rooms.leave(1, NOW, &first, "ann");
    join(&rooms, 1, "c", "ann").unwrap();
    rooms.leave(1, NOW, &join(&rooms, 1, "c", "bob").unwrap(), "bob");
    assert!(rooms.joined.len() <= 2, "users in no room take no place");
}

#[test]
fn rooms_come_by_themselves_only_where_that_is_on() {
    let rooms = rooms_with(RoomSettings { auto_create: false, ..RoomSettings::default() }, 1);
    assert_eq!(join(&rooms, 0, "r", "ann").unwrap_err(), Word::NotFound);
    call(&rooms, "olga", Some("r"), create()).unwrap();
    join(&rooms, 0, "r", "ann").unwrap();
    assert_eq!(call(&rooms, "olga", Some("s"), RoomCall::Info).unwrap_err(), Word::NotFound);
    let served = call(&rooms, "olga", None, create()).unwrap();
    assert_eq!((&*served.room, served.store.is_some()), ("made", true));
}

#[test]
fn rooms_and_owners_are_limited() {
    let settings = RoomSettings { owned_max: 1, rooms_max: 2, ..RoomSettings::default() };
    let rooms = rooms_with(settings, 1);
    call(&rooms, "olga", Some("a"), create()).unwrap();
    assert_eq!(call(&rooms, "olga", Some("b"), create()).unwrap_err(), Word::Limit);
    join(&rooms, 0, "b", "ann").unwrap();
    assert_eq!(join(&rooms, 0, "c", "ann").unwrap_err(), Word::Limit);
}

/// The user comes, says something and goes, at that time.
fn pass_through(rooms: &Rooms, now_ms: u64, room: &str, user: &str) -> Arc<LiveRoom> {
    let live = join(rooms, 0, room, user).unwrap();
    say(rooms, 0, &live, user);
    rooms.leave(0, now_ms, &live, user);
    live
}

fn may_join(rooms: &Rooms, room: &str, user: &str) -> Result<(), Word> {
    rooms.may_join(NOW, "t", room, user).map_err(|refusal| refusal.word)
}

#[test]
fn a_full_node_lets_nobody_make_a_room() {
    let rooms = rooms_with(RoomSettings { rooms_max: 2, ..RoomSettings::default() }, 1);
    call(&rooms, "olga", Some("owned"), create()).unwrap();
    let live = join(&rooms, 0, "watched", "ann").unwrap();
    assert_eq!(may_join(&rooms, "more", "carol"), Err(Word::Limit), "before SUBACK");
    assert_eq!(join(&rooms, 0, "more", "carol").unwrap_err(), Word::Limit);
    assert_eq!(call(&rooms, "carol", Some("more"), create()).unwrap_err(), Word::Limit);
    may_join(&rooms, "watched", "carol").unwrap();
    rooms.leave(0, NOW, &live, "ann");
    may_join(&rooms, "more", "carol").unwrap();
    join(&rooms, 0, "more", "carol").unwrap();
}

#[test]
fn a_room_in_which_nothing_was_said_is_forgotten_with_its_last_viewer() {
    let rooms = rooms_with(RoomSettings::default(), 1);
    for n in 0..1_000 {
        let live = join(&rooms, 0, &format!("z{n}"), "ann").unwrap();
        join(&rooms, 0, &format!("z{n}"), "bob").unwrap();
        for user in ["ann", "bob"] {
            assert!(rooms.find("t", &live.id).is_some());
            rooms.leave(0, NOW, &live, user);
        }
    }
    assert_eq!(rooms.rooms.len(), 0);
}

#[test]
fn the_room_that_has_been_empty_longest_makes_place() {
    let rooms = rooms_with(RoomSettings { rooms_max: 4, ..RoomSettings::default() }, 1);
    call(&rooms, "olga", Some("owned"), create()).unwrap();
    call(&rooms, "olga", Some("closed"), create()).unwrap();
    call(&rooms, "olga", Some("closed"), RoomCall::Close).unwrap();
    pass_through(&rooms, NOW + 1, "a", "ann");
    pass_through(&rooms, NOW + 2, "b", "ann");
    let again = join(&rooms, 0, "a", "bob").unwrap();
    rooms.leave(0, NOW + 3, &again, "bob");
    for (room, expected) in [("c", ["a", "c"]), ("d", ["c", "d"]), ("e", ["d", "e"])] {
        pass_through(&rooms, NOW + 4, room, "ann");
        let left = rooms.rooms.iter().map(|live| live.id.to_string());
        let left: std::collections::BTreeSet<String> = left.collect();
        let expected = expected.into_iter().chain(["closed", "owned"]).map(str::to_owned);
        assert_eq!(left, expected.collect(), "after {room}");
    }
    let e = join(&rooms, 0, "e", "ann").unwrap();
    let d = join(&rooms, 0, "d", "ann").unwrap();
    assert_eq!(may_join(&rooms, "f", "bob"), Err(Word::Limit), "none is empty");
    assert_eq!(join(&rooms, 0, "f", "bob").unwrap_err(), Word::Limit);
    assert_eq!(rooms.look_back(NOW, &e).0.len() + rooms.look_back(NOW, &d).0.len(), 2);
}

#[test]
fn who_owns_as_many_rooms_as_allowed_opens_a_closed_one_again() {
    let settings = || RoomSettings { owned_max: 1, ..RoomSettings::default() };
    let rooms = rooms_with(settings(), 1);
    call(&rooms, "olga", Some("r"), create()).unwrap();
    assert_eq!(call(&rooms, "olga", Some("s"), create()).unwrap_err(), Word::Limit);
    assert_eq!(call(&rooms, "olga", Some("r"), create()).unwrap_err(), Word::Exists);
    let row = call(&rooms, "olga", Some("r"), RoomCall::Close).unwrap().store.unwrap();
    assert_eq!(call(&rooms, "olga", Some("s"), create()).unwrap_err(), Word::Limit);
    let after_a_crash = rooms_with(settings(), 1);
    after_a_crash.restore(NOW, "t", "r", row);
    for rooms in [rooms, after_a_crash] {
        call(&rooms, "olga", Some("r"), create()).unwrap();
        assert_eq!(count(&rooms.owned, "t", "olga"), 1);
        join(&rooms, 0, "r", "ann").unwrap();
        let unowned = join(&rooms, 0, "u", "ann").unwrap();
        assert_eq!(call(&rooms, "olga", Some("u"), create()).unwrap_err(), Word::Limit);
        assert_eq!(call(&rooms, "olga", Some("s"), create()).unwrap_err(), Word::Limit);
        assert!(rooms.find("t", "s").is_none() && rooms.find("t", &unowned.id).is_some());
    }
}

#[test]
fn a_room_that_nobody_needs_is_forgotten_and_comes_anew() {
    let rooms = rooms_with(RoomSettings::default(), 1);
    let live = pass_through(&rooms, NOW, "r", "ann");
    let late = pass_through(&rooms, NOW + 1, "late", "ann");
    let owned = call(&rooms, "olga", Some("owned"), create()).unwrap().room;
    let over_ms = NOW + RoomSettings::default().empty_ms;
    rooms.sweep(over_ms - 1);
    let again = join(&rooms, 0, "r", "ann").unwrap();
    assert!(Arc::ptr_eq(&live, &again) && rooms.look_back(NOW, &again).0.len() == 1);
    rooms.sweep(over_ms + 1);
    assert!(rooms.find("t", "late").is_none(), "forgotten");
    rooms.leave(0, NOW + 9, &again, "ann");
    rooms.sweep(over_ms + 8);
    assert!(rooms.find("t", "r").is_some(), "empty for a shorter time");
    rooms.sweep(over_ms + 9);
    assert!(rooms.find("t", "r").is_none() && rooms.find("t", &owned).is_some());
    assert!(!Arc::ptr_eq(&late, &join(&rooms, 0, "late", "ann").unwrap()));
}

#[test]
fn an_empty_room_is_looked_at_no_more() {
    let rooms = rooms_with(RoomSettings::default(), 1);
    let (live, _, todo) = rooms.join(0, NOW, ("t", "r"), &"ann".into()).unwrap();
    let stat = todo.look_at_ms.unwrap();
    let (_, _, again) = rooms.join(0, NOW, ("t", "r"), &"bob".into()).unwrap();
    assert_eq!(again.look_at_ms, None, "it is going to be");
    assert_eq!(rooms.leave(0, NOW, &live, "ann").no_look_at_ms, None);
    assert_eq!(rooms.leave(0, NOW, &live, "bob").no_look_at_ms, Some(stat));
    let todo = rooms.look(0, stat, &live, stat);
    assert_eq!((todo.look_at_ms, todo.letters.len()), (None, 0));
}

#[test]
fn rooms_asked_for_together_are_counted_together() {
    let settings = RoomSettings { joined_max: 3, rooms_max: 3, ..RoomSettings::default() };
    let rooms = rooms_with(settings, 1);
    let watched = join(&rooms, 0, "watched", "bob").unwrap();
    let ask = |id: &str, user: &str, others: &[&str]| {
        let asked = rooms.may_join_too(NOW, ("t", id), user, others);
        asked.map_err(|refusal| refusal.message.to_string())
    };
    let full = |asked: Result<(), String>| asked.unwrap_err().contains("broker");
    ask("a", "ann", &[]).unwrap();
    ask("b", "ann", &["a"]).unwrap();
    ask("watched", "ann", &["a", "b"]).unwrap();
    assert!(full(ask("c", "ann", &["a", "b"])), "the node has no place for a third");
    assert!(!full(ask("watched", "ann", &["a", "b", "c"])), "nor the user for a fourth");
    // Where another device of the user is already, one more takes nothing.
    ask("c", "bob", &["a", "watched"]).unwrap();
    say(&rooms, 0, &watched, "bob");
    rooms.leave(0, NOW, &watched, "bob");
    ask("c", "ann", &["a", "b"]).unwrap();
    ask("watched", "ann", &["a", "b"]).unwrap();
    ask("c", "ann", &["a", "watched"]).unwrap();
    for (id, others) in [("watched", ["a", "b"]), ("c", ["a", "watched"])] {
        let second = join(&rooms, 0, "second", "carol").unwrap();
        assert!(full(ask(id, "ann", &others)), "{id} after {others:?}: one too many");
        rooms.leave(0, NOW, &second, "carol");
    }
}

#[test]
fn who_is_banned_is_told_on_every_worker() {
    let rooms = rooms_with(RoomSettings::default(), 2);
    call(&rooms, "olga", Some("r"), create()).unwrap();
    join(&rooms, 0, "r", "ann").unwrap();
    join(&rooms, 1, "r", "ann").unwrap();
    let ban = RoomCall::Ban { user: "ann".into(), until: None };
    assert!(call(&rooms, "olga", Some("r"), ban).unwrap().store.is_some());
    for worker in 0..2 {
        let mut mail = Vec::new();
        rooms.workers[worker].take(&mut mail);
        let told = mail.iter().any(|mail| match mail {
            Mail::Room(letter) => {
                matches!(&letter.news, RoomNews::Evicted { user: Some(user), .. } if &**user == "ann")
            }
            _ => false,
        });
        assert!(told, "worker {worker}");
    }
    assert_eq!(count(&rooms.joined, "t", "ann"), 0);
    assert_eq!(join(&rooms, 0, "r", "ann").unwrap_err(), Word::NotAllowed);
}

#[test]
fn an_erased_user_owns_nothing_and_what_is_not_stored_is_given_out_again() {
    let rooms = rooms_with(RoomSettings { owned_max: 1, ..RoomSettings::default() }, 1);
    call(&rooms, "olga", Some("r"), create()).unwrap();
    call(&rooms, "other", Some("s"), create()).unwrap();
    let role = RoomCall::Role { user: "molly".into(), moderator: true };
    call(&rooms, "olga", Some("r"), role).unwrap();
    let erased = rooms.erase(NOW, "t", "olga");
    let owners = |erased: &[(Arc<str>, RoomRow)]| {
        let owner = |(id, row): &(Arc<str>, RoomRow)| (id.to_string(), row.owner.clone());
        erased.iter().map(owner).collect::<Vec<_>>()
    };
    let expected = vec![("r".to_owned(), Some("molly".to_owned()))];
    assert_eq!(owners(&erased), expected);
    assert_eq!((count(&rooms.owned, "t", "olga"), count(&rooms.owned, "t", "molly")), (0, 1));
    assert!(rooms.erase(NOW, "elsewhere", "other").is_empty(), "another tenant's");
    assert_eq!(owners(&rooms.erase(NOW, "t", "olga")), expected, "it may not be stored");
    rooms.row_stored("t", "r");
    assert!(rooms.erase(NOW, "t", "olga").is_empty());

    let live = join(&rooms, 0, "r", "ann").unwrap();
    assert_eq!(rooms.erase(NOW, "t", "molly").len(), 1);
    assert_eq!((count(&rooms.owned, "t", "molly"), count(&rooms.joined, "t", "ann")), (0, 0));
    assert_eq!(rooms.leave(0, NOW, &live, "ann").letters.len(), 0);
    assert_eq!(join(&rooms, 0, "r", "ann").unwrap_err(), Word::NotAllowed, "closed");
}
