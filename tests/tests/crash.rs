//! A product that is killed while hostnames are on their way.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use system_tests::{chance::Chance, process::binary, product::Product, resolver::resolver, sizes};

/// A short lease, so that what a killed worker held is taken up soon; a fast timer, which is what takes it up.
const SETTINGS: &[(&str, &str)] =
    &[("NAMEPLATE_ISSUANCE_LEASE", "3s"), ("NAMEPLATE_TIMER_INTERVAL", "250ms"), ("NAMEPLATE_TIMER_GRACE", "500ms")];
/// How long everything may take after the last crash.
const RECOVERED: Duration = Duration::from_secs(90);

/// The named moments at which a build with failpoints ends itself.
const CRASH_POINTS: &[&str] =
    &["issue.reserved", "issue.order_answered", "issue.finalize_sent", "issue.chain_fetched", "publish.bundle_put", "publish.index_put"];

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("shop{n}.brand.test")).collect()
}

async fn each_has_exactly_one_certificate(product: &Product, names: &[String]) {
    let counters = product.ca_counters().await;
    let each: BTreeMap<String, u64> = serde_json::from_value(counters["finalizes_by_name"].clone()).unwrap();
    let wrong: Vec<_> = names.iter().map(|name| (name, each.get(name).copied())).filter(|(_, count)| *count != Some(1)).collect();
    assert!(wrong.is_empty(), "not exactly one certificate issued for {wrong:?}; data in {}", product.folder().display());
    assert_eq!(counters["finalized_orders"], names.len(), "{counters}");
}

async fn each_is_served(product: &Product, names: &[String]) {
    let visited = stream::iter(names).map(|name| product.served(name, Duration::from_secs(20))).buffer_unordered(8);
    assert_eq!(visited.count().await, names.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_killed_at_random_moments_serves_every_hostname_with_one_certificate_each() {
    let (count, kills) = (sizes::size(40, 200), sizes::size(6, 20));
    let mut chance = Chance::seeded("crash");
    let mut product = Product::start_with_peers(SETTINGS).await;
    let mut interrupted = 0;
    for round in 0..kills {
        let batch = names(count * round / kills, count * (round + 1) / kills);
        let records = stream::iter(&batch).map(|name| product.register(name, "crash")).buffer_unordered(8).concat().await;
        product.set_dns(&records).await;
        // Around the first look, which comes a second after registration, and what follows it at once: each round in its own part of that time,
        // so that no luck puts all of them after everything is done.
        let part = 700 / kills;
        let moment = Duration::from_millis((800 + part * round + chance.below(part)) as u64);
        tokio::time::sleep(moment).await;
        let on_their_way = product.list("").await.iter().filter(|domain| domain["ready"] != true).count();
        product.kill().await;
        interrupted += on_their_way;
        println!("killed {moment:?} after batch {round}, {on_their_way} hostnames on their way");
        product.restart().await;
    }
    assert!(interrupted > 0, "no crash met a hostname on its way: the moments are wrong");
    let began = Instant::now();
    product.all_ready(count, RECOVERED).await;
    println!("{count} ready {:?} after the last of {kills} crashes", began.elapsed());
    let names = names(0, count);
    each_has_exactly_one_certificate(&product, &names).await;
    each_is_served(&product, &names).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_that_ends_at_a_named_moment_takes_the_same_order_up_again() {
    let binary = binary("failpoints/nameplate");
    for point in CRASH_POINTS {
        let mut product = Product::start_binary_with_peers(binary.clone(), SETTINGS).await;
        product.kill().await;
        assert!(product.try_restart(&[("FAILPOINTS", &format!("{point}=1*return"))]).await, "{point}: it did not start");
        let names = names(0, sizes::size(50, 200));
        let records = stream::iter(&names).map(|name| product.register(name, "crash")).buffer_unordered(8).concat().await;
        product.set_dns(&records).await;
        assert!(product.ended(Duration::from_secs(20)).await, "{point} was never reached");
        product.restart().await;
        product.all_ready(names.len(), RECOVERED).await;
        each_has_exactly_one_certificate(&product, &names).await;
        each_is_served(&product, &names).await;
        println!("{point}: taken up again");
    }
}

/// The moments between which the answer of a dns-01 challenge stands in our zone.
const ANSWER_POINTS: &[&str] = &["issue.answers_presented", "issue.finalize_sent", "issue.chain_fetched"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_that_ends_with_answers_in_its_zone_goes_on_and_takes_them_away() {
    let binary = binary("failpoints/nameplate");
    let settings: Vec<_> = SETTINGS.iter().copied().chain([("NAMEPLATE_HOSTNAMES_TENANT_WILDCARDS", "on")]).collect();
    for point in ANSWER_POINTS {
        let mut product = Product::start_binary_with_peers(binary.clone(), &settings).await;
        product.kill().await;
        assert!(product.try_restart(&[("FAILPOINTS", &format!("{point}=1*return"))]).await, "{point}: it did not start");
        let names: Vec<String> = (0..sizes::size(6, 40)).map(|n| format!("*.brand{n}.test")).collect();
        let records = stream::iter(&names).map(|name| product.register(name, "crash")).buffer_unordered(8).concat().await;
        product.set_dns(&records).await;
        assert!(product.ended(Duration::from_secs(20)).await, "{point} was never reached");
        product.restart().await;
        product.all_ready(names.len(), RECOVERED).await;
        each_has_exactly_one_certificate(&product, &names).await;
        let resolver = resolver(product.peers.as_ref().expect("it was started with peers").dns.parse().unwrap());
        for record in &records {
            let answers = format!("{}.", record["data"][0].as_str().unwrap());
            let left = resolver.txt_lookup(answers).await;
            assert!(left.as_ref().is_err_and(|error| error.is_nx_domain()), "{point}: {left:?} for {record}");
        }
        println!("{point}: {} wildcards, nothing left in the answer zone", names.len());
    }
}
