//! `admin/bridges`: how links to other brokers are doing, and what operators tell them.

use std::sync::Arc;

use hoopoe_im::refusal::Refusal;
use serde_json::{Value, json};

use super::Api;
use super::failure::Failure;
use crate::bridges::{BridgeHandle, BridgeOrder};
use crate::clock::now_ms;

pub(super) fn list(api: &Api) -> Value {
    let links = api.env.bridges.get().map(|bridges| bridges.links()).unwrap_or_default();
    json!({ "bridges": links.iter().map(shown).collect::<Vec<_>>() })
}

/// Tells a link what to do; the answer comes when it is done.
pub(super) async fn order(
    api: &Arc<Api>,
    name: &str,
    order: BridgeOrder,
) -> Result<Value, Failure> {
    let link = api.env.bridges.get().and_then(|bridges| bridges.link(name));
    let link = link.ok_or_else(|| Refusal::not_found(format!("no bridge `{name}`")))?;
    if !link.order(order).await {
        return Err(Failure::unavailable("the bridge does not answer"));
    }
    Ok(shown(link))
}

fn shown(link: &BridgeHandle) -> Value {
    let report = link.report(now_ms());
    json!({
        "name": link.name, "url": link.url, "state": report.state,
        "queued": report.queued, "in_flight": report.in_flight, "lag_ms": report.lag_ms,
        "connects": report.connects, "failures": report.failures,
        "counts": report.counts, "last_error": report.last_error,
    })
}
