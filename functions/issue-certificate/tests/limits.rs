//! What becomes of a name when the CA's limits, or the CA itself, say no: the real handler over a local home; only DNS and the CA are played.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use domains::{
    Actor, Answer, Attempt, BucketShape, CaChoice, ChainEnd, ChallengeWay, Claim, ClaimId, ClaimKey, Clock, Delegation, DomainTable,
    Failover, HandClock, Hostname, IssuancePolicy, IssueError, Issued, Issuer, Judgement, Limits, Look, LookSchedule, LookSubject,
    Observed, OrderPlan, OwnershipLookup, OwnershipToken, PreparedKey, ProblemCode, Proof, RenewalWindow, Routing, ServerAnswer, StateName,
    Step, TenantId, Timestamp, ZoneCut, ZoneSettings,
    decide::{self, SUSPENDED_AFTER},
    ledger::{CaLimits, Level},
};
use issue_certificate::IssueCertificate;
use steps::take_nudge;
use storage::local::{LocalConfig, LocalHome};
use tempfile::TempDir;

/// Every name leads where it should, until it is moved: then only its challenges do.
#[derive(Default)]
struct GoodDns {
    is_moved: AtomicBool,
    /// Whether names lead elsewhere, and their challenges, too.
    is_broken: AtomicBool,
    looks: AtomicU32,
}

#[async_trait]
impl OwnershipLookup for GoodDns {
    async fn look(&self, subject: &LookSubject) -> Look {
        self.looks.fetch_add(1, SeqCst);
        let observed = |name: &str, answer: Answer| Observed {
            name: name.to_owned(),
            authority: vec![ServerAnswer { server: "ns1.dns.net (192.0.2.53)".into(), answer: answer.clone() }],
            resolver: answer,
        };
        let hostname = subject.hostname.as_str();
        let (is_moved, is_broken) = (self.is_moved.load(SeqCst) || self.is_broken.load(SeqCst), self.is_broken.load(SeqCst));
        let target = if is_moved { "old.server.net".to_owned() } else { subject.routing_target.clone() };
        let delegation = subject.delegation.as_ref().filter(|_| is_moved && !is_broken);
        Look {
            zone: Ok(ZoneCut { apex: "brand.com".into(), servers: vec!["ns1.dns.net".into()] }),
            cname: observed(hostname, Answer::Records(vec![target.clone()])),
            chain: vec![target],
            chain_end: ChainEnd::Complete,
            a: observed(hostname, if is_moved { Answer::Records(vec!["203.0.113.80".into()]) } else { Answer::NoData }),
            aaaa: observed(hostname, Answer::NoData),
            txt: observed(&subject.txt_name, Answer::NxDomain),
            txt_doubled: None,
            delegation: delegation.map(|expected| observed(&expected.name, Answer::Records(vec![expected.target.clone()]))),
            further: domains::Further::default(),
            queries: 6,
        }
    }
}

/// A CA, or both of them, that answers the next orders with these refusals.
#[derive(Default)]
struct Ca {
    asked: Mutex<Vec<OrderPlan>>,
    prepared: AtomicU32,
    orders: AtomicU32,
    refusals: Mutex<VecDeque<IssueError>>,
    /// How the next orders end.
    ends: Mutex<VecDeque<IssueError>>,
    /// Whether no challenge ever succeeds.
    fails: Mutex<bool>,
}

#[async_trait]
impl Issuer for Ca {
    fn prepare(&self, _: &ClaimKey) -> Result<PreparedKey, IssueError> {
        let number = self.prepared.fetch_add(1, SeqCst);
        Ok(PreparedKey { csr: "csr".into(), sealed_key: "sealed".into(), spki_sha256: format!("key {number}") })
    }

    async fn order(&self, _: &Hostname, plan: &OrderPlan) -> Result<String, IssueError> {
        self.asked.lock().unwrap().push(plan.clone());
        match self.refusals.lock().unwrap().pop_front() {
            Some(refusal) => Err(refusal),
            None => Ok(format!("https://ca/order/{}", self.orders.fetch_add(1, SeqCst) + 1)),
        }
    }

    async fn complete(&self, _: &Hostname, _: &str, _: &Attempt) -> Result<Issued, IssueError> {
        if let Some(error) = self.ends.lock().unwrap().pop_front() {
            return Err(error);
        }
        if *self.fails.lock().unwrap() {
            return Err(IssueError::ChallengeFailed { detail: "connection refused".into() });
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
    dns: Arc<GoodDns>,
    home: LocalHome,
    clock: Arc<HandClock>,
    _folder: TempDir,
}

impl Stand {
    fn new(ca_limits: CaLimits) -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
        let home = LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap();
        let ca = Arc::new(Ca::default());
        let dns = Arc::new(GoodDns::default());
        let issue = IssueCertificate {
            table: Arc::new(home.clone()),
            issuer: ca.clone(),
            lookup: dns.clone(),
            zone: ZoneSettings {
                zone: Hostname::parse_name("edge.saas.net").unwrap(),
                txt_prefix: "_nameplate".into(),
                edge_addresses: Vec::new(),
                issuers: Vec::new(),
            },
            looks: LookSchedule::default(),
            policy: IssuancePolicy::default(),
            documents: Arc::new(home.clone()),
            limits: Arc::new(home.clone()),
            ca_limits,
            second_ca_limits: None,
            has_answer_zone: true,
            clock: clock.clone(),
        };
        Self { issue, ca, dns, home, clock, _folder: folder }
    }

    /// A claim that was proved and routed a moment ago.
    async fn proved(&self, hostname: &str) -> ClaimKey {
        let key = ClaimKey { hostname: Hostname::parse_name(hostname).unwrap(), tenant: TenantId::parse("brand").unwrap() };
        let (id, token) = (ClaimId::parse("k3q9x2m7p4").unwrap(), OwnershipToken::parse("nameplate-verify=h5r2t8w6").unwrap());
        let (looks, now) = (LookSchedule::default(), self.clock.now());
        let registered = decide::register(key.clone(), id, token, None, &looks, now);
        self.home.commit(&registered).await.unwrap();
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
        let change = decide::after_look(&registered.claims[0].item, None, None, &proved, &looks, now, now).unwrap();
        self.home.commit(&change).await.unwrap();
        key
    }

    async fn claim(&self, key: &ClaimKey) -> Claim {
        self.home.claim(key).await.unwrap().unwrap()
    }

    /// Takes the step once, and says what stands in the way then, and until when.
    async fn take(&self, key: &ClaimKey) -> Option<(ProblemCode, Timestamp)> {
        let nudge = self.claim(key).await.nudge();
        take_nudge(&self.issue, &nudge).await.unwrap();
        self.claim(key).await.problem.map(|problem| (problem.code, problem.next_look))
    }

    fn orders(&self) -> u32 {
        self.ca.orders.load(SeqCst)
    }

    fn until(&self, at: Timestamp) {
        self.clock.advance(Duration::try_from(at.duration_since(self.clock.now())).unwrap() + Duration::from_millis(1));
    }

    async fn left(&self, bucket: &str, shape: BucketShape) -> u32 {
        let items = self.home.ledger_items(&[bucket.to_owned()]).await.unwrap();
        Level::of(bucket, items[0].as_deref(), shape, self.clock.now()).unwrap().left
    }
}

/// One order a minute.
fn one_a_minute() -> CaLimits {
    let orders = Some(BucketShape { capacity: 1, refill: Duration::from_secs(60) });
    CaLimits { orders, safety_percent: 100, ..CaLimits::unknown("ca") }
}

#[tokio::test]
async fn a_name_that_waits_for_its_turn_says_so_and_is_ordered_when_it_comes() {
    let stand = Stand::new(one_a_minute());
    let (first, second) = (stand.proved("a.brand.com").await, stand.proved("b.brand.com").await);
    assert_eq!(stand.take(&first).await, None);
    let (code, turn) = stand.take(&second).await.expect("a second order in one minute");
    assert_eq!((code, stand.orders()), (ProblemCode::CaQueued, 1));
    let waiting = stand.claim(&second).await;
    let problem = waiting.problem.as_ref().unwrap();
    assert_eq!((problem.actor, waiting.steps()), (Actor::Nameplate, vec![(Step::IssueCertificate, turn)]));
    assert!(problem.expected.contains("new orders of this account"), "{problem:?}");
    assert_eq!(waiting.issuance().unwrap().failures, 0, "waiting is no failure");

    stand.take(&second).await;
    assert_eq!((stand.claim(&second).await, stand.orders()), (waiting, 1), "an early message does nothing");
    stand.until(turn);
    assert_eq!(stand.take(&second).await, None);
    assert_eq!((stand.claim(&second).await.state.name(), stand.orders()), (StateName::Active, 2));
}

#[tokio::test]
async fn a_wait_that_the_ca_asks_for_holds_for_every_name_and_takes_no_second_token() {
    let limits = CaLimits::lets_encrypt("ca");
    let orders = limits.shown(None).into_iter().find(|(bucket, _)| *bucket == limits.orders_bucket()).unwrap().1;
    let stand = Stand::new(limits.clone());
    let (first, second) = (stand.proved("a.brand.com").await, stand.proved("b.other.com").await);
    let detail = "too many new orders (300) from this account in the last 3h0m0s".to_owned();
    stand.ca.refusals.lock().unwrap().push_back(IssueError::RateLimited { retry_after: Some(Duration::from_secs(300)), detail });
    let (code, again) = stand.take(&first).await.unwrap();
    assert_eq!((code, again.duration_since(stand.clock.now()).as_secs()), (ProblemCode::CaRateLimited, 300));

    let (code, turn) = stand.take(&second).await.expect("the other name did not heed the CA");
    assert_eq!((code, stand.orders()), (ProblemCode::CaRateLimited, 0));
    assert!(turn >= again && stand.claim(&second).await.problem.unwrap().saw.contains("too many new orders"));
    stand.until(turn);
    assert_eq!(stand.take(&first).await, None);
    assert_eq!(stand.take(&second).await, None);
    assert_eq!((stand.orders(), stand.left(&limits.orders_bucket(), orders).await), (2, 239), "the first took its token twice");
}

#[tokio::test]
async fn an_order_that_died_gives_back_what_only_certificates_use_up() {
    let limits = CaLimits::lets_encrypt("ca");
    let stand = Stand::new(limits.clone());
    let key = stand.proved("a.brand.com").await;
    let domain = limits.shown(Some(&key.hostname)).into_iter().find(|(bucket, _)| bucket.contains("domain")).unwrap();
    *stand.ca.fails.lock().unwrap() = true;
    assert_eq!(stand.take(&key).await.unwrap().0, ProblemCode::CaChallengeFailed);
    assert_eq!((stand.orders(), stand.left(&domain.0, domain.1).await), (1, 40));
}

#[tokio::test]
async fn a_name_that_keeps_failing_is_tried_ever_more_rarely_and_then_only_when_somebody_asks() {
    let stand = Stand::new(CaLimits::lets_encrypt("ca"));
    let key = stand.proved("a.brand.com").await;
    *stand.ca.fails.lock().unwrap() = true;
    let (mut waits, mut orders_at) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let before = stand.orders();
        let (code, next) = stand.take(&key).await.unwrap();
        if stand.orders() > before {
            orders_at.push(stand.clock.now());
            waits.push(next.duration_since(stand.clock.now()).as_secs());
        }
        if code == ProblemCode::CaSuspended {
            break;
        }
        stand.until(next);
    }
    assert_eq!((orders_at.len(), stand.orders()), (SUSPENDED_AFTER as usize, SUSPENDED_AFTER));
    assert_eq!(waits[..6], [60, 60, 600, 6_000, 86_400, 86_400], "{waits:?}");
    let in_an_hour = |at: &Timestamp| orders_at.iter().filter(|other| (0..3_600).contains(&other.duration_since(*at).as_secs())).count();
    assert!(orders_at.iter().all(|at| in_an_hour(at) <= 4), "as many as the CA counts as too many");

    stand.clock.advance(Duration::from_secs(40 * 86_400));
    stand.take(&key).await;
    assert_eq!(stand.orders(), SUSPENDED_AFTER, "a suspended name was ordered by itself");
    *stand.ca.fails.lock().unwrap() = false;
    let asked = decide::look_now(&stand.claim(&key).await, stand.clock.now()).expect("a person may ask");
    stand.home.commit(&asked).await.unwrap();
    assert_eq!(stand.take(&key).await, None);
    assert_eq!(stand.claim(&key).await.state.name(), StateName::Active);
}

#[tokio::test]
async fn a_name_that_the_ca_paused_waits_for_the_operator_with_the_page_to_visit() {
    let stand = Stand::new(CaLimits::lets_encrypt("ca"));
    let key = stand.proved("a.brand.com").await;
    let detail = "Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc".to_owned();
    stand.ca.refusals.lock().unwrap().push_back(IssueError::Paused { detail });
    assert_eq!(stand.take(&key).await.unwrap().0, ProblemCode::CaPaused);
    let problem = stand.claim(&key).await.problem.unwrap();
    assert!(problem.actor == Actor::Operator && problem.saw.contains("unpause?jwt=abc"), "{problem:?}");
    stand.clock.advance(Duration::from_secs(40 * 86_400));
    stand.take(&key).await;
    assert_eq!(stand.orders(), 0, "a paused name was ordered by itself");
}

#[tokio::test]
async fn an_order_that_waited_for_its_turn_is_made_as_the_look_before_it_found_the_name() {
    let stand = Stand::new(one_a_minute());
    let (first, second) = (stand.proved("a.brand.com").await, stand.proved("b.brand.com").await);
    stand.take(&first).await;
    let (_, turn) = stand.take(&second).await.expect("a second order in one minute");
    assert_eq!(stand.claim(&second).await.issuance().unwrap().attempt.as_ref().unwrap().plan.challenge, ChallengeWay::Http01);
    stand.dns.is_moved.store(true, SeqCst);
    stand.until(turn);
    assert_eq!(stand.take(&second).await, None);
    let challenges: Vec<_> = stand.ca.asked.lock().unwrap().iter().map(|plan| plan.challenge.kind().as_str()).collect();
    assert_eq!(challenges, ["http-01", "dns-01"], "the CA is sent to a server that is not ours");
    assert_eq!(stand.ca.prepared.load(SeqCst), 2, "with the key that waited");
}

#[tokio::test]
async fn what_only_certificates_use_up_is_given_back_by_an_order_that_brought_none_and_by_no_other() {
    let detail = || "as it happens".to_owned();
    for (error, left) in [
        (IssueError::OrderDead { detail: detail() }, 40),
        (IssueError::ChallengeFailed { detail: detail() }, 40),
        (IssueError::WrongCertificate { detail: detail() }, 39),
        (IssueError::CertificateLost { detail: detail() }, 39),
        (IssueError::CertificateLate { retry_after: None, detail: detail() }, 39),
    ] {
        let limits = CaLimits::lets_encrypt("ca");
        let stand = Stand::new(limits.clone());
        let key = stand.proved("a.brand.com").await;
        let domain = limits.shown(Some(&key.hostname)).into_iter().find(|(bucket, _)| bucket.contains("domain")).unwrap();
        let told = error.to_string();
        stand.ca.ends.lock().unwrap().push_back(error);
        stand.take(&key).await.unwrap();
        assert_eq!((stand.orders(), stand.left(&domain.0, domain.1).await), (1, left), "{told}");
    }
}

#[tokio::test]
async fn one_certificate_that_is_late_keeps_no_other_name_waiting() {
    let stand = Stand::new(CaLimits::unknown("ca"));
    let (late, next) = (stand.proved("a.brand.com").await, stand.proved("b.brand.com").await);
    let wait = Some(Duration::from_secs(600));
    stand.ca.ends.lock().unwrap().push_back(IssueError::CertificateLate { retry_after: wait, detail: "not known yet".into() });
    let (code, again) = stand.take(&late).await.unwrap();
    assert_eq!((code, again.duration_since(stand.clock.now()).as_secs()), (ProblemCode::CaUnavailable, 600), "as the CA asks");
    assert_eq!(stand.take(&next).await, None);
    assert_eq!(stand.claim(&next).await.state.name(), StateName::Active);
    stand.until(again);
    assert_eq!((stand.take(&late).await, stand.orders()), (None, 2), "the order was made again");
}

#[tokio::test]
async fn an_order_given_up_for_the_second_ca_keeps_what_it_took_at_the_first_which_may_have_issued() {
    let limits = CaLimits::lets_encrypt("ca");
    let stand = Stand::with_second(limits.clone(), Failover { unavailable_for: Duration::from_secs(60), ..Failover::default() });
    let key = stand.proved("a.brand.com").await;
    let domain = limits.shown(Some(&key.hostname)).into_iter().find(|(bucket, _)| bucket.contains("domain")).unwrap();
    for left in [39, 39] {
        stand.ca.ends.lock().unwrap().push_back(IssueError::Unavailable { retry_after: None, detail: "503".into() });
        let (code, next) = stand.take(&key).await.unwrap();
        assert_eq!((code, stand.left(&domain.0, domain.1).await), (ProblemCode::CaUnavailable, left));
        stand.until(next);
    }
    assert_eq!(stand.take(&key).await, None);
    assert_eq!(stand.asked(), [CaChoice::First, CaChoice::Second]);
}

impl Stand {
    /// The same with a second CA, which has no limits.
    fn with_second(first: CaLimits, failover: Failover) -> Self {
        let mut stand = Self::new(first);
        stand.issue.policy.failover = Some(failover);
        stand.issue.second_ca_limits = Some(CaLimits::none("second"));
        stand
    }

    fn asked(&self) -> Vec<CaChoice> {
        self.ca.asked.lock().unwrap().iter().map(|plan| plan.ca).collect()
    }

    /// Takes the step whenever it is due until the claim is active or the time is over; how often it was taken.
    async fn work(&self, key: &ClaimKey, time: Duration) -> u32 {
        let end = self.clock.now().checked_add(time).unwrap();
        let mut taken = 0;
        while self.claim(key).await.state.name() != StateName::Active && self.clock.now() < end {
            self.take(key).await;
            taken += 1;
            let next = self.claim(key).await.issuance().unwrap().next_look;
            self.until(next.min(end).max(self.clock.now()));
        }
        taken
    }
}

#[tokio::test]
async fn a_new_name_that_the_first_cas_queue_would_keep_for_days_is_ordered_at_the_second() {
    let one_a_day = CaLimits { orders: Some(BucketShape { capacity: 1, refill: Duration::from_secs(86_400) }), ..one_a_minute() };
    let stand = Stand::with_second(one_a_day, Failover::default());
    let (one, two) = (stand.proved("a.brand.com").await, stand.proved("b.brand.com").await);
    assert_eq!(stand.take(&one).await, None);
    let (code, next) = stand.take(&two).await.unwrap();
    assert_eq!((code, next.duration_since(stand.clock.now()).as_secs()), (ProblemCode::CaQueued, 1), "it waits for the first all the same");
    assert!(stand.claim(&two).await.problem.unwrap().action.contains("second CA"));
    stand.until(next);
    assert_eq!(stand.take(&two).await, None);
    assert_eq!(stand.asked(), [CaChoice::First, CaChoice::Second]);
    assert_eq!(stand.claim(&two).await.state.name(), StateName::Active);
}

#[tokio::test]
async fn while_the_ca_is_paused_no_name_is_looked_at_and_each_is_right_before_its_order() {
    let stand = Stand::new(CaLimits::unknown("ca"));
    let key = stand.proved("a.brand.com").await;
    stand.clock.advance(Duration::from_secs(3600));
    let pause = |hours: u64| {
        let wait = Duration::from_secs(hours * 3600);
        stand.issue.ca_limits.pause(&key.hostname, Some(wait), "the CA is closed", stand.clock.now())
    };
    // Again and again before an attempt, and with the one that was prepared then.
    for round in 0..3 {
        stand.home.apply(&pause(1), stand.clock.now()).await.unwrap();
        let (code, next) = stand.take(&key).await.unwrap();
        assert_eq!((code, stand.dns.looks.load(SeqCst)), (ProblemCode::CaRateLimited, 0), "round {round}");
        let prepared = stand.ca.prepared.load(SeqCst);
        assert_eq!(prepared, 1, "a key is made again for each wait");
        stand.until(next);
        stand.clock.advance(Duration::from_secs(3600));
    }
    assert_eq!(stand.take(&key).await, None);
    assert_eq!((stand.dns.looks.load(SeqCst), stand.orders()), (1, 1), "the order was not looked at right before it");
    assert_eq!(stand.claim(&key).await.state.name(), StateName::Active);

    // A name whose DNS is what it waits for is looked at all the same.
    let moved = stand.proved("b.brand.com").await;
    stand.clock.advance(Duration::from_secs(3600));
    stand.dns.is_broken.store(true, SeqCst);
    let (code, next) = stand.take(&moved).await.unwrap();
    assert!(code.is_of_a_look(), "{code:?}");
    stand.until(next);
    stand.home.apply(&pause(9), stand.clock.now()).await.unwrap();
    let looks = stand.dns.looks.load(SeqCst);
    stand.take(&moved).await.unwrap();
    assert_eq!(stand.dns.looks.load(SeqCst), looks + 1, "its customer is never told whether the record is right now");
}

#[tokio::test]
async fn many_short_waits_for_the_first_ca_are_one_long_one() {
    let failover = Failover { new_name_patience: Duration::from_secs(600), ..Failover::default() };
    let stand = Stand::with_second(CaLimits::unknown("ca"), failover);
    let key = stand.proved("a.brand.com").await;
    let detail = || "too many new orders recently".to_owned();
    for _ in 0..30 {
        let pause = stand.issue.ca_limits.pause(&key.hostname, Some(Duration::from_secs(120)), &detail(), stand.clock.now());
        stand.home.apply(&pause, stand.clock.now()).await.unwrap();
        if stand.work(&key, Duration::from_secs(100)).await == 0 {
            break;
        }
    }
    assert_eq!(stand.asked(), [CaChoice::Second], "the first asked it to wait two minutes, again and again");
    let waited = stand.clock.now().duration_since("2026-11-24T10:00:00Z".parse().unwrap()).as_secs();
    assert!((480..=800).contains(&waited), "{waited} s");
}

#[tokio::test]
async fn a_first_ca_that_is_down_and_names_a_wait_is_waited_for_no_longer_than_one_that_names_none() {
    let stand = Stand::with_second(CaLimits::unknown("ca"), Failover::default());
    let key = stand.proved("a.brand.com").await;
    let down = || IssueError::Unavailable { retry_after: Some(Duration::from_secs(20)), detail: "503".into() };
    for _ in 0..400 {
        // Another name meets the outage as well, so that the pause outlasts this one's wait.
        let pause = stand.issue.ca_limits.pause(&key.hostname, Some(Duration::from_secs(30)), "503", stand.clock.now());
        if stand.asked().len() == 1 {
            stand.home.apply(&pause, stand.clock.now()).await.unwrap();
        }
        if stand.claim(&key).await.issuance().is_some_and(|issuance| issuance.ca == CaChoice::First) {
            *stand.ca.refusals.lock().unwrap() = VecDeque::from([down()]);
        } else {
            stand.ca.refusals.lock().unwrap().clear();
        }
        if stand.work(&key, Duration::from_secs(20)).await == 0 {
            break;
        }
        let told = stand.claim(&key).await.problem.map(|problem| problem.code);
        assert!(matches!(told, None | Some(ProblemCode::CaUnavailable)), "{told:?} hides that the CA is down");
    }
    assert_eq!(stand.asked().last(), Some(&CaChoice::Second));
    let waited = stand.clock.now().duration_since("2026-11-24T10:00:00Z".parse().unwrap()).as_secs();
    assert!((1_800..=2_000).contains(&waited), "{waited} s, not half an hour");
    assert_eq!(stand.claim(&key).await.state.name(), StateName::Active);
}
