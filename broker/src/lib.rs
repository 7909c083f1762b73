//! The broker as a library: what the program `hoopoe` is made of.

pub mod access;
pub mod settings;
