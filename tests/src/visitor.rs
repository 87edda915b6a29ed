//! A visitor of a customer's domain: real TLS with the CA's root and nothing else trusted, SNI, then HTTP.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, client::Resumption};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::client::Answer;

/// How long one visit may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer over verified HTTPS.
#[derive(Clone, Debug)]
pub struct Visit {
    /// What was answered.
    pub answer: Answer,
    /// The serial number of the certificate served, lower-case hex.
    pub serial: String,
    /// Whether the handshake resumed a session from before.
    pub resumed: bool,
}

/// Trusts one root, and comes without sessions from before: every handshake is a full one, unless it is [`returning`](Visitor::returning).
#[derive(Clone, Debug)]
pub struct Visitor {
    edge: SocketAddr,
    h1: Arc<ClientConfig>,
    h2: Arc<ClientConfig>,
}

impl Visitor {
    /// A visitor who finds every name at `edge` and trusts the root in a PEM file.
    pub fn new(edge: SocketAddr, root: &Path) -> Self {
        let root = CertificateDer::from_pem_file(root).unwrap_or_else(|error| panic!("the root {}: {error}", root.display()));
        Self::trusting(edge, root)
    }

    /// A visitor who finds every name at `edge` and trusts this root.
    pub fn trusting(edge: SocketAddr, root: CertificateDer<'static>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = |alpn: &[u8]| {
            let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
            let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = vec![alpn.to_vec()];
            config.resumption = Resumption::disabled();
            Arc::new(config)
        };
        Self { edge, h1: config(b"http/1.1"), h2: config(b"h2") }
    }

    /// The same, but it keeps the sessions of its visits over HTTP/1.1 and offers them at the next.
    pub fn returning(mut self) -> Self {
        Arc::make_mut(&mut self.h1).resumption = Resumption::default();
        self
    }

    async fn handshake(&self, config: &Arc<ClientConfig>, hostname: &str) -> Result<TlsStream<TcpStream>, String> {
        let tcp = TcpStream::connect(self.edge).await.map_err(|error| format!("connect: {error}"))?;
        tcp.set_nodelay(true).map_err(|error| error.to_string())?;
        let name = ServerName::try_from(hostname.to_owned()).map_err(|error| error.to_string())?;
        TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(|error| format!("handshake: {error}"))
    }

    /// A verified TLS connection that speaks HTTP/1.1.
    pub async fn connect(&self, hostname: &str) -> Result<TlsStream<TcpStream>, String> {
        timeout(PATIENCE, self.handshake(&self.h1, hostname)).await.map_err(|_| "no handshake in time".to_owned())?
    }

    /// An HTTP/1.1 connection.
    pub async fn h1(&self, hostname: &str) -> Result<conn::http1::SendRequest<Empty<Bytes>>, String> {
        let stream = self.connect(hostname).await?;
        let (sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// An HTTP/2 connection.
    pub async fn h2(&self, hostname: &str) -> Result<conn::http2::SendRequest<Empty<Bytes>>, String> {
        let stream = timeout(PATIENCE, self.handshake(&self.h2, hostname)).await.map_err(|_| "no handshake in time".to_owned())??;
        let (sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One request over a connection of its own. `Err` when there is no verified connection or no answer.
    pub async fn get(&self, hostname: &str, path: &str) -> Result<Visit, String> {
        timeout(PATIENCE, self.visit(hostname, path)).await.map_err(|_| format!("{hostname}: no answer in {PATIENCE:?}"))?
    }

    async fn visit(&self, hostname: &str, path: &str) -> Result<Visit, String> {
        let stream = self.handshake(&self.h1, hostname).await?;
        let serial = serial(&stream)?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(get(hostname, path)).await.map_err(|error| format!("request: {error}"))?;
        let answer = read(answer).await?;
        connection.abort();
        Ok(Visit { answer, serial, resumed })
    }
}

/// A GET as HTTP/1.1 sends it.
pub fn get(hostname: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).header("host", hostname).body(Empty::new()).unwrap()
}

/// A GET as HTTP/2 sends it.
pub fn get_h2(hostname: &str, path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("https://{hostname}{path}")).body(Empty::new()).unwrap()
}

/// Reads an answer whole.
pub async fn read(answer: http::Response<Incoming>) -> Result<Answer, String> {
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| format!("body: {error}"))?.to_bytes();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

fn serial(stream: &TlsStream<TcpStream>) -> Result<String, String> {
    let chain = stream.get_ref().1.peer_certificates().ok_or("no certificate was served")?;
    let (_, leaf) = X509Certificate::from_der(&chain[0]).map_err(|error| error.to_string())?;
    Ok(leaf.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect())
}
