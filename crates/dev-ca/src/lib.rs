//! A small ACME certificate authority for one machine.
//!
//! It speaks RFC 8555 and RFC 9773 over HTTPS to any client that is given its root, proves names by really looking them up and fetching
//! from them, and behaves like Boulder where the RFCs leave a choice. It is for `nameplate dev` and for tests: the latter also make it
//! fail on purpose, through [`Control`]. Nobody outside this machine should ever trust its root.
//!
//! Arrives: a [`Config`]. Leaves: a [`DevCa`] whose [`directory_url`](DevCa::directory_url) and [`root_pem`](DevCa::root_pem) are all a
//! client needs. Goes wrong: [`Error`], before anything is answered.
//!
//! Kept in the state folder: the root, the intermediate and the accounts. Orders, authorizations and certificates are forgotten when
//! the CA stops.
//!
//! The parts, in the order a request meets them: `server` (connections), `routes` and `protocol` (resources), `ca` and `jws` (who signed), `names`,
//! `orders` (the rules), `validation` (proof), `authority` (signatures); beside them `accounts`, `control`, and the small ones.

mod accounts;
mod authority;
mod ca;
mod control;
mod control_http;
mod durations;
mod files;
mod jws;
mod limits;
mod names;
mod nonces;
mod orders;
mod problem;
mod protocol;
mod routes;
mod server;
mod validation;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use jiff::Timestamp;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub use accounts::AccountsError;
pub use authority::AuthorityError;
pub use control::{Answer, CertificateRecord, Chosen, Control, Endpoint, Fault, Settings};
pub use durations::{DurationError, parse_duration};
pub use files::FileError;
pub use limits::{Limit, LimitBook, Limits, Refused};
pub use orders::{Counters, Profile, Window};

use crate::accounts::Accounts;
use crate::authority::Authority;
use crate::ca::{Ca, sensible_lifetime};
use crate::control_http::ControlHttp;
use crate::files::Claim;
use crate::orders::Book;
use crate::protocol::Acme;
use crate::server::Server;
use crate::validation::Validator;

/// Where the CA gets the time from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How long certificates live unless configured otherwise. Source: Let's Encrypt's profile `classic` (read 2026-11).
pub const USUAL_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// How long clients are asked to leave renewal information alone. Source: Boulder, 6 h (read 2026-11).
const USUAL_ARI_RETRY_AFTER: Duration = Duration::from_hours(6);
/// Where names are looked up and fetched from unless configured otherwise: the real ports.
const USUAL_DNS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
const USUAL_HTTP_PORT: u16 = 80;

/// How the CA is set up.
#[derive(Clone)]
pub struct Config {
    /// Where ACME is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The name in the CA's own URLs and certificate.
    pub hostname: String,
    /// Where the CA is kept; `None` makes one that ends with the process.
    pub state: Option<PathBuf>,
    /// The recursive DNS server that names are looked up at, over UDP and TCP.
    pub dns: SocketAddr,
    /// The port http-01 challenges are fetched from.
    pub http_port: u16,
    /// Where the control listener is, if anywhere; only loopback is allowed.
    pub control: Option<SocketAddr>,
    /// How long certificates live.
    pub lifetime: Duration,
    /// Of 100 good nonces, how many are refused.
    pub bad_nonce_percent: u8,
    /// How long an order stays `processing`; zero issues at once.
    pub finalize_delay: Duration,
    /// How long a proof is good for further orders; zero asks for a new one each time.
    pub authorization_reuse: Duration,
    /// The limits that orders are held to; none unless said otherwise.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            hostname: "localhost".into(),
            state: None,
            dns: USUAL_DNS,
            http_port: USUAL_HTTP_PORT,
            control: None,
            lifetime: USUAL_LIFETIME,
            bad_nonce_percent: 0,
            finalize_delay: Duration::ZERO,
            authorization_reuse: Duration::ZERO,
            limits: Limits::default(),
            clock: system_clock(),
        }
    }
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("hostname", &self.hostname)
            .field("state", &self.state)
            .field("dns", &self.dns)
            .field("http_port", &self.http_port)
            .field("control", &self.control)
            .field("lifetime", &self.lifetime)
            .field("bad_nonce_percent", &self.bad_nonce_percent)
            .field("finalize_delay", &self.finalize_delay)
            .field("authorization_reuse", &self.authorization_reuse)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Returns the clock of this machine.
pub fn system_clock() -> Clock {
    #[allow(clippy::disallowed_methods, reason = "the one place where the real time comes in; everything else takes a Clock")]
    Arc::new(Timestamp::now)
}

/// The CA could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The state folder could not be used.
    #[error("the state folder")]
    State(#[from] FileError),
    /// The keys and certificates could not be made or loaded.
    #[error("the CA's keys and certificates")]
    Authority(#[from] AuthorityError),
    /// The accounts could not be loaded.
    #[error("the CA's accounts")]
    Accounts(#[from] AccountsError),
    /// An address could not be listened on.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The control listener was to be reachable from elsewhere.
    #[error("the control listener must be on loopback, not on {address}: it has no password")]
    ControlNotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The CA's own HTTPS could not be set up.
    #[error("the CA's own HTTPS")]
    Tls(#[from] rustls::Error),
    /// The DNS client could not be set up.
    #[error("the DNS client for {server}")]
    Dns {
        /// The configured server.
        server: SocketAddr,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The work of starting was cut short.
    #[error("starting the CA was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// A running CA. Dropping it stops it at once; [`shutdown`](Self::shutdown) lets answers under way finish.
#[derive(Debug)]
pub struct DevCa {
    ca: Arc<Ca>,
    address: SocketAddr,
    control_address: Option<SocketAddr>,
    servers: Vec<Server>,
    root_path: Option<PathBuf>,
    _claim: Option<Claim>,
}

impl DevCa {
    /// Starts a CA and returns once it answers.
    ///
    /// # Errors
    /// [`Error`] says which part could not be set up; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, Error> {
        if let Some(address) = config.control.filter(|address| !address.ip().is_loopback()) {
            return Err(Error::ControlNotLoopback { address });
        }
        let listener = listen(config.listen).await?;
        let control_listener = match config.control {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let state = config.state.clone();
        let (claim, authority, accounts) = tokio::task::spawn_blocking(move || open(state)).await??;
        let validator =
            Validator::new(config.dns, config.http_port).map_err(|source| Error::Dns { server: config.dns, source: source.into() })?;
        let tls = tls_acceptor(&authority, &config.hostname)?;
        let port = listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?.port();

        let ca = Arc::new(Ca {
            authority,
            accounts,
            validator,
            book: Mutex::new(Book::held_to(config.limits)),
            faults: Mutex::default(),
            nonces: Mutex::default(),
            settings: Mutex::new(Settings {
                bad_nonce_percent: config.bad_nonce_percent.min(100),
                lifetime: sensible_lifetime(config.lifetime),
                finalize_delay: config.finalize_delay,
                authorization_reuse: config.authorization_reuse,
                ari_retry_after: USUAL_ARI_RETRY_AFTER,
                paused: false,
            }),
            paused: watch::Sender::new(false),
            background: Mutex::default(),
            random: SystemRandom::new(),
            clock: config.clock,
            origin: format!("https://{}:{port}", config.hostname),
        });
        let acme =
            Server::start(listener, Some(tls), Acme(Arc::clone(&ca))).map_err(|source| Error::Listen { address: config.listen, source })?;
        let address = acme.address;
        let mut servers = vec![acme];
        if let Some(listener) = control_listener {
            let control = ControlHttp(Control::new(Arc::clone(&ca)));
            servers.push(Server::start(listener, None, control).map_err(|source| Error::Listen { address: config.listen, source })?);
        }
        let control_address = servers.get(1).map(|server| server.address);
        let root_path = config.state.map(|folder| folder.join(authority::ROOT_FILE));
        Ok(Self { ca, address, control_address, servers, root_path, _claim: claim })
    }

    /// The URL that ACME clients are given.
    pub fn directory_url(&self) -> String {
        self.ca.url("/directory")
    }

    /// The root certificate that clients must trust, for the CA's HTTPS as well as for what it issues.
    pub fn root_pem(&self) -> &str {
        self.ca.authority.root_pem()
    }

    /// Where the root certificate lies on disk, when there is a state folder.
    pub fn root_path(&self) -> Option<&PathBuf> {
        self.root_path.as_ref()
    }

    /// Where ACME is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the control listener is, if there is one.
    pub fn control_url(&self) -> Option<String> {
        self.control_address.map(|address| format!("http://{address}"))
    }

    /// A handle that makes the CA fail on purpose, and counts.
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.ca))
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.control().counters()
    }

    /// Stops accepting, answers what is under way for a few seconds, and ends.
    pub async fn shutdown(mut self) {
        // What waits for the end of a pause would otherwise use up the time that answers have.
        self.control().resume();
        for server in std::mem::take(&mut self.servers) {
            server.stop().await;
        }
    }
}

impl Drop for DevCa {
    fn drop(&mut self) {
        lock(&self.ca.background).abort_all();
    }
}

/// Claims the state folder and loads what it holds.
fn open(state: Option<PathBuf>) -> Result<(Option<Claim>, Authority, Accounts), Error> {
    let folder = state.as_deref();
    let claim = folder.map(files::claim_folder).transpose()?;
    Ok((claim, Authority::open(folder)?, Accounts::open(folder)?))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

fn tls_acceptor(authority: &Authority, hostname: &str) -> Result<TlsAcceptor, Error> {
    let (chain, key) = authority.server_certificate(hostname)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Locks what no panic can leave half-changed: every holder makes its changes without a call that panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with all its causes, on one line.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
