//! Layers against real clients in memory: rustls and tungstenite at the other end, bytes cut
//! anywhere.

mod garbage;
mod proxy;
mod secure;
mod tls;
pub(super) mod wire;
