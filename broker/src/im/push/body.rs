//! The request to the gateway: its JSON, and the signature over it.

use base64ct::{Base64, Encoding};
use hoopoe_im::push::{Key, Push, PushPage};
use ring::hmac;
use serde_json::{Value, json};

use crate::settings::{PushSettings, Secret};

/// What of the settings shapes the body.
pub(super) struct Shape {
    payload_max_bytes: Option<usize>,
    key: Option<hmac::Key>,
}

impl Shape {
    pub(super) fn new(settings: &PushSettings) -> Shape {
        let key = |secret: &Secret| hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        Shape {
            payload_max_bytes: settings.payload.then_some(settings.payload_max_bytes as usize),
            key: settings.secret.as_ref().map(key),
        }
    }

    /// The messages of a batch.
    pub(super) fn body(&self, pages: &[(Key, PushPage)]) -> String {
        let pushes = pages
            .iter()
            .flat_map(|(key, page)| page.pushes.iter().map(move |push| self.push(key, page, push)));
        json!({ "pushes": pushes.collect::<Vec<_>>() }).to_string()
    }

    fn push(&self, (user, conv): &Key, page: &PushPage, push: &Push) -> Value {
        let devices = page.devices.iter().map(|device| {
            json!({
                "device": device.device, "provider": device.provider, "token": device.token,
            })
        });
        let mut value = json!({
            "tenant": user.tenant,
            "user": user.id,
            "devices": devices.collect::<Vec<_>>(),
            "conv": conv.wire(&user.id),
            "seq": push.seq,
            "from": push.from,
            "kind": "message",
            "unread": page.unread,
            "mentioned": push.mentioned,
            "muted": push.muted,
            "ts": push.ts_ms,
        });
        if self.payload_max_bytes.is_some_and(|most| push.payload.len() <= most) {
            match std::str::from_utf8(&push.payload) {
                Ok(text) => value["payload"] = text.into(),
                Err(_) => {
                    value["payload_base64"] = Base64::encode_string(&push.payload).into();
                }
            }
        }
        value
    }

    /// The header line with the signature, if there is a secret: HMAC-SHA256 over the body, in
    /// hexadecimal.
    pub(super) fn signature(&self, body: &str) -> String {
        let Some(key) = &self.key else { return String::new() };
        let tag = hmac::sign(key, body.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("X-Hoopoe-Signature: sha256={hex}\r\n")
    }
}

#[cfg(test)]
mod tests {
    use hoopoe_im::User;
    use hoopoe_im::id::ConvKey;
    use hoopoe_im::push::PushDevice;

    use super::*;

    fn page(payload: &'static [u8]) -> (Key, PushPage) {
        let user = User { tenant: "default".into(), id: "bob".into() };
        let device =
            PushDevice { device: "ios-1".into(), provider: "apns".into(), token: "t".into() };
        let push = Push {
            seq: 7,
            from: "alice".into(),
            ts_ms: 5,
            mentioned: true,
            muted: false,
            payload: payload.into(),
        };
        let page = PushPage {
            devices: vec![device],
            unread: 3,
            pushes: vec![push],
            through: 7,
            looked: 1,
            again_ms: None,
        };
        ((user, ConvKey::pair("default", "alice", "bob")), page)
    }

    fn shape(payload: bool) -> Shape {
        // The example of RFC 4231, section 4.3.
        let secret = serde_json::from_value(json!("Jefe")).unwrap();
        Shape::new(&PushSettings {
            payload,
            payload_max_bytes: 4,
            secret: Some(secret),
            ..PushSettings::default()
        })
    }

    #[test]
    fn a_push_says_what_a_gateway_needs() {
        let body: Value = serde_json::from_str(&shape(false).body(&[page(b"hi")])).unwrap();
        let expected = json!({ "pushes": [{
            "tenant": "default", "user": "bob", "conv": "u/alice", "seq": 7, "from": "alice",
            "devices": [{ "device": "ios-1", "provider": "apns", "token": "t" }],
            "kind": "message", "unread": 3, "mentioned": true, "muted": false, "ts": 5,
        }]});
        assert_eq!(body, expected);
        let with = |payload| -> Value {
            let body: Value = serde_json::from_str(&shape(true).body(&[page(payload)])).unwrap();
            body["pushes"][0].clone()
        };
        assert_eq!(with(b"hi")["payload"], "hi");
        assert_eq!(with(b"\xff\x00")["payload_base64"], "/wA=");
        assert!(with(b"too long").get("payload").is_none());
    }

    #[test]
    fn the_signature_is_hmac_sha256_over_the_body() {
        let line = shape(false).signature("what do ya want for nothing?");
        let hex = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(line, format!("X-Hoopoe-Signature: sha256={hex}\r\n"));
        let unsigned = Shape::new(&PushSettings::default());
        assert_eq!(unsigned.signature("x"), "");
    }
}
