//! The whole program at small size: against mosquitto, against the relay, and against a broker that
//! errs on purpose, so that every scenario shows that it finds what it claims to check.

#![allow(clippy::unwrap_used, reason = "tests may, and Clippy does not take helpers for tests")]

mod catches;
mod erring;
mod hoopoe;
mod meddler;
mod mosquitto;
mod program;
mod table;
