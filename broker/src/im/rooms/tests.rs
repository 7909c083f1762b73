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

#[test]
fn a_room_that_nobody_needs_is_forgotten_and_comes_anew() {
    let rooms = rooms_with(RoomSettings::default(), 1);
    let (live, _, todo) = rooms.join(0, NOW, ("t", "r"), &"ann".into()).unwrap();
    let mut looks: std::collections::BTreeSet<u64> = todo.look_at_ms.into_iter().collect();
    rooms.leave(0, NOW, &live, "ann");
    let mut last = NOW;
    while let Some(at_ms) = looks.pop_first() {
        assert!(at_ms > last, "time moves on");
        last = at_ms;
        looks.extend(rooms.look(0, at_ms, &live, at_ms).look_at_ms);
    }
    assert_eq!(last, NOW + RoomSettings::default().empty_ms);
    assert!(rooms.find("t", "r").is_none(), "forgotten");
    let again = join(&rooms, 0, "r", "ann").unwrap();
    assert!(!Arc::ptr_eq(&live, &again));
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
