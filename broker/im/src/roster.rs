//! The roster: friends, requests, blocks. Each user's side is owned by that user's shard; what
//! concerns the other side travels as a [`RosterStep`], what concerns the pair's conversation is
//! mirrored into its record before the service answers (ruling 26).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::refusal::{Fault, Refusal};
use crate::service::{Caller, Op};
use crate::shard::Work;

/// A step of one user's roster that concerns the other's.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RosterStep {
    /// The tenant.
    pub tenant: Arc<str>,
    /// Whose step it is.
    pub from: Arc<str>,
    /// Whom it concerns.
    pub to: Arc<str>,
    /// What.
    pub kind: RosterStepKind,
}

/// What one user's roster tells the other's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RosterStepKind {
    /// Asks to be friends.
    Request {
        /// A word.
        message: String,
    },
    /// Agrees.
    Accept,
    /// Declines.
    Reject,
    /// Ends it.
    Remove,
}

impl Work<'_> {
    /// A step of another user's roster.
    pub(crate) fn roster_step(&mut self, _step: &RosterStep) -> Result<(), Fault> {
        Ok(())
    }
}

impl Work<'_> {
    /// Operations of the service `roster`.
    pub(crate) fn roster_call(&mut self, _caller: &Caller, _op: &Op) -> Result<Value, Fault> {
        Err(Refusal::not_found("roster").into())
    }
}
