//! How an edge leaves.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::{
    client,
    setup::{Setup, eventually},
};

const SHOP: &str = "shop.brand.com";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_an_edge_drains_under_load() {
    let mut setup = Setup::configured(&[SHOP], |config| {
        // Whoever connects is accepted until the load is over, however busy the machine is.
        config.drain.timeout = Duration::from_secs(10);
        config.drain.grace = Duration::from_secs(5);
    })
    .await;
    let (https, private) = (setup.https(), setup.edge().private_addr);
    let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let load = |http2: bool| {
        let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
        // New connections as long as they are accepted; each used until the edge asks to go elsewhere.
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                if http2 {
                    let mut sender = client::h2(https, SHOP).await;
                    while !stop.load(Ordering::SeqCst) && sender.ready().await.is_ok() {
                        let Ok(answer) = sender.send_request(client::get_h2(SHOP, "/echo")).await else {
                            assert!(sender.ready().await.is_err(), "a request failed on an open connection");
                            break;
                        };
                        assert_eq!(answer.status(), StatusCode::OK);
                        client::text(answer).await;
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                } else {
                    let mut sender = client::h1(https, SHOP).await;
                    while !stop.load(Ordering::SeqCst) {
                        let answer = sender.send_request(client::get(SHOP, "/echo")).await.expect("no failed request");
                        assert_eq!(answer.status(), StatusCode::OK);
                        let last = answer.headers().get("connection").is_some_and(|value| value == "close");
                        client::text(answer).await;
                        done.fetch_add(1, Ordering::SeqCst);
                        if last || sender.ready().await.is_err() {
                            break;
                        }
                    }
                }
            }
        })
    };
    let tasks: Vec<_> = (0..4).map(|number| load(number % 2 == 0)).collect();
    eventually("there is load", async || done.load(Ordering::SeqCst) > 100).await;
    let mut slow = client::h1(https, SHOP).await;
    let slow = tokio::spawn(async move { client::text(slow.send_request(client::get(SHOP, "/slow")).await.unwrap()).await });

    let edge = setup.edge.take().unwrap();
    let leaving = tokio::spawn(edge.shutdown());
    eventually("it is not ready", async || {
        client::plain(private, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 503 ")
    })
    .await;
    let while_draining = done.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(done.load(Ordering::SeqCst) > while_draining, "it goes on accepting while it drains");
    stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(slow.await.unwrap(), "slow");
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
