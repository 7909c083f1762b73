//! `POST /v1/{service}/{op}`: the services, by the handlers that devices reach over MQTT.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::{HeaderMap, header};
use axum::{Extension, Json};
use hoopoe_im::refusal::Refusal;
use hoopoe_im::service::parse::MOST_BODY_BYTES;
use hoopoe_im::service::{Call, Caller, Op, parse};
use hoopoe_im::{Answer, Asker};
use serde_json::{Value, json};

use super::auth::{self, Who};
use super::failure::Failure;
use super::{Api, entry, operator};
use crate::im::Reply;

/// Carries out a service call.
pub(super) async fn call(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path((service, op)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let caller = auth::caller(&who, &headers)?;
    let body = sized(body?)?;
    let name = format!("{service}/{op}");
    let op = parse(&service, &op, &body)?;
    let recorded = op.writes().then(|| (name.clone(), operator::about(&body)));
    carry_out(&api, &who, peer, caller, (op, Some((&name, &body))), recorded).await.map(Json)
}

/// `POST /v1/tokens`: as `tokens/create`. Users who have no token yet show their password
/// (`Authorization: Basic`); the body may name the `user`, for operators and in development mode.
pub(super) async fn create_token(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let body = sized(body?)?;
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
        Who::Nobody if headers.contains_key(header::AUTHORIZATION) => {
            let user = auth::by_password(&api, &headers).await?;
            Caller { user, device: "".into(), privileged: false }
        }
        Who::Nobody if auth::in_development(&api, peer) => {
            let user = auth::named_user(&headers)?;
            let message = "user: in development mode, name the user that the token is for";
            let user = user.ok_or_else(|| Refusal::bad_request(message))?;
            Caller { user, device: "".into(), privileged: false }
        }
        who => auth::caller(who, &headers)?,
    };
    let recorded = Some(("tokens".to_owned(), request));
    carry_out(&api, &who, peer, caller, (op, None), recorded).await.map(Json)
}

/// A request's body, if it is no larger than over MQTT.
fn sized(body: Bytes) -> Result<Bytes, Failure> {
    if body.len() > MOST_BODY_BYTES {
        let text = format!("body larger than {MOST_BODY_BYTES} bytes");
        return Err(Refusal::too_large(text).into());
    }
    Ok(body)
}

/// Carries a call out. `named`: its name and body, for another site. `recorded`: what is recorded
/// of it if an operator makes it.
async fn carry_out(
    api: &Api,
    who: &Who,
    peer: SocketAddr,
    caller: Caller,
    (mut op, named): (Op, Option<(&str, &[u8])>),
    recorded: Option<(String, Value)>,
) -> Result<Value, Failure> {
    if let Op::TokensCreate(create) = &mut op {
        keep_to_device(who, &mut create.device)?;
    }
    let me = caller.user.id.clone();
    let call = Call { caller, op, asker: Asker::Nobody };
    let elsewhere = match named {
        Some((name, body)) => api.env.im.call_elsewhere(&call, name, body).transpose()?,
        None => None,
    };
    let waiting = match elsewhere {
        Some(waiting) => Some(waiting),
        None => api.env.im.call(&api.env.fabric, call),
    };
    let answer = match api.answer(waiting).await {
        Ok(reply) => answered(reply, &me),
        Err(failure) => Err(failure),
    };
    if let (Who::Admin, Some((name, request))) = (who, recorded) {
        let about = json!({ "user": me, "request": request });
        operator::record(api, peer, name, about, &answer).await;
    }
    answer
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
        Reply::Answer(Answer::Held) => Ok(json!({ "held": true })),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_too_large_is_413() {
        assert!(sized(vec![b' '; MOST_BODY_BYTES].into()).is_ok());
        let failure = sized(vec![b' '; MOST_BODY_BYTES + 1].into()).unwrap_err();
        assert_eq!(failure, Refusal::too_large("body larger than 65536 bytes").into());
        assert_eq!(failure.status().as_u16(), 413);
        assert_eq!(Failure::too_many().status().as_u16(), 429);
    }
}
