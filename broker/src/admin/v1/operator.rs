//! `POST /v1/admin/{noun}/{op}`: what operators do. Each call is recorded, whatever comes of it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use hoopoe_im::Command;
use hoopoe_im::audit::Record;
use hoopoe_im::refusal::Refusal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::auth::{self, Who};
use super::failure::Failure;
use super::{Api, bridges, connected, sites, stored, users};
use crate::bridges::BridgeOrder;
use crate::clock::now_ms;

/// Fields of a request that are in no record.
const SECRETS: [&str; 1] = ["password"];
/// Bytes of a request that are recorded; of a larger one only that it was.
const RECORDED_BYTES_MAX: usize = 4 * 1024;

/// One user.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneUser {
    /// The user.
    pub user: String,
}

/// `users/create`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserCreate {
    /// The user.
    pub user: String,
    /// The password; without one the user has tokens only.
    #[serde(default)]
    pub password: Option<String>,
    /// Roles; `service` is the broker's own.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// `users/reset`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserReset {
    /// The user.
    pub user: String,
    /// The new password; without one none is good any more.
    #[serde(default)]
    pub password: Option<String>,
}

/// `users/delete`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserDelete {
    /// The user.
    pub user: String,
    /// Profile, lists, devices, roster and what the user said and owned too.
    #[serde(default)]
    pub erase: bool,
}

/// A page of what has a name.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// What the name contains.
    #[serde(default)]
    pub text: Option<String>,
    /// Items at most.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default)]
    pub next: Option<String>,
}

/// Clients or sessions.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clients {
    /// Of this user.
    #[serde(default)]
    pub user: Option<String>,
    /// With this client id.
    #[serde(default)]
    pub client: Option<String>,
    /// Whose client id contains this.
    #[serde(default)]
    pub text: Option<String>,
    /// Items at most.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default)]
    pub next: Option<String>,
}

/// One client, or all of a user.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kick {
    /// Of this user; of none: an anonymous client.
    #[serde(default)]
    pub user: Option<String>,
    /// With this client id.
    #[serde(default)]
    pub client: Option<String>,
}

/// One session.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneSession {
    /// Its user; empty for an anonymous client's.
    #[serde(default)]
    pub user: String,
    /// Its client id.
    pub client: String,
}

/// `retained/list`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retained {
    /// Topics that match this filter; all without it.
    #[serde(default)]
    pub filter: Option<String>,
    /// Items at most.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default)]
    pub next: Option<String>,
}

/// `retained/delete`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneTopic {
    /// The topic.
    pub topic: String,
}

/// `audit/list`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Items at most.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Where the page before ended.
    #[serde(default)]
    pub next: Option<String>,
}

/// One link to another broker.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneBridge {
    /// Its name.
    pub name: String,
}

/// One other site.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneSite {
    /// Its name.
    pub site: String,
}

/// What an operator does.
#[derive(Debug)]
#[allow(missing_docs, reason = "each is an operation of the table in the OpenAPI document")]
pub enum Deed {
    UsersCreate(UserCreate),
    UsersReset(UserReset),
    UsersDisable(OneUser),
    UsersEnable(OneUser),
    UsersDelete(UserDelete),
    UsersExport(OneUser),
    UsersList(Search),
    ClientsList(Clients),
    ClientsKick(Kick),
    SessionsList(Clients),
    SessionsDelete(OneSession),
    SubscriptionsList(Clients),
    QueuesList(Clients),
    RetainedList(Retained),
    RetainedDelete(OneTopic),
    BridgesList,
    BridgesPause(OneBridge),
    BridgesResume(OneBridge),
    BridgesDropQueue(OneBridge),
    SitesList,
    SitesPause(OneSite),
    SitesResume(OneSite),
    AuditList(Page),
}

/// Reads a request of an operator.
///
/// # Errors
/// Names the operation that does not exist, or what is wrong in the body and where.
pub fn parse(noun: &str, op: &str, body: &[u8]) -> Result<Deed, Refusal> {
    Ok(match (noun, op) {
        ("users", "create") => Deed::UsersCreate(read(body)?),
        ("users", "reset") => Deed::UsersReset(read(body)?),
        ("users", "disable") => Deed::UsersDisable(read(body)?),
        ("users", "enable") => Deed::UsersEnable(read(body)?),
        ("users", "delete") => Deed::UsersDelete(read(body)?),
        ("users", "export") => Deed::UsersExport(read(body)?),
        ("users", "list" | "search") => Deed::UsersList(read(body)?),
        ("clients", "list") => Deed::ClientsList(read(body)?),
        ("clients", "kick") => Deed::ClientsKick(read(body)?),
        ("sessions", "list") => Deed::SessionsList(read(body)?),
        ("sessions", "delete") => Deed::SessionsDelete(read(body)?),
        ("subscriptions", "list") => Deed::SubscriptionsList(read(body)?),
        ("queues", "list") => Deed::QueuesList(read(body)?),
        ("retained", "list") => Deed::RetainedList(read(body)?),
        ("retained", "delete") => Deed::RetainedDelete(read(body)?),
        ("bridges", "list") => read::<Page>(body).map(|_| Deed::BridgesList)?,
        ("bridges", "pause") => Deed::BridgesPause(read(body)?),
        ("bridges", "resume") => Deed::BridgesResume(read(body)?),
        ("bridges", "drop-queue") => Deed::BridgesDropQueue(read(body)?),
        ("sites", "list") => read::<Page>(body).map(|_| Deed::SitesList)?,
        ("sites", "pause") => Deed::SitesPause(read(body)?),
        ("sites", "resume") => Deed::SitesResume(read(body)?),
        ("audit", "list") => Deed::AuditList(read(body)?),
        _ => return Err(Refusal::not_found(format!("no operation admin/{noun}/{op}"))),
    })
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(error.to_string()))
}

/// Carries out what an operator asks, and records it.
pub(super) async fn call(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path((noun, op)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let body = body?;
    match &who {
        Who::Admin => {}
        Who::User(user) => {
            let (user, address) = (&user.user.id, peer.ip());
            tracing::warn!(target: "audit", %user, %address, noun, op, "not an operator");
            return Err(Refusal::not_allowed("operators only: this is a user's token").into());
        }
        Who::Nobody => return Err(Failure::unauthorized("expected Authorization: Bearer")),
    }
    let answer = carry_out(&api, &headers, &noun, &op, &body).await;
    record(&api, peer, format!("admin/{noun}/{op}"), about(&body), &answer).await;
    answer.map(Json)
}

async fn carry_out(
    api: &Arc<Api>,
    headers: &HeaderMap,
    noun: &str,
    op: &str,
    body: &[u8],
) -> Result<Value, Failure> {
    let tenant = auth::tenant(headers)?;
    match parse(noun, op, body)? {
        Deed::UsersCreate(request) => users::create(api, tenant, request).await,
        Deed::UsersReset(request) => users::reset(api, tenant, request).await,
        Deed::UsersDisable(request) => users::disable(api, tenant, request.user).await,
        Deed::UsersEnable(request) => users::enable(api, tenant, request.user).await,
        Deed::UsersDelete(request) => users::delete(api, tenant, request).await,
        Deed::UsersExport(request) => users::export(api, tenant, request.user).await,
        Deed::UsersList(request) => users::list(api, &tenant, &request),
        Deed::ClientsList(request) => connected::list(api, tenant, request).await,
        Deed::ClientsKick(request) => connected::kick(api, tenant, request).await,
        Deed::SessionsList(request) => {
            stored::sessions(api, tenant, request, stored::as_session).await
        }
        Deed::SessionsDelete(request) => stored::delete_session(api, tenant, request),
        Deed::SubscriptionsList(request) => stored::subscriptions(api, tenant, request).await,
        Deed::QueuesList(request) => stored::sessions(api, tenant, request, stored::as_queue).await,
        Deed::RetainedList(request) => stored::retained(api, request).await,
        Deed::RetainedDelete(request) => stored::delete_retained(api, &request.topic),
        Deed::BridgesList => Ok(bridges::list(api)),
        Deed::BridgesPause(request) => bridges::order(api, &request.name, BridgeOrder::Pause).await,
        Deed::BridgesResume(request) => {
            bridges::order(api, &request.name, BridgeOrder::Resume).await
        }
        Deed::BridgesDropQueue(request) => {
            bridges::order(api, &request.name, BridgeOrder::DropQueue).await
        }
        Deed::SitesList => Ok(sites::list(api)),
        Deed::SitesPause(request) => sites::pause(api, &request.site, true),
        Deed::SitesResume(request) => sites::pause(api, &request.site, false),
        Deed::AuditList(request) => {
            api.read(move |query| query.audit(request.limit, request.next.as_deref())).await
        }
    }
}

/// What of a request is recorded.
pub(super) fn about(body: &[u8]) -> Value {
    if body.len() > RECORDED_BYTES_MAX {
        return json!({ "bytes": body.len() });
    }
    let mut about: Value = serde_json::from_slice(body).unwrap_or_default();
    if let Some(fields) = about.as_object_mut() {
        for secret in SECRETS {
            if let Some(value) = fields.get_mut(secret) {
                *value = "(not shown)".into();
            }
        }
    } else if !about.is_null() {
        // No request has another form: who knows what is in it.
        about = json!({ "bytes": body.len() });
    }
    about
}

/// Records what an operator did, before the answer leaves. Calls of others are in the log alone:
/// they must not be able to write the record full.
pub(super) async fn record(
    api: &Api,
    peer: SocketAddr,
    call: String,
    about: Value,
    answer: &Result<Value, Failure>,
) {
    let status = answer.as_ref().map_or_else(|failure| failure.status().as_u16(), |_| 200);
    let address = peer.ip().to_canonical().to_string();
    tracing::info!(target: "audit", address, call, %about, status, "an operator's call");
    let record = Record { ts: now_ms(), who: "admin".to_owned(), address, call, about, status };
    let Some((asker, waiting)) = api.env.im.wait() else { return };
    api.command(Command::Audit { record: Box::new(record), asker });
    if let Err(failure) = api.answer(Some(waiting)).await {
        // The call itself is done, and the log has it.
        tracing::error!(?failure, "an operator's call could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_record_holds_a_password() {
        for (body, recorded) in [
            (r#"{"user":"a","password":"secret"}"#, json!({"user":"a","password":"(not shown)"})),
            (r#""secret""#, json!({"bytes": 8})),
            ("", Value::Null),
            ("secret", Value::Null),
        ] {
            assert_eq!(about(body.as_bytes()), recorded);
        }
        assert_eq!(about(&[b'x'; 5000]), json!({ "bytes": 5000 }));
    }

    #[test]
    fn what_is_wrong_in_a_request_is_named() {
        for (noun, op, body, names) in [
            ("users", "create", "{}", "user"),
            ("users", "create", r#"{"user":1}"#, "a string"),
            ("users", "fly", "{}", "admin/users/fly"),
            ("clients", "list", r#"{"colour":1}"#, "colour"),
        ] {
            let refusal = parse(noun, op, body.as_bytes()).unwrap_err();
            assert!(refusal.message.contains(names), "{}", refusal.message);
        }
    }
}
