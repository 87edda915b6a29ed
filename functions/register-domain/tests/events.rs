//! `events/apigateway` through the real handler over a local home.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{net::IpAddr, sync::Arc};

use domains::{
    Caller, Callers, ClaimKey, Clock, DomainTable, HandClock, Hostname, HostnamePolicy, Listings, LookSchedule, OriginName, Role,
    StateName, TenantId, ZoneSettings,
};
use lambda_http::{Body, Request, Response, request};
use register_domain::{Api, Memory, Pace, SystemEntropy, answer, key_sha256};
use serde_json::Value;
use storage::local::{LocalConfig, LocalHome};
use tempfile::TempDir;

const CREATE: &str = include_str!("../../../events/apigateway/create-domain.json");

struct Stand {
    api: Api,
    home: Arc<LocalHome>,
    _folder: TempDir,
}

impl Stand {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
        let home = Arc::new(LocalHome::open(LocalConfig::new(folder.path(), clock.clone())).unwrap());
        let operator = Caller { role: Role::Operator, tenant: None };
        home.admit(&key_sha256("np_sample_key_of_the_operator"), &operator).await.unwrap();
        let zone = Hostname::parse_name("edge.saas.net").unwrap();
        let api = Api {
            table: home.clone(),
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
            clock,
            entropy: Arc::new(SystemEntropy),
            memory: Memory::default(),
        };
        Self { api, home, _folder: folder }
    }

    async fn send(&self, event: &Value) -> (u16, Value, Response<Body>) {
        let request: Request = request::from_str(&event.to_string()).unwrap();
        let response = answer(&self.api, request).await;
        // Text and not base64, so that API Gateway hands out JSON.
        let Body::Text(text) = response.body() else { panic!("{:?} is no text", response.body()) };
        (response.status().as_u16(), serde_json::from_str(text).unwrap(), response)
    }

    async fn claims(&self) -> usize {
        self.home.claims(None, None, None, 10).await.unwrap().items.len()
    }
}

fn event() -> Value {
    serde_json::from_str(CREATE).unwrap()
}

#[tokio::test]
async fn a_domain_is_registered_and_its_record_told_at_once() {
    let stand = Stand::new().await;
    let (status, view, response) = stand.send(&event()).await;
    assert_eq!(status, 201, "{view}");
    assert_eq!(response.headers()["location"], "/v1/domains/shop.client-brand.com?tenant=brand");
    assert_eq!(response.headers()["content-type"], "application/json");

    let key = ClaimKey { hostname: Hostname::parse_name("shop.client-brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
    let claim = stand.home.claim(&key).await.unwrap().unwrap();
    assert_eq!(claim.state.name(), StateName::AwaitingProof);
    let record = &view["records"][0];
    assert_eq!(record["type"], "CNAME");
    assert_eq!(record["name"], "shop.client-brand.com");
    assert_eq!(record["value"], format!("{}.t.edge.saas.net", claim.claim_id));
    assert_eq!(stand.home.owner(&key.hostname).await.unwrap(), None, "a claim without proof owns nothing");
    let history = stand.home.history(&key, 0, 10).await.unwrap();
    assert_eq!(history.iter().map(|entry| entry.event.as_str()).collect::<Vec<_>>(), ["claim_registered"]);
}

#[tokio::test]
async fn the_same_event_twice_makes_one_claim_with_one_target() {
    let stand = Stand::new().await;
    let (first_status, first, _) = stand.send(&event()).await;
    let (second_status, second, _) = stand.send(&event()).await;
    assert_eq!((first_status, second_status), (201, 200));
    assert_eq!(first["records"], second["records"]);
    assert_eq!(stand.claims().await, 1);
}

#[tokio::test]
async fn a_body_in_base64_is_the_same_body() {
    let stand = Stand::new().await;
    let mut event = event();
    event["isBase64Encoded"] = true.into();
    event["body"] = "eyJob3N0bmFtZSI6InNob3AuY2xpZW50LWJyYW5kLmNvbSIsInRlbmFudCI6ImJyYW5kIn0=".into();
    let (status, view, _) = stand.send(&event).await;
    assert_eq!((status, view["hostname"].as_str()), (201, Some("shop.client-brand.com")), "{view}");
}

#[tokio::test]
async fn a_stranger_and_a_body_that_does_not_read_write_nothing() {
    let stand = Stand::new().await;
    let mut unkeyed = event();
    unkeyed["headers"].as_object_mut().unwrap().remove("authorization");
    let mut unreadable = event();
    unreadable["body"] = "{\"hostname\":".into();
    let mut empty = event();
    empty.as_object_mut().unwrap().remove("body");
    let mut ours = event();
    ours["body"] = "{\"hostname\":\"shop.edge.saas.net\",\"tenant\":\"brand\"}".into();
    for (event, status, code) in [
        (unkeyed, 401, "auth.missing"),
        (unreadable, 400, "request.invalid_body"),
        (empty, 400, "request.invalid_body"),
        (ours, 422, "hostname.operator_zone"),
    ] {
        let (seen, problem, response) = stand.send(&event).await;
        assert_eq!((seen, problem["code"].as_str()), (status, Some(code)), "{problem}");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
    assert_eq!(stand.claims().await, 0);
}

#[tokio::test]
async fn a_wildcard_asks_for_its_delegation_now_and_for_its_route_once_it_is_served() {
    let stand = Stand::new().await;
    let mut wildcard = event();
    wildcard["body"] = "{\"hostname\":\"*.sandbox.edge.saas.net\",\"tenant\":\"operator\"}".into();
    let (status, view, _) = stand.send(&wildcard).await;
    assert_eq!((status, &view["path"]), (201, &serde_json::json!("delegation")), "{view}");
    let records: Vec<_> = view["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| {
            let text = |key: &str| record[key].as_str().unwrap().to_owned();
            (record["order"].as_u64().unwrap(), text("due"), text("purpose"), text("name"))
        })
        .collect();
    let wanted = |order, due: &str, purpose: &str, name: &str| (order, due.to_owned(), purpose.to_owned(), name.to_owned());
    assert_eq!(
        records,
        [
            wanted(1, "now", "proof", "_acme-challenge.sandbox.edge.saas.net"),
            wanted(2, "once_served", "routing", "*.sandbox.edge.saas.net"),
        ]
    );
    let key = ClaimKey { hostname: Hostname::parse_name("*.sandbox.edge.saas.net").unwrap(), tenant: TenantId::parse("operator").unwrap() };
    let claim = stand.home.claim(&key).await.unwrap().unwrap();
    assert_eq!(view["records"][0]["value"], format!("{}.acme.edge.saas.net", claim.claim_id));
}
