//! An edge with everything around it.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use domains::SystemClock;
use edge::{Config, Edge, Etag, Fetched, FolderSource, Inherited, Parts, Source, SourceError, StartError, config::Drain};

use crate::{bucket::Bucket, origin::Origin, s3::S3};

/// A source that counts its reads and can be taken away.
pub(crate) struct Watched {
    inner: Arc<dyn Source>,
    pub(crate) reads: AtomicUsize,
    pub(crate) bundles: Mutex<Vec<String>>,
    pub(crate) dead: AtomicBool,
    /// Reads begin, and never end.
    pub(crate) silent: AtomicBool,
    /// Each read takes [`SLOW`].
    pub(crate) slow: AtomicBool,
}

/// Longer than a poll waits for the next, and shorter than a read may take.
const SLOW: Duration = Duration::from_millis(80);

impl Watched {
    pub(crate) fn new(folder: &Path) -> Arc<Self> {
        Self::over(Arc::new(FolderSource::new(folder)))
    }

    pub(crate) fn over(inner: Arc<dyn Source>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            reads: AtomicUsize::new(0),
            bundles: Mutex::default(),
            dead: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            slow: AtomicBool::new(false),
        })
    }

    pub(crate) fn bundle_reads(&self) -> usize {
        self.bundles.lock().unwrap().len()
    }

    async fn read(&self, object: &str) -> Result<(), SourceError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.slow.load(Ordering::SeqCst) {
            tokio::time::sleep(SLOW).await;
        }
        match self.dead.load(Ordering::SeqCst) {
            true => Err(SourceError::new(object, "the source was taken away")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Source for Watched {
    async fn list_index(&self) -> Result<Vec<(u8, Etag)>, SourceError> {
        self.read("index/").await?;
        self.inner.list_index().await
    }

    async fn get(&self, object: &str, limit: usize, unless: Option<&Etag>) -> Result<Fetched, SourceError> {
        self.read(object).await?;
        if object.starts_with("sites/") {
            self.bundles.lock().unwrap().push(object.to_owned());
        }
        self.inner.get(object, limit, unless).await
    }
}

pub(crate) struct Setup {
    pub(crate) bucket: Bucket,
    pub(crate) source: Arc<Watched>,
    pub(crate) origin: Origin,
    pub(crate) cache: tempfile::TempDir,
    /// `None` while the edge is stopped.
    pub(crate) edge: Option<Edge>,
}

impl Setup {
    /// An edge that polls often and has the names given, each of tenant `acme` at version 1.
    pub(crate) async fn with(hostnames: &[&str]) -> Self {
        Self::configured(hostnames, |_| {}).await
    }

    pub(crate) async fn configured(hostnames: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let bucket = Bucket::new();
        let source = Watched::new(bucket.path());
        Self::around(bucket, source, hostnames, change).await
    }

    /// The same with a bucket in S3 as the source.
    pub(crate) async fn over_s3(s3: S3, hostnames: &[&str]) -> Self {
        let source = Watched::over(Arc::new(s3.source()));
        Self::around(Bucket::beside(Some(s3)), source, hostnames, |_| {}).await
    }

    async fn around(bucket: Bucket, source: Arc<Watched>, hostnames: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        for hostname in hostnames {
            bucket.put(hostname, "acme", 1);
        }
        let mut setup = Self { source, bucket, origin: Origin::start().await, cache: tempfile::tempdir().unwrap(), edge: None };
        setup.start(change).await;
        assert!(setup.edge().until_ready(Duration::from_secs(20)).await);
        setup
    }

    /// Starts the edge, ready or not, once one from before has left its folder: its last write may still be under way.
    pub(crate) async fn start(&mut self, change: impl FnOnce(&mut Config)) {
        let lock = self.cache.path().join("lock");
        eventually("the cache folder is free", async || {
            std::fs::File::open(&lock).is_ok_and(|lock| lock.try_lock().is_ok()) || !lock.exists()
        })
        .await;
        let mut config = Config::on_loopback(self.origin.address.to_string(), self.cache.path());
        config.refresh.poll_interval = Duration::from_millis(50);
        config.refresh.retry_after = Duration::from_millis(100);
        change(&mut config);
        let parts = Parts { source: self.source.clone(), seal_keys: self.bucket.seal_keys(), clock: Arc::new(SystemClock) };
        self.edge = Some(Edge::start(config, parts).await.unwrap());
    }

    /// One more edge with the same names and origin, which accepts from a socket that stays, and is ready.
    pub(crate) async fn another(&self, https: &std::net::TcpListener, cache: &Path, drain: Drain) -> Edge {
        let began = Instant::now();
        let edge = loop {
            let config = Config { drain, ..Config::on_loopback(self.origin.address.to_string(), cache) };
            let parts = Parts { source: self.source.clone(), seal_keys: self.bucket.seal_keys(), clock: Arc::new(SystemClock) };
            let sockets = Inherited { https: Some(https.try_clone().unwrap()), ..Inherited::default() };
            match Edge::start_on(sockets, config, parts).await {
                Ok(edge) => break edge,
                // The last one's folder is its own until its last task has ended.
                Err(StartError::Disk(_)) if began.elapsed() < Duration::from_secs(20) => tokio::time::sleep(Duration::from_millis(5)).await,
                Err(error) => panic!("{error}"),
            }
        };
        assert!(edge.until_ready(Duration::from_secs(20)).await);
        edge
    }

    pub(crate) fn edge(&self) -> &Edge {
        self.edge.as_ref().unwrap()
    }

    pub(crate) fn https(&self) -> std::net::SocketAddr {
        self.edge().https_addr
    }

    /// Waits until every name has its bundle on the local disk.
    pub(crate) async fn until_warm(&self) {
        eventually("every bundle is on the local disk", async || {
            let (known, served) = self.edge().names();
            known == served
        })
        .await;
    }

    /// The value of one series of the metrics, 0 while it does not exist.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = self.edge().metrics().to_prometheus();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("nameplate_edge_objects_refused_total{{reason=\"{reason}\"}}"))
    }

    pub(crate) fn ended(&self, reason: &str) -> u64 {
        self.metric(&format!("nameplate_edge_connections_ended_total{{reason=\"{reason}\"}}"))
    }

    pub(crate) fn handshakes(&self, outcome: &str) -> u64 {
        self.metric(&format!("nameplate_edge_handshakes_total{{outcome=\"{outcome}\"}}"))
    }
}

/// Looks until something is true; fails after 20 seconds.
pub(crate) async fn eventually(what: &str, is_true: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !is_true().await {
        assert!(began.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
