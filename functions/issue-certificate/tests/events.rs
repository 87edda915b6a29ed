//! `events/sqs/issue-certificate.json` through the real handler over a local home; only DNS and the CA are played.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use domains::{
    Answer, Attempt, CaChoice, ChainEnd, Claim, ClaimId, ClaimKey, Clock, Delegation, DomainTable, HandClock, Hostname, IssuancePolicy,
    IssueError, Issued, Issuer, Judgement, Look, LookSchedule, LookSubject, Observed, OrderPlan, OwnershipLookup, OwnershipToken,
    PreparedKey, ProblemCode, Proof, RenewalWindow, Routing, SiteVersion, State, StateName, TenantId, ZoneSettings, decide,
    ledger::CaLimits,
};
use issue_certificate::IssueCertificate;
use steps::handle_batch;
use storage::local::{LocalConfig, LocalHome};
use tempfile::TempDir;

const NUDGED: &str = include_str!("../../../events/sqs/issue-certificate.json");

/// A zone that cannot be reached; an order so soon after the proof must not need it.
#[derive(Default)]
struct NoDns {
    looks: AtomicU32,
}

#[async_trait]
impl OwnershipLookup for NoDns {
    async fn look(&self, subject: &LookSubject) -> Look {
        self.looks.fetch_add(1, SeqCst);
        let silent = Answer::Failed(domains::Failure::Unreachable);
        let observed = |name: &str| Observed { name: name.to_owned(), authority: Vec::new(), resolver: silent.clone() };
        Look {
            zone: Err(silent.clone()),
            cname: observed(subject.hostname.as_str()),
            chain: Vec::new(),
            chain_end: ChainEnd::Unknown,
            a: observed(subject.hostname.as_str()),
            aaaa: observed(subject.hostname.as_str()),
            txt: observed(&subject.txt_name),
            txt_doubled: None,
            further: domains::Further::default(),
            delegation: None,
            queries: 2,
        }
    }
}

/// A CA that counts its orders and, when asked to, fails after one was made.
#[derive(Default)]
struct Ca {
    orders: AtomicU32,
    completed: Mutex<Vec<String>>,
    is_down: Mutex<bool>,
}

#[async_trait]
impl Issuer for Ca {
    fn prepare(&self, _: &ClaimKey) -> Result<PreparedKey, IssueError> {
        Ok(PreparedKey { csr: "MIIBVjCB/QIBADAAMFkw".into(), sealed_key: "sealed".into(), spki_sha256: "ab".repeat(32) })
    }

    async fn order(&self, _: &Hostname, _: &OrderPlan) -> Result<String, IssueError> {
        Ok(format!("https://ca.saas.net/order/{}", self.orders.fetch_add(1, SeqCst) + 1))
    }

    async fn complete(&self, _: &Hostname, order_url: &str, _: &Attempt) -> Result<Issued, IssueError> {
        self.completed.lock().unwrap().push(order_url.to_owned());
        if *self.is_down.lock().unwrap() {
            return Err(IssueError::Unavailable { retry_after: None, detail: "503".into() });
        }
        Ok(Issued {
            chain: "-----BEGIN CERTIFICATE-----".into(),
            serial: "03a1".into(),
            not_before: "2026-11-24T09:00:00Z".parse().unwrap(),
            not_after: "2027-02-22T09:00:00Z".parse().unwrap(),
            ari_id: None,
        })
    }

    async fn renewal_window(&self, _: CaChoice, _: &str) -> Result<Option<RenewalWindow>, IssueError> {
        Ok(None)
    }
}

struct Stand {
    issue: IssueCertificate,
    ca: Arc<Ca>,
    dns: Arc<NoDns>,
    home: LocalHome,
    clock: Arc<HandClock>,
    key: ClaimKey,
    _folder: TempDir,
}

impl Stand {
    /// A home with the event's claim, proved and routed a moment ago.
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
        let home = LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap();
        let key = ClaimKey { hostname: Hostname::parse_name("shop.client-brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
        let (claim_id, token) = (ClaimId::parse("k3q9x2m7p4").unwrap(), OwnershipToken::parse("nameplate-verify=h5r2t8w6").unwrap());
        let (looks, now) = (LookSchedule::default(), clock.now());
        let registered = decide::register(key.clone(), claim_id, token, None, &looks, now);
        home.commit(&registered).await.unwrap();
        let proved = Judgement {
            proof: Some(Proof::RoutingRecord),
            routing: Routing::OurTarget,
            delegation: Delegation::None,
            txt_values: Vec::new(),
            finding: None,
            obstacle: None,
            forbidden: Vec::new(),
            advice: None,
        };
        let claim = &registered.claims[0].item;
        home.commit(&decide::after_look(claim, None, None, &proved, &looks, now, now).unwrap()).await.unwrap();

        let (ca, dns) = (Arc::new(Ca::default()), Arc::new(NoDns::default()));
        let issue = IssueCertificate {
            table: Arc::new(home.clone()),
            issuer: ca.clone(),
            lookup: dns.clone(),
            documents: Arc::new(home.clone()),
            zone: ZoneSettings {
                zone: Hostname::parse_name("edge.saas.net").unwrap(),
                txt_prefix: "_nameplate".into(),
                edge_addresses: vec!["192.0.2.10".parse::<IpAddr>().unwrap()],
                issuers: Vec::new(),
            },
            looks,
            policy: IssuancePolicy::default(),
            limits: Arc::new(home.clone()),
            ca_limits: CaLimits::lets_encrypt("ca.saas.net"),
            second_ca_limits: None,
            has_answer_zone: true,
            clock: clock.clone(),
        };
        Self { issue, ca, dns, home, clock, key, _folder: folder }
    }

    async fn deliver(&self, event: SqsEvent) -> SqsBatchResponse {
        handle_batch(&self.issue, event).await
    }

    async fn claim(&self) -> Claim {
        self.home.claim(&self.key).await.unwrap().unwrap()
    }

    fn orders(&self) -> u32 {
        self.ca.orders.load(SeqCst)
    }
}

fn event() -> SqsEvent {
    serde_json::from_str(NUDGED).unwrap()
}

fn failed(response: &SqsBatchResponse) -> Vec<&str> {
    response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect()
}

#[tokio::test]
async fn one_certificate_is_recorded_with_its_sealed_key_and_a_repeat_orders_none() {
    let stand = Stand::new().await;
    assert!(failed(&stand.deliver(event()).await).is_empty());
    let claim = stand.claim().await;
    let State::Active { certificate, .. } = &claim.state else { panic!("{:?}", claim.state) };
    assert_eq!((certificate.version, certificate.serial.as_str()), (SiteVersion(2), "03a1"));
    let stored = stand.home.certificate(&stand.key.hostname, certificate.version).await.unwrap().unwrap();
    assert_eq!((stored.sealed_key.as_str(), stored.tenant.as_str()), ("sealed", "brand"));

    assert!(failed(&stand.deliver(event()).await).is_empty());
    assert_eq!((stand.orders(), stand.claim().await), (1, claim));
    assert_eq!(stand.dns.looks.load(SeqCst), 0, "DNS was looked at a moment ago");
}

#[tokio::test]
async fn an_order_that_was_made_before_the_ca_went_down_is_the_one_that_is_finished() {
    let stand = Stand::new().await;
    *stand.ca.is_down.lock().unwrap() = true;
    assert!(failed(&stand.deliver(event()).await).is_empty(), "the next look is recorded, so the message is done");
    let waiting = stand.claim().await;
    assert_eq!(waiting.state.name(), StateName::Issuing);
    assert_eq!(waiting.problem.as_ref().map(|problem| problem.code), Some(ProblemCode::CaUnavailable));

    assert!(failed(&stand.deliver(event()).await).is_empty());
    assert_eq!(stand.ca.completed.lock().unwrap().len(), 1, "a repeat before its time asks the CA nothing");

    *stand.ca.is_down.lock().unwrap() = false;
    stand.clock.advance(Duration::from_secs(60));
    assert!(failed(&stand.deliver(event()).await).is_empty());
    let active = stand.claim().await;
    assert_eq!((active.state.name(), active.problem), (StateName::Active, None));
    assert_eq!(*stand.ca.completed.lock().unwrap(), ["https://ca.saas.net/order/1", "https://ca.saas.net/order/1"]);
    assert_eq!(stand.orders(), 1);
}

#[tokio::test]
async fn a_look_that_is_not_fresh_any_more_is_repeated_and_without_an_answer_nothing_is_ordered() {
    let stand = Stand::new().await;
    stand.clock.advance(Duration::from_secs(3600));
    assert!(failed(&stand.deliver(event()).await).is_empty());
    let claim = stand.claim().await;
    assert_eq!((claim.state.name(), stand.orders(), stand.dns.looks.load(SeqCst)), (StateName::Issuing, 0, 1));
    assert!(claim.problem.is_some() && claim.next_look() > Some(stand.clock.now()), "{claim:?}");
}

#[tokio::test]
async fn a_message_that_does_not_parse_is_failed_alone() {
    let stand = Stand::new().await;
    let mut event = event();
    let mut broken = event.records[0].clone();
    broken.message_id = Some("broken".into());
    broken.body = None;
    event.records.push(broken);
    assert_eq!(failed(&stand.deliver(event).await), ["broken"]);
    assert_eq!(stand.claim().await.state.name(), StateName::Active);
}
