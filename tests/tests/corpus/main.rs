//! What we say of a zone and what a CA makes of it: a generated corpus of healthy and broken zones, served by one DNS server, judged by us
//! and by Pebble, which asks the same server and fetches its challenges from an edge that answers.
//!
//! Every name we call ready must be accepted. Every name Pebble refuses must have been predicted, with the code its zone was made for.
//! Pebble looks at no CAA record and knows nothing of our claims; what it would accept all the same is judged by the zone's own expectation.
//!
//! And the product orders for those that we call ready, and for no other, however long it goes on looking.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod edge;
mod orders;
mod zones;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bundles::SealKeyPair;
use dev_dns::{Config, DevDns};
use domains::{Attempt, ClaimKey, Clock, Hostname, IssueError, Issuer, Judgement, Look, OwnershipLookup, SystemClock, TenantId, judge};
use edge::Edge;
use futures_util::{StreamExt, stream};
use issuers::acme::{AcmeAccount, AcmeConfig, AcmeIssuer};
use lookups::{LookupConfig, Lookups};
use system_tests::pebble::{Demands, Pebble};
use zones::{AtTheCa, Case};

/// How many zones there are.
const ZONES: usize = 240;
/// From which the zones follow; another seed makes another corpus.
const SEED: u64 = 20_261_125;
/// How many names are looked at, or ordered, at once.
const AT_ONCE: usize = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_we_call_ready_the_ca_accepts_and_what_it_refuses_we_predicted() {
    let dns = DevDns::start(Config { apexes: vec!["t.edge.test".into(), "edge.test".into()], ..Config::default() }).await.unwrap();
    dns.zone().set("*.t.edge.test", dev_dns::RecordType::A, &[zones::EDGE]).unwrap();
    let cases = zones::corpus(ZONES, SEED);
    for case in &cases {
        case.install(&dns.zone());
    }
    let edge = Edge::start().await;
    let folder = tempfile::tempdir().unwrap();
    let pebble = Pebble::start(folder.path(), dns.dns_addr(), edge.port(), &Demands::default()).await;
    let issuer = Arc::new(open_issuer(&pebble, &edge).await);

    // Two tries of a second each: a silent server costs every question as much.
    let lookups = Lookups::new(LookupConfig { query_timeout: Duration::from_millis(700), ..LookupConfig::on_loopback(dns.dns_addr()) });
    let judged: Vec<(Case, Look, Judgement)> = stream::iter(cases)
        .map(|case| {
            let lookups = lookups.clone();
            async move {
                let look = lookups.look(&case.subject).await;
                assert!(look.queries <= 30, "{}: {} queries", case.subject.hostname, look.queries);
                let judgement = judge(&look, &case.subject);
                (case, look, judgement)
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut codes: BTreeMap<&str, u32> = BTreeMap::new();
    for (case, _, judgement) in &judged {
        let code = judgement.finding.as_ref().map(|finding| finding.code.as_str());
        assert_eq!(code, case.code, "{} ({}): {judgement:?}", case.subject.hostname, case.name);
        *codes.entry(code.unwrap_or("ready")).or_default() += 1;
    }

    let called_ready = |judgement: &Judgement| judgement.proof.is_some() && judgement.may_order();
    let looks = judged.iter().map(|(case, look, _)| (case.subject.clone(), look.clone())).collect();
    let ready_names: BTreeSet<_> =
        judged.iter().filter(|(.., judgement)| called_ready(judgement)).map(|(case, ..)| case.subject.hostname.clone()).collect();
    assert_eq!(orders::of_the_product(looks).await, ready_names, "the product ordered for others than those that we call ready");

    let asked = judged.into_iter().map(|(case, _, judgement)| (case, judgement)).filter(|(case, _)| case.at_the_ca != AtTheCa::NotAsked);
    let outcomes: Vec<(Case, Judgement, Result<(), IssueError>)> = stream::iter(asked)
        .map(|(case, judgement)| {
            let issuer = Arc::clone(&issuer);
            async move {
                let outcome = order(&issuer, &case.subject.hostname).await;
                (case, judgement, outcome)
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let (mut accepted, mut refused, mut ready) = (0, 0, 0);
    for (case, judgement, outcome) in &outcomes {
        let name = format!("{} ({})", case.subject.hostname, case.name);
        let is_ready = called_ready(judgement);
        ready += u32::from(is_ready);
        match outcome {
            Ok(()) => accepted += 1,
            Err(IssueError::ChallengeFailed { detail } | IssueError::DnsFailed { detail }) => {
                refused += 1;
                assert!(!is_ready, "{name} was called ready, and the CA refuses: {detail}");
                assert!(case.code.is_some(), "{name} was refused, and nothing was predicted: {detail}");
            }
            Err(other) => panic!("{name}: {other}"),
        }
        assert_eq!(outcome.is_ok(), case.at_the_ca == AtTheCa::Accepts, "{name}: {outcome:?}");
    }
    println!("{ZONES} zones: {ready} called ready, {accepted} accepted and {refused} refused by Pebble; by code: {codes:?}");
    assert!(ready >= 50 && refused >= 100 && codes.len() >= 30, "the corpus has lost its breadth: {ready}, {refused}, {codes:?}");
    dns.shutdown().await.unwrap();
}

async fn open_issuer(pebble: &Pebble, edge: &Edge) -> AcmeIssuer {
    let seal = SealKeyPair::generate().unwrap();
    let config = AcmeConfig {
        extra_root_pem: Some(std::fs::read_to_string(&pebble.roots).unwrap()),
        request_timeout: Duration::from_secs(30),
        step_budget: Duration::from_secs(90),
        poll_initial: Duration::from_millis(50),
        ..AcmeConfig::new(pebble.directory.clone(), seal.public().clone(), Arc::new(SystemClock))
    };
    let account = AcmeAccount::create(&config).await.unwrap();
    edge.answer_for(account.thumbprint());
    AcmeIssuer::open(config, account.to_json()).unwrap()
}

/// The whole walk of one order. What is only the network's or a nonce's fault is tried again, as the product does.
async fn order(issuer: &AcmeIssuer, hostname: &Hostname) -> Result<(), IssueError> {
    let key = issuer.prepare(&ClaimKey { hostname: hostname.clone(), tenant: TenantId::parse("corpus").unwrap() })?;
    let mut attempt = Attempt {
        started_at: SystemClock.now(),
        csr: key.csr,
        sealed_key: key.sealed_key,
        spki_sha256: key.spki_sha256,
        order_url: None,
        plan: domains::OrderPlan::default(),
    };
    let mut last = None;
    for _ in 0..8 {
        let outcome = async {
            let url = match &attempt.order_url {
                Some(url) => url.clone(),
                None => issuer.order(hostname, &domains::OrderPlan::default()).await?,
            };
            attempt.order_url = Some(url.clone());
            issuer.complete(hostname, &url, &attempt).await
        };
        match outcome.await {
            Ok(_) => return Ok(()),
            Err(again @ (IssueError::Unavailable { .. } | IssueError::NotYet { .. })) => last = Some(again),
            Err(other) => return Err(other),
        }
    }
    Err(last.unwrap())
}
