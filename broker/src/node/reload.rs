//! SIGHUP: certificates, users, rules and reloadable settings are taken up; what needs a restart
//! is named.

use std::sync::Arc;

use super::Node;
use super::listeners::{OpenListener, client_limits};
use crate::logging::Logging;
use crate::settings::{Settings, SettingsSource};

/// What a reload starts from.
pub(super) struct Reloader {
    pub(super) settings: Settings,
    pub(super) source: SettingsSource,
    pub(super) logging: Logging,
}

impl Reloader {
    /// Reads everything again. A fault leaves everything as it was, and is named.
    pub(super) fn reload(&mut self, node: &Node, open: &[OpenListener]) {
        let new = match self.source.load() {
            Ok(new) => new,
            Err(error) => {
                tracing::error!(%error, "settings not reloaded: they stay as they were");
                return;
            }
        };
        let changes = Settings::diff_reload(&self.settings, &new);
        let next = self.settings.reloaded(&new);
        if let Err(error) = node.env.access.reload(&next.access) {
            tracing::error!(%error, "users and rules not reloaded: all stays as it was");
            return;
        }
        for open in open {
            if let Some(tls) = open.transport.tls()
                && let Err(error) = tls.reload()
            {
                tracing::error!(listener = open.url, %error, "certificate not reloaded");
            }
            let same = next.listener.iter().find(|listener| listener.url == open.configured.url);
            if let Some(configured) = same {
                open.listener.door.store(Arc::new(next.door(configured)));
                open.listener.limits.store(Arc::new(client_limits(&next, configured)));
            }
        }
        self.logging.set_level(next.log.level);
        self.settings = next;
        tracing::info!(changed = ?changes.reloadable, "reloaded");
        if !changes.needs_restart.is_empty() {
            tracing::warn!(settings = ?changes.needs_restart, "these wait for a restart");
        }
    }
}
