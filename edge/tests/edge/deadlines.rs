//! The limits as they are shipped, against clients that stall in each phase of a connection. A client stalls in real time; then the clock is
//! paused, and jumps to the next thing that is due, so that nobody waits.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_rustls::client::TlsStream;

use crate::{
    client,
    client::SOON,
    raw_h2::{self, block, frame},
    setup::{Setup, eventually},
};

const SHOP: &str = "shop.brand.com";
/// Within this a client that stalls is gone.
const BOUND: Duration = Duration::from_secs(15);
/// How often one that is only slow says a little more.
const DRIP: Duration = Duration::from_secs(2);

/// An edge with all its limits as they are shipped.
async fn shipped() -> Setup {
    let setup = Setup::configured(&[SHOP], |config| config.refresh.poll_interval = Duration::from_millis(500)).await;
    setup.until_warm().await;
    setup
}

/// How long the edge keeps a connection open whose client says only this, again and again; what comes is read.
async fn kept(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), drip: &[u8]) -> Duration {
    tokio::time::pause();
    let (began, mut dripping, mut buffer) = (Instant::now(), tokio::time::interval(DRIP), [0; 16 * 1024]);
    let kept = loop {
        tokio::select! {
            read = stream.read(&mut buffer) => if !matches!(read, Ok(1..)) { break began.elapsed() },
            _ = dripping.tick() => if !drip.is_empty() {
                // The end is seen by whoever reads.
                let _ = stream.write_all(drip).await;
                let _ = stream.flush().await;
            },
        }
        assert!(began.elapsed() < Duration::from_secs(600), "never closed");
    };
    tokio::time::resume();
    kept
}

/// How long the edge stands a client that reads nothing.
async fn stood(setup: &Setup) -> Duration {
    tokio::time::pause();
    let began = Instant::now();
    while setup.ended("client_does_not_read") == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(began.elapsed() < Duration::from_secs(600), "never closed");
    }
    tokio::time::resume();
    began.elapsed()
}

async fn said(alpn: &str, bytes: &[u8]) -> (Setup, TlsStream<TcpStream>) {
    let setup = shipped().await;
    let mut stream = client::connect_with(client::config(&[alpn]).into(), setup.https(), SHOP).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    (setup, stream)
}

fn within_bound(kept: Duration) {
    assert!(kept <= BOUND && kept >= Duration::from_secs(5), "closed after {kept:?}");
}

fn request(path: &str) -> Vec<u8> {
    block(
        &[(":method", "POST"), (":scheme", "https"), (":authority", SHOP), (":path", path)]
            .map(|(name, value)| (name.into(), value.into())),
    )
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_half_a_hello_is_closed() {
    let setup = shipped().await;
    for (said, drip) in [(&b""[..], &b""[..]), (b"\x16\x03\x01\x02\x00\x01\x00", b""), (b"\x16\x03\x01\x02\x00\x01\x00", b"\x01")] {
        let mut tcp = TcpStream::connect(setup.https()).await.unwrap();
        tcp.write_all(said).await.unwrap();
        within_bound(kept(&mut tcp, drip).await);
    }
    assert_eq!(setup.handshakes("timeout"), 3);
}

#[tokio::test]
async fn a_connection_that_never_asks_is_closed() {
    let (setup, mut stream) = said("http/1.1", b"").await;
    within_bound(kept(&mut stream, b"").await);
    assert_eq!(setup.ended("no_request"), 1);
}

#[tokio::test]
async fn a_header_that_comes_slowly_is_closed() {
    let begun = format!("GET /echo HTTP/1.1\r\nHost: {SHOP}\r\n");
    let (setup, mut stream) = said("http/1.1", begun.as_bytes()).await;
    within_bound(kept(&mut stream, b"X-Drip: 1\r\n").await);
    assert_eq!(setup.ended("no_request") + setup.ended("slow_header"), 1);

    // Also after a request.
    let (setup, mut stream) = said("http/1.1", format!("{begun}\r\n{begun}").as_bytes()).await;
    within_bound(kept(&mut stream, b"X-Drip: 1\r\n").await);
    assert_eq!((setup.origin.requests.load(Ordering::SeqCst), setup.ended("slow_header")), (1, 1));
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_closed_over_either_protocol() {
    let begun = format!("POST /upload HTTP/1.1\r\nHost: {SHOP}\r\nContent-Length: 100000\r\n\r\nabc");
    let (setup, mut stream) = said("http/1.1", begun.as_bytes()).await;
    within_bound(kept(&mut stream, b"x").await);
    drop(setup);

    let begun = [raw_h2::PREFACE, &frame(raw_h2::HEADERS, raw_h2::END_HEADERS, 1, &request("/upload"))].concat();
    let (_setup, mut stream) = said("h2", &begun).await;
    tokio::time::pause();
    let began = Instant::now();
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
    let dripping = async {
        loop {
            tokio::time::sleep(DRIP).await;
            let _ = writing.write_all(&frame(raw_h2::DATA, 0, 1, b"x")).await;
            let _ = writing.flush().await;
        }
    };
    let ended = async {
        // The stream is answered (408) or reset; the connection itself has asked, and may ask again.
        while let Some((kind, flags, on, _)) = raw_h2::read(&mut reading).await {
            if on == 1 && (kind == raw_h2::RST_STREAM || flags & raw_h2::END_STREAM != 0) {
                break;
            }
        }
    };
    tokio::select! {
        () = ended => {}
        () = dripping => {}
    }
    within_bound(began.elapsed());
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_over_either_protocol() {
    let (setup, stream) = said("http/1.1", format!("GET /big HTTP/1.1\r\nHost: {SHOP}\r\n\r\n").as_bytes()).await;
    within_bound(stood(&setup).await);
    drop((setup, stream));

    // The socket takes bytes, but a window of nothing is all the client opens (RFC 9113, section 6.5.2: SETTINGS_INITIAL_WINDOW_SIZE).
    let closed_window = frame(raw_h2::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let ask = frame(raw_h2::HEADERS, raw_h2::END_HEADERS | raw_h2::END_STREAM, 1, &request("/big"));
    let (setup, mut stream) = said("h2", &[raw_h2::PREFACE, &closed_window, &ask].concat()).await;
    within_bound(kept(&mut stream, b"").await);
    assert_eq!(setup.ended("client_does_not_read"), 1);
}

#[tokio::test]
async fn an_http2_connection_that_never_opens_a_stream_is_closed_however_often_it_pings() {
    for drip in [Vec::new(), frame(raw_h2::PING, 0, 0, &[0; 8])] {
        let (setup, mut stream) = said("h2", raw_h2::PREFACE).await;
        within_bound(kept(&mut stream, &drip).await);
        assert_eq!(setup.ended("no_request"), 1);
    }
}

#[tokio::test]
async fn http2_headers_without_an_end_are_closed() {
    let begun = [raw_h2::PREFACE, &frame(raw_h2::HEADERS, 0, 1, &request("/echo"))].concat();
    let (setup, mut stream) = said("h2", &begun).await;
    let more = frame(raw_h2::CONTINUATION, 0, 1, &block(&[("x-more".into(), "1".into())]));
    within_bound(kept(&mut stream, &more).await);
    assert_eq!(setup.ended("no_request") + setup.ended("slow_header"), 1);
}

/// A browser's next click meets an open connection; nobody's connection is open for long.
#[tokio::test]
async fn a_connection_that_was_used_may_rest_as_long_as_the_settings_say_and_no_longer() {
    let setup = shipped().await;
    let limits = edge::config::Limits::default();
    for alpn in ["http/1.1", "h2"] {
        let mut stream = client::connect_with(client::config(&[alpn]).into(), setup.https(), SHOP).await.unwrap();
        if alpn == "h2" {
            let ask = frame(raw_h2::HEADERS, raw_h2::END_HEADERS | raw_h2::END_STREAM, 1, &request("/echo"));
            stream.write_all(&[raw_h2::PREFACE, &ask].concat()).await.unwrap();
            assert_eq!(raw_h2::answer(&mut stream, 1, SOON).await.status, Some(200));
        } else {
            stream.write_all(format!("GET /nowhere HTTP/1.1\r\nHost: {SHOP}\r\n\r\n").as_bytes()).await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        }
        let kept = kept(&mut stream, b"").await;
        assert!(kept >= limits.idle.mul_f32(0.9) && kept <= limits.idle.mul_f32(1.25) + limits.close_grace, "{alpn}: {kept:?}");
    }
    // Who does not answer the polite end over HTTP/2 is cut off.
    eventually("both are counted", async || setup.ended("idle") + setup.ended("unfinished") == 2).await;
}

/// Everything an edge reads from and sends to: its source, which fails or never answers, and its origin.
#[tokio::test]
async fn an_edge_whose_dependencies_are_all_dead_for_ten_minutes_is_ready_and_serves_its_names() {
    let setup = shipped().await;
    let ready = async |setup: &Setup| {
        client::plain(setup.edge().private_addr, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await
    };
    setup.origin.stop();
    let began = Instant::now();
    for of_source in [&setup.source.dead, &setup.source.silent] {
        of_source.store(true, Ordering::SeqCst);
        tokio::time::pause();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        tokio::time::resume();
        assert!(ready(&setup).await.starts_with("HTTP/1.1 200 "), "after {:?}", began.elapsed());
    }
    assert!(began.elapsed() >= Duration::from_secs(600));
    assert!(setup.metric("nameplate_edge_source_errors_total{kind=\"failed\"}") > 10);
    assert_eq!(client::fetch(setup.https(), SHOP, "/echo").await.status(), 502);
}
