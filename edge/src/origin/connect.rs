//! A new connection to the origin: TCP, TLS where the origin has it, and the version of HTTP it is to speak.
//!
//! Arrives: an address and how it is spoken to. Leaves: something that requests can be sent on. Goes wrong: nobody is there, the
//! certificate is not the origin's, or another protocol is spoken than was agreed on; each is an [`OriginError`].

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use hyper::{
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::OriginError;
use crate::{
    body::Upload,
    config::{Limits, OriginProtocol},
};

/// The most bytes buffered from the origin at once: large reads are what makes large bodies cheap.
const BUFFER_BYTES: usize = 256 * 1024;
/// HTTP/2 windows towards us: a response is slowed by its client, not by these.
const STREAM_WINDOW_BYTES: u32 = 512 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Something that requests can be sent on.
#[derive(Debug)]
pub(super) enum Sender {
    Http1(http1::SendRequest<Upload>),
    Http2(http2::SendRequest<Upload>),
}

/// Which version of HTTP a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

/// Connects to one origin.
pub(super) struct Connector {
    pub(super) address: String,
    tls: Option<Tls>,
}

struct Tls {
    server_name: ServerName<'static>,
    http1: TlsConnector,
    http2: TlsConnector,
}

impl Connector {
    /// Reads what TLS needs.
    ///
    /// # Errors
    /// A file of CAs that cannot be used, or a name that is none.
    pub(super) fn new(address: String, protocol: &OriginProtocol) -> io::Result<Self> {
        let tls = protocol.tls.as_ref().map(|tls| {
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            let name = tls.server_name.as_deref().unwrap_or(host).trim_start_matches('[').trim_end_matches(']');
            let server_name = ServerName::try_from(name.to_owned())
                .map_err(|_| io::Error::other(format!("`{name}` is no name that a certificate could have")))?;
            let roots = Arc::new(roots(&tls.ca_file)?);
            Ok::<_, io::Error>(Tls { server_name, http1: connector(&roots, b"http/1.1")?, http2: connector(&roots, b"h2")? })
        });
        Ok(Self { address, tls: tls.transpose()? })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// An [`OriginError`] that says how far it came.
    pub(super) async fn open(&self, version: Version, deadline: Instant, limits: &Limits) -> Result<Sender, OriginError> {
        let late = || OriginError::ConnectTimedOut(self.address.clone());
        let unreachable = |cause| OriginError::Unreachable { address: self.address.clone(), cause };
        let tcp = timeout_at(deadline, TcpStream::connect(self.address.as_str())).await.map_err(|_| late())?.map_err(unreachable)?;
        // Without it small writes wait for acknowledgements; if it cannot be set, they do.
        let _ = tcp.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return timeout_at(deadline, handshake(tcp, version, limits)).await.map_err(|_| late())?;
        };
        let connector = if version == Version::Http2 { &tls.http2 } else { &tls.http1 };
        let shaking = connector.connect(tls.server_name.clone(), tcp);
        let io = timeout_at(deadline, shaking)
            .await
            .map_err(|_| late())?
            .map_err(|cause| OriginError::Tls { address: self.address.clone(), cause })?;
        // One that agrees on nothing speaks HTTP/1.1, so HTTP/2 must have been agreed on.
        if version == Version::Http2 && io.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(OriginError::Tls { address: self.address.clone(), cause: io::Error::other("it does not speak HTTP/2") });
        }
        timeout_at(deadline, handshake(io, version, limits)).await.map_err(|_| late())?
    }
}

async fn handshake<IO>(io: IO, version: Version, limits: &Limits) -> Result<Sender, OriginError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let ended = |error: hyper::Error| tracing::debug!(error = telemetry::error_chain(&error), "a connection to the origin ended");
    // Each task ends when its sender and bodies are gone; every wait within is bounded by whoever holds those.
    match version {
        Version::Http1 => {
            let mut builder = http1::Builder::new();
            let (sender, connection) = builder.max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(io)).await.map_err(OriginError::Failed)?;
            tokio::spawn(async move { connection.with_upgrades().await.unwrap_or_else(ended) });
            Ok(Sender::Http1(sender))
        }
        Version::Http2 => {
            let parts = Parts::new();
            let mut builder = http2::Builder::new(parts.clone());
            builder
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
                // A connection that many share must not be a dead one for long.
                .keep_alive_interval(limits.origin_idle)
                .keep_alive_timeout(limits.origin_connect);
            let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(OriginError::Failed)?;
            let first = parts.first();
            tokio::spawn(async move { tokio::join!(first, async { connection.await.unwrap_or_else(ended) }) });
            Ok(Sender::Http2(sender))
        }
    }
}

/// Runs the parts of a connection over HTTP/2: what reads and writes together with what begins requests, each request's own part apart.
///
/// In tasks of their own, the first two can run at once. A GOAWAY can be read then between the beginning of a request and hyper's next look
/// at the connection, and hyper ends the request with it (1.12, `ClientTask::poll`) although the origin is sent it: it would go a second
/// time.
#[derive(Clone)]
struct Parts {
    /// What the handshake began; nothing is gathered after it.
    first: Arc<Mutex<Option<Vec<BoxFuture<'static, ()>>>>>,
}

impl Parts {
    fn new() -> Self {
        Self { first: Arc::new(Mutex::new(Some(Vec::new()))) }
    }

    fn first(&self) -> impl Future<Output = ()> + use<> {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        async { drop(join_all(first.unwrap_or_default()).await) }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Parts {
    fn execute(&self, part: F) {
        match &mut *self.first.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(first) => first.push(part.boxed()),
            None => drop(tokio::spawn(part)),
        }
    }
}

fn connector(roots: &Arc<RootCertStore>, protocol: &[u8]) -> io::Result<TlsConnector> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let mut config = builder.with_root_certificates(Arc::clone(roots)).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(file: &Path) -> io::Result<RootCertStore> {
    let told = |error: &dyn std::fmt::Display| io::Error::other(format!("{}: {error}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| told(&error))? {
        // A system's file has roots that some readers do not like; one that is left out is only not trusted.
        let _ = roots.add(certificate.map_err(|error| told(&error))?);
    }
    if roots.is_empty() { Err(told(&"there is no CA in it")) } else { Ok(roots) }
}
