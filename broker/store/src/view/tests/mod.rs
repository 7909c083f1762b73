//! The shard step, over the memory twin and over RocksDB alike.

mod asleep;
mod faults;
#[cfg(feature = "rocksdb")]
mod fixtures;
mod groups;
mod hoards;
mod leaving;
mod model;
mod publications;
mod qos2;
mod rig;
mod sessions;
mod wills;

/// Each case becomes two tests: over the memory twin and over RocksDB.
macro_rules! over_both {
    ($($(#[$doc:meta])* fn $name:ident($rig:ident) $body:block)*) => {
        $(
            $(#[$doc])*
            mod $name {
                #[allow(unused_imports, reason = "not every case needs every word")]
                use super::*;

                fn case($rig: &mut Rig) $body

                #[test]
                fn in_memory() {
                    case(&mut Rig::memory());
                }

                #[cfg(feature = "rocksdb")]
                #[test]
                fn on_rocksdb() {
                    case(&mut Rig::rocksdb());
                }
            }
        )*
    };
}
pub(super) use over_both;
