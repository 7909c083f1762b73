//! The WebSocket layer of one connection: the HTTP upgrade, then binary frames that carry MQTT.
//!
//! Owns the upgrade request until it is whole and the place in the current frame. A frame's payload
//! passes through as it comes, whatever its length, so neither a large frame nor a message in many
//! fragments is ever collected. Not here: TLS below it, MQTT above it.

mod frames;
mod upgrade;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use frames::FrameFault;
pub use upgrade::{UpgradeFault, WebSocketSettings};

use super::layers::{Flow, LayerFault};
use frames::Frames;
use upgrade::Upgrade;

/// WebSocket on one connection, the server's side.
pub(super) struct WebSocketLayer {
    stage: Stage,
}

enum Stage {
    Upgrading(Upgrade),
    Framed(Frames),
    Refused,
}

impl WebSocketLayer {
    pub(super) fn new(settings: Arc<WebSocketSettings>) -> Self {
        WebSocketLayer { stage: Stage::Upgrading(Upgrade::new(settings)) }
    }

    /// True once the upgrade was answered.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Framed(_))
    }

    /// Takes bytes; appends MQTT bytes to `plain` and answers (the upgrade's, pongs, the close
    /// frame) to `out`, also when this fails.
    pub(super) fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Flow, LayerFault> {
        match &mut self.stage {
            Stage::Upgrading(upgrade) => match upgrade.feed(bytes, out) {
                Ok(None) => Ok(Flow::Open),
                Ok(Some(consumed)) => {
                    self.stage = Stage::Framed(Frames::default());
                    self.receive(&bytes[consumed..], plain, out)
                }
                Err(fault) => {
                    self.stage = Stage::Refused;
                    Err(LayerFault::Upgrade(fault))
                }
            },
            Stage::Framed(frames) => frames.feed(bytes, plain, out).map_err(LayerFault::Frame),
            Stage::Refused => Ok(Flow::Closed),
        }
    }

    /// Puts MQTT bytes into one binary frame.
    pub(super) fn send(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), LayerFault> {
        match &mut self.stage {
            Stage::Framed(frames) if frames.is_closed() => Err(LayerFault::Ended),
            Stage::Framed(_) => {
                frames::write_binary(plain, out);
                Ok(())
            }
            Stage::Upgrading(_) => Err(LayerFault::NotReady),
            Stage::Refused => Err(LayerFault::Ended),
        }
    }

    /// Appends a close frame, once, if frames are spoken yet.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        if let Stage::Framed(frames) = &mut self.stage {
            frames.close(out);
        }
    }
}
