//! Who is there and who hears whom: the populations of the talking scenarios.
//!
//! A world belongs to one thread, with numbers of its own. Threads play worlds side by side (see
//! [`Shape::slice`]), so that no thread needs another's books.

use hoopoe_codec::{QoS, Version};

use super::{Channel, Feed, Sort};
use crate::ledger::Ledger;
use crate::net::Template;
use crate::run::histogram;
use crate::shape::{Kind, Shape};
use crate::stamp::mix;

/// The sort of the retained topics beside pairs.
pub(crate) const RETAINED: u16 = 1;

/// A population.
pub(crate) struct World {
    /// What is said where.
    pub channels: Vec<Channel>,
    /// Topic of each channel.
    pub topics: Vec<String>,
    /// Sorts of channels.
    pub sorts: Vec<Sort>,
    /// What each client hears, ordered by channel.
    pub feeds: Vec<Vec<Feed>>,
    /// The books, with a slot for every (client, channel, speaker).
    pub ledger: Ledger,
}

/// What a channel is to be, before it has a place in a world.
pub(crate) struct Plan {
    /// Its topic.
    pub topic: String,
    /// Who hears it.
    pub members: Vec<u32>,
    /// Who speaks in it.
    pub speakers: Vec<u32>,
    /// Which sort it is.
    pub sort: u16,
    /// QoS of its messages.
    pub qos: QoS,
    /// Messages are retained.
    pub retain: bool,
    /// Payload bytes of its messages.
    pub size: usize,
    /// Closed loop: unfinished messages; 0 for the open loop.
    pub window: u32,
    /// Members that speak hear themselves.
    pub echo: bool,
}

impl Plan {
    /// A channel of the first sort with messages of the shape's QoS and size, said when they are due.
    pub(crate) fn new(shape: &Shape, topic: String, members: Vec<u32>, speakers: Vec<u32>) -> Plan {
        Plan {
            topic,
            members,
            speakers,
            sort: 0,
            qos: qos(shape.qos),
            retain: false,
            size: shape.size,
            window: 0,
            echo: true,
        }
    }
}

impl World {
    /// The world of a shape; all topics begin with `base`.
    pub(crate) fn new(shape: &Shape, version: Version, base: &str) -> World {
        let window = if shape.rate.is_some() { 0 } else { shape.window };
        let (name, plans) = match shape.kind {
            Kind::Group => ("group", groups(shape, base)),
            Kind::ImPairs | Kind::ImGroup | Kind::ImRoom => return profile(shape, version, base),
            Kind::Room => ("room", room(shape, base)),
            _ => ("1:1", pairs(shape, base)),
        };
        let mut world = World::empty(shape.connections(), vec![Sort::new(name)]);
        world.sorts[0].settled = shape.is_stored().then(histogram);
        for (topic, members, speakers) in plans {
            world.add(version, Plan { window, ..Plan::new(shape, topic, members, speakers) });
        }
        if shape.retained > 0 {
            world.add_retained(shape, version, base);
        }
        world
    }

    /// Retained topics, each said by one of the pairs, which the last client hears when it asks.
    fn add_retained(&mut self, shape: &Shape, version: Version, base: &str) {
        let fetcher = 2 * shape.pairs as u32;
        let mut sort = Sort::new("retained");
        sort.owed_to_all = false;
        self.sorts.push(sort);
        for topic in 0..shape.retained as u32 {
            let (name, speaker) = (format!("{base}/r/{topic}"), topic % fetcher);
            let plan = Plan::new(shape, name, vec![fetcher], vec![speaker]);
            self.add(version, Plan { sort: RETAINED, retain: true, ..plan });
        }
    }

    /// A world of silent clients.
    pub(crate) fn empty(clients: usize, sorts: Vec<Sort>) -> World {
        World {
            channels: Vec::new(),
            topics: Vec::new(),
            sorts,
            feeds: vec![Vec::new(); clients],
            ledger: Ledger::default(),
        }
    }

    /// Adds a channel; returns its number. Members hear it from the beginning, and their feeds stay
    /// ordered because numbers only grow.
    pub(crate) fn add(&mut self, version: Version, plan: Plan) -> u32 {
        let number = self.channels.len() as u32;
        let template = Template::new(version, &plan.topic, plan.qos, plan.retain, plan.size);
        for member in &plan.members {
            let first_slot = self.ledger.add_slots(plan.speakers.len());
            self.feeds[*member as usize].push(Feed { channel: number, first_slot });
        }
        let own = !plan.echo && plan.speakers.iter().any(|s| plan.members.contains(s));
        let hearers = plan.members.len() - usize::from(own);
        let mut channel = Channel::new(template, plan.speakers, hearers);
        channel.echo = plan.echo;
        channel.silent = plan.size == 0;
        channel.sort = plan.sort;
        channel.settles = plan.qos != QoS::AtMostOnce;
        channel.window = plan.window;
        self.channels.push(channel);
        self.topics.push(plan.topic);
        number
    }

    /// Filters that a client subscribes to: the exact topics it hears.
    pub(crate) fn filters(&self, client: u32) -> Vec<String> {
        let feeds = &self.feeds[client as usize];
        feeds.iter().map(|feed| self.topics[feed.channel as usize].clone()).collect()
    }
}

/// QoS of a checked number.
pub(crate) fn qos(number: u8) -> QoS {
    QoS::try_from(number).unwrap_or(QoS::AtMostOnce)
}

/// Users of the IM profile: a client's name behind `base` is its user, and no session hears itself.
fn profile(shape: &Shape, version: Version, base: &str) -> World {
    let (name, plans) = match shape.kind {
        Kind::ImGroup => ("group", groups(shape, base)),
        Kind::ImRoom => ("room", im_room(shape, base)),
        _ => ("1:1", pairs(shape, base)),
    };
    let mut world = World::empty(shape.connections(), vec![Sort::new(name)]);
    world.sorts[0].settled = shape.is_stored().then(histogram);
    for (number, (topic, members, speakers)) in plans.into_iter().enumerate() {
        let topic = match shape.kind {
            Kind::ImPairs => format!("im/u/{base}-{}/msg", members[0]),
            Kind::ImGroup => format!("im/g/{base}-g{number}/msg"),
            _ => topic,
        };
        let size = if members.is_empty() { 0 } else { shape.size };
        let window = if shape.rate.is_some() { 0 } else { shape.window };
        let plan = Plan::new(shape, topic, members, speakers);
        world.add(version, Plan { size, window, echo: false, ..plan });
    }
    world
}

/// Everybody is in the room; the last speak on the lane `chat`, and send likes, which have no content.
fn im_room(shape: &Shape, base: &str) -> Plans {
    let listeners = shape.clients as u32;
    let speakers: Vec<u32> = (listeners..listeners + shape.speakers as u32).collect();
    let everybody = (0..listeners + shape.speakers as u32).collect();
    vec![
        (format!("im/r/{base}-room/msg/chat"), everybody, speakers.clone()),
        (format!("im/r/{base}-room/msg/like"), Vec::new(), speakers),
    ]
}

type Plans = Vec<(String, Vec<u32>, Vec<u32>)>;

/// Users 2n and 2n+1 talk to each other; each hears its own topic.
fn pairs(shape: &Shape, base: &str) -> Plans {
    (0..shape.pairs)
        .flat_map(|pair| {
            let (a, b) = (2 * pair as u32, 2 * pair as u32 + 1);
            [
                (format!("{base}/u/{a}"), vec![a], vec![b]),
                (format!("{base}/u/{b}"), vec![b], vec![a]),
            ]
        })
        .collect()
}

/// Every group has `members`, every user is in `memberships` different groups, and groups share
/// members in no regular way.
fn groups(shape: &Shape, base: &str) -> Plans {
    let users = shape.connections();
    deal(shape.groups, shape.members, users)
        .into_iter()
        .enumerate()
        .map(|(group, members)| {
            let count = shape.speakers.min(members.len());
            let stride = members.len() / count;
            let speakers = (0..count).map(|n| members[n * stride]).collect();
            (format!("{base}/g/{group}"), members, speakers)
        })
        .collect()
}

/// Deals `groups` hands of `members` different users; everybody is dealt equally often. Whoever has
/// been dealt least comes first, in an order drawn anew for every hand.
pub(crate) fn deal(groups: usize, members: usize, users: usize) -> Vec<Vec<u32>> {
    let mut dealt = vec![0u32; users];
    let mut pack: Vec<u32> = (0..users as u32).collect();
    (0..groups as u64)
        .map(|group| {
            pack.sort_unstable_by_key(|user| {
                (dealt[*user as usize], mix(group << 32 | u64::from(*user)))
            });
            let hand = pack[..members.min(users)].to_vec();
            hand.iter().for_each(|user| dealt[*user as usize] += 1);
            hand
        })
        .collect()
}

/// The first clients listen, the last speak.
fn room(shape: &Shape, base: &str) -> Plans {
    let listeners = shape.clients as u32;
    let speakers = (listeners..listeners + shape.speakers as u32).collect();
    vec![(format!("{base}/room"), (0..listeners).collect(), speakers)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_user_is_in_as_many_groups_as_asked_and_in_none_twice() {
        for (groups, members, memberships) in [(20, 200, 4), (7, 30, 3), (4, 5, 4), (9, 10, 5)] {
            let users = groups * members / memberships;
            let hands = deal(groups, members, users);
            let mut seen = vec![0; users];
            for hand in &hands {
                let mut unique = hand.clone();
                unique.sort_unstable();
                unique.dedup();
                assert_eq!(unique.len(), members);
                hand.iter().for_each(|user| seen[*user as usize] += 1);
            }
            assert!(seen.iter().all(|n| *n == memberships), "{groups} {members}: {seen:?}");
        }
    }

    #[test]
    fn every_user_of_a_pair_hears_its_own_topic_and_a_room_has_one() {
        let shape = Shape::preset("pairs1").unwrap();
        let world = World::new(&shape, Version::V311, "x");
        assert_eq!(world.channels.len(), 200);
        assert_eq!(world.filters(7), ["x/u/7"]);
        assert_eq!(&*world.channels[7].speakers, [6]);
        let room = Shape::preset("room5000").unwrap();
        let world = World::new(&room, Version::V5, "x");
        assert_eq!(world.channels[0].members, 5000);
        assert_eq!(world.filters(4999), ["x/room"]);
        assert!(world.filters(5000).is_empty());
    }
}
