//! `POST /v1/messages`: what back ends send (ruling 20). No policy of users holds it back.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use base64ct::{Base64, Encoding};
use hoopoe_codec::PublishProperties;
use hoopoe_im::id::{ConvKey, is_id};
use hoopoe_im::refusal::Refusal;
use hoopoe_im::{Command, User};
use serde::Deserialize;
use serde_json::Value;

use super::auth::{self, Who};
use super::failure::Failure;
use super::{Api, service};
use crate::clock::now_ms;

/// Seconds until a message expires, at most: as MQTT counts them.
const EXPIRY_MAX_SECS: u64 = u32::MAX as u64;

/// The request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    /// The conversation as the sender calls it: `u/bob`, `g/team`, `c/news`.
    to: String,
    /// The sender; a service account itself without it.
    from: Option<String>,
    /// Client message id.
    cid: String,
    /// The payload as text.
    payload: Option<String>,
    /// The payload as bytes.
    payload_base64: Option<String>,
    /// Content type of MQTT 5.
    content_type: Option<String>,
    /// Seconds until it expires.
    expiry: Option<u64>,
    /// Users mentioned, or `all`.
    at: Option<At>,
}

/// Who is mentioned.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum At {
    /// `"all"`
    Word(String),
    /// Users by id; `all` may be among them.
    Users(Vec<String>),
}

/// Sends a message for a back end.
pub(super) async fn send(
    State(api): State<Arc<Api>>,
    Extension(who): Extension<Who>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Failure> {
    let (tenant, own) = match &who {
        Who::Admin => (auth::tenant(&headers)?, None),
        Who::User(user) if user.service => {
            (user.user.tenant.clone(), Some(user.user.id.to_string()))
        }
        Who::User(_) => {
            let message = "only service accounts and operators send over HTTP";
            return Err(Refusal::not_allowed(message).into());
        }
        Who::Nobody => return Err(Failure::unauthorized("expected Authorization: Bearer")),
    };
    let body = body?;
    let message = parsed(&body)?;
    let from = message.from.clone().or(own);
    let from = from.ok_or_else(|| Refusal::bad_request("from: name the sender"))?;
    if !is_id(&from) {
        return Err(Refusal::bad_request(format!("from: {from:?} is no valid id")).into());
    }
    let mut send = read(message, User { tenant, id: from.into() }, now_ms())?;
    let Some((asker, waiting)) = api.env.im.wait() else {
        return Err(api.answer(None).await.err().unwrap_or_else(Failure::too_many));
    };
    send.asker = asker;
    let me = send.from.id.clone();
    api.command(Command::Send(Box::new(send)));
    let reply = api.answer(Some(waiting)).await?;
    service::answered(reply, &me).map(Json)
}

fn parsed(body: &[u8]) -> Result<Message, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(error.to_string()))
}

/// Whether a body is a request at all.
///
/// # Errors
/// What is wrong in it and where.
pub(super) fn check(body: &[u8]) -> Result<(), Refusal> {
    parsed(body).map(drop)
}

fn read(message: Message, from: User, now_ms: u64) -> Result<hoopoe_im::command::Send, Refusal> {
    let Message { to, cid, payload, payload_base64, content_type, expiry, at, .. } = message;
    let conv = ConvKey::from_wire(&from.tenant, &from.id, &to).ok_or_else(|| {
        Refusal::bad_request(format!("to: {to:?} is not u/…, g/… or c/… with a valid id"))
    })?;
    if !is_id(&cid) {
        return Err(Refusal::bad_request(format!("cid: {cid:?} is no valid id")));
    }
    let payload = match (payload, payload_base64) {
        (Some(text), None) => text.into_bytes(),
        (None, Some(base64)) => Base64::decode_vec(&base64)
            .map_err(|_| Refusal::bad_request("payload_base64: no base64 with padding"))?,
        (None, None) => Vec::new(),
        (Some(_), Some(_)) => {
            return Err(Refusal::bad_request("payload and payload_base64: expected one"));
        }
    };
    let content_type = content_type.as_deref();
    if content_type.is_some_and(|text| text.len() > 256 || text.contains('\0')) {
        return Err(Refusal::bad_request("content_type: at most 256 bytes, none of them zero"));
    }
    if expiry.is_some_and(|secs| secs > EXPIRY_MAX_SECS) {
        return Err(Refusal::bad_request(format!("expiry: at most {EXPIRY_MAX_SECS}")));
    }
    let users = match at {
        None => Vec::new(),
        Some(At::Word(word)) => vec![word],
        Some(At::Users(users)) => users,
    };
    if let Some(user) = users.iter().find(|user| !is_id(user)) {
        return Err(Refusal::bad_request(format!("at: {user:?} is no valid id")));
    }
    let at_all = users.iter().any(|user| user == "all");
    let mentions = users.iter().filter(|user| *user != "all").map(|user| user.as_str().into());
    let mut properties = PublishProperties::default();
    properties.content_type = content_type;
    Ok(hoopoe_im::command::Send {
        conv,
        mentions: mentions.collect(),
        at_all,
        from,
        device: "".into(),
        cid: Some(cid.into()),
        burn_secs: 0,
        properties: properties.forwardable().into_owned().into(),
        payload: payload.into(),
        expires_at_ms: expiry.map(|secs| now_ms + secs * 1000),
        marker: None,
        privileged: true,
        asker: hoopoe_im::Asker::Nobody,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(body: &str) -> Result<hoopoe_im::command::Send, String> {
        let message = parsed(body.as_bytes()).map_err(|refusal| refusal.message.into_owned())?;
        let from = User { tenant: "t".into(), id: "shop".into() };
        read(message, from, 1_000).map_err(|refusal| refusal.message.into_owned())
    }

    #[test]
    fn a_message_is_read_as_a_device_would_send_it() {
        let send = sent(
            r#"{"to":"u/bob","cid":"order-7","payload_base64":"aGk=","content_type":"text/plain",
                "expiry":2,"at":["bob","all"]}"#,
        )
        .unwrap();
        assert_eq!(send.conv, ConvKey::pair("t", "shop", "bob"));
        assert_eq!((&*send.payload, send.cid.as_deref()), (&b"hi"[..], Some("order-7")));
        assert_eq!(send.expires_at_ms, Some(3_000));
        assert!(send.privileged && send.at_all);
        assert_eq!(send.mentions, ["bob".into()]);
        let properties = PublishProperties::from_forwardable(&send.properties);
        assert_eq!(properties.content_type, Some("text/plain"));
        assert!(sent(r#"{"to":"g/team","cid":"1","at":"all"}"#).unwrap().at_all);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, names) in [
            (r#"{"to":"u/bob"}"#, "cid"),
            (r#"{"cid":"1"}"#, "to"),
            (r#"{"to":"bob","cid":"1"}"#, "to:"),
            (r#"{"to":"u/bob","cid":""}"#, "cid:"),
            (r#"{"to":"u/bob","cid":"1","payload":"a","payload_base64":"YQ=="}"#, "expected one"),
            (r#"{"to":"u/bob","cid":"1","payload_base64":"YQ"}"#, "payload_base64"),
            (r#"{"to":"u/bob","cid":"1","expiry":4294967296}"#, "expiry"),
            (r#"{"to":"u/bob","cid":"1","at":["a b"]}"#, "at:"),
            (r#"{"to":"u/bob","cid":"1","colour":"red"}"#, "colour"),
        ] {
            let error = sent(body).unwrap_err();
            assert!(error.contains(names), "{body}: {error}");
        }
    }
}
