//! What the tests stand on: a CA, a zone, and an edge that answers challenges without knowing any.
#![allow(clippy::unwrap_used, reason = "what sets a test up may fail it")]

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bundles::{SealKeyPair, SealedKey};
use bytes::Bytes;
use dev_ca::{Config, Control, DevCa};
use dev_dns::{DevDns, RecordType};
use domains::{Attempt, ClaimKey, Clock, Hostname, IssueError, Issued, Issuer, OrderPlan, SystemClock, TenantId};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use issuers::acme::{AcmeAccount, AcmeConfig, AcmeIssuer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Everything around the issuer, and an account made at the CA.
pub(crate) struct World {
    pub(crate) ca: DevCa,
    pub(crate) dns: DevDns,
    pub(crate) seal: SealKeyPair,
    pub(crate) account: AcmeAccount,
    pub(crate) edge: Edge,
}

impl World {
    /// Starts it all; `*.brand.test` leads to the edge.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dns = DevDns::start(dev_dns::Config::default()).await.unwrap();
        dns.zone().set("*.brand.test", RecordType::A, &["127.0.0.1"]).unwrap();
        let edge = Edge::start().await;
        let mut config = Config { dns: dns.dns_addr(), http_port: edge.port, ..Config::default() };
        change(&mut config);
        let ca = DevCa::start(config).await.unwrap();
        let seal = SealKeyPair::generate().unwrap();
        let account = AcmeAccount::create(&config_for(&ca, &seal)).await.unwrap();
        edge.answer_for(account.thumbprint());
        Self { ca, dns, seal, account, edge }
    }

    /// What a new process would begin with: nothing but configuration and credentials.
    pub(crate) fn issuer(&self) -> AcmeIssuer {
        self.issuer_with(|_| {})
    }

    pub(crate) fn issuer_with(&self, change: impl FnOnce(&mut AcmeConfig)) -> AcmeIssuer {
        let mut config = config_for(&self.ca, &self.seal);
        change(&mut config);
        AcmeIssuer::open(config, self.account.to_json()).unwrap()
    }

    pub(crate) fn control(&self) -> Control {
        self.ca.control()
    }

    /// Lets the edge answer for another account than ours.
    pub(crate) fn answer_wrongly(&self) {
        self.edge.answer_for("c29tZWJvZHkgZWxzZSdzIHRodW1icHJpbnQ");
    }

    pub(crate) fn answer_for(&self, account: &AcmeAccount) {
        self.edge.answer_for(account.thumbprint());
    }

    /// The DNS server's address and the port for challenges, for another CA beside this one.
    pub(crate) fn around(&self) -> Config {
        Config { dns: self.dns.dns_addr(), http_port: self.edge.port, ..Config::default() }
    }
}

/// A configuration whose times fit a test on a busy machine.
pub(crate) fn config_for(ca: &DevCa, seal: &SealKeyPair) -> AcmeConfig {
    AcmeConfig {
        extra_root_pem: Some(ca.root_pem().to_owned()),
        contact: Some("ops@saas.test".into()),
        request_timeout: Duration::from_secs(20),
        step_budget: Duration::from_secs(20),
        poll_initial: Duration::from_millis(5),
        ..AcmeConfig::new(ca.directory_url(), seal.public().clone(), Arc::new(SystemClock))
    }
}

pub(crate) fn claim(name: &str) -> ClaimKey {
    ClaimKey { hostname: hostname(name), tenant: TenantId::parse("acme").unwrap() }
}

pub(crate) fn hostname(name: &str) -> Hostname {
    Hostname::parse_name(name).unwrap()
}

/// What the walk stores before it asks the CA anything.
pub(crate) fn attempt(issuer: &AcmeIssuer, name: &str) -> Attempt {
    let key = issuer.prepare(&claim(name)).unwrap();
    Attempt {
        started_at: SystemClock.now(),
        csr: key.csr,
        sealed_key: key.sealed_key,
        spki_sha256: key.spki_sha256,
        order_url: None,
        plan: OrderPlan::default(),
    }
}

/// The whole walk, in one process.
pub(crate) async fn issue(issuer: &AcmeIssuer, name: &str) -> Result<(Attempt, Issued), IssueError> {
    let mut attempt = attempt(issuer, name);
    let url = issuer.order(&hostname(name), &OrderPlan::default()).await?;
    attempt.order_url = Some(url.clone());
    let issued = issuer.complete(&hostname(name), &url, &attempt).await?;
    Ok((attempt, issued))
}

/// Opens the sealed key as the edge would.
pub(crate) fn open_key(world: &World, name: &str, attempt: &Attempt) -> Vec<u8> {
    let sealed: SealedKey = serde_json::from_str(&attempt.sealed_key).unwrap();
    let spki: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&attempt.spki_sha256[2 * i..2 * i + 2], 16).unwrap()).collect();
    let claim = claim(name);
    world.seal.open(&sealed, &claim.hostname, &claim.tenant, &spki.try_into().unwrap()).unwrap().to_vec()
}

/// Port 80 of an edge: answers every token with one account's thumbprint.
pub(crate) struct Edge {
    port: u16,
    thumbprint: Arc<Mutex<String>>,
    _serving: JoinSet<()>,
}

impl Edge {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let thumbprint = Arc::new(Mutex::new(String::new()));
        let mut serving = JoinSet::new();
        let known = Arc::clone(&thumbprint);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let known = Arc::clone(&known);
                let service = service_fn(move |request: Request<Incoming>| {
                    let token = request.uri().path().strip_prefix("/.well-known/acme-challenge/").unwrap_or_default().to_owned();
                    let answer = format!("{token}.{}", known.lock().unwrap());
                    async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer)))) }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, thumbprint, _serving: serving }
    }

    fn answer_for(&self, thumbprint: &str) {
        *self.thumbprint.lock().unwrap() = thumbprint.to_owned();
    }
}
