//! `GET /v1/limits` through the real handler over a local home.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use domains::{
    Caller, Callers, ClaimKey, Clock, DomainTable, HandClock, Hostname, HostnamePolicy, Judgement, Lane, LedgerMove, Limits, LookSchedule,
    PreparedKey, Proof, Reserved, Role, Routing, TenantId, ZoneSettings, decide, ledger::CaLimits,
};
use http::Request;
use register_domain::{Api, LimitsView, Memory, Pace, SystemEntropy, key_sha256};
use serde_json::{Value, json};
use storage::local::{LocalConfig, LocalHome};
use tempfile::TempDir;

struct Stand {
    api: Api,
    home: LocalHome,
    clock: Arc<HandClock>,
    _folder: TempDir,
}

impl Stand {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
        let home = LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap();
        home.admit(&key_sha256("operator"), &Caller { role: Role::Operator, tenant: None }).await.unwrap();
        for tenant in ["t1", "t2"] {
            let tenant = TenantId::parse(tenant).unwrap();
            home.admit(&key_sha256(tenant.as_str()), &Caller { role: Role::Tenant, tenant: Some(tenant.clone()) }).await.unwrap();
        }
        let zone = Hostname::parse_name("edge.saas.net").unwrap();
        let shared = Arc::new(home.clone());
        let api = Api {
            table: shared.clone(),
            listings: shared.clone(),
            events: shared.clone(),
            documents: shared.clone(),
            callers: shared.clone(),
            limits: shared,
            ca_limits: vec![CaLimits::lets_encrypt("ca")],
            policy: HostnamePolicy::default(),
            zone: ZoneSettings { zone, txt_prefix: "_nameplate".into(), edge_addresses: Vec::new(), issuers: Vec::new() },
            origins: std::collections::BTreeSet::new(),
            looks: LookSchedule::default(),
            pace: Pace::default(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            memory: Memory::default(),
        };
        Self { api, home, clock, _folder: folder }
    }

    async fn ask(&self, key: &str, method: &str, path: &str, body: &str) -> Value {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        let answer = self.api.handle(request.body(Bytes::from(body.to_owned())).unwrap()).await;
        serde_json::from_slice(answer.body()).unwrap()
    }

    async fn limits(&self, key: &str, query: &str) -> LimitsView {
        serde_json::from_value(self.ask(key, "GET", &format!("/v1/limits{query}"), "").await).unwrap()
    }

    /// Takes a claim as far as its attempt, and asks for its turn as issue-certificate does.
    async fn order(&self, hostname: &str, tenant: &str) -> bool {
        let body = json!({ "hostname": hostname, "tenant": tenant }).to_string();
        self.ask("operator", "POST", "/v1/domains", &body).await;
        let key = ClaimKey { hostname: Hostname::parse_name(hostname).unwrap(), tenant: TenantId::parse(tenant).unwrap() };
        let (looks, now) = (LookSchedule::default(), self.clock.now());
        let proved = Judgement {
            proof: Some(Proof::RoutingRecord),
            routing: Routing::OurTarget,
            delegation: domains::Delegation::None,
            txt_values: Vec::new(),
            finding: None,
            obstacle: None,
            forbidden: Vec::new(),
            advice: None,
        };
        let claim = self.home.claim(&key).await.unwrap().unwrap();
        self.home.commit(&decide::after_look(&claim, None, None, &proved, &looks, now, now).unwrap()).await.unwrap();
        let claim = self.home.claim(&key).await.unwrap().unwrap();
        let prepared = PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: format!("{hostname}|{tenant}") };
        let leased =
            decide::lease_issuance(&claim, Some((prepared, domains::OrderPlan::default())), &domains::IssuancePolicy::default(), now)
                .unwrap();
        self.home.commit(&leased).await.unwrap();
        let claim = &leased.claims[0].item;
        let limits = &self.api.ca_limits[0];
        let reservation = limits.reservation(claim, now).unwrap();
        match self.home.apply(&LedgerMove::Reserve(reservation), now).await.unwrap() {
            Reserved::Granted => true,
            Reserved::Wait(wait) => {
                let told = limits.told(&wait.bucket);
                self.home
                    .commit(&decide::await_turn(claim, &wait, &told, &domains::IssuancePolicy::default(), now).unwrap())
                    .await
                    .unwrap();
                false
            }
        }
    }
}

#[tokio::test]
async fn an_operator_sees_what_is_left_who_waits_and_when_they_are_done_and_a_tenant_only_its_own() {
    let stand = Stand::new().await;
    for n in 0..43 {
        stand.clock.advance(Duration::from_secs(1));
        let tenant = if n % 2 == 0 { "t1" } else { "t2" };
        assert_eq!(stand.order(&format!("shop{n}.brand.com"), tenant).await, n < 40, "order {n}");
    }
    assert!(stand.order("www.other.com", "t2").await);

    let all = stand.limits("operator", "").await;
    assert_eq!((all.waiting.len(), all.more), (3, false));
    let named: Vec<_> = all.items[0].limits.iter().map(|limit| (limit.limit.as_str(), limit.level.capacity, limit.level.left)).collect();
    assert_eq!(named, [("certificates for brand.com", 40, 0), ("new orders of this account", 240, 199), ("orders a second", 40, 39)]);
    let domain = &all.items[0].limits[0].level;
    assert_eq!((domain.waiting[0].lane, domain.waiting[0].orders), (Lane::New, 3));
    // The second between the first and the last of the three is refilled time.
    assert_eq!(domain.waiting[0].done_at, all.waiting[2].until, "the level and the last who waits disagree");
    assert!(all.waiting.iter().all(|waits| waits.waits_for.contains("certificates for brand.com") && waits.until > waits.since));

    let own = stand.limits("t2", "").await;
    assert_eq!(own.waiting.iter().map(|waits| waits.hostname.as_str()).collect::<Vec<_>>(), ["shop41.brand.com"]);
    let named: Vec<_> = own.items[0].limits.iter().map(|limit| limit.limit.as_str()).collect();
    assert_eq!(named, ["certificates for brand.com"], "the account's levels are the operator's business");
    let asked = stand.limits("t1", "?hostnames=www.other.com").await;
    assert_eq!(asked.items[0].limits.len(), 2);
    let refused = stand.ask("t1", "GET", "/v1/limits?tenant=t2", "").await;
    assert_eq!(refused["code"], "auth.forbidden");
    let shown = stand.ask("operator", "GET", "/v1/domains/shop42.brand.com", "").await;
    assert_eq!((&shown["problem"]["code"], &shown["problem"]["actor"]), (&json!("ca.queued"), &json!("nameplate")), "{shown}");
}

#[tokio::test]
async fn who_waits_is_found_behind_hundreds_of_names_that_do_not() {
    let stand = Stand::new().await;
    for n in 0..205 {
        stand.clock.advance(Duration::from_secs(1));
        assert!(stand.order(&format!("a{n:03}.other{n}.com"), "t1").await);
    }
    stand.clock.advance(Duration::from_secs(3 * 3_600));
    for n in 0..41 {
        stand.clock.advance(Duration::from_secs(1));
        assert_eq!(stand.order(&format!("shop{n}.brand.com"), "t2").await, n < 40, "order {n}");
    }
    let all = stand.limits("operator", "").await;
    assert_eq!(all.waiting.iter().map(|waits| waits.hostname.as_str()).collect::<Vec<_>>(), ["shop40.brand.com"]);
    assert!(!all.more, "everybody was looked at");
}
