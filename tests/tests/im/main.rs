//! The messaging profile over sockets, with clients of both versions that know nothing of it but
//! its topics.

mod background;
mod chat;
mod entry;
mod groups;
mod messages;
mod presence;
mod rooms;
mod user;
