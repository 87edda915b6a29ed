//! Webhooks over real HTTPS: whatever happens to receiver and product, every event of the feed arrives, signed and numbered.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeMap, time::Duration};

use http::Method;
use serde_json::{Value, json};
use system_tests::{
    process::binary,
    product::Product,
    receiver::{Received, Receiver},
    sizes::size,
    waiting::until,
};
use tokio::process::Command;

/// How long everything may take once the last fault is over; the first waits between attempts are 5 and 15 seconds.
const RECOVERED: Duration = Duration::from_secs(90);

async fn start() -> (Product, Receiver, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("receiver.pem");
    let receiver = Receiver::start(&root).await;
    let root = root.display().to_string();
    let settings =
        [("NAMEPLATE_WEBHOOKS_ROOT", root.as_str()), ("NAMEPLATE_WEBHOOKS_ALLOW_PRIVATE", "on"), ("NAMEPLATE_WEBHOOKS_INTERVAL", "100ms")];
    (Product::start(&settings).await, receiver, folder)
}

/// The whole feed.
async fn feed(product: &Product) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = product.api(Method::GET, &format!("/v1/events?limit=200{cursor}"), None).await.granted();
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        cursor = format!("&after={}", page["cursor"].as_str().unwrap());
        if page["more"] == false {
            return all;
        }
    }
}

/// What arrived by its number; a number that came twice must have said the same.
fn by_number(received: &[Received]) -> BTreeMap<u64, Value> {
    let mut found = BTreeMap::new();
    for message in received {
        let body = message.json();
        let number = body["sequence"].as_u64().expect("an event has a number");
        let before = found.insert(number, body["data"].clone());
        assert!(before.is_none_or(|before| before == body["data"]), "number {number} named two events");
    }
    found
}

/// Waits until what arrived is the feed.
async fn arrives(product: &Product, receiver: &Receiver) -> usize {
    let what = format!("every event arrives; logs are in {}", product.folder().display());
    until(&what, RECOVERED, async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (told, happened) = (by_number(&receiver.received()), feed(product).await);
        let numbers: Vec<u64> = told.keys().copied().collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "there is a gap");
        (told.into_values().collect::<Vec<_>>() == happened).then_some(happened.len())
    })
    .await
}

async fn command(product: &Product, arguments: &[&str]) -> std::process::Output {
    let mut command = Command::new(binary("nameplate"));
    command.current_dir(product.folder()).args(arguments).env_remove("NAMEPLATE_CONFIG");
    command.env("NAMEPLATE_API", format!("http://{}", product.api_address())).env("NAMEPLATE_API_KEY", product.key());
    command.kill_on_drop(true).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_arrives_signed_and_in_order_though_receiver_and_product_fail() {
    let (mut product, mut receiver, _folder) = start().await;
    let made = product.api(Method::POST, "/v1/webhooks", Some(&json!({ "url": receiver.url() }))).await.granted();
    let (id, secret) = (made["id"].as_str().unwrap().to_owned(), made["secret"].as_str().unwrap().to_owned());
    let (rounds, names, mut interrupted) = (size(4, 12), size(30, 100), 0);
    let mut round = 0;
    // A crash may come when everything was just delivered; then there is another.
    while round < rounds || (interrupted == 0 && round < 10 * rounds) {
        match round % 2 {
            0 => receiver.leave().await,
            _ => receiver.answer(503),
        }
        let mut records = Vec::new();
        for name in 0..names {
            records.extend(product.register(&format!("hook{name}.round{round}.test"), "hooks").await);
        }
        product.set_dns(&records).await;
        let before = receiver.received().len();
        match round % 2 {
            0 => receiver.come_back().await,
            _ => receiver.answer(200),
        }
        // Only so that the test need not wait as long as an endpoint would.
        product.api(Method::POST, &format!("/v1/webhooks/{id}/redeliver"), None).await.granted();
        until("deliveries go on", RECOVERED, async || (receiver.received().len() > before + 3).then_some(())).await;
        product.kill().await;
        let taken = by_number(&receiver.received()).len();
        product.restart().await;
        interrupted += usize::from(taken < feed(&product).await.len());
        round += 1;
    }
    let rounds = round;
    assert!(interrupted > 0, "no crash met an event on its way");
    let count = arrives(&product, &receiver).await;
    let received = receiver.received();
    assert!(count >= rounds * names, "{count} events");
    assert!(received.iter().all(|message| message.is_signed_with(&secret)), "a signature is wrong");
    assert!(!received[0].is_signed_with("whsec_AAAA"), "any secret would do");
    // Who drops what it has seen sees one order.
    let mut newest = 0;
    for message in &received {
        let number = message.json()["sequence"].as_u64().unwrap();
        assert!(number <= newest + 1, "{number} came before {}", newest + 1);
        newest = newest.max(number);
        assert_eq!(message.headers["webhook-id"], format!("msg_{id}_{number}"));
    }
    let connections = receiver.connections();
    println!(
        "{count} events, {} messages over {connections} connections, {interrupted} of {rounds} crashes amid deliveries",
        received.len()
    );
    assert!(connections * 3 < received.len(), "{connections} connections for {} messages", received.len());
    let status = product.api(Method::GET, &format!("/v1/webhooks/{id}"), None).await.granted();
    assert_eq!((&status["dead_letters"], &status["disabled"]), (&json!([]), &Value::Null), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_registers_tests_rotates_and_removes_a_webhook() {
    let (product, receiver, _folder) = start().await;
    let added = command(&product, &["--json", "webhooks", "add", &receiver.url(), "--event", "claim_registered"]).await;
    let added: Value = serde_json::from_slice(&added.stdout).unwrap();
    let (id, old) = (added["id"].as_str().unwrap(), added["secret"].as_str().unwrap());
    assert!(command(&product, &["webhooks", "test", id]).await.status.success());
    let rotated: Value = serde_json::from_slice(&command(&product, &["--json", "webhooks", "rotate", id]).await.stdout).unwrap();
    receiver.answer(302);
    let refused = command(&product, &["webhooks", "test", id]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("redirects are not followed"), "{refused:?}");
    receiver.answer(200);
    product.register("shop.brand.test", "brand").await;
    let messages = until("the event arrives", RECOVERED, async || Some(receiver.received()).filter(|all| all.len() >= 2)).await;
    assert_eq!((&messages[0].json()["type"], &messages[1].json()["type"]), (&"webhook.test".into(), &"claim_registered".into()));
    let new = rotated["secret"].as_str().unwrap();
    assert!(messages[0].is_signed_with(old) && !messages[0].is_signed_with(new));
    assert!(messages[1].is_signed_with(old) && messages[1].is_signed_with(new), "both sign while receivers change over");
    let shown = command(&product, &["webhooks", "show", id]).await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&receiver.url()) && !shown.contains("whsec_"), "{shown}");
    assert!(command(&product, &["webhooks", "remove", id]).await.status.success());
    assert_eq!(command(&product, &["webhooks", "show", id]).await.status.code(), Some(3));
    let log = std::fs::read_to_string(product.log()).unwrap();
    assert!(!log.contains("whsec_"), "a secret stands in the log {}", product.log().display());
}
