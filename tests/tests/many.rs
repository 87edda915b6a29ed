//! Many hostnames at once.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use system_tests::{product::Product, sizes::size, waiting::percentile};
use tokio::sync::Semaphore;

/// How many hostnames are registered, and their records set, at once.
const AT_ONCE: usize = 16;
/// The shortest time between two visits of a name that is not served yet: visitors must not be the load that is measured.
const PAUSE: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_one_of_many_hostnames_is_served_with_exactly_one_certificate_issued_for_it() {
    let count = size(200, 1000);
    let product = Product::start(&[]).await;
    let names: Vec<String> = (0..count).map(|n| format!("shop{n}.brand{}.test", n % 50)).collect();

    let began = Instant::now();
    let (visitor, turns) = (Arc::new(product.visitor()), Arc::new(Semaphore::new(AT_ONCE)));
    let within = Duration::from_secs(60 + count as u64 / 4);
    let walks = stream::iter(&names).map(|name| {
        let (product, visitor, turns) = (&product, visitor.clone(), turns.clone());
        async move {
            let turn = turns.acquire().await.unwrap();
            let posted = Instant::now();
            let records = product.register(name, "many").await;
            product.set_dns(&records).await;
            drop(turn);
            loop {
                let visited = Instant::now();
                if visitor.get(name, "/").await.is_ok_and(|visit| visit.answer.status == 200) {
                    return posted.elapsed();
                }
                assert!(began.elapsed() < within, "{name} is not served within {within:?}");
                tokio::time::sleep(PAUSE.saturating_sub(visited.elapsed())).await;
            }
        }
    });
    // All of them wait at once: a name is visited when it is served, not when its turn comes.
    let mut times: Vec<Duration> = walks.buffer_unordered(count).collect().await;
    let all = began.elapsed();
    times.sort();
    println!(
        "{count} hostnames from POST to the first 200: first {:?}, p50 {:?}, p99 {:?}; all in {all:?}: {:.1} a second",
        times[0],
        percentile(&times, 50),
        percentile(&times, 99),
        count as f64 / all.as_secs_f64()
    );

    let counters = product.ca_counters().await;
    assert_eq!(counters["finalized_orders"], count, "{counters}");
    let each: BTreeMap<String, u64> = serde_json::from_value(counters["finalizes_by_name"].clone()).unwrap();
    let more: Vec<_> = names.iter().filter(|name| each.get(*name) != Some(&1)).collect();
    assert!(more.is_empty(), "not exactly one certificate for {more:?}");
    product.all_ready(count, Duration::from_secs(20)).await;
}
