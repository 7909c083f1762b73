//! What the owner of a pair's conversation knows of the two users' rosters (ruling 26).

use crate::id::ConvKey;
use crate::keys::{self, conv_kind};
use crate::refusal::Fault;
use crate::rows::PairRow;
use crate::shard::Work;

impl Work<'_> {
    /// One of the two has blocked the other or not; both are friends or not.
    pub(crate) fn pair_changed(
        &mut self,
        conv: &ConvKey,
        user: &str,
        blocks: bool,
        friends: Option<bool>,
    ) -> Result<(), Fault> {
        let key = keys::conv(conv, conv_kind::PAIR);
        let mut pair: PairRow = self.txn.json(&key)?.unwrap_or_default();
        // Each side says only what its own roster says; news of one side come in order.
        if conv.pair_users().is_some_and(|(low, _)| low == user) {
            pair.low_blocks = blocks;
            pair.low_agrees = friends.unwrap_or(pair.low_agrees);
        } else {
            pair.high_blocks = blocks;
            pair.high_agrees = friends.unwrap_or(pair.high_agrees);
        }
        pair.friends = pair.low_agrees && pair.high_agrees;
        self.txn.put_json(&key, &pair);
        self.spread_row(conv, conv_kind::PAIR)?;
        self.tell_rights(conv);
        Ok(())
    }
}
