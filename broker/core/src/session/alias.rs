//! Topic aliases, both ways ([MQTT-3.3.2-8] to [MQTT-3.3.2-12]). They live with the connection.

use std::collections::HashMap;

/// Aliases that the client set.
#[derive(Debug, Default)]
pub struct InboundAliases {
    topics: HashMap<u16, Box<str>, foldhash::fast::RandomState>,
}

impl InboundAliases {
    /// Remembers (or replaces) the topic of an alias; the caller has checked the maximum.
    pub fn set(&mut self, alias: u16, topic: &str) {
        self.topics.insert(alias, topic.into());
    }

    /// The topic of an alias.
    pub fn topic(&self, alias: u16) -> Option<&str> {
        self.topics.get(&alias).map(|topic| &**topic)
    }
}

/// Aliases towards the client: the first topics get one, as many as the client takes. A client
/// that subscribes to few topics profits from that; one with many is not hurt by churn.
#[derive(Debug)]
pub struct OutboundAliases {
    maximum: u16,
    aliases: HashMap<Box<str>, u16, foldhash::fast::RandomState>,
}

/// How to send a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Alias {
    /// Topic alone.
    None,
    /// Topic and alias: the client learns it.
    Learn(u16),
    /// Alias alone.
    Known(u16),
}

/// More aliases than this are not used even if the client offers them: they cost memory on both
/// sides.
const MOST_ALIASES: u16 = 64;

impl OutboundAliases {
    /// The client's Topic Alias Maximum.
    pub fn new(maximum: u16) -> OutboundAliases {
        OutboundAliases { maximum: maximum.min(MOST_ALIASES), aliases: HashMap::default() }
    }

    /// How to send `topic`, if it were sent now. Nothing is remembered yet.
    pub fn look(&self, topic: &str) -> Alias {
        if self.maximum == 0 {
            return Alias::None;
        }
        match self.aliases.get(topic) {
            Some(&alias) => Alias::Known(alias),
            None if self.aliases.len() < usize::from(self.maximum) => {
                Alias::Learn(self.aliases.len() as u16 + 1)
            }
            None => Alias::None,
        }
    }

    /// `topic` goes out with the alias that [`look`](Self::look) said to learn.
    pub fn learn(&mut self, topic: &str, alias: u16) {
        self.aliases.insert(topic.into(), alias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_topics_get_the_aliases() {
        let mut aliases = OutboundAliases::new(1);
        assert_eq!(aliases.look("a"), Alias::Learn(1));
        aliases.learn("a", 1);
        assert_eq!(aliases.look("a"), Alias::Known(1));
        assert_eq!(aliases.look("b"), Alias::None);
        assert_eq!(OutboundAliases::new(0).look("a"), Alias::None);
    }

    #[test]
    fn an_inbound_alias_can_be_set_anew() {
        let mut aliases = InboundAliases::default();
        assert_eq!(aliases.topic(1), None);
        aliases.set(1, "a");
        aliases.set(1, "b");
        assert_eq!(aliases.topic(1), Some("b"));
    }
}
