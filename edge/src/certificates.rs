//! From a name to what rustls needs for its handshake.
//!
//! Arrives: a name that is in the index. Leaves: a TLS configuration with its certified key: from memory, else from the local disk,
//! else from at most one read of the source. Goes wrong: a bundle that is no good is counted, named in the log and refused, and the
//! last good one stays in service.

mod disk;
mod memory;
mod tickets;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bundles::{Bundle, BundleError, Digest, IndexEntry, MAX_SITE_BYTES, SealKeys, SiteObject, check_replacement, site_object};
use domains::{Clock, Hostname, SiteVersion, TenantId};
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use rustls::{
    ServerConfig,
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{sync::Semaphore, time::timeout};

pub use disk::DiskError;
pub(crate) use disk::{Disk, Kept, Locked};
use memory::{Memory, Parsed};
use tickets::SiteTickets;
pub(crate) use tickets::Tickets;

use crate::{
    connections::Connections,
    metrics::EdgeMetrics,
    names::{Match, Names, Served},
    source::{Fetched, Source, SourceError},
};

/// How many handshakes may wait for different bundles of the source at once.
const MAX_COLD_READS: usize = 64;

/// How long the answer "this bundle is no good" is repeated before the source is read again for a handshake.
const COLD_ANSWER_KEPT: Duration = Duration::from_secs(1);

/// Why a name that is in the index cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The bundle was read and refused.
    #[error("the bundle of {hostname} was refused")]
    Refused {
        hostname: Hostname,
        #[source]
        cause: BundleError,
    },
    /// The source has no bundle for a name that its index lists.
    #[error("the index lists {0}, but the source has no bundle for it")]
    Absent(Hostname),
    /// The source did not answer.
    #[error("the bundle of {hostname} cannot be read")]
    Source {
        hostname: Hostname,
        #[source]
        cause: SourceError,
    },
    /// Another read of the same bundle was faster, or the index names a newer one by now.
    #[error("the bundle of {0} was overtaken by a newer one while it was read")]
    Overtaken(Hostname),
    /// Nothing answered in time.
    #[error("the bundle of {0} was not there in time")]
    TimedOut(Hostname),
}

/// A bundle that may go into service, with its key already opened.
#[derive(Debug)]
pub(crate) struct Accepted {
    kept: Kept,
    key: Arc<CertifiedKey>,
}

type Flight = Shared<BoxFuture<'static, Result<Arc<ServerConfig>, Arc<LoadError>>>>;

/// Everything between a name and its certified key.
pub(crate) struct Certificates {
    names: Arc<Names>,
    disk: Arc<Disk>,
    source: Arc<dyn Source>,
    seal_keys: SealKeys,
    clock: Arc<dyn Clock>,
    connections: Arc<Connections>,
    metrics: EdgeMetrics,
    memory: Mutex<Memory>,
    flights: Mutex<HashMap<Hostname, Flight>>,
    cold_reads: Semaphore,
    /// One commit at a time: what is on the disk and what is in service change together.
    committing: Mutex<()>,
    base: ServerConfig,
    tickets: Arc<Tickets>,
    source_timeout: Duration,
}

/// What [`Certificates`] is made of.
pub(crate) struct Ingredients {
    pub(crate) names: Arc<Names>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) seal_keys: SealKeys,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) metrics: EdgeMetrics,
    pub(crate) memory_bytes: usize,
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) cold_read_timeout: Duration,
}

impl Certificates {
    /// What opens everything sealed to this edge.
    pub(crate) fn seal_keys(&self) -> &SealKeys {
        &self.seal_keys
    }

    pub(crate) fn new(ingredients: Ingredients) -> Result<Self, rustls::Error> {
        let Ingredients { names, disk, source, seal_keys, clock, connections, metrics, memory_bytes, tickets, cold_read_timeout } =
            ingredients;
        let memory = Memory::new(memory_bytes, metrics.certificate_cache_bytes.clone());
        Ok(Self {
            names,
            disk,
            source,
            seal_keys,
            clock,
            connections,
            metrics,
            memory: Mutex::new(memory),
            flights: Mutex::default(),
            cold_reads: Semaphore::new(MAX_COLD_READS),
            committing: Mutex::default(),
            base: base_config()?,
            tickets,
            source_timeout: cold_read_timeout,
        })
    }

    /// The TLS configuration for a name in the index.
    ///
    /// # Errors
    /// A [`LoadError`] when the name has no good bundle anywhere.
    pub(crate) async fn config_for(self: &Arc<Self>, found: &Match) -> Result<Arc<ServerConfig>, Arc<LoadError>> {
        let at_least = found.served.or_else(|| self.names.entry(&found.hostname).map(|entry| entry.version));
        if let Some(config) = self.remembered(&found.hostname, at_least.unwrap_or_default()) {
            self.metrics.certificate_memory.increment();
            return Ok(config);
        }
        if let Some(version) = found.served
            && let Some(config) = self.from_disk(found, version).await
        {
            self.metrics.certificate_disk.increment();
            return Ok(config);
        }
        self.metrics.certificate_source.increment();
        self.from_source(&found.hostname).await
    }

    /// Reads a bundle from the source and judges it.
    ///
    /// # Errors
    /// A [`LoadError`]; refusals are counted and logged here.
    pub(crate) async fn fetch(self: &Arc<Self>, hostname: &Hostname, wait: Duration) -> Result<Accepted, LoadError> {
        self.metrics.source_read("bundle");
        let known = || self.names.entry(hostname).map(|entry| entry.version);
        let (object, known_before) = (site_object(hostname), known());
        let fetched = match timeout(wait, self.source.get(&object, MAX_SITE_BYTES, None)).await {
            Ok(Ok(fetched)) => fetched,
            Ok(Err(cause)) => {
                self.metrics.source_failed("failed");
                return Err(LoadError::Source { hostname: hostname.clone(), cause });
            }
            Err(_) => {
                self.metrics.source_failed("timeout");
                return Err(LoadError::TimedOut(hostname.clone()));
            }
        };
        let Fetched::Object { bytes, .. } = fetched else {
            self.metrics.object_refused("absent");
            return Err(LoadError::Absent(hostname.clone()));
        };
        let (this, name) = (Arc::clone(self), hostname.clone());
        // Opening a key and reading a chain costs some hundred microseconds of CPU, which the connections should not pay for.
        let judged = tokio::task::spawn_blocking(move || this.judge(&name, &bytes)).await;
        let judged = judged.unwrap_or_else(|panicked| Err(BundleError::BadChain(format!("reading it failed: {panicked}"))));
        judged.map_err(|cause| {
            // No lie of the source: a faster read, or the index, moved on while this one was under way.
            if matches!(cause, BundleError::NotNewer { .. }) && (known() > known_before || !self.names.wants(hostname)) {
                return LoadError::Overtaken(hostname.clone());
            }
            self.metrics.object_refused(cause.reason());
            tracing::warn!(
                hostname = %hostname,
                code = cause.reason(),
                error = telemetry::error_chain(&cause),
                "bundle refused; the last good one stays in service"
            );
            LoadError::Refused { hostname: hostname.clone(), cause }
        })
    }

    /// Puts accepted bundles on the local disk and then into service.
    pub(crate) async fn commit(self: &Arc<Self>, accepted: Vec<Accepted>) {
        let this = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || this.commit_blocking(accepted)).await;
        if let Err(panicked) = done {
            tracing::error!(error = telemetry::error_chain(&panicked), "bundles could not be taken into service");
        }
    }

    /// Forgets a removed name everywhere.
    pub(crate) fn forget(&self, hostname: &Hostname) {
        self.memory().remove(hostname);
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(hostname);
    }

    fn commit_blocking(&self, mut accepted: Vec<Accepted>) {
        let _turn = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        // A slow read may bring what a faster one has overtaken; it must not replace the newer one on the disk either.
        accepted.retain(|accepted| {
            let served = self.names.served(&accepted.kept.hostname);
            served.is_none_or(|served| served.version < accepted.kept.served.version)
        });
        let kept: Vec<_> = accepted.iter().map(|accepted| accepted.kept.clone()).collect();
        if let Err(error) = self.disk.keep(&kept) {
            self.metrics.object_refused("disk");
            tracing::error!(
                error = telemetry::error_chain(&error),
                bundles = kept.len(),
                "new bundles cannot be kept on the local disk; the old ones stay in service"
            );
            return;
        }
        for Accepted { kept, key } in accepted {
            let Kept { hostname, served, .. } = kept;
            let (version, tenant) = (served.version, served.tenant.clone());
            match self.names.serve(&hostname, served) {
                Ok(replaced) => {
                    // Filling the disk must not push out of the memory what handshakes ask for, so only what is there is replaced.
                    if self.memory().knows(&hostname) {
                        self.remember(&hostname, version, &tenant, key);
                    }
                    if replaced.is_some_and(|replaced| replaced.tenant != tenant) {
                        self.connections.close_all_of(&hostname, Some(&tenant));
                    }
                    tracing::debug!(hostname = %hostname, version = version.0, tenant = %tenant, "bundle in service");
                }
                // Removed while it was being read: what was just written must not stay.
                Err(BundleError::Removed { .. }) => self.wipe(&hostname),
                // Another read of the same bundle was faster.
                Err(_) => {}
            }
        }
    }

    fn wipe(&self, hostname: &Hostname) {
        if let Err(error) = self.disk.wipe(std::slice::from_ref(hostname)) {
            tracing::error!(hostname = %hostname, error = telemetry::error_chain(&error), "a removed bundle could not be wiped");
        }
    }

    /// Judges bytes that claim to be a name's bundle, against the index, what is in service, and the time.
    fn judge(&self, hostname: &Hostname, bytes: &[u8]) -> Result<Accepted, BundleError> {
        let digest = Digest::of(bytes);
        let object = SiteObject::from_bytes(bytes)?;
        if object.hostname() != hostname {
            return Err(BundleError::WrongHostname { expected: hostname.clone(), found: object.hostname().to_string() });
        }
        let bundle = match object {
            SiteObject::Present(bundle) => bundle,
            SiteObject::Removed(tombstone) => return Err(BundleError::Removed { version: tombstone.version }),
        };
        let Some(entry) = self.names.entry(hostname) else {
            return Err(BundleError::Removed { version: SiteVersion::default() });
        };
        agrees_with_index(&bundle, digest, &entry)?;
        if let Some(served) = self.names.served(hostname) {
            check_replacement((served.version, served.digest), (bundle.version, digest))?;
            // With a good one in service there is time to wait for the index's word; without one, ahead is better than nothing.
            if bundle.version > entry.version {
                return Err(BundleError::AheadOfIndex { indexed: entry.version, offered: bundle.version });
            }
        }
        let key = Arc::new(bundle.open(&self.seal_keys, self.clock.now().as_second())?);
        let served = Served { version: bundle.version, tenant: bundle.tenant, digest, not_after: bundle.not_after, origin: bundle.origin };
        Ok(Accepted { kept: Kept { hostname: hostname.clone(), served, bytes: bytes.to_vec() }, key })
    }

    /// Opens what the local disk has. It was judged before it was put there, so its dates are not judged again.
    async fn from_disk(self: &Arc<Self>, found: &Match, version: SiteVersion) -> Option<Arc<ServerConfig>> {
        let (this, hostname) = (Arc::clone(self), found.hostname.clone());
        let opened = tokio::task::spawn_blocking(move || this.open_from_disk(&hostname)).await;
        match opened {
            // Overtaken by a newer one since the look; never by an older one.
            Ok(Ok(Some((opened, tenant, key)))) if opened >= version => Some(self.remember(&found.hostname, opened, &tenant, key)),
            Ok(Ok(_)) => {
                self.metrics.object_refused("disk_lost");
                tracing::warn!(hostname = %found.hostname, "the bundle on the local disk is not what was written; reading it from the source");
                self.names.lose(&found.hostname, version);
                None
            }
            Ok(Err(error)) => {
                tracing::error!(hostname = %found.hostname, error = telemetry::error_chain(&*error), "the bundle on the local disk cannot be used");
                None
            }
            Err(panicked) => {
                tracing::error!(hostname = %found.hostname, error = telemetry::error_chain(&panicked), "reading the local disk failed");
                None
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "used once, right above")]
    fn open_from_disk(
        &self,
        hostname: &Hostname,
    ) -> Result<Option<(SiteVersion, TenantId, Arc<CertifiedKey>)>, Box<dyn std::error::Error + Send + Sync>> {
        let Some(bytes) = self.disk.bundle(hostname)? else { return Ok(None) };
        let SiteObject::Present(bundle) = SiteObject::from_bytes(&bytes)? else { return Ok(None) };
        let key = bundle.open_in_service(&self.seal_keys)?;
        Ok(Some((bundle.version, bundle.tenant, Arc::new(key))))
    }

    /// Reads the source once for all handshakes that wait for the same name.
    fn from_source(self: &Arc<Self>, hostname: &Hostname) -> Flight {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(hostname) {
            return flight.clone();
        }
        let (this, name) = (Arc::clone(self), hostname.clone());
        // A task of its own: the read goes on when the handshake that began it gives up.
        let task = tokio::spawn(async move {
            let read = this.read_cold(&name).await.map_err(Arc::new);
            let (this, ended) = (Arc::clone(&this), name.clone());
            let kept = if read.is_err() { COLD_ANSWER_KEPT } else { Duration::ZERO };
            tokio::spawn(async move {
                tokio::time::sleep(kept).await;
                this.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&ended);
            });
            read
        });
        let name = hostname.clone();
        let flight = task.map(move |joined| joined.unwrap_or_else(|_| Err(Arc::new(LoadError::TimedOut(name))))).boxed().shared();
        flights.insert(hostname.clone(), flight.clone());
        flight
    }

    async fn read_cold(self: &Arc<Self>, hostname: &Hostname) -> Result<Arc<ServerConfig>, LoadError> {
        let wait = self.source_timeout;
        let read = timeout(wait, async {
            let _turn = self.cold_reads.acquire().await;
            loop {
                match self.fetch(hostname, wait).await {
                    // The index alone moved on: what it names now is there to be read.
                    Err(LoadError::Overtaken(_)) if self.names.served(hostname).is_none() => {}
                    read => return read,
                }
            }
        });
        let accepted = match read.await.unwrap_or_else(|_| Err(LoadError::TimedOut(hostname.clone()))) {
            Ok(accepted) => accepted,
            Err(error) => return self.in_service(hostname).await.ok_or(error),
        };
        let (version, tenant) = (accepted.kept.served.version, accepted.kept.served.tenant.clone());
        let config = self.remember(hostname, version, &tenant, Arc::clone(&accepted.key));
        self.commit(vec![accepted]).await;
        Ok(config)
    }

    /// What a faster read has taken into service, whatever a slower one came to: filling the disk leaves it there alone.
    async fn in_service(self: &Arc<Self>, hostname: &Hostname) -> Option<Arc<ServerConfig>> {
        if let Some(config) = self.remembered(hostname, SiteVersion::default()) {
            return Some(config);
        }
        let Served { version, tenant, origin, .. } = self.names.served(hostname)?;
        let found = Match { hostname: hostname.clone(), tenant, served: Some(version), origin };
        self.from_disk(&found, version).await
    }

    fn remembered(&self, hostname: &Hostname, at_least: SiteVersion) -> Option<Arc<ServerConfig>> {
        self.memory().find(hostname, at_least)
    }

    fn remember(&self, hostname: &Hostname, version: SiteVersion, tenant: &TenantId, key: Arc<CertifiedKey>) -> Arc<ServerConfig> {
        let bytes = memory::weight(&key);
        let mut config = self.base.clone();
        config.ticketer = Arc::new(SiteTickets::new(hostname, tenant, version, Arc::clone(&self.tickets)));
        config.cert_resolver = Arc::new(SingleCertAndKey::from(key));
        let config = Arc::new(config);
        self.memory().insert(hostname, Parsed { version, config: Arc::clone(&config), bytes });
        config
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a bundle is what the index says, or ahead of it: the publisher writes the bundle first.
fn agrees_with_index(bundle: &Bundle, digest: Digest, entry: &IndexEntry) -> Result<(), BundleError> {
    let (said, is) = (entry.version, bundle.version);
    let Some(tenant) = &entry.tenant else {
        return Err(BundleError::Removed { version: said });
    };
    if is < said {
        return Err(BundleError::NotNewer { have: said, offered: is });
    }
    if is == said && digest != entry.digest {
        return Err(BundleError::SameVersionOtherBytes { version: is });
    }
    match bundle.tenant == *tenant {
        true => Ok(()),
        false => Err(BundleError::WrongTenant { expected: tenant.clone(), found: bundle.tenant.clone() }),
    }
}

/// What all names share: TLS 1.3 and 1.2, the post-quantum hybrid first, h2 and http/1.1 by ALPN only.
fn base_config() -> Result<ServerConfig, rustls::Error> {
    use rustls::crypto::aws_lc_rs::{self, kx_group};
    let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    let provider = rustls::crypto::CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Sessions travel with their clients. Early data stays off: it can be replayed, and nothing here could tell.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    // One each time does: whoever resumes is given the next.
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// Stands where a name's own certificate will stand.
#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Weak};

    use async_trait::async_trait;
    use bundles::{IndexShard, LeafFacts, SealKeyPair, shard_of};
    use domains::SystemClock;
    use futures_util::future;

    use super::*;
    use crate::source::Etag;

    /// What happens while the source is asked.
    type Meanwhile = Box<dyn FnOnce(Arc<Certificates>) -> BoxFuture<'static, ()> + Send>;

    /// A source that answers with one object after another, each after something has happened.
    #[derive(Default)]
    struct Slow {
        answers: Mutex<VecDeque<(Vec<u8>, Meanwhile)>>,
        certificates: Mutex<Weak<Certificates>>,
    }

    impl Slow {
        fn answer(&self, bytes: &[u8], meanwhile: Meanwhile) {
            self.answers.lock().unwrap().push_back((bytes.to_vec(), meanwhile));
        }
    }

    #[async_trait]
    impl Source for Slow {
        async fn list_index(&self) -> Result<Vec<(u8, Etag)>, SourceError> {
            Ok(Vec::new())
        }

        async fn get(&self, object: &str, _: usize, _: Option<&Etag>) -> Result<Fetched, SourceError> {
            let next = self.answers.lock().unwrap().pop_front();
            let Some((bytes, meanwhile)) = next else { return Err(SourceError::new(object, "it was asked too often")) };
            let certificates = self.certificates.lock().unwrap().upgrade().unwrap();
            meanwhile(certificates).await;
            Ok(Fetched::Object { bytes: bytes.into(), etag: Etag(String::new()) })
        }
    }

    struct Fixture {
        certificates: Arc<Certificates>,
        source: Arc<Slow>,
        hostname: Hostname,
        tenant: TenantId,
        /// The objects of the versions 1 and 2.
        objects: [Vec<u8>; 2],
        _cache: tempfile::TempDir,
    }

    impl Fixture {
        /// The index lists version 1, of which nothing is here yet.
        fn new() -> Self {
            let cache = tempfile::tempdir().unwrap();
            let (hostname, tenant) = (Hostname::parse_name("shop.brand.com").unwrap(), TenantId::parse("acme").unwrap());
            let (seal, key) = (SealKeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
            let chain = rcgen::CertificateParams::new(vec![hostname.to_string()]).unwrap().self_signed(&key).unwrap().pem();
            let spki = LeafFacts::of_chain(&chain).unwrap().spki_sha256;
            let sealed = || seal.public().seal(&hostname, &tenant, &spki, &key.serialize_der()).unwrap();
            let objects = [1, 2].map(|version| {
                let bundle = Bundle::new(hostname.clone(), tenant.clone(), SiteVersion(version), chain.clone(), sealed()).unwrap();
                SiteObject::Present(bundle).to_bytes().unwrap()
            });
            let source = Arc::new(Slow::default());
            let certificates = Certificates::new(Ingredients {
                names: Arc::default(),
                disk: Arc::new(Disk::lock(cache.path()).unwrap().open(|_, _| None).unwrap()),
                source: source.clone(),
                seal_keys: [seal].into_iter().collect(),
                clock: Arc::new(SystemClock),
                connections: Arc::default(),
                metrics: EdgeMetrics::new(1),
                memory_bytes: 1 << 20,
                tickets: Arc::new(Tickets::new(crate::config::TicketKeys::default(), Arc::new(SystemClock), EdgeMetrics::new(1))),
                cold_read_timeout: Duration::from_secs(30),
            });
            let certificates = Arc::new(certificates.unwrap());
            *source.certificates.lock().unwrap() = Arc::downgrade(&certificates);
            let fixture = Self { certificates, source, hostname, tenant, objects, _cache: cache };
            fixture.indexed(1)(fixture.certificates.clone()).now_or_never().unwrap();
            fixture
        }

        /// The index comes to list a version.
        fn indexed(&self, version: usize) -> Meanwhile {
            let mut shard = IndexShard::empty(shard_of(&self.hostname));
            let digest = Digest::of(&self.objects[version - 1]);
            let entry = IndexEntry { version: SiteVersion(version as u64), tenant: Some(self.tenant.clone()), removed_at: None, digest };
            shard.merge(&self.hostname, entry).unwrap();
            shard.generation = version as u64;
            Box::new(move |certificates| {
                certificates.names.apply(shard).unwrap();
                future::ready(()).boxed()
            })
        }

        /// Filling the disk takes version 1 into service.
        fn filled(&self) -> Meanwhile {
            let (hostname, bytes) = (self.hostname.clone(), self.objects[0].clone());
            Box::new(move |certificates| {
                async move {
                    let accepted = certificates.judge(&hostname, &bytes).unwrap();
                    certificates.commit(vec![accepted]).await;
                    assert!(!certificates.memory().knows(&hostname), "what nobody asked for takes no memory");
                }
                .boxed()
            })
        }

        async fn is_served(&self, version: u64) {
            self.certificates.read_cold(&self.hostname).await.unwrap();
            assert_eq!(self.certificates.names.served(&self.hostname).unwrap().version, SiteVersion(version));
            assert!(self.certificates.memory().knows(&self.hostname));
        }
    }

    #[tokio::test]
    async fn a_handshake_whose_read_was_overtaken_by_the_filling_is_served_all_the_same() {
        let fixture = Fixture::new();
        fixture.source.answer(&fixture.objects[0], fixture.filled());
        fixture.is_served(1).await;
    }

    #[tokio::test]
    async fn a_handshake_is_served_what_was_filled_though_its_own_read_brought_a_bundle_ahead_of_the_index() {
        let fixture = Fixture::new();
        fixture.source.answer(&fixture.objects[1], fixture.filled());
        fixture.is_served(1).await;
    }

    #[tokio::test]
    async fn a_handshake_whose_bundle_was_replaced_while_it_was_read_is_served_the_next_one() {
        let fixture = Fixture::new();
        fixture.source.answer(&fixture.objects[0], fixture.indexed(2));
        fixture.source.answer(&fixture.objects[1], Box::new(|_| future::ready(()).boxed()));
        fixture.is_served(2).await;
    }
}
