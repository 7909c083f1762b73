//! Some of the properties of a block, kept where they lie.
//!
//! Notes the stretch from the first of them to the end of the last and how much of it they fill, so
//! that properties which lie together, as they nearly always do, are copied as one piece.

use crate::property::{PropertyId, PropertyReader};
use crate::wire::Sink;

/// The properties that a decoder picked from a block.
#[derive(Clone, Copy, Default)]
pub(crate) struct Selection<'a> {
    /// From the first property picked to the end of the last one; valid properties throughout.
    bytes: &'a [u8],
    /// Where `bytes` begins in the block.
    start: u32,
    /// How many of the bytes belong to properties picked.
    picked: u32,
}

impl<'a> Selection<'a> {
    pub(crate) const NONE: Selection<'static> = Selection { bytes: &[], start: 0, picked: 0 };

    /// All of these properties.
    pub(crate) const fn all(bytes: &'a [u8]) -> Selection<'a> {
        Selection { bytes, start: 0, picked: bytes.len() as u32 }
    }

    /// Picks the property a walk over the block has just read.
    pub(crate) fn add(&mut self, block: &PropertyReader<'a>) {
        if self.is_empty() {
            self.start = block.start() as u32;
        }
        self.bytes = &block.block()[self.start as usize..block.offset()];
        self.picked += (block.offset() - block.start()) as u32;
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes of the properties picked, if nothing lies between them.
    pub(crate) fn in_one_piece(&self) -> Option<&'a [u8]> {
        (self.bytes.len() == self.picked as usize).then_some(self.bytes)
    }

    /// A walk over the properties picked and those between them.
    pub(crate) const fn walk(&self) -> PropertyReader<'a> {
        PropertyReader::over(self.bytes)
    }

    /// Writes the properties picked, which are those `wanted`.
    #[inline]
    pub(crate) fn write<S: Sink>(&self, wanted: impl Fn(PropertyId) -> bool, out: &mut S) {
        match self.in_one_piece() {
            Some(bytes) => out.put(bytes),
            None => self.write_pieces(wanted, out),
        }
    }

    fn write_pieces<S: Sink>(&self, wanted: impl Fn(PropertyId) -> bool, out: &mut S) {
        let mut walk = self.walk();
        // The bytes were checked when they were picked, so that no fault can come up.
        while let Ok(Some(id)) = walk.advance() {
            if walk.skip().is_err() {
                break;
            }
            if wanted(id) {
                out.put(&self.bytes[walk.start()..walk.offset()]);
            }
        }
    }
}
