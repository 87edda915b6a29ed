//! An edge as a whole: started, addressed, and asked to leave.
//!
//! Arrives: a [`Config`] and its [`Parts`]. Leaves: three bound ports. Goes wrong: a [`StartError`] before anything is served.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use bundles::{EdgeSettings, SealKeys};
use domains::Clock;
use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access_log::AccessLog,
    addresses::Addresses,
    assertion::Signer,
    certificates::{Certificates, Disk, DiskError, Ingredients, Locked, Tickets},
    config::{AddressLimits, Config, Drain, Limits},
    connections::Connections,
    descriptors,
    drain::{self, DrainReport, Leaving, Phase},
    listener,
    metrics::EdgeMetrics,
    names::Names,
    origins::Origins,
    pages::Pages,
    plain,
    refresh::{Queue, Refresher},
    source::Source,
};

/// What an edge works with, beside its configuration.
pub struct Parts {
    /// Where index and bundles come from.
    pub source: Arc<dyn Source>,
    /// What opens the bundles' keys.
    pub seal_keys: SealKeys,
    /// What tells the time to certificates.
    pub clock: Arc<dyn Clock>,
}

/// Sockets that were bound before the edge started, as a supervisor holds them so that a restart refuses nobody; where there is none, the
/// edge binds its own.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For TLS.
    pub https: Option<std::net::TcpListener>,
    /// For plain HTTP.
    pub http: Option<std::net::TcpListener>,
    /// For health and metrics.
    pub private: Option<std::net::TcpListener>,
}

/// Why an edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port could not be bound.
    #[error("cannot listen on {address} ({what}); is something else using it, or is the port privileged?")]
    Listen {
        /// What the port is for.
        what: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// Why it failed.
        #[source]
        cause: std::io::Error,
    },
    /// The cache folder cannot be used.
    #[error("the cache folder cannot be used")]
    Disk(#[from] DiskError),
    /// There is nothing to open bundles with.
    #[error("no seal key was given, so no bundle could be opened")]
    NoSealKey,
    /// What the origin's TLS needs cannot be read.
    #[error("the origin's TLS cannot be set up")]
    Origin(#[source] std::io::Error),
    /// The operator's error pages cannot be read.
    #[error("the error pages cannot be used")]
    Pages(#[source] std::io::Error),
    /// The access log cannot be written.
    #[error("the access log cannot be opened")]
    AccessLog(#[source] std::io::Error),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) names: Arc<Names>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) origins: Origins,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) limits: Limits,
    pub(crate) leaving: Leaving,
    pub(crate) public_https_port: u16,
    /// The same, as the origin gets it.
    pub(crate) forwarded_port: http::HeaderValue,
    pub(crate) proxy_protocol: bool,
    pub(crate) addresses: Addresses,
    /// The same for the port of plain HTTP.
    pub(crate) plain_addresses: Addresses,
    pub(crate) pages: Pages,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) access_log: Option<AccessLog>,
    pub(crate) signer: Arc<Signer>,
    settings: watch::Receiver<Option<Arc<EdgeSettings>>>,
    loaded: watch::Receiver<bool>,
}

impl Shared {
    pub(crate) fn settings(&self) -> Option<Arc<EdgeSettings>> {
        self.settings.borrow().clone()
    }

    pub(crate) fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Waits for the whole index, and no longer than `at_most`: who comes before it is known waits in the kernel's queue, where the socket is
    /// shared for another edge to serve, rather than hear that a name of ours is unknown.
    async fn first_index(&self, at_most: Duration) {
        let mut loaded = self.loaded.clone();
        if timeout(at_most, loaded.wait_for(|loaded| *loaded)).await.is_err() {
            let seconds = at_most.as_secs_f64();
            tracing::warn!(seconds, "the index could not be read yet; accepting with the names that the local disk has");
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A running edge. Dropping it ends it at once; [`shutdown`](Self::shutdown) lets it leave politely.
#[derive(Debug)]
pub struct Edge {
    /// Where TLS connections arrive.
    pub https_addr: SocketAddr,
    /// Where plain HTTP arrives.
    pub http_addr: SocketAddr,
    /// Where health and metrics are read.
    pub private_addr: SocketAddr,
    shared: Arc<Shared>,
    phase: Arc<watch::Sender<Phase>>,
    drain: Drain,
    first_index_wait: Duration,
    background: TaskTracker,
    /// Ends polling, filling and the private port.
    stop: CancellationToken,
}

impl Edge {
    /// Starts an edge: reads its local disk, binds its ports, and begins to poll the source. With a whole index on its disk it serves at once;
    /// otherwise it accepts on the public ports once it has read one, or the wait for that ([`Refresh::first_index_wait`]) is over.
    ///
    /// [`Refresh::first_index_wait`]: crate::config::Refresh::first_index_wait
    ///
    /// # Errors
    /// A [`StartError`]; nothing is left running then.
    pub async fn start(config: Config, parts: Parts) -> Result<Self, StartError> {
        Self::start_on(Inherited::default(), config, parts).await
    }

    /// The same, on sockets that are there already.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(sockets: Inherited, mut config: Config, parts: Parts) -> Result<Self, StartError> {
        if parts.seal_keys.is_empty() {
            return Err(StartError::NoSealKey);
        }
        descriptors::fit(&mut config.limits, 1 + config.origins.len());
        let pages = config.error_pages.as_deref().map_or_else(|| Ok(Pages::default()), Pages::read).map_err(StartError::Pages)?;
        let origins = Origins::new(&config).map_err(StartError::Origin)?;
        let https = bind("https", config.https_listen, sockets.https)?;
        let http = bind("http", config.http_listen, sockets.http)?;
        let private_port = bind("private", config.private_listen, sockets.private)?;
        let folder = config.cache_dir.clone();
        let opened = tokio::task::spawn_blocking(move || Disk::lock(&folder).and_then(Remembered::read));
        let remembered = opened.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))?;
        let Remembered { disk, names, settings, loaded } = remembered;

        let metrics = EdgeMetrics::new(config.metrics_tenants);
        let open_log = |place| AccessLog::open(place, config.logged_address, metrics.access_log_dropped.clone());
        let access_log = config.access_log.as_ref().map(open_log).transpose().map_err(StartError::AccessLog)?;
        let connections = Arc::new(Connections::default());
        let tickets = Arc::new(Tickets::new(config.tickets, Arc::clone(&parts.clock), metrics.clone()));
        let certificates = Certificates::new(Ingredients {
            names: Arc::clone(&names),
            disk: Arc::clone(&disk),
            source: Arc::clone(&parts.source),
            seal_keys: parts.seal_keys,
            clock: Arc::clone(&parts.clock),
            connections: Arc::clone(&connections),
            metrics: metrics.clone(),
            memory_bytes: config.certificate_cache_bytes,
            tickets: Arc::clone(&tickets),
            cold_read_timeout: config.refresh.cold_read_timeout,
        });
        let certificates = Arc::new(certificates.map_err(StartError::Tls)?);
        let signer = Arc::new(Signer::new(Arc::clone(&parts.clock)));
        if let Some(settings) = &settings {
            signer.take(settings, certificates.seal_keys());
            tickets.take(settings, certificates.seal_keys());
        }
        let (settings, settings_seen) = watch::channel(settings.map(Arc::new));
        let (loaded, loaded_seen) = watch::channel(loaded);
        let (phase, leaving) = Leaving::new(config.drain);
        let public_https_port = config.public_https_port.unwrap_or(https.1.port());
        let shared = Arc::new(Shared {
            names: Arc::clone(&names),
            certificates: Arc::clone(&certificates),
            connections: Arc::clone(&connections),
            origins,
            metrics: metrics.clone(),
            limits: config.limits.clone(),
            leaving,
            public_https_port,
            forwarded_port: public_https_port.into(),
            proxy_protocol: config.proxy_protocol,
            addresses: Addresses::new(config.limits.per_address.clone()),
            plain_addresses: Addresses::new(of_plain(&config.limits)),
            pages,
            clock: Arc::clone(&parts.clock),
            access_log,
            signer: Arc::clone(&signer),
            settings: settings_seen,
            loaded: loaded_seen,
        });
        let refresher = Arc::new(Refresher {
            names,
            certificates,
            disk,
            source: parts.source,
            clock: parts.clock,
            connections,
            metrics,
            signer,
            tickets,
            settings,
            loaded,
            config: config.refresh.clone(),
            queue: Queue::default(),
        });
        let edge = Self {
            https_addr: https.1,
            http_addr: http.1,
            private_addr: private_port.1,
            shared,
            phase: Arc::new(phase),
            drain: config.drain,
            first_index_wait: config.refresh.first_index_wait,
            background: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        edge.spawn_all(refresher, [https.0, http.0, private_port.0]);
        let (names, connections) = (edge.shared.names.counts().0, edge.shared.limits.max_connections);
        tracing::info!(https = %edge.https_addr, http = %edge.http_addr, private = %edge.private_addr, names, connections, "edge started");
        Ok(edge)
    }

    /// Waits until the index is loaded; says whether that happened in time.
    pub async fn until_ready(&self, wait: Duration) -> bool {
        let mut loaded = self.shared.loaded.clone();
        timeout(wait, loaded.wait_for(|loaded| *loaded)).await.is_ok_and(|loaded| loaded.is_ok())
    }

    /// Names in the index, and how many of them have their bundle on the local disk.
    pub fn names(&self) -> (usize, usize) {
        self.shared.names.counts()
    }

    /// The metrics, as the private port tells them.
    pub fn metrics(&self) -> &telemetry::metrics::Metrics {
        &self.shared.metrics.registry
    }

    /// Leaves: not ready at once, accepting for a while, then closed within the grace period.
    pub async fn shutdown(self) -> DrainReport {
        let report = drain::leave(self.drain, Arc::clone(&self.phase), self.shared.leaving.clone()).await;
        if let Some(log) = self.shared.access_log.clone() {
            // Failing, it has said all it could.
            let _ = tokio::task::spawn_blocking(move || log.write_last()).await;
        }
        report
    }

    fn spawn_all(&self, refresher: Arc<Refresher>, [https, http, private_port]: [TcpListener; 3]) {
        refresher.queue.fill(self.shared.names.all_wanted());
        let shared = || Arc::clone(&self.shared);
        let (stop_accepting, wait) = (self.shared.leaving.stop_accepting.clone(), self.first_index_wait);
        let accept_https = self.until_stopped(listener::accept_https(shared(), https));
        let accept_http = self.until_stopped(plain::accept(shared(), http, stop_accepting, plain::Port::Http));
        let (known, background) = (shared(), self.background.clone());
        self.background.spawn(self.until_stopped(async move {
            known.first_index(wait).await;
            background.spawn(accept_https);
            background.spawn(accept_http);
        }));
        // The private port tells how leaving goes, so it stays to the end.
        self.background.spawn(self.until_stopped(plain::accept(shared(), private_port, self.stop.clone(), plain::Port::Private)));
        for origin in self.shared.origins.all() {
            self.background.spawn(self.until_stopped(Arc::clone(origin).tidy()));
            self.background.spawn(self.until_stopped(Arc::clone(origin).look()));
        }
        self.background.spawn(self.until_stopped(Arc::clone(&refresher).poll_forever()));
        self.background.spawn(self.until_stopped(refresher.fill_forever()));
    }

    fn until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) -> impl Future<Output = ()> + Send + 'static {
        let stop = self.stop.clone();
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        }
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.stop.cancel();
        self.shared.leaving.stop_accepting.cancel();
        self.shared.leaving.end.cancel();
    }
}

/// Runs an edge until `leave` completes, and lets it leave.
///
/// # Errors
/// A [`StartError`] when it does not start.
pub async fn run(sockets: Inherited, config: Config, parts: Parts, leave: impl Future<Output = ()>) -> Result<DrainReport, StartError> {
    let edge = Edge::start_on(sockets, config, parts).await?;
    leave.await;
    Ok(edge.shutdown().await)
}

/// What the local disk remembers.
pub(crate) struct Remembered {
    pub(crate) disk: Arc<Disk>,
    pub(crate) names: Arc<Names>,
    settings: Option<EdgeSettings>,
    /// Whether that is a whole index, as it was at one time.
    pub(crate) loaded: bool,
}

impl Remembered {
    pub(crate) fn read(locked: Locked) -> Result<Self, DiskError> {
        let names = Names::default();
        locked.shards(|shard| match shard {
            // Each shard is there once, so none can be of a lower generation.
            Ok(shard) => drop(names.apply(shard)),
            Err(error) => tracing::warn!(
                code = error.reason(),
                error = telemetry::error_chain(&error),
                "a shard of the index on the local disk cannot be read"
            ),
        });
        let disk = locked.open(|hostname, served| names.serve(&hostname, served).is_ok().then(|| names.shared(hostname)))?;
        let settings = disk.settings().and_then(|bytes| EdgeSettings::from_bytes(&bytes).ok());
        let loaded = disk.is_whole();
        Ok(Self { disk: Arc::new(disk), names: Arc::new(names), settings, loaded })
    }
}

/// What one address may take of the port of plain HTTP: the same part of it as of the TLS port.
fn of_plain(limits: &Limits) -> AddressLimits {
    let max_open = limits.per_address.open_of(limits.max_plain_connections, limits.max_connections);
    AddressLimits { max_open, ..limits.per_address.clone() }
}

fn bind(
    what: &'static str,
    address: SocketAddr,
    inherited: Option<std::net::TcpListener>,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let bound = inherited
        .map_or_else(|| listener::bind(address), listener::adopt)
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    bound.map_err(|cause| StartError::Listen { what, address, cause })
}
