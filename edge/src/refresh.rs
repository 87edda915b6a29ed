//! Keeping up with the source: the index is polled, bundles are read for what changed and filled in for what nobody asked for yet.
//!
//! Arrives: listings, shards, settings, bundles. Leaves: names and bundles in service, and on the local disk. Goes wrong: a source that
//! does not answer changes nothing; a shard of a lower generation is refused with an alarm; a refused bundle is looked at again later.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bundles::{BundleError, EDGE_SETTINGS_OBJECT, EdgeSettings, IndexShard, MAX_INDEX_BYTES, index_object};
use bytes::Bytes;
use domains::Hostname;
use futures_util::{
    FutureExt, StreamExt,
    stream::{self, FuturesUnordered},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    assertion::Signer,
    certificates::{Accepted, Certificates, Disk, DiskError, LoadError, Tickets},
    config::Refresh,
    connections::Connections,
    metrics::EdgeMetrics,
    names::{Change, Names},
    source::{Etag, Fetched, Source, SourceError},
};

/// The most accepted bundles written to the disk in one go.
const MAX_BATCH: usize = 64;
/// Shards written to the disk at once: their waits for it overlap, and the connections keep the cores.
const KEPT_AT_ONCE: usize = 4;
/// The longest a refused or unreachable bundle is left alone.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);
/// Settings are small; anything larger is not ours.
const MAX_SETTINGS_BYTES: usize = 64 * 1024;

/// Everything refreshing works on.
pub(crate) struct Refresher {
    pub(crate) names: Arc<Names>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) clock: Arc<dyn domains::Clock>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) signer: Arc<Signer>,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) settings: watch::Sender<Option<Arc<EdgeSettings>>>,
    pub(crate) loaded: watch::Sender<bool>,
    pub(crate) config: Refresh,
    pub(crate) queue: Queue,
}

/// What the last polls saw.
#[derive(Debug, Default)]
struct Seen {
    shards: HashMap<u8, Etag>,
    settings: Option<Etag>,
    failing: bool,
    unkept: Unkept,
}

/// What is in effect and is to be written to the local disk.
#[derive(Debug, Default)]
struct Unkept {
    shards: BTreeSet<u8>,
    settings: Option<Bytes>,
}

/// What came of one shard.
enum ShardRead {
    /// Its content was applied, and is to be kept, or it was refused; it need not be read again before it changes.
    Done { shard: u8, etag: Etag, unkept: bool },
    /// It could not be read now.
    Later,
}

impl Refresher {
    /// Polls for as long as the edge runs.
    pub(crate) async fn poll_forever(self: Arc<Self>) {
        let mut seen = Seen::default();
        loop {
            let polled = self.poll(&mut seen).await;
            if let (Err(error), false) = (&polled, seen.failing) {
                tracing::warn!(error = telemetry::error_chain(error), "the source cannot be read; everything known stays in service");
            } else if polled.is_ok() && seen.failing {
                tracing::info!("the source can be read again");
            }
            seen.failing = polled.is_err();
            self.keep(&mut seen.unkept).await;
            tokio::time::sleep(with_jitter(self.config.poll_interval)).await;
        }
    }

    /// Looks once at everything that may have changed, and takes it in. Keeping it is for [`keep`](Self::keep): a slow disk must not keep an
    /// edge that knows every name from serving.
    async fn poll(self: &Arc<Self>, seen: &mut Seen) -> Result<(), SourceError> {
        self.tickets.forget_ended();
        let Unkept { shards: unkept, settings: unkept_settings } = &mut seen.unkept;
        let (settings, index) =
            tokio::join!(self.poll_settings(&mut seen.settings, unkept_settings), self.poll_index(&mut seen.shards, unkept));
        if index? {
            self.metrics.index_read();
            if !self.loaded.send_replace(true) {
                let (known, served) = self.names.counts();
                tracing::info!(names = known, on_disk = served, "index loaded");
            }
        }
        settings
    }

    /// Reads the shards that changed; says whether that was all of them.
    async fn poll_index(self: &Arc<Self>, seen: &mut HashMap<u8, Etag>, unkept: &mut BTreeSet<u8>) -> Result<bool, SourceError> {
        self.metrics.source_read("list");
        let listed = self.bounded("index/", self.source.list_index()).await?;
        let changed: Vec<u8> = listed.into_iter().filter(|(shard, etag)| seen.get(shard) != Some(etag)).map(|(shard, _)| shard).collect();
        let mut reads = stream::iter(changed).map(|shard| self.read_shard(shard)).buffer_unordered(self.config.fill_concurrency.max(1));
        let mut complete = true;
        while let Some(read) = reads.next().await {
            match read {
                ShardRead::Done { shard, etag, unkept: changed } => {
                    seen.insert(shard, etag);
                    if changed {
                        unkept.insert(shard);
                    }
                }
                ShardRead::Later => complete = false,
            }
        }
        Ok(complete)
    }

    async fn poll_settings(&self, seen: &mut Option<Etag>, unkept: &mut Option<Bytes>) -> Result<(), SourceError> {
        self.metrics.source_read("settings");
        let read = self.source.get(EDGE_SETTINGS_OBJECT, MAX_SETTINGS_BYTES, seen.as_ref());
        let Fetched::Object { bytes, etag } = self.bounded(EDGE_SETTINGS_OBJECT, read).await? else { return Ok(()) };
        *seen = Some(etag);
        match EdgeSettings::from_bytes(&bytes) {
            Ok(settings) => {
                let lower = self.settings.borrow().as_ref().is_some_and(|known| known.generation > settings.generation);
                if lower {
                    self.metrics.object_refused("settings_lower_generation");
                    tracing::error!(generation = settings.generation, "edge settings of a lower generation refused");
                    return Ok(());
                }
                self.signer.take(&settings, self.certificates.seal_keys());
                self.tickets.take(&settings, self.certificates.seal_keys());
                self.settings.send_replace(Some(Arc::new(settings)));
                *unkept = Some(bytes);
            }
            Err(error) => self.refused(EDGE_SETTINGS_OBJECT, &error),
        }
        Ok(())
    }

    async fn read_shard(self: &Arc<Self>, shard: u8) -> ShardRead {
        self.metrics.source_read("shard");
        let object = index_object(shard);
        let fetched = self.bounded(&object, self.source.get(&object, MAX_INDEX_BYTES, None)).await;
        let (bytes, etag) = match fetched {
            Ok(Fetched::Object { bytes, etag }) => (bytes, etag),
            // Listed and gone again: the next listing will tell.
            Ok(_) => return ShardRead::Later,
            Err(error) => {
                tracing::debug!(error = telemetry::error_chain(&error), "index shard unread");
                return ShardRead::Later;
            }
        };
        let this = Arc::clone(self);
        // Reading thousands of names takes milliseconds that the connections should not pay for.
        let taken = tokio::task::spawn_blocking(move || match IndexShard::from_bytes(&bytes) {
            Ok(parsed) if parsed.shard == shard => this.apply(parsed),
            Ok(other) => {
                this.metrics.object_refused("wrong_shard");
                tracing::error!(shard, found = other.shard, "an index shard lies under another's name; refused");
                false
            }
            Err(error) => {
                this.refused(&index_object(shard), &error);
                false
            }
        });
        let unkept = taken.await.unwrap_or_else(|panicked| {
            tracing::error!(shard, error = telemetry::error_chain(&panicked), "reading an index shard failed");
            false
        });
        ShardRead::Done { shard, etag, unkept }
    }

    /// Takes a shard in, and says whether it is still to be kept on the disk. Runs where it may block.
    fn apply(&self, offered: IndexShard) -> bool {
        let shard = offered.shard;
        let changes = match self.names.apply(offered) {
            Ok(changes) => changes,
            Err(lower) => {
                self.metrics.object_refused("lower_generation");
                tracing::error!(shard, have = lower.have, offered = lower.offered, "index shard refused: {lower}");
                return false;
            }
        };
        let first = !*self.loaded.borrow();
        let mut removed = Vec::new();
        for change in changes {
            match change {
                Change::Wanted { hostname, cold } => self.queue.push(hostname, first && cold),
                Change::Removed(hostname) => {
                    tracing::info!(hostname = %hostname, "name removed");
                    self.certificates.forget(&hostname);
                    self.connections.close_all_of(&hostname, None);
                    if self.names.wants(&hostname) {
                        self.queue.push(hostname.clone(), false);
                    }
                    removed.push(hostname);
                }
            }
        }
        if removed.is_empty() {
            return true;
        }
        // A name that was there must not come back after a crash, so this waits for nothing. The shard goes first: after a crash in between,
        // its tombstones still wipe the bundles.
        let kept = self.keep_shard(shard).and_then(|()| self.disk.wipe(&removed));
        self.told(kept).is_none()
    }

    fn keep_shard(&self, shard: u8) -> Result<(), DiskError> {
        self.disk.keep_shard(&self.names.shard(shard, self.clock.now().as_second()))
    }

    /// Writes what was taken in to the local disk; what cannot be written now is tried again after the next poll.
    async fn keep(self: &Arc<Self>, unkept: &mut Unkept) {
        if let Some(bytes) = unkept.settings.clone() {
            let this = Arc::clone(self);
            if self.in_background(move || this.disk.keep_settings(&bytes)).await.is_some() {
                unkept.settings = None;
            }
        }
        let shards = std::mem::take(&mut unkept.shards);
        let mut keeping = stream::iter(shards)
            .map(|shard| {
                let this = Arc::clone(self);
                async move { (shard, self.in_background(move || this.keep_shard(shard)).await.is_some()) }
            })
            .buffer_unordered(KEPT_AT_ONCE);
        while let Some((shard, kept)) = keeping.next().await {
            if !kept {
                unkept.shards.insert(shard);
            }
        }
        if unkept.shards.is_empty() && *self.loaded.borrow() && !self.disk.is_whole() {
            let this = Arc::clone(self);
            self.in_background(move || this.disk.whole()).await;
        }
    }

    /// Reads bundles that are wanted, for as long as the edge runs.
    pub(crate) async fn fill_forever(self: Arc<Self>) {
        let mut reads = FuturesUnordered::new();
        let mut pace = Pace::new(self.config.fill_per_second);
        loop {
            let mut wait_until = Instant::now() + MAX_RETRY_AFTER;
            while reads.len() < self.config.fill_concurrency.max(1) {
                match self.queue.next(Instant::now(), &mut pace) {
                    Next::Read(hostname) if !self.names.wants(&hostname) => self.queue.done(&hostname),
                    Next::Read(hostname) => reads.push(self.read_bundle(hostname)),
                    Next::Wait(until) => {
                        wait_until = until.min(wait_until);
                        break;
                    }
                }
            }
            tokio::select! {
                Some(read) = reads.next() => {
                    let mut done = vec![read];
                    while let Some(Some(read)) = (done.len() < MAX_BATCH).then(|| reads.next().now_or_never().flatten()) {
                        done.push(read);
                    }
                    self.settle(done).await;
                }
                () = self.queue.pushed.notified() => {}
                () = sleep_until(wait_until) => {}
            }
        }
    }

    async fn read_bundle(self: &Arc<Self>, hostname: Hostname) -> (Hostname, Result<Accepted, LoadError>) {
        let read = self.certificates.fetch(&hostname, self.config.source_timeout).await;
        (hostname, read)
    }

    async fn settle(self: &Arc<Self>, done: Vec<(Hostname, Result<Accepted, LoadError>)>) {
        let mut accepted = Vec::new();
        let mut hostnames = Vec::new();
        for (hostname, read) in done {
            match read {
                Ok(bundle) => accepted.push(bundle),
                Err(error) => tracing::debug!(hostname = %hostname, error = telemetry::error_chain(&error), "bundle not taken"),
            }
            hostnames.push(hostname);
        }
        if !accepted.is_empty() {
            self.certificates.commit(accepted).await;
        }
        for hostname in hostnames {
            match self.names.wants(&hostname) {
                true => self.queue.later(hostname, self.config.retry_after),
                false => self.queue.done(&hostname),
            }
        }
    }

    fn refused(&self, object: &str, error: &BundleError) {
        self.metrics.object_refused(error.reason());
        tracing::error!(object, code = error.reason(), error = telemetry::error_chain(error), "object of the source refused");
    }

    async fn bounded<T>(&self, object: &str, read: impl Future<Output = Result<T, SourceError>>) -> Result<T, SourceError> {
        let (read, kind) = match timeout(self.config.source_timeout, read).await {
            Ok(read) => (read, "failed"),
            Err(elapsed) => (Err(SourceError::new(object, elapsed)), "timeout"),
        };
        if read.is_err() {
            self.metrics.source_failed(kind);
        }
        read
    }

    /// Does work on the disk; `None` when that failed.
    async fn in_background(&self, work: impl FnOnce() -> Result<(), DiskError> + Send + 'static) -> Option<()> {
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => self.told(done),
            Err(panicked) => {
                tracing::error!(error = telemetry::error_chain(&panicked), "writing the local disk failed");
                None
            }
        }
    }

    fn told(&self, done: Result<(), DiskError>) -> Option<()> {
        done.inspect_err(|error| {
            self.metrics.object_refused("disk");
            tracing::error!(error = telemetry::error_chain(error), "the local disk cannot be written");
        })
        .ok()
    }
}

/// Names whose bundles are to be read: changed ones first, then, at a bounded rate, ones nobody asked for yet.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    pushed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    changed: VecDeque<Hostname>,
    cold: VecDeque<Hostname>,
    later: BTreeMap<(Instant, u64), Hostname>,
    count: u64,
    /// Names in `changed` or being read. Those in `cold` are as many as there are names, so they are not noted twice.
    taken: HashSet<Hostname>,
    attempts: HashMap<Hostname, u32>,
}

enum Next {
    Read(Hostname),
    Wait(Instant),
}

impl Queue {
    pub(crate) fn push(&self, hostname: Hostname, cold: bool) {
        let mut waiting = self.lock();
        waiting.attempts.remove(&hostname);
        if cold {
            waiting.cold.push_back(hostname);
        } else if waiting.taken.insert(hostname.clone()) {
            waiting.changed.push_back(hostname);
        } else {
            return;
        }
        self.pushed.notify_one();
    }

    /// Begins with names that are cold.
    pub(crate) fn fill(&self, cold: Vec<Hostname>) {
        self.lock().cold = cold.into();
        self.pushed.notify_one();
    }

    fn next(&self, now: Instant, pace: &mut Pace) -> Next {
        let mut waiting = self.lock();
        while let Some(((due, _), _)) = waiting.later.first_key_value() {
            if *due > now {
                break;
            }
            let Some((_, hostname)) = waiting.later.pop_first() else { break };
            if waiting.taken.insert(hostname.clone()) {
                waiting.changed.push_back(hostname);
            }
        }
        if let Some(hostname) = waiting.changed.pop_front() {
            return Next::Read(hostname);
        }
        let due = waiting.later.first_key_value().map_or(now + MAX_RETRY_AFTER, |((due, _), _)| *due);
        if waiting.cold.is_empty() {
            return Next::Wait(due);
        }
        if let Err(until) = pace.take(now) {
            return Next::Wait(until.min(due));
        }
        while let Some(hostname) = waiting.cold.pop_front() {
            // One that changed meanwhile is being read already.
            if waiting.taken.insert(hostname.clone()) {
                return Next::Read(hostname);
            }
        }
        waiting.cold = VecDeque::new();
        Next::Wait(due)
    }

    fn done(&self, hostname: &Hostname) {
        let mut waiting = self.lock();
        waiting.taken.remove(hostname);
        waiting.attempts.remove(hostname);
    }

    /// Looks at a name again later: each time twice as late.
    fn later(&self, hostname: Hostname, after: Duration) {
        let mut waiting = self.lock();
        waiting.taken.remove(&hostname);
        let attempts = waiting.attempts.entry(hostname.clone()).or_default();
        let after = after.saturating_mul(1 << (*attempts).min(10)).min(MAX_RETRY_AFTER);
        *attempts += 1;
        waiting.count += 1;
        let key = (Instant::now() + after, waiting.count);
        waiting.later.insert(key, hostname);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// At most so many a second, without saving up.
#[derive(Debug)]
struct Pace {
    each: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: u32) -> Self {
        Self { each: Duration::from_secs(1) / per_second.max(1), next: Instant::now() }
    }

    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        // The timer is coarser than a fast pace, so a few steps may be caught up.
        let earliest = now.checked_sub(Duration::from_millis(20)).unwrap_or(now);
        if self.next > now {
            return Err(self.next);
        }
        self.next = self.next.max(earliest) + self.each;
        Ok(())
    }
}

/// A duration with up to a fifth added, so that a fleet does not move in step.
fn with_jitter(interval: Duration) -> Duration {
    static RANDOM: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    let draw = RANDOM.hash_one(Instant::now()) % 1024;
    interval + interval.mul_f64(draw as f64 / 1024.0 / 5.0)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bundles::{Digest, IndexEntry, shard_of};
    use domains::{Clock as _, SiteVersion, TenantId};

    use super::*;
    use crate::{certificates::Ingredients, edge::Remembered};

    fn name(number: usize) -> Hostname {
        Hostname::parse_name(&format!("shop-{number}.brand.com")).unwrap()
    }

    const SHARDS: usize = 3;

    /// An edge's refresher as it is after a start: with what `folder` has, and `source` to read from.
    fn started(folder: &Path, source: &Path) -> Arc<Refresher> {
        let Remembered { disk, names, loaded, .. } = Disk::lock(folder).and_then(Remembered::read).unwrap();
        let (metrics, connections, clock) = (EdgeMetrics::new(10), Arc::new(Connections::default()), Arc::new(domains::SystemClock));
        let source: Arc<dyn Source> = Arc::new(crate::FolderSource::new(source));
        let tickets = Arc::new(Tickets::new(crate::config::TicketKeys::default(), clock.clone(), metrics.clone()));
        let certificates = Certificates::new(Ingredients {
            names: Arc::clone(&names),
            disk: Arc::clone(&disk),
            source: Arc::clone(&source),
            seal_keys: bundles::SealKeys::default(),
            clock: clock.clone(),
            connections: Arc::clone(&connections),
            metrics: metrics.clone(),
            memory_bytes: 1 << 20,
            tickets: Arc::clone(&tickets),
            cold_read_timeout: Duration::from_secs(5),
        });
        Arc::new(Refresher {
            names,
            certificates: Arc::new(certificates.unwrap()),
            disk,
            source,
            clock: clock.clone(),
            connections,
            metrics,
            signer: Arc::new(Signer::new(clock)),
            tickets,
            settings: watch::Sender::new(None),
            loaded: watch::Sender::new(loaded),
            config: Refresh::default(),
            queue: Queue::default(),
        })
    }

    /// Names, each of another shard.
    fn apart() -> Vec<Hostname> {
        let mut shards = HashSet::new();
        (0..).map(name).filter(|name| shards.insert(shard_of(name))).take(SHARDS).collect()
    }

    fn publish(source: &Path, hostname: &Hostname, version: u64, removed: bool) {
        let mut shard = IndexShard::empty(shard_of(hostname));
        let entry = IndexEntry {
            version: SiteVersion(version),
            tenant: (!removed).then(|| TenantId::parse("acme").unwrap()),
            removed_at: removed.then(|| domains::SystemClock.now().as_second()),
            digest: Digest::of(&version.to_be_bytes()),
        };
        shard.merge(hostname, entry).unwrap();
        shard.generation = version;
        std::fs::create_dir_all(source.join("index")).unwrap();
        let (new, place) = (source.join("new"), source.join(index_object(shard.shard)));
        std::fs::write(&new, shard.to_bytes()).unwrap();
        std::fs::rename(new, place).unwrap();
    }

    #[tokio::test]
    async fn an_edge_is_ready_before_its_disk_is_and_one_that_ends_in_between_does_not_take_a_part_for_all() {
        let (folder, source, nowhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        apart().iter().for_each(|hostname| publish(source.path(), hostname, 1, false));
        let (first, mut seen) = (started(folder.path(), source.path()), Seen::default());
        first.poll(&mut seen).await.unwrap();
        assert!(*first.loaded.borrow());
        assert_eq!((first.names.counts().0, first.disk.is_whole()), (SHARDS, false));
        // It ends when one shard is on the disk.
        first.keep_shard(shard_of(&apart()[0])).unwrap();
        drop(first);

        let (second, mut seen) = (started(folder.path(), source.path()), Seen::default());
        assert_eq!((second.names.counts().0, *second.loaded.borrow()), (1, false));
        second.poll(&mut seen).await.unwrap();
        second.keep(&mut seen.unkept).await;
        assert_eq!(seen.unkept.shards.len(), 0);
        drop(second);

        let third = started(folder.path(), nowhere.path());
        assert_eq!((third.names.counts().0, *third.loaded.borrow()), (SHARDS, true));
    }

    #[tokio::test]
    async fn a_removed_name_stays_removed_even_when_the_edge_ends_before_it_keeps_the_index() {
        let (folder, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let hostname = &apart()[0];
        publish(source.path(), hostname, 1, false);
        let (first, mut seen) = (started(folder.path(), source.path()), Seen::default());
        first.poll(&mut seen).await.unwrap();
        first.keep(&mut seen.unkept).await;
        publish(source.path(), hostname, 2, true);
        first.poll(&mut seen).await.unwrap();
        drop(first);

        // The source tells of the time before.
        publish(source.path(), hostname, 1, false);
        let (second, mut seen) = (started(folder.path(), source.path()), Seen::default());
        assert_eq!(second.names.find(hostname), None);
        second.poll(&mut seen).await.unwrap();
        assert_eq!(second.names.find(hostname), None);
    }

    #[tokio::test]
    async fn a_shard_that_could_not_be_written_is_written_after_a_later_poll() {
        let (folder, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        apart().iter().for_each(|hostname| publish(source.path(), hostname, 1, false));
        let (edge, mut seen) = (started(folder.path(), source.path()), Seen::default());
        let shard = shard_of(&apart()[0]);
        // A folder where the file is to be written.
        let in_the_way = folder.path().join(format!("{}.new", index_object(shard)));
        std::fs::create_dir(&in_the_way).unwrap();
        edge.poll(&mut seen).await.unwrap();
        edge.keep(&mut seen.unkept).await;
        assert_eq!((seen.unkept.shards.iter().copied().collect::<Vec<_>>(), edge.disk.is_whole()), (vec![shard], false));
        std::fs::remove_dir(in_the_way).unwrap();
        edge.poll(&mut seen).await.unwrap();
        edge.keep(&mut seen.unkept).await;
        assert!(seen.unkept.shards.is_empty() && edge.disk.is_whole());
    }

    fn taken(queue: &Queue, pace: &mut Pace) -> Vec<Hostname> {
        std::iter::from_fn(|| match queue.next(Instant::now(), pace) {
            Next::Read(hostname) => Some(hostname),
            Next::Wait(_) => None,
        })
        .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn changed_names_go_first_and_cold_ones_at_the_pace_given() {
        let (queue, mut pace) = (Queue::default(), Pace::new(10));
        (0..30).for_each(|number| queue.push(name(number), true));
        queue.push(name(99), false);
        queue.push(name(99), false);
        assert_eq!(taken(&queue, &mut pace), [name(99), name(0)]);
        let mut seconds = 0;
        let mut cold = 1;
        while cold < 30 {
            tokio::time::advance(Duration::from_millis(100)).await;
            seconds += 1;
            cold += taken(&queue, &mut pace).len();
        }
        assert_eq!(seconds, 29);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_name_waits_twice_as_long_each_time_until_it_changes() {
        let (queue, mut pace) = (Queue::default(), Pace::new(10));
        let after = Duration::from_secs(1);
        queue.push(name(0), false);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(taken(&queue, &mut pace), [name(0)]);
            queue.later(name(0), after);
            tokio::time::advance(Duration::from_secs(wait) - Duration::from_millis(1)).await;
            assert_eq!(taken(&queue, &mut pace), []);
            tokio::time::advance(Duration::from_millis(2)).await;
        }
        assert_eq!(taken(&queue, &mut pace), [name(0)]);
        queue.later(name(0), after);
        queue.push(name(0), false);
        assert_eq!(taken(&queue, &mut pace), [name(0)]);
    }
}
