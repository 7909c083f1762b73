//! The layers between MQTT and the socket.

use std::io;
use std::net::TcpStream;

use super::Target;

/// How MQTT travels.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    /// Plain TCP.
    Tcp,
}

impl std::fmt::Display for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Wire::Tcp => "TCP",
        })
    }
}

/// TLS, WebSocket or both on top of each other.
pub(super) struct Layers {}

impl Layers {
    pub(super) fn new(_target: &Target) -> Result<Option<Box<Layers>>, String> {
        Ok(None)
    }
    pub(super) fn write(
        &mut self,
        _stream: &mut TcpStream,
        _out: &mut Vec<u8>,
    ) -> io::Result<bool> {
        Ok(true)
    }
    pub(super) fn read(&mut self, _bytes: &[u8]) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
}
