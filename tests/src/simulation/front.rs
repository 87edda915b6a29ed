//! The home as the functions see it: everything asked of it is counted, and a share of it is refused.
//!
//! Arrives: calls of the functions. Leaves: the home's answers. Goes wrong: on purpose, as a throttled home does: a call is refused before
//! anything happens, or it happens and its answer is lost.

use std::{
    ops::Sub,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use domains::{
    BundleBucket, Change, Claim, ClaimKey, CommitError, Dispatch, Document, Documents, DomainTable, DueEntry, DueIndex, Hostname,
    LedgerMove, Limits, Marks, ObjectCondition, Owner, Page, Reserved, SiteVersion, Step, StepQueue, StoreError, StoredCertificate, Taken,
    Timestamp, ledger::BucketShape,
};
use storage::{
    consumers::{FeedConsumer, FeedRecord, Message, QueueConsumer, Receipt},
    local::LocalHome,
};

use super::{locked, served::Served};
use crate::chance::Chance;

/// What was asked of the home.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Pages of the due-index read, and the marks beside them.
    pub timer_reads: u64,
    /// Entries of the due-index that were found there.
    pub timer_entries: u64,
    /// Items read: claims, owners, certificates, documents, objects of the bucket.
    pub reads: u64,
    /// Writes: transactions of the table, documents, moves of the ledger, marks, objects of the bucket.
    pub writes: u64,
    /// Nudges sent.
    pub sent: u64,
    /// Nudges received.
    pub received: u64,
    /// Changes that the feed showed.
    pub changes: u64,
    /// Bytes written into the bucket's index.
    pub index_bytes: u64,
    /// Calls refused, and answers lost.
    pub refused: u64,
}

impl Sub for Work {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            timer_reads: self.timer_reads - before.timer_reads,
            timer_entries: self.timer_entries - before.timer_entries,
            reads: self.reads - before.reads,
            writes: self.writes - before.writes,
            sent: self.sent - before.sent,
            received: self.received - before.received,
            changes: self.changes - before.changes,
            index_bytes: self.index_bytes - before.index_bytes,
            refused: self.refused - before.refused,
        }
    }
}

/// The home behind its counter.
pub struct Front {
    home: LocalHome,
    work: Mutex<Work>,
    busy: Mutex<Busy>,
    pub(super) served: Arc<Mutex<Served>>,
}

struct Busy {
    percent: usize,
    chance: Chance,
}

impl Front {
    pub(super) fn of(home: LocalHome, seed: u64) -> Self {
        let busy = Mutex::new(Busy { percent: 0, chance: Chance::from_seed(seed) });
        Self { home, work: Mutex::default(), busy, served: Arc::default() }
    }

    /// What was asked so far.
    pub fn work(&self) -> Work {
        *locked(&self.work)
    }

    /// Of 100 calls, how many it answers as a throttled home does; of those that write, every second is done all the same.
    pub fn throttle(&self, percent: usize) {
        locked(&self.busy).percent = percent;
    }

    fn count(&self, count: impl FnOnce(&mut Work)) {
        count(&mut locked(&self.work));
    }

    /// Whether this call is refused, and if so whether only its answer is lost.
    fn is_refused(&self) -> Option<bool> {
        let mut busy = locked(&self.busy);
        let percent = busy.percent;
        if percent == 0 || busy.chance.below(100) >= percent {
            return None;
        }
        let only_lost = busy.chance.below(2) == 0;
        drop(busy);
        self.count(|work| work.refused += 1);
        Some(only_lost)
    }

    async fn asked<T>(&self, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        match self.is_refused() {
            Some(_) => Err(throttled()),
            None => call.await,
        }
    }

    async fn told<T, E: From<StoreError>>(&self, call: impl Future<Output = Result<T, E>> + Send) -> Result<T, E> {
        match self.is_refused() {
            None => call.await,
            Some(false) => Err(throttled().into()),
            Some(true) => {
                call.await?;
                Err(throttled().into())
            }
        }
    }
}

fn throttled() -> StoreError {
    StoreError::Unavailable { detail: "the rate of requests is too high".into() }
}

#[async_trait]
impl DomainTable for Front {
    async fn claim(&self, key: &ClaimKey) -> Result<Option<Claim>, StoreError> {
        self.count(|work| work.reads += 1);
        self.asked(self.home.claim(key)).await
    }

    async fn owner(&self, hostname: &Hostname) -> Result<Option<Owner>, StoreError> {
        self.count(|work| work.reads += 1);
        self.asked(self.home.owner(hostname)).await
    }

    async fn certificate(&self, hostname: &Hostname, version: SiteVersion) -> Result<Option<StoredCertificate>, StoreError> {
        self.count(|work| work.reads += 1);
        self.asked(self.home.certificate(hostname, version)).await
    }

    async fn commit(&self, change: &Change) -> Result<(), CommitError> {
        self.count(|work| work.writes += 1);
        self.told(self.home.commit(change)).await
    }
}

#[async_trait]
impl Documents for Front {
    async fn document(&self, kind: &str, id: &str) -> Result<Option<Document>, StoreError> {
        self.count(|work| work.reads += 1);
        self.asked(self.home.document(kind, id)).await
    }

    async fn put_document(&self, kind: &str, id: &str, body: &str, expected: Option<u64>) -> Result<u64, CommitError> {
        self.count(|work| work.writes += 1);
        self.told(self.home.put_document(kind, id, body, expected)).await
    }

    async fn delete_document(&self, kind: &str, id: &str, expected: u64) -> Result<(), CommitError> {
        self.count(|work| work.writes += 1);
        self.told(self.home.delete_document(kind, id, expected)).await
    }

    async fn documents(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        self.count(|work| work.reads += 1);
        self.asked(self.home.documents(kind, after, limit)).await
    }
}

#[async_trait]
impl DueIndex for Front {
    async fn due(&self, from: Timestamp, until: Timestamp, cursor: Option<&str>, limit: usize) -> Result<Page<DueEntry>, StoreError> {
        let page = self.asked(self.home.due(from, until, cursor, limit)).await;
        let entries = page.as_ref().map_or(0, |page| page.items.len() as u64);
        self.count(|work| (work.timer_reads, work.timer_entries) = (work.timer_reads + 1, work.timer_entries + entries));
        page
    }
}

#[async_trait]
impl Marks for Front {
    async fn load(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.count(|work| work.timer_reads += 1);
        self.asked(self.home.load(name)).await
    }

    async fn store(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.count(|work| work.writes += 1);
        self.told(self.home.store(name, value)).await
    }
}

#[async_trait]
impl StepQueue for Front {
    async fn send(&self, dispatches: &[Dispatch]) -> Result<(), StoreError> {
        self.count(|work| work.sent += dispatches.len() as u64);
        self.told(self.home.send(dispatches)).await
    }
}

#[async_trait]
impl QueueConsumer for Front {
    async fn receive(&self, step: Step, max: usize, visibility: Duration, wait: Duration) -> Result<Vec<Message>, StoreError> {
        let messages = self.home.receive(step, max, visibility, wait).await?;
        self.count(|work| work.received += messages.len() as u64);
        Ok(messages)
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), StoreError> {
        self.told(self.home.delete(receipt)).await
    }

    async fn change_visibility(&self, receipt: &Receipt, visibility: Duration) -> Result<(), StoreError> {
        self.told(self.home.change_visibility(receipt, visibility)).await
    }
}

#[async_trait]
impl FeedConsumer for Front {
    async fn next_batch(&self, max: usize, wait: Duration) -> Result<Vec<FeedRecord>, StoreError> {
        let batch = self.home.next_batch(max, wait).await?;
        self.count(|work| work.changes += batch.len() as u64);
        Ok(batch)
    }

    async fn acknowledge(&self, sequences: &[u64]) -> Result<(), StoreError> {
        self.home.acknowledge(sequences).await
    }
}

#[async_trait]
impl Limits for Front {
    async fn take(&self, bucket: &str, shape: BucketShape, now: Timestamp) -> Result<Taken, StoreError> {
        self.count(|work| work.writes += 1);
        self.told(self.home.take(bucket, shape, now)).await
    }

    async fn apply(&self, entry: &LedgerMove, now: Timestamp) -> Result<Reserved, StoreError> {
        self.count(|work| work.writes += 1);
        self.told(self.home.apply(entry, now)).await
    }

    async fn ledger_items(&self, names: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        self.count(|work| work.reads += 1);
        self.asked(self.home.ledger_items(names)).await
    }
}

#[async_trait]
impl BundleBucket for Front {
    async fn get(&self, name: &str) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        self.count(|work| work.reads += 1);
        self.asked(self.home.get(name)).await
    }

    async fn put(&self, name: &str, bytes: &[u8], condition: &ObjectCondition) -> Result<(), CommitError> {
        let index_bytes = if name.starts_with("index/") { bytes.len() as u64 } else { 0 };
        self.count(|work| (work.writes, work.index_bytes) = (work.writes + 1, work.index_bytes + index_bytes));
        let (home, served) = (self.home.clone(), self.served.clone());
        let (name, bytes, condition) = (name.to_owned(), bytes.to_vec(), condition.clone());
        let put = async {
            // A task of its own: a worker may end while the bucket writes, and the judge is to hear of it all the same.
            let written = tokio::spawn(async move {
                home.put(&name, &bytes, &condition).await?;
                locked(&served).see(&name, &bytes);
                Ok(())
            });
            written.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
        };
        self.told(put).await
    }

    async fn purge_older(&self, name: &str) -> Result<(), StoreError> {
        self.count(|work| work.writes += 1);
        self.told(self.home.purge_older(name)).await
    }
}
