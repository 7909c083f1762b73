//! What the home of a conversation tells the sites whose users belong to it: entries, one copy per
//! site, and the few rows that replicas read.
//!
//! A pair's sites follow from its users; for groups and channels the home counts the members of
//! each site in a row, written when the first of them comes and the last goes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hoopoe_store::kv::Family;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::wire::{Body, Frame, Signal};
use crate::command::{Forward, Listed, SendSignal, User};
use crate::entry::Entry;
use crate::group::MemberRow;
use crate::id::ConvKey;
use crate::keys::{self, conv_kind};
use crate::refusal::Fault;
use crate::shard::Work;

/// Entries that a new replica gets of what was before it.
const REPLICA_MAX: u64 = 1_000;

/// Other sites with members.
type SiteList = SmallVec<[Arc<str>; 2]>;

/// The members of a conversation at another site.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
struct Presence {
    members: u64,
    /// Everything up to here was sent there, while it has no members.
    through: u64,
}

impl Work<'_> {
    /// Whether a user lives at another site.
    pub(crate) fn lives_elsewhere(&self, user: &User) -> bool {
        self.settings.sites.as_ref().is_some_and(|sites| sites.elsewhere(user).is_some())
    }

    fn site_of(&self, tenant: &str, user: &str) -> Option<Arc<str>> {
        let sites = self.settings.sites.as_ref()?;
        Some(sites.home_of_user(tenant, user)).filter(|site| **site != sites.id).cloned()
    }

    /// The site that a step of a shard is for, when it is not this one.
    pub(crate) fn forward_home(&self, forward: &Forward) -> Option<Arc<str>> {
        let sites = self.settings.sites.as_ref()?;
        let home = match forward {
            Forward::Listed(Listed { tenant, user, .. })
            | Forward::Mentioned { tenant, user, .. }
            | Forward::OwnSend { tenant, user, .. } => sites.home_of_user(tenant, user),
            Forward::Cursors { conv, .. }
            | Forward::Pair { conv, .. }
            | Forward::Erase { conv, .. } => sites.home_of(conv),
            Forward::Roster(step) => sites.home_of_user(&step.tenant, &step.to),
            Forward::Watch(step) => {
                sites.home_of_user(&step.tenant, step.users.first().map_or("", |user| user))
            }
        };
        (*home != sites.id).then(|| home.clone())
    }

    /// A step of a shard for something that lives at another site.
    pub(crate) fn forward_to_site(
        &mut self,
        home: Arc<str>,
        forward: Forward,
    ) -> Result<(), Fault> {
        match &forward {
            // The replica finds both in the entry.
            Forward::OwnSend { .. } | Forward::Mentioned { .. } => return Ok(()),
            // Presence is not told between sites.
            Forward::Watch(_) => return Ok(()),
            // Judged at the home, and known here as soon as the user has said it.
            Forward::Pair { conv, user, blocks, friends } => {
                self.pair_changed(conv, user, *blocks, *friends)?;
            }
            // Of what the user said, each of the two sites erases what it holds.
            Forward::Erase { conv, user } => self.erase_here(conv, user)?,
            _ => {}
        }
        let line = (forward.slot().get(), home);
        self.owe_site(line, &Body::Forward(Box::new(forward)))?;
        Ok(())
    }

    /// The other sites with members of a conversation that lives here.
    fn spread_sites(&mut self, conv: &ConvKey) -> Result<SiteList, Fault> {
        let Some((low, high)) = conv.pair_users() else {
            let presence = self.presence_of_sites(conv)?.into_iter();
            let present = presence.filter(|(_, there)| there.members > 0);
            return Ok(present.map(|(site, _)| site).collect());
        };
        let mut found: SiteList =
            [low, high].into_iter().filter_map(|user| self.site_of(conv.tenant(), user)).collect();
        found.dedup();
        Ok(found)
    }

    fn presence_of_sites(&mut self, conv: &ConvKey) -> Result<BTreeMap<Arc<str>, Presence>, Fault> {
        Ok(self.txn.json(&keys::conv(conv, conv_kind::SITES))?.unwrap_or_default())
    }

    /// An entry that was just stored goes to the other sites.
    pub(crate) fn spread_entry(&mut self, entry: &Entry, loud: bool) -> Result<(), Fault> {
        if self.settings.sites.is_none() {
            return Ok(());
        }
        for site in self.spread_sites(&entry.conv)? {
            self.spread_entry_to(site, entry, loud)?;
        }
        Ok(())
    }

    fn spread_entry_to(&mut self, site: Arc<str>, entry: &Entry, loud: bool) -> Result<(), Fault> {
        let conv = &entry.conv;
        let mut row = Vec::new();
        entry.encode(&mut row);
        let big = self.memory.big.contains(conv);
        let (conv, seq, row) = (conv.clone(), entry.seq, row.into());
        let line = (conv.slot().get(), site);
        self.owe_site(line, &Body::Entry { conv, seq, loud, big, row })?;
        Ok(())
    }

    /// A row of a conversation has changed: replicas get it.
    pub(crate) fn spread_row(&mut self, conv: &ConvKey, kind: u8) -> Result<(), Fault> {
        if self.settings.sites.is_none() || self.foreign_home(conv).is_some() {
            return Ok(());
        }
        let Some(value) = self.txn.get(Family::Im, &keys::conv(conv, kind))? else {
            return Ok(());
        };
        for site in self.spread_sites(conv)? {
            self.spread_row_to(site, conv, kind, "", value.clone())?;
        }
        Ok(())
    }

    fn spread_row_to(
        &mut self,
        site: Arc<str>,
        conv: &ConvKey,
        kind: u8,
        name: &str,
        value: Bytes,
    ) -> Result<(), Fault> {
        let line = (conv.slot().get(), site);
        let body = Body::Row { conv: conv.clone(), kind, name: name.to_owned(), value };
        self.owe_site(line, &body)?;
        Ok(())
    }

    /// A member's row changes. With the first member of a site its replica begins, with the last
    /// it ends. Comes before the row is written.
    pub(crate) fn spread_member(
        &mut self,
        conv: &ConvKey,
        user: &str,
        now: &MemberRow,
    ) -> Result<(), Fault> {
        let Some(site) = self.site_of(conv.tenant(), user) else { return Ok(()) };
        if self.foreign_home(conv).is_some() {
            return Ok(());
        }
        let was_current = self.current_member(conv, user)?.is_some();
        if now.is_current() != was_current {
            let head = self.head(conv)?;
            let mut sites = self.presence_of_sites(conv)?;
            let there = sites.entry(site.clone()).or_default();
            let begins = now.is_current() && there.members == 0;
            there.members =
                if now.is_current() { there.members + 1 } else { there.members.saturating_sub(1) };
            let through = there.through;
            if there.members == 0 {
                there.through = head.last;
            }
            self.txn.put_json(&keys::conv(conv, conv_kind::SITES), &sites);
            if begins {
                let from = now.intervals.last().map_or(1, |interval| interval.from);
                self.begin_replica(&site, conv, from.max(through + 1).max(head.min), head.last)?;
            }
        }
        let row = crate::txn::json_row(now).into();
        self.spread_row_to(site, conv, conv_kind::MEMBER, user, row)
    }

    /// A site gets what its first member may see.
    fn begin_replica(
        &mut self,
        site: &Arc<str>,
        conv: &ConvKey,
        from: u64,
        to: u64,
    ) -> Result<(), Fault> {
        for kind in [conv_kind::GROUP, conv_kind::CHANNEL] {
            if let Some(value) = self.txn.get(Family::Im, &keys::conv(conv, kind))? {
                self.spread_row_to(site.clone(), conv, kind, "", value)?;
            }
        }
        for seq in from.max((to + 1).saturating_sub(REPLICA_MAX))..=to {
            let Some(entry) = self.entry(conv, seq)? else { continue };
            self.spread_entry_to(site.clone(), &entry, true)?;
        }
        Ok(())
    }

    /// A signal that was judged here goes to the other sites. `origin`: the site and connection it
    /// came from, when that is another.
    pub(crate) fn spread_signal(
        &mut self,
        signal: &SendSignal,
        origin: Option<(Arc<str>, u64)>,
    ) -> Result<(), Fault> {
        let Some(sites) = self.settings.sites.clone() else { return Ok(()) };
        let (site, location) =
            origin.unwrap_or_else(|| (sites.id.clone(), signal.location.to_bits()));
        for to in self.spread_sites(&signal.conv)? {
            let frame = signal_frame(signal, true, site.clone(), location);
            self.say(to, &frame);
        }
        Ok(())
    }

    /// A signal for a conversation that lives at another site.
    pub(crate) fn ask_signal(&mut self, home: Arc<str>, signal: &SendSignal) {
        let Some(sites) = self.settings.sites.clone() else { return };
        let frame = signal_frame(signal, false, sites.id.clone(), signal.location.to_bits());
        self.say(home, &frame);
    }
}

fn signal_frame(signal: &SendSignal, judged: bool, site: Arc<str>, location: u64) -> Frame {
    Frame::Signal(Signal {
        conv: signal.conv.clone(),
        from: signal.from.id.clone(),
        judged,
        site,
        location,
        kind: signal.kind.clone(),
        properties: signal.properties.clone(),
        payload: signal.payload.clone(),
    })
}
