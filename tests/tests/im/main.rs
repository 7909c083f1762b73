//! The messaging profile over sockets, with clients of both versions that know nothing of it but
//! its topics.

mod attacker;
mod background;
mod chat;
mod entry;
mod examples;
mod groups;
mod messages;
mod overload;
mod presence;
mod push;
mod retention;
mod rooms;
mod services;
mod stock;
mod stock_clients;
mod terms;
mod user;
mod walkthrough;
