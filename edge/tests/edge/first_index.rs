//! An edge that never read an index knows no name, and does not say of any that it is unknown.

use std::{sync::atomic::Ordering, time::Duration};

use rustls::AlertDescription;
use tokio::net::TcpStream;

use crate::{
    client,
    names::alert,
    never_backwards::SHOP,
    setup::{Setup, eventually},
};

const REDIRECTED: &str = "GET / HTTP/1.1\r\nHost: shop.brand.com\r\nConnection: close\r\n\r\n";

/// An edge with an empty disk, and a source that has its name but does not say so yet.
async fn with_an_empty_disk(wait: Duration) -> Setup {
    let mut setup = Setup::with(&[SHOP]).await;
    drop(setup.edge.take());
    setup.cache = tempfile::tempdir().unwrap();
    setup.source.dead.store(true, Ordering::SeqCst);
    setup.start(|config| config.refresh.first_index_wait = wait).await;
    setup
}

#[tokio::test]
async fn who_comes_before_the_index_was_ever_read_waits_and_is_served() {
    let setup = with_an_empty_disk(Duration::from_secs(60)).await;
    let (https, http) = (setup.https(), setup.edge().http_addr);
    let visits = tokio::spawn(async move { tokio::join!(client::served(https, SHOP), client::plain(http, REDIRECTED)) });
    // Connections are made by the kernel, whoever accepts them: these come after the visitors' own, and see what becomes of those.
    let behind = [TcpStream::connect(https).await.unwrap(), TcpStream::connect(http).await.unwrap()];
    let reads = setup.source.reads.load(Ordering::SeqCst);
    eventually("the source was asked in vain", async || setup.source.reads.load(Ordering::SeqCst) > reads + 4).await;
    assert_eq!(setup.metric("nameplate_edge_connections_total{port=\"https\"}"), 0);
    assert!(!visits.is_finished());
    setup.source.dead.store(false, Ordering::SeqCst);
    let (served, redirected) = visits.await.unwrap();
    served.unwrap();
    assert!(redirected.starts_with("HTTP/1.1 308 "), "{redirected}");
    drop(behind);
}

#[tokio::test]
async fn an_index_that_cannot_be_read_for_long_is_told_as_what_it_is_and_not_as_an_unknown_name() {
    let setup = with_an_empty_disk(Duration::from_millis(50)).await;
    let refused = client::served(setup.https(), SHOP).await.unwrap_err();
    assert_eq!(alert(&refused), Some(AlertDescription::InternalError), "{refused}");
    assert_eq!((setup.handshakes("index_unread"), setup.handshakes("unknown_name")), (1, 0));
    let later = client::plain(setup.edge().http_addr, REDIRECTED).await;
    assert!(later.starts_with("HTTP/1.1 503 ") && later.contains("retry-after: 1\r\n"), "{later}");
    setup.source.dead.store(false, Ordering::SeqCst);
    assert!(setup.edge().until_ready(client::SOON).await);
    client::served(setup.https(), SHOP).await.unwrap();
    let unknown = client::served(setup.https(), "other.brand.com").await.unwrap_err();
    assert_eq!(alert(&unknown), Some(AlertDescription::UnrecognisedName), "{unknown}");
}
