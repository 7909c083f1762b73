//! What a scenario may ask of a client.

use std::net::SocketAddr;
use std::path::PathBuf;

use hoopoe_tests::Version;

/// A message as a client saw it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) text: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
}

/// How a client connects.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) version: Version,
    /// `tcp`, `tls`, `ws` or `wss`.
    pub(crate) scheme: &'static str,
    pub(crate) address: SocketAddr,
    /// The authority that signed the server's certificate, for `tls` and `wss`.
    pub(crate) authority: Option<PathBuf>,
    pub(crate) client_id: String,
    pub(crate) clean: bool,
    /// Topic and text of a QoS 1 will.
    pub(crate) will: Option<(String, String)>,
}

/// One client, connected. Every method returns when the broker has answered.
pub(crate) trait Peer {
    /// Whether its way to leave asks the broker to publish the will.
    fn leaves_its_will(_version: Version) -> bool {
        false
    }
    /// Connects.
    fn connect(login: &Login) -> Self;
    /// Subscribes.
    fn subscribe(&mut self, topic: &str, qos: u8);
    /// Publishes.
    fn publish(&mut self, topic: &str, qos: u8, retain: bool, text: &str);
    /// The next message.
    fn next_message(&mut self) -> Message;
    /// Ends the connection with DISCONNECT.
    fn leave(self);
    /// Ends the connection without a word.
    fn die(self);
}
