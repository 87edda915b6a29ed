//! The product against Pebble, which refuses nonces and proofs of before at random.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use http::Method;
use serde_json::json;
use system_tests::{
    pebble::{Demands, Pebble},
    product::{Product, records_of},
    waiting::until,
};

/// What a busy machine may take for a handful of certificates when one request in five is refused.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_come_by_http_01_from_pebble_although_it_refuses_one_nonce_in_five() {
    let product = Product::start_with_pebble(&Demands { bad_nonces: 20, ..Demands::default() }, &[]).await;
    let names: Vec<String> = (0..12).map(|number| format!("shop{number}.brand.test")).collect();
    for name in &names {
        let records = product.register(name, "brand").await;
        product.set_dns(&records).await;
    }
    for name in &names {
        product.served(name, PATIENCE).await;
    }
    let pebble = product.pebble();
    // Each of these is asked once for a certificate, if nothing is refused.
    let asked: usize = ["order-plz", "authZ", "chalZ", "finalize-order", "certZ"].into_iter().map(|what| pebble.requests(what)).sum();
    println!("{} certificates with {asked} requests, of which {} at least were refused", names.len(), asked - 5 * names.len());
    assert!(asked > 5 * names.len(), "nothing was refused: the test shows nothing; the log is {}", pebble.log.display());
    assert_eq!(issued(pebble), names.len(), "one certificate for each name; the log is {}", pebble.log.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_and_a_tenants_wildcard_come_by_dns_01_and_are_served() {
    let settings = [("NAMEPLATE_HOSTNAMES_TENANT_WILDCARDS", "on")];
    let product = Product::start_with_pebble(&Demands { bad_nonces: 20, ..Demands::default() }, &settings).await;
    for (wildcard, tenant, visited) in [
        ("*.sandbox.edge.nameplate.test", "operator", ["one.sandbox.edge.nameplate.test", "two.sandbox.edge.nameplate.test"]),
        ("*.brand.test", "brand", ["shop.brand.test", "blog.brand.test"]),
    ] {
        let body = json!({ "hostname": wildcard, "tenant": tenant });
        let domain = product.api(Method::POST, "/v1/domains", Some(&body)).await.granted();
        let wanted = records_of(&domain);
        let base = wildcard.trim_start_matches("*.");
        assert_eq!(domain["path"], "delegation", "{domain}");
        assert_eq!((wanted.len(), &wanted[0]["name"]), (1, &json!(format!("_acme-challenge.{base}"))), "{domain}");
        product.set_dns(&wanted).await;
        for name in visited {
            let visit = product.served(name, PATIENCE).await;
            assert_eq!(visit.answer.json()["headers"]["x-nameplate-tenant"], tenant, "{name}");
        }
    }
    // A name of its own wins over the wildcard above it, and one further down is nobody's.
    product.visitor().get("a.b.brand.test", "/").await.expect_err("a wildcard is one label deep");
    let pebble = product.pebble();
    assert_eq!(issued(pebble), 2, "its log is {}", pebble.log.display());
    assert_eq!(pebble.logged("Attempting to validate w/ HTTP"), 0, "its log is {}", pebble.log.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_tells_pebble_which_certificate_it_replaces() {
    let demands = Demands { validity: Duration::from_secs(120), ..Demands::default() };
    let product = Product::start_with_pebble(&demands, &[]).await;
    let records = product.register("shop.brand.test", "brand").await;
    product.set_dns(&records).await;
    let first = product.served("shop.brand.test", PATIENCE).await.serial;
    until("the next certificate is served", PATIENCE * 3, async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let visit = product.visitor().get("shop.brand.test", "/").await.expect("it is served throughout");
        (visit.serial != first).then_some(())
    })
    .await;
    let pebble = product.pebble();
    let log = std::fs::read_to_string(&pebble.log).unwrap();
    assert!(log.contains("ARI: order") && log.contains("is a replacement of"), "its log is {}", pebble.log.display());
    assert_eq!(issued(pebble), 2, "its log is {}", pebble.log.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_that_asks_for_an_external_account_gets_it_and_one_without_is_told_apart() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let demands = Demands { external_account: Some(("kid-1".into(), key.into())), ..Demands::default() };
    let folder = system_tests::process::Folder::new();
    let file = folder.path().join("hmac");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let file = file.display().to_string();
    let settings = [("NAMEPLATE_ACME_EAB_KEY_ID", "kid-1"), ("NAMEPLATE_ACME_EAB_HMAC_FILE", file.as_str())];
    let product = Product::start_with_pebble(&demands, &settings).await;
    let records = product.register("shop.brand.test", "brand").await;
    product.set_dns(&records).await;
    product.served("shop.brand.test", PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_ca_takes_over_while_the_first_is_down_and_the_edge_answers_for_both() {
    let mut product = Product::start_with_peers(&[]).await;
    let second = product.start_second_pebble(&Demands::default()).await;
    let settings = [
        ("NAMEPLATE_ACME_SECOND_DIRECTORY", second.directory.as_str()),
        ("NAMEPLATE_ACME_SECOND_ROOT", second.roots.to_str().unwrap()),
        ("NAMEPLATE_ACME_SECOND_AFTER", "3s"),
        ("NAMEPLATE_ISSUANCE_FIRST_RETRY", "1s"),
        ("NAMEPLATE_ISSUANCE_RETRY_CAP", "2s"),
    ];
    product.kill().await;
    assert!(product.try_restart(&settings).await);
    let before = product.register("first.brand.test", "brand").await;
    product.set_dns(&before).await;
    product.served("first.brand.test", PATIENCE).await;
    assert_eq!(issued(&second), 0, "the first CA is asked while it is there");

    product.peers.as_mut().unwrap().kill_ca().await;
    let after = product.register("second.brand.test", "brand").await;
    product.set_dns(&after).await;
    let serial = until("the second CA's certificate is recorded", PATIENCE, async || {
        let domain = product.domain("second.brand.test", "brand").await;
        domain["certificate"]["serial"].as_str().map(str::to_owned)
    })
    .await;
    assert_eq!(issued(&second), 1, "its log is {}", second.log.display());
    assert!(second.certificate(&serial).await.is_some(), "{serial} is the second CA's");
    let visitor = system_tests::visitor::Visitor::new(product.https(), &second.roots);
    until("it is served", PATIENCE, async || visitor.get("second.brand.test", "/").await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_first_ca_is_down_the_second_is_asked_only_for_names_whose_caa_records_allow_it() {
    let mut product = Product::start_with_peers(&[]).await;
    let second = product.start_second_pebble(&Demands::default()).await;
    let settings = [
        ("NAMEPLATE_ACME_CAA_IDENTITIES", "first-ca.test"),
        ("NAMEPLATE_ACME_SECOND_DIRECTORY", second.directory.as_str()),
        ("NAMEPLATE_ACME_SECOND_ROOT", second.roots.to_str().unwrap()),
        ("NAMEPLATE_ACME_SECOND_CAA_IDENTITIES", "second-ca.test"),
        ("NAMEPLATE_ACME_SECOND_AFTER", "3s"),
        ("NAMEPLATE_ISSUANCE_FIRST_RETRY", "1s"),
        ("NAMEPLATE_ISSUANCE_RETRY_CAP", "2s"),
    ];
    product.kill().await;
    assert!(product.try_restart(&settings).await);
    product.peers.as_mut().unwrap().kill_ca().await;
    let caa = |name: &str, allowed: &[&str]| {
        let data: Vec<String> = allowed.iter().map(|ca| format!("0 issue \"{ca}\"")).collect();
        json!({ "name": name, "type": "CAA", "data": data })
    };
    product.set_dns(&[caa("strict.test", &["first-ca.test"]), caa("open.test", &["first-ca.test", "second-ca.test"])]).await;
    for name in ["shop.strict.test", "shop.open.test"] {
        let records = product.register(name, "brand").await;
        product.set_dns(&records).await;
    }
    until("the name that allows both has the second CA's certificate", PATIENCE, async || {
        product.domain("shop.open.test", "brand").await["certificate"]["serial"].as_str().map(str::to_owned)
    })
    .await;
    // Several times what made the other name turn.
    let since = std::time::Instant::now();
    until("the name that allows the first alone says that it is down", PATIENCE, async || {
        let strict = product.domain("shop.strict.test", "brand").await;
        assert_eq!(strict["state"], "issuing", "{strict}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        (strict["problem"]["code"] == "ca.unavailable" && since.elapsed() > Duration::from_secs(9)).then_some(())
    })
    .await;
    // Orders, not requests for one: of those it refuses some for their nonce.
    assert_eq!((issued(&second), second.logged("Added order")), (1, 1), "its log is {}", second.log.display());
}

fn issued(pebble: &Pebble) -> usize {
    pebble.logged("Issued certificate serial")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_killed_while_pebble_refuses_nonces_gets_one_certificate_a_name_by_either_challenge() {
    let fast = [("NAMEPLATE_ISSUANCE_LEASE", "3s"), ("NAMEPLATE_ISSUANCE_FIRST_RETRY", "1s"), ("NAMEPLATE_TIMER_GRACE", "500ms")];
    let mut product = Product::start_with_pebble(&Demands { bad_nonces: 20, ..Demands::default() }, &fast).await;
    // Half of the names are live elsewhere, so that only dns-01 can bring their certificates.
    let names: Vec<String> = (0..12).map(|number| format!("shop{number}.brand.test")).collect();
    let (live, new): (Vec<_>, Vec<_>) =
        names.iter().partition(|name| name.ends_with("0.brand.test") || name.contains(['2', '4', '6', '8']));
    for name in &live {
        product.set_dns(&[json!({ "name": name, "type": "A", "data": ["127.0.7.9"] })]).await;
        product.register(name, "brand").await;
    }
    let within = PATIENCE;
    for name in &live {
        let records = until("a live name is asked for its delegation", within, async || {
            let domain = product.domain(name, "brand").await;
            (domain["path"] == "delegation").then(|| records_of(&domain))
        })
        .await;
        product.set_dns(&records).await;
    }
    for name in &new {
        let records = product.register(name, "brand").await;
        product.set_dns(&records).await;
    }
    for moment in [300, 700, 500] {
        tokio::time::sleep(Duration::from_millis(moment)).await;
        product.kill().await;
        product.restart().await;
    }
    product.all_ready(names.len(), PATIENCE).await;
    let pebble = product.pebble();
    println!("{} certificates for {} names over three crashes", issued(pebble), names.len());
    assert_eq!(issued(pebble), names.len(), "its log is {}", pebble.log.display());
}
