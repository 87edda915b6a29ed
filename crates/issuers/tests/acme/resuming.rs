//! A crash, a lost answer or a slow CA at any point: the same order goes on, and is finalized once.

use std::time::Duration;

use dev_ca::{Answer, Config, DevCa, Endpoint, Fault};
use domains::{Attempt, IssueError, Issuer, OrderPlan};
use issuers::acme::AcmeIssuer;

use crate::world::{World, attempt, config_for, hostname};

const NAME: &str = "shop.brand.test";

fn lost(endpoint: Endpoint) -> Fault {
    Fault::new(endpoint, Answer::Lost)
}

fn usual(endpoint: Endpoint, times: u32) -> Fault {
    Fault::new(endpoint, Answer::Usual).times(times)
}

#[tokio::test]
async fn an_order_that_was_only_made_is_taken_to_its_end_by_another_process() {
    let world = World::start().await;
    let first = world.issuer();
    let (attempt, url) = (attempt(&first, NAME), first.order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
    drop(first);
    world.issuer().complete(&hostname(NAME), &url, &attempt).await.unwrap();
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.validations, counters.finalized_orders), (1, 1, 1));
}

#[tokio::test]
async fn a_challenge_that_was_answered_before_the_crash_is_not_validated_again() {
    let world = World::start().await;
    let first = world.issuer();
    let (attempt, url) = (attempt(&first, NAME), first.order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
    // The CA hears that the challenge is ready; we never hear back.
    world.control().fault(lost(Endpoint::Challenge));
    let error = first.complete(&hostname(NAME), &url, &attempt).await.unwrap_err();
    assert!(matches!(error, IssueError::Unavailable { .. }) && error.keeps_the_order(), "{error:?}");
    drop(first);
    world.issuer().complete(&hostname(NAME), &url, &attempt).await.unwrap();
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.validations, counters.finalized_orders), (1, 1, 1));
}

#[tokio::test]
async fn an_order_whose_finalize_answer_was_lost_is_fetched_and_not_finalized_again() {
    for slow in [Duration::ZERO, Duration::from_millis(150)] {
        let world = World::with(|config| config.finalize_delay = slow).await;
        let first = world.issuer();
        let (attempt, url) = (attempt(&first, NAME), first.order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
        world.control().fault(lost(Endpoint::Finalize));
        // Were it sent again, this is what it would get.
        world.control().fault(Fault::problem(Endpoint::Finalize, "malformed", 400));
        let error = first.complete(&hostname(NAME), &url, &attempt).await.unwrap_err();
        assert!(matches!(error, IssueError::Unavailable { .. }) && error.keeps_the_order(), "{error:?}");
        drop(first);
        world.issuer().complete(&hostname(NAME), &url, &attempt).await.unwrap();
        let counters = world.ca.counters();
        assert_eq!((counters.new_orders, counters.finalized_orders), (1, 1));
        assert_eq!(world.control().faults().len(), 1, "finalize was asked once");
    }
}

#[tokio::test]
async fn a_certificate_that_was_not_fetched_before_the_crash_is_fetched_after_it() {
    let world = World::start().await;
    let first = world.issuer();
    let (attempt, url) = (attempt(&first, NAME), first.order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
    world.control().fault(Fault::new(Endpoint::Certificate, Answer::Unheard));
    let error = first.complete(&hostname(NAME), &url, &attempt).await.unwrap_err();
    assert!(matches!(error, IssueError::Unavailable { .. }), "{error:?}");
    drop(first);
    let second = world.issuer();
    let issued = second.complete(&hostname(NAME), &url, &attempt).await.unwrap();
    let again = second.complete(&hostname(NAME), &url, &attempt).await.unwrap();
    assert_eq!(issued, again, "a valid order gives the same certificate as often as it is asked");
    assert_eq!(world.ca.counters().finalized_orders, 1);
}

#[tokio::test]
async fn an_answer_lost_at_any_request_costs_neither_an_order_nor_a_certificate() {
    const MOST_REQUESTS: u32 = 40;
    let mut requests = 0;
    for (heard, answer) in (0..MOST_REQUESTS).flat_map(|heard| [(heard, Answer::Lost), (heard, Answer::Unheard)]) {
        let world = World::start().await;
        let attempt = attempt(&world.issuer(), NAME);
        if heard > 0 {
            world.control().fault(usual(Endpoint::Any, heard));
        }
        world.control().fault(Fault::new(Endpoint::Any, answer.clone()));
        let url = match world.issuer().order(&hostname(NAME), &OrderPlan::default()).await {
            Ok(url) => url,
            Err(error) => {
                assert!(error.keeps_the_order(), "{answer:?} after {heard}: {error:?}");
                world.issuer().order(&hostname(NAME), &OrderPlan::default()).await.unwrap()
            }
        };
        let mut ended = world.issuer().complete(&hostname(NAME), &url, &attempt).await;
        if let Err(error) = &ended {
            assert!(error.keeps_the_order(), "{answer:?} after {heard}: {error:?}");
            ended = world.issuer().complete(&hostname(NAME), &url, &attempt).await;
        }
        ended.unwrap();
        let counters = world.ca.counters();
        assert_eq!((counters.new_orders, counters.finalized_orders), (1, 1), "{answer:?} after {heard} requests");
        requests = heard;
        if !world.control().faults().is_empty() {
            break;
        }
    }
    assert!((9..MOST_REQUESTS).contains(&requests), "the walk has about a dozen requests, {requests} were tried");
}

#[tokio::test]
async fn a_process_that_ends_at_any_moment_leaves_an_order_that_goes_on() {
    let world = World::with(|config| config.finalize_delay = Duration::from_millis(20)).await;
    let mut certificates = 0;
    for round in 0..25_u64 {
        let name = format!("shop{round}.brand.test");
        let first = world.issuer();
        let attempt = attempt(&first, &name);
        let url = first.order(&hostname(&name), &OrderPlan::default()).await.unwrap();
        // Dropping the future is what a killed process looks like from the CA's side.
        let cut = tokio::time::timeout(Duration::from_millis(3 * round), first.complete(&hostname(&name), &url, &attempt)).await;
        certificates += u64::from(matches!(cut, Ok(Ok(_))));
        drop(first);
        world.issuer().complete(&hostname(&name), &url, &attempt).await.unwrap();
    }
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.finalized_orders), (25, 25));
    assert!(certificates < 25, "some were cut off");
}

#[tokio::test]
async fn a_ca_that_needs_longer_than_our_budget_is_asked_again_and_not_finalized_again() {
    let world = World::with(|config| config.finalize_delay = Duration::from_millis(400)).await;
    let hurried = || world.issuer_with(|config| config.step_budget = Duration::from_millis(100));
    let first = hurried();
    let (attempt, url) = (attempt(&first, NAME), first.order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
    let (mut not_yet, mut issued) = (0, None);
    for _ in 0..200 {
        match hurried().complete(&hostname(NAME), &url, &attempt).await {
            Ok(certificate) => {
                issued = Some(certificate);
                break;
            }
            Err(IssueError::NotYet { .. }) => not_yet += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(issued.is_some() && not_yet > 0, "{not_yet} times not yet");
    assert_eq!(world.ca.counters().finalized_orders, 1);
}

#[tokio::test]
async fn a_stored_request_that_is_not_for_the_stored_key_is_never_sent() {
    let world = World::start().await;
    let issuer = world.issuer();
    let url = issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap();
    let (mut mixed, other) = (attempt(&issuer, NAME), attempt(&issuer, NAME));
    mixed.csr = other.csr;
    for csr in [mixed.csr.clone(), "!".into(), String::new(), "AAAA".into()] {
        mixed.csr = csr;
        let error = issuer.complete(&hostname(NAME), &url, &mixed).await.unwrap_err();
        assert!(matches!(error, IssueError::Refused { .. }), "{error:?}");
    }
    assert_eq!((world.ca.counters().validations, world.ca.counters().finalized_orders), (0, 0));
}

#[tokio::test]
async fn orders_that_a_ca_forgot_or_that_are_at_its_old_place_end_and_its_account_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("ca");
    let world = World::with(|config| config.state = Some(state.clone())).await;
    let issuer = world.issuer();
    let (attempt, url) = (attempt(&issuer, NAME), issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
    let (around, port) = (world.around(), world.ca.address().port());
    let World { ca, dns, seal, account, edge } = world;
    ca.shutdown().await;

    // The same place, but its orders are gone.
    let again = DevCa::start(Config { state: Some(state.clone()), listen: ([127, 0, 0, 1], port).into(), ..around.clone() }).await.unwrap();
    let issuer = AcmeIssuer::open(config_for(&again, &seal), account.to_json()).unwrap();
    let error = issuer.complete(&hostname(NAME), &url, &attempt).await.unwrap_err();
    assert!(matches!(error, IssueError::OrderDead { .. }), "{error:?}");
    again.shutdown().await;

    // Another place, and nobody at the old one.
    let moved = DevCa::start(Config { state: Some(state), ..around }).await.unwrap();
    let issuer = AcmeIssuer::open(config_for(&moved, &seal), account.to_json()).unwrap();
    let error = issuer.complete(&hostname(NAME), &url, &attempt).await.unwrap_err();
    assert!(matches!(error, IssueError::OrderDead { .. }), "{error:?}");
    let url = issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap();
    issuer.complete(&hostname(NAME), &url, &attempt).await.unwrap();
    drop((dns, edge));
}

#[tokio::test]
async fn a_certificate_that_the_ca_does_not_give_out_is_late_at_first_and_then_lost() {
    let world = World::start().await;
    let issuer = world.issuer();
    let (young, url) = (attempt(&issuer, NAME), issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
    let unknown = || Fault::problem(Endpoint::Certificate, "malformed", 404).retry_after("7");
    world.control().fault(unknown());
    let error = issuer.complete(&hostname(NAME), &url, &young).await.unwrap_err();
    let IssueError::CertificateLate { retry_after, .. } = &error else { panic!("{error:?}") };
    assert_eq!((retry_after.map(|wait| wait.as_secs()), error.keeps_the_order(), error.used_a_certificate()), (Some(7), true, false));

    let started_at = young.started_at.checked_sub(Duration::from_secs(2 * 3_600)).unwrap();
    world.control().fault(unknown());
    let error = issuer.complete(&hostname(NAME), &url, &Attempt { started_at, ..young.clone() }).await.unwrap_err();
    assert!(matches!(error, IssueError::CertificateLost { .. }) && error.used_a_certificate(), "{error:?}");
    issuer.complete(&hostname(NAME), &url, &young).await.unwrap();
}

/// With the feature `failpoints`: a real process, ended by `abort`, with the CA outside of it.
#[cfg(feature = "failpoints")]
mod killed {
    use std::process::Command;
    use std::sync::Arc;

    use bundles::SealPublicKey;
    use domains::SystemClock;
    use issuers::acme::AcmeConfig;
    use serde::{Deserialize, Serialize};

    use super::*;

    const ERRAND: &str = "NAMEPLATE_TEST_ERRAND";

    #[derive(Serialize, Deserialize)]
    struct Errand {
        directory_url: String,
        root_pem: String,
        seal_key: SealPublicKey,
        credentials: String,
        url: String,
        attempt: Attempt,
    }

    #[tokio::test]
    async fn a_process_killed_right_after_finalize_was_sent_leaves_one_certificate_to_fetch() {
        let world = World::start().await;
        let (attempt, url) = (attempt(&world.issuer(), NAME), world.issuer().order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
        let errand = Errand {
            directory_url: world.ca.directory_url(),
            root_pem: world.ca.root_pem().to_owned(),
            seal_key: world.seal.public().clone(),
            credentials: world.account.to_json().to_owned(),
            url: url.clone(),
            attempt: attempt.clone(),
        };
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "resuming::killed::the_process_that_is_killed", "--ignored"]);
        child.env(ERRAND, serde_json::to_string(&errand).unwrap()).env("FAILPOINTS", "issue.finalize_sent=return");
        let ended = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
        assert_eq!(ended.status.code(), None, "killed by a signal: {ended:?}");
        assert_eq!(world.ca.counters().finalized_orders, 1, "finalize had been sent");

        world.control().fault(Fault::problem(Endpoint::Finalize, "malformed", 400));
        world.issuer().complete(&hostname(NAME), &url, &attempt).await.unwrap();
        assert_eq!(world.ca.counters().finalized_orders, 1);
        assert_eq!(world.control().faults().len(), 1, "and was not sent again");
    }

    #[tokio::test]
    #[ignore = "the other half of the test above, run by it in a process of its own"]
    async fn the_process_that_is_killed() {
        let _scenario = fail::FailScenario::setup();
        let errand: Errand = serde_json::from_str(&std::env::var(ERRAND).unwrap()).unwrap();
        let config = AcmeConfig {
            extra_root_pem: Some(errand.root_pem),
            ..AcmeConfig::new(errand.directory_url, errand.seal_key, Arc::new(SystemClock))
        };
        let issuer = AcmeIssuer::open(config, &errand.credentials).unwrap();
        issuer.complete(&hostname(NAME), &errand.url, &errand.attempt).await.unwrap();
    }
}
