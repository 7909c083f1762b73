//! `hoopoe ctl`: what operators ask a running broker. It speaks to the HTTP listener; every order
//! is one operation of the API, and every list is fetched to its end or to `--limit`.

mod client;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use super::passwd::{ask, first_line};
use crate::cli::{
    BridgesOrder, ClientsOrder, CtlArgs, CtlOrder, RetainedOrder, SessionsOrder, SitesOrder,
    UsersOrder, Which,
};
use client::Client;

/// Items asked for at a time.
const PAGE: usize = 200;

/// An operation, and how its answer is shown.
struct Request {
    path: String,
    body: Value,
    user: Option<String>,
    /// The list in the answer, its columns, and items at most.
    list: Option<(&'static str, &'static [&'static str], usize)>,
}

impl Request {
    fn new(path: &str, body: Value) -> Request {
        Request { path: path.to_owned(), body, user: None, list: None }
    }

    fn list(
        path: &str,
        body: Value,
        name: &'static str,
        columns: &'static [&'static str],
        limit: usize,
    ) -> Request {
        Request { list: Some((name, columns, limit)), ..Request::new(path, body) }
    }
}

/// Carries out an order.
///
/// # Errors
/// When the broker cannot be asked, or refuses.
pub fn ctl(args: &CtlArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("{}: no token", file.display()))?;
            Some(text.lines().next().unwrap_or_default().trim().to_owned())
        }
        (None, None) => None,
    };
    let client = Client::new(&args.url, token, args.tenant.clone())?;
    let request = request(&args.order)?;
    let Some((name, columns, limit)) = request.list else {
        let answer = client.post(&request.path, &request.body, request.user.as_deref())?;
        writeln!(out, "{}", if args.json { answer.to_string() } else { table::lines(&answer) })?;
        return Ok(ExitCode::SUCCESS);
    };
    let items = fetch(&client, &request, name, limit)?;
    if args.json {
        writeln!(out, "{}", Value::Array(items))?;
    } else {
        write!(out, "{}", table::table(columns, &items))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// All pages of a list.
fn fetch(
    client: &Client,
    request: &Request,
    name: &str,
    limit: usize,
) -> anyhow::Result<Vec<Value>> {
    let (mut items, mut body) = (Vec::new(), request.body.clone());
    while items.len() < limit {
        body["limit"] = json!(PAGE.min(limit - items.len()));
        let mut answer = client.post(&request.path, &body, request.user.as_deref())?;
        let Some(Value::Array(page)) = answer.get_mut(name).map(Value::take) else {
            bail!("the broker's answer has no {name}");
        };
        items.extend(page);
        match answer.get("next") {
            Some(next) => body["next"] = next.clone(),
            None => break,
        }
    }
    items.truncate(limit);
    Ok(items)
}

fn request(order: &CtlOrder) -> anyhow::Result<Request> {
    Ok(match order {
        CtlOrder::Users(order) => users(order)?,
        CtlOrder::Token { user, ttl, device } => Request::new(
            "tokens",
            fields([("user", json!(user)), ("ttl", json!(ttl)), ("device", json!(device))]),
        ),
        CtlOrder::Clients(ClientsOrder::List(which)) => {
            let columns = &["user", "client", "address", "version", "im", "subscriptions"];
            Request::list("admin/clients/list", chosen(which), "clients", columns, which.limit)
        }
        CtlOrder::Clients(ClientsOrder::Kick { user, client }) => {
            let body = fields([("user", json!(user)), ("client", json!(client))]);
            Request::new("admin/clients/kick", body)
        }
        CtlOrder::Sessions(SessionsOrder::List(which)) => {
            let columns = &["user", "client", "connected", "subscriptions", "queued_messages"];
            Request::list("admin/sessions/list", chosen(which), "sessions", columns, which.limit)
        }
        CtlOrder::Sessions(SessionsOrder::Delete { client, user }) => {
            Request::new("admin/sessions/delete", json!({ "user": user, "client": client }))
        }
        CtlOrder::Subscriptions(which) => {
            let columns = &["user", "client", "filter", "qos"];
            let (path, name) = ("admin/subscriptions/list", "subscriptions");
            Request::list(path, chosen(which), name, columns, which.limit)
        }
        CtlOrder::Queues(which) => {
            let columns = &["user", "client", "messages", "bytes"];
            Request::list("admin/queues/list", chosen(which), "sessions", columns, which.limit)
        }
        CtlOrder::Retained(RetainedOrder::List { filter, limit }) => {
            let columns = &["topic", "qos", "bytes", "payload"];
            let body = json!({ "filter": filter });
            Request::list("admin/retained/list", body, "messages", columns, *limit)
        }
        CtlOrder::Retained(RetainedOrder::Delete { topic }) => {
            Request::new("admin/retained/delete", json!({ "topic": topic }))
        }
        CtlOrder::Bridges(BridgesOrder::List) => {
            let columns =
                &["name", "url", "state", "queued", "in_flight", "lag_ms", "connects", "failures"];
            Request::list("admin/bridges/list", json!({}), "bridges", columns, usize::MAX)
        }
        CtlOrder::Bridges(BridgesOrder::Pause { name }) => {
            Request::new("admin/bridges/pause", json!({ "name": name }))
        }
        CtlOrder::Bridges(BridgesOrder::Resume { name }) => {
            Request::new("admin/bridges/resume", json!({ "name": name }))
        }
        CtlOrder::Bridges(BridgesOrder::DropQueue { name }) => {
            Request::new("admin/bridges/drop-queue", json!({ "name": name }))
        }
        CtlOrder::Sites(SitesOrder::List) => {
            let columns =
                &["site", "state", "since", "owed", "owed_bytes", "held", "lag_ms", "losses"];
            Request::list("admin/sites/list", json!({}), "sites", columns, usize::MAX)
        }
        CtlOrder::Sites(SitesOrder::Pause { site }) => {
            Request::new("admin/sites/pause", json!({ "site": site }))
        }
        CtlOrder::Sites(SitesOrder::Resume { site }) => {
            Request::new("admin/sites/resume", json!({ "site": site }))
        }
        CtlOrder::Audit { limit } => {
            let columns = &["number", "ts", "who", "address", "call", "status", "about"];
            Request::list("admin/audit/list", json!({}), "records", columns, *limit)
        }
        CtlOrder::Call { path, body, user } => {
            let body = serde_json::from_str(body).context("the request is no JSON")?;
            Request { user: user.clone(), ..Request::new(path, body) }
        }
    })
}

fn users(order: &UsersOrder) -> anyhow::Result<Request> {
    Ok(match order {
        UsersOrder::Create { user, roles, no_password, stdin } => {
            let password = password(user, *no_password, *stdin)?;
            let body = fields([
                ("user", json!(user)),
                ("roles", json!(roles)),
                ("password", json!(password)),
            ]);
            Request::new("admin/users/create", body)
        }
        UsersOrder::Reset { user, no_password, stdin } => {
            let password = password(user, *no_password, *stdin)?;
            let body = fields([("user", json!(user)), ("password", json!(password))]);
            Request::new("admin/users/reset", body)
        }
        UsersOrder::Disable { user } => {
            Request::new("admin/users/disable", json!({ "user": user }))
        }
        UsersOrder::Enable { user } => Request::new("admin/users/enable", json!({ "user": user })),
        UsersOrder::Delete { user, erase } => {
            Request::new("admin/users/delete", json!({ "user": user, "erase": erase }))
        }
        UsersOrder::Export { user } => Request::new("admin/users/export", json!({ "user": user })),
        UsersOrder::List { text, limit } => {
            let columns = &["user", "roles", "disabled", "password", "created"];
            let body = fields([("text", json!(text))]);
            Request::list("admin/users/list", body, "users", columns, *limit)
        }
    })
}

fn password(user: &str, none: bool, stdin: bool) -> anyhow::Result<Option<String>> {
    if none {
        return Ok(None);
    }
    let password = if stdin { first_line(io::stdin().lock())? } else { ask(user)? };
    if password.is_empty() {
        bail!("the password is empty");
    }
    Ok(Some(password))
}

/// A body without the fields that nobody named.
fn fields<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    let named = pairs.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(named.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn chosen(which: &Which) -> Value {
    let Which { user, client, text, .. } = which;
    fields([("user", json!(user)), ("client", json!(client)), ("text", json!(text))])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn asked(line: &str) -> (String, Value) {
        let Command::Ctl(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command
        else {
            panic!("ctl");
        };
        let request = request(&args.order).unwrap();
        (request.path, request.body)
    }

    #[test]
    fn every_order_is_an_operation() {
        for (line, path, body) in [
            (
                "hoopoe ctl users create shop --role service --no-password",
                "admin/users/create",
                json!({ "user": "shop", "roles": ["service"] }),
            ),
            ("hoopoe ctl users disable a", "admin/users/disable", json!({ "user": "a" })),
            ("hoopoe ctl users list", "admin/users/list", json!({})),
            ("hoopoe ctl token a --ttl 9", "tokens", json!({ "user": "a", "ttl": 9 })),
            ("hoopoe ctl clients list --user a", "admin/clients/list", json!({ "user": "a" })),
            ("hoopoe ctl clients kick --client c", "admin/clients/kick", json!({ "client": "c" })),
            (
                "hoopoe ctl sessions delete c",
                "admin/sessions/delete",
                json!({ "user": "", "client": "c" }),
            ),
            ("hoopoe ctl retained list", "admin/retained/list", json!({ "filter": "#" })),
            ("hoopoe ctl bridges list", "admin/bridges/list", json!({})),
            ("hoopoe ctl bridges drop-queue b", "admin/bridges/drop-queue", json!({ "name": "b" })),
            ("hoopoe ctl sites list", "admin/sites/list", json!({})),
            ("hoopoe ctl sites pause ny", "admin/sites/pause", json!({ "site": "ny" })),
            ("hoopoe ctl audit", "admin/audit/list", json!({})),
            ("hoopoe ctl call time/now --as a", "time/now", json!({})),
        ] {
            assert_eq!(asked(line), (path.to_owned(), body), "{line}");
        }
        assert!(Cli::try_parse_from(["hoopoe", "ctl", "clients", "kick"]).is_err());
    }
}
