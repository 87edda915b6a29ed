//! Connections to the origin: plain HTTP/1.1, kept for reuse, bounded in number.
//!
//! Arrives: a request with the headers the origin may believe. Leaves: its answer, while the body still flows. Goes wrong: an
//! [`OriginError`] that says whether to answer 502, 503 or 504. A request is sent a second time only when the kept connection it was
//! given to died without a byte of an answer, and only when that cannot do anything twice: it has no body and its method is idempotent,
//! or none of it was written.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    body::{Upload, UploadProgress, UploadState},
    config::Limits,
};

/// The most bytes buffered from the origin at once: large reads are what makes large bodies cheap.
const BUFFER_BYTES: usize = 256 * 1024;

/// Why the origin gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OriginError {
    /// It could not be reached.
    #[error("cannot connect to the origin {address}")]
    Unreachable {
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
            Self::Unreachable { .. } | Self::Failed(_) => StatusCode::BAD_GATEWAY,
            Self::ConnectTimedOut(_) | Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::UploadStalled => StatusCode::REQUEST_TIMEOUT,
            Self::UploadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UploadBroken => StatusCode::BAD_REQUEST,
        }
    }

    /// A stable label for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "origin_unreachable",
            Self::ConnectTimedOut(_) => "origin_connect_timeout",
            Self::Busy => "origin_busy",
            Self::Failed(_) => "origin_failed",
            Self::TimedOut => "origin_timeout",
            Self::UploadStalled => "upload_stalled",
            Self::UploadTooLarge => "upload_too_large",
            Self::UploadBroken => "upload_broken",
        }
    }
}

/// The origin, with the connections kept to it.
#[derive(Debug)]
pub(crate) struct Origin {
    address: String,
    limits: Limits,
    places: Arc<Semaphore>,
    kept: Mutex<VecDeque<Kept>>,
}

/// A connection that is being used, or could be.
#[derive(Debug)]
struct Kept {
    sender: SendRequest<Upload>,
    since: Instant,
    place: OwnedSemaphorePermit,
}

/// A connection that is being used; it closes unless it is given back.
#[derive(Debug)]
pub(crate) struct Lease {
    sender: SendRequest<Upload>,
    place: OwnedSemaphorePermit,
    origin: Arc<Origin>,
    reused: bool,
}

impl Lease {
    /// Keeps the connection for the next request.
    pub(crate) fn give_back(self) {
        let Self { sender, place, origin, .. } = self;
        origin.keep(Kept { sender, since: Instant::now(), place });
    }
}

impl Origin {
    pub(crate) fn new(address: String, limits: Limits) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(limits.max_origin_connections));
        Arc::new(Self { address, limits, places, kept: Mutex::default() })
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
        loop {
            let mut lease = self.lease().await?;
            let again = repeatable(&request).then(|| copy(&request));
            let sent = lease.sender.try_send_request(request);
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
            // Only a connection that was kept can have died of old age; a new one that fails says something about the origin.
            let died = error.is_canceled() || error.is_closed() || error.is_incomplete_message() || is_io(&error);
            request = match unsent.or(again.filter(|_| died)) {
                Some(request) if lease.reused => request,
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

    async fn lease(self: &Arc<Self>) -> Result<Lease, OriginError> {
        if let Some(Kept { sender, place, .. }) = self.take_kept() {
            return Ok(Lease { sender, place, origin: Arc::clone(self), reused: true });
        }
        let deadline = Instant::now() + self.limits.origin_connect;
        let Ok(Ok(place)) = timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await else {
            return Err(OriginError::Busy);
        };
        let io = timeout_at(deadline, TcpStream::connect(self.address.as_str()))
            .await
            .map_err(|_| OriginError::ConnectTimedOut(self.address.clone()))?
            .map_err(|cause| OriginError::Unreachable { address: self.address.clone(), cause })?;
        // Without it small writes wait for acknowledgements; if it cannot be set, they do.
        let _ = io.set_nodelay(true);
        let (sender, connection) =
            http1::Builder::new().max_buf_size(BUFFER_BYTES).handshake(TokioIo::new(io)).await.map_err(OriginError::Failed)?;
        // Ends when the sender and the body are gone; each wait within is bounded by whoever holds those.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(error = telemetry::error_chain(&error), "a connection to the origin ended");
            }
        });
        Ok(Lease { sender, place, origin: Arc::clone(self), reused: false })
    }

    /// The connection that was used last and is still good; older ones are closed on the way.
    fn take_kept(&self) -> Option<Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.front().is_some_and(|oldest| oldest.since.elapsed() > self.limits.origin_idle || oldest.sender.is_closed()) {
            kept.pop_front();
        }
        let ready = kept.iter().rposition(|kept| kept.sender.is_ready())?;
        kept.remove(ready)
    }

    fn keep(&self, connection: Kept) {
        if connection.sender.is_closed() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(connection);
        if kept.len() > self.limits.max_origin_idle {
            kept.pop_front();
        }
    }

    /// Closes connections that were kept for too long, for as long as the edge runs.
    pub(crate) async fn tidy(self: Arc<Self>) {
        let every = (self.limits.origin_idle / 2).max(Duration::from_millis(50));
        loop {
            tokio::time::sleep(every).await;
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|kept| kept.since.elapsed() <= self.limits.origin_idle && !kept.sender.is_closed());
        }
    }
}

/// Connects once, so that a wrong origin is told when the edge starts. Not reaching it is no reason to stop: it may come later.
pub(crate) async fn look(address: &str, wait: Duration) -> Result<(), OriginError> {
    match timeout(wait, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(cause)) => Err(OriginError::Unreachable { address: address.to_owned(), cause }),
        Err(_) => Err(OriginError::ConnectTimedOut(address.to_owned())),
    }
}

/// Whether doing a request twice does nothing that doing it once would not.
///
/// Source: RFC 9110, section 9.2.2.
fn repeatable(request: &Request<Upload>) -> bool {
    let idempotent = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE);
    idempotent && matches!(request.body(), Upload::Empty) && !request.headers().contains_key(http::header::UPGRADE)
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
