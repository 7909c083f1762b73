//! A connection as a device of an IM user: what it publishes below `im/`, and what it gets.
//!
//! The rules are steps of `hoopoe-im`; here they are fed with packets and letters. Stored entries
//! pass through the session's window like any message, by (stream, seq): what waits for room is a
//! position in the device's step, never bytes.

mod attach;
mod deliver;
mod exactly;
mod presence;
mod publish;
mod reading;
mod recall;
mod service;
mod site;
mod subscribe;

use foldhash::HashMap;
use hoopoe_codec::{SubscribeOptions, Version};
use hoopoe_core::Slot;
use hoopoe_core::seldom::Seldom;
use hoopoe_im::command::Command;
use hoopoe_im::device::Device;
use hoopoe_im::id::is_id;
use hoopoe_im::user::pace::Pace;
use hoopoe_im::{Asker, User};

use exactly::Exchanges;
pub use publish::ImOwed;
use reading::Pages;
use service::Waiting;
pub(in crate::connection) use site::site_link_hears;

use super::room::Memberships;
use crate::access::Identity;

/// A connected device.
#[derive(Debug)]
pub struct ImDevice {
    /// Whose it is.
    pub user: User,
    /// How far it has come in each conversation.
    step: Device,
    /// Entries that have been read and wait for room.
    pages: Pages,
    /// A message was recalled or burnt in the conversation that is being read: the page that
    /// comes may still have its body.
    outdated: bool,
    /// Its own filters below `im/me/`.
    filters: Seldom<Vec<InboxFilter>>,
    /// Service calls that have not been answered, by the token of their acknowledgement.
    calls: Option<Box<HashMap<u64, Waiting>>>,
    /// Its QoS 2 deliveries that are recorded.
    exchanges: Exchanges,
    /// Its cursors have moved since the last report.
    moved: bool,
    /// What it has said before its list was read; no more than the answers it may be owed.
    unsaid: Seldom<Vec<(Slot, Command, Asker)>>,
    /// What it may be sent of big groups and channels; none before the first of it.
    budget: Option<Box<Pace>>,
    /// Live rooms it is in.
    pub rooms: Memberships,
}

// What an idle one takes; jemalloc has 320 bytes for anything above.
const _: () = assert!(size_of::<ImDevice>() <= 256);

/// A filter below `im/me/` that the client has subscribed to itself (ruling 28).
#[derive(Debug)]
struct InboxFilter {
    filter: Box<str>,
    options: SubscribeOptions,
    identifier: u32,
}

impl ImDevice {
    /// The client has acknowledged an entry.
    pub fn acknowledged(&mut self, stream: u32, seq: u64) {
        self.step.acknowledged(stream, seq, true);
    }

    fn new(user: User) -> ImDevice {
        ImDevice {
            user,
            step: Device::new(),
            pages: Pages::default(),
            outdated: false,
            filters: Seldom::default(),
            calls: None,
            exchanges: Exchanges::default(),
            moved: false,
            unsaid: Seldom::default(),
            budget: None,
            rooms: Memberships::default(),
        }
    }
}

/// Whether a client is a device of an IM user (ruling 19).
pub fn is_im_user(identity: &Identity, client: &str, listener_offers_im: bool) -> bool {
    listener_offers_im && is_id(&identity.user) && is_id(client) && is_id(&identity.tenant)
}

/// Whether the answer to a publication is told by `sent` and `err` instead of by the
/// acknowledgement's properties.
fn told_by_notice(version: Version, problem_information: bool) -> bool {
    version == Version::V311 || !problem_information
}
