//! Durable state: sessions, queues, retained messages, wills and shared groups.
//!
//! A shard is the single writer of the rows of its slots. It is fed [`Command`]s, judges each in
//! [`ShardView::apply`](view::ShardView::apply) knowing all before it, and gives [`Effect`]s that
//! can be had only out of the receipt of a commit.

pub mod command;
pub mod effect;

pub use command::Command;
pub use effect::Effect;
