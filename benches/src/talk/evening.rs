//! The population of an evening of chat: everybody has an inbox that four friends write to, a place
//! for receipts and a presence that the same friends follow; there are groups and one room.

use hoopoe_codec::{QoS, Version};

use super::Sort;
use super::world::{Plan, World, deal, qos};
use crate::shape::Shape;
use crate::stamp::STAMP_LEN;

/// Friends of everybody: the neighbours to both sides in a circle, so that friendship is mutual.
pub(crate) const FRIENDS: usize = 4;
/// Payload of receipts and presence: little more than the stamp.
const SMALL: usize = STAMP_LEN + 8;
/// Payload of messages in the room.
const ROOM_SIZE: usize = 128;

/// Sorts of channels, in the order of [`evening`]'s world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Place {
    /// 1:1 messages.
    Inbox,
    /// "Read" by the friend who got a message.
    Receipts,
    /// Groups.
    Group,
    /// The room.
    Room,
    /// "Here" and "away".
    Presence,
}

/// Where the channels of each sort begin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Map {
    /// Users; also how many inboxes, receipt and presence channels there are.
    pub users: u32,
    /// Groups.
    pub groups: u32,
    /// 1 when there is a room.
    pub rooms: u32,
}

impl Map {
    /// First channel of a place; the places follow each other.
    pub(crate) fn first(&self, place: Place) -> u32 {
        match place {
            Place::Inbox => 0,
            Place::Receipts => self.users,
            Place::Presence => 2 * self.users,
            Place::Group => 3 * self.users,
            Place::Room => 3 * self.users + self.groups,
        }
    }

    /// All channels of a place.
    pub(crate) fn channels(&self, place: Place) -> std::ops::Range<u32> {
        let first = self.first(place);
        let count = match place {
            Place::Group => self.groups,
            Place::Room => self.rooms,
            _ => self.users,
        };
        first..first + count
    }

    /// The user's friends, in the order in which they speak to the user.
    pub(crate) fn friends(&self, user: u32) -> [u32; FRIENDS] {
        let n = self.users;
        [1, n - 1, 2, n - 2].map(|step| (user + step) % n)
    }

    /// As what the friend speaks in the user's channels.
    pub(crate) fn speaker_of(&self, user: u32, friend: u32) -> Option<usize> {
        self.friends(user).iter().position(|f| *f == friend)
    }
}

/// Builds the world; where people come and go, what has QoS 0 is not owed to them.
pub(crate) fn evening(shape: &Shape, version: Version, base: &str) -> (World, Map) {
    let map = Map {
        users: shape.clients as u32,
        groups: shape.groups as u32,
        rooms: u32::from(shape.viewers > 0),
    };
    let comes_and_goes = shape.churn > 0.0;
    let mut sorts: Vec<Sort> =
        ["1:1", "receipt", "group", "room", "presence"].map(Sort::new).into();
    sorts[Place::Inbox as usize].answered = true;
    sorts[Place::Room as usize].owed_to_all = !comes_and_goes;
    sorts[Place::Presence as usize].owed_to_all = !comes_and_goes;
    let mut world = World::empty(shape.clients, sorts);
    let kept = qos(shape.qos);
    let plan = |topic, members, speakers, place, qos, size| Plan {
        topic,
        members,
        speakers,
        sort: place as u16,
        qos,
        retain: false,
        size,
        window: 0,
        echo: true,
    };
    for user in 0..map.users {
        let (topic, friends) = (format!("{base}/u/{user}"), map.friends(user).to_vec());
        world.add(version, plan(topic, vec![user], friends, Place::Inbox, kept, shape.size));
    }
    for user in 0..map.users {
        let (topic, friends) = (format!("{base}/u/{user}/r"), map.friends(user).to_vec());
        world.add(version, plan(topic, vec![user], friends, Place::Receipts, kept, SMALL));
    }
    for user in 0..map.users {
        let (topic, friends) = (format!("{base}/u/{user}/p"), map.friends(user).to_vec());
        let (place, none) = (Place::Presence, QoS::AtMostOnce);
        world.add(version, plan(topic, friends, vec![user], place, none, SMALL));
    }
    for (group, members) in deal(shape.groups, shape.members, shape.clients).into_iter().enumerate()
    {
        let speakers = members[..shape.speakers.min(members.len())].to_vec();
        let topic = format!("{base}/g/{group}");
        world.add(version, plan(topic, members, speakers, Place::Group, kept, shape.size));
    }
    if shape.viewers > 0 {
        let (viewers, speakers) = ((0..shape.viewers as u32).collect(), vec![0, 1, 2]);
        let (place, none) = (Place::Room, QoS::AtMostOnce);
        let topic = format!("{base}/room");
        world.add(version, plan(topic, viewers, speakers, place, none, ROOM_SIZE));
    }
    (world, map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn friendship_is_mutual_and_every_place_is_where_the_map_says() {
        let shape = Shape { clients: 30, groups: 4, ..Shape::preset("mixed").unwrap() };
        let shape = Shape { members: 5, viewers: 10, ..shape };
        let (world, map) = evening(&shape, Version::V311, "x");
        for user in 0..30 {
            for friend in map.friends(user) {
                assert!(map.speaker_of(friend, user).is_some(), "{user} {friend}");
            }
        }
        assert!(map.speaker_of(0, 15).is_none());
        let places = [Place::Inbox, Place::Receipts, Place::Group, Place::Room, Place::Presence];
        let mut count = 0;
        for place in places {
            for channel in map.channels(place) {
                assert_eq!(world.channels[channel as usize].sort, place as u16);
                count += 1;
            }
        }
        assert_eq!(count, world.channels.len());
        assert_eq!(world.filters(3).len(), 1 + 1 + FRIENDS + 1 + groups_of(&world, &map, 3));
    }

    fn groups_of(world: &World, map: &Map, user: u32) -> usize {
        let groups = map.channels(Place::Group);
        world.feeds[user as usize].iter().filter(|f| groups.contains(&f.channel)).count()
    }
}
