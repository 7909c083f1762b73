//! Several brokers as one messaging service: users of two and three sites, links that are cut, and
//! sites that are killed.

mod held;
mod kills;
mod operators;
mod proxy;
mod rooms;
mod talk;
mod world;
