//! What lies between a listening port and MQTT bytes: listeners, accepted sockets, and the layers
//! (PROXY protocol, TLS, WebSocket) between a socket's bytes and MQTT's.
//!
//! - [`bind`](bind()) opens listening sockets, [`Acceptor`] takes connections off one of them
//!   within the limits of its [`ListenerGate`]; [`WorkerSeats`] says which worker gets each.
//! - [`Layers`] turns the bytes of one connection into MQTT bytes and back. It is pure: bytes in,
//!   bytes out. The worker that owns the socket reads and writes it.
//! - [`Certificates`] holds the certificates of a listener and swaps them on reload.
//!
//! State owned here: per listener its gate (open connections, connect rates, counts) and its
//! certificates; per connection its layers. Deliberately not here: MQTT packets, timers (the
//! CONNECT timeout covers every handshake), reading and writing of accepted sockets.

mod accept;
mod bind;
mod certificates;
mod connect_rate;
mod gate;
mod layers;
mod listener;
mod peer;
mod proxy;
mod seats;
mod stream;
mod tls;
mod websocket;

#[cfg(test)]
mod tests;

pub use accept::{Accepted, Acceptor};
pub use bind::{
    BACKLOG_DEFAULT, BindError, BindOptions, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES,
    USER_TIMEOUT, bind, resolve,
};
pub use certificates::{
    Certificates, ClientCertificates, TlsError, TlsFiles, client_config, install_crypto_provider,
};
pub use connect_rate::{ConnectRate, ConnectRates};
pub use gate::{ConnectionPermit, GateCounts, GateLimits, ListenerGate, Refusal};
pub use layers::{Flow, LayerFault, Layers};
pub use listener::{Carrier, ListenerTransport, Networks};
pub use peer::{Peer, TransportKind};
pub use proxy::ProxyFault;
pub use seats::{WorkerSeat, WorkerSeats};
#[cfg(feature = "simulation")]
pub use stream::Pipe;
pub use stream::Stream;
pub use websocket::{FrameFault, UpgradeFault, WebSocketSettings};
