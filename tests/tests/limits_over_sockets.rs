//! The same as `limits`, over real sockets: the local CA in a process of its own holds the product, with two workers, to Let's Encrypt's limits
//! while the product is killed on its way. In the import the capacities are Let's Encrypt's and their tokens come back two thousand times
//! faster; beside a tenant whose names fail the limits are Let's Encrypt's as they are.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use system_tests::{chance::Chance, client, process::binary, product::Product, sizes::size, waiting::until};

const SCALE: u32 = 2_000;
const SETTINGS: &[(&str, &str)] = &[
    ("NAMEPLATE_WORKERS", "2"),
    ("NAMEPLATE_ISSUANCE_LEASE", "3s"),
    ("NAMEPLATE_TIMER_INTERVAL", "250ms"),
    ("NAMEPLATE_TIMER_GRACE", "500ms"),
    ("NAMEPLATE_ACME_LIMITS", "lets-encrypt"),
    ("NAMEPLATE_ACME_LIMITS_SCALE", "2000"),
];

/// Holds the CA to Let's Encrypt's limits with time running so much faster.
async fn hold_to_limits(product: &Product, scale: u32) {
    let per = |count: u32, hours: u64| json!({ "count": count, "per": format!("{}ms", hours * 3_600_000 / u64::from(scale)) });
    let limits =
        json!({ "orders": per(300, 3), "domain": per(50, 168), "exact_set": per(5, 168), "failures": per(5, 1), "pause_after": 1152 });
    let control = product.peers.as_ref().unwrap().ca_control.clone().expect("dev-ca has a control");
    client::ask(Method::PUT, &format!("{control}/limits"), None, Some(&limits)).await.unwrap().granted();
}

/// What `nameplate plan` says, in seconds.
async fn planned(product: &Product, names: &[(String, String)]) -> f64 {
    let file = product.folder().join("import.csv");
    let lines: String = names.iter().map(|(name, tenant)| format!("{name},{tenant}\n")).collect();
    fs::write(&file, format!("hostname,tenant\n{lines}")).unwrap();
    let mut plan = tokio::process::Command::new(binary("nameplate"));
    plan.args(["plan", "--json", "--fresh"]).arg(&file).envs(SETTINGS.iter().copied()).current_dir(product.folder()).stdin(Stdio::null());
    let told = plan.output().await.unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["forecast"]["names"], names.len(), "{told}");
    told["seconds"].as_f64().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_killed_during_an_import_is_never_refused_by_the_ca_and_ends_when_it_was_told_to() {
    let (domains, each) = (size(4, 40), size(47, 75));
    let names: Vec<(String, String)> =
        (0..domains * each).map(|n| (format!("shop{n}.brand{}.test", n % domains), format!("t{}", n % 7))).collect();
    let mut product = Product::start_with_peers(SETTINGS).await;
    hold_to_limits(&product, SCALE).await;

    let predicted = planned(&product, &names).await;
    let records = stream::iter(&names).map(|(name, tenant)| product.register(name, tenant)).buffer_unordered(16).concat().await;
    let began = Instant::now();
    product.set_dns(&records).await;
    let mut chance = Chance::seeded("limits_over_sockets");
    for _ in 0..size(3, 10) {
        tokio::time::sleep(Duration::from_secs_f64(predicted * 0.05 + chance.below(1_000) as f64 / 1_000.0)).await;
        product.kill().await;
        product.restart().await;
    }
    let limits = product.api(Method::GET, "/v1/limits", None).await.granted();
    assert!(!limits["waiting"].as_array().unwrap().is_empty(), "nobody waits in the middle of the import: {limits}");
    product.all_ready(names.len(), Duration::from_secs_f64(predicted * 1.5 + 30.0)).await;
    let took = began.elapsed().as_secs_f64();

    let counters = product.ca_counters().await;
    let certificates: BTreeMap<String, u64> = serde_json::from_value(counters["finalizes_by_name"].clone()).unwrap();
    println!("{} names over {domains} registered domains: told {predicted:.0} s, took {took:.1} s", names.len());
    assert_eq!(counters["rate_limited"], 0, "the CA answered rateLimited");
    assert!(names.iter().all(|(name, _)| certificates.get(name) == Some(&1)), "not one certificate each: {certificates:?}");
    assert!((took - predicted).abs() <= predicted / 10.0, "told {predicted} s, took {took} s");
}

/// Beside a tenant whose names fail: Let's Encrypt's limits as they are, and the waits of an installation there.
const AS_THEY_ARE: &[(&str, &str)] = &[
    ("NAMEPLATE_WORKERS", "2"),
    ("NAMEPLATE_ISSUANCE_FIRST_RETRY", "60s"),
    ("NAMEPLATE_ISSUANCE_RETRY_CAP", "24h"),
    ("NAMEPLATE_ACME_LIMITS", "lets-encrypt"),
];

/// Registers names of one tenant that prove the claim and that no CA can reach, and waits until the CA has refused as many as one hour's
/// limits let through.
async fn register_failing(product: &Product, count: usize) {
    let names: Vec<String> = (0..count).map(|n| format!("shop{n}.big{}.test", n % 50)).collect();
    let mut records = stream::iter(&names).map(|name| product.register(name, "big")).buffer_unordered(16).concat().await;
    // The name leads where it should, and nobody answers there.
    let dead = |record: &Value| json!({ "name": record["data"][0], "type": "A", "data": ["127.0.0.2"] });
    let targets: Vec<Value> = records.iter().filter(|record| record["type"] == "CNAME").map(dead).collect();
    records.extend(targets);
    product.set_dns(&records).await;
    let refused = || async {
        let domains = product.list("&state=issuing").await;
        let told = |code: &str| domains.iter().filter(|domain| domain["problem"]["code"] == code).count();
        (told("ca.challenge_failed"), told("ca.queued"))
    };
    until("the failing names fail or wait for their turn", Duration::from_secs(120), async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (failed, queued) = refused().await;
        (failed + queued == count && failed >= count.min(100)).then_some(())
    })
    .await;
    println!("{count} names fail: {:?} refused and queued", refused().await);
}

/// How long each of some tenants waits from its request to the first encrypted byte of its first name.
async fn first_certificates(failing: usize) -> Vec<f64> {
    let product = Product::start_with_peers(AS_THEY_ARE).await;
    hold_to_limits(&product, 1).await;
    if failing > 0 {
        register_failing(&product, failing).await;
    }
    let mut waits = Vec::new();
    for n in 0..size(5, 12) {
        let name = format!("www.small{n}.test");
        let began = Instant::now();
        let records = product.register(&name, &format!("small{n}")).await;
        product.set_dns(&records).await;
        product.served(&name, Duration::from_secs(60)).await;
        waits.push(began.elapsed().as_secs_f64());
    }
    assert_eq!(product.ca_counters().await["rate_limited"], 0, "the CA answered rateLimited");
    waits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_failing_names_of_one_tenant_delay_the_first_certificate_of_another_by_two_seconds_at_most() {
    let alone = first_certificates(0).await;
    let beside = first_certificates(500).await;
    println!("first certificates: alone after {alone:.2?} s, beside 500 failing names after {beside:.2?} s");
    let slowest = |waits: &[f64]| waits.iter().copied().fold(0.0, f64::max);
    assert!(slowest(&beside) - slowest(&alone) <= 2.0, "{beside:.2?} s beside them, {alone:.2?} s without");
}
