//! One domain's requests go to another origin than the rest.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use http::Method;
use serde_json::json;
use system_tests::{origin::Origin, product::Product, waiting::until};

const NAME: &str = "shop.brand.test";
/// How soon after the request its requests go elsewhere.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_domains_requests_go_to_the_origin_that_the_operator_says_with_the_certificate_it_has() {
    let other = Origin::start().await;
    let product = Product::start(&[("NAMEPLATE_ORIGINS", &format!("eu=http://{}", other.address))]).await;
    for name in [NAME, "www.brand.test"] {
        let records = product.register(name, "brand").await;
        product.set_dns(&records).await;
    }
    let serial = product.served(NAME, SOON).await.serial;
    product.served("www.brand.test", SOON).await;
    let orders = product.ca_counters().await["new_orders"].clone();
    let visitor = product.visitor();
    // The other origin says hello, and the demo origin tells what it received.
    let is_at_other = async |name: &str| visitor.get(name, "/").await.unwrap().answer.body == b"hello\n"[..];
    assert!(!is_at_other(NAME).await);

    let path = format!("/v1/domains/{NAME}/origin");
    let domain = product.api(Method::PUT, &path, Some(&json!({ "origin": "eu" }))).await.granted();
    assert_eq!((&domain["origin"], &domain["ready"]), (&"eu".into(), &true.into()), "{domain}");
    until("its requests go to the other origin", SOON, async || is_at_other(NAME).await.then_some(())).await;
    assert!(!is_at_other("www.brand.test").await, "another domain's requests went with it");
    assert_eq!(visitor.get(NAME, "/").await.unwrap().serial, serial);

    product.api(Method::PUT, &path, Some(&json!({ "origin": null }))).await.granted();
    until("its requests go to the usual origin again", SOON, async || (!is_at_other(NAME).await).then_some(())).await;
    assert_eq!(product.ca_counters().await["new_orders"], orders, "an order was made");
}
