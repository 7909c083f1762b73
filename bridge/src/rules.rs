//! Which topics pass a link, and the names they have on either side.
//!
//! Owns the rules as they are asked: filters with prefixes, one list for each direction. The first
//! rule that fits decides, as in mosquitto.

use hoopoe_codec::{QoS, topic_matches};

use crate::settings::Rule;

/// One rule in one direction.
#[derive(Clone, Debug)]
struct Mapping {
    filter: String,
    /// Bytes of the prefix that goes.
    strip: usize,
    /// The prefix that comes.
    add: String,
    qos: QoS,
}

/// The rules of a link.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    outward: Vec<Mapping>,
    inward: Vec<Mapping>,
}

impl Rules {
    /// These rules.
    pub fn new(rules: &[Rule]) -> Rules {
        let mapping = |rule: &Rule, from: &str, to: &str| Mapping {
            filter: format!("{from}{}", rule.pattern),
            strip: from.len(),
            add: to.to_owned(),
            qos: rule.qos,
        };
        let mut split = Rules::default();
        for rule in rules {
            let (local, remote) = (&*rule.local_prefix, &*rule.remote_prefix);
            if rule.direction.goes_out() {
                split.outward.push(mapping(rule, local, remote));
            }
            if rule.direction.comes_in() {
                split.inward.push(mapping(rule, remote, local));
            }
        }
        split
    }

    /// What to subscribe to at the local broker.
    pub fn outward_filters(&self) -> Vec<(String, QoS)> {
        filters(&self.outward)
    }

    /// What to subscribe to at the remote broker.
    pub fn inward_filters(&self) -> Vec<(String, QoS)> {
        filters(&self.inward)
    }

    /// The remote name of a local topic, into `name`; false when no rule fits.
    pub fn outward(&self, topic: &str, name: &mut String) -> bool {
        map(&self.outward, topic, name)
    }

    /// The local name of a remote topic, into `name`; false when no rule fits.
    pub fn inward(&self, topic: &str, name: &mut String) -> bool {
        map(&self.inward, topic, name)
    }

    /// Whether some rule carries QoS 2 out.
    pub fn sends_exactly_once(&self) -> bool {
        self.outward.iter().any(|mapping| mapping.qos == QoS::ExactlyOnce)
    }
}

/// Each filter once, with the highest QoS asked for it.
fn filters(mappings: &[Mapping]) -> Vec<(String, QoS)> {
    let mut filters: Vec<(String, QoS)> = Vec::new();
    for mapping in mappings {
        match filters.iter_mut().find(|(filter, _)| *filter == mapping.filter) {
            Some((_, qos)) => *qos = mapping.qos.max(*qos),
            None => filters.push((mapping.filter.clone(), mapping.qos)),
        }
    }
    filters
}

fn map(mappings: &[Mapping], topic: &str, name: &mut String) -> bool {
    let Some(mapping) = mappings.iter().find(|mapping| topic_matches(&mapping.filter, topic))
    else {
        return false;
    };
    name.clear();
    name.push_str(&mapping.add);
    // `a/#` matches `a` too, which is shorter than the prefix `a/`.
    name.push_str(topic.get(mapping.strip..).unwrap_or_default());
    if topic.len() < mapping.strip {
        name.truncate(name.trim_end_matches('/').len());
    }
    !name.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Direction;

    fn rule(pattern: &str, direction: Direction, local: &str, remote: &str) -> Rule {
        Rule {
            pattern: pattern.to_owned(),
            direction,
            qos: QoS::AtLeastOnce,
            local_prefix: local.to_owned(),
            remote_prefix: remote.to_owned(),
        }
    }

    #[test]
    fn topics_change_their_prefixes() {
        let rules = Rules::new(&[
            rule("exact/one", Direction::Out, "", "elsewhere/"),
            rule("#", Direction::Both, "here/", "there/"),
            rule("plain/+", Direction::In, "", ""),
        ]);
        let mut name = String::new();
        for (topic, expected) in [
            ("exact/one", Some("elsewhere/exact/one")),
            ("here/a/b", Some("there/a/b")),
            ("here", Some("there")),
            ("plain/x", None),
        ] {
            let found = rules.outward(topic, &mut name).then_some(&*name);
            assert_eq!(found, expected, "{topic}");
        }
        for (topic, expected) in
            [("there/a", Some("here/a")), ("plain/x", Some("plain/x")), ("exact/one", None)]
        {
            let found = rules.inward(topic, &mut name).then_some(&*name);
            assert_eq!(found, expected, "{topic}");
        }
        let out: Vec<String> = rules.outward_filters().into_iter().map(|(f, _)| f).collect();
        assert_eq!(out, ["exact/one", "here/#"]);
    }
}
