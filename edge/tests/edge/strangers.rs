//! Strangers with more patience than means: floods, bombs, and connections by the hundred.

use std::{
    cell::RefCell,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use http::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    bucket::Bucket,
    client,
    client::SOON,
    origin::Origin,
    program::Process,
    raw_h2::{self, block, frame},
    setup::{Setup, eventually},
};

const SHOP: &str = "shop.brand.com";
const KIB_PER_MIB: u64 = 1024;

fn request_block(path: &str) -> Vec<u8> {
    let headers = [(":method", "GET"), (":scheme", "https"), (":authority", SHOP), (":path", path)];
    block(&headers.map(|(name, value)| (name.to_owned(), value.to_owned())))
}

async fn raw_h2(edge: std::net::SocketAddr) -> TlsStream<TcpStream> {
    let mut stream = client::connect_with(Arc::new(client::config(&["h2"])), edge, SHOP).await.unwrap();
    stream.write_all(raw_h2::PREFACE).await.unwrap();
    stream
}

/// Sends pieces until they are used up or the connection fails; says how many were sent. What comes back is read meanwhile.
async fn pour(stream: TlsStream<TcpStream>, pieces: impl Iterator<Item = Vec<u8>>) -> usize {
    let (mut read, mut write) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut buffer = [0; 16 * 1024];
        while let Ok(1..) = read.read(&mut buffer).await {}
    });
    let mut sent = 0;
    for piece in pieces {
        if reading.is_finished() || write.write_all(&piece).await.is_err() || write.flush().await.is_err() {
            break;
        }
        sent += 1;
        // The other side has its turn.
        tokio::task::yield_now().await;
    }
    reading.abort();
    sent
}

async fn started() -> (Bucket, Origin, Process) {
    let (bucket, origin) = (Bucket::new(), Origin::start().await);
    bucket.put(SHOP, "acme", 1);
    let process = Process::start(&bucket, &origin, &[], None).await;
    (bucket, origin, process)
}

#[tokio::test]
async fn twenty_thousand_rapid_resets_cost_the_origin_and_the_memory_next_to_nothing() {
    let (_bucket, origin, process) = started().await;
    // As warm as it gets: pools filled, both protocols spoken.
    for _ in 0..50 {
        let mut sender = client::h2(process.https, SHOP).await;
        client::text(sender.send_request(client::get_h2(SHOP, "/echo")).await.unwrap()).await;
    }
    let (memory, requests) = (process.resident_kib(), origin.requests.load(Ordering::SeqCst));
    let (mut left, mut connections) = (20_000_usize, 0);
    while left > 0 {
        let pair = |number: usize| {
            let id = u32::try_from(number * 2 + 1).unwrap();
            [frame(raw_h2::HEADERS, 5, id, &request_block("/echo")), frame(raw_h2::RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
        };
        // Every other connection is patient: each pair by itself, so that each request begins before it is reset.
        let at_once = if connections % 2 == 0 { 100 } else { 1 };
        let pieces = (0..left / at_once).map(|piece| (0..at_once).flat_map(|at| pair(piece * at_once + at)).collect());
        left -= (pour(raw_h2(process.https).await, pieces).await * at_once).clamp(1, left);
        connections += 1;
        assert!(connections < 2_000, "{left} left");
    }
    let reached = origin.requests.load(Ordering::SeqCst) - requests;
    assert!(reached <= 1_000, "{reached} requests reached the origin over {connections} connections");
    let grown = process.resident_kib().saturating_sub(memory);
    eprintln!("20,000 resets over {connections} connections: {reached} requests reached the origin, {grown} KiB more");
    assert!(grown < KIB_PER_MIB, "{grown} KiB more after {connections} connections");
    assert_eq!(client::fetch(process.https, SHOP, "/echo").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn endless_header_blocks_and_header_bombs_are_closed_and_kept_nowhere() {
    let (_bucket, origin, process) = started().await;
    client::text(client::fetch(process.https, SHOP, "/echo").await).await;
    let (memory, requests) = (process.resident_kib(), origin.requests.load(Ordering::SeqCst));
    // CONTINUATION without an end: 64 MiB, if they were all taken.
    let header = block(&[("x".to_owned(), "a".repeat(16_000))]);
    let first = frame(raw_h2::HEADERS, 1, 1, &request_block("/echo"));
    let more = (0..4096).map(|_| frame(raw_h2::CONTINUATION, 0, 1, &header));
    assert!(pour(raw_h2(process.https).await, std::iter::once(first.clone()).chain(more)).await < 400);
    // The same with nothing in them.
    let empty = (0..100_000).map(|_| frame(raw_h2::CONTINUATION, 0, 1, b"").repeat(10));
    assert!(pour(raw_h2(process.https).await, std::iter::once(first).chain(empty)).await < 10_000);
    // A bomb: one entry of the dynamic table, and a reference to it in every byte after (RFC 7541, section 6.1).
    let mut bomb = request_block("/echo");
    bomb.extend([&[0x40, 1, b'x', 0x7f, 0x81, 0x17][..], &[b'a'; 3072]].concat());
    bomb.extend([0xbe; 12_000]);
    let bombs = (0..200_u32).map(|number| frame(raw_h2::HEADERS, 5, number * 2 + 1, &bomb));
    pour(raw_h2(process.https).await, bombs).await;
    assert_eq!(origin.requests.load(Ordering::SeqCst), requests);
    let grown = process.resident_kib().saturating_sub(memory);
    assert!(grown < 2 * KIB_PER_MIB, "{grown} KiB more");
    assert_eq!(client::fetch(process.https, SHOP, "/echo").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn floods_of_frames_that_ask_for_nothing_are_closed_and_counted() {
    let setup = Setup::with(&[SHOP]).await;
    for (reason, piece) in [
        ("ping_flood", frame(raw_h2::PING, 0, 0, &[0; 8])),
        ("settings_flood", frame(raw_h2::SETTINGS, 0, 0, b"")),
        ("priority_flood", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("frame_flood", frame(0x42, 0, 0, b"")),
    ] {
        let sent = pour(raw_h2(setup.https()).await, (0..200_000).map(|_| piece.repeat(10))).await;
        assert!(sent < 100_000, "{reason}: {sent}");
        eventually(reason, async || setup.ended(reason) == 1).await;
    }
    assert_eq!(setup.origin.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_address_has_its_share_of_connections_and_requests() {
    let setup = Setup::configured(&[SHOP], |config| {
        let limits = &mut config.limits.per_address;
        (limits.max_open, limits.connections_per_second, limits.requests_per_second) = (3, 1, 1);
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(client::h1(setup.https(), SHOP).await);
    }
    client::connect(setup.https(), SHOP).await.unwrap_err();
    assert_eq!(setup.ended("address_open"), 1);
    drop(open.pop());
    eventually("there is room again", async || client::connect(setup.https(), SHOP).await.is_ok()).await;
    while client::connect(setup.https(), SHOP).await.is_ok() {}
    assert!(setup.ended("address_rate") >= 1);

    let sender = &mut open[0];
    let mut statuses = Vec::new();
    for _ in 0..11 {
        sender.ready().await.unwrap();
        let answer = sender.send_request(client::get(SHOP, "/echo")).await.unwrap();
        statuses.push(answer.status().as_u16());
        client::text(answer).await;
    }
    assert_eq!((statuses[9], statuses[10]), (200, 429), "{statuses:?}");
}

#[tokio::test]
async fn an_address_has_its_share_of_the_port_of_plain_http_and_others_have_theirs() {
    let setup = Setup::configured(&[SHOP], |config| {
        config.proxy_protocol = true;
        (config.limits.max_connections, config.limits.max_plain_connections) = (100, 20);
        let limits = &mut config.limits.per_address;
        (limits.max_open, limits.requests_per_second) = (10, 1);
    })
    .await;
    let connect = async |client: u8| {
        let mut tcp = TcpStream::connect(setup.edge().http_addr).await.unwrap();
        tcp.write_all(&proxy_header([192, 0, 2, client])).await.unwrap();
        tcp
    };
    let ask = format!("GET /a HTTP/1.1\r\nHost: {SHOP}\r\n\r\n");
    let asked = async |tcp: &mut TcpStream, times: usize| {
        // Whoever is refused may be gone already.
        let _ = tcp.write_all(ask.repeat(times).as_bytes()).await;
        let (mut came, mut buffer) = (String::new(), [0; 4096]);
        while came.matches("HTTP/1.1 ").count() < times {
            match tcp.read(&mut buffer).await {
                Ok(read @ 1..) => came.push_str(&String::from_utf8_lossy(&buffer[..read])),
                _ => break,
            }
        }
        came
    };
    // As many as of the other port would be more than a fifth.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(connect(7).await);
        assert!(asked(open.last_mut().unwrap(), 1).await.starts_with("HTTP/1.1 308 "));
    }
    assert_eq!(asked(&mut connect(7).await, 1).await, "");
    assert_eq!(setup.ended("address_open"), 1);
    assert!(asked(&mut connect(8).await, 1).await.starts_with("HTTP/1.1 308 "));
    assert!(asked(&mut open[0], 30).await.contains("HTTP/1.1 429 "));
}

#[tokio::test]
async fn a_body_has_a_largest_size_where_one_is_set() {
    let setup = Setup::configured(&[SHOP], |config| config.limits.max_body_bytes = 1000).await;
    for (framing, size, status) in [("Content-Length: 1000\r\n", 1000, 200), ("Content-Length: 1001\r\n", 0, 413)] {
        let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
        let request = format!("POST /upload HTTP/1.1\r\nHost: {SHOP}\r\nConnection: close\r\n{framing}\r\n{}", "a".repeat(size));
        let (answer, ended) = client::talk(&mut stream, request.as_bytes(), SOON).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && ended, "{answer}");
    }
    let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
    let chunks = format!("3e8\r\n{}\r\n1\r\na\r\n0\r\n\r\n", "a".repeat(1000));
    let request = format!("POST /upload HTTP/1.1\r\nHost: {SHOP}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    let (answer, ended) = client::talk(&mut stream, request.as_bytes(), SOON).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && ended, "{answer}");
    let mut sender = client::h2(setup.https(), SHOP).await;
    let request = Request::post(format!("https://{SHOP}/upload")).body(client::full("a".repeat(1001))).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_header_block_that_does_not_end_is_closed_also_after_a_request() {
    let setup = Setup::configured(&[SHOP], |config| config.limits.header_read = Duration::from_millis(300)).await;
    let mut stream = raw_h2(setup.https()).await;
    stream.write_all(&frame(raw_h2::HEADERS, 5, 1, &request_block("/echo"))).await.unwrap();
    assert_eq!(raw_h2::answer(&mut stream, 1, SOON).await.status, Some(200));
    stream.write_all(&frame(raw_h2::HEADERS, 1, 3, &request_block("/echo"))).await.unwrap();
    let began = Instant::now();
    while raw_h2::read(&mut stream).await.is_some() {}
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(setup.ended("slow_header"), 1);
}

#[tokio::test]
async fn connections_over_the_share_are_told_at_once_and_the_others_are_served() {
    let (bucket, origin) = (Bucket::new(), Origin::start().await);
    bucket.put(SHOP, "acme", 1);
    let process = Process::start(&bucket, &origin, &[], Some(200)).await;
    let mut kept = client::h1(process.https, SHOP).await;
    client::text(kept.send_request(client::get(SHOP, "/echo")).await.unwrap()).await;

    // More than the process may have open: those over its share are told at once.
    let mut crowd = Vec::new();
    for _ in 0..150 {
        crowd.push(TcpStream::connect(process.https).await.unwrap());
    }
    eventually("those over the share are closed", async || crowd.iter().filter(|stream| closed(stream)).count() >= 80).await;
    for _ in 0..5 {
        kept.ready().await.unwrap();
        assert_eq!(client::text(kept.send_request(client::get(SHOP, "/echo")).await.unwrap()).await.lines().next(), Some("GET /echo"));
    }
    drop(crowd);
    eventually("there is room again", async || client::served(process.https, SHOP).await.is_ok()).await;
}

#[tokio::test]
async fn where_accepting_itself_fails_whoever_waits_is_shed_at_once_and_the_others_are_served() {
    let (bucket, origin) = (Bucket::new(), Origin::start().await);
    bucket.put(SHOP, "acme", 1);
    let process = Process::start(&bucket, &origin, &[], Some(200)).await;
    let mut kept = client::h1(process.https, SHOP).await;
    client::text(kept.send_request(client::get(SHOP, "/echo")).await.unwrap()).await;

    // The spare descriptor lies below this limit, wherever it is. What is free below it, too, goes to connections that stay.
    process.limit_descriptors(process.highest_descriptor(200) + 1);
    let staying = RefCell::new(Vec::new());
    // One that was accepted would be open until its handshake is due.
    eventually("a connection without a descriptor for it is shed", async || {
        let mut stream = TcpStream::connect(process.https).await.unwrap();
        let shed = client::read_to_end(&mut stream, Duration::from_millis(200)).await.1;
        staying.borrow_mut().push(stream);
        shed
    })
    .await;
    kept.ready().await.unwrap();
    assert_eq!(kept.send_request(client::get(SHOP, "/echo")).await.unwrap().status(), StatusCode::OK);
    process.limit_descriptors(200);
    drop(staying);
    eventually("there is room again", async || client::served(process.https, SHOP).await.is_ok()).await;
    let metrics = client::plain(process.private, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let shed = metrics.lines().find_map(|line| line.strip_prefix("nameplate_edge_connections_ended_total{reason=\"no_descriptors\"} "));
    assert!(shed.is_some_and(|shed| shed != "0"), "{metrics}");
}

fn closed(stream: &TcpStream) -> bool {
    !matches!(stream.try_read(&mut [0; 8]), Err(ref error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// A PROXY header of version 2 for an IPv4 client.
fn proxy_header(client: [u8; 4]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &client, &[10, 0, 0, 1, 0x30, 0x39, 1, 0xbb]].concat()
}

#[tokio::test]
async fn a_load_balancer_tells_the_client_and_nobody_else_comes_in() {
    let setup = Setup::configured(&[SHOP], |config| config.proxy_protocol = true).await;
    let mut tcp = TcpStream::connect(setup.https()).await.unwrap();
    tcp.write_all(&proxy_header([192, 0, 2, 7])).await.unwrap();
    let sni = rustls::pki_types::ServerName::try_from(SHOP).unwrap();
    let config = Arc::new(client::config(&["http/1.1"]));
    let mut stream = tokio_rustls::TlsConnector::from(config).connect(sni, tcp).await.unwrap();
    let request = format!("GET /echo HTTP/1.1\r\nHost: {SHOP}\r\nConnection: close\r\n\r\n");
    let (answer, _) = client::talk(&mut stream, request.as_bytes(), SOON).await;
    assert!(answer.contains("x-forwarded-for: 192.0.2.7\n"), "{answer}");

    client::connect(setup.https(), SHOP).await.unwrap_err();
    assert_eq!(setup.ended("proxy_header_absent"), 1);

    // The port of plain HTTP hears it from the load balancer as well, and from nobody else.
    let ask = format!("GET /a HTTP/1.1\r\nHost: {SHOP}\r\nConnection: close\r\n\r\n");
    let mut tcp = TcpStream::connect(setup.edge().http_addr).await.unwrap();
    let (answer, _) = client::talk(&mut tcp, &[&proxy_header([192, 0, 2, 7]), ask.as_bytes()].concat(), SOON).await;
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    let mut tcp = TcpStream::connect(setup.edge().http_addr).await.unwrap();
    assert_eq!(client::talk(&mut tcp, ask.as_bytes(), SOON).await, (String::new(), true));
    assert_eq!(setup.ended("proxy_header_absent"), 2);

    let ask = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for begin in [&b""[..], &proxy_header([192, 0, 2, 7])] {
        let mut tcp = TcpStream::connect(setup.edge().private_addr).await.unwrap();
        let (answer, _) = client::talk(&mut tcp, &[begin, ask].concat(), SOON).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
