//! Origins that speak TLS or HTTP/2, and what must pass through unharmed.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use edge::{
    StartError,
    config::{OriginProtocol, OriginTls},
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{bucket, client, client::SOON, setup::Setup};

const SHOP: &str = "shop.brand.com";
const APP: &str = "app.internal.example";

/// An origin of another kind: TLS or not, HTTP/2 or not.
struct Other {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Other {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Other {
    async fn start(tls: bool, h2: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&connections);
        let acceptor = tls.then(|| acceptor(if h2 { b"h2" } else { b"http/1.1" }));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                seen.fetch_add(1, Ordering::SeqCst);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(socket, h2).await,
                        Some(acceptor) => {
                            if let Ok(io) = acceptor.accept(socket).await {
                                serve(io, h2).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, connections, task }
    }
}

fn acceptor(protocol: &[u8]) -> TlsAcceptor {
    let (pem, key) = bucket::leaf(&[APP], bucket::VALID);
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key))).unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve<IO: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static>(io: IO, h2: bool) {
    let _ = if h2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(io), service_fn(answer)).await
    } else {
        http1::Builder::new().serve_connection(TokioIo::new(io), service_fn(answer)).await
    };
}

/// Tells how it was asked; or answers as a gRPC server that sends every message back, and its status in trailers.
async fn answer(mut request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    if request.uri().path() != "/grpc.Echo/Stream" {
        let host = request.headers().get("host").and_then(|host| host.to_str().ok()).map(str::to_owned);
        let told = format!("{:?} {} {} {host:?}", request.version(), request.method(), request.uri());
        return Ok(Response::new(Full::new(Bytes::from(told)).boxed()));
    }
    assert_eq!(request.headers()["te"], "trailers");
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
    tokio::spawn(async move {
        while let Some(Ok(frame)) = request.body_mut().frame().await {
            let _ = sender.send(frame).await;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let _ = sender.send(Frame::trailers(trailers)).await;
    });
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|frame| (Ok(frame), receiver)));
    let mut answer = Response::new(StreamBody::new(Box::pin(stream)).boxed());
    answer.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(answer)
}

fn ca(folder: &tempfile::TempDir) -> std::path::PathBuf {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let path = folder.path().join("ca.pem");
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(bucket::root()));
    std::fs::write(&path, pem).unwrap();
    path
}

async fn in_front_of(other: &Other, tls: Option<OriginTls>, http2: bool) -> Setup {
    let address = other.address.to_string();
    Setup::configured(&[SHOP], |config| {
        config.origin = address;
        config.origin_protocol = OriginProtocol { tls, http2 };
    })
    .await
}

#[tokio::test]
async fn an_origin_over_tls_is_asked_when_it_is_the_one_expected() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = ca(&folder);
    let expect = |name: &str| Some(OriginTls { server_name: Some(name.to_owned()), ca_file: ca_file.clone() });
    for (h2, told) in
        [(false, format!("HTTP/1.1 GET /told?q=1 Some({SHOP:?})")), (true, format!("HTTP/2.0 GET https://{SHOP}/told?q=1 None"))]
    {
        let other = Other::start(true, h2).await;
        let setup = in_front_of(&other, expect(APP), h2).await;
        for _ in 0..3 {
            let answer = client::fetch(setup.https(), SHOP, "/told?q=1").await;
            assert_eq!((answer.status(), client::text(answer).await), (StatusCode::OK, told.clone()));
        }
        // One that was kept, and the look when the edge started.
        assert!(other.connections.load(Ordering::SeqCst) <= 2);
        let setup = in_front_of(&other, expect("another.example"), h2).await;
        assert_eq!(client::fetch(setup.https(), SHOP, "/told").await.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(setup.metric("nameplate_edge_requests_refused_total{reason=\"origin_tls\"}"), 1);
    }
    // An origin without HTTP/2 is not spoken to as if it had it, and one without TLS is not spoken to at all.
    for other in [Other::start(true, false).await, Other::start(false, true).await] {
        let setup = in_front_of(&other, expect(APP), true).await;
        assert_eq!(client::fetch(setup.https(), SHOP, "/told").await.status(), StatusCode::BAD_GATEWAY);
    }
}

#[tokio::test]
async fn an_edge_does_not_start_without_the_cas_it_is_to_trust() {
    let mut setup = Setup::with(&[SHOP]).await;
    drop(setup.edge.take());
    let mut config = edge::Config::on_loopback("app.internal.example:443", tempfile::tempdir().unwrap().path());
    config.origin_protocol.tls = Some(OriginTls { server_name: None, ca_file: "nowhere.pem".into() });
    let parts = edge::Parts { source: setup.source.clone(), seal_keys: setup.bucket.seal_keys(), clock: Arc::new(domains::SystemClock) };
    let error = edge::Edge::start(config, parts).await.unwrap_err();
    assert!(matches!(error, StartError::Origin(_)), "{error}");
}

#[tokio::test]
async fn interim_answers_of_the_origin_end_at_the_edge_and_its_answer_arrives_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hinting = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = socket.read(&mut buffer).await {
                    let interim =
                        [100, 102, 103, 103, 104, 150, 199].map(|status| format!("HTTP/1.1 {status} X\r\nLink: </style.css>\r\n\r\n"));
                    let answer = interim.concat() + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    let setup = Setup::configured(&[SHOP], |config| config.origin = address).await;
    let mut h1 = client::connect(setup.https(), SHOP).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {SHOP}\r\nConnection: close\r\n\r\n");
    let (answer, _) = client::talk(&mut h1, request.as_bytes(), SOON).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nbody") && !answer.contains("style"), "{answer}");
    let answer = client::h2(setup.https(), SHOP).await.send_request(client::get_h2(SHOP, "/")).await.unwrap();
    assert!(answer.status() == StatusCode::OK && !answer.headers().contains_key("link"));
    assert_eq!(client::text(answer).await, "body");
    hinting.abort();
}

#[tokio::test]
async fn grpc_streams_both_ways_and_its_status_arrives() {
    let other = Other::start(false, true).await;
    let setup = in_front_of(&other, None, true).await;
    let mut sender = client::h2(setup.https(), SHOP).await;
    let mut calls = Vec::new();
    for _ in 0..20 {
        let (messages, upload) = mpsc::channel::<Bytes>(1);
        let stream =
            futures_util::stream::unfold(upload, async |mut upload| upload.recv().await.map(|piece| (Ok(Frame::data(piece)), upload)));
        let body: client::Body = StreamBody::new(Box::pin(stream)).boxed();
        let request =
            Request::post(format!("https://{SHOP}/grpc.Echo/Stream")).header("te", "trailers").header("content-type", "application/grpc");
        let answer = timeout(SOON, sender.send_request(request.body(body).unwrap())).await.unwrap().unwrap();
        assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
        calls.push((messages, answer.into_body()));
    }
    for turn in 0..3 {
        for (messages, body) in &mut calls {
            let message = Bytes::from(format!("message {turn}"));
            messages.send(message.clone()).await.unwrap();
            let back = timeout(SOON, body.frame()).await.expect("a message in time").unwrap().unwrap();
            assert_eq!(back.into_data().unwrap(), message);
        }
    }
    for (messages, body) in calls {
        drop(messages);
        let end = timeout(SOON, body.collect()).await.expect("an end in time").unwrap();
        assert_eq!(end.trailers().unwrap()["grpc-status"], "0");
    }
    assert!(other.connections.load(Ordering::SeqCst) <= 2, "all calls share a connection");
}
