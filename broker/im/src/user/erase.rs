//! A user is erased: what is kept of the user outside the user's own rows.
//!
//! Each conversation of the user is told by the outbox. There the user leaves, and what the user
//! said loses its content in the background, some entries at a time: messages become `void`
//! (reason `erased`), edits and reactions empty. A row per conversation says how far that has
//! come, so that a restart goes on. Seqs, times and the user's id stay: others' places in the
//! conversation hang on them. Groups that the user owns go to an heir, or end; friends lose the user
//! from their roster.
//!
//! Deliberately not here: the user's own rows (`account`); live rooms, which are ruled in memory
//! and forget the user there (`Room::erase`).

use std::ops::ControlFlow;
use std::sync::Arc;

use hoopoe_store::kv::Family;
use serde::{Deserialize, Serialize};

use crate::command::{Forward, User};
use crate::entry::{Entry, EntryKind, VOID_ERASED};
use crate::group::event::MemberOp;
use crate::group::{GroupRow, MemberRow, Role};
use crate::id::{ConvKey, ConvKind};
use crate::keys::{self, conv_kind, user_kind};
use crate::refusal::Fault;
use crate::shard::{Due, Work};

/// Entries looked at in one step.
const STEP_ENTRIES: u64 = 200;
/// Pause between two steps: others have the shard meanwhile.
const STEP_PAUSE_MS: u64 = 20;
/// Members of a group without admins that are looked at for its next owner.
const MOST_LOOKED_AT: usize = 1_000;

/// How far a user's messages in a conversation are erased.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Erasing {
    next: u64,
    /// The last entry of the user's; a later user of the same id keeps what it says.
    through: u64,
}

impl Work<'_> {
    /// Tells conversations and friends of a user that the user is erased. The roster's rows stay
    /// as numbers of steps, which a later user of the same id goes on with.
    pub(crate) fn erase_elsewhere(&mut self, user: &User) -> Result<(), Fault> {
        // What devices have acknowledged this moment is not written any more.
        self.memory.lazy.take(Some(user));
        let prefix = keys::user_prefix(&user.tenant, &user.id, user_kind::CONV);
        for key in self.txn.keys(Family::Im, &prefix, usize::MAX)? {
            let wire = keys::name_behind(&key, &prefix);
            if let Some(conv) = ConvKey::from_wire(&user.tenant, &user.id, wire) {
                self.forward(Forward::Erase { conv, user: user.id.clone() });
            }
        }
        self.leave_rosters(user)
    }

    /// In the shard of a conversation: the user leaves, the erasing begins.
    pub(crate) fn erase_begins(&mut self, conv: &ConvKey, user: &Arc<str>) -> Result<(), Fault> {
        let key = keys::conv_name(conv, conv_kind::ERASE, user);
        if self.txn.has(Family::Im, &key)? {
            return Ok(());
        }
        match conv.kind() {
            ConvKind::User => {}
            ConvKind::Group => self.leave_erased(conv, user)?,
            ConvKind::Channel => self.unfollow_erased(conv, user)?,
        }
        self.forget_intervals(conv, user)?;
        self.erase_here(conv, user)
    }

    /// The erasing of what this site holds of a conversation begins.
    pub(crate) fn erase_here(&mut self, conv: &ConvKey, user: &Arc<str>) -> Result<(), Fault> {
        let key = keys::conv_name(conv, conv_kind::ERASE, user);
        let through = self.head(conv)?.last;
        self.txn.put_json(&key, &Erasing { next: 1, through });
        self.schedule(self.now_ms, Due::Erase(conv.clone(), user.clone()));
        Ok(())
    }

    /// A group keeps no member that is nobody. What it owned goes to the heir; without one the
    /// group ends.
    fn leave_erased(&mut self, conv: &ConvKey, user: &Arc<str>) -> Result<(), Fault> {
        let Some(mut member) = self.current_member(conv, user)? else { return Ok(()) };
        let Some(mut group) = self.txn.json(&keys::conv(conv, conv_kind::GROUP))? else {
            return Ok(());
        };
        let heir = match member.role {
            Role::Owner => self.heir_of_group(conv, &group, user)?,
            _ => None,
        };
        let ends = member.role == Role::Owner && heir.is_none();
        if let Some(heir) = heir {
            self.inherit(conv, &heir)?;
            group.admins.retain(|admin| **admin != *heir);
            group.owner = heir.to_string();
            self.member_event(conv, MemberOp::Transfer, &[heir], user)?;
        }
        let event = self.member_event(conv, MemberOp::Leave, std::slice::from_ref(user), user)?;
        group.members = group.members.saturating_sub(1);
        group.admins.retain(|admin| **admin != **user);
        self.end_erased(conv, user, &mut member, event.seq);
        self.put_group(conv, &group);
        if ends && !group.dissolved {
            self.dissolve(conv, group, user)?;
        }
        Ok(())
    }

    /// No news to the user's list: there is none any more.
    fn end_erased(&mut self, conv: &ConvKey, user: &str, member: &mut MemberRow, until: u64) {
        if let Some(interval) = member.intervals.last_mut() {
            interval.until = Some(until);
        }
        member.role = Role::Member;
        member.version += 1;
        self.put_member(conv, user, member);
    }

    /// A later user of the same id is not back, but comes for the first time.
    fn forget_intervals(&mut self, conv: &ConvKey, user: &str) -> Result<(), Fault> {
        if let Some(mut member) = self.member(conv, user)?
            && !member.intervals.is_empty()
        {
            member.intervals.clear();
            self.put_member(conv, user, &member);
        }
        Ok(())
    }

    fn inherit(&mut self, conv: &ConvKey, heir: &str) -> Result<(), Fault> {
        if let Some(mut member) = self.current_member(conv, heir)? {
            member.role = Role::Owner;
            self.put_member(conv, heir, &member);
        }
        Ok(())
    }

    /// Who owns the group after its owner: the first admin, else who has been in it for longest,
    /// as far as one looks.
    fn heir_of_group(
        &mut self,
        conv: &ConvKey,
        group: &GroupRow,
        owner: &str,
    ) -> Result<Option<Arc<str>>, Fault> {
        for admin in &group.admins {
            if self.is_member(conv, admin)? {
                return Ok(Some(admin.as_str().into()));
            }
        }
        let prefix = keys::conv_prefix(conv, conv_kind::MEMBER);
        let (mut oldest, mut looked, mut fault) = (None, 0, None);
        self.txn.scan(Family::Im, &prefix, b"", |key, row| {
            let name = keys::name_behind(key, &prefix);
            match crate::txn::read_json::<MemberRow>(key, row) {
                Ok(member) if member.is_current() && name != owner => {
                    let candidate = (member.since_ms, Arc::from(name));
                    oldest = Some(oldest.take().map_or(candidate.clone(), |at| candidate.min(at)));
                }
                Ok(_) => {}
                Err(error) => fault = Some(error),
            }
            looked += 1;
            let done = fault.is_some() || looked >= MOST_LOOKED_AT;
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        match fault {
            Some(error) => Err(error.into()),
            None => Ok(oldest.map(|(_, name)| name)),
        }
    }

    /// The same for a channel: the next publisher owns it; without one it stays, and operators
    /// name publishers.
    fn unfollow_erased(&mut self, conv: &ConvKey, user: &Arc<str>) -> Result<(), Fault> {
        let Some(mut member) = self.current_member(conv, user)? else { return Ok(()) };
        let mut channel = self.channel(conv)?;
        channel.publishers.retain(|publisher| **publisher != **user);
        channel.followers = channel.followers.saturating_sub(1);
        let heir = channel.publishers.first().filter(|_| member.role == Role::Owner).cloned();
        if member.role == Role::Owner {
            channel.owner = heir.clone().unwrap_or_default();
        }
        if let Some(heir) = heir {
            self.inherit(conv, &heir)?;
            self.member_event(conv, MemberOp::Transfer, &[heir.as_str().into()], user)?;
        }
        let last = self.head(conv)?.last;
        self.end_erased(conv, user, &mut member, last);
        self.put_channel(conv, &channel);
        Ok(())
    }

    /// Erases some more of what a user said in a conversation.
    pub(crate) fn erase_on(&mut self, conv: &ConvKey, user: &Arc<str>) -> Result<(), Fault> {
        let key = keys::conv_name(conv, conv_kind::ERASE, user);
        let Some(mut at) = self.txn.json::<Erasing>(&key)? else { return Ok(()) };
        at.next = at.next.max(self.head(conv)?.min);
        let to = at.through.min(at.next + STEP_ENTRIES - 1);
        for seq in at.next..=to {
            if let Some(entry) = self.entry(conv, seq)?
                && *entry.from == **user
            {
                self.erase_entry(&entry)?;
            }
            self.untally(conv, seq, user)?;
        }
        if to >= at.through {
            self.txn.delete(Family::Im, &key);
            return Ok(());
        }
        self.txn.put_json(&key, &Erasing { next: to + 1, ..at });
        let again_ms = self.now_ms + STEP_PAUSE_MS;
        self.schedule(again_ms, Due::Erase(conv.clone(), user.clone()));
        Ok(())
    }

    fn erase_entry(&mut self, entry: &Entry) -> Result<(), Fault> {
        let conv = &entry.conv;
        match entry.kind {
            EntryKind::Message => {
                self.void(entry, VOID_ERASED)?;
                let burn = keys::conv_seq(conv, conv_kind::BURN, entry.seq);
                if self.txn.has(Family::Im, &burn)? {
                    self.txn.delete(Family::Im, &burn);
                }
            }
            EntryKind::Edit | EntryKind::React => {
                let empty = entry.emptied();
                self.put_entry(&empty);
                let mut head = self.head(conv)?;
                head.bytes = head.bytes.saturating_sub(entry.size() - empty.size());
                self.put_head(conv, &head);
                let reaction = keys::reaction(conv, entry.reference, &entry.from);
                if entry.kind == EntryKind::React && self.txn.has(Family::Im, &reaction)? {
                    self.txn.delete(Family::Im, &reaction);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::command::{Command, Operate, Operation};
    use crate::entry::{EntryKind, VOID_ERASED};
    use crate::rig::{Rig, conv_of, recall, user};
    use crate::settings::ImSettings;
    use crate::user::account::{AccountChange, AccountCommand};

    fn operate(rig: &mut Rig, operation: Operation, who: &str, conv: &str, seq: u64, text: &str) {
        let text = text.to_owned();
        rig.post(|asker| match recall(asker, who, conv, seq) {
            Command::Operate(operate) => {
                let payload = text.into();
                Command::Operate(Box::new(Operate { operation, payload, ..*operate }))
            }
            other => other,
        });
        rig.settle();
    }

    #[test]
    fn what_an_erased_user_said_goes_also_over_a_restart_and_others_keep_their_places() {
        let mut rig = Rig::new(ImSettings::default());
        let team = json!({ "group": "team", "name": "team", "members": ["alice", "carol"] });
        rig.call("bob", "group/create", team).unwrap();
        for n in 0..450 {
            let who = if n % 3 == 0 { "bob" } else { "alice" };
            rig.send(who, "g/team", &format!("said by {who}")).unwrap();
        }
        rig.send("alice", "u/bob", "a secret").unwrap();
        rig.send("bob", "u/alice", "an answer").unwrap();
        operate(&mut rig, Operation::Edit, "alice", "u/bob", 1, "a better secret");
        operate(&mut rig, Operation::React, "alice", "u/bob", 2, "!");
        rig.call("alice", "roster/request", json!({ "user": "bob" })).unwrap();
        rig.call("bob", "roster/accept", json!({ "user": "alice" })).unwrap();
        let before = rig.unread("carol", "g/team").0;
        assert_eq!(before, 450);

        rig.post(|asker| {
            let change = AccountChange::Delete { erase: true };
            let user = user("alice");
            Command::Account(Box::new(AccountCommand { user, change, asker }))
        });
        rig.settle();
        rig.pass(1);
        let left = |rig: &Rig, conv: &str| {
            let conv = conv_of("bob", conv);
            let entries = rig.query().entries(&conv, 1, 1_000, 1_000, usize::MAX, false).unwrap();
            let of_alice = entries.into_iter().filter(|entry| &*entry.from == "alice");
            of_alice.filter(|entry| entry.kind != EntryKind::Member).collect::<Vec<_>>()
        };
        assert!(left(&rig, "g/team").iter().any(|entry| !entry.payload.is_empty()), "half way");
        rig.crash();
        rig.pass(1_000);
        for conv in ["g/team", "u/alice"] {
            let entries = left(&rig, conv);
            assert!(!entries.is_empty());
            for entry in entries {
                assert!(entry.payload.is_empty() && entry.properties.is_empty(), "{entry:?}");
                if entry.kind == EntryKind::Void {
                    assert_eq!(entry.void_reason, VOID_ERASED);
                }
            }
        }
        let pulled = rig.pull("bob", "u/alice").unwrap();
        assert_eq!(pulled[1].payload, "an answer", "what others said stays");
        assert_eq!(rig.unread("carol", "g/team").0, 150, "what is void counts as nothing");
        let members = rig.call("bob", "group/members", json!({ "group": "team" })).unwrap();
        let members = members["members"].as_array().unwrap().clone();
        assert!(members.iter().all(|member| member["user"] != "alice"), "{members:?}");
        let friends = rig.call("bob", "roster/list", json!({})).unwrap();
        assert_eq!(friends["users"], json!([]));
        // Whoever has the id later begins afresh, and keeps what it says.
        rig.send("alice", "u/bob", "another alice").unwrap();
        rig.pass(1_000);
        assert_eq!(rig.pull("bob", "u/alice").unwrap().last().unwrap().payload, "another alice");
        rig.call("alice", "roster/request", json!({ "user": "bob" })).unwrap();
        let asked = rig.call("bob", "roster/list", json!({})).unwrap();
        assert_eq!(asked["users"][0]["state"], "asked");
    }
}
