//! An editable DNS server for one machine: the zones of a demo, and of tests.
//!
//! Arrives: records, by [`Zone`]'s methods or over HTTP, and DNS questions over UDP and TCP. Leaves: the answers that an authority
//! gives, and, to clients that ask for recursion, those that a resolver gives whose whole world is these zones. Goes wrong: [`Error`] at
//! the start; later every refused edit says why, and every question gets a response code.
//!
//! It makes up what every zone has: SOA and NS records, and an address for the name server, as long as none are stored. It signs
//! nothing, transfers nothing and asks nobody else.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use dev_dns::{Config, DevDns, RecordType};
//!
//! let server = DevDns::start(Config::default()).await?;
//! server.zone().set("shop.brand.test", RecordType::Cname, &["abc.t.edge.test"])?;
//! println!("ask {} for shop.brand.test", server.dns_addr());
//! server.shutdown().await?;
//! # Ok(())
//! # }
//! ```

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, RwLock},
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::JoinHandle, time::timeout};

mod admin;
mod forward;
mod handle;
mod names;
mod observed;
mod persist;
mod quirks;
mod record;
mod server;
mod zone;

pub use handle::Zone;
pub use names::NameError;
pub use observed::{Queries, Query, Transport};
pub use persist::{FileError, SaveError};
pub use quirks::{Quirk, QuirkError};
pub use record::{Record, RecordError, RecordType};
pub use zone::EditError;

use forward::Forward;
use persist::{Claimed, Keeper, Progress};
use zone::{Contents, Edit, Settings};

/// The default TTL where nobody chose one: short, because people edit this zone and look at once.
pub const DEFAULT_TTL_SECONDS: u32 = 5;
/// How many labels a registered domain has where nobody said: `brand.test`.
pub const DEFAULT_REGISTERED_LABELS: usize = 2;
/// How long each part may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where DNS questions are taken, over UDP and TCP. Port 0 finds one number for both.
    pub dns: SocketAddr,
    /// Where records are edited over HTTP: a loopback address, or nowhere.
    pub admin: Option<SocketAddr>,
    /// The file that holds the records; without one they live in memory.
    pub file: Option<PathBuf>,
    /// Names at which a zone begins, with or without records. Registered domains need not be named.
    pub apexes: Vec<String>,
    /// The TTL in seconds of records that come without one.
    pub default_ttl: u32,
    /// How many labels a registered domain has: a zone begins at every such name at or below which there are records.
    pub registered_labels: usize,
    /// Zones that another server answers for, by their apex: clients that ask for recursion get its answers.
    pub forwards: Vec<(String, SocketAddr)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            dns: (Ipv4Addr::LOCALHOST, 0).into(),
            admin: None,
            file: None,
            apexes: Vec::new(),
            default_ttl: DEFAULT_TTL_SECONDS,
            registered_labels: DEFAULT_REGISTERED_LABELS,
            forwards: Vec::new(),
        }
    }
}

/// Why the server did not start, or did not stop as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A listener's address cannot be had.
    #[error("cannot listen on {address} for {purpose}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// Which listener it is for.
        purpose: &'static str,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The admin listener has no password, so it is for this machine alone.
    #[error("the admin listener takes loopback addresses only, and {0} is none")]
    AdminNotLoopback(SocketAddr),
    /// A configured apex is no name.
    #[error("`{apex}` cannot be a zone's apex")]
    Apex {
        /// What was configured.
        apex: String,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// The records' file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The last changes are not on disk.
    #[error(transparent)]
    Save(#[from] SaveError),
}

/// A running server. Dropping it stops it as well, without waiting.
#[derive(Debug)]
pub struct DevDns {
    zone: Zone,
    dns: SocketAddr,
    admin: Option<SocketAddr>,
    /// Closing these is the sign to stop: first the listeners, then who saves what they let in.
    stop_listening: watch::Sender<()>,
    stop_saving: watch::Sender<()>,
    listeners: Vec<(&'static str, JoinHandle<()>)>,
    keeper: Option<JoinHandle<()>>,
}

impl DevDns {
    /// Reads the records' file, binds the listeners, and answers from then on.
    ///
    /// # Errors
    /// [`Error`], with nothing left running.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let mut apexes = Vec::with_capacity(config.apexes.len());
        for apex in &config.apexes {
            apexes.push(names::parse_name(apex).map_err(|source| Error::Apex { apex: apex.clone(), source })?.to_lowercase());
        }
        let mut forwards = Vec::with_capacity(config.forwards.len());
        for (apex, server) in &config.forwards {
            let parsed = names::parse_name(apex).map_err(|source| Error::Apex { apex: apex.clone(), source })?;
            forwards.push(Forward { apex: parsed.to_lowercase(), server: *server });
        }
        if let Some(admin) = config.admin.filter(|admin| !admin.ip().is_loopback()) {
            return Err(Error::AdminNotLoopback(admin));
        }
        let file = config.file.as_deref().map(Claimed::claim).transpose()?;
        let stored = file.as_ref().map(Claimed::load).transpose()?.flatten();
        let failed = |purpose, address| move |source| Error::Bind { address, purpose, source };
        let (udp, tcp, dns) = server::bind(config.dns).await.map_err(failed("DNS", config.dns))?;
        let admin = match config.admin {
            Some(address) => Some(TcpListener::bind(address).await.map_err(failed("the admin API", address))?),
            None => None,
        };
        let admin_addr = admin.as_ref().and_then(|listener| listener.local_addr().ok());

        let settings = Settings {
            address: server::own_address(dns),
            default_ttl: config.default_ttl,
            registered_labels: config.registered_labels.max(1),
            forwarded: forwards.iter().map(|forward| forward.apex.clone()).collect(),
        };
        let mut contents = Contents::new(settings, &apexes, stored.as_ref().map_or(0, |stored| stored.changes));
        if let (Some(file), Some(stored)) = (&file, stored) {
            let edits: Vec<Edit> = stored.records.into_iter().map(Edit::Set).collect();
            contents.edit(&edits).map_err(|refused| file.refused(refused))?;
        }
        let newest = contents.changes();
        let contents = Arc::new(RwLock::new(contents));
        let changed = watch::Sender::new(newest);
        let (stop_listening, stop_saving) = (watch::Sender::new(()), watch::Sender::new(()));

        let mut progress = None;
        let keeper = file.map(|file| {
            let sender = watch::Sender::new(Progress::at(newest));
            progress = Some(sender.subscribe());
            let keeper =
                Keeper { file, contents: contents.clone(), changed: changed.subscribe(), progress: sender, stop: stop_saving.subscribe() };
            tokio::spawn(keeper.run())
        });
        let zone = Zone::new(contents, changed, progress);
        let mut listeners = vec![("DNS", tokio::spawn(answer_until_stopped(zone.clone(), forwards, udp, tcp, stop_listening.subscribe())))];
        if let Some(listener) = admin {
            listeners.push(("admin", tokio::spawn(admin::serve(listener, zone.clone(), stop_listening.subscribe()))));
        }
        Ok(Self { zone, dns, admin: admin_addr, stop_listening, stop_saving, listeners, keeper })
    }

    /// Returns where DNS questions are taken.
    pub fn dns_addr(&self) -> SocketAddr {
        self.dns
    }

    /// Returns where records are edited over HTTP.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Returns a handle on the records.
    pub fn zone(&self) -> Zone {
        self.zone.clone()
    }

    /// Stops listening, lets what is under way finish, and saves the last changes.
    ///
    /// # Errors
    /// [`Error::Save`] when those are not on disk.
    pub async fn shutdown(self) -> Result<(), Error> {
        let Self { zone, stop_listening, stop_saving, listeners, keeper, .. } = self;
        drop(stop_listening);
        for (name, listener) in listeners {
            let abort = listener.abort_handle();
            if timeout(STOP_GRACE, listener).await.is_err() {
                tracing::warn!(listener = name, grace = ?STOP_GRACE, "a listener did not stop in time and was ended");
                abort.abort();
            }
        }
        let saved = zone.saved().await;
        drop(stop_saving);
        if let Some(keeper) = keeper {
            // It has nothing left to write, or just failed to; its end releases the file for the next server.
            let _ = timeout(STOP_GRACE, keeper).await;
        }
        Ok(saved?)
    }
}

async fn answer_until_stopped(
    zone: Zone,
    forwards: Vec<Forward>,
    udp: tokio::net::UdpSocket,
    tcp: TcpListener,
    mut stop: watch::Receiver<()>,
) {
    let mut server = server::serve(zone, forwards, udp, tcp);
    tokio::select! {
        ended = server.block_until_done() => {
            if let Err(error) = ended {
                tracing::error!(%error, "the DNS listeners ended");
            }
        }
        _ = stop.changed() => {
            if let Err(error) = server.shutdown_gracefully().await {
                tracing::warn!(%error, "the DNS listeners did not stop cleanly");
            }
        }
    }
}
