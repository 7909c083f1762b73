//! How far a device has come, by its own rows: read at every login, of hundreds of conversations,
//! for one look at each.

use std::ops::ControlFlow;

use hoopoe_store::StoreError;

use super::query::Query;
use crate::command::User;
use crate::id::ConvKey;
use crate::keys;
use crate::rows::read_number;

/// A device's cursors, in the order of their conversations as the user spells them.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    /// All the names, one behind the other.
    names: String,
    /// Where each name ends, and its cursor.
    rows: Vec<(usize, u64)>,
    /// Where the next one that is asked for is likely to be: behind the last.
    near: usize,
}

impl Cursors {
    fn push(&mut self, name: &str, cursor: u64) {
        self.names.push_str(name);
        self.rows.push((self.names.len(), cursor));
    }

    fn name(&self, at: usize) -> &str {
        let from = at.checked_sub(1).map_or(0, |before| self.rows[before].0);
        &self.names[from..self.rows[at].0]
    }

    /// The cursor in a conversation of the user; quickest in the order of the user's list.
    pub(crate) fn of(&mut self, conv: &ConvKey, user: &str) -> Option<u64> {
        if self.near >= self.rows.len() || !conv.is_wire(user, self.name(self.near)) {
            self.near = self.place(&conv.wire(user));
        }
        let (_, cursor) = *self.rows.get(self.near)?;
        conv.is_wire(user, self.name(self.near)).then(|| {
            self.near += 1;
            cursor
        })
    }

    /// Where a name stands, or would.
    fn place(&self, name: &str) -> usize {
        let (mut low, mut high) = (0, self.rows.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.name(middle) < name {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

impl Query {
    /// The cursors that a device has of its own.
    pub(crate) fn cursors(&self, user: &User, client: &str) -> Result<Cursors, StoreError> {
        let prefix = keys::cursor_prefix(&user.tenant, &user.id, client);
        let mut cursors = Cursors::default();
        self.names(&prefix, None, |wire, key, row| {
            cursors.push(wire, read_number(key, row)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(cursors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_found_in_order_and_out_of_it() {
        let group = |n: u64| ConvKey::group("default", &format!("g{n:02}"));
        let pair = |n: u64| ConvKey::pair("default", "mia", &format!("u{n:02}"));
        let mut cursors = Cursors::default();
        (0..50).filter(|n| n % 3 != 0).for_each(|n| cursors.push(&group(n).wire("mia"), n));
        (0..50).filter(|n| n % 3 != 0).for_each(|n| cursors.push(&pair(n).wire("mia"), 100 + n));
        for step in [1, 7, 49] {
            for n in (0..50).map(|n| n * step % 50) {
                let known = |cursor| (n % 3 != 0).then_some(cursor);
                assert_eq!(cursors.of(&group(n), "mia"), known(n), "{n}");
                assert_eq!(cursors.of(&pair(n), "mia"), known(100 + n), "{n}");
            }
        }
        assert_eq!(cursors.of(&ConvKey::group("default", "zz"), "mia"), None);
        assert_eq!(Cursors::default().of(&group(1), "mia"), None);
    }
}
