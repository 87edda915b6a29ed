//! Clients: real TLS, then HTTP by hand or by hyper.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bundles::Digest;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) fn config(alpn: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(crate::bucket::root()).unwrap();
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
    config
}

pub(crate) async fn connect_with(config: Arc<ClientConfig>, edge: SocketAddr, sni: &str) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(edge).await?;
    tcp.set_nodelay(true)?;
    let sni = ServerName::try_from(sni.to_owned()).unwrap();
    timeout(SOON, TlsConnector::from(config).connect(sni, tcp)).await.expect("a handshake in time")
}

pub(crate) async fn connect(edge: SocketAddr, sni: &str) -> io::Result<TlsStream<TcpStream>> {
    connect_with(Arc::new(config(&["http/1.1"])), edge, sni).await
}

/// The fingerprint of the certificate a connection was opened with.
pub(crate) fn fingerprint(stream: &TlsStream<TcpStream>) -> Digest {
    Digest::of(&stream.get_ref().1.peer_certificates().unwrap()[0])
}

/// What a new handshake is served: its certificate's fingerprint.
pub(crate) async fn served(edge: SocketAddr, sni: &str) -> io::Result<Digest> {
    connect(edge, sni).await.map(|stream| fingerprint(&stream))
}

pub(crate) type Body = BoxBody<Bytes, std::convert::Infallible>;

pub(crate) fn empty() -> Body {
    Empty::new().boxed()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

pub(crate) fn get(sni: &str, path: &str) -> Request<Body> {
    Request::get(path).header("host", sni).body(empty()).unwrap()
}

pub(crate) async fn h1(edge: SocketAddr, sni: &str) -> conn::http1::SendRequest<Body> {
    let stream = connect(edge, sni).await.unwrap();
    let (sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) async fn h2(edge: SocketAddr, sni: &str) -> conn::http2::SendRequest<Body> {
    let stream = connect_with(Arc::new(config(&["h2"])), edge, sni).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut builder = conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.timer(TokioTimer::new()).handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get_h2(authority: &str, path: &str) -> Request<Body> {
    Request::get(format!("https://{authority}{path}")).body(empty()).unwrap()
}

pub(crate) async fn text(answer: Response<Incoming>) -> String {
    let bytes = timeout(SOON, answer.into_body().collect()).await.expect("a body in time").unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One request over a new HTTP/1 connection.
pub(crate) async fn fetch(edge: SocketAddr, sni: &str, path: &str) -> Response<Incoming> {
    timeout(SOON, h1(edge, sni).await.send_request(get(sni, path))).await.expect("an answer in time").unwrap()
}

/// Sends bytes and reads until the connection ends or `wait` passes: what came, and whether it ended.
pub(crate) async fn talk<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
    wait: Duration,
) -> (String, bool) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    read_to_end(stream, wait).await
}

pub(crate) async fn read_to_end<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, wait: Duration) -> (String, bool) {
    let (mut came, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    let ended = timeout(wait, async {
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            came.extend_from_slice(&buffer[..read]);
        }
    });
    let ended = ended.await.is_ok();
    (String::from_utf8_lossy(&came).into_owned(), ended)
}

/// One request over plain HTTP, by hand.
pub(crate) async fn plain(address: SocketAddr, request: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    talk(&mut tcp, request.as_bytes(), SOON).await.0
}
