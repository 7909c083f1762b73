//! `admin/users`: accounts in the store.

use std::sync::Arc;

use hoopoe_im::refusal::Refusal;
use hoopoe_im::room::KeepRoom;
use hoopoe_im::service::query::{PAGE_DEFAULT, PAGE_MAX};
use hoopoe_im::user::account::{Account, AccountChange, AccountCommand};
use hoopoe_im::{Command, User};
use serde_json::{Value, json};

use super::failure::Failure;
use super::operator::{Search, UserCreate, UserDelete, UserReset};
use super::{Api, service};
use crate::access::hash_password;
use crate::clock::now_ms;

/// Bytes of a password: more is a mistake.
const PASSWORD_BYTES_MAX: usize = 1024;

pub(super) async fn create(
    api: &Api,
    tenant: Arc<str>,
    request: UserCreate,
) -> Result<Value, Failure> {
    let password = hashed(api, request.password).await?;
    let roles = request.roles.iter().map(|role| role.as_str().into()).collect();
    let account = Account { password, roles, ..Account::default() };
    change(api, tenant, request.user, AccountChange::Create(account)).await
}

pub(super) async fn reset(
    api: &Api,
    tenant: Arc<str>,
    request: UserReset,
) -> Result<Value, Failure> {
    let password = hashed(api, request.password).await?;
    change(api, tenant, request.user, AccountChange::Reset(password)).await
}

pub(super) async fn disable(api: &Api, tenant: Arc<str>, user: String) -> Result<Value, Failure> {
    change(api, tenant, user, AccountChange::Disable).await
}

pub(super) async fn enable(api: &Api, tenant: Arc<str>, user: String) -> Result<Value, Failure> {
    change(api, tenant, user, AccountChange::Enable).await
}

pub(super) async fn delete(
    api: &Api,
    tenant: Arc<str>,
    request: UserDelete,
) -> Result<Value, Failure> {
    let UserDelete { user, erase } = request;
    let deleted = AccountChange::Delete { erase };
    let answer = change(api, tenant.clone(), user.clone(), deleted).await?;
    if erase {
        erase_from_rooms(api, &tenant, &user).await?;
    }
    Ok(answer)
}

/// The user's connections are being ended: nothing new comes. What is answered is on disk; whoever
/// hears of a fault, or nothing, erases again.
async fn erase_from_rooms(api: &Api, tenant: &str, user: &str) -> Result<(), Failure> {
    let rooms = &api.env.im.rooms;
    for (id, row) in rooms.erase(now_ms(), tenant, user) {
        let Some((asker, waiting)) = api.env.im.wait() else {
            return Err(Failure::too_many());
        };
        let (of, room) = (tenant.into(), (&*id).into());
        let keep = KeepRoom { tenant: of, room, row, answer: json!({}), asker };
        api.command(Command::KeepRoom(Box::new(keep)));
        service::answered(api.answer(Some(waiting)).await?, user)?;
        rooms.row_stored(tenant, &id);
    }
    Ok(())
}

pub(super) async fn export(
    api: &Arc<Api>,
    tenant: Arc<str>,
    user: String,
) -> Result<Value, Failure> {
    let user = User { tenant, id: user.into() };
    api.read(move |query| query.export(&user)).await
}

pub(super) fn list(api: &Api, tenant: &str, search: &Search) -> Result<Value, Failure> {
    let limit = page_size(search.limit)?;
    let text = search.text.as_deref().unwrap_or_default();
    let accounts = api.env.access.accounts();
    let mut found = accounts.search(tenant, text, search.next.as_deref(), limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let users: Vec<Value> = found.iter().map(|(user, account)| account.shown(user)).collect();
    let mut answer = json!({ "users": users });
    if let Some((last, _)) = found.last().filter(|_| more) {
        answer["next"] = json!(last);
    }
    Ok(answer)
}

/// Items of a page, within the bounds of all lists.
pub(super) fn page_size(limit: Option<u32>) -> Result<usize, Refusal> {
    match limit {
        None => Ok(PAGE_DEFAULT),
        Some(limit) if (1..=PAGE_MAX).contains(&(limit as usize)) => Ok(limit as usize),
        Some(_) => Err(Refusal::bad_request(format!("limit: from 1 to {PAGE_MAX}"))),
    }
}

async fn change(
    api: &Api,
    tenant: Arc<str>,
    user: String,
    change: AccountChange,
) -> Result<Value, Failure> {
    let Some((asker, waiting)) = api.env.im.wait() else {
        return Err(Failure::too_many());
    };
    let user = User { tenant, id: user.into() };
    let me = user.id.clone();
    api.command(Command::Account(Box::new(AccountCommand { user, change, asker })));
    let reply = api.answer(Some(waiting)).await?;
    service::answered(reply, &me)
}

/// Hashes a password away from the control thread, a few at a time.
async fn hashed(api: &Api, password: Option<String>) -> Result<Option<Arc<str>>, Failure> {
    let Some(password) = password else { return Ok(None) };
    if password.is_empty() || password.len() > PASSWORD_BYTES_MAX {
        let message = format!("password: from 1 to {PASSWORD_BYTES_MAX} bytes");
        return Err(Refusal::bad_request(message).into());
    }
    // The semaphore is never closed.
    let _place = api.slow.acquire().await.ok();
    let hash = tokio::task::spawn_blocking(move || hash_password(password.as_bytes())).await;
    match hash {
        Ok(Ok(hash)) => Ok(Some(hash.into())),
        _ => Err(Failure::unavailable("the password could not be hashed")),
    }
}
