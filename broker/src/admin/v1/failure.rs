//! How requests fail: one form for all (im-services).

use std::borrow::Cow;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hoopoe_codec::ReasonCode;
use hoopoe_im::refusal::{Refusal, Word};
use serde_json::json;

/// A request that was not carried out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    status: StatusCode,
    code: ReasonCode,
    word: &'static str,
    message: Cow<'static, str>,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let status = StatusCode::from_u16(refusal.word.http_status());
        Failure {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: refusal.code,
            word: refusal.word.as_str(),
            message: refusal.message,
        }
    }
}

impl From<BytesRejection> for Failure {
    fn from(rejection: BytesRejection) -> Failure {
        let status = rejection.status();
        let large = status == StatusCode::PAYLOAD_TOO_LARGE;
        let word = if large { Word::TooLarge } else { Word::BadRequest };
        Failure { status, ..Refusal::new(word, rejection.body_text()).into() }
    }
}

impl Failure {
    /// Nobody knows who asks.
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> Failure {
        Failure {
            status: StatusCode::UNAUTHORIZED,
            code: ReasonCode::BadUserNameOrPassword,
            ..Refusal::not_allowed(message).into()
        }
    }

    /// Not now.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Failure {
        Refusal::new(Word::Unavailable, message).into()
    }

    /// The rate of requests is used up.
    pub fn too_many() -> Failure {
        Refusal::limit("too many requests: try again in a second").into()
    }

    /// The request took longer than it may.
    pub fn too_slow() -> Failure {
        Failure {
            status: StatusCode::REQUEST_TIMEOUT,
            ..Failure::unavailable("the request took too long")
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({
            "code": self.code as u8, "error": self.word, "message": self.message,
        });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
