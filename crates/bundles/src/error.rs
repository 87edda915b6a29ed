//! What can be wrong with bytes that claim to be a bundle, an index shard or settings.

use domains::{Hostname, SiteVersion, TenantId};

use crate::UnixSeconds;

/// Why an object was refused. The text says what was expected and what was seen; no variant carries key material.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The bytes end before the object does.
    #[error("the object ends after {bytes} bytes, in the middle of its JSON")]
    Truncated {
        /// How many bytes there were.
        bytes: usize,
    },
    /// The bytes are not the JSON this format asks for.
    #[error("the object is not JSON of this format")]
    NotJson(#[source] serde_json::Error),
    /// Larger than any honest object.
    #[error("the object has {bytes} bytes; at most {limit} are accepted")]
    TooLarge {
        /// How many bytes there were.
        bytes: usize,
        /// How many may be.
        limit: usize,
    },
    /// Another version of the format.
    #[error("the object says format {found}; this reader knows format {}", crate::FORMAT)]
    Format {
        /// What the object says, 0 when it says nothing.
        found: u64,
    },
    /// The object is about another name, or its certificate does not cover the name.
    #[error("the object is for {found}, expected {expected}")]
    WrongHostname {
        /// The name asked for.
        expected: Hostname,
        /// The name, or the certificate's names, found.
        found: String,
    },
    /// The object belongs to another tenant than the index says.
    #[error("the object belongs to tenant {found}, the index says {expected}")]
    WrongTenant {
        /// Whose the index says the name is.
        expected: TenantId,
        /// Whose the object says it is.
        found: TenantId,
    },
    /// An index shard lists a name that belongs in another shard.
    #[error("{hostname} does not belong in index shard {shard:02x}")]
    WrongShard {
        /// The name listed.
        hostname: Hostname,
        /// The shard it was listed in.
        shard: u8,
    },
    /// The certificate's time is over.
    #[error("the certificate expired at {not_after} (unix seconds); it is {now}")]
    Expired {
        /// The certificate's end.
        not_after: UnixSeconds,
        /// The time of the look.
        now: UnixSeconds,
    },
    /// The certificate's time has not begun.
    #[error("the certificate is not valid before {not_before} (unix seconds); it is {now}")]
    NotYetValid {
        /// The certificate's start.
        not_before: UnixSeconds,
        /// The time of the look.
        now: UnixSeconds,
    },
    /// The dates beside the certificate are not the certificate's own.
    #[error("the object says {said:?}, the leaf certificate {leaf:?} (not before, not after, unix seconds)")]
    DatesDiffer {
        /// What stands beside the certificate.
        said: (UnixSeconds, UnixSeconds),
        /// What the certificate says.
        leaf: (UnixSeconds, UnixSeconds),
    },
    /// The chain is empty or one of its certificates cannot be read.
    #[error("the certificate chain cannot be read: {0}")]
    BadChain(String),
    /// The leaf's public key is not the one the object names, or the private key is not its pair.
    #[error("the {0} does not belong to the leaf certificate")]
    KeyMismatch(&'static str),
    /// The opened bytes are no private key that can sign.
    #[error("the opened private key cannot be used")]
    BadKey(#[source] rustls::Error),
    /// The key was sealed to a key pair we do not hold.
    #[error("the private key is sealed to `{seal_key_id}`, which is not among the seal keys here")]
    UnknownSealKey {
        /// The id the object names.
        seal_key_id: String,
    },
    /// The sealed key does not open: it was altered, or sealed for another name, tenant or public key.
    #[error("the private key sealed to `{seal_key_id}` does not open for this hostname, tenant and public key")]
    Unsealable {
        /// The id the object names.
        seal_key_id: String,
    },
    /// A seal key's own bytes cannot be used.
    #[error("the seal key `{seal_key_id}` cannot be used: {problem}")]
    BadSealKey {
        /// The key's id.
        seal_key_id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// What is in service is newer.
    #[error("version {offered} was offered, but version {have} is in service")]
    NotNewer {
        /// What is in service.
        have: SiteVersion,
        /// What was offered.
        offered: SiteVersion,
    },
    /// One version number with two contents: one of the writers is wrong.
    #[error("version {version} was offered with other bytes than the version {version} already known")]
    SameVersionOtherBytes {
        /// The version both carry.
        version: SiteVersion,
    },
    /// The index does not vouch for the object yet.
    #[error("version {offered} was offered, but the index still says version {indexed}; it is looked at again once the index follows")]
    AheadOfIndex {
        /// What the index says.
        indexed: SiteVersion,
        /// What was offered.
        offered: SiteVersion,
    },
    /// A tombstone where a bundle was expected.
    #[error("the object says the name was removed with version {version}")]
    Removed {
        /// The tombstone's version.
        version: SiteVersion,
    },
}

impl BundleError {
    /// A stable label for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::NotJson(_) => "not_json",
            Self::TooLarge { .. } => "too_large",
            Self::Format { .. } => "format",
            Self::WrongHostname { .. } => "wrong_hostname",
            Self::WrongTenant { .. } => "wrong_tenant",
            Self::WrongShard { .. } => "wrong_shard",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::DatesDiffer { .. } => "dates_differ",
            Self::BadChain(_) => "bad_chain",
            Self::KeyMismatch(_) => "key_mismatch",
            Self::BadKey(_) => "bad_key",
            Self::UnknownSealKey { .. } => "unknown_seal_key",
            Self::Unsealable { .. } => "unsealable",
            Self::BadSealKey { .. } => "bad_seal_key",
            Self::NotNewer { .. } => "not_newer",
            Self::SameVersionOtherBytes { .. } => "same_version_other_bytes",
            Self::AheadOfIndex { .. } => "ahead_of_index",
            Self::Removed { .. } => "removed",
        }
    }
}
