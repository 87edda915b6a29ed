//! How an edge leaves.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use edge::config::Drain;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client,
    setup::{Setup, eventually},
};

const SHOP: &str = "shop.brand.com";

/// Who asks an edge while it leaves.
#[derive(Clone, Copy, Debug)]
enum Visitor {
    Http1,
    Http2,
    WebSocket,
}

/// Counts what was answered, until it is told to stop.
#[derive(Clone, Default)]
struct Load {
    done: [Arc<AtomicUsize>; 3],
    stop: Arc<AtomicBool>,
}

impl Load {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::SeqCst)
    }

    fn done(&self) -> [usize; 3] {
        self.done.each_ref().map(|done| done.load(Ordering::SeqCst))
    }

    /// Opens one connection after the other, and uses each until the edge asks to go elsewhere. Any refusal or failure ends the test.
    async fn visit(self, visitor: Visitor, https: SocketAddr) {
        let done = &self.done[visitor as usize];
        let count = || {
            done.fetch_add(1, Ordering::SeqCst);
        };
        while self.goes_on() {
            match visitor {
                Visitor::Http1 => self.over_http1(https, count).await,
                Visitor::Http2 => self.over_http2(https, count).await,
                Visitor::WebSocket => socket(https, count).await,
            }
        }
    }

    async fn over_http1(&self, https: SocketAddr, count: impl Fn()) {
        let mut sender = client::h1(https, SHOP).await;
        while self.goes_on() {
            let answer = sender.send_request(client::get(SHOP, "/echo")).await.expect("no failed request");
            assert_eq!(answer.status(), StatusCode::OK);
            let last = answer.headers().get("connection").is_some_and(|value| value == "close");
            client::text(answer).await;
            count();
            if last || sender.ready().await.is_err() {
                return;
            }
        }
    }

    async fn over_http2(&self, https: SocketAddr, count: impl Fn()) {
        let mut sender = client::h2(https, SHOP).await;
        while self.goes_on() && sender.ready().await.is_ok() {
            let Ok(answer) = sender.send_request(client::get_h2(SHOP, "/echo")).await else {
                // Not sent: GOAWAY had come.
                assert!(sender.ready().await.is_err(), "a request failed on an open connection");
                return;
            };
            assert_eq!(answer.status(), StatusCode::OK);
            client::text(answer).await;
            count();
        }
    }
}

/// A WebSocket that says something a few times, hears it back, and ends.
async fn socket(https: SocketAddr, count: impl Fn()) {
    let mut stream = client::connect(https, SHOP).await.expect("no refused connection");
    let ask = format!(
        "GET /socket HTTP/1.1\r\nHost: {SHOP}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    for _ in 0..3 {
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.expect("it comes back");
        assert_eq!(&back, b"hello");
        count();
    }
    stream.shutdown().await.unwrap();
}

/// As a supervisor restarts it: the sockets stay, and the next edge accepts where the last one stops. Connections are opened throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_refused_and_nothing_fails_while_an_edge_leaves_under_load_and_the_next_takes_over() {
    let mut setup = Setup::with(&[SHOP]).await;
    setup.until_warm().await;
    drop(setup.edge.take());
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let https = held.local_addr().unwrap();
    let drain = Drain { timeout: Duration::from_secs(16), grace: Duration::from_secs(15) };
    let first = setup.another(&held, setup.cache.path(), drain).await;
    let private = first.private_addr;

    let load = Load::default();
    let visitors = [Visitor::Http1, Visitor::Http1, Visitor::Http2, Visitor::Http2, Visitor::WebSocket, Visitor::WebSocket];
    let visits = visitors.map(|visitor| tokio::spawn(load.clone().visit(visitor, https)));
    eventually("there is load of each kind", async || load.done().iter().all(|&done| done > 20)).await;
    let mut slow = client::h1(https, SHOP).await;
    let slow = tokio::spawn(async move { client::text(slow.send_request(client::get(SHOP, "/slow")).await.unwrap()).await });

    let began = Instant::now();
    let leaving = tokio::spawn(first.shutdown());
    eventually("it is not ready", async || {
        client::plain(private, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 503 ")
    })
    .await;
    let while_draining = load.done();
    eventually("it goes on accepting while it drains", async || load.done().iter().zip(while_draining).all(|(now, then)| *now > then))
        .await;
    let report = leaving.await.unwrap();
    let next = setup.another(&held, setup.cache.path(), drain).await;
    assert_eq!(report.cut_off, 0);
    assert!(began.elapsed() < drain.timeout + Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(slow.await.unwrap(), "slow");
    let after_the_first = load.done();
    eventually("the next one serves all of them", async || load.done().iter().zip(after_the_first).all(|(now, then)| *now > then + 20))
        .await;
    load.stop.store(true, Ordering::SeqCst);
    for visit in visits {
        visit.await.unwrap();
    }
    eprintln!("left after {:?}; {:?} answers over h1, h2 and WebSocket, none refused, none failed", began.elapsed(), load.done());
    drop(next);
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
