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
use domains::{AnswerZone, Caller, Clock, Failover, Hostname, Issuer, Role, SystemClock};
use edge::{Edge, Source, config::OriginPlace};
use issue_certificate::IssueCertificate;
use issuers::acme::CaPair;
use lookups::{LookupConfig, Lookups};
use pipeline::{Pipeline, Running};
use publish_site::PublishSite;
use register_domain::{Api, Entropy, Memory, Pace, SystemEntropy, key_sha256};
use route_changes::RouteChanges;
use schedule_renewals::{EdgeKeys, ScheduleRenewals};
use storage::local::LocalHome;
use tokio::net::TcpListener;
use verify_ownership::VerifyOwnership;

use crate::{
    accounts::{CaPlace, Cas, Issuers},
    api_server::{self, ApiServer},
    beside,
    config::Config,
    files::{self, Endpoints},
    home::Home,
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

/// Sockets that a supervisor bound for the product; what is not among them the product binds by itself.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) edge: edge::Inherited,
    pub(crate) answers: answers::Inherited,
    pub(crate) api: Option<std::net::TcpListener>,
}

/// Says which part did not start.
pub(crate) fn start_failed(what: &'static str) -> impl Fn(&dyn std::error::Error) -> StartError {
    move |error| StartError::Start { what, detail: telemetry::error_chain(error) }
}

/// What stands before the CA and DNS are known: the store, the answer zone and the edge, which serves what it has from now on.
pub(crate) struct Ground {
    home: Home,
    answers: Option<AnswerServer>,
    edge: Edge,
    api: Option<std::net::TcpListener>,
    seal_key: SealPublicKey,
    clock: Arc<dyn Clock>,
}

/// The running product.
pub(crate) struct Product {
    home: Home,
    pipeline: Running,
    edge: Edge,
    answers: Option<AnswerServer>,
    api: ApiServer,
    api_address: SocketAddr,
    drain: Duration,
}

impl Ground {
    /// Opens the store and starts to serve, with `origin` (`http://host:port`) behind the edge.
    pub(crate) async fn lay(config: &Config, origin: &str, sockets: Sockets) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let home = Home::open(config, clock.clone()).await?;
        let Sockets { edge: edge_sockets, answers: answer_sockets, api } = sockets;
        let operator_key = operator_key(&config.data)?;
        let operator = Caller { role: Role::Operator, tenant: None };
        home.callers.admit(&key_sha256(&operator_key), &operator).await.map_err(|error| start_failed("the store")(&error))?;
        // A zone on AWS is served by AWS.
        let answers = match &home.local {
            Some(local) => Some(start_answers(config, local, answer_sockets).await?),
            None => None,
        };
        let pair = seal_key(&config.data)?;
        let seal_key = pair.public().clone();
        let mut seal_keys = SealKeys::default();
        seal_keys.insert(pair);
        let edge = start_edge(config, origin, home.source.clone(), seal_keys, clock.clone(), edge_sockets).await?;
        Ok(Self { home, answers, edge, api, seal_key, clock })
    }

    /// Where the answer zone is asked, if it is served here.
    pub(crate) fn answers(&self) -> Option<SocketAddr> {
        self.answers.as_ref().map(AnswerServer::address)
    }

    /// The port at which challenges are fetched.
    pub(crate) fn http_port(&self) -> u16 {
        self.edge.http_addr.port()
    }

    /// Where dns-01 challenges are answered, if anywhere.
    pub(crate) fn answer_zone(&self) -> Option<&Arc<dyn AnswerZone>> {
        self.home.answers.as_ref()
    }

    /// The configured CAs, of which the first is at `place`.
    pub(crate) fn cas(&self, config: &Config, place: CaPlace) -> Result<Cas, StartError> {
        Cas::configured(config, place, &self.seal_key, &self.clock)
    }
}

impl Product {
    /// Starts the rest: the pipeline, which asks DNS as `lookup` says and orders from `issuers`, and the API.
    pub(crate) async fn assemble(ground: Ground, config: &Config, issuers: Issuers, lookup: LookupConfig) -> Result<Self, StartError> {
        let Ground { home, answers, edge, api: api_socket, seal_key, clock } = ground;
        // The edge answers with the first; with one key for both accounts that fits the second CA, too.
        let thumbprints = issuers.thumbprints();
        let mut policy = config.issuance;
        policy.failover = policy.failover.map(|failover| Failover { http_01: thumbprints.len() == 1, ..failover });
        let zone = issuers.named_in(&config.zone);
        let second = issuers.second.map(|issuer| Arc::new(issuer) as Arc<dyn Issuer>);
        let issuer = Arc::new(CaPair::new(Arc::new(issuers.first), second));
        let publish = Arc::new(PublishSite { table: home.table.clone(), bucket: home.bucket.clone(), clock: clock.clone() });
        publish
            .publish_edge_settings(&thumbprints)
            .await
            .map_err(|error| StartError::Start { what: "publishing the challenge settings", detail: error.to_string() })?;

        if home.answers.is_none() {
            tracing::warn!(
                "no answer zone is configured (aws.answers_hosted_zone): names are proved by http-01 alone, and wildcards not at all"
            );
        }
        let ca_limits = config.acme_limits.at(config.acme.directory.as_deref());
        let second_ca_limits = config
            .second_ca
            .as_ref()
            .and_then(|second| second.directory.as_deref())
            .map(|directory| config.acme_limits.of_second(directory));
        let lookup = Arc::new(Lookups::new(lookup));
        let mut pipeline = Pipeline {
            feed: home.feed.clone(),
            queues: home.queues.clone(),
            route: RouteChanges { queue: home.queue.clone(), clock: clock.clone() },
            verify: VerifyOwnership {
                table: home.table.clone(),
                lookup: lookup.clone(),
                documents: home.documents.clone(),
                zone: zone.clone(),
                looks: config.looks,
                clock: clock.clone(),
            },
            issue: IssueCertificate {
                table: home.table.clone(),
                issuer: issuer.clone(),
                lookup,
                documents: home.documents.clone(),
                zone: zone.clone(),
                looks: config.looks,
                policy,
                limits: home.limits.clone(),
                ca_limits: ca_limits.clone(),
                second_ca_limits: second_ca_limits.clone(),
                has_answer_zone: home.answers.is_some(),
                clock: clock.clone(),
            },
            publish,
            timer: ScheduleRenewals {
                due: home.due.clone(),
                queue: home.queue.clone(),
                marks: home.marks.clone(),
                keys: EdgeKeys {
                    bucket: home.bucket.clone(),
                    seal_to: seal_key,
                    shared_tickets: config.edge.tickets == edge::config::TicketKeys::Shared,
                },
                clock: clock.clone(),
                grace: config.timer_grace,
            },
            timer_interval: config.timer,
            stream: config.stream,
        }
        .start_with(config.workers);

        let api = Arc::new(Api {
            table: home.table.clone(),
            listings: home.listings.clone(),
            events: home.events.clone(),
            documents: home.documents.clone(),
            callers: home.callers.clone(),
            limits: home.limits.clone(),
            ca_limits: std::iter::once(ca_limits).chain(second_ca_limits).collect(),
            policy: config.policy.clone(),
            zone: config.zone.clone(),
            origins: config.origins.keys().cloned().collect(),
            looks: config.looks,
            pace: Pace::default(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            memory: Memory::default(),
        });
        api.prepare().await.map_err(|refusal| StartError::Start { what: "making the secret path of `ask`", detail: refusal.detail })?;
        beside::start(&mut pipeline, &config.webhooks, &home, api.clone(), clock)
            .map_err(|detail| StartError::Start { what: "telling webhooks", detail })?;
        let listener = match api_socket {
            Some(socket) => adopt(socket).map_err(|error| start_failed("the API")(&error))?,
            None => listen(config.listen.api, "the API", "listen.api").await?,
        };
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
        // Both write to the store, which closes last.
        let (pipeline, api) = tokio::join!(self.pipeline.stop(self.drain), self.api.stop(self.drain));
        let mut clean = pipeline && api;
        let edge = tokio::time::timeout(self.drain + Duration::from_secs(2), self.edge.shutdown()).await;
        clean &= edge.is_ok();
        if let Some(answers) = self.answers {
            answers.shutdown().await;
        }
        if let Err(error) = self.home.close().await {
            tracing::warn!(%error, "the store did not close cleanly; what was answered is on disk all the same");
            clean = false;
        }
        clean
    }
}

/// Where the edge keeps what it serves, below the data folder.
pub(crate) const EDGE_CACHE: &str = "edge-cache";

/// Serves the zone with the answers of dns-01 challenges, out of the store.
async fn start_answers(config: &Config, home: &LocalHome, sockets: answers::Inherited) -> Result<AnswerServer, StartError> {
    let zone = Hostname::parse_name(&config.zone.answers_zone()).map_err(|error| start_failed("the answer zone")(&error))?;
    let book = home.answer_book();
    let reader = Arc::new(move |name: &str| Held { values: book.values(name), has_below: book.has_below(name) });
    let settings = answers::Config { listen: config.listen.answers, zone, addresses: config.zone.edge_addresses.clone() };
    AnswerServer::start_on(sockets, settings, reader).await.map_err(|error| StartError::Listen {
        address: error.address,
        what: "the answer zone",
        key: "listen.answers",
        source: error.source,
    })
}

async fn start_edge(
    config: &Config,
    origin: &str,
    source: Arc<dyn Source>,
    seal_keys: SealKeys,
    clock: Arc<dyn Clock>,
    sockets: edge::Inherited,
) -> Result<Edge, StartError> {
    let usual = OriginPlace::parse(origin).map_err(|detail| StartError::Start { what: "the origin", detail })?;
    let mut settings = edge::Config::on_loopback(usual.address, config.data.join(EDGE_CACHE));
    settings.origin_protocol = usual.protocol;
    settings.origins.clone_from(&config.origins);
    if let Some(tls) = &mut settings.origin_protocol.tls {
        tls.server_name.clone_from(&config.origin_sni);
    }
    if let Some(ca_file) = &config.origin_ca {
        let named = settings.origins.values_mut().map(|place| &mut place.protocol);
        let over_tls = named.chain([&mut settings.origin_protocol]).filter_map(|protocol| protocol.tls.as_mut());
        over_tls.for_each(|tls| tls.ca_file.clone_from(ca_file));
    }
    settings.https_listen = config.listen.https;
    settings.http_listen = config.listen.http;
    settings.private_listen = config.listen.private;
    settings.refresh.poll_interval = config.edge_poll;
    let options = config.edge.clone();
    (settings.tickets, settings.metrics_tenants) = (options.tickets, options.metrics_tenants);
    (settings.access_log, settings.logged_address) = (options.access_log, options.logged_address);
    settings.drain.timeout = config.drain;
    // No load balancer sends anything after the signal: what is open may finish, and what comes waits for the next process.
    settings.drain.grace = config.drain;
    let parts = edge::Parts { source, seal_keys, clock };
    Edge::start_on(sockets, settings, parts).await.map_err(|error| start_failed("the edge")(&error))
}

/// Where the key is that certificates' private keys are sealed to, below the data folder.
const SEAL_KEY: &str = "keys/seal.json";

fn unusable(error: bundles::BundleError) -> StartError {
    StartError::Start { what: "the seal key", detail: error.to_string() }
}

/// The seal key, if there is one.
pub(crate) fn read_seal_key(data: &Path) -> Result<Option<SealKeyPair>, StartError> {
    let json = files::read(&data.join(SEAL_KEY))?;
    json.map(|json| SealKeyPair::from_json(json.as_bytes()).map_err(unusable)).transpose()
}

/// The seal key, made where there is none.
pub(crate) fn seal_key(data: &Path) -> Result<SealKeyPair, StartError> {
    if let Some(pair) = read_seal_key(data)? {
        return Ok(pair);
    }
    let pair = SealKeyPair::generate().map_err(unusable)?;
    files::write_secret(&data.join(SEAL_KEY), &pair.to_json())?;
    Ok(pair)
}

/// The operator's API key, made where there is none.
pub(crate) fn operator_key(data: &Path) -> Result<String, StartError> {
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

fn adopt(socket: std::net::TcpListener) -> std::io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

/// Binds a port, or says which key of the configuration chose it.
pub(crate) async fn listen(address: SocketAddr, what: &'static str, key: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, what, key, source })
}

/// The address that was bound.
pub(crate) fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
