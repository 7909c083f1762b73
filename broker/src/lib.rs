//! The broker as a library: what the program `hoopoe` is made of.

pub mod access;
pub mod admin;
pub mod bridges;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod connection;
pub mod fabric;
pub mod im;
pub mod logging;
pub mod node;
pub mod settings;
pub mod shard;
pub mod telemetry;
pub mod transport;
