//! What an IM step makes happen, released only after the commit that it rests on.

use std::sync::Arc;

use bytes::Bytes;
use hoopoe_codec::ReasonCode;
use hoopoe_store::log::CommitError;
use hoopoe_store::{Receipt, WriteError};

use crate::command::{Asker, Device, Forward, SendSignal, User};
use crate::entry::Entry;
use crate::id::ConvKey;
use crate::refusal::Refusal;
use crate::rows::Sent;
use crate::service::Call;
use crate::site::owing::Owed;
use crate::user::account::Account;
use crate::user::token::{TokenHash, TokenOwner};

/// An answer to whoever waits.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An entry is stored.
    Sent {
        /// What the sender is told.
        sent: Sent,
        /// It had been sent before.
        repeated: bool,
    },
    /// It is stored here, and waits for the site where its conversation lives.
    Held,
    /// Done.
    Done,
    /// Refused: nothing has changed.
    Refused(Refusal),
    /// A service's answer.
    Value(serde_json::Value),
}

/// An effect.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Somebody is answered.
    Answer {
        /// Who.
        asker: Asker,
        /// What.
        answer: Answer,
    },
    /// A stored entry goes to the connected devices of the conversation.
    Entry(Arc<Entry>),
    /// A stored entry of a big conversation goes to one user's devices only (ruling 27).
    EntryFor {
        /// The user.
        user: Arc<str>,
        /// The entry.
        entry: Arc<Entry>,
    },
    /// A QoS 0 publication to all connected devices of a user.
    Notice {
        /// The user.
        user: User,
        /// Topic.
        topic: String,
        /// Payload.
        payload: Bytes,
    },
    /// A signal that may be heard.
    Signal(Box<SendSignal>),
    /// The devices of a user get the entries of a conversation from now on, or with another
    /// interval.
    Listed {
        /// The user.
        user: User,
        /// The conversation.
        conv: ConvKey,
        /// What the list says now.
        row: crate::rows::UserConv,
    },
    /// The devices of a user are moved on in a conversation: cleared.
    Skip {
        /// The user.
        user: User,
        /// The conversation.
        conv: ConvKey,
        /// Everything up to here is passed.
        through: u64,
    },
    /// Another shard is told. Comes before answers.
    Forward {
        /// The outbox entry that keeps it; `None`: nothing is kept.
        outbox: Option<u64>,
        /// What.
        forward: Box<Forward>,
    },
    /// A forward has been applied: the shard that keeps it may forget it.
    ForwardDone {
        /// That shard.
        shard: u16,
        /// The outbox entry.
        outbox: u64,
    },
    /// A forward could not be applied: the shard that keeps it sends it again later.
    ForwardRefused {
        /// That shard.
        shard: u16,
        /// The outbox entry.
        outbox: u64,
    },
    /// Another site is told; it may be lost.
    Site {
        /// The site.
        site: Arc<str>,
        /// A frame.
        frame: Bytes,
    },
    /// What is owed to another site.
    Owed {
        /// The site.
        site: Arc<str>,
        /// The shard that owes it.
        shard: u16,
        /// How much.
        owed: Owed,
    },
    /// A call that reads may be carried out.
    Read(Box<Call>),
    /// A connected device's conversations may be read.
    Login(Box<Device>),
    /// A token is valid from now on, or no more.
    Token {
        /// Its hash.
        hash: TokenHash,
        /// Whose it is; `None` when it is revoked.
        owner: Option<TokenOwner>,
    },
    /// An account has changed, or is gone.
    Account {
        /// Whose.
        user: User,
        /// How it is now.
        account: Option<Arc<Account>>,
    },
    /// An app of the user is looked at from now on, or none is: for push (ruling 35).
    Attended {
        /// The user.
        user: User,
        /// Which.
        attended: bool,
    },
    /// A push token of a user has come or gone.
    PushToken {
        /// The user.
        user: User,
        /// There is a device with a token now.
        takes: bool,
        /// An app of the user is looked at.
        attended: bool,
    },
    /// Retention has taken entries of a conversation.
    Swept {
        /// How many.
        entries: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The sweep has walked over all rows of its shard.
    Walked {
        /// Bytes of the conversations that are left.
        alive_bytes: u64,
    },
    /// A user's connections end.
    Kick {
        /// The user.
        user: User,
        /// Only this device; `None` for all.
        client: Option<Arc<str>>,
        /// Reason of the DISCONNECT.
        reason: ReasonCode,
        /// What it is told before.
        notice: Option<String>,
    },
}

/// Effects of a batch for which room is kept for the next one.
const ROOM_KEPT: usize = 4_096;

/// What becomes of the effects of a batch that was not committed.
#[derive(Debug, Default)]
pub struct Failed {
    /// What happens all the same: refusals, and what rests on no row.
    pub refused: Vec<Effect>,
    /// Who waits for what may or may not have happened.
    pub lost: Vec<Asker>,
    /// What devices are to hear if it was written after all.
    pub in_doubt: Vec<Effect>,
}

/// Effects of a batch that is not committed. They come out with the receipt of its commit, or are
/// turned into refusals.
#[derive(Debug, Default)]
pub struct Pending {
    /// What goes to other shards: before the rest, so that whoever is answered finds it done (each
    /// shard keeps the order of what it is told).
    forwards: Vec<Effect>,
    effects: Vec<Effect>,
    /// What happens whether the batch is committed or not.
    anyway: Vec<Effect>,
    /// Who is answered later, if the batch is committed.
    waiting: Vec<Asker>,
}

impl Pending {
    /// True when nothing waits.
    pub fn is_empty(&self) -> bool {
        [&self.anyway, &self.forwards, &self.effects].iter().all(|effects| effects.is_empty())
    }

    /// Takes all effects out of `effects`.
    pub(crate) fn append(&mut self, effects: &mut Vec<Effect>) {
        effects.drain(..).for_each(|effect| self.push(effect));
    }

    pub(crate) fn push(&mut self, effect: Effect) {
        match effect {
            Effect::Forward { .. } => self.forwards.push(effect),
            _ => self.effects.push(effect),
        }
    }

    /// What rests on no row of the batch.
    pub(crate) fn push_anyway(&mut self, effect: Effect) {
        self.anyway.push(effect);
    }

    /// Somebody is answered by another batch that rests on this one.
    pub(crate) fn wait(&mut self, asker: Asker) {
        self.waiting.push(asker);
    }

    /// The batch is committed: the effects, what goes to other shards before what rests on it.
    pub fn release<'a>(&'a mut self, _receipt: &Receipt) -> impl Iterator<Item = Effect> + use<'a> {
        self.waiting.clear();
        for room in [&mut self.forwards, &mut self.effects] {
            // Capacity of a batch that was larger than most.
            room.shrink_to(ROOM_KEPT);
        }
        self.anyway.drain(..).chain(self.forwards.drain(..)).chain(self.effects.drain(..))
    }

    /// The batch is not committed (ruling 12): who waits is refused, or must be cut off because
    /// the outcome is unknown.
    pub fn fail(&mut self, error: &CommitError) -> Failed {
        let refused = std::mem::take(&mut self.anyway);
        let mut failed = Failed { refused, ..Failed::default() };
        let unknown = matches!(error.fault, WriteError::Unknown(_));
        // They are told again from their rows.
        self.forwards.clear();
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        let waiting = waiting.map(|asker| Effect::Answer { asker, answer: Answer::Done });
        for effect in std::mem::take(&mut self.effects).into_iter().chain(waiting) {
            let asker = match effect {
                Effect::Answer { asker, answer: Answer::Refused(_) } => {
                    // The reason may be what was to be written before it in the batch.
                    let answer = Answer::Refused(Refusal::not_writable());
                    failed.refused.push(Effect::Answer { asker, answer });
                    continue;
                }
                Effect::Answer { asker, .. } => asker,
                Effect::Read(call) => call.asker,
                // What is there can be read all the same, and who is connected rests on no row.
                Effect::Login(_) | Effect::Attended { .. } => {
                    failed.refused.push(effect);
                    continue;
                }
                Effect::ForwardDone { shard, outbox } => {
                    failed.refused.push(Effect::ForwardRefused { shard, outbox });
                    continue;
                }
                Effect::Entry(_)
                | Effect::EntryFor { .. }
                | Effect::Listed { .. }
                | Effect::Skip { .. }
                    if unknown =>
                {
                    failed.in_doubt.push(effect);
                    continue;
                }
                _ => continue,
            };
            if unknown {
                failed.lost.push(asker);
            } else {
                let answer = Answer::Refused(Refusal::not_writable());
                failed.refused.push(Effect::Answer { asker, answer });
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(fault: WriteError) -> Failed {
        let mut pending = Pending::default();
        pending.push(Effect::ForwardDone { shard: 1, outbox: 7 });
        pending.push_anyway(Effect::ForwardRefused { shard: 2, outbox: 8 });
        pending.push(Effect::Forward {
            outbox: Some(9),
            forward: Box::new(Forward::Mentioned {
                tenant: "default".into(),
                user: "ann".into(),
                conv: ConvKey::group("default", "team"),
                seq: 1,
            }),
        });
        pending.fail(&CommitError { fault, effects: Vec::new(), lost: Vec::new() })
    }

    #[test]
    fn who_keeps_what_is_owed_hears_of_a_failed_batch_that_it_was_not_applied() {
        for fault in [WriteError::Refused, WriteError::Unknown] {
            let Failed { refused, lost, in_doubt } = failed(fault("full".to_owned()));
            let refused: Vec<(u16, u64)> = refused
                .into_iter()
                .map(|effect| match effect {
                    Effect::ForwardRefused { shard, outbox } => (shard, outbox),
                    other => panic!("{other:?}"),
                })
                .collect();
            // What this shard owes itself is read again with its outbox.
            assert_eq!(refused, [(2, 8), (1, 7)]);
            assert!(lost.is_empty() && in_doubt.is_empty());
        }
    }
}
