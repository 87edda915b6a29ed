//! Which origin a request goes to.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use domains::OriginName;
use edge::config::OriginPlace;
use http::StatusCode;

use crate::{
    client,
    origin::Origin,
    setup::{Setup, eventually},
};

const SHOP: &str = "shop.client-brand.com";

fn origin(text: &str) -> OriginName {
    OriginName::parse(text).unwrap()
}

/// Publishes the shop with an origin.
fn put(setup: &Setup, version: u64, name: Option<&str>) {
    let (bundle, _) = setup.bucket.bundle(SHOP, "acme", version);
    setup.bucket.put_bundle(bundles::Bundle { origin: name.map(origin), ..bundle });
}

#[tokio::test]
async fn a_sites_requests_go_to_the_origin_its_bundle_names_on_open_connections_too_and_after_a_restart() {
    let other = Origin::start().await;
    let places = BTreeMap::from([(origin("eu"), OriginPlace::parse(&other.address.to_string()).unwrap())]);
    let mut setup = Setup::configured(&[SHOP], |config| config.origins = places.clone()).await;
    let asked = |setup: &Setup| (setup.origin.requests.load(Ordering::SeqCst), other.requests.load(Ordering::SeqCst));
    let mut kept = client::h2(setup.https(), SHOP).await;
    let mut fetch = async || {
        let answer = kept.send_request(client::get_h2(SHOP, "/echo")).await.unwrap();
        let status = answer.status();
        client::text(answer).await;
        status
    };
    assert_eq!((fetch().await, asked(&setup)), (StatusCode::OK, (1, 0)));

    put(&setup, 2, Some("eu"));
    let deadline = tokio::time::Instant::now() + client::SOON;
    while asked(&setup).1 == 0 {
        assert_eq!(fetch().await, StatusCode::OK);
        assert!(tokio::time::Instant::now() < deadline, "its requests do not go to the other origin");
    }
    let before = asked(&setup).0;
    assert_eq!(client::fetch(setup.https(), SHOP, "/echo").await.status(), StatusCode::OK);
    assert_eq!(asked(&setup).0, before, "the usual origin is asked all the same");

    // What the disk has says so, too.
    setup.until_warm().await;
    setup.edge.take().unwrap().shutdown().await;
    setup.source.dead.store(true, Ordering::SeqCst);
    setup.start(|config| config.origins = places).await;
    assert_eq!(client::fetch(setup.https(), SHOP, "/echo").await.status(), StatusCode::OK);
    assert_eq!(asked(&setup).0, before);
}

#[tokio::test]
async fn a_site_whose_origin_the_edge_was_not_told_of_is_refused_and_never_given_to_another() {
    let setup = Setup::with(&[SHOP]).await;
    put(&setup, 2, Some("eu"));
    eventually("the name of its origin is known", async || client::fetch(setup.https(), SHOP, "/echo").await.status() != StatusCode::OK)
        .await;
    let before = setup.origin.requests.load(Ordering::SeqCst);
    assert_eq!(client::fetch(setup.https(), SHOP, "/echo").await.status(), StatusCode::BAD_GATEWAY);
    assert!(setup.metric("nameplate_edge_requests_refused_total{reason=\"origin_unknown\"}") >= 1);
    assert_eq!(setup.origin.requests.load(Ordering::SeqCst), before, "it went to an origin that is not its own");
}
