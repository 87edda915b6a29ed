//! dns-01 by delegation: the answers stand in a zone of ours, where the hostname's `_acme-challenge` leads.

use std::sync::Arc;

use async_trait::async_trait;
use dev_ca::{Endpoint, Fault};
use dev_dns::{RecordType, Zone};
use domains::{AnswerZone, Attempt, ChallengeWay, IssueError, Issued, Issuer, OrderPlan, StoreError};
use issuers::acme::AcmeIssuer;

use crate::world::{World, attempt, hostname};

const ANSWERS: &str = "c1.acme.edge.test";

/// The answer zone, as records of the tests' DNS server.
struct Answers(Zone);

impl Answers {
    fn values(&self) -> Vec<String> {
        let records = self.0.list_name(ANSWERS).unwrap();
        records.into_iter().filter(|record| record.record_type == RecordType::Txt).flat_map(|record| record.data).collect()
    }
}

#[async_trait]
impl AnswerZone for Answers {
    async fn present(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.0.add(name, RecordType::Txt, &[value]).map_err(|error| StoreError::Defect { detail: error.to_string() })?;
        Ok(())
    }

    async fn withdraw(&self, name: &str, value: &str) -> Result<(), StoreError> {
        assert_eq!(name, ANSWERS);
        let left: Vec<String> = self.values().into_iter().filter(|known| known.trim_matches('"') != value).collect();
        self.0.unset(name, Some(RecordType::Txt)).unwrap();
        if !left.is_empty() {
            self.0.set(name, RecordType::Txt, &left.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
        }
        Ok(())
    }
}

fn plan() -> OrderPlan {
    OrderPlan { challenge: ChallengeWay::Dns01 { name: ANSWERS.into() }, ..OrderPlan::default() }
}

fn issuer(world: &World) -> AcmeIssuer {
    world.issuer_with(|config| config.answers = Some(Arc::new(Answers(world.dns.zone()))))
}

/// A world whose `brand.test` delegates its challenges, and those of its wildcard with them.
async fn delegated() -> (World, Answers) {
    let world = World::start().await;
    world.dns.zone().set("_acme-challenge.brand.test", RecordType::Cname, &[ANSWERS]).unwrap();
    let answers = Answers(world.dns.zone());
    (world, answers)
}

async fn ordered(issuer: &AcmeIssuer, name: &str) -> (Attempt, String) {
    let url = issuer.order(&hostname(name), &plan()).await.unwrap();
    (Attempt { plan: plan(), order_url: Some(url.clone()), ..attempt(issuer, name) }, url)
}

async fn issue(issuer: &AcmeIssuer, name: &str) -> Result<Issued, IssueError> {
    let (attempt, url) = ordered(issuer, name).await;
    issuer.complete(&hostname(name), &url, &attempt).await
}

#[tokio::test]
async fn a_wildcard_and_a_name_that_leads_elsewhere_get_certificates_and_nothing_stays_in_the_zone() {
    let (world, answers) = delegated().await;
    // An answer of another challenge stands there, and stays.
    answers.present(ANSWERS, "somebody-else").await.unwrap();
    let issuer = issuer(&world);
    // The edge answers for nobody: only dns-01 can bring these.
    world.answer_wrongly();
    let (apex, wildcard) = tokio::join!(issue(&issuer, "brand.test"), issue(&issuer, "*.brand.test"));
    assert!(apex.unwrap().chain.contains("BEGIN CERTIFICATE") && wildcard.unwrap().chain.contains("BEGIN CERTIFICATE"));
    assert_eq!(world.ca.counters().validations, 2);
    let left: Vec<String> = answers.values().iter().map(|value| value.trim_matches('"').to_owned()).collect();
    assert_eq!(left, ["somebody-else"]);
}

#[tokio::test]
async fn answers_that_a_crash_left_behind_are_used_again_and_taken_away_by_whoever_goes_on() {
    let (world, answers) = delegated().await;
    let first = issuer(&world);
    let (attempt, url) = ordered(&first, "*.brand.test").await;
    // The CA fails just after the answers are there; the process ends with them in the zone.
    world.control().fault(Fault::page(Endpoint::Challenge, 503, "<html>busy</html>"));
    let error = first.complete(&hostname("*.brand.test"), &url, &attempt).await.unwrap_err();
    assert!(matches!(error, IssueError::Unavailable { .. }), "{error:?}");
    assert_eq!(answers.values().len(), 1);
    drop(first);

    issuer(&world).complete(&hostname("*.brand.test"), &url, &attempt).await.unwrap();
    assert!(answers.values().is_empty());
    assert_eq!(world.ca.counters().new_orders, 1);
}

#[tokio::test]
async fn a_name_that_is_not_delegated_fails_by_its_dns_and_leaves_nothing_behind() {
    let world = World::start().await;
    let answers = Answers(world.dns.zone());
    let error = issue(&issuer(&world), "shop.brand.test").await.unwrap_err();
    assert!(matches!(error, IssueError::DnsFailed { .. } | IssueError::ChallengeFailed { .. }), "{error:?}");
    assert!(answers.values().is_empty());
}

#[tokio::test]
async fn without_an_answer_zone_no_order_is_burnt() {
    let world = World::start().await;
    let error = world.issuer().order(&hostname("*.brand.test"), &plan()).await.unwrap_err();
    assert!(matches!(&error, IssueError::Refused { detail } if detail.contains("answer zone")), "{error:?}");
    assert_eq!(world.ca.counters().new_orders, 0);
}
