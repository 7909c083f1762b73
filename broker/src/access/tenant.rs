//! Tenants: isolated worlds of users and topics.
//!
//! A client of a tenant other than the default one uses topics as everybody does; inside the
//! broker they lie below `$t/{tenant}/`, where no filter of another tenant reaches and no
//! client can name them.

use std::sync::Arc;

use super::DEFAULT_TENANT;

/// The first level of all tenants' topics.
const SPACES: &str = "$t/";

/// Where a tenant's topics lie; `None` for the default tenant, whose topics are bare.
pub fn space_of(tenant: &str) -> Option<Arc<str>> {
    (tenant != DEFAULT_TENANT).then(|| [SPACES, tenant, "/"].concat().into())
}

/// True for topics and filters that only the broker itself may spell.
pub fn is_in_a_space(topic_or_filter: &str) -> bool {
    topic_or_filter.starts_with(SPACES)
}

/// A topic as a client sees it.
pub fn bare_topic(topic: &str) -> &str {
    let Some(rest) = topic.strip_prefix(SPACES) else { return topic };
    rest.split_once('/').map_or(topic, |(_, bare)| bare)
}

/// A client's filter as it is kept: below the space, the broker's own `$SYS` and the `im/` tree
/// excepted, which know tenants themselves.
pub fn spaced_filter(space: &str, filter: &str) -> String {
    if let Some(rest) = filter.strip_prefix("$share/")
        && let Some((group, bare)) = rest.split_once('/')
    {
        return ["$share/", group, "/", space, bare].concat();
    }
    if filter.starts_with('$') || hoopoe_im::is_reserved(filter) {
        return filter.to_owned();
    }
    [space, filter].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_tenants_topics_are_bare() {
        assert_eq!(space_of("default"), None);
        assert_eq!(space_of("acme").as_deref(), Some("$t/acme/"));
    }

    #[test]
    fn what_goes_into_a_space_comes_out_as_it_was() {
        for topic in ["a", "a/b", "/a", "a//b/"] {
            let spaced = ["$t/acme/", topic].concat();
            assert!(is_in_a_space(&spaced));
            assert_eq!(bare_topic(&spaced), topic);
            assert_eq!(bare_topic(topic), topic);
        }
        let filters = [
            ("#", "$t/acme/#"),
            ("+/b", "$t/acme/+/b"),
            ("$share/g/a/#", "$share/g/$t/acme/a/#"),
            ("$SYS/#", "$SYS/#"),
            ("im/me/#", "im/me/#"),
        ];
        for (filter, spaced) in filters {
            assert_eq!(spaced_filter("$t/acme/", filter), spaced);
        }
    }
}
