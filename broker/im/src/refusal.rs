//! Why something is refused: one word for programs, a code for MQTT, a sentence for people.

use std::borrow::Cow;

use hoopoe_codec::ReasonCode;
use hoopoe_store::StoreError;

/// The words of error answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Word {
    /// The request is malformed.
    BadRequest,
    /// What it names does not exist, or may not be known to exist.
    NotFound,
    /// The caller may not.
    NotAllowed,
    /// It exists already.
    Exists,
    /// A limit or rate is reached.
    Limit,
    /// More than can ever be taken at once; spelled as [`Word::Limit`].
    TooLarge,
    /// The present state does not allow it.
    Conflict,
    /// Not now.
    Unavailable,
}

impl Word {
    /// As it is spelled in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Word::BadRequest => "bad_request",
            Word::NotFound => "not_found",
            Word::NotAllowed => "not_allowed",
            Word::Exists => "exists",
            Word::Limit | Word::TooLarge => "limit",
            Word::Conflict => "conflict",
            Word::Unavailable => "unavailable",
        }
    }

    /// The status over HTTP.
    pub fn http_status(self) -> u16 {
        match self {
            Word::BadRequest => 400,
            Word::NotFound => 404,
            Word::NotAllowed => 403,
            Word::Exists | Word::Conflict => 409,
            Word::Limit => 429,
            Word::TooLarge => 413,
            Word::Unavailable => 503,
        }
    }
}

/// A refusal. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// For programs.
    pub word: Word,
    /// The MQTT 5.0 reason code; always one that PUBACK and PUBREC may carry.
    pub code: ReasonCode,
    /// For people: what and where.
    pub message: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with the code that its word usually has.
    pub fn new(word: Word, message: impl Into<Cow<'static, str>>) -> Refusal {
        let code = match word {
            Word::BadRequest => ReasonCode::PayloadFormatInvalid,
            Word::NotFound => ReasonCode::TopicNameInvalid,
            Word::NotAllowed => ReasonCode::NotAuthorized,
            Word::Exists | Word::Conflict => ReasonCode::ImplementationSpecificError,
            Word::Limit | Word::TooLarge | Word::Unavailable => ReasonCode::QuotaExceeded,
        };
        Refusal { word, code, message: message.into() }
    }

    /// The caller may not.
    pub fn not_allowed(message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Word::NotAllowed, message)
    }

    /// It does not exist.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Word::NotFound, message)
    }

    /// The request is malformed.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Word::BadRequest, message)
    }

    /// A limit is reached.
    pub fn limit(message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Word::Limit, message)
    }

    /// It is larger than it may be, whenever it comes.
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Word::TooLarge, message)
    }

    /// The present state does not allow it.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Refusal {
        Refusal::new(Word::Conflict, message)
    }

    /// The store takes nothing now (ruling 12).
    pub fn not_writable() -> Refusal {
        Refusal::new(Word::Unavailable, "nothing can be stored at the moment")
    }

    /// The error body of services.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "code": self.code as u8,
            "error": self.word.as_str(),
            "message": self.message,
        })
    }
}

/// Why a command was not applied.
#[derive(Debug)]
pub enum Fault {
    /// It was judged.
    Refused(Refusal),
    /// The store could not be read.
    Store(StoreError),
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Refused(refusal)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Fault {
        Fault::Store(error)
    }
}
