//! One socket of a worker: raw bytes in and out, through the transport's layers if it has any.

use std::io::{self, Read};

use hoopoe_codec::Fault;

use super::output::{Flush, Output};
use crate::transport::{Flow, LayerFault, Layers, Stream};

/// A socket and what stands between its bytes and MQTT's.
pub struct Socket {
    stream: Stream,
    layers: Option<Box<Layered>>,
}

struct Layered {
    layers: Layers,
    raw: Output,
}

/// What a read gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// So many bytes; `more` when the socket may hold others.
    Bytes {
        /// Bytes read.
        count: usize,
        /// The buffer was filled.
        more: bool,
    },
    /// Nothing now.
    Nothing,
    /// The other end has closed.
    End,
}

/// Why a socket is given up.
#[derive(Debug, thiserror::Error)]
pub enum SocketFault {
    /// The system's word.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// TLS, WebSocket or PROXY protocol.
    #[error(transparent)]
    Layer(#[from] LayerFault),
    /// MQTT.
    #[error(transparent)]
    Mqtt(#[from] Fault),
}

impl Socket {
    /// A socket with its layers.
    pub fn new(stream: Stream, layers: Layers) -> Socket {
        let layers = (!layers.is_transparent())
            .then(|| Box::new(Layered { layers, raw: Output::default() }));
        Socket { stream, layers }
    }

    /// The stream, to register it.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    /// The layers, if the socket has any.
    pub fn layers(&self) -> Option<&Layers> {
        self.layers.as_ref().map(|layered| &layered.layers)
    }

    /// True once every handshake below MQTT is done.
    pub fn is_ready(&self) -> bool {
        self.layers().is_none_or(|layers| layers.peer().ready)
    }

    /// Reads once into `buffer`.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => Ok(Received::End),
                Ok(count) => Ok(Received::Bytes { count, more: count == buffer.len() }),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => Err(e),
            };
        }
    }

    /// Unwraps received bytes into `plain`; `None` when there is nothing to unwrap and the bytes
    /// are MQTT's as they are.
    pub fn unwrap(
        &mut self,
        raw: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<Option<Flow>, LayerFault> {
        let Some(layered) = &mut self.layers else { return Ok(None) };
        layered.layers.receive(raw, plain, layered.raw.bytes()).map(Some)
    }

    /// True when the layers have bytes of their own to send.
    pub fn wants_write(&self) -> bool {
        self.layers.as_ref().is_some_and(|layered| !layered.raw.is_empty())
    }

    /// Writes what waits: `output` through the layers, then to the socket.
    pub fn write(&mut self, output: Option<&mut Output>) -> Result<Flush, SocketFault> {
        let Some(layered) = &mut self.layers else {
            return match output {
                Some(output) => Ok(output.write_to(&mut self.stream)?),
                None => Ok(Flush::Done),
            };
        };
        let Layered { layers, raw } = &mut **layered;
        // What is wrapped goes first. Only behind it is more wrapped: else a receiver that is slow
        // would have all it is sent waiting here, where nobody counts it.
        if raw.write_to(&mut self.stream)? == Flush::Blocked {
            return Ok(Flush::Blocked);
        }
        if let Some(output) = output {
            let mut fault = None;
            output.drain(|piece| {
                if fault.is_none() && !piece.is_empty() {
                    fault = layers.send(piece, raw.bytes()).err();
                }
            });
            if let Some(fault) = fault {
                return Err(fault.into());
            }
        }
        Ok(raw.write_to(&mut self.stream)?)
    }

    /// Bytes wrapped by the layers that wait for the socket.
    pub fn waiting(&self) -> usize {
        self.layers.as_ref().map_or(0, |layered| layered.raw.len())
    }

    /// Says goodbye in the layers' words.
    pub fn close_layers(&mut self) {
        if let Some(layered) = &mut self.layers {
            layered.layers.close(layered.raw.bytes());
        }
    }

    /// No more bytes will be sent.
    pub fn shutdown_write(&mut self) {
        self.stream.shutdown_write();
    }
}
