//! The crash test over the home on AWS: tables, queues and bucket in a stand-in for AWS, and a CA that refuses one nonce in five.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use system_tests::{chance::Chance, pebble::Demands, process::binary, product::Product, sizes};

/// As in the crash test over the home on this machine; and waits after a refusal that a test has time for.
const SETTINGS: &[(&str, &str)] = &[
    ("NAMEPLATE_ISSUANCE_LEASE", "3s"),
    ("NAMEPLATE_ISSUANCE_FIRST_RETRY", "1s"),
    ("NAMEPLATE_TIMER_INTERVAL", "500ms"),
    ("NAMEPLATE_TIMER_GRACE", "1s"),
];
/// The named moments at which a build with failpoints ends itself.
const CRASH_POINTS: &[&str] =
    &["issue.reserved", "issue.order_answered", "issue.finalize_sent", "issue.chain_fetched", "publish.bundle_put", "publish.index_put"];
/// How long everything may take after the last crash, on a machine that does other things, too.
const RECOVERED: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_on_aws_killed_at_random_moments_gets_one_certificate_a_name_from_a_ca_that_refuses_nonces() {
    let (count, kills) = (sizes::size(40, 200), sizes::size(6, 20));
    let mut chance = Chance::seeded("crash on aws");
    let mut product = Product::start_on_aws_with_pebble(&Demands { bad_nonces: 20, ..Demands::default() }, SETTINGS).await;
    let names: Vec<String> = (0..count).map(|number| format!("shop{number}.brand.test")).collect();
    let mut interrupted = 0;
    for round in 0..kills {
        let batch = &names[count * round / kills..count * (round + 1) / kills];
        let records = stream::iter(batch).map(|name| product.register(name, "crash")).buffer_unordered(8).concat().await;
        product.set_dns(&records).await;
        // From the first look to the last certificate of a batch, each round in its own part of that time.
        let part = 2_200 / kills;
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

    each_is_served_with_the_only_certificate(&product, &names).await;
    nonces_were_refused(&product, names.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_on_aws_that_ends_at_a_named_moment_takes_the_same_order_up_again() {
    let program = binary("failpoints/nameplate");
    let mut product = Product::start_binary_on_aws_with_pebble(program, &Demands { bad_nonces: 20, ..Demands::default() }, SETTINGS).await;
    let (each, mut all) = (sizes::size(6, 50), Vec::new());
    for point in CRASH_POINTS {
        product.kill().await;
        assert!(product.try_restart(&[("FAILPOINTS", &format!("{point}=1*return"))]).await, "{point}: it did not start");
        let names: Vec<String> = (0..each).map(|number| format!("{}-{number}.brand.test", point.replace(['.', '_'], "-"))).collect();
        let records = stream::iter(&names).map(|name| product.register(name, "crash")).buffer_unordered(8).concat().await;
        product.set_dns(&records).await;
        assert!(product.ended(Duration::from_secs(30)).await, "{point} was never reached");
        product.restart().await;
        all.extend(names);
        product.all_ready(all.len(), RECOVERED).await;
        each_is_served_with_the_only_certificate(&product, &all).await;
        println!("{point}: taken up again");
    }
    nonces_were_refused(&product, all.len());
}

/// What is asked again was refused: of some forty orders all are taken at once in one run of ten thousand.
fn nonces_were_refused(product: &Product, orders: usize) {
    let pebble = product.pebble();
    assert!(pebble.requests("order-plz") > orders, "no nonce was refused: the test shows nothing; the log is {}", pebble.log.display());
}

/// Each is served with a certificate that Pebble knows, and Pebble made no more than one for each.
async fn each_is_served_with_the_only_certificate(product: &Product, names: &[String]) {
    let pebble = product.pebble();
    for name in names {
        let visit = product.served(name, Duration::from_secs(30)).await;
        assert!(pebble.certificate(&visit.serial).await.is_some(), "{name} has a certificate that Pebble did not make");
    }
    let (issued, asked) = (pebble.logged("Issued certificate serial"), pebble.requests("order-plz"));
    println!("{issued} certificates for {} names, {asked} requests for an order", names.len());
    let folder = product.folder().display();
    assert_eq!(issued, names.len(), "one certificate a name; the log is {}, data in {folder}", pebble.log.display());
}
