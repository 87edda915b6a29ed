//! What the CA says no to, and whose move it is then.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dev_ca::{Answer, Endpoint, Fault};
use dev_dns::RecordType;
use domains::{CaChoice, Disposition, IssueError, Issuer, OrderPlan};
use issuers::acme::{AcmeAccount, AcmeSetupError};
use tokio::net::TcpListener;

use crate::world::{World, attempt, config_for, hostname, issue};

const NAME: &str = "shop.brand.test";

fn after(error: &IssueError) -> Option<u64> {
    match error.disposition() {
        Disposition::Retry { after } => after.map(|wait| wait.as_secs()),
        other => panic!("{other:?} for {error:?}"),
    }
}

#[tokio::test]
async fn a_limit_on_new_orders_is_waited_out_as_long_as_the_ca_says() {
    let world = World::start().await;
    let issuer = world.issuer();
    world.control().fault(Fault::problem(Endpoint::NewOrder, "rateLimited", 429).retry_after("120"));
    let error = issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap_err();
    assert!(matches!(error, IssueError::RateLimited { .. }), "{error:?}");
    assert_eq!(after(&error), Some(120));
    issue(&issuer, NAME).await.unwrap();
}

#[tokio::test]
async fn a_limit_on_finalize_keeps_the_order_and_its_key() {
    let world = World::start().await;
    let issuer = world.issuer();
    let (attempt, url) = (attempt(&issuer, NAME), issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
    world.control().fault(Fault::problem(Endpoint::Finalize, "rateLimited", 429).retry_after("7"));
    let error = issuer.complete(&hostname(NAME), &url, &attempt).await.unwrap_err();
    assert!(matches!(error, IssueError::RateLimited { .. }) && error.keeps_the_order(), "{error:?}");
    assert_eq!(after(&error), Some(7));
    issuer.complete(&hostname(NAME), &url, &attempt).await.unwrap();
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.validations, counters.finalized_orders), (1, 1, 1));
}

#[tokio::test]
async fn a_page_of_the_load_balancer_is_an_outage_with_its_wait_wherever_it_comes() {
    let world = World::start().await;
    for endpoint in [
        Endpoint::Directory,
        Endpoint::NewNonce,
        Endpoint::NewOrder,
        Endpoint::Order,
        Endpoint::Authorization,
        Endpoint::Challenge,
        Endpoint::Finalize,
        Endpoint::Certificate,
    ] {
        let name = format!("{}.brand.test", format!("{endpoint:?}").to_lowercase());
        // A new process each time, so that the directory is read, too.
        world.control().fault(Fault::page(endpoint, 503, "<html><h1>Service Unavailable</h1></html>").retry_after("30"));
        let error = issue(&world.issuer(), &name).await.unwrap_err();
        let IssueError::Unavailable { detail, .. } = &error else { panic!("{endpoint:?}: {error:?}") };
        assert!(detail.contains("503"), "{endpoint:?}: {detail}");
        assert_eq!(after(&error), Some(30), "{endpoint:?}");
        assert!(error.keeps_the_order());
        assert!(world.control().faults().is_empty());
        issue(&world.issuer(), &name).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_is_not_acme_at_all_is_an_outage() {
    let world = World::start().await;
    for (status, body) in [(200, "<html>Please log in to the network</html>"), (302, ""), (404, "not here"), (403, "blocked")] {
        let page = Answer::Page { status, content_type: "text/html".into(), body: body.into() };
        world.control().fault(Fault::new(Endpoint::NewOrder, page));
        let error = world.issuer().order(&hostname(NAME), &OrderPlan::default()).await.unwrap_err();
        assert!(matches!(error, IssueError::Unavailable { .. }), "{status}: {error:?}");
    }
}

#[tokio::test]
async fn a_wrong_answer_to_the_challenge_is_the_customers_to_mend_and_ends_the_order() {
    let world = World::start().await;
    let issuer = world.issuer();
    let (attempt, url) = (attempt(&issuer, NAME), issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
    world.answer_wrongly();
    for round in ["as it happens", "read again later"] {
        let error = issuer.complete(&hostname(NAME), &url, &attempt).await.unwrap_err();
        let IssueError::ChallengeFailed { detail } = &error else { panic!("{round}: {error:?}") };
        assert!(detail.contains("(unauthorized)") || detail.contains("(incorrectResponse)"), "{round}: {detail}");
        assert_eq!(error.disposition(), Disposition::AskCustomer);
        assert!(!error.keeps_the_order());
    }
    world.answer_for(&world.account);
    issue(&issuer, NAME).await.unwrap();
    assert_eq!(world.ca.counters().new_orders, 2);
}

#[tokio::test]
async fn a_name_that_the_ca_cannot_resolve_or_reach_is_told_apart() {
    let world = World::start().await;
    let issuer = world.issuer();
    let error = issue(&issuer, "shop.unknown.test").await.unwrap_err();
    assert!(matches!(error, IssueError::DnsFailed { .. }), "{error:?}");
    // Nobody listens on the challenge port of this address.
    world.dns.zone().set("dead.brand.test", RecordType::A, &["127.0.0.77"]).unwrap();
    let error = issue(&issuer, "dead.brand.test").await.unwrap_err();
    assert!(matches!(error, IssueError::ChallengeFailed { .. }), "{error:?}");
}

#[tokio::test]
async fn unauthorized_is_the_account_at_new_order_and_the_order_at_finalize() {
    let world = World::start().await;
    let issuer = world.issuer();
    world.control().fault(Fault::problem(Endpoint::NewOrder, "unauthorized", 403));
    let error = issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap_err();
    assert!(matches!(error, IssueError::AccountRefused { .. }), "{error:?}");
    assert_eq!(error.disposition(), Disposition::Defect);
    world.control().fault(Fault::problem(Endpoint::Finalize, "unauthorized", 403));
    let error = issue(&issuer, NAME).await.unwrap_err();
    assert!(matches!(error, IssueError::OrderDead { .. }), "{error:?}");
}

#[tokio::test]
async fn refusals_of_the_name_at_new_order_say_whose_move_it_is() {
    let world = World::start().await;
    let issuer = world.issuer();
    for (kind, status, expected) in [
        ("rejectedIdentifier", 400, Disposition::GiveUp),
        ("unsupportedIdentifier", 400, Disposition::GiveUp),
        ("caa", 403, Disposition::AskCustomer),
        ("malformed", 400, Disposition::Defect),
        ("userActionRequired", 403, Disposition::Defect),
        ("serverInternal", 500, Disposition::Retry { after: None }),
    ] {
        world.control().fault(Fault::problem(Endpoint::NewOrder, kind, status));
        let error = issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap_err();
        assert_eq!(error.disposition(), expected, "{kind}: {error:?}");
        assert!(error.to_string().contains(&format!("({kind})")), "{error}");
    }
}

#[tokio::test]
async fn nonces_that_are_never_good_are_an_outage_and_end_soon() {
    let world = World::start().await;
    let issuer = world.issuer();
    world.control().set_bad_nonce_percent(100);
    let error = issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap_err();
    assert!(matches!(error, IssueError::Unavailable { .. }), "{error:?}");
    world.control().set_bad_nonce_percent(0);
    issue(&issuer, NAME).await.unwrap();
}

#[tokio::test]
async fn a_ca_that_is_down_or_silent_is_given_up_within_the_time_set() {
    const PATIENCE: Duration = Duration::from_millis(300);
    let world = World::start().await;
    let (attempt, url) = (attempt(&world.issuer(), NAME), world.issuer().order(&hostname(NAME), &OrderPlan::default()).await.unwrap());
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed = format!("https://localhost:{}/directory", nobody.local_addr().unwrap().port());
    drop(nobody);
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let silent = format!("https://localhost:{}/directory", mute.local_addr().unwrap().port());

    for directory_url in [closed, silent] {
        let issuer = world.issuer_with(|config| {
            config.directory_url.clone_from(&directory_url);
            config.request_timeout = PATIENCE;
            config.step_budget = PATIENCE;
        });
        let begun = Instant::now();
        let errors = [
            issuer.order(&hostname(NAME), &OrderPlan::default()).await.unwrap_err(),
            issuer.complete(&hostname(NAME), &url, &attempt).await.unwrap_err(),
            issuer.renewal_window(CaChoice::First, "a.b").await.unwrap_err(),
        ];
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        for error in errors {
            assert!(matches!(error, IssueError::Unavailable { .. }) && error.keeps_the_order(), "{directory_url}: {error:?}");
        }
        let mut config = config_for(&world.ca, &world.seal);
        (config.directory_url, config.request_timeout) = (directory_url, PATIENCE);
        let error = AcmeAccount::create(&config).await.unwrap_err();
        assert!(matches!(error, AcmeSetupError::Ca(IssueError::Unavailable { .. })), "{error:?}");
    }

    // It answered before, and then no more.
    let issuer = world.issuer_with(|config| (config.request_timeout, config.step_budget) = (PATIENCE, PATIENCE));
    issuer.order(&hostname("other.brand.test"), &OrderPlan::default()).await.unwrap();
    world.control().pause();
    let error = issuer.complete(&hostname(NAME), &url, &attempt).await.unwrap_err();
    assert!(matches!(error, IssueError::Unavailable { .. }) && error.keeps_the_order(), "{error:?}");
    world.control().resume();
    world.issuer().complete(&hostname(NAME), &url, &attempt).await.unwrap();
    assert_eq!(world.ca.counters().finalized_orders, 1);
}

#[tokio::test]
async fn an_account_that_the_ca_will_not_make_says_why() {
    let world = World::start().await;
    let mut config = config_for(&world.ca, &world.seal);
    world.control().fault(Fault::problem(Endpoint::NewAccount, "externalAccountRequired", 403));
    let error = AcmeAccount::create(&config).await.unwrap_err();
    assert!(matches!(error, AcmeSetupError::Ca(IssueError::AccountRefused { .. })), "{error:?}");
    config.contact = Some("tel:+123".into());
    let error = AcmeAccount::create(&config).await.unwrap_err();
    assert!(matches!(error, AcmeSetupError::Ca(IssueError::AccountRefused { .. })), "{error:?}");
}
