//! `events/sqs/verify-ownership.json` through the real handler over a local home; only DNS is played.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent};
use domains::{
    Answer, ChainEnd, Claim, ClaimId, ClaimKey, Clock, Documents, DomainTable, HandClock, Hostname, LOOKS_KIND, Listings, Look,
    LookSchedule, LookSubject, Observed, OwnershipLookup, OwnershipToken, ProblemCode, ServerAnswer, StateName, StoredLooks, TenantId,
    ZoneCut, ZoneSettings, decide,
};
use steps::handle_batch;
use storage::local::{LocalConfig, LocalHome};
use tempfile::TempDir;
use verify_ownership::VerifyOwnership;

const NUDGED: &str = include_str!("../../../events/sqs/verify-ownership.json");

/// A zone with at most one record, a CNAME at the hostname. Counts how often it was looked at.
#[derive(Default)]
struct Dns {
    cname: Mutex<Option<String>>,
    looks: Mutex<u32>,
}

#[async_trait]
impl OwnershipLookup for Dns {
    async fn look(&self, subject: &LookSubject) -> Look {
        *self.looks.lock().unwrap() += 1;
        let observed = |name: &str, answer: Answer| Observed {
            name: name.to_owned(),
            authority: vec![ServerAnswer { server: "ns1.dns.net (192.0.2.1)".into(), answer: answer.clone() }],
            resolver: answer,
        };
        let cname = self.cname.lock().unwrap().clone();
        let records = |values: Vec<String>| if values.is_empty() { Answer::NxDomain } else { Answer::Records(values) };
        let addresses = cname.iter().map(|_| subject.edge_addresses[0].to_string()).collect();
        Look {
            zone: Ok(ZoneCut { apex: "client-brand.com".into(), servers: vec!["ns1.dns.net".into()] }),
            cname: observed(subject.hostname.as_str(), records(cname.iter().cloned().collect())),
            chain: cname.into_iter().collect(),
            chain_end: ChainEnd::Complete,
            a: observed(subject.hostname.as_str(), records(addresses)),
            aaaa: observed(subject.hostname.as_str(), records(Vec::new())),
            txt: observed(&subject.txt_name, Answer::NxDomain),
            txt_doubled: None,
            further: domains::Further::default(),
            delegation: None,
            queries: 6,
        }
    }
}

struct Stand {
    verify: VerifyOwnership,
    dns: Arc<Dns>,
    home: LocalHome,
    clock: Arc<HandClock>,
    key: ClaimKey,
    _folder: TempDir,
}

impl Stand {
    /// A home with the event's claim, whose first look is due.
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
        let home = LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap();
        let key = ClaimKey { hostname: Hostname::parse_name("shop.client-brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
        let (claim_id, token) = (ClaimId::parse("k3q9x2m7p4").unwrap(), OwnershipToken::parse("nameplate-verify=h5r2t8w6").unwrap());
        let looks = LookSchedule::default();
        home.commit(&decide::register(key.clone(), claim_id, token, None, &looks, clock.now())).await.unwrap();
        clock.advance(looks.floor);
        let dns = Arc::new(Dns::default());
        let verify = VerifyOwnership {
            table: Arc::new(home.clone()),
            lookup: dns.clone(),
            documents: Arc::new(home.clone()),
            zone: ZoneSettings {
                zone: Hostname::parse_name("edge.saas.net").unwrap(),
                txt_prefix: "_nameplate".into(),
                edge_addresses: vec!["192.0.2.10".parse::<IpAddr>().unwrap()],
                issuers: Vec::new(),
            },
            looks,
            clock: clock.clone(),
        };
        Self { verify, dns, home, clock, key, _folder: folder }
    }

    async fn deliver(&self, event: SqsEvent) -> SqsBatchResponse {
        handle_batch(&self.verify, event).await
    }

    async fn claim(&self) -> Claim {
        self.home.claim(&self.key).await.unwrap().unwrap()
    }

    fn looks(&self) -> u32 {
        *self.dns.looks.lock().unwrap()
    }
}

fn event() -> SqsEvent {
    serde_json::from_str(NUDGED).unwrap()
}

fn failed(response: &SqsBatchResponse) -> Vec<&str> {
    response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_str()).collect()
}

#[tokio::test]
async fn the_record_in_dns_makes_the_tenant_owner_and_repeats_change_nothing() {
    let stand = Stand::new().await;
    *stand.dns.cname.lock().unwrap() = Some("k3q9x2m7p4.t.edge.saas.net".into());
    assert!(failed(&stand.deliver(event()).await).is_empty());

    let claim = stand.claim().await;
    assert_eq!((claim.state.name(), &claim.problem), (StateName::Issuing, &None));
    let owner = stand.home.owner(&stand.key.hostname).await.unwrap().unwrap();
    assert_eq!(owner.tenant.as_ref(), Some(&stand.key.tenant));
    let history = stand.home.history(&stand.key, 0, 10).await.unwrap();
    assert_eq!(history.iter().map(|entry| entry.event.as_str()).collect::<Vec<_>>(), ["claim_registered", "ownership_proved"]);

    assert!(failed(&stand.deliver(event()).await).is_empty());
    assert_eq!((stand.claim().await, stand.looks()), (claim, 1));
}

#[tokio::test]
async fn what_a_look_found_is_kept_beside_the_claim_and_means_the_same_when_judged_again() {
    let stand = Stand::new().await;
    assert!(failed(&stand.deliver(event()).await).is_empty());
    let claim = stand.claim().await;
    let kept = async || {
        let document = stand.home.document(LOOKS_KIND, claim.claim_id.as_str()).await.unwrap().unwrap();
        (document.version, serde_json::from_str::<StoredLooks>(&document.body).unwrap().looks)
    };
    let (version, looks) = kept().await;
    assert_eq!(looks.len(), 1);
    let judged = looks[0].judge().finding.unwrap();
    let problem = claim.problem.unwrap();
    assert_eq!((judged.code, judged.action), (problem.code, problem.action));

    // The same again is not written again.
    stand.clock.advance(LookSchedule::default().floor * 2);
    assert!(failed(&stand.deliver(event()).await).is_empty());
    assert_eq!((stand.looks(), kept().await), (2, (version, looks)));
}

#[tokio::test]
async fn a_missing_record_is_a_problem_with_a_next_look_and_not_a_failed_message() {
    let stand = Stand::new().await;
    assert!(failed(&stand.deliver(event()).await).is_empty());
    let claim = stand.claim().await;
    assert_eq!(claim.state.name(), StateName::AwaitingProof);
    let problem = claim.problem.unwrap();
    assert_eq!(problem.code, ProblemCode::DnsNameMissing);
    assert!(problem.action.contains("k3q9x2m7p4.t.edge.saas.net"), "{}", problem.action);
    assert!(problem.next_look >= stand.clock.now() && stand.home.owner(&stand.key.hostname).await.unwrap().is_none());
}

#[tokio::test]
async fn a_message_that_does_not_parse_is_failed_alone() {
    let stand = Stand::new().await;
    let mut event = event();
    let mut broken = event.records[0].clone();
    broken.message_id = Some("broken".into());
    broken.body = Some("{\"hostname\":\"shop.client-brand.com\"}".into());
    event.records.insert(0, broken);
    assert_eq!(failed(&stand.deliver(event).await), ["broken"]);
    assert_eq!(stand.looks(), 1, "the other message of the batch was taken");
}

#[tokio::test]
async fn a_home_that_cannot_be_asked_fails_the_message_so_that_it_comes_again() {
    let stand = Stand::new().await;
    stand.home.close().await.unwrap();
    assert_eq!(failed(&stand.deliver(event()).await), ["9f1d2c3b-4a5e-4f60-8b7a-1c2d3e4f5a6b"]);
    assert_eq!(stand.looks(), 0, "nobody's DNS is asked for a claim that could not be read");
}
