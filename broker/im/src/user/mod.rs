//! A user's own state: the conversation list with its cursors, and the user's devices. Owned by
//! the user's shard.

pub mod device;
pub mod lazy;
pub mod list;
pub mod services;
