//! Who has left a group or channel of which the user's own list does not know yet.
//!
//! A membership is ended by the conversation's shard, which lets go of the user's devices at once; the
//! user's shard hears of it a little later. News of a join may still be on the way there, and must not
//! have the devices listen again.
//!
//! Only users who are connected are remembered, until their list has heard: users of other sites, whose
//! lists are kept there, and what is told again at a start leave nothing here.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use hoopoe_im::User;
use hoopoe_im::id::ConvKey;
use hoopoe_im::rows::UserConv;

/// The versions of memberships at their ends, until the lists know of them.
#[derive(Debug, Default)]
pub struct Departures {
    ended: DashMap<(User, ConvKey), u64>,
}

impl Departures {
    /// A membership is ended: `let_go` takes the devices off the conversation, and nothing that was
    /// told before puts them there again.
    pub fn left(&self, user: &User, conv: &ConvKey, version: u64, let_go: impl FnOnce()) {
        // Held meanwhile: who asks at the same time asks before or behind.
        let mut ended = self.ended.entry((user.clone(), conv.clone())).or_default();
        *ended = version.max(*ended);
        let_go();
    }

    /// The list knows of a row: what `follow` does about the devices, unless the row is older than
    /// the membership's end.
    pub fn listed<T>(
        &self,
        user: &User,
        conv: &ConvKey,
        row: &UserConv,
        follow: impl FnOnce() -> T,
    ) -> Option<T> {
        match self.ended.entry((user.clone(), conv.clone())) {
            Entry::Occupied(ended) if *ended.get() > row.version => None,
            Entry::Occupied(ended) => {
                let done = follow();
                ended.remove();
                Some(done)
            }
            Entry::Vacant(_held) => Some(follow()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_a_join_from_before_the_end_are_no_news() {
        let departures = Departures::default();
        let user = User { tenant: "default".into(), id: "dee".into() };
        let conv = ConvKey::channel("default", "news");
        let row = |version| UserConv { version, ..UserConv::default() };
        let listed = |version| departures.listed(&user, &conv, &row(version), || version);
        assert_eq!(listed(1), Some(1), "nobody has left");
        let mut gone = false;
        departures.left(&user, &conv, 4, || gone = true);
        assert!(gone);
        departures.left(&user, &conv, 2, || {});
        assert_eq!(listed(3), None, "the join that was ended");
        assert_eq!(listed(4), Some(4), "the end itself");
        assert_eq!(listed(3), Some(3), "known to the list: it is in order from here on");
        departures.left(&user, &conv, 6, || {});
        assert_eq!(listed(7), Some(7), "back again");
    }
}
