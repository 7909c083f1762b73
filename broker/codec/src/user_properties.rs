//! User properties: the pairs of text any packet of MQTT 5 may carry, read in place, and the small
//! owned block from which a sender takes them.

use std::fmt;

use crate::fault::Fault;
use crate::property::{PropertyId, PropertyReader, PropertySink};
use crate::selection::Selection;
use crate::version::Version;
use crate::wire::{Sink, Wire};

/// The user properties of a packet, in their order, as a view into its property block.
///
/// Copying it copies a slice; every walk reads the block again.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    pairs: Selection<'a>,
}

impl<'a> UserProperties<'a> {
    /// No user properties.
    pub const NONE: UserProperties<'static> = UserProperties { pairs: Selection::NONE };

    /// Reads the user property a walk over a block stands at.
    pub(crate) fn take(&mut self, block: &mut PropertyReader<'a>) -> Result<(), Fault> {
        block.text_pair()?;
        self.pairs.add(block);
        Ok(())
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Names and values, in the order they were sent.
    pub fn iter(&self) -> UserPropertyIter<'a> {
        UserPropertyIter { rest: self.pairs.walk() }
    }

    /// The value of the first property with this name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertyIter<'a>;

    fn into_iter(self) -> UserPropertyIter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertyIter<'a>;

    fn into_iter(self) -> UserPropertyIter<'a> {
        self.iter()
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &UserProperties<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Wire for UserProperties<'_> {
    #[inline]
    fn write<S: Sink>(&self, _version: Version, out: &mut S) {
        self.pairs.write(|id| id == PropertyId::UserProperty, out);
    }
}

/// A walk over the user properties of a packet.
pub struct UserPropertyIter<'a> {
    rest: PropertyReader<'a>,
}

impl<'a> Iterator for UserPropertyIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        // The block was checked when it was decoded or built, so that a fault cannot come up; if
        // it did, the walk would end there.
        while let Ok(Some(id)) = self.rest.advance() {
            if id == PropertyId::UserProperty {
                return self.rest.text_pair().ok();
            }
            self.rest.skip().ok()?;
        }
        None
    }
}

/// User properties to be sent, owned.
///
/// ```
/// use hoopoe_codec::PropertyBlock;
///
/// let block = PropertyBlock::new().with("im-seq", "17").with("im-id", "a1");
/// assert_eq!(block.user_properties().get("im-seq"), Some("17"));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyBlock {
    wire: Vec<u8>,
}

impl PropertyBlock {
    /// An empty block.
    pub const fn new() -> PropertyBlock {
        PropertyBlock { wire: Vec::new() }
    }

    /// Appends a user property. U+0000 cannot be sent [MQTT-1.5.4-2] and is left out of the text.
    pub fn push(&mut self, name: &str, value: &str) {
        if name.contains('\0') || value.contains('\0') {
            self.wire.text_pair_property(&name.replace('\0', ""), &value.replace('\0', ""));
        } else {
            self.wire.text_pair_property(name, value);
        }
    }

    /// The block with one user property more.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> PropertyBlock {
        self.push(name, value);
        self
    }

    /// Forgets the properties and keeps the memory.
    pub fn clear(&mut self) {
        self.wire.clear();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    /// The properties, to put in a packet.
    pub fn user_properties(&self) -> UserProperties<'_> {
        UserProperties { pairs: Selection::all(&self.wire) }
    }

    /// The properties in wire form without the length in front: they can be appended to a block
    /// from [`forwardable`](crate::PublishProperties::forwardable).
    pub fn as_bytes(&self) -> &[u8] {
        &self.wire
    }
}

impl<'p> FromIterator<(&'p str, &'p str)> for PropertyBlock {
    fn from_iter<I: IntoIterator<Item = (&'p str, &'p str)>>(pairs: I) -> PropertyBlock {
        let mut block = PropertyBlock::new();
        for (name, value) in pairs {
            block.push(name, value);
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_gives_its_properties_back_in_order() {
        let pairs = [("a", "1"), ("b", ""), ("a", "2"), ("", "ü")];
        let block: PropertyBlock = pairs.into_iter().collect();
        assert!(block.user_properties().iter().eq(pairs));
        assert_eq!(block.user_properties().get("a"), Some("1"));
        assert_eq!(block.user_properties().get("c"), None);
        assert_eq!(UserProperties::NONE, PropertyBlock::new().user_properties());
    }

    #[test]
    fn a_null_character_is_not_sent() {
        let block = PropertyBlock::new().with("a\0b", "\0");
        assert!(block.user_properties().iter().eq([("ab", "")]));
    }
}
