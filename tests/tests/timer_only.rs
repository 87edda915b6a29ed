//! A product whose change feed is off: the timer alone finds everything that is due.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use system_tests::{product::Product, sizes::size};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_change_feed_every_hostname_still_becomes_active() {
    let count = size(20, 50);
    let settings = [("NAMEPLATE_STREAM", "off"), ("NAMEPLATE_TIMER_INTERVAL", "500ms"), ("NAMEPLATE_TIMER_GRACE", "1s")];
    let product = Product::start(&settings).await;
    let names: Vec<String> = (0..count).map(|n| format!("shop{n}.brand.test")).collect();
    let records = stream::iter(&names).map(|name| product.register(name, "timer")).buffer_unordered(8).concat().await;
    let began = Instant::now();
    product.set_dns(&records).await;
    product.all_ready(count, Duration::from_secs(60)).await;
    println!("{count} ready by the timer alone in {:?}", began.elapsed());
    let visited = stream::iter(&names).map(|name| product.served(name, Duration::from_secs(10))).buffer_unordered(8);
    assert_eq!(visited.count().await, count);
    assert_eq!(product.ca_counters().await["finalized_orders"], count);
}
