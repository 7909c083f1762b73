//! Clients that overload the broker or abuse it. In every test a healthy pair keeps exchanging
//! messages and loses none, the broker's memory stays within a bound that the test states, and
//! what was acknowledged arrives. `make abuse` does much more of the same.

#![allow(clippy::print_stdout, reason = "what was measured, for those who ask with --nocapture")]

mod bystanders;
mod floods;
mod handshakes;
mod readers;
mod socket;
mod takeover;
mod topics;
mod writers;
