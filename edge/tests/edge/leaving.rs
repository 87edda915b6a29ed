//! How an edge leaves.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use edge::config::Drain;

use crate::{
    client,
    never_backwards::SHOP,
    setup::{Setup, eventually},
    visitors::Load,
};

/// As a supervisor restarts it: the sockets stay, and the next edge accepts where the last one stops. Connections are opened throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_and_nothing_fails_while_an_edge_leaves_under_load_and_the_next_takes_over() {
    let mut setup = Setup::with(&[SHOP]).await;
    setup.until_warm().await;
    drop(setup.edge.take());
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let https = held.local_addr().unwrap();
    let drain = Drain { timeout: Duration::from_secs(16), grace: Duration::from_secs(15), linger: Duration::from_secs(7) };
    let first = setup.another(&held, setup.cache.path(), drain).await;
    let private = first.private_addr;

    let mut load = Load::start(https);
    load.goes_on("before it leaves", 10).await;
    let mut slow = client::h1(https, SHOP).await;
    let slow = tokio::spawn(async move { client::text(slow.send_request(client::get(SHOP, "/slow")).await.unwrap()).await });

    let began = Instant::now();
    let leaving = tokio::spawn(first.shutdown());
    eventually("it is not ready", async || {
        client::plain(private, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 503 ")
    })
    .await;
    let report = leaving.await.unwrap();
    let next = setup.another(&held, setup.cache.path(), drain).await;
    assert_eq!(report.cut_off, 0);
    assert!(began.elapsed() < drain.timeout + Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(slow.await.unwrap(), "slow");
    load.goes_on("at the next one", 10).await;
    load.stop().await;
    eprintln!("left after {:?}; {:?} connections, {:?} answers", began.elapsed(), load.connections(), load.answers());
    drop(next);
}

/// Where no load balancer sends anything after the signal, nothing is accepted from it on, and nobody was asked to go elsewhere before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_is_answered_once_more_after_nothing_new_is_accepted() {
    let mut setup = Setup::configured(&[SHOP], |config| {
        let minute = Duration::from_secs(60);
        config.drain = Drain { timeout: minute, grace: minute, linger: minute };
    })
    .await;
    let mut kept = client::h1(setup.https(), SHOP).await;
    client::text(kept.send_request(client::get(SHOP, "/echo")).await.unwrap()).await;
    let (https, leaving) = (setup.https(), tokio::spawn(setup.edge.take().unwrap().shutdown()));
    eventually("nothing new is accepted", async || tokio::net::TcpStream::connect(https).await.is_err()).await;
    let answer = kept.send_request(client::get(SHOP, "/echo")).await.unwrap();
    assert_eq!(answer.headers()["connection"], "close");
    client::text(answer).await;
    assert_eq!(leaving.await.unwrap().cut_off, 0);
}

#[tokio::test]
async fn what_does_not_finish_within_the_grace_period_is_cut_off_and_counted() {
    let mut setup = Setup::configured(&[SHOP], |config| {
        config.drain.timeout = Duration::from_millis(400);
        config.drain.grace = Duration::from_millis(300);
    })
    .await;
    let mut sender = client::h1(setup.https(), SHOP).await;
    let never = tokio::spawn(async move { sender.send_request(client::get(SHOP, "/never")).await.is_err() });
    eventually("the request is there", async || setup.origin.requests.load(Ordering::SeqCst) == 1).await;
    let began = Instant::now();
    let report = setup.edge.take().unwrap().shutdown().await;
    assert_eq!(report.cut_off, 1);
    assert!(began.elapsed() < Duration::from_secs(3));
    assert!(never.await.unwrap());
}
