//! The client: one operation, again and again over a few connections, each answer compared byte for byte.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, HandshakeKind, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs::{cipher_suite::TLS13_AES_128_GCM_SHA256, default_provider, kx_group},
    pki_types::ServerName,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    Failure, origin,
    site::{NAME, Site, UNKNOWN},
};

/// Longer than any answer takes on a machine that is not stuck.
const PATIENCE: Duration = Duration::from_secs(20);
/// Addresses the client comes from, as many clients would: an edge gives one address only so many connections.
const ADDRESSES: u64 = 64;
/// Connections at once.
const CONNECTIONS: usize = 8;
/// Streams at once on each HTTP/2 connection.
const STREAMS: usize = 16;
/// Of resumptions tried, so many of a hundred must be.
const LEAST_RESUMED: u64 = 95;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Operation {
    /// A full TLS 1.3 handshake, X25519, and one request that goes to the origin.
    Handshake,
    /// The same with X25519MLKEM768.
    MlKem,
    /// The same, resumed.
    Resumed,
    /// One request of an open HTTP/1.1 connection.
    Http1,
    /// One request of an open HTTP/2 connection with others beside it.
    Http2,
    /// One answer of 1 MiB over an open HTTP/1.1 connection.
    Large,
    /// A handshake refused, since nobody has the name.
    Unknown,
}

impl Operation {
    pub(crate) const ALL: [Self; 7] = [Self::Handshake, Self::MlKem, Self::Resumed, Self::Http1, Self::Http2, Self::Large, Self::Unknown];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::MlKem => "mlkem",
            Self::Resumed => "resumed",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Large => "large",
            Self::Unknown => "unknown",
        }
    }

    /// As a reader of the table has it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Handshake => "full TLS 1.3 handshake + one proxied request",
            Self::MlKem => "the same with X25519MLKEM768",
            Self::Resumed => "resumed handshake + one proxied request",
            Self::Http1 => "HTTP/1.1 keep-alive, proxied request",
            Self::Http2 => "HTTP/2 (8 × 16 streams), proxied request",
            Self::Large => "1 MiB answer, proxied",
            Self::Unknown => "unknown SNI refused",
        }
    }

    /// What the edge may cost at most, as parts of what peers do; of the best one where none is named. `nginx` is Debian's own of a release
    /// with 1.22, `nginx-sid` the newest.
    pub(crate) fn aims(self) -> &'static [(f64, Option<&'static str>)] {
        match self {
            Self::Handshake => &[(0.40, Some("nginx")), (0.45, Some("nginx-sid"))],
            Self::MlKem => &[(0.45, Some("nginx-sid"))],
            Self::Resumed => &[(0.5, Some("nginx"))],
            Self::Http1 => &[(0.9, Some("nginx"))],
            Self::Http2 => &[(1.0, Some("h2o"))],
            Self::Large => &[(1.0, None)],
            Self::Unknown => &[(0.7, Some("nginx"))],
        }
    }

    /// Those named, or all.
    pub(crate) fn chosen(names: &[String]) -> Result<Vec<Self>, Failure> {
        let of = |name: &String| {
            Self::ALL.into_iter().find(|operation| operation.name() == name).ok_or_else(|| format!("there is no operation `{name}`"))
        };
        Ok(if names.is_empty() { Self::ALL.to_vec() } else { names.iter().map(of).collect::<Result<_, _>>()? })
    }
}

/// One operation against one server.
pub(crate) struct Load {
    server: SocketAddr,
    operation: Operation,
    tls: TlsConnector,
    large: Arc<[u8]>,
    resumed: Arc<AtomicU64>,
}

impl Load {
    pub(crate) fn new(site: &Site, server: SocketAddr, operation: Operation) -> Self {
        let mut provider = default_provider();
        provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256];
        provider.kx_groups = vec![if operation == Operation::MlKem { kx_group::X25519MLKEM768 } else { kx_group::X25519 }];
        let mut roots = RootCertStore::empty();
        roots.add(site.root.clone()).expect("a CA of our own");
        let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut config = builder.expect("a suite for this version").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![if operation == Operation::Http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        if operation != Operation::Resumed {
            config.resumption = Resumption::disabled();
        }
        let large = origin::large().into();
        Self { server, operation, tls: TlsConnector::from(Arc::new(config)), large, resumed: Arc::default() }
    }

    /// One client of it.
    pub(crate) fn client(&self) -> Client {
        Client { server: self.server, tls: self.tls.clone(), large: Arc::clone(&self.large), resumed: Arc::clone(&self.resumed) }
    }

    /// Does it for a while, and says how often.
    pub(crate) async fn run(&mut self, wait: Duration) -> Result<u64, Failure> {
        self.resumed.store(0, Ordering::Relaxed);
        let until = Instant::now() + wait;
        let mut clients = FuturesUnordered::new();
        for _ in 0..CONNECTIONS {
            clients.push(self.client().run(self.operation, until));
        }
        let mut done = 0;
        while let Some(client) = clients.next().await {
            done += client?;
        }
        let resumed = self.resumed.load(Ordering::Relaxed);
        // The first handshake of each client has nothing to resume.
        if self.operation == Operation::Resumed && (resumed + CONNECTIONS as u64) * 100 < done * LEAST_RESUMED {
            return Err(format!("only {resumed} of {done} were resumed").into());
        }
        Ok(done)
    }
}

/// Whoever connects.
pub(crate) struct Client {
    server: SocketAddr,
    tls: TlsConnector,
    large: Arc<[u8]>,
    resumed: Arc<AtomicU64>,
}

impl Client {
    async fn run(self, operation: Operation, until: Instant) -> Result<u64, Failure> {
        match operation {
            Operation::Handshake | Operation::MlKem | Operation::Resumed => {
                self.repeat(until, async || {
                    let mut stream = self.connect(NAME).await?;
                    self.get(&mut stream, "/small", origin::SMALL, &mut Vec::new()).await?;
                    if stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed) {
                        self.resumed.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
                .await
            }
            Operation::Http1 | Operation::Large => {
                let (path, body) = if operation == Operation::Large { ("/large", &*self.large) } else { ("/small", origin::SMALL) };
                let (mut stream, mut buffer, mut done) = (self.connect(NAME).await?, Vec::new(), 0);
                while Instant::now() < until {
                    self.get(&mut stream, path, body, &mut buffer).await?;
                    done += 1;
                }
                Ok(done)
            }
            Operation::Http2 => self.http2(until).await,
            Operation::Unknown => self.repeat(until, async || self.is_refused().await).await,
        }
    }

    async fn repeat(&self, until: Instant, operation: impl AsyncFn() -> Result<(), Failure>) -> Result<u64, Failure> {
        let mut done = 0;
        while Instant::now() < until {
            timeout(PATIENCE, operation()).await??;
            done += 1;
        }
        Ok(done)
    }

    /// Connects from the next of the addresses.
    pub(crate) async fn connect(&self, sni: &str) -> io::Result<TlsStream<TcpStream>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let socket = TcpSocket::new_v4()?;
        let host = 2 + NEXT.fetch_add(1, Ordering::Relaxed) % ADDRESSES;
        socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, host as u8)), 0))?;
        let tcp = socket.connect(self.server).await?;
        tcp.set_nodelay(true)?;
        let sni = ServerName::try_from(sni.to_owned()).map_err(io::Error::other)?;
        self.tls.connect(sni, tcp).await
    }

    async fn is_refused(&self) -> Result<(), Failure> {
        let Err(error) = self.connect(UNKNOWN).await else {
            return Err("an unknown name was served".into());
        };
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(rustls::Error::AlertReceived(_)) => Ok(()),
            Some(rustls::Error::InvalidCertificate(_)) => Err("another name's certificate is served for an unknown one".into()),
            _ => Err(format!("an unknown name was not refused with an alert: {error}").into()),
        }
    }

    /// One request; `buffer` keeps its room between them.
    pub(crate) async fn get(
        &self,
        stream: &mut TlsStream<TcpStream>,
        path: &str,
        body: &[u8],
        buffer: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        buffer.clear();
        buffer.reserve(64 * 1024);
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if timeout(PATIENCE, stream.read_buf(buffer)).await?? == 0 {
                return Err("the connection ended before its answer".into());
            }
        };
        let said = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = said.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        if !said.starts_with("http/1.1 200 ") || length != Some(body.len()) {
            return Err(format!("not the origin's answer: {said}").into());
        }
        while buffer.len() < head + body.len() {
            buffer.reserve(256 * 1024);
            if timeout(PATIENCE, stream.read_buf(buffer)).await?? == 0 {
                return Err("the connection ended in its answer".into());
            }
        }
        if &buffer[head..] == body { Ok(()) } else { Err("the body is not the origin's".into()) }
    }

    async fn http2(self, until: Instant) -> Result<u64, Failure> {
        let stream = self.connect(NAME).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("HTTP/2 was not agreed on".into());
        }
        let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let driving = tokio::spawn(connection);
        let mut streams = JoinSet::new();
        for _ in 0..STREAMS {
            let mut sender = sender.clone();
            streams.spawn(async move {
                let mut done = 0;
                while Instant::now() < until {
                    let request = Request::get(format!("https://{NAME}/small")).body(Empty::<Bytes>::new())?;
                    let answer = timeout(PATIENCE, sender.send_request(request)).await??;
                    let status = answer.status();
                    let body = answer.into_body().collect().await?.to_bytes();
                    if status != 200 || body != origin::SMALL {
                        return Err(format!("not the origin's answer: {status} {body:?}").into());
                    }
                    done += 1;
                }
                Ok::<u64, Failure>(done)
            });
        }
        let mut done = 0;
        while let Some(stream) = streams.join_next().await {
            done += stream??;
        }
        drop(sender);
        driving.abort();
        Ok(done)
    }
}
