//! One message to one endpoint over HTTPS.
//!
//! Arrives: a signed message. Leaves: that it was taken, which only 2xx says. Goes wrong: a name that leads to no address on the public
//! internet, a certificate nobody vouches for, silence, any other status; each in words. Redirects are not followed, and the connection
//! goes to the very address that was checked, so that a name cannot lead one way for the check and another for the connection.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use domains::webhooks::{Endpoint, Refused};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use lookups::is_global;
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long one delivery may take, from the name to the status. Standard Webhooks asks for 15 to 30 seconds (read 2026-11).
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How long one address may keep us before the next is tried.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 4;
/// How long the rest of an answer may take once its status is there, and how much of it is read.
const BODY_PATIENCE: Duration = Duration::from_secs(1);
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// How long a connection is kept for the next message.
const IDLE: Duration = Duration::from_secs(20);
/// How we name ourselves.
const USER_AGENT: &str = concat!("nameplate/", env!("CARGO_PKG_VERSION"));

/// A message, signed.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where to.
    pub url: String,
    /// The message's own id.
    pub id: String,
    /// When it is sent, in seconds since 1970.
    pub seconds: i64,
    /// The signatures, separated by spaces.
    pub signature: String,
    /// The text.
    pub body: Bytes,
}

/// Sends messages; a trait, so that tests decide what endpoints answer.
#[async_trait]
pub trait Sender: Send + Sync {
    /// Sends one message; returns once the endpoint has taken it.
    ///
    /// # Errors
    /// [`Refused`] for whatever else happened.
    async fn send(&self, message: &Message) -> Result<(), Refused>;
}

/// The sender cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The configured root is none.
    #[error("the root certificate for webhooks is not PEM: {0}")]
    BadRoot(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// Sends over HTTPS.
pub struct HttpsSender {
    tls: TlsConnector,
    allow_private: bool,
    kept: Mutex<HashMap<String, Connection>>,
}

impl HttpsSender {
    /// A sender that trusts this machine's roots and, if given, one more. `allow_private`: addresses inside a network are sent to as well.
    ///
    /// # Errors
    /// [`SetupError`] when the root does not read.
    pub fn new(extra_root_pem: Option<&str>, allow_private: bool) -> Result<Self, SetupError> {
        let mut roots = RootCertStore::empty();
        // A machine without roots can still be told one; without any, every delivery says that the certificate is not trusted.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = extra_root_pem {
            let found: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|error| SetupError::BadRoot(error.to_string()))?;
            if roots.add_parsable_certificates(found).0 == 0 {
                return Err(SetupError::BadRoot("there is no certificate in it".into()));
            }
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(SetupError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(tls)), allow_private, kept: Mutex::default() })
    }

    async fn exchange(&self, message: &Message) -> Result<(StatusCode, HeaderMap), String> {
        let target = Endpoint::parse(&message.url)?;
        if let Some(mut kept) = self.kept(&target.authority) {
            // The endpoint may close it at any moment. Then the message goes over a new one, at worst for the second time.
            if let Ok(answer) = kept.ask(&target, message).await {
                self.keep(&target.authority, kept);
                return Ok(answer);
            }
        }
        let mut fresh = self.open(&target).await?;
        let answer = fresh.ask(&target, message).await?;
        self.keep(&target.authority, fresh);
        Ok(answer)
    }

    /// A connection to this authority that was used a moment ago; those that were not are closed.
    fn kept(&self, authority: &str) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, connection| connection.used_at.elapsed() < IDLE);
        kept.remove(authority)
    }

    fn keep(&self, authority: &str, connection: Connection) {
        if connection.is_reusable {
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(authority.to_owned(), connection);
        }
    }

    async fn open(&self, target: &Endpoint) -> Result<Connection, String> {
        let stream = self.connect(target).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| told("HTTP", &error))?;
        Ok(Connection { sender, _driver: AbortOnDrop(tokio::spawn(connection)), used_at: Instant::now(), is_reusable: false })
    }

    async fn connect(&self, target: &Endpoint) -> Result<TlsStream<TcpStream>, String> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((target.host.as_str(), target.port))
            .await
            .map_err(|error| format!("{} does not resolve: {error}", target.host))?
            .collect();
        let allowed: Vec<_> = found.iter().filter(|address| self.allow_private || is_global(address.ip())).collect();
        if allowed.is_empty() {
            return Err(format!("{} has no address on the public internet; only such are sent to", target.host));
        }
        let name = ServerName::try_from(target.host.clone()).map_err(|_| format!("{} is no name for TLS", target.host))?;
        let mut last = String::new();
        for address in allowed.into_iter().take(MAX_ADDRESSES) {
            match tokio::time::timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // A message is one small write.
                    let _ = stream.set_nodelay(true);
                    return self.tls.connect(name, stream).await.map_err(|error| told("TLS", &error));
                }
                Ok(Err(error)) => last = format!("{} does not accept connections: {error}", target.host),
                Err(_) => last = format!("{} does not accept connections in time", target.host),
            }
        }
        Err(last)
    }
}

#[async_trait]
impl Sender for HttpsSender {
    async fn send(&self, message: &Message) -> Result<(), Refused> {
        let other = |why: String| Refused::Other { why, retry_after: None };
        let exchanged = tokio::time::timeout(PATIENCE, self.exchange(message)).await;
        let (status, headers) = exchanged.map_err(|_| other(format!("no answer within {} s", PATIENCE.as_secs())))?.map_err(other)?;
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::GONE => Err(Refused::Gone),
            status if status.is_redirection() => Err(other(format!("answered {status}; redirects are not followed"))),
            status => Err(Refused::Other { why: format!("answered {status}"), retry_after: retry_after(&headers) }),
        }
    }
}

/// The wait that the endpoint asks for, in seconds; a date is not worth the trouble of clocks that differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

fn told(what: &str, error: &dyn std::error::Error) -> String {
    format!("{what}: {}", telemetry::error_chain(error))
}

/// One connection, for one message at a time.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    _driver: AbortOnDrop<hyper::Result<()>>,
    used_at: Instant,
    is_reusable: bool,
}

impl Connection {
    async fn ask(&mut self, target: &Endpoint, message: &Message) -> Result<(StatusCode, HeaderMap), String> {
        self.is_reusable = false;
        self.sender.ready().await.map_err(|error| told("HTTP", &error))?;
        let request = Request::post(&target.path)
            .header(header::HOST, &target.authority)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", message.seconds)
            .header("webhook-signature", &message.signature)
            .body(Full::new(message.body.clone()))
            .map_err(|error| error.to_string())?;
        let answer = self.sender.send_request(request).await.map_err(|error| told("HTTP", &error))?;
        let (parts, body) = answer.into_parts();
        // What stands in it is nobody's business here; but only a connection whose answer was read whole carries another.
        let read = tokio::time::timeout(BODY_PATIENCE, Limited::new(body, MAX_ANSWER_BYTES).collect()).await;
        self.is_reusable = read.is_ok_and(|body| body.is_ok());
        self.used_at = Instant::now();
        Ok((parts.status, parts.headers))
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(url: &str) -> Message {
        Message { url: url.into(), id: "m".into(), seconds: 0, signature: "v1,x".into(), body: Bytes::new() }
    }

    #[tokio::test]
    async fn no_message_goes_into_our_own_network() {
        let sender = HttpsSender::new(None, false).unwrap();
        for inside in ["https://127.0.0.1:1/", "https://[::1]:1/", "https://localhost:1/", "https://169.254.169.254/", "https://10.0.0.1/"]
        {
            let refused = sender.send(&message(inside)).await.unwrap_err();
            assert!(refused.why().contains("no address on the public internet"), "{inside}: {}", refused.why());
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = listener.local_addr().unwrap();
        drop(listener);
        let refused = HttpsSender::new(None, true).unwrap().send(&message(&format!("https://{closed}/"))).await.unwrap_err();
        assert!(refused.why().contains("does not accept connections"), "{}", refused.why());
    }
}
