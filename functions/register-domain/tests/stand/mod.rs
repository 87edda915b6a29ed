//! The API over a local home whose reads are counted.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use domains::{
    Caller, Callers, Change, Claim, ClaimKey, Clock, CommitError, DomainTable, HandClock, Hostname, HostnamePolicy, LookSchedule,
    OriginName, Owner, Role, SiteVersion, StoreError, StoredCertificate, TenantId, ZoneSettings,
};
use http::{Method, Request};
use register_domain::{Api, Memory, Pace, SystemEntropy, key_sha256};
use serde_json::Value;
use storage::local::{LocalConfig, LocalHome};
use tempfile::TempDir;

pub(crate) const OPERATOR: &str = "np_key_of_the_operator";
pub(crate) const TENANT: &str = "np_key_of_brand";
pub(crate) const STARTS_AT: &str = "2026-11-24T10:00:00Z";

/// How often the table was asked for owners, and whether it answers.
#[derive(Default)]
pub(crate) struct Reads {
    pub(crate) owners: AtomicUsize,
    pub(crate) fail_owners: AtomicBool,
}

struct CountedTable {
    home: Arc<LocalHome>,
    reads: Arc<Reads>,
}

#[async_trait]
impl DomainTable for CountedTable {
    async fn claim(&self, key: &ClaimKey) -> Result<Option<Claim>, StoreError> {
        self.home.claim(key).await
    }

    async fn owner(&self, hostname: &Hostname) -> Result<Option<Owner>, StoreError> {
        self.reads.owners.fetch_add(1, Ordering::SeqCst);
        match self.reads.fail_owners.load(Ordering::SeqCst) {
            true => Err(StoreError::Unavailable { detail: "away".into() }),
            false => self.home.owner(hostname).await,
        }
    }

    async fn certificate(&self, hostname: &Hostname, version: SiteVersion) -> Result<Option<StoredCertificate>, StoreError> {
        self.home.certificate(hostname, version).await
    }

    async fn commit(&self, change: &Change) -> Result<(), CommitError> {
        self.home.commit(change).await
    }
}

pub(crate) struct Stand {
    pub(crate) api: Api,
    pub(crate) home: Arc<LocalHome>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) reads: Arc<Reads>,
    _folder: TempDir,
}

impl Stand {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Api)) -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at(STARTS_AT.parse().unwrap()));
        let home = Arc::new(LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap());
        let brand = TenantId::parse("brand").unwrap();
        for (key, role, tenant) in [(OPERATOR, Role::Operator, None), (TENANT, Role::Tenant, Some(brand))] {
            home.admit(&key_sha256(key), &Caller { role, tenant }).await.unwrap();
        }
        let reads = Arc::new(Reads::default());
        let zone = Hostname::parse_name("edge.saas.net").unwrap();
        let mut api = Api {
            table: Arc::new(CountedTable { home: home.clone(), reads: reads.clone() }),
            listings: home.clone(),
            events: home.clone(),
            documents: home.clone(),
            callers: home.clone(),
            limits: home.clone(),
            ca_limits: vec![domains::ledger::CaLimits::lets_encrypt("ca.saas.net")],
            policy: HostnamePolicy { operator_zones: vec![zone.clone()], ..HostnamePolicy::default() },
            zone: ZoneSettings {
                zone,
                txt_prefix: "_nameplate".into(),
                edge_addresses: vec!["192.0.2.10".parse::<IpAddr>().unwrap()],
                issuers: Vec::new(),
            },
            origins: [OriginName::parse("eu").unwrap()].into(),
            looks: LookSchedule::default(),
            pace: Pace::default(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            memory: Memory::default(),
        };
        change(&mut api);
        Self { api, home, clock, reads, _folder: folder }
    }

    /// Makes a request; an empty body is `Null`.
    pub(crate) async fn ask(&self, method: Method, path: &str, key: Option<&str>, body: &str) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = self.api.handle(request.body(Bytes::from(body.to_owned())).unwrap()).await;
        let status = response.status().as_u16();
        let body = response.into_body();
        (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
    }
}
