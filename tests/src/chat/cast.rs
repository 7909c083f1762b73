//! Who takes part: users, their devices, and the conversations between them.

use crate::Version;
use crate::crash::random::Random;

/// What a device is like, for a whole run.
#[derive(Clone, Debug)]
pub struct DeviceRole {
    /// Client identifier.
    pub name: String,
    /// Whose it is, among the users.
    pub user: usize,
    /// Protocol version.
    pub version: Version,
    /// Its session outlives its connections.
    pub stored: bool,
    /// It subscribes to its inbox with QoS 2.
    pub exactly_once: bool,
    /// Messages it takes at once (5.0).
    pub receive_maximum: u16,
    /// How many of a hundred chances to answer it takes.
    pub diligence: usize,
}

/// A conversation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Conv {
    /// Of two users.
    Pair(usize, usize),
    /// Of a user with itself.
    Notes(usize),
    /// A group that anyone may join.
    Group {
        /// Its id.
        id: String,
        /// Its owner, who never leaves.
        owner: usize,
        /// Members at the beginning, besides the owner.
        members: Vec<usize>,
        /// Who joins sees everything.
        shows_all: bool,
    },
    /// A channel that anyone may follow.
    Channel {
        /// Its id.
        id: String,
        /// Its owner.
        owner: usize,
        /// Who posts besides the owner.
        publishers: Vec<usize>,
    },
}

impl Conv {
    /// Who made it, of a group or channel.
    pub fn owner(&self) -> Option<usize> {
        match self {
            Conv::Group { owner, .. } | Conv::Channel { owner, .. } => Some(*owner),
            Conv::Pair(..) | Conv::Notes(_) => None,
        }
    }

    /// Whether it is a channel in which this user posts.
    pub fn is_publisher(&self, user: usize) -> bool {
        match self {
            Conv::Channel { owner, publishers, .. } => *owner == user || publishers.contains(&user),
            _ => false,
        }
    }
}

/// Everybody, and all they talk in.
#[derive(Clone, Debug)]
pub struct Cast {
    /// User names.
    pub users: Vec<String>,
    /// Devices; those of one user stand together.
    pub devices: Vec<DeviceRole>,
    /// Conversations.
    pub convs: Vec<Conv>,
}

const NAMES: [&str; 6] = ["ann", "bob", "cy", "dee", "eve", "fay"];
const CLASSES: [&str; 4] = ["ios", "web", "pad", "pc"];

impl Cast {
    /// The cast of a seed, with so many users.
    pub fn of_seed(seed: u64, users: usize) -> Cast {
        let mut random = Random::of_part(seed, 77);
        let users = users.clamp(2, NAMES.len());
        let mut devices = Vec::new();
        for user in 0..users {
            let classes = CLASSES.iter().take(random.between(1, 3));
            for (number, class) in classes.enumerate() {
                let version = if random.chance(50) { Version::V5 } else { Version::V311 };
                devices.push(DeviceRole {
                    name: format!("{class}-{number}"),
                    user,
                    version,
                    stored: random.chance(70),
                    exactly_once: random.chance(15),
                    receive_maximum: random.between(1, 15) as u16,
                    diligence: *random.pick(&[25, 60, 95]),
                });
            }
        }
        let group = |id: &str, owner, members: &[usize], shows_all| Conv::Group {
            id: id.to_owned(),
            owner,
            members: members.iter().copied().filter(|member| *member < users).collect(),
            shows_all,
        };
        let mut convs = vec![
            Conv::Pair(0, 1),
            group("team", 0, &[1, 2], false),
            group("club", 1, &[0], true),
            Conv::Notes(0),
            Conv::Channel { id: "news".to_owned(), owner: 1, publishers: vec![0] },
        ];
        convs.extend((2..users).map(|user| Conv::Pair(user - 2, user)));
        Cast { users: NAMES[..users].iter().map(ToString::to_string).collect(), devices, convs }
    }

    /// How a user spells a conversation; nothing where it is not the user's.
    pub fn wire(&self, conv: usize, user: usize) -> Option<String> {
        match &self.convs[conv] {
            Conv::Pair(low, high) if *low == user => Some(format!("u/{}", self.users[*high])),
            Conv::Pair(low, high) if *high == user => Some(format!("u/{}", self.users[*low])),
            Conv::Notes(of) if *of == user => Some(format!("u/{}", self.users[user])),
            Conv::Pair(..) | Conv::Notes(_) => None,
            Conv::Group { id, .. } => Some(format!("g/{id}")),
            Conv::Channel { id, .. } => Some(format!("c/{id}")),
        }
    }

    /// The conversation that a user spells so.
    pub fn conv_of(&self, user: usize, wire: &str) -> Option<usize> {
        (0..self.convs.len()).find(|conv| self.wire(*conv, user).is_some_and(|of| of == wire))
    }

    /// The user of that name.
    pub fn user_of(&self, name: &str) -> Option<usize> {
        self.users.iter().position(|user| user == name)
    }

    /// The other user of a pair.
    pub fn peer(&self, conv: usize, user: usize) -> Option<usize> {
        match self.convs[conv] {
            Conv::Pair(low, high) if low == user => Some(high),
            Conv::Pair(low, high) if high == user => Some(low),
            _ => None,
        }
    }

    /// The devices of a user.
    pub fn devices_of(&self, user: usize) -> impl Iterator<Item = usize> {
        let of_user = move |(_, role): &(usize, &DeviceRole)| role.user == user;
        self.devices.iter().enumerate().filter(of_user).map(|(number, _)| number)
    }
}
