//! Connections to the origin: HTTP/1.1, kept for reuse, or HTTP/2, shared; plain or over TLS; bounded in number.
//!
//! Arrives: a request with the headers the origin may believe. Leaves: its answer, while the body still flows. Goes wrong: an
//! [`OriginError`] that says whether to answer 502, 503 or 504. A request is sent a second time only when that cannot do anything twice:
//! none of it was written; or an origin over HTTP/2 says that it did not look at it, which is believed once; or the kept connection it was
//! given to died without a byte of an answer and its method is idempotent. A body that was begun cannot be sent again.

mod connect;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domains::OriginName;
use http::{
    Method, Request, Response, StatusCode, Uri,
    header::{CONNECTION, HOST},
};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use self::connect::{Connector, Sender, Version};
use crate::{
    body::{Upload, UploadProgress, UploadState},
    config::{Limits, OriginProtocol},
};

/// Requests at once on one HTTP/2 connection to the origin; common servers take no more.
const MAX_SHARED: usize = 100;

/// Why the origin gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OriginError {
    /// A site names an origin that this edge was not told of.
    #[error("the site's origin `{0}` is not in this edge's settings")]
    Unknown(OriginName),
    /// It could not be reached.
    #[error("cannot connect to the origin {address}")]
    Unreachable {
        address: String,
        #[source]
        cause: std::io::Error,
    },
    /// It cannot be trusted, or does not speak TLS or the HTTP asked for.
    #[error("TLS with the origin {address} failed")]
    Tls {
        address: String,
        #[source]
        cause: std::io::Error,
    },
    /// Connecting took too long.
    #[error("connecting to the origin {0} took too long")]
    ConnectTimedOut(String),
    /// All connections the edge may have are in use.
    #[error("all connections to the origin are in use")]
    Busy,
    /// It closed the connection or answered something that is not HTTP.
    #[error("the origin gave no usable answer")]
    Failed(#[source] hyper::Error),
    /// It said that it did not look at the request, and the request could not be sent again, or was in vain.
    #[error("the origin refused to look at the request")]
    Refused(#[source] hyper::Error),
    /// It did not begin to answer in time.
    #[error("the origin did not answer in time")]
    TimedOut,
    /// The client's upload stalled.
    #[error("the client's upload made no progress")]
    UploadStalled,
    /// The client's upload is larger than allowed.
    #[error("the client's upload is larger than allowed")]
    UploadTooLarge,
    /// The client went away or its upload could not be read.
    #[error("the client's upload broke off")]
    UploadBroken,
}

impl OriginError {
    /// What the client is answered.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unknown(_) | Self::Unreachable { .. } | Self::Tls { .. } | Self::Failed(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectTimedOut(_) | Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy | Self::Refused(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::UploadStalled => StatusCode::REQUEST_TIMEOUT,
            Self::UploadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UploadBroken => StatusCode::BAD_REQUEST,
        }
    }

    /// A stable label for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "origin_unknown",
            Self::Unreachable { .. } => "origin_unreachable",
            Self::Tls { .. } => "origin_tls",
            Self::ConnectTimedOut(_) => "origin_connect_timeout",
            Self::Busy => "origin_busy",
            Self::Failed(_) => "origin_failed",
            Self::Refused(_) => "origin_refused",
            Self::TimedOut => "origin_timeout",
            Self::UploadStalled => "upload_stalled",
            Self::UploadTooLarge => "upload_too_large",
            Self::UploadBroken => "upload_broken",
        }
    }
}

/// The origin, with the connections kept to it.
pub(crate) struct Origin {
    connector: Connector,
    limits: Limits,
    http2: bool,
    places: Arc<Semaphore>,
    kept: Mutex<Idle>,
    shared: Mutex<Vec<Shared>>,
}

impl std::fmt::Debug for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Origin").field("address", &self.connector.address).finish_non_exhaustive()
    }
}

/// A connection that is being used, or could be.
#[derive(Debug)]
struct Kept {
    sender: http1::SendRequest<Upload>,
    since: Instant,
    place: OwnedSemaphorePermit,
}

/// Connections of HTTP/1.1 that nobody uses, and those who wait for one. A kept connection keeps its place, so whoever waits for a place
/// would not hear of it.
#[derive(Debug, Default)]
struct Idle {
    kept: VecDeque<Kept>,
    waiting: VecDeque<oneshot::Sender<Kept>>,
}

/// An HTTP/2 connection, which many requests use at once; each holds a reference.
#[derive(Clone, Debug)]
struct Shared {
    sender: http2::SendRequest<Upload>,
    requests: Arc<()>,
}

/// What a request goes on with.
#[derive(Debug)]
enum Free {
    Kept(Kept),
    Place(OwnedSemaphorePermit),
}

#[derive(Debug)]
enum Connection {
    Http1(http1::SendRequest<Upload>),
    Http2(Shared),
}

impl Connection {
    async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, TrySendError<Request<Upload>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(shared) => shared.sender.try_send_request(request).await,
        }
    }
}

/// A connection that is being used; one of HTTP/1.1 closes unless it is given back.
#[derive(Debug)]
pub(crate) struct Lease {
    connection: Connection,
    place: OwnedSemaphorePermit,
    origin: Arc<Origin>,
    reused: bool,
}

impl Lease {
    /// Keeps the connection for the next request.
    pub(crate) fn give_back(self) {
        let Self { connection, place, origin, .. } = self;
        if let Connection::Http1(sender) = connection {
            origin.keep(Kept { sender, since: Instant::now(), place });
        }
    }

    /// Takes a connection that failed from those that are shared, so that the next try is on another. One that failed a single stream of
    /// its many has not.
    fn forget(&self, error: &hyper::Error) {
        if let Connection::Http2(failed) = &self.connection
            && !of_http2(error).is_some_and(h2::Error::is_reset)
        {
            let mut shared = self.origin.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.retain(|shared| !Arc::ptr_eq(&shared.requests, &failed.requests));
        }
    }
}

impl Origin {
    /// The origin at an address.
    ///
    /// # Errors
    /// What TLS needs cannot be read.
    pub(crate) fn new(address: String, protocol: &OriginProtocol, limits: Limits) -> std::io::Result<Arc<Self>> {
        let places = Arc::new(Semaphore::new(limits.max_origin_connections));
        let connector = Connector::new(address, protocol)?;
        let (kept, shared) = (Mutex::default(), Mutex::default());
        Ok(Arc::new(Self { connector, limits, http2: protocol.http2, places, kept, shared }))
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// An [`OriginError`]. Cancel safety: dropping the future closes the connection it uses.
    pub(crate) async fn send(
        self: &Arc<Self>,
        mut request: Request<Upload>,
        progress: &UploadProgress,
    ) -> Result<(Response<Incoming>, Lease), OriginError> {
        let began = Instant::now();
        // HTTP/1.1 is what a WebSocket is asked for in.
        let version = if self.http2 && !request.headers().contains_key(http::header::UPGRADE) { Version::Http2 } else { Version::Http1 };
        if version == Version::Http2 {
            address_for_http2(&mut request);
        }
        let mut refused_before = false;
        loop {
            let mut lease = self.lease(version).await?;
            let again = has_no_body(&request).then(|| copy(&request));
            let idempotent = is_idempotent(request.method());
            let sent = lease.connection.send(request);
            let failed = match self.answered(sent, began, progress).await? {
                Ok(answer) => return Ok((answer, lease)),
                Err(failed) => failed,
            };
            let mut failed = failed;
            let unsent = failed.take_message();
            let error = failed.into_error();
            match progress.state() {
                UploadState::Stalled => return Err(OriginError::UploadStalled),
                UploadState::Broken => return Err(OriginError::UploadBroken),
                UploadState::TooLarge => return Err(OriginError::UploadTooLarge),
                UploadState::MovedAt(_) => {}
            }
            lease.forget(&error);
            let refused = was_not_processed(&error);
            // Only a connection that was kept can have died of old age; a new one that fails says something about the origin.
            let died = error.is_canceled() || error.is_closed() || error.is_incomplete_message() || is_io(&error);
            let may_go_again = match refused {
                true => !std::mem::replace(&mut refused_before, true),
                false => lease.reused && (unsent.is_some() || (died && idempotent)),
            };
            request = match unsent.or(again) {
                Some(request) if may_go_again => request,
                _ if refused => return Err(OriginError::Refused(error)),
                _ => return Err(OriginError::Failed(error)),
            };
        }
    }

    /// Waits for an answer for as long as the upload moves, and then as long as the origin may take.
    async fn answered<T>(&self, answer: impl Future<Output = T>, began: Instant, progress: &UploadProgress) -> Result<T, OriginError> {
        let mut answer = std::pin::pin!(answer);
        loop {
            let moved = match progress.state() {
                UploadState::MovedAt(moved) => moved.max(began),
                // The answer's own error is on its way.
                UploadState::Stalled | UploadState::Broken | UploadState::TooLarge => Instant::now(),
            };
            let deadline = moved + self.limits.origin_response;
            tokio::select! {
                biased;
                answer = &mut answer => return Ok(answer),
                () = sleep_until(deadline) => match progress.state() {
                    UploadState::MovedAt(later) if later > moved => {}
                    _ => return Err(OriginError::TimedOut),
                },
            }
        }
    }

    async fn lease(self: &Arc<Self>, version: Version) -> Result<Lease, OriginError> {
        let deadline = Instant::now() + self.limits.origin_connect;
        let lease = |connection, place, reused| Lease { connection, place, origin: Arc::clone(self), reused };
        let place = match timeout_at(deadline, self.kept_or_place(version)).await {
            Ok(Free::Kept(Kept { sender, place, .. })) => return Ok(lease(Connection::Http1(sender), place, true)),
            Ok(Free::Place(place)) => place,
            Err(_) => return Err(OriginError::Busy),
        };
        if version == Version::Http2
            && let Some(shared) = self.shared_with_room()
        {
            return Ok(lease(Connection::Http2(shared), place, true));
        }
        // In a box: it is seldom needed, and large, and would be in every request's future.
        Ok(match Box::pin(self.connector.open(version, deadline, &self.limits)).await? {
            Sender::Http1(sender) => lease(Connection::Http1(sender), place, false),
            Sender::Http2(sender) => {
                let shared = Shared { sender, requests: Arc::new(()) };
                self.shared.lock().unwrap_or_else(PoisonError::into_inner).push(shared.clone());
                lease(Connection::Http2(shared), place, false)
            }
        })
    }

    /// A connection that was kept, or a place for a new one; whichever is free first, where neither is.
    ///
    /// Cancel safety: whoever gives up is passed over; a connection that was on its way to them is closed and leaves its place.
    async fn kept_or_place(&self, version: Version) -> Free {
        loop {
            if version == Version::Http1
                && let Some(kept) = self.take_kept()
            {
                return Free::Kept(kept);
            }
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                return Free::Place(place);
            }
            match self.last_kept_or_wait() {
                // Its place is what a request over HTTP/2 needs of it.
                Ok(Kept { place, .. }) if version == Version::Http2 => return Free::Place(place),
                // It has just been given back, and its task has not come round yet.
                Ok(mut kept) => {
                    if kept.sender.ready().await.is_ok() {
                        return Free::Kept(kept);
                    }
                }
                Err(mut given) => tokio::select! {
                    biased;
                    Ok(mut kept) = &mut given => match version {
                        Version::Http2 => return Free::Place(kept.place),
                        Version::Http1 => if kept.sender.ready().await.is_ok() { return Free::Kept(kept) },
                    },
                    Ok(place) = Arc::clone(&self.places).acquire_owned() => return Free::Place(place),
                },
            }
        }
    }

    /// A connection that is kept, ready or not; or what will bring the next one that is given back.
    fn last_kept_or_wait(&self) -> Result<Kept, oneshot::Receiver<Kept>> {
        let mut idle = self.idle();
        if let Some(kept) = idle.kept.pop_back() {
            return Ok(kept);
        }
        // Those that gave up stand in front: all wait equally long.
        while idle.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            idle.waiting.pop_front();
        }
        let (give, given) = oneshot::channel();
        idle.waiting.push_back(give);
        Err(given)
    }

    /// An HTTP/2 connection that is open and not too busy.
    fn shared_with_room(&self) -> Option<Shared> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|shared| !shared.sender.is_closed());
        // One reference is the list's own.
        shared.iter().find(|shared| Arc::strong_count(&shared.requests) <= MAX_SHARED && shared.sender.is_ready()).cloned()
    }

    /// The connection that was used last and is still good; older ones are closed on the way.
    fn take_kept(&self) -> Option<Kept> {
        let kept = &mut self.idle().kept;
        while kept.front().is_some_and(|oldest| oldest.since.elapsed() > self.limits.origin_idle || oldest.sender.is_closed()) {
            kept.pop_front();
        }
        let ready = kept.iter().rposition(|kept| kept.sender.is_ready())?;
        kept.remove(ready)
    }

    fn keep(&self, mut connection: Kept) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = self.idle();
        while let Some(waiting) = idle.waiting.pop_front() {
            connection = match waiting.send(connection) {
                Ok(()) => return,
                // They gave up.
                Err(back) => back,
            };
        }
        idle.kept.push_back(connection);
        if idle.kept.len() > self.limits.max_origin_idle {
            idle.kept.pop_front();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects once, so that a wrong origin is told when the edge starts. Not reaching it is no reason to stop: it may come later.
    pub(crate) async fn look(self: Arc<Self>) {
        let address = &self.connector.address;
        let failed = match timeout(self.limits.origin_connect, TcpStream::connect(address.as_str())).await {
            Ok(Ok(_)) => return,
            Ok(Err(cause)) => OriginError::Unreachable { address: address.clone(), cause },
            Err(_) => OriginError::ConnectTimedOut(address.clone()),
        };
        tracing::warn!(error = telemetry::error_chain(&failed), "the origin is not there yet; requests are answered with 502 until it is");
    }

    /// Closes connections that were kept for too long, for as long as the edge runs.
    pub(crate) async fn tidy(self: Arc<Self>) {
        let every = (self.limits.origin_idle / 2).max(Duration::from_millis(50));
        loop {
            tokio::time::sleep(every).await;
            let kept = &mut self.idle().kept;
            kept.retain(|kept| kept.since.elapsed() <= self.limits.origin_idle && !kept.sender.is_closed());
        }
    }
}

/// Moves the host to where HTTP/2 has it, and drops what HTTP/2 has not.
///
/// Source: RFC 9113, sections 8.2.2 and 8.3.1.
fn address_for_http2(request: &mut Request<Upload>) {
    *request.version_mut() = http::Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    // It names `te`, which HTTP/2 lets pass and which must.
    request.headers_mut().remove(CONNECTION);
    let authority = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
    let target = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    // `https` is what the client asked in, whatever lies between us and the origin. Both parts were read as such before.
    if let Ok(uri) = Uri::builder().scheme("https").authority(authority).path_and_query(target).build() {
        *request.uri_mut() = uri;
    }
}

/// Whether doing a request twice does nothing that doing it once would not.
///
/// Source: RFC 9110, section 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

fn has_no_body(request: &Request<Upload>) -> bool {
    matches!(request.body(), Upload::Empty) && !request.headers().contains_key(http::header::UPGRADE)
}

/// Whether the origin says that it did nothing with a request: its stream was refused, or came after the last one that the origin takes
/// on a connection that it is closing.
///
/// Source: RFC 9113, section 8.7. h2 gives a GOAWAY of the other side to those streams only that it leaves out, and to new ones; that hyper
/// does not give it to others, `connect` sees to.
fn was_not_processed(error: &hyper::Error) -> bool {
    let by_origin = of_http2(error).filter(|error| error.is_remote());
    by_origin.is_some_and(|error| error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

fn of_http2(error: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn is_io(error: &hyper::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
}
