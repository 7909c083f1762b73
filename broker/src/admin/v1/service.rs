//! `POST /v1/{service}/{op}`: the services, by the handlers that devices reach over MQTT.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::HeaderMap;
use axum::{Extension, Json};
use hoopoe_im::refusal::Refusal;
use hoopoe_im::service::{Call, Caller, Op, parse};
use hoopoe_im::{Answer, Asker};
use serde_json::{Value, json};

use super::auth::{self, Who};
use super::failure::Failure;
use super::{Api, entry};
use crate::im::Reply;

/// Carries out a service call.
pub(super) async fn call(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    Path((service, op)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let caller = auth::caller(&who, &headers)?;
    let op = parse(&service, &op, &body?)?;
    carry_out(&api, &who, caller, op).await
}

/// `POST /v1/tokens`: as `tokens/create`; the body may name the `user`, for operators and in
/// development mode.
pub(super) async fn create_token(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let body = body?;
    let mut request: Value = match &*body {
        b"" => json!({}),
        body => {
            serde_json::from_slice(body).map_err(|error| Refusal::bad_request(error.to_string()))?
        }
    };
    // The user may stand in the body as well as in the header.
    if let Some(user) = request.as_object_mut().and_then(|fields| fields.remove("user")) {
        let user = user.as_str().and_then(|user| user.parse().ok());
        let user = user.ok_or_else(|| Refusal::bad_request("user: expected an id"))?;
        headers.insert("x-hoopoe-user", user);
    }
    let op = parse("tokens", "create", request.to_string().as_bytes())?;
    let caller = match &who {
        Who::Nobody if auth::in_development(&api, peer) => {
            let user = auth::named_user(&headers)?;
            let message = "user: in development mode, name the user that the token is for";
            let user = user.ok_or_else(|| Refusal::bad_request(message))?;
            Caller { user, device: "".into(), privileged: false }
        }
        who => auth::caller(who, &headers)?,
    };
    carry_out(&api, &who, caller, op).await
}

async fn carry_out(
    api: &Api,
    who: &Who,
    caller: Caller,
    mut op: Op,
) -> Result<Json<Value>, Failure> {
    if let Op::TokensCreate(create) = &mut op {
        keep_to_device(who, &mut create.device)?;
    }
    let me = caller.user.id.clone();
    let call = Call { caller, op, asker: Asker::Nobody };
    let reply = api.answer(api.env.im.call(&api.env.fabric, call)).await?;
    answered(reply, &me).map(Json)
}

/// A token that is bound to a device makes no tokens for others.
fn keep_to_device(who: &Who, device: &mut Option<String>) -> Result<(), Failure> {
    let Who::User(user) = who else { return Ok(()) };
    let Some(bound) = &user.device else { return Ok(()) };
    match device {
        None => *device = Some(bound.to_string()),
        Some(device) if **device == **bound => {}
        Some(_) => {
            let message = "device: the token of this call is bound to another";
            return Err(Refusal::not_allowed(message).into());
        }
    }
    Ok(())
}

/// An answer as JSON; that to a pull with its entries.
pub(super) fn answered(reply: Reply, me: &str) -> Result<Value, Failure> {
    match reply {
        Reply::Answer(Answer::Value(value)) => Ok(value),
        Reply::Answer(Answer::Done) => Ok(json!({})),
        Reply::Answer(Answer::Sent { sent, repeated }) => {
            let mut value = json!({
                "seq": sent.seq, "id": sent.id.to_string(), "ts": sent.ts_ms,
            });
            if repeated {
                value["dup"] = true.into();
            }
            Ok(value)
        }
        Reply::Answer(Answer::Refused(refusal)) => Err(refusal.into()),
        Reply::Found(found) => {
            let mut value = found.value;
            // Pulls give `count` and `conv`; over MQTT the entries are publications of their own.
            if value.get("count").is_some() && value.get("conv").is_some() {
                let entries = found.entries.iter().map(|found| entry::shown(found, me));
                value["entries"] = entries.collect::<Vec<_>>().into();
            }
            Ok(value)
        }
    }
}
