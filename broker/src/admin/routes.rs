//! The pages: what they answer, with which status.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::unread::read_rest;
use super::{AdminState, Api, NodePhase};
use crate::telemetry::metrics;

/// The version of the text format that [`metrics`] writes.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All pages. HEAD is answered wherever GET is.
pub(super) fn routes(state: Arc<AdminState>, api: Option<&Arc<Api>>) -> Router {
    let pages = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(show_metrics))
        .with_state(state);
    let all = match api {
        Some(api) => pages.merge(api.routes()),
        None => pages,
    };
    all.fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn(read_rest))
}

/// Whether the broker serves clients, and if not, why.
#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// Words from a fixed set: `starting`, `stopping`, `store_not_writable`.
    reasons: Vec<&'static str>,
    /// The shards whose store takes no writes.
    shards_not_writable: Vec<usize>,
    /// Why, in the system's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    store_fault: Option<String>,
    version: &'static str,
    durability: &'static str,
    uptime_secs: u64,
}

#[derive(Serialize)]
pub(super) struct Failure {
    /// The MQTT reason code nearest to it.
    code: u8,
    error: &'static str,
    message: &'static str,
}

/// The process lives and its control thread answers; no more is meant by it. A service manager
/// that restarted the broker for a full disk would make things worse.
async fn health() -> &'static str {
    "ok"
}

async fn ready(State(state): State<Arc<AdminState>>) -> (StatusCode, Json<Readiness>) {
    let instruments = &state.instruments;
    let phase = state.phase();
    let shards_not_writable: Vec<usize> = instruments.telemetry.unwritable_shards().collect();
    let mut reasons = Vec::new();
    if phase != NodePhase::Ready {
        reasons.push(phase.as_str());
    }
    if !shards_not_writable.is_empty() {
        reasons.push("store_not_writable");
    }
    let ready = reasons.is_empty();
    let readiness = Readiness {
        ready,
        reasons,
        shards_not_writable,
        store_fault: state.store_fault(),
        version: instruments.build.version,
        durability: instruments.durability,
        uptime_secs: instruments.uptime().as_secs(),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness))
}

async fn show_metrics(State(state): State<Arc<AdminState>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics(&state.instruments)).into_response()
}

async fn not_found() -> (StatusCode, Json<Failure>) {
    let message =
        "there are /health, /ready and /metrics, and the calls that /v1/openapi.json lists";
    (StatusCode::NOT_FOUND, Json(Failure { code: 0x90, error: "not_found", message }))
}

pub(super) async fn method_not_allowed() -> (StatusCode, Json<Failure>) {
    let message = "pages are read with GET, calls below /v1 made with POST";
    (
        StatusCode::METHOD_NOT_ALLOWED,
        Json(Failure { code: 0x83, error: "method_not_allowed", message }),
    )
}
