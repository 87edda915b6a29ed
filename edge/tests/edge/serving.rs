//! What a visitor and an origin see.

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use crate::{client, client::SOON, setup::Setup};

const SHOP: &str = "shop.brand.com";

#[tokio::test]
async fn a_page_is_served_with_host_kept_and_the_tenant_named_over_both_protocols() {
    let setup = Setup::with(&[SHOP]).await;
    let port = setup.https().port().to_string();
    let expected = |request_line: &str, host: &str| {
        format!(
            "{request_line}\nhost: {host}\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: {host}\nx-forwarded-port: {port}\nx-forwarded-proto: https\nx-nameplate-tenant: acme\n"
        )
    };
    let without_id = |text: String| {
        let (id, rest): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("x-request-id: "));
        assert_eq!(id.len(), 1);
        rest.join("\n") + "\n"
    };
    let answer = client::fetch(setup.https(), SHOP, "/echo?q=1").await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(without_id(client::text(answer).await), expected("GET /echo?q=1", SHOP));

    let mut sender = client::h2(setup.https(), SHOP).await;
    let answer = sender.send_request(client::get_h2("shop.brand.com:8443", "/echo")).await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
    assert_eq!(without_id(client::text(answer).await), expected("GET /echo", "shop.brand.com:8443"));
}

#[tokio::test]
async fn nothing_a_client_forges_reaches_the_origin() {
    let setup = Setup::with(&[SHOP]).await;
    let mut sender = client::h1(setup.https(), SHOP).await;
    let request = Request::get("/echo")
        .header("host", SHOP)
        .header("x-forwarded-for", "1.2.3.4")
        .header("x_forwarded_for", "1.2.3.4")
        .header("forwarded", "for=1.2.3.4")
        .header("x-real-ip", "1.2.3.4")
        .header("x-nameplate-tenant", "other")
        .header("x_nameplate_tenant", "other")
        .header("connection", "x-secret, x-forwarded-proto")
        .header("x-secret", "1")
        .header("upgrade", "h2c")
        .header("te", "gzip")
        .header("accept", "*/*")
        .body(client::empty())
        .unwrap();
    let echoed = client::text(sender.send_request(request).await.unwrap()).await;
    let names: Vec<_> = echoed.lines().skip(1).map(|line| line.split(':').next().unwrap()).collect();
    let expected = [
        "accept",
        "host",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-nameplate-tenant",
        "x-request-id",
    ];
    assert_eq!(names, expected);
    assert!(echoed.contains("x-nameplate-tenant: acme") && echoed.contains("x-forwarded-for: 127.0.0.1"), "{echoed}");
}

#[tokio::test]
async fn what_belongs_to_one_hop_of_the_origins_answer_stays_there() {
    let setup = Setup::with(&[SHOP]).await;
    let answer = client::fetch(setup.https(), SHOP, "/hop").await;
    for name in ["x-internal", "keep-alive"] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    assert_eq!(answer.headers()["x-outside"], "yes");
}

#[tokio::test]
async fn a_wildcard_serves_what_has_no_entry_of_its_own() {
    let setup = Setup::with(&[SHOP]).await;
    let wildcard = setup.bucket.put("*.brand.com", "umbrella", 1);
    crate::setup::eventually("the wildcard is served", async || client::served(setup.https(), "other.brand.com").await.is_ok()).await;
    assert_eq!(client::served(setup.https(), "other.brand.com").await.unwrap(), wildcard);
    assert_ne!(client::served(setup.https(), SHOP).await.unwrap(), wildcard);
    for (host, tenant) in [("other.brand.com", "umbrella"), (SHOP, "acme")] {
        let echoed = client::text(client::fetch(setup.https(), host, "/echo").await).await;
        assert!(echoed.contains(&format!("x-nameplate-tenant: {tenant}\n")), "{echoed}");
    }
    client::served(setup.https(), "a.other.brand.com").await.unwrap_err();
}

#[tokio::test]
async fn a_request_for_another_name_is_misdirected() {
    let setup = Setup::with(&[SHOP, "other.brand.com"]).await;
    for (head, status) in [
        ("Host: other.brand.com\r\n", 421),
        ("Host: shop.brand.com.evil.com\r\n", 421),
        ("Host: SHOP.brand.com.:8443\r\n", 200),
        ("", 400),
        ("Host: shop.brand.com\r\nHost: shop.brand.com\r\n", 400),
        ("Host: shop.brand.com, other.brand.com\r\n", 400),
        ("Host: user@shop.brand.com\r\n", 400),
    ] {
        let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
        let request = format!("GET /echo HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
        let (answer, ended) = client::talk(&mut stream, request.as_bytes(), SOON).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
        assert!(ended, "{head:?}");
    }
    let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
    let (answer, _) = client::talk(&mut stream, b"GET https://other.brand.com/ HTTP/1.1\r\nHost: shop.brand.com\r\n\r\n", SOON).await;
    assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");

    let mut sender = client::h2(setup.https(), SHOP).await;
    for (authority, status) in [("other.brand.com", 421), ("shop.brand.com", 200)] {
        assert_eq!(sender.send_request(client::get_h2(authority, "/echo")).await.unwrap().status().as_u16(), status);
    }
    assert_eq!(setup.origin.requests.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn requests_with_two_lengths_never_reach_the_origin() {
    let setup = Setup::with(&[SHOP]).await;
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding: cow, chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
    ] {
        let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
        let request = format!("POST /upload HTTP/1.1\r\nHost: {SHOP}\r\n{head}\r\n0\r\n\r\n");
        let (answer, ended) = client::talk(&mut stream, request.as_bytes(), SOON).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
        assert!(ended, "{head:?}");
    }
    let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
    let request = format!("POST /upload HTTP/1.0\r\nHost: {SHOP}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    assert!(client::talk(&mut stream, request.as_bytes(), SOON).await.0.contains(" 400 "));
    assert_eq!(setup.origin.requests.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn bodies_stream_both_ways_piece_by_piece() {
    let setup = Setup::with(&[SHOP]).await;
    for http2 in [false, true] {
        let (pieces, upload) = mpsc::channel::<Bytes>(1);
        let stream =
            futures_util::stream::unfold(upload, async |mut upload| upload.recv().await.map(|piece| (Ok(Frame::data(piece)), upload)));
        let body: client::Body = StreamBody::new(Box::pin(stream)).boxed();
        let answer = if http2 {
            let request = Request::post(format!("https://{SHOP}/mirror")).body(body).unwrap();
            client::h2(setup.https(), SHOP).await.send_request(request).await.unwrap()
        } else {
            let request = Request::post("/mirror").header("host", SHOP).body(body).unwrap();
            client::h1(setup.https(), SHOP).await.send_request(request).await.unwrap()
        };
        let mut down = answer.into_body();
        // The upload has not ended; each piece is back before the next is sent.
        for piece in ["first", "second", "third"] {
            pieces.send(Bytes::from_static(piece.as_bytes())).await.unwrap();
            let back = timeout(SOON, down.frame()).await.expect("a piece in time").unwrap().unwrap();
            assert_eq!(back.data_ref().unwrap(), piece.as_bytes());
        }
        drop(pieces);
        let rest = timeout(SOON, down.collect()).await.expect("an end in time").unwrap();
        assert!(rest.to_bytes().is_empty());
    }
}

#[tokio::test]
async fn a_large_upload_and_a_large_answer_arrive_whole() {
    let setup = Setup::with(&[SHOP]).await;
    let upload = Bytes::from(vec![b'u'; 20 << 20]);
    let request = Request::post("/upload").header("host", SHOP).body(client::full(upload.clone())).unwrap();
    let answer = client::h1(setup.https(), SHOP).await.send_request(request).await.unwrap();
    assert_eq!(client::text(answer).await, (20 << 20).to_string());
    let mut sender = client::h2(setup.https(), SHOP).await;
    let request = Request::post(format!("https://{SHOP}/upload")).body(client::full(upload)).unwrap();
    assert_eq!(client::text(sender.send_request(request).await.unwrap()).await, (20 << 20).to_string());
    let answer = sender.send_request(client::get_h2(SHOP, "/big")).await.unwrap();
    assert_eq!(client::text(answer).await.len(), 20 << 20);
}

#[tokio::test]
async fn trailers_reach_a_client_that_can_take_them() {
    let setup = Setup::with(&[SHOP]).await;
    let mut sender = client::h2(setup.https(), SHOP).await;
    let mut request = client::get_h2(SHOP, "/trailers");
    request.headers_mut().insert("te", http::HeaderValue::from_static("trailers"));
    let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["x-checksum"], "42");
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_so_does_one_to_the_origin() {
    let setup = Setup::with(&[SHOP]).await;
    let mut sender = client::h1(setup.https(), SHOP).await;
    let before = setup.origin.connections.load(Ordering::SeqCst);
    for _ in 0..50 {
        sender.ready().await.unwrap();
        assert_eq!(client::text(sender.send_request(client::get(SHOP, "/echo")).await.unwrap()).await.lines().next(), Some("GET /echo"));
    }
    assert_eq!(setup.origin.requests.load(Ordering::SeqCst), 50);
    assert!(setup.origin.connections.load(Ordering::SeqCst) - before <= 2);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let setup = Setup::with(&[SHOP]).await;
    let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
    let chunked = format!("POST /upload HTTP/1.1\r\nHost: {SHOP}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    let last = format!("POST /upload HTTP/1.1\r\nHost: {SHOP}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab");
    let (answer, _) = client::talk(&mut stream, [chunked.clone(), chunked, last].concat().as_bytes(), SOON).await;
    let bodies: Vec<_> = answer.split("\r\n\r\n").skip(1).map(|body| &body[..1]).collect();
    assert_eq!(bodies, ["3", "3", "2"], "{answer}");
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways() {
    let setup = Setup::with(&[SHOP]).await;
    let mut stream = websocket(&setup).await;
    stream.write_all(b"hello through the tunnel").await.unwrap();
    let mut back = [0; 24];
    timeout(SOON, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(&back, b"hello through the tunnel");
}

#[tokio::test]
async fn a_websocket_over_http2_is_carried_beside_other_requests() {
    let setup = Setup::configured(&[SHOP], |config| {
        config.limits.idle = Duration::from_millis(200);
        config.limits.close_grace = Duration::from_millis(100);
    })
    .await;
    let mut sender = client::h2(setup.https(), SHOP).await;
    let ask = |path: &str, protocol: &'static str| {
        let mut request =
            Request::connect(format!("https://{SHOP}{path}")).header("sec-websocket-version", "13").body(client::empty()).unwrap();
        request.extensions_mut().insert(hyper::ext::Protocol::from_static(protocol));
        request
    };
    // What the server allows is known once its settings have come.
    client::text(sender.send_request(client::get_h2(SHOP, "/echo")).await.unwrap()).await;
    let answer = sender.send_request(ask("/socket", "websocket")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(!answer.headers().contains_key("sec-websocket-accept") && !answer.headers().contains_key("upgrade"));
    let mut tunnel = hyper_util::rt::TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    for turn in 0..5 {
        tunnel.write_all(b"hello through the tunnel").await.unwrap();
        let mut back = [0; 24];
        timeout(SOON, tunnel.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"hello through the tunnel");
        let beside = sender.send_request(client::get_h2(SHOP, "/echo")).await.unwrap();
        assert_eq!(beside.status(), StatusCode::OK, "{turn}");
        // Longer than a connection may be idle, which one with a tunnel is not.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    // The origin's no is the client's no; a yes that is no WebSocket's is none; and nothing else is tunnelled.
    for (path, protocol, status) in [("/nowhere", "websocket", 404), ("/echo", "websocket", 502), ("/socket", "connect-udp", 405)] {
        let answer = sender.send_request(ask(path, protocol)).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path} {protocol}");
    }
    drop(tunnel);
    crate::setup::eventually("the idle connection ends", async || sender.is_closed()).await;
}

#[tokio::test]
async fn an_operators_own_page_is_shown_with_the_requests_id() {
    let pages = tempfile::tempdir().unwrap();
    std::fs::write(pages.path().join("502.html"), "<h1>Back soon</h1> {request_id}").unwrap();
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let setup = Setup::configured(&[SHOP], |config| {
        config.origin = nobody.to_string();
        config.error_pages = Some(pages.path().to_owned());
    })
    .await;
    let answer = client::fetch(setup.https(), SHOP, "/").await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(client::text(answer).await, format!("<h1>Back soon</h1> {id}"));
}

/// Opens a WebSocket to the origin that sends everything back.
pub(crate) async fn websocket(setup: &Setup) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let mut stream = client::connect(setup.https(), SHOP).await.unwrap();
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: {SHOP}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, stream.read_u8()).await.expect("an answer in time").unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream
}

#[tokio::test]
async fn an_origin_that_is_not_there_or_never_answers_is_told_apart() {
    let setup = Setup::configured(&[SHOP], |config| config.limits.origin_response = Duration::from_millis(300)).await;
    let answer = client::fetch(setup.https(), SHOP, "/never").await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    let id = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert!(client::text(answer).await.contains(&id));

    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let setup = Setup::configured(&[SHOP], |config| config.origin = nobody.to_string()).await;
    assert_eq!(client::fetch(setup.https(), SHOP, "/").await.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn a_kept_connection_that_died_costs_a_reader_nothing_and_never_repeats_a_write() {
    // An origin that answers each connection once, says it will be kept, and hangs up on the next request.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let origin = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 4096];
                    for turn in 0..2 {
                        let Ok(read @ 1..) = socket.read(&mut buffer).await else { return };
                        let line = String::from_utf8_lossy(&buffer[..read]).lines().next().unwrap().to_owned();
                        seen.lock().unwrap().push((line, turn));
                        if turn == 0 {
                            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                        }
                    }
                });
            }
        }
    });
    let setup = Setup::configured(&[SHOP], |config| config.origin = address.to_string()).await;
    let mut sender = client::h1(setup.https(), SHOP).await;
    for turn in 0..6 {
        let answer = sender.send_request(client::get(SHOP, &format!("/{turn}"))).await.unwrap();
        assert_eq!((answer.status(), client::text(answer).await.as_str()), (StatusCode::OK, "ok"), "{turn}");
    }
    assert!(seen.lock().unwrap().iter().any(|(_, turn)| *turn == 1), "a kept connection was used and died");
    let mut statuses = Vec::new();
    for turn in 0..2 {
        let request = Request::post(format!("/write-{turn}")).header("host", SHOP).body(client::full("body")).unwrap();
        statuses.push(sender.send_request(request).await.unwrap().status());
    }
    assert!(statuses.contains(&StatusCode::BAD_GATEWAY), "{statuses:?}");
    for turn in 0..2 {
        let sent = seen.lock().unwrap().iter().filter(|(line, _)| line.contains(&format!("/write-{turn} "))).count();
        assert_eq!(sent, 1, "write-{turn}");
    }
    origin.abort();
}

#[tokio::test]
async fn the_post_quantum_hybrid_is_chosen_and_tls_1_2_still_works() {
    let setup = Setup::with(&[SHOP]).await;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768, rustls::crypto::aws_lc_rs::kx_group::X25519];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(crate::bucket::root()).unwrap();
    let hybrid = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::CryptoProvider { kx_groups, ..provider }))
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = hybrid.with_root_certificates(roots.clone()).with_no_client_auth();
    let stream = client::connect_with(Arc::new(config), setup.https(), SHOP).await.unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);

    let old = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap();
    let stream =
        client::connect_with(Arc::new(old.with_root_certificates(roots).with_no_client_auth()), setup.https(), SHOP).await.unwrap();
    assert_eq!(stream.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
}

#[tokio::test]
async fn plain_http_answers_challenges_sends_known_names_to_https_and_knows_nothing_else() {
    let setup = Setup::with(&[SHOP]).await;
    let (http, port) = (setup.edge().http_addr, setup.https().port());
    crate::setup::eventually("the settings are read", async || setup.metric("nameplate_edge_source_reads_total{kind=\"settings\"}") > 1)
        .await;
    let ask = async |host: &str, path: &str| {
        client::plain(http, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    };
    let challenge = ask("any.name.at-all.com", "/.well-known/acme-challenge/tok_EN-1").await;
    assert!(challenge.starts_with("HTTP/1.1 200 ") && challenge.ends_with("\r\n\r\ntok_EN-1.thumbprint"), "{challenge}");
    for token in ["", "a/b", "a.b", "%41", &"a".repeat(129)] {
        let answer = ask(SHOP, &format!("/.well-known/acme-challenge/{token}")).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{token}: {answer}");
    }
    let redirect = ask("SHOP.brand.com:80", "/cart?x=1").await;
    assert!(redirect.starts_with("HTTP/1.1 308 "), "{redirect}");
    assert!(redirect.contains(&format!("location: https://shop.brand.com:{port}/cart?x=1\r\n")), "{redirect}");
    for host in ["unknown.brand.com", "127.0.0.1", "*.brand.com", ""] {
        assert!(ask(host, "/").await.starts_with("HTTP/1.1 404 "), "{host}");
    }
}

#[tokio::test]
async fn the_private_port_tells_health_readiness_and_numbers() {
    let setup = Setup::with(&[SHOP]).await;
    client::served(setup.https(), SHOP).await.unwrap();
    let ask = async |path: &str| {
        client::plain(setup.edge().private_addr, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
    };
    assert!(ask("/healthz").await.starts_with("HTTP/1.1 200 "));
    assert!(ask("/readyz").await.starts_with("HTTP/1.1 200 "));
    let metrics = ask("/metrics").await;
    assert!(
        metrics.contains("nameplate_edge_names_known 1\n") && metrics.contains("nameplate_edge_handshakes_total{outcome=\"done\"} 1\n"),
        "{metrics}"
    );
    assert!(ask("/anything").await.starts_with("HTTP/1.1 404 "));
    // An edge whose source dies stays ready.
    setup.source.dead.store(true, Ordering::SeqCst);
    crate::setup::eventually("the source is seen to be dead", async || {
        setup.metric("nameplate_edge_source_errors_total{kind=\"failed\"}") > 2
    })
    .await;
    assert!(ask("/readyz").await.starts_with("HTTP/1.1 200 "));
}
