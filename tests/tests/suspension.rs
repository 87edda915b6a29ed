//! A suspended domain is not served, and comes back with what it had.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::json;
use system_tests::{product::Product, waiting::until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NAME: &str = "shop.brand.test";
/// How soon after the request a suspended domain is not served, its connections included, and a resumed one is again.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_domain_is_refused_its_connections_end_and_it_returns_without_an_order() {
    let mut product = Product::start_with_peers(&[]).await;
    let records = product.register(NAME, "brand").await;
    product.set_dns(&records).await;
    let serial = product.served(NAME, Duration::from_secs(15)).await.serial;
    let orders = product.ca_counters().await;
    let visitor = product.visitor();
    let mut open = visitor.connect(NAME).await.unwrap();
    open.write_all(format!("GET / HTTP/1.1\r\nhost: {NAME}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(open.read(&mut [0; 1024]).await.unwrap() > 0);
    let ask = product.api(Method::GET, "/v1/ask", None).await.granted();
    let ask = format!("{}?domain={NAME}", ask["path"].as_str().unwrap());

    let path = format!("/v1/domains/{NAME}");
    let began = Instant::now();
    let left = |began: Instant| SOON.saturating_sub(began.elapsed());
    let domain = product.api(Method::POST, &format!("{path}/suspend"), Some(&json!({ "reason": "unpaid" }))).await.granted();
    assert_eq!((&domain["ready"], &domain["suspension"]["reason"]), (&false.into(), &"unpaid".into()), "{domain}");
    until("the handshake is refused", left(began), async || visitor.connect(NAME).await.err()).await;
    let ended = tokio::time::timeout(left(began), async { while let Ok(1..) = open.read(&mut [0; 1024]).await {} }).await;
    ended.expect("the open connection ends");
    println!("refused, and connections ended, after {:?}", began.elapsed());
    assert_eq!(product.api(Method::GET, &ask, None).await.status, StatusCode::NOT_FOUND);

    // Neither the timer, nor a look, nor a restart brings it back.
    product.api(Method::POST, &format!("{path}/check"), None).await.granted();
    product.kill().await;
    product.restart().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let visitor = product.visitor();
    assert!(visitor.connect(NAME).await.is_err());
    let domain = product.domain(NAME, "brand").await;
    assert_eq!(
        (&domain["state"], &domain["ready"], &domain["certificate"]["serial"]),
        (&"active".into(), &false.into(), &serial.clone().into())
    );

    let began = Instant::now();
    product.api(Method::POST, &format!("{path}/resume"), None).await.granted();
    assert_eq!(product.served(NAME, left(began)).await.serial, serial, "another certificate");
    println!("served again after {:?}", began.elapsed());
    until("the API says ready", SOON, async || (product.domain(NAME, "brand").await["ready"] == true).then_some(())).await;
    assert_eq!(product.api(Method::GET, &ask, None).await.status, StatusCode::OK);
    assert_eq!(product.ca_counters().await["new_orders"], orders["new_orders"], "an order was made");
    assert!(orders["new_orders"].as_u64().is_some_and(|count| count > 0), "{orders}");

    product.api(Method::POST, &format!("{path}/suspend"), Some(&json!({ "reason": "again" }))).await.granted();
    product.api(Method::DELETE, &path, None).await.granted();
    until("it is removed", SOON, async || (product.domain(NAME, "brand").await["state"] == "removed").then_some(())).await;
    let refused = product.api(Method::POST, &format!("{path}/resume"), None).await;
    assert_eq!((refused.status, &refused.json()["code"]), (StatusCode::CONFLICT, &"domain.removed".into()));
    until("the handshake is refused", SOON, async || visitor.connect(NAME).await.err()).await;
}
