//! The HTTP API below `/v1`: the services of the profile with the same bodies and handlers as over
//! MQTT, messages of back ends, and what operators do.
//!
//! State owned here: how many requests somebody may make ([`rate`]). A request waits for a shard
//! or reader like a device does, never on their threads. Deliberately not here: rules. What a call
//! may do is judged where it is carried out.

mod auth;
mod bridges;
mod connected;
mod entry;
mod failure;
mod message;
mod openapi;
mod operator;
mod origin;
mod rate;
mod service;
mod sites;
mod stored;
mod table;
mod users;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hoopoe_im::Command;
use hoopoe_im::refusal::Fault;
use hoopoe_im::service::query::Query;
use hoopoe_store::{Reader, StoreError};
use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};

use super::routes::method_not_allowed;
use crate::clock::now_ms;
use crate::connection::Env;
use crate::im::Reply;
use crate::settings::{HttpAddress, Settings};
pub use auth::AdminToken;
use auth::Who;
use failure::Failure;
use origin::Origins;
use rate::{RequestRate, RequestRates};

/// Bytes of a request's body: a payload of 64 KiB in base64 and what is around it.
const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long a request may take, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a shard or reader may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Slow work at once.
const SLOW_MAX: usize = 2;

/// What the API answers from.
pub struct Api {
    env: Arc<Env>,
    admin_token: Option<AdminToken>,
    /// Whoever asks from this machine may have tokens for any user (ruling 19).
    development: bool,
    origins: Origins,
    rates: Option<RequestRates>,
    started: Instant,
    reader: Reader,
    /// Places for what takes long: hashing, reading for operators.
    slow: Semaphore,
}

impl Api {
    /// The API of a broker.
    ///
    /// # Errors
    /// When the file of the admin token cannot be read, or holds none.
    pub fn new(env: Arc<Env>, reader: Reader, settings: &Settings) -> anyhow::Result<Arc<Api>> {
        let http = &settings.http;
        let token = AdminToken::read(http)?;
        let local = match &http.address {
            HttpAddress::At(address) => address.is_loopback(),
            HttpAddress::Off => false,
        };
        let unguarded = !settings.users_configured() && settings.access.anonymous != Some(false);
        let rate = RequestRate { per_sec: http.requests_per_sec, burst: http.request_burst };
        Ok(Arc::new(Api {
            env,
            admin_token: token,
            development: local && unguarded,
            origins: Origins::new(&http.origins, local),
            rates: (rate.per_sec > 0).then(|| RequestRates::new(rate)),
            started: Instant::now(),
            reader,
            slow: Semaphore::new(SLOW_MAX),
        }))
    }

    /// Everything below `/v1`.
    pub(super) fn routes(self: &Arc<Api>) -> Router {
        Router::new()
            .route("/v1/messages", post(message::send))
            .route("/v1/openapi.json", get(openapi::show))
            .route("/v1/tokens", post(service::create_token))
            .route("/v1/{service}/{op}", post(service::call))
            .route("/v1/admin/{noun}/{op}", post(operator::call))
            .method_not_allowed_fallback(method_not_allowed)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(from_fn_with_state(self.clone(), guard))
            .with_state(self.clone())
    }

    /// Sends a command to the shard that owns it; the answer comes to the asker in it.
    fn command(&self, command: Command) {
        let fabric = &self.env.fabric;
        let slot = command.slot();
        debug_assert!(slot.is_some(), "only commands of a slot come from outside");
        if let Some(slot) = slot {
            fabric.shards[fabric.shard_of(slot)].put(command.into());
        }
    }

    /// Waits for an answer.
    async fn answer(&self, waiting: Option<oneshot::Receiver<Reply>>) -> Result<Reply, Failure> {
        let waiting = waiting
            .ok_or_else(|| Failure::unavailable("too many requests wait for answers; try again"))?;
        match tokio::time::timeout(ANSWER_TIMEOUT, waiting).await {
            Ok(Ok(reply)) => Ok(reply),
            // The outcome is unknown: a repetition with the same cid or id tells (ruling 12).
            Ok(Err(_)) => Err(Failure::unavailable("the store failed: the outcome is not known")),
            Err(_) => Err(Failure::unavailable("no answer in time: the outcome is not known")),
        }
    }

    /// Reads from the store, away from the control thread.
    async fn look<T: Send + 'static>(
        self: &Arc<Api>,
        look: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        // The semaphore is never closed.
        let _place = self.slow.acquire().await.ok();
        let reader = self.reader.clone();
        match tokio::task::spawn_blocking(move || look(&reader)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::error!(%error, "the store cannot be read");
                Err(Failure::unavailable("nothing can be read at the moment"))
            }
            Err(_) => Err(Failure::unavailable("the reading has failed")),
        }
    }

    /// Reads rows of the profile, away from the control thread.
    async fn read(
        self: &Arc<Api>,
        read: impl FnOnce(&Query) -> Result<Value, Fault> + Send + 'static,
    ) -> Result<Value, Failure> {
        let found = self.look(move |reader| match read(&Query::new(reader.kv(), now_ms())) {
            Ok(value) => Ok(Ok(value)),
            Err(Fault::Refused(refusal)) => Ok(Err(refusal)),
            Err(Fault::Store(error)) => Err(error),
        });
        found.await?.map_err(Failure::from)
    }

    fn admits(&self, who: &Who, address: IpAddr) -> bool {
        let Some(rates) = &self.rates else { return true };
        let now = self.started.elapsed();
        match who {
            Who::Admin => true,
            Who::User(user) => rates.admit(now, &(&user.user.tenant, &user.user.id)),
            Who::Nobody => rates.admit(now, &address),
        }
    }
}

/// Before anything is looked at: where the page is from, who asks, how often. Behind it: how long
/// it takes.
async fn guard(
    State(api): State<Arc<Api>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let allowed = match api.origins.judge(request.headers()) {
        Ok(allowed) => allowed,
        Err(failure) => return failure.into_response(),
    };
    let mut response = if request.method() == Method::OPTIONS && allowed.is_some() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        match admit(&api, peer, request.headers()) {
            Ok(who) => {
                request.extensions_mut().insert(who);
                let answer = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
                answer.unwrap_or_else(|_| Failure::too_slow().into_response())
            }
            Err(failure) => failure.into_response(),
        }
    };
    if let Some(origin) = allowed {
        origin::permit(response.headers_mut(), origin);
    }
    response
}

fn admit(api: &Api, peer: SocketAddr, headers: &HeaderMap) -> Result<Who, Failure> {
    let who = auth::identify(api, headers);
    if !api.admits(who.as_ref().unwrap_or(&Who::Nobody), peer.ip()) {
        return Err(Failure::too_many());
    }
    who
}
