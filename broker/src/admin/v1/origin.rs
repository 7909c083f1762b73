//! Which web pages may use the API (CORS). A request without `Origin` comes from no page.
//!
//! A page that is not named is refused and not merely kept from reading the answer: what it asks
//! for is not done. The `Host` header is not believed, which a page's owner can make name us.

use axum::http::{HeaderMap, HeaderValue, header};
use hoopoe_im::refusal::Refusal;

use super::failure::Failure;
use crate::settings::is_local_origin;

/// Headers a page may send, methods it may use, and for how long it need not ask again.
const HEADERS: &str = "authorization, content-type, x-hoopoe-user, x-hoopoe-tenant";
const METHODS: &str = "GET, POST, OPTIONS";
const MAX_AGE_SECS: &str = "600";

/// The pages that may.
#[derive(Debug)]
pub struct Origins {
    named: Vec<String>,
    any: bool,
    local_pages: bool,
}

impl Origins {
    /// Those the settings name; on loopback, if they name none, those of this machine.
    pub fn new(named: &[String], local: bool) -> Origins {
        Origins {
            any: named.iter().any(|origin| origin == "*"),
            local_pages: local && named.is_empty(),
            named: named.to_vec(),
        }
    }

    /// The page's origin, if the request comes from a page.
    ///
    /// # Errors
    /// When that page may not.
    pub fn judge(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Failure> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(None) };
        let text = origin.to_str().unwrap_or_default();
        let may = self.any
            || self.named.iter().any(|named| named.eq_ignore_ascii_case(text))
            || (self.local_pages && is_local_origin(text));
        if may {
            Ok(Some(origin.clone()))
        } else {
            Err(Refusal::not_allowed("pages of this origin may not use the API").into())
        }
    }
}

/// Lets the page read the answer.
pub fn permit(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_SECS),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_pages_may() {
        let named = ["https://chat.example.org".to_owned()];
        let (some, none, any) = (&named[..], &[][..], &["*".to_owned()][..]);
        // settings, on loopback, origin → allowed
        let cases = [
            (some, true, "https://chat.example.org", true),
            (some, true, "http://localhost:3000", false),
            (some, false, "https://evil.example", false),
            (none, true, "http://localhost:3000", true),
            (none, true, "https://evil.example", false),
            (none, false, "http://localhost:3000", false),
            (none, true, "null", false),
            (any, false, "https://evil.example", true),
        ];
        for (named, local, origin, may) in cases {
            let mut headers = HeaderMap::new();
            let origins = Origins::new(named, local);
            assert_eq!(origins.judge(&headers), Ok(None));
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
            assert_eq!(origins.judge(&headers).is_ok(), may, "{origin}");
        }
    }
}
