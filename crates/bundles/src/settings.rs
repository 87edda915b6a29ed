//! What every edge must know beside the names: `edge.json`.
//!
//! Arrives: the ACME accounts' thumbprints, the keys of tenant assertions and of session tickets. Leaves: the key authorization for any
//! http-01 token, with nothing stored per challenge.
//! Goes wrong: like every object here, by being too large, cut off or of another format.

use serde::{Deserialize, Serialize};

use crate::{BundleError, FORMAT, SigningKey, TicketKey, encoding};

/// The largest `edge.json` accepted.
const MAX_SETTINGS_BYTES: usize = 64 * 1024;

/// The object `edge.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgeSettings {
    format: u32,
    /// Grows with every change; an edge ignores a lower one than it has.
    pub generation: u64,
    /// RFC 7638 thumbprints of the ACME accounts' keys; the first one answers http-01 challenges.
    pub challenge_thumbprints: Vec<String>,
    /// What signs tenant assertions, oldest first; none in an object written before there were any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signing_keys: Vec<SigningKey>,
    /// What session tickets are sealed with where edges share their keys, oldest first; none where they do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ticket_keys: Vec<TicketKey>,
}

impl EdgeSettings {
    /// Settings to be written.
    pub fn new(generation: u64, challenge_thumbprints: Vec<String>) -> Self {
        Self { format: FORMAT, generation, challenge_thumbprints, signing_keys: Vec::new(), ticket_keys: Vec::new() }
    }

    /// The same with these keys for tenant assertions.
    #[must_use]
    pub fn with_signing_keys(self, signing_keys: Vec<SigningKey>) -> Self {
        Self { signing_keys, ..self }
    }

    /// The same with these keys for session tickets.
    #[must_use]
    pub fn with_ticket_keys(self, ticket_keys: Vec<TicketKey>) -> Self {
        Self { ticket_keys, ..self }
    }

    /// The answer to an http-01 challenge, or `None` while no account is known.
    ///
    /// Source: RFC 8555, section 8.1 (key authorization).
    pub fn key_authorization(&self, token: &str) -> Option<String> {
        self.challenge_thumbprints.first().map(|thumbprint| format!("{token}.{thumbprint}"))
    }

    /// Writes the object.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::write(self)
    }

    /// Reads the object.
    ///
    /// # Errors
    /// [`BundleError::TooLarge`], [`BundleError::Truncated`], [`BundleError::NotJson`] or [`BundleError::Format`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        encoding::read(bytes, MAX_SETTINGS_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_read_back_and_the_first_account_answers_challenges() {
        let settings = EdgeSettings::new(3, vec!["first".to_owned(), "second".to_owned()]);
        let read = EdgeSettings::from_bytes(&settings.to_bytes()).unwrap();
        assert_eq!(read, settings);
        assert_eq!(read.key_authorization("token").unwrap(), "token.first");
        assert_eq!(EdgeSettings::new(1, vec![]).key_authorization("token"), None);
    }
}
