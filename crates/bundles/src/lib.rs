//! What the edge needs to serve a name, as bytes: one format, one reader, one writer. No I/O.
//!
//! Arrives: a certificate chain with its sealed key and tenant, or bytes from a bucket, a folder or a cache. Leaves: bytes to
//! publish, or a certified key that rustls can serve. Goes wrong: a [`BundleError`], whose [`reason`](BundleError::reason) is a
//! stable label for metrics and whose text is for the person who looks into it.
//!
//! - [`SealKeyPair`], [`SealPublicKey`], [`SealKeys`]: private keys are sealed to the edge (HPKE) and opened only there.
//! - [`SiteObject`]: `sites/<hostname>.json`, a [`Bundle`] or the [`Tombstone`] that says it is gone.
//! - [`IndexShard`]: `index/<00..ff>.json`, the names that exist with their versions.
//! - [`EdgeSettings`]: `edge.json`, what every edge must know beside the names.
//! - [`SigningKey`]: a key that signs tenant assertions, in `edge.json`: public half for everybody, private half sealed to the edge.
//! - [`TicketKey`]: a key that edges share for TLS session tickets, in `edge.json`, sealed to the edge.

mod bundle;
mod encoding;
mod error;
mod index;
mod names;
mod seal;
mod settings;
mod signing;
mod tickets;

pub use bundle::{Bundle, ClaimIdentity, LeafFacts, MAX_SITE_BYTES, SiteObject, Tombstone, check_replacement};
pub use encoding::Digest;
pub use error::BundleError;
pub use index::{IndexEntry, IndexShard, MAX_INDEX_BYTES, TOMBSTONE_KEPT_SECONDS, shard_of};
pub use names::{EDGE_SETTINGS_OBJECT, index_object, shard_of_object, site_hostname, site_object};
pub use seal::{SealKeyPair, SealKeys, SealPublicKey, SealedKey};
pub use settings::EdgeSettings;
pub use signing::{SigningKey, jwks, signing_at};
pub use tickets::TicketKey;

/// Seconds since 1970-01-01T00:00:00Z.
pub type UnixSeconds = i64;

/// The number every object carries as `format`; a reader refuses any other.
pub const FORMAT: u32 = 1;
