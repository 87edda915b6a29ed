//! From an account to a certificate, with an ACME client that knows nothing of this CA.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, ChallengeStatus, ChallengeType, NewOrder, OrderStatus, RevocationReason, RevocationRequest,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{ServerName, UnixTime};
use support::{QUICKLY, Says, World, csr, ders, dns, finish, issue, kind, prove, ready_order, roots, set_ready};
use x509_parser::prelude::{FromDer, X509Certificate};

#[tokio::test]
async fn an_unchanged_client_gets_a_chain_that_verifies_against_the_root() {
    let world = World::start().await;
    world.host("shop.example.com");
    world.host("www.shop.example.com");
    let account = world.account().await;
    let names = ["shop.example.com", "www.shop.example.com"];
    let mut order = ready_order(&account, &names).await;
    let (request, key) = csr(&names);
    order.finalize_csr(&request).await.unwrap();
    let chain = ders(&order.poll_certificate(&QUICKLY).await.unwrap());

    assert_eq!(chain.len(), 2, "leaf and intermediate");
    let verifier = WebPkiServerVerifier::builder(roots(world.ca.root_pem()).into()).build().unwrap();
    for name in names {
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).unwrap();
    }
    let other = ServerName::try_from("other.example.com").unwrap();
    assert!(verifier.verify_server_cert(&chain[0], &chain[1..], &other, &[], UnixTime::now()).is_err());

    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    assert_eq!(leaf.public_key().raw, rcgen::PublicKeyData::subject_public_key_info(&key));
    assert_eq!(leaf.subject().iter().count(), 0, "no common name");
    assert_eq!(leaf.raw_serial().len(), 16);
    let validity = leaf.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 90 * 86_400 + 10);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth && !usage.any);
    CertificateIdentifier::try_from(&chain[0]).expect("the leaf names its issuer's key");

    let seen = world.web.seen();
    assert!(seen.iter().all(|(host, path)| names.contains(&host.as_str()) && path.starts_with("/.well-known/acme-challenge/")), "{seen:?}");
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.finalized_orders, counters.validations, counters.validation_failures), (1, 1, 2, 0));
    let once: BTreeMap<_, _> = names.iter().map(|name| ((*name).to_owned(), 1)).collect();
    assert_eq!((counters.orders_by_name, counters.finalizes_by_name), (once.clone(), once));
    world.ca.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_names_at_once_all_get_their_certificate() {
    let world = World::start().await;
    let account = world.account().await;
    let names: Vec<String> = (0..100).map(|number| format!("n{number}.example.com")).collect();
    names.iter().for_each(|name| world.host(name));
    let begun = Instant::now();
    let mut issuing = tokio::task::JoinSet::new();
    for name in names {
        let account = account.clone();
        issuing.spawn(async move { issue(&account, &[&name]).await });
    }
    let chains = issuing.join_all().await;
    println!("100 issuances in {} ms", begun.elapsed().as_millis());
    assert_eq!(chains.len(), 100);
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.finalized_orders, counters.validation_failures), (100, 100, 0));
    assert_eq!(counters.finalizes_by_name.values().filter(|count| **count == 1).count(), 100);
}

#[tokio::test]
async fn a_name_that_is_a_cname_to_the_edge_is_fetched_under_its_own_name() {
    let world = World::start().await;
    world.zone.cname("shop.customer.com", "claim.t.saas.com");
    world.zone.cname("claim.t.saas.com", "edge.saas.com");
    world.host("edge.saas.com");
    issue(&world.account().await, &["shop.customer.com"]).await;
    assert_eq!(world.web.seen()[0].0, "shop.customer.com");
}

#[tokio::test]
async fn an_answer_too_large_for_udp_is_fetched_over_tcp() {
    let world = World::start().await;
    world.host("large.example.com");
    world.zone.truncate("large.example.com");
    issue(&world.account().await, &["large.example.com"]).await;
}

#[tokio::test]
async fn redirects_are_followed_within_bounds_and_no_further() {
    let world = World::start().await;
    let account = world.account().await;
    for name in ["moved.example.com", "new.example.com", "loop.example.com", "tls.example.com"] {
        world.host(name);
    }
    world.web.say("moved.example.com", Says::Redirect("http://new.example.com{path}".into()));
    issue(&account, &["moved.example.com"]).await;

    world.web.say("loop.example.com", Says::Redirect("{path}".into()));
    assert_eq!(failure(&world, &account, "loop.example.com").await.0, "connection");
    assert_eq!(world.web.seen().iter().filter(|(host, _)| host == "loop.example.com").count(), 11, "the first and ten more");

    world.web.say("tls.example.com", Says::Redirect("https://new.example.com{path}".into()));
    assert_eq!(failure(&world, &account, "tls.example.com").await.0, "connection");
}

#[tokio::test]
async fn a_dead_ipv6_address_fails_even_if_ipv4_is_good() {
    let world = World::start().await;
    let account = world.account().await;
    world.host("v6.example.com");
    world.zone.aaaa("v6.example.com", "::1");
    let (kind, detail) = failure(&world, &account, "v6.example.com").await;
    assert_eq!(kind, "connection");
    assert!(detail.contains("::1"), "{detail}");
}

#[tokio::test]
async fn a_wildcard_is_offered_dns_01_only_and_gets_its_certificate_that_way() {
    let world = World::start().await;
    let account = world.account().await;
    let identifiers = [dns("*.example.com")];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    {
        let mut authorizations = order.authorizations();
        let mut authorization = authorizations.next().await.unwrap().unwrap();
        assert!(authorization.wildcard);
        let offered: Vec<_> = authorization.challenges.iter().map(|challenge| challenge.r#type.clone()).collect();
        assert_eq!(offered, [ChallengeType::Dns01]);
        let value = authorization.challenge(ChallengeType::Dns01).unwrap().key_authorization().dns_value();
        // Split in two strings, as long texts are: together they are one value.
        let (front, back) = value.split_at(20);
        world.zone.txt("_acme-challenge.example.com", &[front, back]);
    }
    set_ready(&mut order, &ChallengeType::Dns01).await;
    assert_eq!(order.poll_ready(&QUICKLY).await.unwrap(), OrderStatus::Ready);
    let chain = finish(&mut order, &["*.example.com"]).await;
    let verifier = WebPkiServerVerifier::builder(roots(world.ca.root_pem()).into()).build().unwrap();
    let (chain, any_host) = (ders(&chain), ServerName::try_from("any.example.com").unwrap());
    verifier.verify_server_cert(&chain[0], &chain[1..], &any_host, &[], UnixTime::now()).unwrap();
}

#[tokio::test]
async fn dns_01_says_what_it_expected_and_found() {
    let world = World::start().await;
    let account = world.account().await;
    world.zone.txt("_acme-challenge.wrong.example.com", &["something else"]);
    world.host("_acme-challenge.none.example.com");
    for (name, expected_kind, words) in [
        ("wrong.example.com", "unauthorized", "something else"),
        ("none.example.com", "unauthorized", "no TXT record found"),
        ("absent.example.com", "dns", "NXDOMAIN looking up TXT for _acme-challenge.absent.example.com"),
    ] {
        let (kind, detail) = failure_by(&world, &account, name, ChallengeType::Dns01).await;
        assert_eq!(kind, expected_kind, "{detail}");
        assert!(detail.contains(words), "{detail}");
    }
}

#[tokio::test]
async fn a_wrong_key_authorization_makes_the_order_invalid_and_the_challenge_says_why() {
    let world = World::start().await;
    let account = world.account().await;
    world.host("shop.example.com");
    world.web.say("shop.example.com", Says::Text("not-the-token.not-the-thumbprint".into()));
    let identifiers = [dns("shop.example.com")];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    set_ready(&mut order, &ChallengeType::Http01).await;
    assert_eq!(order.poll_ready(&QUICKLY).await.unwrap(), OrderStatus::Invalid);
    assert!(order.state().error.is_none(), "as Boulder leaves it");

    let url = order.url().to_owned();
    let mut order = account.order(url).await.unwrap();
    {
        let mut authorizations = order.authorizations();
        let mut authorization = authorizations.next().await.unwrap().unwrap();
        assert_eq!(authorization.status, AuthorizationStatus::Invalid);
        assert_eq!(authorization.challenges.len(), 1, "only the one that decided");
        let mut challenge = authorization.challenge(ChallengeType::Http01).unwrap();
        assert_eq!(challenge.status, ChallengeStatus::Invalid);
        let problem = challenge.error.clone().unwrap();
        assert_eq!(problem.r#type.as_deref(), Some("urn:ietf:params:acme:error:unauthorized"));
        let detail = problem.detail.unwrap();
        assert!(detail.contains("127.0.0.1") && detail.contains("not-the-token.not-the-thumbprint"), "{detail}");
        // Trying again changes nothing and is no error of its own: the same challenge comes back.
        world.web.answer_for(account.key_thumbprint());
        assert_eq!(kind(&challenge.set_ready().await.unwrap_err()), "unauthorized");
    }
    assert_eq!(order.state().status, OrderStatus::Invalid);
    let counters = world.ca.counters();
    assert_eq!((counters.validations, counters.validation_failures, counters.finalized_orders), (1, 1, 0));

    let again = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    assert_ne!(again.url(), order.url(), "a failed order is not given out again");
}

#[tokio::test]
async fn each_way_of_not_answering_has_its_problem_type() {
    let world = World::start().await;
    let account = world.account().await;
    for name in ["missing.example.com", "long.example.com"] {
        world.host(name);
    }
    world.web.say("missing.example.com", Says::Status(404));
    world.web.say("long.example.com", Says::Text("x".repeat(5_000)));
    world.zone.txt("noaddress.example.com", &["only text here"]);
    world.zone.fail("broken.example.com");
    for (name, expected_kind, words) in [
        ("missing.example.com", "unauthorized", "404"),
        ("long.example.com", "unauthorized", "more than"),
        ("absent.example.com", "dns", "NXDOMAIN looking up A for absent.example.com"),
        ("noaddress.example.com", "dns", "no A or AAAA record"),
        ("broken.example.com", "dns", "SERVFAIL"),
    ] {
        let (kind, detail) = failure(&world, &account, name).await;
        assert_eq!(kind, expected_kind, "{name}: {detail}");
        assert!(detail.contains(words), "{name}: {detail}");
    }
}

#[tokio::test]
async fn a_closed_port_is_a_connection_problem() {
    // Held by us without listening, so nobody else can take it.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = held.local_addr().unwrap().port();
    let world = World::with(|config| config.http_port = port).await;
    let account = world.account().await;
    world.host("closed.example.com");
    assert_eq!(failure(&world, &account, "closed.example.com").await.0, "connection");
}

#[tokio::test]
async fn an_open_order_is_given_out_again_until_it_is_used() {
    let world = World::start().await;
    let account = world.account().await;
    world.host("a.example.com");
    world.host("b.example.com");
    let (forward, backward) = ([dns("a.example.com"), dns("b.example.com")], [dns("B.example.com"), dns("a.example.com")]);
    let mut first = account.new_order(&NewOrder::new(&forward)).await.unwrap();
    let again = account.new_order(&NewOrder::new(&backward)).await.unwrap();
    assert_eq!(first.url(), again.url());
    let short = account.new_order(&NewOrder::new(&forward).profile("shortlived")).await.unwrap();
    assert_ne!(first.url(), short.url(), "another profile is another order");
    let stranger = world.builder();
    let stranger = stranger
        .create(
            &instant_acme::NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false },
            world.ca.directory_url(),
            None,
        )
        .await
        .unwrap()
        .0;
    assert_ne!(first.url(), stranger.new_order(&NewOrder::new(&forward)).await.unwrap().url(), "another account is another order");

    prove(&mut first).await;
    assert_eq!(first.url(), account.new_order(&NewOrder::new(&forward)).await.unwrap().url(), "ready is still open");
    finish(&mut first, &["a.example.com", "b.example.com"]).await;
    assert_ne!(first.url(), account.new_order(&NewOrder::new(&forward)).await.unwrap().url(), "used up");
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.reused_orders, counters.orders_by_name["a.example.com"]), (4, 2, 4));
}

#[tokio::test]
async fn a_proof_is_good_for_further_orders_only_when_configured() {
    let world = World::start().await;
    let account = world.account().await;
    world.host("shop.example.com");
    let identifiers = [dns("shop.example.com")];
    issue(&account, &["shop.example.com"]).await;
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    assert_eq!(order.state().status, OrderStatus::Pending, "off by default");
    prove(&mut order).await;
    finish(&mut order, &["shop.example.com"]).await;

    world.ca.control().set_authorization_reuse(Duration::from_secs(3_600));
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    assert_eq!(order.state().status, OrderStatus::Ready);
    let mut other = account.new_order(&NewOrder::new(&identifiers).profile("shortlived")).await.unwrap();
    assert_eq!(other.state().status, OrderStatus::Pending, "a proof counts within its profile");
    finish(&mut order, &["shop.example.com"]).await;
    assert_eq!(world.ca.counters().validations, 2);
}

#[tokio::test]
async fn an_order_is_finalized_once() {
    let world = World::start().await;
    let account = world.account().await;
    world.host("shop.example.com");
    let identifiers = [dns("shop.example.com")];
    let mut early = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    let (request, _) = csr(&["shop.example.com"]);
    assert_eq!(kind(&early.finalize_csr(&request).await.unwrap_err()), "orderNotReady");

    prove(&mut early).await;
    finish(&mut early, &["shop.example.com"]).await;
    assert_eq!(kind(&early.finalize_csr(&request).await.unwrap_err()), "orderNotReady");
    assert_eq!(world.ca.counters().finalized_orders, 1);
}

#[tokio::test]
async fn a_csr_that_does_not_fit_is_refused_and_the_order_stays_ready() {
    let world = World::start().await;
    let (account, credentials) = world.account_and_credentials().await;
    world.host("shop.example.com");
    let mut order = ready_order(&account, &["shop.example.com"]).await;

    let mut tampered = csr(&["shop.example.com"]).0;
    let last = tampered.len() - 1;
    tampered[last] ^= 1;
    let account_key = rcgen::KeyPair::try_from(credentials.private_key().secret_pkcs8_der()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["shop.example.com".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let with_account_key = params.serialize_request(&account_key).unwrap().der().to_vec();
    params.distinguished_name.push(rcgen::DnType::CommonName, "other.example.com");
    let with_other_common_name = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let with_ed25519 = params.serialize_request(&ed25519).unwrap().der().to_vec();
    for (what, request) in [
        ("another name", csr(&["other.example.com"]).0),
        ("one name more", csr(&["shop.example.com", "other.example.com"]).0),
        ("no name", csr(&[]).0),
        ("an address", csr(&["shop.example.com", "192.0.2.1"]).0),
        ("a broken signature", tampered),
        ("the account's key", with_account_key),
        ("a common name that was not ordered", with_other_common_name),
        ("a key of a kind browsers do not take", with_ed25519),
        ("not a CSR", b"hello".to_vec()),
    ] {
        let error = order.finalize_csr(&request).await.expect_err(what);
        assert_eq!(kind(&error), "badCSR", "{what}: {error}");
    }
    finish(&mut order, &["shop.example.com"]).await;
}

#[tokio::test]
async fn an_order_is_taken_up_again_by_its_url() {
    let world = World::start().await;
    let (account, credentials) = world.account_and_credentials().await;
    world.host("shop.example.com");
    let url = ready_order(&account, &["shop.example.com"]).await.url().to_owned();
    drop(account);

    let account = world.builder().from_credentials(credentials).await.unwrap();
    let mut order = account.order(url.clone()).await.unwrap();
    assert_eq!(order.state().status, OrderStatus::Ready);
    order.finalize_csr(&csr(&["shop.example.com"]).0).await.unwrap();
    let mut order = account.order(url).await.unwrap();
    assert_eq!(order.state().status, OrderStatus::Valid);
    assert_eq!(ders(&order.certificate().await.unwrap().unwrap()).len(), 2);
}

#[tokio::test]
async fn a_slow_signing_shows_as_processing_and_ends_valid() {
    let world = World::with(|config| config.finalize_delay = Duration::from_millis(150)).await;
    let account = world.account().await;
    world.host("shop.example.com");
    let mut order = ready_order(&account, &["shop.example.com"]).await;
    let (request, _) = csr(&["shop.example.com"]);
    order.finalize_csr(&request).await.unwrap();
    assert_eq!(order.state().status, OrderStatus::Processing);
    assert_eq!(kind(&order.finalize_csr(&request).await.unwrap_err()), "orderNotReady");
    order.poll_certificate(&QUICKLY).await.unwrap();
    assert_eq!(world.ca.counters().finalized_orders, 1);
}

#[tokio::test]
async fn profiles_are_advertised_and_decide_the_lifetime() {
    let world = World::start().await;
    let account = world.account().await;
    world.host("shop.example.com");
    let mut names: Vec<_> = account.profiles().map(|profile| profile.name.to_owned()).collect();
    names.sort();
    assert_eq!(names, ["shortlived", "tlsserver"]);
    let identifiers = [dns("shop.example.com")];
    let error = account.new_order(&NewOrder::new(&identifiers).profile("classic")).await.err().expect("no such profile");
    assert_eq!(kind(&error), "invalidProfile");

    let lived = async |profile: &str| {
        let mut order = account.new_order(&NewOrder::new(&identifiers).profile(profile)).await.unwrap();
        assert_eq!(order.state().profile.as_deref(), Some(profile));
        prove(&mut order).await;
        let chain = finish(&mut order, &["shop.example.com"]).await;
        let ders = ders(&chain);
        let (_, leaf) = X509Certificate::from_der(&ders[0]).unwrap();
        leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp() - 10
    };
    assert_eq!(lived("shortlived").await, 160 * 3_600);
    world.ca.control().set_lifetime(Duration::from_secs(180));
    assert_eq!(lived("tlsserver").await, 180);
    assert_eq!(lived("shortlived").await, 180, "never longer than the usual lifetime");
    let profiles: Vec<_> = world.ca.control().certificates().into_iter().map(|record| record.profile).collect();
    assert_eq!(profiles.iter().filter(|profile| **profile == dev_ca::Profile::ShortLived).count(), 2);
}

#[tokio::test]
async fn renewal_information_names_two_thirds_of_the_lifetime_and_the_past_when_revoked() {
    let world = World::start().await;
    let account = world.account().await;
    world.host("shop.example.com");
    let chain = ders(&issue(&account, &["shop.example.com"]).await);
    let identifier = CertificateIdentifier::try_from(&chain[0]).unwrap();

    let (info, wait) = account.renewal_info(&identifier).await.unwrap();
    assert!(wait > Duration::from_secs(6 * 3_600 - 10) && wait <= Duration::from_secs(6 * 3_600), "{wait:?}");
    let (_, leaf) = X509Certificate::from_der(&chain[0]).unwrap();
    let (begin, end) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    let middle = (info.suggested_window.start.unix_timestamp() + info.suggested_window.end.unix_timestamp()) / 2;
    assert!((middle - (begin + (end - begin) * 2 / 3)).abs() <= 1);
    let width = info.suggested_window.end.unix_timestamp() - info.suggested_window.start.unix_timestamp();
    assert!((width - (end - begin) / 50).abs() <= 1, "two per cent of the lifetime");

    let control = world.ca.control();
    assert_eq!(control.renew_now(&dev_ca::Chosen::Name("other.example.com".into())), 0);
    assert_eq!(control.renew_now(&dev_ca::Chosen::Certificate(identifier.to_string())), 1);
    let past = account.renewal_info(&identifier).await.unwrap().0.suggested_window;
    assert!(past.end.unix_timestamp() < begin + 10, "in the past already when it was issued");
    control.reset_window(&dev_ca::Chosen::All);
    assert!(account.renewal_info(&identifier).await.unwrap().0.suggested_window.start.unix_timestamp() > begin + 86_400);

    account.revoke(&RevocationRequest { certificate: &chain[0], reason: Some(RevocationReason::KeyCompromise) }).await.unwrap();
    assert!(account.renewal_info(&identifier).await.unwrap().0.suggested_window.end.unix_timestamp() < begin + 10);
    let again = account.revoke(&RevocationRequest { certificate: &chain[0], reason: None }).await.unwrap_err();
    assert_eq!(kind(&again), "alreadyRevoked");
    let reason =
        account.revoke(&RevocationRequest { certificate: &chain[0], reason: Some(RevocationReason::CaCompromise) }).await.unwrap_err();
    assert_eq!(kind(&reason), "badRevocationReason");
    assert_eq!(world.ca.counters().revocations, 1);
}

#[tokio::test]
async fn a_certificate_is_replaced_by_one_order_only() {
    let world = World::start().await;
    let account = world.account().await;
    world.host("shop.example.com");
    let chain = ders(&issue(&account, &["shop.example.com"]).await);
    let replaced = || CertificateIdentifier::try_from(&chain[0]).unwrap();
    let (identifiers, others) = ([dns("shop.example.com")], [dns("other.example.com")]);

    let foreign = account.new_order(&NewOrder::new(&others).replaces(replaced())).await.err().expect("nothing in common");
    assert_eq!(kind(&foreign), "malformed");
    let mut first = account.new_order(&NewOrder::new(&identifiers).replaces(replaced())).await.unwrap();
    assert!(first.state().replaces.is_some());
    let second = account.new_order(&NewOrder::new(&identifiers).replaces(replaced())).await.err().expect("pending already");
    assert_eq!(kind(&second), "alreadyReplaced");
    let without = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    assert_eq!(without.url(), first.url(), "without `replaces` the pending order comes back");

    world.web.say("shop.example.com", Says::Status(404));
    set_ready(&mut first, &ChallengeType::Http01).await;
    assert_eq!(first.poll_ready(&QUICKLY).await.unwrap(), OrderStatus::Invalid);
    account.new_order(&NewOrder::new(&identifiers).replaces(replaced())).await.expect("the failed order does not count");

    let unknown = CertificateIdentifier { serial: "AAAA".into(), ..replaced() };
    let error = account.new_order(&NewOrder::new(&identifiers).replaces(unknown)).await.err().expect("unknown");
    let instant_acme::Error::Api(problem) = error else { panic!("{error:?}") };
    assert_eq!(problem.status, Some(404));
}

#[tokio::test]
async fn a_deactivated_authorization_ends_its_order() {
    let world = World::start().await;
    let account = world.account().await;
    let identifiers = [dns("shop.example.com")];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    {
        let mut authorizations = order.authorizations();
        let mut authorization = authorizations.next().await.unwrap().unwrap();
        assert_eq!(authorization.deactivate().await.unwrap().status, AuthorizationStatus::Deactivated);
    }
    assert_eq!(order.refresh().await.unwrap().status, OrderStatus::Invalid);
}

#[tokio::test]
async fn dates_follow_the_injected_clock_and_open_orders_expire_by_it() {
    let start: jiff::Timestamp = "2031-05-06T07:08:09.5Z".parse().unwrap();
    let now = std::sync::Arc::new(std::sync::Mutex::new(start));
    let clock = std::sync::Arc::clone(&now);
    let world = World::with(|config| config.clock = std::sync::Arc::new(move || *clock.lock().unwrap())).await;
    let account = world.account().await;
    world.host("shop.example.com");
    issue(&account, &["shop.example.com"]).await;
    let record = world.ca.control().certificates().remove(0);
    assert_eq!(record.not_before, "2031-05-06T07:07:59Z".parse().unwrap());
    assert_eq!(record.not_after, "2031-08-04T07:08:09Z".parse().unwrap());

    let identifiers = [dns("shop.example.com")];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    *now.lock().unwrap() = start.checked_add(Duration::from_secs(3_601)).unwrap();
    assert_eq!(order.refresh().await.unwrap().status, OrderStatus::Invalid);
    assert_ne!(account.new_order(&NewOrder::new(&identifiers)).await.unwrap().url(), order.url());
}

/// Lets a name fail by http-01; returns the problem's type and detail.
async fn failure(world: &World, account: &instant_acme::Account, name: &str) -> (String, String) {
    failure_by(world, account, name, ChallengeType::Http01).await
}

async fn failure_by(world: &World, account: &instant_acme::Account, name: &str, challenge: ChallengeType) -> (String, String) {
    let identifiers = [dns(name)];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    set_ready(&mut order, &challenge).await;
    assert_eq!(order.poll_ready(&QUICKLY).await.unwrap(), OrderStatus::Invalid, "{name}");
    let mut authorizations = order.authorizations();
    let mut authorization = authorizations.next().await.unwrap().unwrap();
    authorization.refresh().await.unwrap();
    let problem = authorization.challenge(challenge).unwrap().error.clone().unwrap();
    assert!(world.ca.counters().validation_failures > 0);
    let kind = problem.r#type.unwrap().trim_start_matches("urn:ietf:params:acme:error:").to_owned();
    (kind, problem.detail.unwrap())
}
