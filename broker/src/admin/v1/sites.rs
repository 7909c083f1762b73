//! `admin/sites`: how lines to other sites are doing, and what operators tell them.
//!
//! What is owed to a site cannot be dropped: senders hold receipts for it.

use hoopoe_im::refusal::Refusal;
use serde_json::{Value, json};

use super::Api;
use super::failure::Failure;
use crate::clock::now_ms;
use crate::im::sites::Peer;

pub(super) fn list(api: &Api) -> Value {
    let sites = api.env.im.sites().map(|sites| sites.peers()).unwrap_or_default();
    json!({ "sites": sites.iter().map(shown).collect::<Vec<_>>() })
}

/// Pauses the line to a site, or lets it go on.
pub(super) fn pause(api: &Api, site: &str, paused: bool) -> Result<Value, Failure> {
    let sites = api.env.im.sites().filter(|sites| sites.pause(&api.env, site, paused));
    let peer = sites.and_then(|sites| sites.peer(site));
    let peer = peer.ok_or_else(|| Refusal::not_found(format!("no other site `{site}`")))?;
    Ok(shown(peer))
}

fn shown(peer: &Peer) -> Value {
    let report = peer.report(now_ms());
    json!({
        "site": peer.site, "state": report.state, "since": report.since_ms,
        "losses": report.losses, "owed": report.owed.numbers, "owed_bytes": report.owed.bytes,
        "held": report.owed.held, "lag_ms": report.lag_ms, "counts": report.counts,
        "rates": report.rates, "last_error": report.last_error,
    })
}
