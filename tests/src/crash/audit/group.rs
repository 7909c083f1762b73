//! What the members of a group have been sent, together.

use std::collections::HashMap;

use super::receiver::{Delivery, Receiver};
use super::{Crashes, Publication};
use crate::crash::message::{Attempt, Message};

/// One group. Its members subscribe for good.
#[derive(Debug)]
pub(super) struct Group {
    /// Receivers, each with the number of the filter that makes it a member.
    pub(super) members: Vec<(usize, usize)>,
    /// Messages given to any member, with the attempt that came first.
    seen: HashMap<Message, u16>,
    /// Who was given a message with QoS 2.
    exact: HashMap<Message, usize>,
    /// Who was given an attempt last.
    holders: HashMap<Attempt, usize>,
}

impl Group {
    pub(super) fn new(members: Vec<(usize, usize)>) -> Group {
        Group { members, seen: HashMap::new(), exact: HashMap::new(), holders: HashMap::new() }
    }

    /// Since when somebody has surely been a member.
    pub(super) fn certain_since(&self, receivers: &[Receiver]) -> Option<usize> {
        let windows =
            self.members.iter().map(|(member, filter)| &receivers[*member].windows[*filter]);
        windows.filter_map(|window| window.certain_since()).min()
    }

    pub(super) fn has(&self, receivers: &[Receiver], message: Message) -> bool {
        self.members.iter().any(|(member, _)| receivers[*member].has(message))
    }

    /// After the receiver itself has judged what concerns it alone.
    pub(super) fn delivered(
        &mut self,
        receivers: &[Receiver],
        to: usize,
        delivery: &Delivery,
        publication: &Publication,
        crashes: &Crashes<'_>,
    ) -> Result<(), String> {
        let Attempt { message, number } = delivery.attempt;
        let until = publication.acked.unwrap_or(usize::MAX);
        let may_match = |(member, filter): &(usize, usize)| {
            receivers[*member].windows[*filter].may_match(delivery.sent, until)
        };
        if !self.members.iter().any(may_match) {
            return Err("delivered, but nobody was in the group when it was published".to_owned());
        }
        let first = *self.seen.entry(message).or_insert(number);
        if publication.qos == 2 && first != number {
            return Err(format!("QoS 2, but the group was given attempt {first} too"));
        }
        if let Some(other) = self.exact.get(&message).filter(|other| **other != to) {
            return Err(format!("another member was given it with QoS 2: r{other}"));
        }
        if delivery.qos == 2 {
            self.exact.insert(message, to);
        }
        let before = self.holders.insert(delivery.attempt, to).filter(|before| *before != to);
        if let Some(before) = before
            && let Some(why) = receivers[before].settled_for_others(delivery.attempt, crashes)
        {
            return Err(format!("another member had acknowledged it: r{before}, {why}"));
        }
        Ok(())
    }
}
