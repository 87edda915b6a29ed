//! One hostname, from registration to its first verified answer.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use system_tests::product::Product;

/// What the product promises from the record's change to the first verified answer, with its default settings.
const PROMISED: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_hostname_is_served_soon_after_its_record_is_set_and_nothing_else_is_told() {
    let product = Product::start(&[]).await;
    let records = product.register("shop.brand.test", "brand").await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["type"], "CNAME");
    product.visitor().get("shop.brand.test", "/").await.expect_err("a name without proof has no certificate");

    let began = Instant::now();
    product.set_dns(&records).await;
    let visit = product.served("shop.brand.test", PROMISED).await;
    println!("first verified answer {:?} after the record was set", began.elapsed());

    let seen = visit.answer.json();
    assert_eq!(seen["headers"]["host"], "shop.brand.test", "{seen}");
    assert_eq!(seen["headers"]["x-nameplate-tenant"], "brand", "{seen}");
    let domain = product.domain("shop.brand.test", "brand").await;
    assert_eq!(domain["state"], "active", "{domain}");
    assert_eq!(domain["certificate"]["serial"].as_str().unwrap().trim_start_matches('0'), visit.serial.trim_start_matches('0'));
}

#[tokio::test]
async fn an_apex_is_served_with_the_txt_and_the_addresses_that_the_api_asks_for() {
    let product = Product::start(&[]).await;
    let records = product.register("apex-brand.test", "brand").await;
    let types: Vec<_> = records.iter().map(|record| record["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["TXT", "A"], "{records:?}");
    product.set_dns(&records).await;
    let visit = product.served("apex-brand.test", PROMISED).await;
    assert_eq!(visit.answer.json()["headers"]["x-nameplate-tenant"], "brand");
}
