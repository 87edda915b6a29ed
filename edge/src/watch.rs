//! What a connection is doing, and when it has done it for too long.
//!
//! Arrives: marks from the socket, from requests and from response bodies. Leaves: a [`Verdict`] whenever the connection's task asks.
//! Goes wrong: clients that send slowly, do not read, or stay idle; each ends with its own reason.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Instant,
};

use crate::config::Limits;

/// Half of what a client that takes some bytes must take within one stall period.
const MIN_PROGRESS_BYTES: u64 = 8 * 1024;

/// The marks of one connection. Times are milliseconds since it began, plus one; zero is "not".
#[derive(Debug)]
pub(crate) struct Activity {
    began: Instant,
    requests: AtomicU64,
    active: AtomicUsize,
    quiet_since: AtomicU64,
    reading_since: AtomicU64,
    blocked_since: AtomicU64,
    blocked_progress: AtomicU64,
    last_write: AtomicU64,
    header_open_since: AtomicU64,
    flood: OnceLock<&'static str>,
    reset_on_close: AtomicBool,
    bodies: Mutex<Vec<Arc<AtomicU64>>>,
}

/// What should happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It goes on.
    Keep,
    /// It ends once its requests are answered.
    Finish(&'static str),
    /// It ends now.
    Abort(&'static str),
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            requests: AtomicU64::new(0),
            active: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(1),
            reading_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            blocked_progress: AtomicU64::new(0),
            last_write: AtomicU64::new(1),
            header_open_since: AtomicU64::new(0),
            flood: OnceLock::new(),
            reset_on_close: AtomicBool::new(false),
            bodies: Mutex::default(),
        })
    }

    /// A request's header is complete; the guard lives until its response is sent.
    pub(crate) fn request(self: &Arc<Self>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.active.fetch_add(1, Ordering::Relaxed);
        self.reading_since.store(0, Ordering::Relaxed);
        let handed_over = Arc::new(AtomicU64::new(0));
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&handed_over));
        RequestGuard { activity: Arc::clone(self), handed_over }
    }

    /// How many requests there were.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The handshake is over: what was read for it was no request.
    pub(crate) fn handshake_done(&self) {
        self.quiet_since.store(self.now(), Ordering::Relaxed);
        self.reading_since.store(0, Ordering::Relaxed);
    }

    /// A header that the connection's protocol delimits has begun, or none is on its way.
    pub(crate) fn header_open(&self, open: bool) {
        match open {
            true if self.is_header_open() => {}
            true => self.header_open_since.store(self.now(), Ordering::Relaxed),
            false => self.header_open_since.store(0, Ordering::Relaxed),
        }
    }

    pub(crate) fn is_header_open(&self) -> bool {
        self.header_open_since.load(Ordering::Relaxed) > 0
    }

    /// The client sent too much of something; the connection is about to fail for it.
    pub(crate) fn flooded(&self, flood: &'static str) {
        // The first reason is the one that counts.
        let _ = self.flood.set(flood);
    }

    /// What the client sent too much of.
    pub(crate) fn flood(&self) -> Option<&'static str> {
        self.flood.get().copied()
    }

    /// Closing resets the connection, so that the kernel does not go on offering bytes nobody reads.
    pub(crate) fn reset_on_close(&self) {
        self.reset_on_close.store(true, Ordering::Relaxed);
    }

    /// Judges the connection. `partial_heads_show` says that bytes read between requests are the next one's header, as in HTTP/1.
    pub(crate) fn verdict(&self, limits: &Limits, partial_heads_show: bool) -> Verdict {
        if self.write_stalled(limits) {
            return Verdict::Abort("client_does_not_read");
        }
        let header_open = self.header_open_since.load(Ordering::Relaxed);
        if header_open > 0 && self.since(header_open) > limits.header_read {
            return Verdict::Abort("slow_header");
        }
        let active = self.active.load(Ordering::Relaxed) > 0;
        if active {
            let stalled = self.longest_unread_body();
            let unmoved = self.since(self.last_write.load(Ordering::Relaxed));
            if stalled > limits.stream_stall || (stalled > limits.write_stall && unmoved > limits.write_stall) {
                return Verdict::Abort("client_does_not_read");
            }
        } else {
            let quiet = self.since(self.quiet_since.load(Ordering::Relaxed));
            let first = self.requests() == 0;
            if first && quiet > limits.header_read {
                return Verdict::Abort("no_request");
            }
            let reading = self.reading_since.load(Ordering::Relaxed);
            if partial_heads_show && reading > 0 && self.since(reading) > limits.header_read {
                return Verdict::Abort("slow_header");
            }
            if quiet > limits.idle {
                return Verdict::Finish("idle");
            }
        }
        match self.began.elapsed() > limits.connection_lifetime {
            true => Verdict::Finish("lifetime"),
            false => Verdict::Keep,
        }
    }

    /// Whether bytes were ready for the client for too long, and it took none or next to none.
    pub(crate) fn write_stalled(&self, limits: &Limits) -> bool {
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        blocked > 0 && self.since(blocked) > limits.write_stall
    }

    fn longest_unread_body(&self) -> Duration {
        let bodies = self.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        let since = bodies.iter().map(|body| body.load(Ordering::Relaxed)).filter(|&since| since > 0).min();
        since.map_or(Duration::ZERO, |since| self.since(since))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn since(&self, mark: u64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(mark))
    }

    fn bytes_read(&self) {
        if self.active.load(Ordering::Relaxed) == 0 && self.reading_since.load(Ordering::Relaxed) == 0 {
            self.reading_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn write_blocked(&self) {
        if self.blocked_since.load(Ordering::Relaxed) == 0 {
            self.blocked_progress.store(0, Ordering::Relaxed);
            self.blocked_since.store(self.now(), Ordering::Relaxed);
        }
    }

    fn bytes_written(&self, written: usize) {
        self.last_write.store(self.now(), Ordering::Relaxed);
        let blocked = self.blocked_since.load(Ordering::Relaxed) > 0;
        if blocked && self.blocked_progress.fetch_add(written as u64, Ordering::Relaxed) + written as u64 > MIN_PROGRESS_BYTES {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    fn all_written(&self) {
        self.blocked_since.store(0, Ordering::Relaxed);
    }
}

/// Marks a request as being answered.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    activity: Arc<Activity>,
    /// Since when a piece of the response waits for the client.
    handed_over: Arc<AtomicU64>,
}

impl RequestGuard {
    /// A piece of the response was handed over for sending.
    pub(crate) fn handed_over(&self) {
        self.handed_over.store(self.activity.now(), Ordering::Relaxed);
    }

    /// The next piece was asked for, so the one before found room.
    pub(crate) fn asked_for(&self) {
        self.handed_over.store(0, Ordering::Relaxed);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut bodies = self.activity.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        bodies.retain(|body| !Arc::ptr_eq(body, &self.handed_over));
        drop(bodies);
        self.activity.quiet_since.store(self.activity.now(), Ordering::Relaxed);
        self.activity.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket that marks what passes through it.
#[derive(Debug)]
pub(crate) struct WatchedIo {
    io: TcpStream,
    activity: Arc<Activity>,
}

impl WatchedIo {
    pub(crate) fn new(io: TcpStream, activity: Arc<Activity>) -> Self {
        Self { io, activity }
    }

    fn mark(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(written)) => self.activity.bytes_written(*written),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.activity.write_blocked(),
        }
    }
}

impl Drop for WatchedIo {
    fn drop(&mut self) {
        if self.activity.reset_on_close.load(Ordering::Relaxed) {
            // If that fails, the kernel gives the connection up by itself, only later.
            let _ = socket2::SockRef::from(&self.io).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.activity.bytes_read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.mark(&written);
        written
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.mark(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Flushing is only asked for once everything was written.
        self.activity.all_written();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// How often a connection is judged: often enough that no limit is exceeded by more than a quarter.
pub(crate) fn look_interval(limits: &Limits) -> Duration {
    let shortest = limits.header_read.min(limits.idle).min(limits.write_stall).min(limits.connection_lifetime);
    (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits::default()
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_ends_sooner_than_an_idle_one() {
        let activity = Activity::new();
        pass(11).await;
        assert_eq!(activity.verdict(&limits(), true), Verdict::Abort("no_request"));
        drop(activity.request());
        pass(59).await;
        assert_eq!(activity.verdict(&limits(), true), Verdict::Keep);
        pass(2).await;
        assert_eq!(activity.verdict(&limits(), true), Verdict::Finish("idle"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_must_be_whole_soon_after_its_first_byte() {
        let activity = Activity::new();
        drop(activity.request());
        pass(30).await;
        activity.bytes_read();
        pass(6).await;
        activity.bytes_read();
        assert_eq!(activity.verdict(&limits(), true), Verdict::Keep);
        pass(6).await;
        assert_eq!(activity.verdict(&limits(), true), Verdict::Abort("slow_header"));
        assert_eq!(activity.verdict(&limits(), false), Verdict::Keep);
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_block_must_end_even_while_other_requests_are_answered() {
        let activity = Activity::new();
        let _request = activity.request();
        activity.header_open(true);
        pass(6).await;
        activity.header_open(true);
        assert_eq!(activity.verdict(&limits(), false), Verdict::Keep);
        pass(6).await;
        assert_eq!(activity.verdict(&limits(), false), Verdict::Abort("slow_header"));
        activity.header_open(false);
        assert_eq!(activity.verdict(&limits(), false), Verdict::Keep);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_next_to_nothing_is_as_bad_as_one_that_never_reads() {
        let activity = Activity::new();
        let _request = activity.request();
        activity.write_blocked();
        for _ in 0..3 {
            pass(4).await;
            activity.bytes_written(100);
            activity.write_blocked();
        }
        assert_eq!(activity.verdict(&limits(), true), Verdict::Abort("client_does_not_read"));
        activity.bytes_written(100_000);
        assert_eq!(activity.verdict(&limits(), true), Verdict::Keep);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unread_stream_ends_the_connection_when_nothing_else_moves_and_later_even_then() {
        let activity = Activity::new();
        let request = activity.request();
        activity.bytes_written(10);
        request.handed_over();
        for _ in 0..12 {
            pass(5).await;
            activity.bytes_written(10);
            assert_eq!(activity.verdict(&limits(), false), Verdict::Keep);
        }
        pass(5).await;
        activity.bytes_written(10);
        assert_eq!(activity.verdict(&limits(), false), Verdict::Abort("client_does_not_read"));
        request.asked_for();
        assert_eq!(activity.verdict(&limits(), false), Verdict::Keep);
        request.handed_over();
        pass(11).await;
        assert_eq!(activity.verdict(&limits(), false), Verdict::Abort("client_does_not_read"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_origin_that_takes_its_time_is_not_the_clients_fault() {
        let activity = Activity::new();
        let request = activity.request();
        request.asked_for();
        pass(200).await;
        assert_eq!(activity.verdict(&limits(), true), Verdict::Keep);
    }
}
