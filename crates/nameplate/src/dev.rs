//! `nameplate dev`: the whole product on loopback, with no account anywhere.
//!
//! Arrives: a [`Config`]. Leaves: API, edge, pipeline, demo DNS, local CA and demo origin, running until told to stop; everything is kept in
//! the data folder, so that a stop and a start carry on. Goes wrong: a port that is taken, a folder in use, a CA that cannot be reached; each
//! named, with what to do.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use answers::{AnswerServer, Held};
use bundles::{SealKeyPair, SealKeys};
use domains::{Caller, Callers, Clock, Failover, Hostname, Issuer, Role, SystemClock};
use edge::{Edge, FolderSource};
use issue_certificate::IssueCertificate;
use issuers::acme::{AcmeAccount, AcmeConfig, AcmeIssuer, CaPair, ExternalAccount};
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
    api_server,
    config::{AcmeSettings, Config},
    demo_origin,
    files::{self, Endpoints},
};

/// Where the accounts at the CAs are kept, below the data folder.
const ACCOUNT: &str = "keys/acme-account.json";
const SECOND_ACCOUNT: &str = "keys/acme-account-second.json";

/// How long the first start waits for the CA to make an account.
const ACCOUNT_PATIENCE: Duration = Duration::from_secs(30);

/// Why it did not start: what, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevError {
    #[error("cannot listen on {address} for {what}: {source}\n  hint: stop what listens there, or set {key} to another address")]
    Listen { address: SocketAddr, what: &'static str, key: &'static str, source: std::io::Error },
    #[error("{what} did not start: {detail}")]
    Start { what: &'static str, detail: String },
    #[error(transparent)]
    File(#[from] files::FileError),
}

fn start_failed(what: &'static str) -> impl Fn(&dyn std::error::Error) -> DevError {
    move |error| DevError::Start { what, detail: telemetry::error_chain(error) }
}

/// The running product.
pub(crate) struct Dev {
    pub(crate) endpoints: Endpoints,
    home: LocalHome,
    pipeline: Running,
    edge: Edge,
    ca: Option<dev_ca::DevCa>,
    dns: Option<dev_dns::DevDns>,
    answers: AnswerServer,
    servers: Vec<JoinHandle<()>>,
    drain: Duration,
}

impl Dev {
    /// Starts everything, in the order in which the parts need each other.
    pub(crate) async fn start(config: &Config) -> Result<Self, DevError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let data = &config.data;
        let home = open_home(config, clock.clone())?;
        let operator_key = operator_key(data)?;
        let operator = Caller { role: Role::Operator, tenant: None };
        home.admit(&key_sha256(&operator_key), &operator).await.map_err(|error| start_failed("the store")(&error))?;

        let answers = start_answers(config, &home).await?;
        let dns = start_dns(config, answers.address()).await?;
        let resolver = dns.as_ref().map_or(config.dns_server, |dns| Some(dns.dns_addr())).unwrap_or(config.listen.dns);
        let mut servers = Vec::new();
        let origin = match &config.origin {
            Some(url) => url.clone(),
            None => {
                let listener = listen(config.listen.origin, "the demo origin", "listen.origin").await?;
                let address = local(&listener, config.listen.origin);
                servers.push(demo_origin::serve(listener));
                format!("http://{address}")
            }
        };

        let seal_key = seal_key(data)?;
        let source = Arc::new(FolderSource::new(home.bucket_folder()));
        let mut seal_keys = SealKeys::default();
        let seal_public = seal_key.public().clone();
        seal_keys.insert(seal_key);
        let edge = start_edge(config, &origin, source, seal_keys, clock.clone()).await?;

        let ca = start_ca(config, resolver, edge.http_addr.port()).await?;
        let first = open_issuer(config, ca.as_ref(), &home, seal_public.clone(), clock.clone()).await?;
        let second = match &config.second_ca {
            Some(settings) => Some(open_second(config, settings, &home, seal_public, clock.clone()).await?),
            None => None,
        };
        // The edge answers with the first; with one key for both accounts that fits the second CA, too.
        let mut thumbprints: Vec<String> = std::iter::once(&first).chain(&second).map(|issuer| issuer.thumbprint().to_owned()).collect();
        thumbprints.dedup();
        let mut policy = config.issuance;
        policy.failover = policy.failover.map(|failover| Failover { http_01: thumbprints.len() == 1, ..failover });
        let second = second.map(|issuer| Arc::new(issuer) as Arc<dyn Issuer>);
        let account_url = first.account_url().to_owned();
        let issuer = Arc::new(CaPair::new(Arc::new(first), second));
        let publish = Arc::new(PublishSite { table: Arc::new(home.clone()), bucket: Arc::new(home.clone()), clock: clock.clone() });
        publish
            .publish_edge_settings(&thumbprints)
            .await
            .map_err(|error| DevError::Start { what: "publishing the challenge settings", detail: error.to_string() })?;

        let mut zone = config.zone.clone();
        for ca in &mut zone.issuers {
            ca.account_uri = Some(account_url.clone());
        }
        let ca_limits = config.acme_limits.at(config.acme.directory.as_deref());
        let second_ca_limits =
            config.second_ca.as_ref().and_then(|second| second.directory.as_deref()).map(domains::ledger::CaLimits::of_directory);
        let lookup_config = if config.dns_server.is_some_and(|server| !server.ip().is_loopback()) {
            LookupConfig::asking(resolver)
        } else {
            LookupConfig::on_loopback(resolver)
        };
        let lookup = Arc::new(Lookups::new(lookup_config));
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
        .start();

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
        api.prepare().await.map_err(|refusal| DevError::Start { what: "making the secret path of `ask`", detail: refusal.detail })?;
        let listener = listen(config.listen.api, "the API", "listen.api").await?;
        let api_address = local(&listener, config.listen.api);
        servers.push(api_server::serve(listener, api));

        let endpoints = Endpoints {
            pid: std::process::id(),
            api: format!("http://{api_address}"),
            https: edge.https_addr.to_string(),
            http: edge.http_addr.to_string(),
            private: edge.private_addr.to_string(),
            dns_admin: dns.as_ref().and_then(dev_dns::DevDns::admin_addr).map(|address| format!("http://{address}")),
            ca_root: ca
                .as_ref()
                .and_then(|ca| ca.root_path().map(|path| path.display().to_string()))
                .or_else(|| config.acme.root.as_ref().map(|path| path.display().to_string())),
            ca_directory: ca.as_ref().map_or_else(|| config.acme.directory.clone().unwrap_or_default(), dev_ca::DevCa::directory_url),
            ca_control: ca.as_ref().and_then(dev_ca::DevCa::control_url),
        };
        endpoints.store(data)?;
        Ok(Self { endpoints, home, pipeline, edge, ca, dns, answers, servers, drain: config.drain })
    }

    /// Stops everything, the edge last, and says whether all of it ended in time.
    pub(crate) async fn stop(self) -> bool {
        let mut clean = self.pipeline.stop(self.drain).await;
        for server in &self.servers[..] {
            // The API is stateless and the demo origin only echoes: nothing of theirs is lost.
            server.abort();
        }
        let edge = tokio::time::timeout(self.drain + Duration::from_secs(2), self.edge.shutdown()).await;
        clean &= edge.is_ok();
        if let Some(ca) = self.ca {
            ca.shutdown().await;
        }
        self.answers.shutdown().await;
        if let Some(dns) = self.dns
            && let Err(error) = dns.shutdown().await
        {
            tracing::warn!(error = telemetry::error_chain(&error), "the demo DNS did not stop cleanly");
            clean = false;
        }
        if let Err(error) = self.home.close().await {
            tracing::warn!(%error, "the store did not close cleanly; what was answered is on disk all the same");
            clean = false;
        }
        clean
    }
}

fn open_home(config: &Config, clock: Arc<dyn Clock>) -> Result<LocalHome, DevError> {
    let mut local = LocalConfig::new(config.data.join("home"), clock);
    local.chaos = config.chaos_seed.map(Chaos::seeded);
    LocalHome::open(local).map_err(|error| start_failed("the store")(&error))
}

/// Serves the zone with the answers of dns-01 challenges, out of the store.
async fn start_answers(config: &Config, home: &LocalHome) -> Result<AnswerServer, DevError> {
    let zone = Hostname::parse_name(&config.zone.answers_zone()).map_err(|error| start_failed("the answer zone")(&error))?;
    let book = home.answer_book();
    let reader = Arc::new(move |name: &str| Held { values: book.values(name), has_below: book.has_below(name) });
    let settings = answers::Config { listen: config.listen.answers, zone, addresses: config.zone.edge_addresses.clone() };
    AnswerServer::start(settings, reader).await.map_err(|error| DevError::Listen {
        address: error.address,
        what: "the answer zone",
        key: "listen.answers",
        source: error.source,
    })
}

async fn start_dns(config: &Config, answers: SocketAddr) -> Result<Option<dev_dns::DevDns>, DevError> {
    if config.dns_server.is_some() {
        return Ok(None);
    }
    let settings = dev_dns::Config {
        dns: config.listen.dns,
        admin: Some(config.listen.dns_admin),
        file: Some(config.data.join("dns.json")),
        apexes: vec![config.zone.zone.to_string()],
        forwards: vec![(config.zone.answers_zone(), answers)],
        ..dev_dns::Config::default()
    };
    let dns = dev_dns::DevDns::start(settings).await.map_err(|error| start_failed("the demo DNS")(&error))?;
    seed_zone(&dns, config).await?;
    Ok(Some(dns))
}

/// The operator's own records: one wildcard leads every claim's target to the edge.
async fn seed_zone(dns: &dev_dns::DevDns, config: &Config) -> Result<(), DevError> {
    let failed = |detail: String| DevError::Start { what: "the demo DNS", detail };
    let targets = format!("*.{}", config.zone.targets_zone());
    for (record_type, addresses) in [
        (dev_dns::RecordType::A, config.zone.edge_addresses.iter().filter(|address| address.is_ipv4()).collect::<Vec<_>>()),
        (dev_dns::RecordType::Aaaa, config.zone.edge_addresses.iter().filter(|address| address.is_ipv6()).collect()),
    ] {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let data: Vec<&str> = texts.iter().map(String::as_str).collect();
        if !data.is_empty() {
            dns.zone().set(&targets, record_type, &data).map_err(|error| failed(error.to_string()))?;
        }
    }
    dns.zone().saved().await.map_err(|error| failed(error.to_string()))
}

async fn start_ca(config: &Config, dns: SocketAddr, http_port: u16) -> Result<Option<dev_ca::DevCa>, DevError> {
    if config.acme.directory.is_some() {
        return Ok(None);
    }
    let settings = dev_ca::Config {
        listen: config.listen.ca,
        state: Some(config.data.join("ca")),
        dns,
        http_port,
        control: Some(config.listen.ca_control),
        lifetime: config.certificate_lifetime,
        limits: config.acme_limits.of_local_ca(),
        ..dev_ca::Config::default()
    };
    dev_ca::DevCa::start(settings).await.map(Some).map_err(|error| start_failed("the local CA")(&error))
}

async fn open_issuer(
    config: &Config,
    ca: Option<&dev_ca::DevCa>,
    home: &LocalHome,
    seal_key: bundles::SealPublicKey,
    clock: Arc<dyn Clock>,
) -> Result<AcmeIssuer, DevError> {
    let directory = ca.map_or_else(|| config.acme.directory.clone().unwrap_or_default(), dev_ca::DevCa::directory_url);
    let mut acme = acme_config(&config.acme, directory, home, seal_key, clock)?;
    if let Some(ca) = ca {
        acme.extra_root_pem = Some(ca.root_pem().to_owned());
    }
    with_account(acme, &config.data.join(ACCOUNT), None).await
}

/// The second CA has an account of its own, made at the first start: in an outage of the first there may be no time for it.
async fn open_second(
    config: &Config,
    settings: &AcmeSettings,
    home: &LocalHome,
    seal_key: bundles::SealPublicKey,
    clock: Arc<dyn Clock>,
) -> Result<AcmeIssuer, DevError> {
    let acme = acme_config(settings, settings.directory.clone().unwrap_or_default(), home, seal_key, clock)?;
    // Without an external account it has the first one's key, so that the edge's answers fit both CAs.
    let first = match (&acme.external_account, files::read(&config.data.join(ACCOUNT))?) {
        (None, Some(json)) => Some(AcmeAccount::from_json(&json).map_err(|error| start_failed("the ACME account")(&error))?),
        _ => None,
    };
    with_account(acme, &config.data.join(SECOND_ACCOUNT), first.as_ref()).await
}

fn acme_config(
    settings: &AcmeSettings,
    directory: String,
    home: &LocalHome,
    seal_key: bundles::SealPublicKey,
    clock: Arc<dyn Clock>,
) -> Result<AcmeConfig, DevError> {
    let mut acme = AcmeConfig::new(directory, seal_key, clock);
    acme.profile = settings.profile.clone();
    acme.contact = settings.contact.clone();
    acme.answers = Some(Arc::new(home.clone()));
    let existing = |what: &'static str, path: &Path| -> Result<String, DevError> {
        files::read(path)?.ok_or_else(|| DevError::Start { what, detail: format!("{} does not exist", path.display()) })
    };
    acme.extra_root_pem = settings.root.as_deref().map(|path| existing("reading the CA's root", path)).transpose()?;
    acme.external_account = match &settings.external_account {
        Some((key_id, path)) => {
            let hmac = existing("reading the external account's key", path)?;
            Some(ExternalAccount::parse(key_id, &hmac).map_err(|error| start_failed("the external account")(&error))?)
        }
        None => None,
    };
    Ok(acme)
}

/// Opens the issuer with the account in the file, which is made first where there is none.
async fn with_account(acme: AcmeConfig, path: &Path, shares_key_with: Option<&AcmeAccount>) -> Result<AcmeIssuer, DevError> {
    let credentials = match files::read(path)? {
        Some(json) => json,
        None => {
            let creating = async {
                match shares_key_with {
                    Some(other) => AcmeAccount::create_sharing_key(&acme, other).await,
                    None => AcmeAccount::create(&acme).await,
                }
            };
            let account = tokio::time::timeout(ACCOUNT_PATIENCE, creating).await;
            let account = account
                .map_err(|_| DevError::Start { what: "making an ACME account", detail: "the CA did not answer in time".into() })?
                .map_err(|error| start_failed("making an ACME account")(&error))?;
            files::write_secret(path, account.to_json().as_bytes())?;
            account.to_json().to_owned()
        }
    };
    AcmeIssuer::open(acme, &credentials).map_err(|error| start_failed("the ACME issuer")(&error))
}

async fn start_edge(
    config: &Config,
    origin: &str,
    source: Arc<FolderSource>,
    seal_keys: SealKeys,
    clock: Arc<dyn Clock>,
) -> Result<Edge, DevError> {
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

fn seal_key(data: &Path) -> Result<SealKeyPair, DevError> {
    let path = data.join("keys/seal.json");
    let unusable = |error: bundles::BundleError| DevError::Start { what: "the seal key", detail: error.to_string() };
    match files::read(&path)? {
        Some(json) => SealKeyPair::from_json(json.as_bytes()).map_err(unusable),
        None => {
            let pair = SealKeyPair::generate().map_err(unusable)?;
            files::write_secret(&path, &pair.to_json())?;
            Ok(pair)
        }
    }
}

fn operator_key(data: &Path) -> Result<String, DevError> {
    let path = files::operator_key_path(data);
    if let Some(key) = files::read(&path)? {
        return Ok(key.trim().to_owned());
    }
    let mut bytes = [0u8; 32];
    SystemEntropy.fill(&mut bytes).map_err(|detail| DevError::Start { what: "making an API key", detail })?;
    let key: String = std::iter::once("np_".to_owned()).chain(bytes.iter().map(|byte| format!("{byte:02x}"))).collect();
    files::write_secret(&path, key.as_bytes())?;
    Ok(key)
}

async fn listen(address: SocketAddr, what: &'static str, key: &'static str) -> Result<TcpListener, DevError> {
    TcpListener::bind(address).await.map_err(|source| DevError::Listen { address, what, key, source })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}
