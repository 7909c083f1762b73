//! A text that belongs into no log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A token or password among the settings. It is read and compared like a text, and never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// What stands in its place where settings are printed.
    pub const SHOWN: &'static str = "(not shown)";

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is printed instead.
    pub(super) fn hidden() -> Secret {
        Secret(Secret::SHOWN.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(Secret::SHOWN)
    }
}
