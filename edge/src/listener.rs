//! From an accepted socket to a connection that speaks HTTP.
//!
//! Arrives: TCP connections. Leaves: requests to [`proxy`](crate::proxy). Goes wrong: too many connections (closed at once), a handshake
//! that takes too long, a name we do not know (alert `unrecognized_name`, nothing read), a client that stalls; each is counted by reason.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use domains::Hostname;
use futures_util::FutureExt;
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use telemetry::metrics::GaugeHold;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, MissedTickBehavior, sleep_until, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use crate::{
    addresses::{Guest, TooMuch},
    assertion::Assertion,
    body::Answer,
    certificates::LoadError,
    config::Limits,
    drain::Phase,
    edge::Shared,
    forwarding,
    frames::Frames,
    framing::Scanned,
    hello, load_balancer,
    names::Match,
    proxy::{Connection, Requests},
    watch::{self, Activity, Verdict, WatchedIo},
};

/// Connections the kernel may hold ready for us.
const BACKLOG: i32 = 4096;

/// What hyper allows where it is not told: more are answered with 431.
const HYPER_MAX_HEADERS: usize = 100;

/// A fatal `internal_error` alert: the name is known, but there is nothing to serve it with; or nobody can tell yet whether it is.
const INTERNAL_ERROR: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 80];

/// HTTP/2 windows: enough for a fast upload, little enough for a hundred streams (the values Envoy advises for edges).
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Binds a port.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    keep_alive(&socket);
    TcpListener::from_std(socket.into())
}

/// Takes over a socket that listens already.
pub(crate) fn adopt(socket: std::net::TcpListener) -> io::Result<TcpListener> {
    socket.set_nonblocking(true)?;
    keep_alive(&socket);
    TcpListener::from_std(socket)
}

/// Accepts until told to stop; each connection takes one of `places`, and is closed at once when there is none, which `over` is told.
pub(crate) async fn accept<F>(listener: TcpListener, places: usize, stop: CancellationToken, over: impl Fn(&'static str), serve: F)
where
    F: Fn(TcpStream, SocketAddr, OwnedSemaphorePermit),
{
    let places = Arc::new(Semaphore::new(places));
    let mut spare = Spare::default();
    spare.refill();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, from)) => {
                match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => serve(socket, from, place),
                    Err(_) => over("over_limit"),
                }
                spare.refill();
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) if is_out_of_descriptors(&error) && spare.shed_one(&listener).await => over("no_descriptors"),
            Err(error) => {
                tracing::warn!(error = telemetry::error_chain(&error), "cannot accept connections");
                // Trying again at once would only burn the CPU that the others need.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// A descriptor kept for the moment when there is none: with it a connection can be accepted and closed, so that its client learns at
/// once what waiting in the kernel's queue would tell it much later.
#[derive(Debug, Default)]
struct Spare(Option<std::fs::File>);

impl Spare {
    /// Sees to it that it is there, if it can be: whatever opened something at the wrong moment may have taken its place.
    fn refill(&mut self) {
        if self.0.is_none() {
            self.0 = std::fs::File::open("/dev/null").ok();
        }
    }

    /// Closes the connection that waits longest; says whether the spare descriptor was there for it.
    async fn shed_one(&mut self, listener: &TcpListener) -> bool {
        if self.0.take().is_none() {
            self.refill();
            return false;
        }
        // Bounded: whoever waited may have gone, and the descriptor may have gone to somebody else.
        let _ = tokio::time::timeout(Duration::from_millis(10), listener.accept()).await;
        self.refill();
        true
    }
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE].iter().any(|errno| code == Some(errno.raw_os_error()))
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused)
}

/// Accepts on the TLS port.
pub(crate) async fn accept_https(shared: Arc<Shared>, listener: TcpListener) {
    let (stop, places) = (shared.leaving.stop_accepting.clone(), shared.limits.max_connections);
    let over = |reason| shared.metrics.connection_ended(reason);
    let serve = |socket, from: SocketAddr, place| {
        shared.metrics.accepted_https.increment();
        let held = Held { _place: place, _open: shared.metrics.open_https.hold() };
        let (shared, end) = (Arc::clone(&shared), shared.leaving.end.clone());
        shared.leaving.tasks.clone().spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = serve_https(shared, socket, from.ip().to_canonical(), held) => {}
            }
        });
    };
    accept(listener, places, stop, over, serve).await;
}

/// What a connection takes while it is open.
#[derive(Debug)]
pub(crate) struct Held {
    _place: OwnedSemaphorePermit,
    _open: GaugeHold,
}

/// Serves a connection to its end. Its two halves have a box each, of their own size: the runtime moves what it is given a dozen times, an
/// idle connection should not keep the room its handshake took, nor a refused one have room for requests.
async fn serve_https(shared: Arc<Shared>, socket: TcpStream, client: IpAddr, held: Held) {
    let Some(welcome) = Box::pin(welcome(&shared, socket, client)).await else { return };
    let Some(serving) = serve(&shared, welcome, held) else { return };
    if let Some(reason) = serving.await {
        shared.metrics.connection_ended(reason);
        tracing::debug!(code = reason, "connection ended by the edge");
    }
}

/// A client whose handshake is done.
struct Welcome {
    sni: Hostname,
    found: Match,
    stream: TlsStream<WatchedIo>,
    client: IpAddr,
    guest: Guest,
    activity: Arc<Activity>,
}

async fn welcome(shared: &Arc<Shared>, socket: TcpStream, client: IpAddr) -> Option<Welcome> {
    let activity = Activity::new();
    let mut io = WatchedIo::new(socket, Arc::clone(&activity));
    // One deadline for the load balancer's header, the ClientHello and all that follows it.
    let deadline = Instant::now() + shared.limits.handshake;
    let mut client = client;
    if shared.proxy_protocol {
        match timeout_at(deadline, load_balancer::read_client(&mut io)).await {
            Ok(Ok(told)) => client = told.unwrap_or(client),
            Ok(Err(absent)) => {
                shared.metrics.connection_ended(absent.reason());
                return None;
            }
            Err(_) => {
                shared.metrics.handshake("timeout");
                return None;
            }
        }
    }
    let guest = match shared.addresses.admit(client) {
        Ok(guest) => guest,
        Err(too_much) => {
            shared.metrics.connection_ended(too_much.reason());
            return None;
        }
    };
    let shaken = timeout_at(deadline, shake_hands(shared, io)).await.unwrap_or(Err("timeout"));
    shared.metrics.handshake(shaken.as_ref().err().copied().unwrap_or("done"));
    let (sni, found, stream) = shaken.ok()?;
    if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
        shared.metrics.resumed.increment();
    }
    activity.handshake_done();
    Some(Welcome { sni, found, stream, client, guest, activity })
}

/// What serves a connection's requests, and says why the edge ended it.
type Serving = Pin<Box<dyn Future<Output = Option<&'static str>> + Send>>;

fn serve(shared: &Arc<Shared>, welcome: Welcome, held: Held) -> Option<Serving> {
    let Welcome { sni, found, stream, client, guest, activity } = welcome;
    let registration = shared.connections.register(&found.hostname, &found.tenant);
    // The name may have gone between the look and the registration.
    if !shared.names.find(&sni).is_some_and(|now| now.hostname == found.hostname && now.tenant == found.tenant) {
        shared.metrics.connection_ended("removed");
        return None;
    }
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let seat = shared.metrics.tenants.seat(&found.tenant);
    let tls = match stream.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "1.2",
    };
    let finish = registration.finish.clone();
    let mut connection = Connection {
        sni,
        found,
        client,
        forwarded_for: forwarding::address(client),
        is_http2,
        tls,
        assertion: Assertion::default(),
        heads: None,
        activity: Arc::clone(&activity),
        registration,
        guest,
        seat,
        shared: Arc::clone(shared),
        _held: held,
    };
    let driven = Driven { activity: Arc::clone(&activity), finish, shared: Arc::clone(shared), is_http2 };
    if !is_http2 {
        let (io, heads) = Scanned::new(stream, shared.limits.max_header_bytes + 1024);
        connection.heads = Some(heads);
        let served = http1_builder(&shared.limits).serve_connection(TokioIo::new(io), Requests(Arc::new(connection))).with_upgrades();
        return Some(Box::pin(driven.drive(Box::pin(served))));
    }
    // Ends the tasks of the connection's streams together with it, however it ends.
    let end = CancellationToken::new();
    let end_streams = end.clone().drop_guard();
    let connection = Arc::new(connection);
    let of_address = Arc::clone(&connection);
    let may_reset = Box::new(move || of_address.shared.addresses.reset(&of_address.guest).map_err(TooMuch::reason));
    let io = Frames::new(stream, Arc::clone(&activity), &shared.limits, may_reset);
    let served = http2_builder(&shared.limits, end).serve_connection(TokioIo::new(io), Requests(connection));
    Some(Box::pin(async move {
        let _end_streams = end_streams;
        driven.drive(Box::pin(served)).await.or_else(|| activity.flood())
    }))
}

/// Reads the ClientHello, finds the name and its certificate, and finishes the handshake.
async fn shake_hands(shared: &Arc<Shared>, io: WatchedIo) -> Result<(Hostname, Match, TlsStream<WatchedIo>), &'static str> {
    let mut start = match LazyConfigAcceptor::new(Acceptor::default(), io).await {
        Ok(start) => start,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err("not_tls"),
        Err(_) => return Err("gone"),
    };
    let sni = match hello::hostname(start.client_hello().server_name()) {
        Ok(sni) => sni,
        Err(unnamed) => return Err(refuse(&mut start.io, &hello::UNRECOGNIZED_NAME, unnamed.reason()).await),
    };
    // Asked before the look, so that what is not found then is not there.
    let is_loaded = shared.is_loaded();
    let Some(found) = shared.names.find(&sni) else {
        let (alert, reason) = if is_loaded { (&hello::UNRECOGNIZED_NAME, "unknown_name") } else { (&INTERNAL_ERROR, "index_unread") };
        tracing::debug!(hostname = %sni, code = reason, "handshake refused: the name is not in the index");
        return Err(refuse(&mut start.io, alert, reason).await);
    };
    let config = match shared.certificates.config_for(&found).await {
        Ok(config) => config,
        Err(error) => {
            let reason = match *error {
                LoadError::Refused { .. } => "bundle_refused",
                LoadError::Absent(_) => "bundle_absent",
                _ => "bundle_unreachable",
            };
            tracing::warn!(hostname = %found.hostname, code = reason, error = telemetry::error_chain(&*error), "handshake refused");
            return Err(refuse(&mut start.io, &INTERNAL_ERROR, reason).await);
        }
    };
    match start.into_stream(config).await {
        Ok(stream) => Ok((sni, found, stream)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err("tls_failed"),
        Err(_) => Err("gone"),
    }
}

async fn refuse(io: &mut WatchedIo, alert: &[u8], reason: &'static str) -> &'static str {
    // The client may be gone already, which changes nothing. Dropping the socket, which follows, ends the connection as gently as a
    // shutdown would: the whole ClientHello was read.
    let _ = io.write_all(alert).await;
    reason
}

/// Small writes at once, and probes for clients that vanished without a word. Set on a listening socket, from which those it
/// accepts take it; each of them would need five calls otherwise.
fn keep_alive<'a>(listening: impl Into<socket2::SockRef<'a>>) {
    let probes = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15)).with_retries(4);
    let listening = listening.into();
    // Both only improve matters; a socket that refuses them still works.
    let _ = listening.set_tcp_nodelay(true);
    let _ = listening.set_tcp_keepalive(&probes);
}

pub(crate) fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // Both waits for a header are judged by `watch`, which knows idle connections from slow headers.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(limits.max_header_bytes);
    // A number told is room made anew for each request; hyper's own has it on the stack.
    if limits.max_header_count != HYPER_MAX_HEADERS {
        builder.max_headers(limits.max_header_count);
    }
    builder
}

fn http2_builder(limits: &Limits, end: CancellationToken) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams(end));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_concurrent_streams)
        // WebSocket over HTTP/2 (RFC 8441).
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        // Streams that clients open and reset at once are answered with GOAWAY after this many (CVE-2023-44487, CVE-2025-8671).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128);
    builder
}

/// Runs the streams of one HTTP/2 connection, and ends them with it.
#[derive(Clone, Debug)]
struct Streams(CancellationToken);

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let end = self.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                _ = stream => {}
            }
        });
    }
}

/// A hyper connection that can be asked to end after its requests.
pub(crate) trait Served: Future<Output = Result<(), hyper::Error>> {
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Served for http1::UpgradeableConnection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    S: Service<http::Request<Incoming>, Response = http::Response<Answer>, Error = std::convert::Infallible>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Served for http2::Connection<I, S, Streams>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: Service<http::Request<Incoming>, Response = http::Response<Answer>, Error = std::convert::Infallible>,
    S::Future: Send + 'static,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// What decides how long a connection lives.
pub(crate) struct Driven {
    pub(crate) activity: Arc<Activity>,
    /// Cancelled when the connection's name goes.
    pub(crate) finish: CancellationToken,
    pub(crate) shared: Arc<Shared>,
    pub(crate) is_http2: bool,
}

impl Driven {
    /// Runs a connection to its end, and says why when the edge ended it.
    ///
    /// It comes in a box, because a future holds what it is given twice, and this is most of an idle connection.
    pub(crate) async fn drive<S: Served>(self, mut served: Pin<Box<S>>) -> Option<&'static str> {
        let (limits, leaving) = (&self.shared.limits, &self.shared.leaving);
        let every = watch::look_interval(limits);
        // The first look comes after a while: one at once would cost each connection a turn, and the runtime a wake-up of itself.
        let mut look = tokio::time::interval_at(Instant::now() + every, every);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut phase = leaving.phase.clone();
        let mut finishing: Option<&'static str> = None;
        let mut cut_off: Option<Instant> = None;
        let mut linger: Option<Instant> = None;
        // The edge may be leaving already.
        if *phase.borrow() != Phase::Serving {
            phase.mark_changed();
        }
        loop {
            tokio::select! {
                // The connection comes last: a busy one would use up the turn's budget, and its clocks would never be looked at.
                biased;
                () = self.finish.cancelled(), if finishing != Some("removed") => {
                    served.as_mut().finish();
                    finishing = Some("removed");
                    let soon = Instant::now() + limits.close_grace;
                    cut_off = Some(cut_off.map_or(soon, |earlier| earlier.min(soon)));
                }
                _ = phase.changed(), if finishing.is_none() => {
                    let now = *phase.borrow_and_update();
                    // An idle HTTP/1 connection is left open while draining: closing it could meet a request on its way. HTTP/2
                    // has GOAWAY for that.
                    if now == Phase::Closing && !self.is_http2 {
                        linger = Some(Instant::now() + leaving.linger);
                        finishing = Some("leaving");
                    } else if now == Phase::Closing || (now == Phase::Draining && self.is_http2) {
                        served.as_mut().finish();
                        finishing = (now == Phase::Closing).then_some("leaving");
                    }
                }
                () = sleep_until(linger.unwrap_or_else(Instant::now)), if linger.is_some() => {
                    linger = None;
                    // What has arrived is answered, however late this turn came.
                    if served.as_mut().now_or_never().is_some() {
                        return finishing;
                    }
                    served.as_mut().finish();
                }
                () = sleep_until(cut_off.unwrap_or_else(Instant::now)), if cut_off.is_some() => return Some("unfinished"),
                _ = look.tick() => {
                    match self.activity.verdict(limits, !self.is_http2) {
                        Verdict::Keep => {}
                        Verdict::Abort(reason) => {
                            self.activity.reset_on_close();
                            return Some(reason);
                        }
                        Verdict::Finish(reason) if finishing.is_none() => {
                            served.as_mut().finish();
                            finishing = Some(reason);
                            let rest = if reason == "idle" { limits.close_grace } else { limits.connection_lifetime };
                            cut_off = cut_off.or(Some(Instant::now() + rest));
                        }
                        Verdict::Finish(_) => {}
                    }
                }
                _ = &mut served => return finishing,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connections_write_at_once_and_probe_for_vanished_clients() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let accepted = socket2::SockRef::from(&accepted);
        assert!(accepted.tcp_nodelay().unwrap() && accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), Duration::from_secs(60));
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), 4);
    }
}
