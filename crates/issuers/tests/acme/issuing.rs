//! From nothing to a certificate.

use std::sync::Arc;
use std::time::Duration;

use bundles::Digest;
use dev_ca::{Answer, Endpoint, Fault, Profile};
use domains::{IssueError, Issuer, OrderPlan};
use issuers::acme::{AcmeAccount, AcmeIssuer, AcmeSetupError};
use rcgen::{KeyPair, PublicKeyData};
use tokio::task::JoinSet;

use crate::world::{World, attempt, claim, config_for, hostname, issue, open_key};

#[tokio::test]
async fn a_proved_name_gets_a_checked_certificate_whose_key_only_the_edge_opens() {
    let world = World::start().await;
    let issuer = world.issuer();
    let (attempt, issued) = issue(&issuer, "shop.brand.test").await.unwrap();

    assert_eq!(issued.chain.matches("BEGIN CERTIFICATE").count(), 2, "leaf and intermediate");
    let lifetime = issued.not_after.duration_since(issued.not_before).as_hours();
    assert!((90 * 24..=90 * 24 + 1).contains(&lifetime), "{lifetime} h");
    let records = world.control().certificates();
    assert_eq!(issued.ari_id.as_deref(), Some(records[0].certificate.as_str()));

    let key = KeyPair::try_from(open_key(&world, "shop.brand.test", &attempt).as_slice()).unwrap();
    assert_eq!(Digest::of(&key.subject_public_key_info()).to_string(), attempt.spki_sha256);
    assert_eq!(world.ca.counters().finalized_orders, 1);
}

#[tokio::test]
async fn each_preparation_makes_a_key_of_its_own_and_asks_nobody() {
    let world = World::start().await;
    let issuer = world.issuer();
    let (one, two) = (issuer.prepare(&claim("shop.brand.test")).unwrap(), issuer.prepare(&claim("shop.brand.test")).unwrap());
    assert_ne!(one.spki_sha256, two.spki_sha256);
    assert_ne!(one.csr, two.csr);
    assert_eq!(world.ca.counters().new_orders, 0);
}

#[tokio::test]
async fn one_nonce_in_five_refused_costs_no_order_and_no_second_finalize() {
    const NAMES: u64 = 30;
    let world = World::start().await;
    let issuer = Arc::new(world.issuer());
    world.control().set_bad_nonce_percent(20);
    let mut issuing = JoinSet::new();
    for number in 0..NAMES {
        let issuer = Arc::clone(&issuer);
        issuing.spawn(async move { issue(&issuer, &format!("shop{number}.brand.test")).await.map(|_| ()) });
    }
    for ended in issuing.join_all().await {
        ended.unwrap();
    }
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.finalized_orders), (NAMES, NAMES));
}

#[tokio::test]
async fn a_hundred_names_at_once_are_issued_in_one_process() {
    const NAMES: u64 = 100;
    let world = World::start().await;
    let issuer = Arc::new(world.issuer());
    let mut issuing = JoinSet::new();
    for number in 0..NAMES {
        let issuer = Arc::clone(&issuer);
        issuing.spawn(async move { issue(&issuer, &format!("shop{number}.brand.test")).await.map(|_| ()) });
    }
    for ended in issuing.join_all().await {
        ended.unwrap();
    }
    assert_eq!(world.ca.counters().finalized_orders, NAMES);
}

#[tokio::test]
async fn two_messages_about_one_name_make_one_order_and_one_certificate() {
    let world = World::start().await;
    let issuer = world.issuer();
    let name = hostname("shop.brand.test");
    let attempt = attempt(&issuer, "shop.brand.test");
    let plan = OrderPlan::default();
    let (one, two) = tokio::join!(issuer.order(&name, &plan), issuer.order(&name, &plan));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one, two, "the CA's open order is used again");
    let (one, two) = tokio::join!(issuer.complete(&name, &one, &attempt), issuer.complete(&name, &two, &attempt));
    assert_eq!(one.unwrap(), two.unwrap());
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.finalized_orders, counters.validations), (1, 1, 1));
}

#[tokio::test]
async fn the_configured_profile_is_ordered_where_the_ca_has_it() {
    let world = World::start().await;
    let ordered = |profile: Option<&str>| {
        let profile = profile.map(str::to_owned);
        world.issuer_with(move |config| config.profile = profile)
    };
    let short = issue(&ordered(Some("shortlived")), "short.brand.test").await.unwrap().1;
    assert_eq!(short.not_after.duration_since(short.not_before).as_hours(), 160);
    issue(&ordered(Some("never-heard-of")), "unlisted.brand.test").await.unwrap();
    issue(&ordered(None), "usual.brand.test").await.unwrap();
    let profile_of = |name: &str| world.control().certificates().into_iter().find(|record| record.names == [name]).unwrap().profile;
    assert_eq!(profile_of("short.brand.test"), Profile::ShortLived);
    assert_eq!(profile_of("unlisted.brand.test"), Profile::TlsServer);
    assert_eq!(profile_of("usual.brand.test"), Profile::TlsServer);
}

#[tokio::test]
async fn a_profile_that_the_ca_dropped_since_we_read_its_directory_stops_no_order() {
    let world = World::start().await;
    let issuer = world.issuer_with(|config| config.profile = Some("shortlived".into()));
    world.control().fault(Fault::problem(Endpoint::NewOrder, "invalidProfile", 400));
    let (_, issued) = issue(&issuer, "shop.brand.test").await.unwrap();
    assert_eq!(issued.not_after.duration_since(issued.not_before).as_hours(), 90 * 24);
}

#[tokio::test]
async fn a_certificate_for_another_key_is_thrown_away_though_the_ca_vouches_for_it() {
    let world = World::start().await;
    let issuer = world.issuer();
    let (_, other) = issue(&issuer, "other.brand.test").await.unwrap();
    let body = other.chain;
    let page = Answer::Page { status: 200, content_type: "application/pem-certificate-chain".into(), body };
    world.control().fault(Fault::new(Endpoint::Certificate, page).for_name("shop.brand.test"));
    let error = issue(&issuer, "shop.brand.test").await.unwrap_err();
    assert!(matches!(&error, IssueError::WrongCertificate { detail } if detail.contains("not for ours")), "{error:?}");
    assert!(!error.keeps_the_order());
}

#[tokio::test]
async fn a_chain_that_leads_to_another_root_is_thrown_away() {
    let (world, stranger) = (World::start().await, World::start().await);
    // The HTTPS root and the issuing root may differ, and then both are named; here the second one is the wrong one.
    let issuer = world.issuer_with(|config| config.extra_root_pem.as_mut().unwrap().push_str(stranger.ca.root_pem()));
    issue(&issuer, "shop.brand.test").await.unwrap();

    let (name, own) = (hostname("other.brand.test"), attempt(&issuer, "other.brand.test"));
    let theirs = {
        stranger.answer_for(&stranger.account);
        let issuer = stranger.issuer();
        let url = issuer.order(&name, &OrderPlan::default()).await.unwrap();
        issuer.complete(&name, &url, &own).await.unwrap().chain
    };
    let page = Answer::Page { status: 200, content_type: "application/pem-certificate-chain".into(), body: theirs };
    world.control().fault(Fault::new(Endpoint::Certificate, page));
    let issuer = world.issuer();
    let url = issuer.order(&name, &OrderPlan::default()).await.unwrap();
    let error = issuer.complete(&name, &url, &own).await.unwrap_err();
    assert!(matches!(&error, IssueError::WrongCertificate { detail } if detail.contains("does not verify")), "{error:?}");
}

#[tokio::test]
async fn a_wildcard_is_refused_before_an_order_is_burnt() {
    let world = World::start().await;
    let error = world.issuer().order(&hostname("*.brand.test"), &OrderPlan::default()).await.unwrap_err();
    assert!(matches!(&error, IssueError::Refused { detail } if detail.contains("dns-01")), "{error:?}");
    assert_eq!(world.ca.counters().new_orders, 0);
}

#[tokio::test]
async fn an_account_outlives_the_process_that_made_it() {
    let world = World::start().await;
    let again = AcmeAccount::from_json(world.account.to_json()).unwrap();
    assert_eq!(again.thumbprint(), world.account.thumbprint());
    assert_eq!(world.issuer().thumbprint(), again.thumbprint());
    assert_eq!(world.issuer().account_url(), again.url());
    issue(&world.issuer(), "shop.brand.test").await.unwrap();
}

#[tokio::test]
async fn an_account_of_another_ca_is_refused_at_the_start_and_a_ca_that_is_down_is_not() {
    let world = World::start().await;
    let mut config = config_for(&world.ca, &world.seal);
    config.directory_url = "https://acme-v02.api.letsencrypt.org/directory".into();
    let error = AcmeIssuer::open(config, world.account.to_json()).err().unwrap();
    assert!(matches!(error, AcmeSetupError::OtherCa { .. }), "{error:?}");

    let World { ca, seal, account, .. } = world;
    let config = config_for(&ca, &seal);
    ca.shutdown().await;
    let issuer = AcmeIssuer::open(config, account.to_json()).unwrap();
    assert_eq!(issuer.thumbprint(), account.thumbprint(), "the edge needs it all the same");
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_with_its_reason() {
    let world = World::start().await;
    for (change, reason) in [
        ("plain http", "begins with https://"),
        ("no certificate", "no certificate in it"),
        ("half a certificate", "not a PEM certificate"),
    ] {
        let mut config = config_for(&world.ca, &world.seal);
        match change {
            "plain http" => config.directory_url = config.directory_url.replace("https", "http"),
            "no certificate" => config.extra_root_pem = Some("nothing\n".into()),
            _ => config.extra_root_pem = Some(world.ca.root_pem()[..200].to_owned()),
        }
        let error = AcmeAccount::create(&config).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{change}: {error}");
    }
}

#[tokio::test]
async fn without_a_root_of_its_own_a_ca_that_the_machine_does_not_know_is_not_believed() {
    let world = World::start().await;
    let mut config = config_for(&world.ca, &world.seal);
    config.extra_root_pem = None;
    config.step_budget = Duration::from_secs(5);
    match AcmeAccount::create(&config).await.unwrap_err() {
        AcmeSetupError::Ca(IssueError::Unavailable { detail, .. }) => assert!(detail.contains("UnknownIssuer"), "{detail}"),
        // A machine without any roots does not believe it either.
        AcmeSetupError::NoRoots(_) => {}
        other => panic!("{other:?}"),
    }
}
