//! Stored entries as JSON: the envelope's fields under the names they have in MQTT 5 without
//! `im-`, the payload as text where it is one, and always as base64.

use base64ct::{Base64, Encoding};
use hoopoe_codec::PublishProperties;
use hoopoe_im::entry::{Entry, EntryKind, void_word};
use serde_json::{Map, Value, json};

/// An entry as `me` may see it.
pub fn shown(entry: &Entry, me: &str) -> Value {
    let mut shown = Map::new();
    let mut put = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    put("seq", entry.seq.into());
    put("id", entry.id.to_string().into());
    put("ts", entry.ts_ms.into());
    put("from", json!(entry.from));
    put("cnt", entry.count.into());
    // Echoed to the sender only.
    if let Some(cid) = entry.cid.as_deref().filter(|_| me == &*entry.from) {
        put("cid", cid.into());
    }
    if entry.kind != EntryKind::Message {
        put("kind", entry.kind.as_str().into());
        put("ref", entry.reference.into());
    }
    if entry.kind == EntryKind::Void && !void_word(entry.void_reason).is_empty() {
        put("void", void_word(entry.void_reason).into());
    }
    if entry.at_all || !entry.mentions.is_empty() {
        let all = entry.at_all.then_some("all");
        let users = all.into_iter().chain(entry.mentions.iter().map(|user| &**user));
        put("at", users.collect::<Vec<_>>().into());
    }
    if let Some(at_ms) = entry.expires_at_ms {
        put("expires", at_ms.into());
    }
    if entry.burn_secs > 0 {
        put("burn", entry.burn_secs.into());
    }
    let properties = PublishProperties::from_forwardable(&entry.properties);
    if let Some(content_type) = properties.content_type {
        put("content_type", content_type.into());
    }
    if !properties.user_properties.is_empty() {
        let pairs = properties.user_properties.iter().map(|(name, value)| json!([name, value]));
        put("properties", pairs.collect::<Vec<_>>().into());
    }
    if let Ok(text) = std::str::from_utf8(&entry.payload) {
        put("payload", text.into());
    }
    put("payload_base64", Base64::encode_string(&entry.payload).into());
    Value::Object(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hoopoe_im::entry::VOID_RECALLED;
    use hoopoe_im::id::{ConvKey, MessageId};

    fn entry(payload: &'static [u8]) -> Entry {
        let mut properties = PublishProperties::default();
        properties.content_type = Some("text/plain");
        Entry {
            conv: ConvKey::pair("t", "alice", "bob"),
            seq: 7,
            id: MessageId(1),
            ts_ms: 99,
            from: "alice".into(),
            device: "phone".into(),
            cid: Some("c1".into()),
            kind: EntryKind::Message,
            reference: 0,
            count: 5,
            expires_at_ms: None,
            at_all: false,
            mentions: Vec::new(),
            burn_secs: 0,
            void_reason: 0,
            properties: properties.forwardable().into_owned().into(),
            payload: payload.into(),
        }
    }

    #[test]
    fn an_entry_has_its_envelope_and_payload() {
        let message = shown(&entry(b"hi"), "bob");
        let expected = json!({
            "seq": 7, "id": "0000000000001", "ts": 99, "from": "alice", "cnt": 5,
            "content_type": "text/plain", "payload": "hi", "payload_base64": "aGk=",
        });
        assert_eq!(message, expected);
        assert_eq!(shown(&entry(b"hi"), "alice")["cid"], "c1");
        let binary = shown(&entry(&[0xff, 0]), "bob");
        assert_eq!((&binary["payload"], &binary["payload_base64"]), (&Value::Null, &json!("/wA=")));
        let void = shown(&entry(b"hi").voided(VOID_RECALLED), "bob");
        assert_eq!((&void["kind"], &void["void"]), (&json!("void"), &json!("recall")));
        assert_eq!(void["payload"], "");
    }
}
