//! The product on one machine, assembled: API, pipeline, answer zone and edge, with the same parts whoever starts it.
//!
//! Arrives: a [`Config`], and the world around it: an origin, the CAs' issuers, whom DNS is asked of. Leaves: a running [`Product`].
//! Goes wrong: a port that is taken, a folder in use, a key that does not read; each named, with what to do.
//!
//! It starts in two steps, because the world may need to know where the first half listens: a local CA is told the edge's port, a demo DNS
//! where the answer zone is.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use answers::{AnswerServer, Held};
use bundles::{SealKeyPair, SealKeys, SealPublicKey};
use domains::{Caller, Callers, Clock, Failover, Hostname, Issuer, Role, SystemClock};
use edge::{Edge, FolderSource};
use issue_certificate::IssueCertificate;
use issuers::acme::CaPair;
use lookups::{LookupConfig, Lookups};
use pipeline::{Pipeline, Running};
use publish_site::PublishSite;
use register_domain::{Api, Entropy, Memory, Pace, SystemEntropy, key_sha256};
use route_changes::RouteChanges;
use schedule_renewals::ScheduleRenewals;
use storage::local::{Chaos, LocalConfig, LocalHome};
use tokio::{net::TcpListener, task::JoinHandle};
use verify_ownership::VerifyOwnership;

use crate::{
    accounts::{Issuers, Tools},
    api_server,
    config::Config,
    files::{self, Endpoints},
};

/// Why it did not start: what, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot listen on {address} for {what}: {source}\n  hint: stop what listens there, or set {key} to another address")]
    Listen { address: SocketAddr, what: &'static str, key: &'static str, source: std::io::Error },
    #[error("{what} did not start: {detail}")]
    Start { what: &'static str, detail: String },
    #[error(transparent)]
    File(#[from] files::FileError),
}

/// Says which part did not start.
pub(crate) fn start_failed(what: &'static str) -> impl Fn(&dyn std::error::Error) -> StartError {
    move |error| StartError::Start { what, detail: telemetry::error_chain(error) }
}

/// What stands before the CA and DNS are known: the store, the answer zone and the edge, which serves what it has from now on.
pub(crate) struct Ground {
    home: LocalHome,
    answers: AnswerServer,
    edge: Edge,
    seal_key: SealPublicKey,
    clock: Arc<dyn Clock>,
}

/// The running product.
pub(crate) struct Product {
    home: LocalHome,
    pipeline: Running,
    edge: Edge,
    answers: AnswerServer,
    api: JoinHandle<()>,
    api_address: SocketAddr,
    drain: Duration,
}

impl Ground {
    /// Opens the store and starts to serve, with `origin` (`http://host:port`) behind the edge.
    pub(crate) async fn lay(config: &Config, origin: &str) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let home = open_home(config, clock.clone())?;
        let operator_key = operator_key(&config.data)?;
        let operator = Caller { role: Role::Operator, tenant: None };
        home.admit(&key_sha256(&operator_key), &operator).await.map_err(|error| start_failed("the store")(&error))?;
        let answers = start_answers(config, &home).await?;
        let pair = seal_key(&config.data)?;
        let seal_key = pair.public().clone();
        let mut seal_keys = SealKeys::default();
        seal_keys.insert(pair);
        let source = Arc::new(FolderSource::new(home.bucket_folder()));
        let edge = start_edge(config, origin, source, seal_keys, clock.clone()).await?;
        Ok(Self { home, answers, edge, seal_key, clock })
    }

    /// Where the answer zone is asked.
    pub(crate) fn answers(&self) -> SocketAddr {
        self.answers.address()
    }

    /// The port at which challenges are fetched.
    pub(crate) fn http_port(&self) -> u16 {
        self.edge.http_addr.port()
    }

    /// What the CAs' issuers work with.
    pub(crate) fn tools(&self) -> Tools<'_> {
        Tools { home: &self.home, seal_key: self.seal_key.clone(), clock: self.clock.clone() }
    }
}

impl Product {
    /// Starts the rest: the pipeline, which asks DNS as `lookup` says and orders from `issuers`, and the API.
    pub(crate) async fn assemble(ground: Ground, config: &Config, issuers: Issuers, lookup: LookupConfig) -> Result<Self, StartError> {
        let Ground { home, answers, edge, seal_key: _, clock } = ground;
        // The edge answers with the first; with one key for both accounts that fits the second CA, too.
        let thumbprints = issuers.thumbprints();
        let mut policy = config.issuance;
        policy.failover = policy.failover.map(|failover| Failover { http_01: thumbprints.len() == 1, ..failover });
        let account_url = issuers.first.account_url().to_owned();
        let second = issuers.second.map(|issuer| Arc::new(issuer) as Arc<dyn Issuer>);
        let issuer = Arc::new(CaPair::new(Arc::new(issuers.first), second));
        let publish = Arc::new(PublishSite { table: Arc::new(home.clone()), bucket: Arc::new(home.clone()), clock: clock.clone() });
        publish
            .publish_edge_settings(&thumbprints)
            .await
            .map_err(|error| StartError::Start { what: "publishing the challenge settings", detail: error.to_string() })?;

        let mut zone = config.zone.clone();
        for ca in &mut zone.issuers {
            ca.account_uri = Some(account_url.clone());
        }
        let ca_limits = config.acme_limits.at(config.acme.directory.as_deref());
        let second_ca_limits =
            config.second_ca.as_ref().and_then(|second| second.directory.as_deref()).map(domains::ledger::CaLimits::of_directory);
        let lookup = Arc::new(Lookups::new(lookup));
        let pipeline = Pipeline {
            feed: Arc::new(home.clone()),
            queues: Arc::new(home.clone()),
            route: RouteChanges { queue: Arc::new(home.clone()), clock: clock.clone() },
            verify: VerifyOwnership {
                table: Arc::new(home.clone()),
                lookup: lookup.clone(),
                documents: Arc::new(home.clone()),
                zone: zone.clone(),
                looks: config.looks,
                clock: clock.clone(),
            },
            issue: IssueCertificate {
                table: Arc::new(home.clone()),
                issuer: issuer.clone(),
                lookup,
                documents: Arc::new(home.clone()),
                zone: zone.clone(),
                looks: config.looks,
                policy,
                limits: Arc::new(home.clone()),
                ca_limits: ca_limits.clone(),
                second_ca_limits: second_ca_limits.clone(),
                clock: clock.clone(),
            },
            publish,
            timer: ScheduleRenewals {
                due: Arc::new(home.clone()),
                queue: Arc::new(home.clone()),
                marks: Arc::new(home.clone()),
                clock: clock.clone(),
                grace: config.timer_grace,
            },
            timer_interval: config.timer,
            stream: config.stream,
        }
        .start_with(config.workers);

        let api = Arc::new(Api {
            table: Arc::new(home.clone()),
            listings: Arc::new(home.clone()),
            events: Arc::new(home.clone()),
            documents: Arc::new(home.clone()),
            callers: Arc::new(home.clone()),
            limits: Arc::new(home.clone()),
            ca_limits: std::iter::once(ca_limits).chain(second_ca_limits).collect(),
            policy: config.policy.clone(),
            zone: config.zone.clone(),
            looks: config.looks,
            pace: Pace::default(),
            clock,
            entropy: Arc::new(SystemEntropy),
            memory: Memory::default(),
        });
        api.prepare().await.map_err(|refusal| StartError::Start { what: "making the secret path of `ask`", detail: refusal.detail })?;
        let listener = listen(config.listen.api, "the API", "listen.api").await?;
        let api_address = local(&listener, config.listen.api);
        let api = api_server::serve(listener, api);
        Ok(Self { home, pipeline, edge, answers, api, api_address, drain: config.drain })
    }

    /// Where it can be reached; what only a demo has is left out.
    pub(crate) fn endpoints(&self, config: &Config) -> Endpoints {
        Endpoints {
            pid: std::process::id(),
            api: format!("http://{}", self.api_address),
            https: self.edge.https_addr.to_string(),
            http: self.edge.http_addr.to_string(),
            private: self.edge.private_addr.to_string(),
            dns_admin: None,
            ca_root: config.acme.root.as_ref().map(|path| path.display().to_string()),
            ca_directory: config.acme.directory.clone().unwrap_or_default(),
            ca_control: None,
        }
    }

    /// Stops everything, the edge last, and says whether all of it ended in time.
    pub(crate) async fn stop(self) -> bool {
        let mut clean = self.pipeline.stop(self.drain).await;
        // The API is stateless: nothing of its is lost.
        self.api.abort();
        let edge = tokio::time::timeout(self.drain + Duration::from_secs(2), self.edge.shutdown()).await;
        clean &= edge.is_ok();
        self.answers.shutdown().await;
        if let Err(error) = self.home.close().await {
            tracing::warn!(%error, "the store did not close cleanly; what was answered is on disk all the same");
            clean = false;
        }
        clean
    }
}

fn open_home(config: &Config, clock: Arc<dyn Clock>) -> Result<LocalHome, StartError> {
    let mut local = LocalConfig::new(config.data.join("home"), clock);
    local.chaos = config.chaos_seed.map(Chaos::seeded);
    LocalHome::open(local).map_err(|error| start_failed("the store")(&error))
}

/// Serves the zone with the answers of dns-01 challenges, out of the store.
async fn start_answers(config: &Config, home: &LocalHome) -> Result<AnswerServer, StartError> {
    let zone = Hostname::parse_name(&config.zone.answers_zone()).map_err(|error| start_failed("the answer zone")(&error))?;
    let book = home.answer_book();
    let reader = Arc::new(move |name: &str| Held { values: book.values(name), has_below: book.has_below(name) });
    let settings = answers::Config { listen: config.listen.answers, zone, addresses: config.zone.edge_addresses.clone() };
    AnswerServer::start(settings, reader).await.map_err(|error| StartError::Listen {
        address: error.address,
        what: "the answer zone",
        key: "listen.answers",
        source: error.source,
    })
}

async fn start_edge(
    config: &Config,
    origin: &str,
    source: Arc<FolderSource>,
    seal_keys: SealKeys,
    clock: Arc<dyn Clock>,
) -> Result<Edge, StartError> {
    let host_and_port = origin.strip_prefix("http://").unwrap_or(origin).trim_end_matches('/');
    let mut settings = edge::Config::on_loopback(host_and_port, config.data.join("edge-cache"));
    settings.https_listen = config.listen.https;
    settings.http_listen = config.listen.http;
    settings.private_listen = config.listen.private;
    settings.refresh.poll_interval = config.edge_poll;
    settings.drain.timeout = config.drain;
    settings.drain.grace = config.drain.min(settings.drain.grace);
    let parts = edge::Parts { source, seal_keys, clock };
    Edge::start(settings, parts).await.map_err(|error| start_failed("the edge")(&error))
}

fn seal_key(data: &Path) -> Result<SealKeyPair, StartError> {
    let path = data.join("keys/seal.json");
    let unusable = |error: bundles::BundleError| StartError::Start { what: "the seal key", detail: error.to_string() };
    match files::read(&path)? {
        Some(json) => SealKeyPair::from_json(json.as_bytes()).map_err(unusable),
        None => {
            let pair = SealKeyPair::generate().map_err(unusable)?;
            files::write_secret(&path, &pair.to_json())?;
            Ok(pair)
        }
    }
}

fn operator_key(data: &Path) -> Result<String, StartError> {
    let path = files::operator_key_path(data);
    if let Some(key) = files::read(&path)? {
        return Ok(key.trim().to_owned());
    }
    let mut bytes = [0u8; 32];
    SystemEntropy.fill(&mut bytes).map_err(|detail| StartError::Start { what: "making an API key", detail })?;
    let key: String = std::iter::once("np_".to_owned()).chain(bytes.iter().map(|byte| format!("{byte:02x}"))).collect();
    files::write_secret(&path, key.as_bytes())?;
    Ok(key)
}

/// Binds a port, or says which key of the configuration chose it.
pub(crate) async fn listen(address: SocketAddr, what: &'static str, key: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, what, key, source })
}

/// The address that was bound.
pub(crate) fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
