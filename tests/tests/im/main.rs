//! The messaging profile over sockets, with clients of both versions that know nothing of it but
//! its topics.

mod background;
mod entry;
mod messages;
mod presence;
mod rooms;
mod user;
