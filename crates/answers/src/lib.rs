//! The authoritative zone below which the answers of dns-01 challenges stand, for a home that has no DNS provider: `acme.<zone>`.
//!
//! Arrives: DNS questions over UDP and TCP, and a [`Reader`] of what stands where. Leaves: authoritative answers for this one zone, TXT at
//! its names, SOA, NS and the server's own address; REFUSED for everything else. Goes wrong: a port that cannot be had, at the start;
//! afterwards every question gets a response code, and none starts work that grows with what a stranger sends.
//!
//! It holds nothing itself: whoever presents an answer stores it, and the next question sees it. TTLs are short, because an answer is
//! needed for seconds and its absence must not be remembered.

mod server;
mod zone;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use domains::Hostname;
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use zone::Zone;

/// How long stopping may take.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// What stands at a name, and whether anything stands below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The TXT values at the name.
    pub values: Vec<String>,
    /// Whether a name below it has values, so that it exists without any of its own (RFC 8020).
    pub has_below: bool,
}

/// Reads what stands at a lower-case name without a final dot; called for every question, so it must not block.
pub type Reader = Arc<dyn Fn(&str) -> Held + Send + Sync>;

/// Where the zone is and who serves it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where questions are taken, over UDP and TCP; port 0 finds one number for both.
    pub listen: SocketAddr,
    /// The zone's apex.
    pub zone: Hostname,
    /// Where this server is reached from outside: the addresses of the zone's one name server, `ns1.<zone>`.
    pub addresses: Vec<IpAddr>,
}

/// Sockets that were bound before the server started, as a supervisor holds them; both or none.
#[derive(Debug, Default)]
pub struct Inherited {
    /// For datagrams.
    pub udp: Option<std::net::UdpSocket>,
    /// For connections.
    pub tcp: Option<std::net::TcpListener>,
}

/// Why the zone is not served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for the answer zone")]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// The system's answer.
    #[source]
    pub source: io::Error,
}

/// The zone being served. Dropping it stops it, without waiting.
#[derive(Debug)]
pub struct AnswerServer {
    address: SocketAddr,
    stop: watch::Sender<()>,
    serving: JoinHandle<()>,
}

impl AnswerServer {
    /// Binds both transports and answers from then on.
    ///
    /// # Errors
    /// [`ListenError`]; nothing is left running.
    pub async fn start(config: Config, reader: Reader) -> Result<Self, ListenError> {
        Self::start_on(Inherited::default(), config, reader).await
    }

    /// The same, on sockets that are there already.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_on(sockets: Inherited, config: Config, reader: Reader) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address: config.listen, source };
        let (udp, tcp, address) = match (sockets.udp, sockets.tcp) {
            (Some(udp), Some(tcp)) => server::adopt(udp, tcp).map_err(failed)?,
            _ => server::bind(config.listen).await.map_err(failed)?,
        };
        let zone = Zone::new(&config.zone, config.addresses, reader);
        let stop = watch::Sender::new(());
        let mut stopped = stop.subscribe();
        let serving = tokio::spawn(async move {
            let mut server = server::serve(zone, udp, tcp);
            tokio::select! {
                ended = server.block_until_done() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "the answer zone's listeners ended; dns-01 challenges will fail");
                    }
                }
                _ = stopped.changed() => {
                    if let Err(error) = server.shutdown_gracefully().await {
                        tracing::warn!(%error, "the answer zone's listeners did not stop cleanly");
                    }
                }
            }
        });
        Ok(Self { address, stop, serving })
    }

    /// Where questions are taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops, and lets answers under way finish.
    pub async fn shutdown(self) {
        drop(self.stop);
        let abort = self.serving.abort_handle();
        if timeout(STOP_GRACE, self.serving).await.is_err() {
            abort.abort();
        }
    }
}
