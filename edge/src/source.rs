//! Where the index and the bundles are read from. It can only be read.
//!
//! Arrives: object names. Leaves: bytes, with an [`Etag`] that changes whenever they do. Goes wrong: a [`SourceError`], which is never
//! an absence: a name is not gone because its object could not be read.

#[cfg(feature = "s3")]
mod bucket;
mod folder;

use async_trait::async_trait;
use bytes::Bytes;

#[cfg(feature = "s3")]
pub use bucket::{BucketPlace, BucketSource};
pub use folder::FolderSource;

/// Changes whenever an object does; otherwise opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(pub String);

/// What a read of an object found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The object.
    Object {
        /// Its bytes; one more than was allowed when it is too large.
        bytes: Bytes,
        /// Its etag, of exactly these bytes.
        etag: Etag,
    },
    /// It still has the etag named.
    Unchanged,
    /// There is no such object, said by a source that works.
    Absent,
}

/// The source could not be asked, or did not answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {object} from the source")]
pub struct SourceError {
    /// The object, or the listing, that was asked for.
    pub object: String,
    /// Why.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

impl SourceError {
    /// An error about one object.
    pub fn new(object: impl Into<String>, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { object: object.into(), cause: cause.into() }
    }
}

/// Reads a bucket or a folder.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Lists the index shards that exist, each with its etag. A source that has none yet answers an empty list.
    async fn list_index(&self) -> Result<Vec<(u8, Etag)>, SourceError>;

    /// Reads one object, at most `limit` bytes and one more, unless it still has the etag given.
    async fn get(&self, object: &str, limit: usize, unless: Option<&Etag>) -> Result<Fetched, SourceError>;
}
