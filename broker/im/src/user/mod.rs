//! A user's own state: the conversation list with its cursors, and the user's devices. Owned by
//! the user's shard.

pub mod account;
mod begun;
pub mod device;
mod erase;
mod export;
pub mod lazy;
pub mod list;
pub mod pace;
pub(crate) mod seats;
pub mod services;
pub mod token;
