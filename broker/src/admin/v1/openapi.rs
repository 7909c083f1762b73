//! `GET /v1/openapi.json`: the API for programs.
//!
//! The fields of requests are asked of the very readers that requests go through: what they expect
//! instead of a field nobody knows, what they miss, and which kinds of values they take. So the
//! document cannot differ from what the broker does.

use std::sync::OnceLock;

use axum::Json;
use axum::response::IntoResponse;
use hoopoe_im::service;
use serde_json::{Map, Value, json};

use super::table::{Callers, OPERATIONS, Operation};
use super::{message, operator};

/// Asks about fields of this name, which no request has.
const NOBODYS_FIELD: &str = "?";

/// The document.
pub(super) async fn show() -> impl IntoResponse {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    Json(DOCUMENT.get_or_init(document).clone())
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        paths.insert(format!("/v1/{}", operation.path), json!({ "post": described(operation) }));
    }
    paths.insert("/v1/openapi.json".to_owned(), page("This document", "application/json"));
    paths.insert("/health".to_owned(), page("The process lives", "text/plain"));
    paths.insert("/ready".to_owned(), page("Whether clients are served", "application/json"));
    paths.insert("/metrics".to_owned(), page("Metrics for Prometheus", "text/plain"));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hoopoe",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Services of the IM profile, messages of back ends, administration. \
                Times are ms since the epoch. The admin token acts for the user in X-Hoopoe-User.",
        },
        "security": [{ "bearer": [] }],
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["code", "error", "message"],
                    "properties": {
                        "code": { "type": "integer", "description": "MQTT 5.0 reason code" },
                        "error": { "type": "string" },
                        "message": { "type": "string" },
                    },
                },
            },
        },
        "paths": paths,
    })
}

fn page(summary: &str, media: &str) -> Value {
    json!({ "get": {
        "summary": summary, "security": [],
        "responses": { "200": { "description": summary, "content": { media: {} } } },
    } })
}

fn described(operation: &Operation) -> Value {
    let (tag, _) = operation.path.rsplit_once('/').unwrap_or((operation.path, ""));
    let answer: Map<String, Value> =
        operation.answer.iter().map(|field| ((*field).to_owned(), json!({}))).collect();
    let who = match operation.callers {
        Callers::Users => "A user's token, or the admin token for a user.",
        Callers::BackEnds => "The admin token, or the token of an account with role `service`.",
        Callers::Operators => "The admin token.",
    };
    json!({
        "operationId": operation.path.replace(['/', '-'], "_"),
        "summary": operation.summary,
        "description": who,
        "tags": [tag],
        "requestBody": { "content": { "application/json": { "schema": request(operation.path) } } },
        "responses": {
            "200": {
                "description": "Done",
                "content": { "application/json": { "schema": {
                    "type": "object", "properties": answer,
                } } },
            },
            "default": {
                "description": "Not done: 400, 401, 403, 404, 409, 413, 429 or 503",
                "content": { "application/json": { "schema": {
                    "$ref": "#/components/schemas/Error",
                } } },
            },
        },
    })
}

/// What the reader of an operation's requests says about a body: `None` when it takes it.
fn objection(path: &str, body: &Value) -> Option<String> {
    let body = body.to_string();
    let body = body.as_bytes();
    let mut levels = path.split('/');
    let refused = match (levels.next(), levels.next(), levels.next()) {
        (Some("messages"), None, None) => message::check(body).err(),
        (Some("tokens"), None, None) => service::parse("tokens", "create", body).err(),
        (Some("admin"), Some(noun), Some(op)) => operator::parse(noun, op, body).err(),
        (Some(service), Some(op), None) => service::parse(service, op, body).err(),
        _ => None,
    };
    refused.map(|refusal| refusal.message.into_owned())
}

/// The schema of a request.
fn request(path: &str) -> Value {
    let unknown = objection(path, &json!({ NOBODYS_FIELD: 1 })).unwrap_or_default();
    let names: Vec<&str> = quoted(&unknown).into_iter().skip(1).collect();
    let mut properties = Map::new();
    let mut samples = Map::new();
    for name in names {
        let (schema, sample) = field(path, name);
        properties.insert(name.to_owned(), schema);
        samples.insert(name.to_owned(), sample);
    }
    if path == "tokens" {
        properties.insert("user".to_owned(), json!({ "type": "string" }));
    }
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required(path, &samples),
        "properties": properties,
    })
}

/// The fields that the reader misses, one after the other.
fn required(path: &str, samples: &Map<String, Value>) -> Vec<String> {
    let (mut body, mut missing) = (Map::new(), Vec::new());
    while let Some(text) = objection(path, &Value::Object(body.clone())) {
        let Some(name) = text.strip_prefix("missing field ").and_then(|_| quoted(&text).pop())
        else {
            break;
        };
        let sample = samples.get(name).cloned().unwrap_or_default();
        if body.insert(name.to_owned(), sample).is_some() {
            break;
        }
        missing.push(name.to_owned());
    }
    missing
}

/// The schema of a field, and a value that it takes.
fn field(path: &str, name: &str) -> (Value, Value) {
    let takes = |value: &Value| {
        objection(path, &json!({ name: value })).is_none_or(|text| text.starts_with("missing"))
    };
    let kinds = [
        ("string", json!("?")),
        ("integer", json!(1)),
        ("boolean", json!(true)),
        ("array", json!(["?"])),
        ("object", json!({ "?": 1 })),
    ];
    let taken: Vec<&(&str, Value)> = kinds.iter().filter(|(_, value)| takes(value)).collect();
    match taken.as_slice() {
        [] => {
            // A word of a few: the reader says which.
            let text = objection(path, &json!({ name: "?" })).unwrap_or_default();
            let words: Vec<&str> = quoted(&text).into_iter().skip(1).collect();
            let sample = words.first().map_or(Value::Null, |word| json!(word));
            (json!({ "type": "string", "enum": words }), sample)
        }
        all if all.len() == kinds.len() => (json!({}), json!(1)),
        [(kind, sample)] if *kind == "array" => {
            (json!({ "type": kind, "items": { "type": "string" } }), sample.clone())
        }
        some => {
            let names: Vec<&str> = some.iter().map(|(kind, _)| *kind).collect();
            let kind = if let [one] = names.as_slice() { json!(one) } else { json!(names) };
            (json!({ "type": kind }), some[0].1.clone())
        }
    }
}

/// The words between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_operation_is_in_the_table_once() {
        let paths: Vec<&str> = OPERATIONS.iter().map(|operation| operation.path).collect();
        for (service, op) in service::parse::OPERATIONS {
            let path = format!("{service}/{op}");
            assert!(paths.contains(&path.as_str()), "{path} is not in the table");
        }
        for (at, path) in paths.iter().enumerate() {
            assert!(!paths[at + 1..].contains(path), "{path} is in the table twice");
        }
    }

    #[test]
    fn every_operation_of_the_table_is_read_by_a_reader() {
        for operation in OPERATIONS {
            let text = objection(operation.path, &json!({ NOBODYS_FIELD: 1 }));
            let text = text.unwrap_or_default();
            assert!(text.starts_with("unknown field"), "{}: {text}", operation.path);
        }
    }

    #[test]
    fn schemas_say_what_the_readers_take() {
        let pull = request("sync/pull");
        assert_eq!(pull["required"], json!(["conv"]));
        assert_eq!(pull["properties"]["conv"], json!({ "type": "string" }));
        assert_eq!(pull["properties"]["limit"], json!({ "type": "integer" }));
        let direction = json!({ "type": "string", "enum": ["up", "down"] });
        assert_eq!(pull["properties"]["direction"], direction);
        assert_eq!(request("time/now")["properties"], json!({}));
        let role = request("group/role");
        assert_eq!(role["required"], json!(["group", "user", "role"]));
        assert_eq!(request("user/set")["properties"]["info"], json!({}));
        let users = json!({ "type": "array", "items": { "type": "string" } });
        assert_eq!(request("presence/watch")["properties"]["users"], users);
        let at = &request("messages")["properties"]["at"];
        assert_eq!(*at, json!({ "type": ["string", "array"] }));
        assert_eq!(request("admin/users/create")["required"], json!(["user"]));
    }

    #[test]
    fn the_document_names_every_path() {
        let document = document();
        for operation in OPERATIONS {
            let described = &document["paths"][format!("/v1/{}", operation.path)]["post"];
            assert_eq!(described["summary"], operation.summary);
        }
    }
}
