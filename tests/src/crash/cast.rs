//! Who takes part: publishers with their topics, receivers with their filters and tempers. Decided
//! by the seed alone, before anything happens.
//!
//! Filters of one receiver never overlap, so that it is owed exactly one copy of what matches. The
//! first publisher only publishes marks, to which every receiver subscribes for good. Members of the
//! groups, too, subscribe for good: a group's queue is that of its members together.

use super::message::Message;
use super::random::Random;
use crate::wire::Version;

/// Seconds after which an expiring session ends without its client.
pub const EXPIRY_SECS: u32 = 1;
/// Groups of shared subscriptions.
pub const GROUPS: usize = 2;
/// Trees of topics: ordinary ones, retained ones, those for groups.
const PLAIN: &str = "crash";
const KEPT: &str = "keep";
const SHARED: &str = "shared";
/// The topics of each publisher in the latter two; those before are ordinary.
const KEPT_TOPIC: usize = 3;
const SHARED_TOPIC: usize = 4;

/// All who take part.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Publishers; the first publishes the marks.
    pub publishers: Vec<PublisherRole>,
    /// Receivers with stored sessions.
    pub receivers: Vec<ReceiverRole>,
}

/// A publisher with a stored session.
#[derive(Clone, Debug)]
pub struct PublisherRole {
    /// Protocol version it speaks.
    pub version: Version,
    /// Its topics.
    pub topics: Vec<TopicRole>,
    /// Publications it has unfinished at most.
    pub window: usize,
}

/// One topic of one publisher.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicRole {
    /// Its name.
    pub name: String,
    /// Publications are retained.
    pub kept: bool,
    /// Only groups subscribe to it.
    pub shared: bool,
    /// QoS of its publications; `None`: now 1, now 2.
    pub qos: Option<u8>,
}

/// What a receiver does besides receiving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Temper {
    /// Stays.
    Steady,
    /// Keeps acknowledgements back.
    Slow,
    /// Comes and goes, in good order or not.
    Restless,
    /// Two connections fight for its session.
    Contested,
    /// Subscribes and unsubscribes.
    Fickle,
    /// Starts anew, or lets its session end.
    Forgetful,
    /// Goes away for so long, now and then, that its session expires.
    Expiring,
}

impl Temper {
    const ALL: [Temper; 7] = [
        Temper::Steady,
        Temper::Slow,
        Temper::Restless,
        Temper::Contested,
        Temper::Fickle,
        Temper::Forgetful,
        Temper::Expiring,
    ];

    /// Whether its session and all its subscriptions last from its first connection on.
    pub fn keeps_its_session(self) -> bool {
        matches!(self, Temper::Steady | Temper::Slow | Temper::Restless | Temper::Contested)
    }
}

/// A receiver with a stored session.
#[derive(Clone, Debug)]
pub struct ReceiverRole {
    /// Protocol version it speaks.
    pub version: Version,
    /// What it does besides receiving.
    pub temper: Temper,
    /// Messages it takes unacknowledged; 0: the broker decides (3.1.1).
    pub receive_maximum: u16,
    /// What it subscribes to; the marks come first.
    pub filters: Vec<FilterRole>,
}

/// One subscription of a receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterRole {
    /// As it is sent.
    pub text: String,
    /// QoS asked for.
    pub qos: u8,
    /// Whose topics it covers.
    pub publisher: u16,
    /// Retained topics, or the others.
    pub kept: bool,
    /// The group whose member it makes.
    pub group: Option<u16>,
    /// The only topic; `None` for all of the publisher's.
    pub topic: Option<u16>,
}

impl Cast {
    /// The cast of a seed.
    pub fn of_seed(seed: u64, publishers: usize, receivers: usize) -> Cast {
        let mut random = Random::of_part(seed, 1);
        let marks = PublisherRole {
            version: Version::V5,
            topics: vec![TopicRole {
                name: topic_name(0, 0, PLAIN),
                kept: false,
                shared: false,
                qos: Some(1),
            }],
            window: 1,
        };
        let others = (1..=publishers).map(|number| publisher(number, &mut random));
        let publishers: Vec<_> = std::iter::once(marks).chain(others).collect();
        let receivers =
            (0..receivers).map(|number| receiver(number, &publishers, &mut random)).collect();
        Cast { publishers, receivers }
    }

    /// The topic of a message.
    pub fn topic(&self, message: Message) -> &TopicRole {
        &self.publishers[usize::from(message.publisher)].topics[usize::from(message.topic)]
    }

    /// The filter of a receiver that a message matches.
    pub fn matching(&self, receiver: usize, message: Message) -> Option<usize> {
        let topic = self.topic(message);
        self.receivers[receiver].filters.iter().position(|filter| filter.covers(message, topic))
    }

    /// Members of a group, each with the number of the filter that makes it one.
    pub fn members(&self, group: usize) -> Vec<(usize, usize)> {
        let of_group = |filter: &FilterRole| filter.group.map(usize::from) == Some(group);
        let receivers = self.receivers.iter().enumerate();
        let members = receivers.filter_map(|(number, receiver)| {
            Some((number, receiver.filters.iter().position(of_group)?))
        });
        members.collect()
    }
}

impl FilterRole {
    /// Whether it matches the topic of a message.
    pub fn covers(&self, message: Message, topic: &TopicRole) -> bool {
        self.publisher == message.publisher
            && self.kept == topic.kept
            && self.group.is_some() == topic.shared
            && self.topic.is_none_or(|topic| topic == message.topic)
    }
}

fn topic_name(publisher: usize, topic: usize, tree: &str) -> String {
    format!("{tree}/{publisher}/{topic}")
}

fn publisher(number: usize, random: &mut Random) -> PublisherRole {
    let topics = (0..=SHARED_TOPIC).map(|topic| {
        let (kept, shared) = (topic == KEPT_TOPIC, topic == SHARED_TOPIC);
        let qos = match random.below(3) {
            0 => Some(1),
            1 => Some(2),
            _ if kept => Some(1),
            _ => None,
        };
        let tree = match topic {
            KEPT_TOPIC => KEPT,
            SHARED_TOPIC => SHARED,
            _ => PLAIN,
        };
        TopicRole { name: topic_name(number, topic, tree), kept, shared, qos }
    });
    let topics = topics.collect();
    PublisherRole { version: version(random), topics, window: random.between(2, 16) }
}

fn receiver(number: usize, publishers: &[PublisherRole], random: &mut Random) -> ReceiverRole {
    let temper = Temper::ALL[number % Temper::ALL.len()];
    // 3.1.1 cannot say when a session is to expire.
    let version = if temper == Temper::Expiring { Version::V5 } else { version(random) };
    let mark = FilterRole {
        text: topic_name(0, 0, PLAIN),
        qos: 1,
        publisher: 0,
        kept: false,
        group: None,
        topic: Some(0),
    };
    let mut filters = vec![mark];
    for publisher in 1..publishers.len() {
        if random.chance(45) {
            filters.extend(filters_for(publisher, version, random));
        }
    }
    if temper.keeps_its_session() && version == Version::V5 {
        for group in 0..GROUPS {
            if random.chance(60) {
                filters.push(member_filter(group, *random.pick(&[1, 2, 2])));
            }
        }
    }
    let receive_maximum = match version {
        Version::V311 => 0,
        Version::V5 => *random.pick(&[3, 10, 30, 100]),
    };
    ReceiverRole { version, temper, receive_maximum, filters }
}

/// All topics of a publisher, or one or two of them; the retained one too now and then, by
/// clients that can ask not to be sent the retained message itself.
fn filters_for(publisher: usize, version: Version, random: &mut Random) -> Vec<FilterRole> {
    let mut filters = Vec::new();
    let mut add = |topic: Option<usize>, kept: bool, random: &mut Random| {
        let name = topic_name(publisher, topic.unwrap_or(0), if kept { KEPT } else { PLAIN });
        let text = match topic {
            Some(_) => name,
            None => format!("{}+", name.trim_end_matches('0')),
        };
        filters.push(FilterRole {
            text,
            qos: *random.pick(&[1, 2, 2]),
            publisher: publisher as u16,
            kept,
            group: None,
            topic: topic.map(|topic| topic as u16),
        });
    };
    match random.below(3) {
        0 => add(None, false, random),
        1 => add(Some(random.below(3)), false, random),
        _ => {
            add(Some(0), false, random);
            add(Some(2), false, random);
        }
    }
    if version == Version::V5 && random.chance(50) {
        add(None, true, random);
    }
    filters
}

/// Group 0 shares what publisher 1 publishes, and so on.
fn member_filter(group: usize, qos: u8) -> FilterRole {
    let publisher = group + 1;
    FilterRole {
        text: format!("$share/g{group}/{}", topic_name(publisher, SHARED_TOPIC, SHARED)),
        qos,
        publisher: publisher as u16,
        kept: false,
        group: Some(group as u16),
        topic: Some(SHARED_TOPIC as u16),
    }
}

fn version(random: &mut Random) -> Version {
    if random.chance(40) { Version::V311 } else { Version::V5 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_receiver_has_two_filters_for_one_topic() {
        for seed in 0..200 {
            let cast = Cast::of_seed(seed, 6, 14);
            for receiver in &cast.receivers {
                for (number, publisher) in cast.publishers.iter().enumerate() {
                    for (topic, role) in publisher.topics.iter().enumerate() {
                        let (publisher, topic) = (number as u16, topic as u16);
                        let message = Message { publisher, topic, seq: 1 };
                        let filters = receiver.filters.iter();
                        let covering = filters.filter(|f| f.covers(message, role)).count();
                        assert!(covering <= 1, "seed {seed}: {receiver:?} {message}");
                    }
                }
            }
        }
    }

    #[test]
    fn groups_have_members_that_stay() {
        let mut several = 0;
        for seed in 0..200 {
            let cast = Cast::of_seed(seed, 6, 14);
            for group in 0..GROUPS {
                let members = cast.members(group);
                let stay = |(number, _): &(usize, usize)| {
                    cast.receivers[*number].temper.keeps_its_session()
                };
                assert!(members.iter().all(stay), "seed {seed}");
                several += usize::from(members.len() > 1);
            }
        }
        assert!(several > 300, "{several} of 400 groups have several members");
    }
}
