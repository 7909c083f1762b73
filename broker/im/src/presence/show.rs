//! The words of presence: what a user shows (`online`, `away`, …, or an own word) and the free text
//! beside it, checked where they enter.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest word of [`Show`], in bytes.
pub const SHOW_BYTES: usize = 32;
/// Longest status text, in bytes.
pub const STATUS_TEXT_BYTES: usize = 256;
/// What is shown of a user without devices. It cannot be set: who wants it sets `invisible`.
pub const OFFLINE: &str = "offline";

const ONLINE: &str = "online";
const INVISIBLE: &str = "invisible";

/// What a user wants to show while here: `online`, `away`, `busy`, `dnd`, `invisible` or an own
/// word of at most [`SHOW_BYTES`] bytes in the alphabet of ids.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Show(
    /// `None` is [`ONLINE`], which nearly everybody shows.
    Option<Box<str>>,
);

/// Why a word cannot be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadShow {
    /// Empty, or longer than [`SHOW_BYTES`].
    #[error("a show has 1 to {SHOW_BYTES} bytes")]
    Length,
    /// A character outside the alphabet of ids.
    #[error("a show has only A-Z a-z 0-9 . _ - : @")]
    Alphabet,
    /// `offline` is what the broker says of users without devices.
    #[error("offline cannot be set; invisible looks like it")]
    Offline,
}

impl Show {
    /// Checks a word.
    pub fn parse(word: &str) -> Result<Show, BadShow> {
        if word.is_empty() || word.len() > SHOW_BYTES {
            return Err(BadShow::Length);
        }
        if !word.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:@".contains(&b)) {
            return Err(BadShow::Alphabet);
        }
        if word == OFFLINE {
            return Err(BadShow::Offline);
        }
        Ok(Show((word != ONLINE).then(|| word.into())))
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or(ONLINE)
    }

    /// What is shown by who has set nothing.
    pub fn is_usual(&self) -> bool {
        self.0.is_none()
    }

    /// Looks like offline to others.
    pub fn is_invisible(&self) -> bool {
        self.as_str() == INVISIBLE
    }
}

impl TryFrom<String> for Show {
    type Error = BadShow;

    fn try_from(word: String) -> Result<Show, BadShow> {
        Show::parse(&word)
    }
}

impl From<Show> for String {
    fn from(show: Show) -> String {
        show.as_str().to_owned()
    }
}

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Free text beside a [`Show`], at most [`STATUS_TEXT_BYTES`] bytes of UTF-8.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusText(Box<str>);

/// Why a text cannot be a status text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadText {
    /// Longer than [`STATUS_TEXT_BYTES`].
    #[error("a status text has at most {STATUS_TEXT_BYTES} bytes")]
    Length,
    /// Not UTF-8.
    #[error("a status text is UTF-8")]
    Encoding,
}

impl StatusText {
    /// Checks a text as it came in a payload.
    pub fn parse(payload: &[u8]) -> Result<StatusText, BadText> {
        if payload.len() > STATUS_TEXT_BYTES {
            return Err(BadText::Length);
        }
        let text = std::str::from_utf8(payload).map_err(|_| BadText::Encoding)?;
        Ok(StatusText(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// No text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<String> for StatusText {
    type Error = BadText;

    fn try_from(text: String) -> Result<StatusText, BadText> {
        StatusText::parse(text.as_bytes())
    }
}

impl From<StatusText> for String {
    fn from(text: StatusText) -> String {
        text.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_are_short_words_and_never_offline() {
        let longest = "x".repeat(SHOW_BYTES);
        for good in ["online", "away", "busy", "dnd", "invisible", "in-a-meeting", &longest] {
            assert_eq!(Show::parse(good).map(String::from), Ok(good.to_owned()));
        }
        let too_long = "x".repeat(SHOW_BYTES + 1);
        let cases = [
            ("", BadShow::Length),
            (&too_long, BadShow::Length),
            ("on/line", BadShow::Alphabet),
            ("a b", BadShow::Alphabet),
            ("weg+", BadShow::Alphabet),
            ("schläft", BadShow::Alphabet),
            ("offline", BadShow::Offline),
        ];
        for (word, fault) in cases {
            assert_eq!(Show::parse(word), Err(fault), "{word}");
        }
    }

    #[test]
    fn who_has_set_nothing_shows_what_can_be_set_too() {
        assert_eq!(Show::parse(ONLINE), Ok(Show::default()));
        assert_eq!(Show::default().to_string(), "online");
        assert_eq!(serde_json::to_string(&Show::default()).unwrap(), "\"online\"");
    }

    #[test]
    fn status_texts_are_short_and_utf_8() {
        assert_eq!(StatusText::parse("bin unterwegs 🚲".as_bytes()).unwrap().as_str().len(), 18);
        assert_eq!(StatusText::parse(b"").unwrap(), StatusText::default());
        assert!(StatusText::parse(&[b'x'; STATUS_TEXT_BYTES]).is_ok());
        assert_eq!(StatusText::parse(&[b'x'; STATUS_TEXT_BYTES + 1]), Err(BadText::Length));
        assert_eq!(StatusText::parse(&[0xff, 0xfe]), Err(BadText::Encoding));
    }
}
