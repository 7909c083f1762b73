//! `admin/sessions`, `subscriptions`, `queues` and `retained`: what the store holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64ct::{Base64, Encoding};
use hoopoe_codec::{QoS, check_filter, check_topic};
use hoopoe_core::index::topic_hash;
use hoopoe_core::{PublicationParts, SessionId, SessionKey};
use hoopoe_im::refusal::Refusal;
use hoopoe_store::command::{Publish, retained_slot};
use hoopoe_store::{Command, SessionSurvey};
use serde_json::{Value, json};

use super::failure::Failure;
use super::operator::{Clients, OneSession, Retained};
use super::users::page_size;
use super::{Api, connected};
use crate::clock::now_ms;

/// Bytes of retained messages in one answer, about.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// A stored session as `admin/sessions/list` shows it.
pub(super) fn as_session(session: &SessionSurvey) -> Value {
    json!({
        "user": session.key.user, "client": session.key.client, "expiry": session.expiry_secs,
        "connected": session.disconnected_at_ms == 0,
        "disconnected_at": session.disconnected_at_ms,
        "subscriptions": session.subscriptions.len(),
        "queued_messages": session.queued_messages, "queued_bytes": session.queued_bytes,
    })
}

/// A stored session as `admin/queues/list` shows it.
pub(super) fn as_queue(session: &SessionSurvey) -> Value {
    json!({
        "user": session.key.user, "client": session.key.client,
        "messages": session.queued_messages, "bytes": session.queued_bytes,
    })
}

pub(super) async fn sessions(
    api: &Arc<Api>,
    tenant: Arc<str>,
    request: Clients,
    shown: fn(&SessionSurvey) -> Value,
) -> Result<Value, Failure> {
    let limit = page_size(request.limit)?;
    let after = request.next.as_deref().map(session_id).transpose()?;
    let (mut found, more) = survey(api, tenant, request, after, limit).await?;
    found.truncate(limit);
    let mut answer = json!({ "sessions": found.iter().map(shown).collect::<Vec<_>>() });
    if let Some(last) = found.last().filter(|_| more) {
        answer["next"] = format!("{:016x}", last.id.0).into();
    }
    Ok(answer)
}

/// Subscriptions: of stored sessions page by page, of all others with the first page.
pub(super) async fn subscriptions(
    api: &Arc<Api>,
    tenant: Arc<str>,
    request: Clients,
) -> Result<Value, Failure> {
    let limit = page_size(request.limit)?;
    let after = request.next.as_deref().map(session_id).transpose()?;
    let mut lines = Vec::new();
    if after.is_none() {
        for client in connected::filters_of(api, tenant.clone(), &request).await? {
            let filters = client.subscriptions.iter().map(
                |filter| json!({ "user": client.user, "client": client.client, "filter": filter }),
            );
            lines.extend(filters);
        }
    }
    let (mut found, more) = survey(api, tenant, request, after, limit).await?;
    found.truncate(limit);
    for session in &found {
        let (user, client) = (&session.key.user, &session.key.client);
        let filters = session.subscriptions.iter().map(
            |(filter, qos)| json!({ "user": user, "client": client, "filter": filter, "qos": qos }),
        );
        lines.extend(filters);
    }
    let mut answer = json!({ "subscriptions": lines });
    if let Some(last) = found.last().filter(|_| more) {
        answer["next"] = format!("{:016x}", last.id.0).into();
    }
    Ok(answer)
}

async fn survey(
    api: &Arc<Api>,
    tenant: Arc<str>,
    request: Clients,
    after: Option<SessionId>,
    limit: usize,
) -> Result<(Vec<SessionSurvey>, bool), Failure> {
    let Clients { user, client, text, .. } = request;
    let found = api
        .look(move |reader| {
            reader.survey_sessions(after, limit + 1, |key| {
                *key.tenant == *tenant
                    && user.as_ref().is_none_or(|user| **user == *key.user)
                    && client.as_ref().is_none_or(|client| **client == *key.client)
                    && text.as_ref().is_none_or(|text| key.client.contains(text.as_str()))
            })
        })
        .await?;
    let more = found.len() > limit;
    Ok((found, more))
}

fn session_id(next: &str) -> Result<SessionId, Refusal> {
    let id = u64::from_str_radix(next, 16);
    id.map(SessionId).map_err(|_| Refusal::bad_request("next: not from an answer"))
}

/// The session's connection, if it has one, is told to go.
pub(super) fn delete_session(
    api: &Api,
    tenant: Arc<str>,
    request: OneSession,
) -> Result<Value, Failure> {
    let key = SessionKey::new(tenant, request.user, request.client);
    let fabric = &api.env.fabric;
    let slot = key.slot();
    fabric.shards[fabric.shard_of(slot)].put(Command::Evict { key }.into());
    Ok(json!({}))
}

pub(super) async fn retained(api: &Arc<Api>, request: Retained) -> Result<Value, Failure> {
    let limit = page_size(request.limit)?;
    let filter = request.filter.unwrap_or_else(|| "#".to_owned());
    if let Err(fault) = check_filter(&filter) {
        return Err(Refusal::bad_request(format!("filter: {fault}")).into());
    }
    let next = request.next;
    let page = api
        .look(move |reader| {
            reader.read_retained(now_ms(), &[&filter], next.as_deref(), limit, PAGE_BYTES_MAX)
        })
        .await?;
    let messages = page.messages.iter().map(|(_, message)| {
        let payload = message.payload();
        let mut shown = json!({
            "topic": message.topic(), "bytes": payload.len(),
            "qos": message.parts().qos as u8,
            "payload_base64": Base64::encode_string(payload),
        });
        if let Ok(text) = std::str::from_utf8(payload) {
            shown["payload"] = text.into();
        }
        shown
    });
    let mut answer = json!({ "messages": messages.collect::<Vec<_>>() });
    if let Some(next) = page.next {
        answer["next"] = next.into();
    }
    Ok(answer)
}

/// As a publication with RETAIN and no payload would, and nobody is told ([MQTT-3.3.1-6]).
pub(super) fn delete_retained(api: &Api, topic: &str) -> Result<Value, Failure> {
    if let Err(fault) = check_topic(topic) {
        return Err(Refusal::bad_request(format!("topic: {fault}")).into());
    }
    let parts = PublicationParts {
        topic,
        properties: &[],
        payload: b"",
        qos: QoS::AtMostOnce,
        retain: true,
        expires_at_ms: None,
    };
    let env = &api.env;
    env.retained.published(topic_hash(topic));
    env.retained.under_way.fetch_add(1, Ordering::AcqRel);
    let publish = Publish {
        publication: Arc::new(parts.to_publication()),
        receivers: Vec::new(),
        groups: Vec::new(),
        retain: true,
        marker: None,
        outbox: None,
        reply: None,
    };
    let shard = env.fabric.shard_of(retained_slot(topic));
    env.fabric.shards[shard].put(Command::Publish(Box::new(publish)).into());
    Ok(json!({}))
}
