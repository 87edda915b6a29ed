//! Bodies on their way through: streamed, watched, never gathered.
//!
//! Arrives: an upload from a client, an answer from the origin. Leaves: the same frames. Goes wrong: an upload that makes no progress,
//! an origin that falls silent; both end with a [`BodyError`].

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{access_log::Record, forwarding, origin::Lease, watch::RequestGuard};

/// An upload must bring this many bytes, or its end, within each stall period.
const MIN_UPLOAD_BYTES: usize = 1024;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The peer's connection failed.
    #[error("the connection failed in the middle of a body")]
    Broken(#[source] hyper::Error),
    /// The client sent next to nothing for too long.
    #[error("the upload made no progress")]
    UploadStalled,
    /// The client sent more than it may.
    #[error("the upload is larger than allowed")]
    UploadTooLarge,
    /// The origin sent nothing for too long.
    #[error("the origin fell silent in the middle of its answer")]
    OriginSilent,
}

/// A deadline for each wait; most bodies never wait, and cost no timer.
pub(crate) struct Deadline {
    after: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    /// The wait has begun that the timer is set for.
    waiting: bool,
}

impl Deadline {
    fn new(after: Duration) -> Self {
        Self { after, sleep: None, waiting: false }
    }

    /// The wait is over; the next one has all of its time.
    fn restart(&mut self) {
        self.waiting = false;
    }

    /// Whether a wait has lasted too long. The first look begins it.
    fn passed(&mut self, cx: &mut Context<'_>) -> bool {
        let until = || Instant::now() + self.after;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until())));
        if !std::mem::replace(&mut self.waiting, true) {
            sleep.as_mut().reset(until());
        }
        sleep.as_mut().poll(cx).is_ready()
    }
}

/// When an upload last moved, in milliseconds since it began; and whether it failed.
#[derive(Debug)]
pub(crate) struct UploadProgress {
    began: Instant,
    last: AtomicU64,
}

const STALLED: u64 = u64::MAX;
const BROKEN: u64 = u64::MAX - 1;
const TOO_LARGE: u64 = u64::MAX - 2;

/// How an upload is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadState {
    /// It last moved then, or has ended.
    MovedAt(Instant),
    /// The client sent next to nothing for too long.
    Stalled,
    /// The client's connection failed.
    Broken,
    /// The client sent more than it may.
    TooLarge,
}

impl UploadProgress {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), last: AtomicU64::new(0) })
    }

    pub(crate) fn state(&self) -> UploadState {
        match self.last.load(Ordering::Relaxed) {
            STALLED => UploadState::Stalled,
            BROKEN => UploadState::Broken,
            TOO_LARGE => UploadState::TooLarge,
            millis => UploadState::MovedAt(self.began + Duration::from_millis(millis)),
        }
    }

    fn moved(&self) {
        self.last.store(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0), Ordering::Relaxed);
    }
}

/// A client's body on its way to the origin.
pub(crate) enum Upload {
    /// None; such a request can be sent a second time.
    Empty,
    /// One that flows.
    Streaming { inner: Incoming, deadline: Deadline, progress: Arc<UploadProgress>, gathered: usize, allowed: u64 },
}

impl Upload {
    /// An upload that must not stall, nor have more than `allowed` bytes.
    pub(crate) fn new(inner: Incoming, stall: Duration, allowed: u64, progress: Arc<UploadProgress>) -> Self {
        match inner.is_end_stream() {
            true => Self::Empty,
            false => Self::Streaming { inner, deadline: Deadline::new(stall), progress, gathered: 0, allowed },
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self::Streaming { inner, deadline, progress, gathered, allowed } = self.get_mut() else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Pending if deadline.passed(cx) => {
                progress.last.store(STALLED, Ordering::Relaxed);
                Poll::Ready(Some(Err(BodyError::UploadStalled)))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                progress.moved();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                progress.last.store(BROKEN, Ordering::Relaxed);
                Poll::Ready(Some(Err(BodyError::Broken(error))))
            }
            Poll::Ready(Some(Ok(mut frame))) => {
                progress.moved();
                let Some(left) = allowed.checked_sub(frame.data_ref().map_or(0, |data| data.len() as u64)) else {
                    progress.last.store(TOO_LARGE, Ordering::Relaxed);
                    return Poll::Ready(Some(Err(BodyError::UploadTooLarge)));
                };
                *allowed = left;
                *gathered += frame.data_ref().map_or(MIN_UPLOAD_BYTES, Bytes::len);
                if *gathered >= MIN_UPLOAD_BYTES {
                    *gathered = 0;
                    deadline.restart();
                }
                if let Some(trailers) = frame.trailers_mut() {
                    forwarding::clean_trailers(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { inner, .. } => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { inner, .. } => inner.size_hint(),
        }
    }
}

/// What a client is answered.
pub(crate) enum Answer {
    /// A few words of the edge's own.
    Own(http_body_util::Full<Bytes>, Option<RequestGuard>),
    /// The origin's, streamed.
    Origin(Box<OriginBody>),
    /// Either, with a line in the access log once it has ended.
    Recorded(Box<(Self, Record)>),
}

/// The origin's body on its way to the client.
pub(crate) struct OriginBody {
    inner: Incoming,
    deadline: Deadline,
    /// Given back for reuse once the body has ended.
    lease: Option<Lease>,
    guard: RequestGuard,
}

impl Answer {
    pub(crate) fn own(text: impl Into<Bytes>, guard: Option<RequestGuard>) -> Self {
        Self::Own(http_body_util::Full::new(text.into()), guard)
    }

    pub(crate) fn origin(inner: Incoming, silence: Duration, lease: Lease, guard: RequestGuard) -> Self {
        let mut body = OriginBody { deadline: Deadline::new(silence), lease: Some(lease), guard, inner };
        body.give_back_if_ended();
        Self::Origin(Box::new(body))
    }
}

impl OriginBody {
    fn give_back_if_ended(&mut self) {
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.guard.asked_for();
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) else {
            return match self.deadline.passed(cx) {
                true => Poll::Ready(Some(Err(BodyError::OriginSilent))),
                false => Poll::Pending,
            };
        };
        match frame {
            None => {
                if let Some(lease) = self.lease.take() {
                    lease.give_back();
                }
                Poll::Ready(None)
            }
            Some(Err(error)) => Poll::Ready(Some(Err(BodyError::Broken(error)))),
            Some(Ok(mut frame)) => {
                self.deadline.restart();
                if let Some(trailers) = frame.trailers_mut() {
                    forwarding::drop_one_hop(trailers);
                }
                self.guard.handed_over();
                self.give_back_if_ended();
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Origin(body) => body.poll_frame(cx),
            Self::Recorded(recorded) => {
                let (answer, record) = &mut **recorded;
                let frame = Pin::new(answer).poll_frame(cx);
                if let Poll::Ready(Some(Ok(frame))) = &frame {
                    record.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                }
                frame
            }
            Self::Own(text, guard) => {
                let frame = ready!(Pin::new(text).poll_frame(cx));
                if let (Some(guard), true) = (guard, frame.is_some()) {
                    guard.handed_over();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(|never: Infallible| match never {})))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text, _) => text.is_end_stream(),
            Self::Origin(body) => body.inner.is_end_stream(),
            Self::Recorded(recorded) => recorded.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text, _) => text.size_hint(),
            Self::Origin(body) => body.inner.size_hint(),
            Self::Recorded(recorded) => recorded.0.size_hint(),
        }
    }
}
