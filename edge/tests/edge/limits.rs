//! Clients that take too long, too much, or nothing at all. Limits are short here; the ones shipped
//! are tried in [`deadlines`](crate::deadlines).

use std::{sync::Arc, time::Duration, time::Instant};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client,
    client::SOON,
    setup::{Setup, eventually},
};

const SHOP: &str = "shop.brand.com";

async fn hurried() -> Setup {
    Setup::configured(&[SHOP], |config| {
        let limits = &mut config.limits;
        limits.handshake = Duration::from_millis(300);
        limits.header_read = Duration::from_millis(300);
        limits.idle = Duration::from_millis(1500);
        limits.upload_stall = Duration::from_millis(300);
        limits.write_stall = Duration::from_millis(300);
        limits.tunnel_idle = Duration::from_millis(300);
    })
    .await
}

#[tokio::test]
async fn half_open_and_half_said_handshakes_are_closed() {
    let setup = hurried().await;
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let began = Instant::now();
        let mut tcp = TcpStream::connect(setup.https()).await.unwrap();
        let (_, ended) = client::talk(&mut tcp, bytes, SOON).await;
        assert!(ended && began.elapsed() < Duration::from_secs(3), "{bytes:?} {:?}", began.elapsed());
    }
    assert_eq!(setup.handshakes("timeout"), 2);
    let mut tcp = TcpStream::connect(setup.https()).await.unwrap();
    assert!(client::talk(&mut tcp, b"GET / HTTP/1.1\r\n\r\n", SOON).await.1);
}

#[tokio::test]
async fn slow_headers_are_closed_and_so_is_a_connection_that_never_asks() {
    let setup = hurried().await;
    let mut silent = client::connect(setup.https(), SHOP).await.unwrap();
    assert!(client::read_to_end(&mut silent, SOON).await.1);

    let mut slow = client::connect(setup.https(), SHOP).await.unwrap();
    let request = format!("GET /echo HTTP/1.1\r\nHost: {SHOP}\r\n\r\nGET /echo HTTP/1.1\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    let began = Instant::now();
    let mut buffer = [0; 1024];
    let mut dripping = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            read = slow.read(&mut buffer) => if !matches!(read, Ok(1..)) { break },
            _ = dripping.tick() => { let _ = slow.write_all(b"X-Drip: 1\r\n").await; }
        }
        assert!(began.elapsed() < SOON);
    }
    assert_eq!((setup.ended("no_request"), setup.ended("slow_header")), (1, 1));
}

#[tokio::test]
async fn idle_connections_end_over_both_protocols() {
    let setup = hurried().await;
    let mut h1 = client::h1(setup.https(), SHOP).await;
    client::text(h1.send_request(client::get(SHOP, "/echo")).await.unwrap()).await;
    let mut h2 = client::h2(setup.https(), SHOP).await;
    client::text(h2.send_request(client::get_h2(SHOP, "/echo")).await.unwrap()).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!h1.is_closed() && !h2.is_closed());
    eventually("both are closed", async || h1.is_closed() && h2.is_closed()).await;
    assert_eq!(setup.ended("idle"), 2);
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed() {
    let setup = hurried().await;
    let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
    stream.write_all(format!("GET /big HTTP/1.1\r\nHost: {SHOP}\r\n\r\n").as_bytes()).await.unwrap();
    eventually("it is closed", async || setup.ended("client_does_not_read") == 1).await;
    drop(stream);

    // Over HTTP/2 the socket takes bytes, but the stream's window does not open.
    let mut h2 = client::h2(setup.https(), SHOP).await;
    let unread = h2.send_request(client::get_h2(SHOP, "/endless")).await.unwrap();
    eventually("it is closed", async || setup.ended("client_does_not_read") == 2).await;
    drop(unread);
}

#[tokio::test]
async fn a_stalled_upload_is_answered_and_closed() {
    let setup = hurried().await;
    let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
    let request = format!("POST /upload HTTP/1.1\r\nHost: {SHOP}\r\nContent-Length: 1000\r\n\r\nabc");
    let (answer, ended) = client::talk(&mut stream, request.as_bytes(), SOON).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && ended, "{answer}");
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let setup = hurried().await;
    let mut socket = crate::serving::websocket(&setup).await;
    assert!(client::read_to_end(&mut socket, SOON).await.1);
    assert_eq!(setup.ended("tunnel_idle"), 1);
}

#[tokio::test]
async fn headers_have_a_largest_size_and_number() {
    let setup = Setup::with(&[SHOP]).await;
    let many: String = (0..120).map(|number| format!("X-{number}: 1\r\n")).collect();
    for headers in [format!("X-Big: {}\r\n", "a".repeat(40_000)), many] {
        let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
        let request = format!("GET /echo HTTP/1.1\r\nHost: {SHOP}\r\n{headers}\r\n");
        let (answer, ended) = client::talk(&mut stream, request.as_bytes(), SOON).await;
        assert!(answer.starts_with("HTTP/1.1 431 ") && ended, "{answer}");
    }
    let mut h2 = client::h2(setup.https(), SHOP).await;
    let mut request = client::get_h2(SHOP, "/echo");
    request.headers_mut().insert("x-big", http::HeaderValue::from_str(&"a".repeat(40_000)).unwrap());
    let refused = timeout(SOON, h2.send_request(request)).await.unwrap();
    assert!(refused.map_or(true, |answer| answer.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_at_once_and_the_others_go_on() {
    let setup = Setup::configured(&[SHOP], |config| config.limits.max_connections = 3).await;
    let config = Arc::new(client::config(&["http/1.1"]));
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client::h1(setup.https(), SHOP).await);
    }
    client::connect_with(config.clone(), setup.https(), SHOP).await.unwrap_err();
    assert_eq!(setup.ended("over_limit"), 1);
    for sender in &mut open {
        assert_eq!(sender.send_request(client::get(SHOP, "/echo")).await.unwrap().status(), StatusCode::OK);
    }
    drop(open);
    eventually("there is room again", async || client::connect_with(config.clone(), setup.https(), SHOP).await.is_ok()).await;
}
