//! A user's own state: the conversation list with its cursors, and what the user's devices have
//! come to. Owned by the user's shard.

pub mod lazy;
pub mod list;

use crate::command::Device;
use crate::refusal::Fault;
use crate::shard::Work;
