//! Which names are served, from when, until when, and with what gone.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use http::StatusCode;
use rustls::AlertDescription;
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, time::timeout};

use crate::{
    bucket::name,
    client,
    client::SOON,
    serving::websocket,
    setup::{Setup, eventually},
};

const SHOP: &str = "shop.brand.com";

/// The alert a refused handshake ended with.
pub(crate) fn alert(error: &std::io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

#[tokio::test]
async fn three_thousand_unknown_names_get_the_alert_and_cost_no_read() {
    let setup = Setup::with(&[SHOP]).await;
    setup.until_warm().await;
    // Polling would go on reading the index; it is not what this is about.
    let bundles = setup.source.bundle_reads();
    let config = Arc::new(client::config(&["http/1.1"]));
    for number in 0..3000 {
        let refused = client::connect_with(config.clone(), setup.https(), &format!("n{number}.unknown.com")).await.unwrap_err();
        assert_eq!(alert(&refused), Some(AlertDescription::UnrecognisedName), "{refused}");
    }
    assert_eq!(setup.source.bundle_reads(), bundles);
    assert_eq!(setup.handshakes("unknown_name"), 3000);
    let refused = client::connect_with(config, setup.https(), "127.0.0.1").await.unwrap_err();
    assert_eq!(alert(&refused), Some(AlertDescription::UnrecognisedName));
    assert_eq!(setup.handshakes("no_sni"), 1);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_to_new_handshakes_while_open_connections_go_on() {
    let setup = Setup::with(&[SHOP]).await;
    let mut open = client::h2(setup.https(), SHOP).await;
    assert_eq!(open.send_request(client::get_h2(SHOP, "/echo")).await.unwrap().status(), StatusCode::OK);
    for version in 2..5 {
        let renewed = setup.bucket.put(SHOP, "acme", version);
        eventually("the new certificate is served", async || client::served(setup.https(), SHOP).await.unwrap() == renewed).await;
        assert_eq!(open.send_request(client::get_h2(SHOP, "/echo")).await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn removal_closes_every_kind_of_connection_and_wipes_the_key() {
    let setup = Setup::configured(&[SHOP, "other.brand.com"], |config| config.limits.close_grace = Duration::from_millis(500)).await;
    setup.until_warm().await;
    let sealed = setup.bucket.bundle(SHOP, "acme", 9).0;
    let pack = || std::fs::read(setup.cache.path().join("bundles.pack")).unwrap();
    let has_name = |bytes: &[u8]| bytes.windows(SHOP.len()).any(|window| window == SHOP.as_bytes());
    assert!(has_name(&pack()));

    let mut idle = client::connect(setup.https(), SHOP).await.unwrap();
    idle.write_all(format!("GET /echo HTTP/1.1\r\nHost: {SHOP}\r\n\r\n").as_bytes()).await.unwrap();
    let mut buffer = [0; 4096];
    assert!(timeout(SOON, idle.read(&mut buffer)).await.unwrap().unwrap() > 0);
    let mut h2 = client::h2(setup.https(), SHOP).await;
    let mut endless = h2.send_request(client::get_h2(SHOP, "/endless")).await.unwrap().into_body();
    let mut socket = websocket(&setup).await;
    let mut other = client::h1(setup.https(), "other.brand.com").await;

    let began = Instant::now();
    setup.bucket.remove(SHOP, 2);
    let (_, ended) = client::read_to_end(&mut idle, SOON).await;
    assert!(ended, "HTTP/1");
    let (_, ended) = client::read_to_end(&mut socket, SOON).await;
    assert!(ended, "WebSocket");
    let drained = timeout(SOON, async {
        use http_body_util::BodyExt;
        while let Some(Ok(_)) = endless.frame().await {}
    });
    assert!(drained.await.is_ok(), "HTTP/2");
    assert!(began.elapsed() < Duration::from_secs(10));
    eventually("HTTP/2 is closed", async || h2.is_closed()).await;
    client::served(setup.https(), SHOP).await.unwrap_err();
    assert_eq!(other.send_request(client::get("other.brand.com", "/echo")).await.unwrap().status(), StatusCode::OK);
    eventually("the bundle is wiped from the local disk", async || !has_name(&pack())).await;

    // Nothing late brings it back: not the old bundle, not the old index.
    let bytes = bundles::SiteObject::Present(sealed).to_bytes().unwrap();
    setup.bucket.write(&bundles::site_object(&name(SHOP)), &bytes);
    let mut shard = bundles::IndexShard::empty(bundles::shard_of(&name(SHOP)));
    shard.merge(&name(SHOP), crate::bucket::entry(Some("acme"), 1, b"old")).unwrap();
    shard.generation = 100;
    setup.bucket.write(&bundles::index_object(shard.shard), &shard.to_bytes());
    let polls = setup.metric("nameplate_edge_source_reads_total{kind=\"list\"}");
    eventually("three more polls", async || setup.metric("nameplate_edge_source_reads_total{kind=\"list\"}") > polls + 3).await;
    client::served(setup.https(), SHOP).await.unwrap_err();
}

#[tokio::test]
async fn a_name_that_changes_hands_takes_its_connections_with_it() {
    let setup = Setup::with(&[SHOP]).await;
    let mut former = client::h2(setup.https(), SHOP).await;
    let echoed = client::text(former.send_request(client::get_h2(SHOP, "/echo")).await.unwrap()).await;
    assert!(echoed.contains("x-nameplate-tenant: acme\n"));
    setup.bucket.put(SHOP, "newcomer", 2);
    eventually("the former connection is closed", async || former.is_closed()).await;
    let echoed = client::text(client::fetch(setup.https(), SHOP, "/echo").await).await;
    assert!(echoed.contains("x-nameplate-tenant: newcomer\n"), "{echoed}");
}

#[tokio::test]
async fn a_name_that_is_not_on_the_disk_yet_is_read_once_however_many_ask() {
    // No background reads: a pace of one in a very long while.
    let setup = Setup::configured(&[SHOP, "a.brand.com"], |config| config.refresh.fill_per_second = 1).await;
    let before = setup.source.bundles.lock().unwrap().len();
    let asks = (0..20).map(|_| client::served(setup.https(), SHOP));
    for served in futures_util::future::join_all(asks).await {
        served.unwrap();
    }
    let reads = setup.source.bundles.lock().unwrap()[before..].iter().filter(|object| object.contains(SHOP)).count();
    assert!(reads <= 1, "{reads} reads");
}

#[tokio::test]
async fn with_the_source_gone_every_name_is_served_even_after_a_restart() {
    let hostnames: Vec<String> = (0..40).map(|number| format!("shop-{number}.brand.com")).collect();
    let mut setup = Setup::with(&[]).await;
    setup.bucket.put_many(&hostnames, "acme");
    eventually("all names are known", async || setup.edge().names() == (40, 40)).await;
    setup.source.dead.store(true, Ordering::SeqCst);
    std::fs::remove_dir_all(setup.bucket.path()).unwrap();
    for hostname in &hostnames {
        client::served(setup.https(), hostname).await.unwrap();
    }
    drop(setup.edge.take());
    eventually("the cache folder is free", async || std::fs::File::open(setup.cache.path().join("lock")).unwrap().try_lock().is_ok()).await;
    setup.start(|_| {}).await;
    assert!(setup.edge().until_ready(Duration::from_secs(1)).await);
    for hostname in &hostnames {
        let echoed = client::text(client::fetch(setup.https(), hostname, "/echo").await).await;
        assert!(echoed.contains("x-nameplate-tenant: acme\n"));
    }
    let challenge = "GET /.well-known/acme-challenge/token HTTP/1.1\r\nHost: x.com\r\nConnection: close\r\n\r\n";
    assert!(client::plain(setup.edge().http_addr, challenge).await.ends_with("token.thumbprint"));
}

#[tokio::test]
async fn a_removed_name_stays_removed_after_a_restart_without_the_source() {
    let mut setup = Setup::with(&[SHOP, "other.brand.com"]).await;
    setup.until_warm().await;
    setup.bucket.remove(SHOP, 2);
    eventually("the name is gone", async || client::served(setup.https(), SHOP).await.is_err()).await;
    setup.source.dead.store(true, Ordering::SeqCst);
    drop(setup.edge.take());
    eventually("the cache folder is free", async || std::fs::File::open(setup.cache.path().join("lock")).unwrap().try_lock().is_ok()).await;
    setup.start(|_| {}).await;
    client::served(setup.https(), SHOP).await.unwrap_err();
    client::served(setup.https(), "other.brand.com").await.unwrap();
}

#[tokio::test]
async fn an_edge_without_anything_becomes_ready_when_its_source_answers() {
    let mut setup = Setup::with(&[]).await;
    drop(setup.edge.take());
    setup.cache = tempfile::tempdir().unwrap();
    setup.source.dead.store(true, Ordering::SeqCst);
    setup.start(|_| {}).await;
    assert!(!setup.edge().until_ready(Duration::from_millis(300)).await);
    let ready = async || client::plain(setup.edge().private_addr, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(ready().await.starts_with("HTTP/1.1 503 "));
    setup.source.dead.store(false, Ordering::SeqCst);
    assert!(setup.edge().until_ready(SOON).await);
    assert!(ready().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_names_start_quickly_and_are_all_served_with_the_source_gone() {
    let hostnames: Vec<String> = (0..10_000).map(|number| format!("shop-{number}.brand-{}.com", number % 997)).collect();
    let mut setup = Setup::configured(&[], |config| config.refresh.fill_per_second = 1).await;
    setup.bucket.put_many(&hostnames, "acme");
    drop(setup.edge.take());
    eventually("the cache folder is free", async || std::fs::File::open(setup.cache.path().join("lock")).unwrap().try_lock().is_ok()).await;
    setup.start(|config| config.refresh.fill_per_second = 20_000).await;
    assert!(setup.edge().until_ready(SOON).await);
    let began = Instant::now();
    while setup.edge().names() != (10_000, 10_000) {
        assert!(began.elapsed() < Duration::from_secs(120), "{:?}", setup.edge().names());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let filled = began.elapsed();
    // It is ready before its disk has all of the index.
    eventually("the index is kept", async || !setup.cache.path().join("index/unfinished").exists()).await;
    setup.source.dead.store(true, Ordering::SeqCst);
    drop(setup.edge.take());
    eventually("the cache folder is free", async || std::fs::File::open(setup.cache.path().join("lock")).unwrap().try_lock().is_ok()).await;
    let began = Instant::now();
    // A tenth of the keys fit into memory: most handshakes read the disk.
    setup.start(|config| config.certificate_cache_bytes = 5 << 20).await;
    assert!(setup.edge().until_ready(Duration::from_secs(5)).await);
    let started = began.elapsed();
    let config = Arc::new(client::config(&["http/1.1"]));
    let began = Instant::now();
    for batch in hostnames.chunks(64) {
        let shakes = batch.iter().map(|hostname| client::connect_with(config.clone(), setup.https(), hostname));
        for shake in futures_util::future::join_all(shakes).await {
            shake.unwrap();
        }
    }
    eprintln!("10,000 names: filled in {filled:?}, restarted from disk in {started:?}, all shaken hands with in {:?}", began.elapsed());
    assert!(started < Duration::from_secs(5), "{started:?}");
    assert!(setup.metric("nameplate_edge_certificate_cache_bytes") <= 5 << 20);
}
