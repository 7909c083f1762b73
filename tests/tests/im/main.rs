//! The messaging profile over sockets, with clients of both versions that know nothing of it but
//! its topics.

mod background;
mod entry;
mod gateway;
mod messages;
mod presence;
mod push;
mod retention;
mod user;
