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

/// Whether and how the wire is encrypted.
#[derive(Clone, Debug, Default)]
pub(crate) enum Security {
    /// Not encrypted.
    #[default]
    Plain,
}

/// TLS, WebSocket or both on top of each other.
pub(super) struct Layers {}

impl Layers {
    pub(super) fn new(_target: &Target) -> Result<Option<Box<Layers>>, String> {
        Ok(None)
    }
    pub(super) fn write(&mut self, _stream: &mut TcpStream, _out: &mut Vec<u8>) -> io::Result<bool> {
        Ok(true)
    }
    pub(super) fn read(&mut self, _bytes: &[u8]) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
}
