//! The normative statements of MQTT 3.1.1 and 5.0, tested over sockets against one broker.
//!
//! Each test has client identifiers and topics of its own, so all run side by side. Which statement
//! is covered by which test stands in `conformance/*.toml` of this package; `list` guards it.

mod connect;
mod end;
mod flow;
mod limits;
mod list;
mod malformed;
mod publish;
mod qos;
mod retained;
mod session;
mod share;
mod subscribe;
mod topic;
mod websocket;
mod will;
