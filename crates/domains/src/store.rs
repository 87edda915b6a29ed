//! The traits of the two homes, with their contracts in the terms of the harder one.
//!
//! Arrives: what a step wants remembered. Leaves: what was remembered. Goes wrong: [`StoreError`], which never means absence, and
//! [`CommitError::Conflict`], which means that someone else wrote first and is not a failure.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{
    Claim, ClaimKey, Dispatch, HistoryEntry, Hostname, Owner, SiteVersion, StateName, Step, StoredCertificate, TenantId,
    ledger::{BucketShape, LedgerMove, Reserved},
};

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

/// How long a committed history entry may take to show in the feed of events.
///
/// The harder home orders the feed by [`HistoryEntry::at`], the writer's time, and shows what is older than this only, so that a page never
/// ends behind an entry that a slow writer, a clock that is late or the index has yet to bring: a commit may take 10 s with its retries,
/// clocks may differ by 5 s, and the index may be 15 s behind.
pub const EVENTS_LAG: Duration = Duration::from_secs(30);

/// A page of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPage {
    /// The events, in the feed's order.
    pub items: Vec<HistoryEntry>,
    /// Opaque; hand it back for what comes after this page, now or in a year. An empty page has one, too.
    pub cursor: String,
    /// Whether the next page may have something already. A page may be short, or empty, and this `true`: the filter passed over others.
    pub more: bool,
}

/// Every claim's history as one feed.
///
/// **Order.** One order, which never changes: who reads twice from one cursor sees the same, and then what came since. One claim's entries
/// come by their number. Between claims the order is about that of [`HistoryEntry::at`], not exactly.
///
/// **Nothing is skipped.** Whatever is committed after a page was read comes after its cursor. An entry may therefore show up to
/// [`EVENTS_LAG`] after its commit.
///
/// **At least once.** A reader that keeps its cursor only after its work may meet an entry again; claim and number tell.
///
/// On DynamoDB: history items carry `event_shard` (a hash of the claim's key, so that one claim's entries lie together and writers do not
/// share one partition) and `event_sort` (`at`, key and number, each of fixed width); a GSI over both is read shard by shard up to
/// `now - EVENTS_LAG` and merged, and the cursor holds the last `event_sort`. A commit there is refused as a conflict once its history is
/// older than the lag leaves room for.
#[async_trait]
pub trait EventFeed: Send + Sync {
    /// Events after a cursor, from the beginning without one; `None` when the cursor was not made here for this tenant.
    async fn events(&self, tenant: Option<&TenantId>, after: Option<&str>, limit: usize) -> Result<Option<EventPage>, StoreError>;
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

/// What a bucket answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The tokens were taken.
    Granted,
    /// None left; come back after this long.
    Wait(Duration),
}

/// Token buckets, in the second table: lone ones by name, and the items of the [ledger](crate::ledger), which are opaque to homes.
#[async_trait]
pub trait Limits: Send + Sync {
    /// Takes one token, in one conditional write.
    async fn take(&self, bucket: &str, shape: BucketShape, now: Timestamp) -> Result<Taken, StoreError>;

    /// Makes one move of the ledger in one conditional write: reads the items that [`LedgerMove::names`] names (consistently), decides with
    /// [`LedgerMove::decide`], and writes what that returns on condition that every item read is still as it was read, absent ones included.
    /// Where one is not, nothing is written and all is read and decided anew. At most [`MAX_ITEMS`](crate::ledger::MAX_ITEMS) items: on DynamoDB
    /// one `BatchGetItem` and one `TransactWriteItems`, with a condition check for each item that is read and not written.
    ///
    /// An answer that was lost may be asked again: a repeat of a granted reservation takes none, and of a wait books none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when others were first each time, too: nothing was written, or it was and a repeat finds it.
    async fn apply(&self, entry: &LedgerMove, now: Timestamp) -> Result<Reserved, StoreError>;

    /// The ledger's items by name, in the order asked for, `None` where there is none; for people to look at. At most
    /// [`MAX_ITEMS`](crate::ledger::MAX_ITEMS). An item whose time has passed may still be there or be gone: both say the same.
    async fn ledger_items(&self, names: &[String]) -> Result<Vec<Option<String>>, StoreError>;
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

/// The most bytes of a document's body: the harder home's items hold 400 KB with their names.
///
/// Source: DynamoDB item size, docs.aws.amazon.com/amazondynamodb (read 2026-11).
pub const MAX_DOCUMENT_BYTES: usize = 350_000;

/// A small document beside the domains: a secret, a webhook, a job.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name among those of its kind; documents of one kind are listed in the order of these.
    pub id: String,
    /// Guards every write.
    pub version: u64,
    /// What it says, as JSON.
    pub body: String,
}

impl std::fmt::Debug for Document {
    // The body may hold a secret, which has no business in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Document({} version {})", self.id, self.version)
    }
}

/// Small versioned documents, in the second table. Nothing of them enters the change feed.
#[async_trait]
pub trait Documents: Send + Sync {
    /// The document, read consistently.
    async fn document(&self, kind: &str, id: &str) -> Result<Option<Document>, StoreError>;

    /// Writes the document on condition of the version that was read (`None`: it must not exist), and returns its new version.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when someone else wrote first; [`StoreError::Defect`] beyond [`MAX_DOCUMENT_BYTES`].
    async fn put_document(&self, kind: &str, id: &str, body: &str, expected: Option<u64>) -> Result<u64, CommitError>;

    /// Deletes the document on condition of the version that was read.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] when someone else wrote or deleted first.
    async fn delete_document(&self, kind: &str, id: &str, expected: u64) -> Result<(), CommitError>;

    /// Documents of a kind after this id, in the order of their ids; as many as `limit` unless these were the last.
    async fn documents(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError>;
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

/// The zone below which delegated names find the answers of their dns-01 challenges (RFC 8555, section 8.4).
#[async_trait]
pub trait AnswerZone: Send + Sync {
    /// Adds a TXT value at `name`, beside others there; repeating it changes nothing. Returns once every server of the zone answers with it.
    async fn present(&self, name: &str, value: &str) -> Result<(), StoreError>;

    /// Takes one TXT value away; one that is not there is no error.
    async fn withdraw(&self, name: &str, value: &str) -> Result<(), StoreError>;
}

/// A whole home, for wiring.
pub trait Home: DomainTable + Listings + EventFeed + DueIndex + StepQueue + Limits + Callers + Marks + Documents + BundleBucket {}

impl<T: DomainTable + Listings + EventFeed + DueIndex + StepQueue + Limits + Callers + Marks + Documents + BundleBucket> Home for T {}
