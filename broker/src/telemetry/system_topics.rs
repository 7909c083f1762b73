//! The present values of `$SYS`: what a new subscriber gets as retained messages.
//!
//! Owned by the node, in memory only: after a restart they are composed anew. Not here: which
//! topics there are and what they say.

use std::collections::BTreeMap;
use std::sync::Arc;

use hoopoe_codec::{QoS, topic_matches};
use hoopoe_core::Publication;
use hoopoe_core::publication::PublicationParts;
use parking_lot::RwLock;

/// The values of `$SYS`, retained in memory only.
#[derive(Debug, Default)]
pub struct SystemTopics {
    values: RwLock<BTreeMap<Box<str>, Arc<Publication>>>,
}

impl SystemTopics {
    /// Replaces a value.
    pub fn put(&self, publication: Arc<Publication>) {
        self.values.write().insert(publication.topic().into(), publication);
    }

    /// Sets the value of a topic; its publication when that is another value than before.
    pub fn update(&self, topic: &str, value: &str) -> Option<Arc<Publication>> {
        if let Some(present) = self.values.read().get(topic)
            && present.payload() == value.as_bytes()
        {
            return None;
        }
        let parts = PublicationParts {
            topic,
            properties: &[],
            payload: value.as_bytes(),
            qos: QoS::AtMostOnce,
            retain: true,
            expires_at_ms: None,
        };
        let publication = Arc::new(parts.to_publication());
        self.put(publication.clone());
        Some(publication)
    }

    /// The values that a filter matches.
    pub fn matching(&self, filter: &str) -> Vec<Arc<Publication>> {
        let values = self.values.read();
        let matching = values.iter().filter(|(topic, _)| topic_matches(filter, topic));
        matching.map(|(_, publication)| publication.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_changed_value_is_news() {
        let topics = SystemTopics::default();
        let first = topics.update("$SYS/broker/clients/total", "1").unwrap();
        assert_eq!((first.topic(), first.payload()), ("$SYS/broker/clients/total", &b"1"[..]));
        assert!(first.retain);
        assert_eq!(topics.update("$SYS/broker/clients/total", "1"), None);
        assert!(topics.update("$SYS/broker/clients/total", "2").is_some());
        let found = topics.matching("$SYS/broker/clients/+");
        assert_eq!(found.iter().map(|value| value.payload()).collect::<Vec<_>>(), [b"2"]);
    }
}
