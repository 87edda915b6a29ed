//! What can go wrong inside a database operation, and whose move it is.

use domains::{CommitError, StoreError};
use rusqlite::ErrorCode;

/// Why an operation did not happen; its savepoint is rolled back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A condition did not hold.
    #[error("another writer was first")]
    Conflict,
    /// The home's own verdict.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// SQLite's.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

impl Failure {
    /// A defect with these words.
    pub(crate) fn defect(detail: impl Into<String>) -> Self {
        Self::Store(StoreError::Defect { detail: detail.into() })
    }
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Store(error) => error,
            Failure::Sqlite(error) => classify(&error),
            Failure::Conflict => Self::Defect { detail: "a condition failed where none was set".to_owned() },
        }
    }
}

impl From<Failure> for CommitError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Conflict => Self::Conflict,
            other => Self::Store(other.into()),
        }
    }
}

/// Time may mend a full disk, a lock or a failing device; anything else is ours.
pub(crate) fn classify(error: &rusqlite::Error) -> StoreError {
    let detail = error.to_string();
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationInterrupted,
        ) => StoreError::Unavailable { detail },
        _ => StoreError::Defect { detail },
    }
}
