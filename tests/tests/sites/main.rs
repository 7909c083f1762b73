//! Several brokers as one messaging service: users of two and three sites, links that are cut, and
//! sites that are killed.

mod held;
mod kills;
mod proxy;
mod talk;
mod world;
