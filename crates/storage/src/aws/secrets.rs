//! What may not stand in an environment: secrets, by reference, out of AWS Secrets Manager.
//!
//! Arrives: a secret's name or ARN. Leaves: its text. Goes wrong: a secret that is not there, may not be read or does not decrypt is a defect
//! that names it; a service that is busy or silent is unavailable. A text is never in a log, an error or a `Debug`.
//!
//! The role needs `secretsmanager:GetSecretValue` on that one secret, and `kms:Decrypt` where it has a key of its own.

use domains::StoreError;

use super::{Access, clients, failure};

/// Reads secrets.
#[derive(Clone, Debug)]
pub struct Secrets(aws_sdk_secretsmanager::Client);

/// A secret's text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text, for the one who needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

impl Secrets {
    /// Prepares to ask.
    pub async fn open(access: &Access) -> Self {
        Self(aws_sdk_secretsmanager::Client::new(&clients::sdk_config(access).await))
    }

    /// The current text of the secret with this name or ARN.
    ///
    /// # Errors
    /// [`StoreError::Defect`] when there is none, it may not be read, or it is not text; [`StoreError::Unavailable`] when time may mend it.
    pub async fn text(&self, id: &str) -> Result<Secret, StoreError> {
        let read = self.0.get_secret_value().secret_id(id).send().await;
        let read = read.map_err(|error| failure::classify(&format!("reading the secret {id}"), &error))?;
        let text = read.secret_string.filter(|text| !text.trim().is_empty());
        text.map(Secret).ok_or_else(|| StoreError::Defect { detail: format!("the secret {id} holds no text") })
    }
}
