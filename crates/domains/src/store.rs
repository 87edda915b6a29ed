//! The traits of the two homes, with their contracts in the terms of the harder one.
//!
//! Arrives: what a step wants remembered. Leaves: what was remembered. Goes wrong: [`StoreError`], which never means absence, and
//! [`CommitError::Conflict`], which means that someone else wrote first and is not a failure.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{Claim, ClaimKey, Dispatch, HistoryEntry, Hostname, Owner, SiteVersion, StateName, Step, StoredCertificate, TenantId};

/// The home could not do what was asked. Nothing about the asked-for item follows from it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Time may mend it: throttled, busy, timed out, an answer lost.
    #[error("the store could not be asked: {detail}")]
    Unavailable {
        /// What happened, in the provider's words.
        detail: String,
    },
    /// Ours to mend: refused by permission, an item that does not read, a request it does not accept.
    #[error("the store refused or returned something unreadable: {detail}")]
    Defect {
        /// What happened, in the provider's words.
        detail: String,
    },
}

/// Why a change was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another writer was first: some item's version is not the one expected. Nothing was written.
    #[error("another writer was first")]
    Conflict,
    /// The home failed; the change may or may not have been written, so load again before deciding.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A versioned item to write, on condition of the version that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put<T> {
    /// The item, carrying its new version.
    pub item: T,
    /// The version that must be there now; `None`: the item must not exist.
    pub expected: Option<u64>,
}

/// Everything one decision writes, in one transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Claims, usually one; two when a name changes hands.
    pub claims: Vec<Put<Claim>>,
    /// The owner item.
    pub owner: Option<Put<Owner>>,
    /// History items; they must not exist yet.
    pub history: Vec<HistoryEntry>,
    /// A certificate recorded.
    pub certificate: Option<StoredCertificate>,
    /// Certificates dropped, every stored copy of their sealed keys with them.
    pub dropped_certificates: Vec<(Hostname, SiteVersion)>,
}

/// Claims, owners and certificates: the truth.
#[async_trait]
pub trait DomainTable: Send + Sync {
    /// The claim, read consistently; `None` when there is none.
    async fn claim(&self, key: &ClaimKey) -> Result<Option<Claim>, StoreError>;

    /// The owner item, read consistently; `None` when nobody ever owned the name.
    async fn owner(&self, hostname: &Hostname) -> Result<Option<Owner>, StoreError>;

    /// One recorded certificate; `None` when there is none or it was dropped.
    async fn certificate(&self, hostname: &Hostname, version: SiteVersion) -> Result<Option<StoredCertificate>, StoreError>;

    /// Writes all of `change` or nothing. At most 100 items. A claim written enters the change feed at least once.
    async fn commit(&self, change: &Change) -> Result<(), CommitError>;
}

/// What a page of results may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The results.
    pub items: Vec<T>,
    /// Opaque; hand it back for the next page. `None` when this was the last.
    pub cursor: Option<String>,
}

/// The lists people ask for. They may lag the table by about a second.
#[async_trait]
pub trait Listings: Send + Sync {
    /// Claims by tenant and state, in hostname order; a cursor that was not made here is [`StoreError::Defect`]-free: it starts nowhere
    /// and returns an empty page.
    async fn claims(
        &self,
        tenant: Option<&TenantId>,
        state: Option<StateName>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Claim>, StoreError>;

    /// One claim's history after a sequence number, oldest first.
    async fn history(&self, key: &ClaimKey, after: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Every claim to one hostname.
    async fn claims_to(&self, hostname: &Hostname) -> Result<Vec<Claim>, StoreError>;
}

/// One entry of the due-index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueEntry {
    /// The claim.
    pub key: ClaimKey,
    /// Its version when indexed.
    pub version: u64,
    /// The earliest step due.
    pub step: Step,
    /// When it is due.
    pub next_look: Timestamp,
}

/// What is due when. May be a second stale.
#[async_trait]
pub trait DueIndex: Send + Sync {
    /// Entries with `from <= next_look <= until`, earliest first.
    async fn due(&self, from: Timestamp, until: Timestamp, cursor: Option<&str>, limit: usize) -> Result<Page<DueEntry>, StoreError>;
}

/// Sends nudges.
#[async_trait]
pub trait StepQueue: Send + Sync {
    /// Sends all or reports the failure; a repeat after a failure may duplicate, which every step withstands.
    async fn send(&self, dispatches: &[Dispatch]) -> Result<(), StoreError>;
}

/// A token bucket's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketShape {
    /// The most it holds.
    pub capacity: u32,
    /// How long one token takes to come back.
    pub refill: Duration,
}

/// What a bucket answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The tokens were taken.
    Granted,
    /// None left; come back after this long.
    Wait(Duration),
}

/// Token buckets, in the second table.
#[async_trait]
pub trait Limits: Send + Sync {
    /// Takes one token, in one conditional write.
    async fn take(&self, bucket: &str, shape: BucketShape, now: Timestamp) -> Result<Taken, StoreError>;
}

/// What a caller of the API may do.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Every tenant's domains.
    Operator,
    /// One tenant's own.
    Tenant,
}

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Caller {
    /// What they may do.
    pub role: Role,
    /// Whose domains, for [`Role::Tenant`].
    pub tenant: Option<TenantId>,
}

/// API keys, stored as hashes only, in the second table.
#[async_trait]
pub trait Callers: Send + Sync {
    /// Who the key with this SHA-256 (hex) belongs to.
    async fn caller(&self, key_sha256: &str) -> Result<Option<Caller>, StoreError>;

    /// Remembers a key's hash.
    async fn admit(&self, key_sha256: &str, caller: &Caller) -> Result<(), StoreError>;
}

/// Small named values, such as the timer's low-water mark.
#[async_trait]
pub trait Marks: Send + Sync {
    /// The value, `None` when it was never stored.
    async fn load(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Stores the value.
    async fn store(&self, name: &str, value: &str) -> Result<(), StoreError>;
}

/// What must be true of an object for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectCondition {
    /// It does not exist (`If-None-Match: *`).
    Absent,
    /// It has this ETag (`If-Match`).
    Matches(String),
}

/// The bucket as its one writer sees it.
#[async_trait]
pub trait BundleBucket: Send + Sync {
    /// The object and its ETag; `None` when it does not exist.
    async fn get(&self, name: &str) -> Result<Option<(Vec<u8>, String)>, StoreError>;

    /// Writes the object whole if the condition holds; a reader sees the old bytes or the new.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when the condition does not hold (S3: 412, 409).
    async fn put(&self, name: &str, bytes: &[u8], condition: &ObjectCondition) -> Result<(), CommitError>;

    /// Deletes every version of the object but the newest.
    async fn purge_older(&self, name: &str) -> Result<(), StoreError>;
}

/// A whole home, for wiring.
pub trait Home: DomainTable + Listings + DueIndex + StepQueue + Limits + Callers + Marks + BundleBucket {}

impl<T: DomainTable + Listings + DueIndex + StepQueue + Limits + Callers + Marks + BundleBucket> Home for T {}
