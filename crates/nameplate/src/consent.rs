//! What the operator agreed to, kept beside the accounts: a CA's terms, by their URL, and when.
//!
//! Arrives: a CA's directory and what it says of its terms. Leaves: whether they were agreed to, or a record that they now are. Goes wrong: a
//! record that does not read.

use std::path::{Path, PathBuf};

use domains::Timestamp;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// One agreement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreement {
    /// The CA's directory.
    pub(crate) directory: String,
    /// Where the terms stand; `None` when the CA names none.
    pub(crate) terms: Option<String>,
    /// When they were agreed to.
    pub(crate) agreed_at: Timestamp,
}

fn path(data: &Path) -> PathBuf {
    data.join("keys/terms.json")
}

/// Everything agreed to so far.
pub(crate) fn agreements(data: &Path) -> Result<Vec<Agreement>, FileError> {
    match files::read(&path(data))? {
        Some(text) => serde_json::from_str(&text).map_err(|error| FileError::unreadable(path(data), &error)),
        None => Ok(Vec::new()),
    }
}

/// Keeps one more.
pub(crate) fn agree(data: &Path, agreement: Agreement) -> Result<(), FileError> {
    let mut all = agreements(data)?;
    all.retain(|known| known.directory != agreement.directory);
    all.push(agreement);
    let text = serde_json::to_vec_pretty(&all).map_err(|error| FileError::unreadable(path(data), &error))?;
    files::write_secret(&path(data), &text)
}

/// Whether the operator agreed to the terms of the CA at this directory, whichever they were then.
pub(crate) fn is_given(data: &Path, directory: &str) -> Result<bool, FileError> {
    Ok(agreements(data)?.iter().any(|known| known.directory == directory))
}
