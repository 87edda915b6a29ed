//! What the product orders for names whose DNS was looked at before: the real steps over a local home; the looks are told again as they were,
//! and the CA only counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use domains::{
    Attempt, CaChoice, ClaimKey, Clock, DomainTable, HandClock, Hostname, IssuancePolicy, IssueError, Issued, Issuer, Look, LookSchedule,
    LookSubject, Nudge, OrderPlan, OwnershipLookup, PreparedKey, RenewalWindow, Step, TenantId, Timestamp, ZoneSettings, decide,
    ledger::CaLimits,
};
use issue_certificate::IssueCertificate;
use steps::{StepHandler, take_nudge};
use storage::local::{LocalConfig, LocalHome};
use verify_ownership::VerifyOwnership;

/// How often each name is taken up, and how long lies between; more than the longest wait between two looks.
const ROUNDS: u32 = 12;
const ROUND: Duration = Duration::from_secs(2 * 3_600);

/// The looks as they were made.
struct Looked(BTreeMap<Hostname, Look>);

#[async_trait]
impl OwnershipLookup for Looked {
    async fn look(&self, subject: &LookSubject) -> Look {
        self.0[&subject.hostname].clone()
    }
}

/// A CA that writes down for which names it is asked, and gives each its certificate.
struct Counting {
    clock: Arc<HandClock>,
    asked: Mutex<BTreeSet<Hostname>>,
}

#[async_trait]
impl Issuer for Counting {
    fn prepare(&self, _: &ClaimKey) -> Result<PreparedKey, IssueError> {
        Ok(PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: "ab".repeat(32) })
    }

    async fn order(&self, hostname: &Hostname, _: &OrderPlan) -> Result<String, IssueError> {
        self.asked.lock().unwrap().insert(hostname.clone());
        Ok(format!("https://ca.test/order/{hostname}"))
    }

    async fn complete(&self, _: &Hostname, _: &str, _: &Attempt) -> Result<Issued, IssueError> {
        let now = self.clock.now();
        let not_after = now.checked_add(Duration::from_secs(90 * 86_400)).unwrap();
        Ok(Issued { chain: "chain".into(), serial: "03a1".into(), not_before: now, not_after, ari_id: None })
    }

    async fn renewal_window(&self, _: CaChoice, _: &str) -> Result<Option<RenewalWindow>, IssueError> {
        Ok(None)
    }
}

/// The names that an order was made for within a day, each taken up over and over.
pub(crate) async fn of_the_product(looks: Vec<(LookSubject, Look)>) -> BTreeSet<Hostname> {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse::<Timestamp>().unwrap()));
    let home = Arc::new(LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap());
    let schedule = LookSchedule::default();
    let first = &looks[0].0;
    let zone = ZoneSettings {
        zone: Hostname::parse_name(first.targets_zone.strip_prefix("t.").unwrap()).unwrap(),
        txt_prefix: "_nameplate".into(),
        edge_addresses: first.edge_addresses.clone(),
        issuers: first.issuers.clone(),
    };
    let mut keys = Vec::new();
    for (subject, _) in &looks {
        let key = ClaimKey { hostname: subject.hostname.clone(), tenant: TenantId::parse("corpus").unwrap() };
        let registered = decide::register(key.clone(), subject.claim_id.clone(), subject.token.clone(), None, &schedule, clock.now());
        home.commit(&registered).await.unwrap();
        keys.push(key);
    }
    let lookup = Arc::new(Looked(looks.into_iter().map(|(subject, look)| (subject.hostname, look)).collect()));
    let ca = Arc::new(Counting { clock: clock.clone(), asked: Mutex::default() });
    let verify = VerifyOwnership {
        table: home.clone(),
        lookup: lookup.clone(),
        documents: home.clone(),
        zone: zone.clone(),
        looks: schedule,
        clock: clock.clone(),
    };
    let issue = IssueCertificate {
        table: home.clone(),
        issuer: ca.clone(),
        lookup,
        documents: home.clone(),
        zone,
        looks: schedule,
        policy: IssuancePolicy::default(),
        limits: home.clone(),
        ca_limits: CaLimits::none("ca.test"),
        second_ca_limits: None,
        has_answer_zone: false,
        clock: clock.clone(),
    };
    for _ in 0..ROUNDS {
        clock.advance(ROUND);
        for key in &keys {
            for (step, handler) in [(Step::VerifyOwnership, &verify as &dyn StepHandler), (Step::IssueCertificate, &issue)] {
                let claim = home.claim(key).await.unwrap().unwrap();
                if claim.is_due(step, clock.now()) {
                    let nudge = Nudge { hostname: key.hostname.clone(), tenant: key.tenant.clone(), version: claim.version };
                    take_nudge(handler, &nudge).await.unwrap();
                }
            }
        }
    }
    ca.asked.lock().unwrap().clone()
}
