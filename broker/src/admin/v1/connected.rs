//! `admin/clients`: who is connected, asked of every worker.

use std::sync::Arc;

use hoopoe_codec::ReasonCode;
use hoopoe_im::refusal::Refusal;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::failure::Failure;
use super::operator::{Clients, Kick};
use super::users::page_size;
use super::{ANSWER_TIMEOUT, Api};
use crate::connection::{Census, ClientFacts};
use crate::fabric::Mail;

pub(super) async fn list(api: &Api, tenant: Arc<str>, request: Clients) -> Result<Value, Failure> {
    let limit = page_size(request.limit)?;
    let after = request.next.as_deref().map(place).transpose()?;
    let Clients { user, client, text, .. } = request;
    let question = |reply| Census {
        tenant: tenant.clone(),
        user: user.clone(),
        client: client.clone(),
        part: text.clone(),
        after: after.clone(),
        limit: limit + 1,
        kick: None,
        reply,
    };
    let mut clients = ask(api, question).await?;
    clients.sort();
    let more = clients.len() > limit;
    clients.truncate(limit);
    let next = clients.last().filter(|_| more).map(|last| format!("{}/{}", last.user, last.client));
    let mut answer = json!({ "clients": clients.iter().map(shown).collect::<Vec<_>>() });
    if let Some(next) = next {
        answer["next"] = next.into();
    }
    Ok(answer)
}

pub(super) async fn kick(api: &Api, tenant: Arc<str>, request: Kick) -> Result<Value, Failure> {
    let Kick { user, client } = request;
    if user.is_none() && client.is_none() {
        return Err(Refusal::bad_request("user, client: name at least one of them").into());
    }
    let question = |reply| Census {
        tenant: tenant.clone(),
        user: user.clone(),
        client: client.clone(),
        part: None,
        after: None,
        limit: usize::MAX,
        kick: Some(ReasonCode::AdministrativeAction),
        reply,
    };
    let kicked = ask(api, question).await?.len();
    if kicked == 0 {
        return Err(Refusal::not_found("no such client is connected").into());
    }
    Ok(json!({ "kicked": kicked }))
}

/// The place behind a client, as `next` spells it: no user has a slash in its id.
fn place(next: &str) -> Result<(String, String), Refusal> {
    let (user, client) =
        next.split_once('/').ok_or_else(|| Refusal::bad_request("next: not from an answer"))?;
    Ok((user.to_owned(), client.to_owned()))
}

async fn ask(
    api: &Api,
    question: impl Fn(oneshot::Sender<Vec<ClientFacts>>) -> Census,
) -> Result<Vec<ClientFacts>, Failure> {
    let answers: Vec<oneshot::Receiver<Vec<ClientFacts>>> = api
        .env
        .fabric
        .workers
        .iter()
        .map(|worker| {
            let (reply, answer) = oneshot::channel();
            worker.put(Mail::Census(Box::new(question(reply))));
            answer
        })
        .collect();
    let mut clients = Vec::new();
    for answer in answers {
        match tokio::time::timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(found)) => clients.extend(found),
            _ => return Err(Failure::unavailable("a worker does not answer")),
        }
    }
    Ok(clients)
}

fn shown(client: &ClientFacts) -> Value {
    json!({
        "user": client.user, "client": client.client, "address": client.address,
        "listener": client.listener, "version": client.version, "im": client.im,
        "keep_alive": client.keep_alive_secs, "expiry": client.expiry_secs,
        "subscriptions": client.subscriptions.len(), "in_flight": client.in_flight,
    })
}

/// The filters of clients whose sessions end with their connections: stored ones are in the store.
pub(super) async fn filters_of(
    api: &Api,
    tenant: Arc<str>,
    request: &Clients,
) -> Result<Vec<ClientFacts>, Failure> {
    let question = |reply| Census {
        tenant: tenant.clone(),
        user: request.user.clone(),
        client: request.client.clone(),
        part: request.text.clone(),
        after: None,
        limit: usize::MAX,
        kick: None,
        reply,
    };
    let mut clients = ask(api, question).await?;
    clients.retain(|client| client.expiry_secs == 0 && !client.subscriptions.is_empty());
    Ok(clients)
}
