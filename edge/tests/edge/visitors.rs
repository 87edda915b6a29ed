//! Clients that open connections for as long as a test goes on, and count what became of each.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use futures_util::future::join_all;
use http::StatusCode;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::{client, never_backwards::SHOP, setup::eventually};

/// What is asked on one connection before the next is opened.
const ASKED_EACH: usize = 5;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Visitor {
    Http1,
    Http2,
    WebSocket,
}

use Visitor::*;

/// What became of the visits of one kind.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicUsize,
    answers: AtomicUsize,
}

/// Two visitors of each kind, until they are told to stop.
pub(crate) struct Load {
    shared: Arc<Shared>,
    visits: Option<JoinHandle<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Shared {
    counts: [Counts; 3],
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Load {
    pub(crate) fn start(https: SocketAddr) -> Self {
        let shared = Arc::<Shared>::default();
        let visited = Arc::clone(&shared);
        // In one thread. In several, hyper's client can read a GOAWAY while it begins a request, and says then that the request was not
        // looked at, although it is sent: the edge answers it, and nobody counts the answer.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let visits = thread::spawn(move || {
            let visits = [Http1, Http1, Http2, Http2, WebSocket, WebSocket].map(|visitor| visited.visit(visitor, https));
            runtime.block_on(join_all(visits));
        });
        Self { shared, visits: Some(visits) }
    }

    /// Connections opened by now, by kind.
    pub(crate) fn connections(&self) -> [usize; 3] {
        self.shared.counts.each_ref().map(|counts| counts.connections.load(Ordering::SeqCst))
    }

    /// Answers by now, by kind; a WebSocket's are its messages.
    pub(crate) fn answers(&self) -> [usize; 3] {
        self.shared.counts.each_ref().map(|counts| counts.answers.load(Ordering::SeqCst))
    }

    /// Waits until each kind has opened so many more connections, and nothing has failed.
    pub(crate) async fn goes_on(&self, during: &str, more: usize) {
        let before = self.connections();
        eventually(&format!("connections are opened {during}"), async || {
            self.none_failed(during);
            self.connections().iter().zip(before).all(|(now, before)| *now >= before + more)
        })
        .await;
    }

    fn none_failed(&self, during: &str) {
        let failed = self.shared.failed.lock().unwrap().clone();
        assert_eq!(failed, Vec::<String>::new(), "{during}");
    }

    /// Lets each visitor finish what it began.
    pub(crate) async fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let visits = self.visits.take().expect("a load that goes on");
        tokio::task::spawn_blocking(|| visits.join()).await.unwrap().unwrap();
        self.none_failed("to the end");
    }
}

impl Shared {
    async fn visit(&self, visitor: Visitor, https: SocketAddr) {
        let counts = &self.counts[visitor as usize];
        while !self.stop.load(Ordering::SeqCst) {
            if let Err(problem) = visit_once(visitor, https, counts).await {
                self.failed.lock().unwrap().push(format!("{visitor:?}: {problem}"));
                return;
            }
        }
    }
}

async fn visit_once(visitor: Visitor, https: SocketAddr, counts: &Counts) -> Result<(), String> {
    let alpn = if let Http2 = visitor { "h2" } else { "http/1.1" };
    let config = Arc::new(client::config(&[alpn]));
    let stream = client::connect_with(config, https, SHOP).await.map_err(|error| format!("not connected: {error}"))?;
    counts.connections.fetch_add(1, Ordering::SeqCst);
    match visitor {
        Http1 => over_http1(stream, counts).await,
        Http2 => over_http2(stream, counts).await,
        WebSocket => over_websocket(stream, counts).await,
    }
}

/// Whether a server said in time that it would not touch the request (RFC 9113, section 6.8): it goes to the next connection.
fn is_left_to_the_next(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR))
}

/// Reads an answer; `false` when the connection was ending before the request was on its way: no request failed then. That it was never on
/// its way the edge's own log confirms, which has a line for each that was.
async fn answered<B>(
    sent: impl Future<Output = Result<http::Response<hyper::body::Incoming>, TrySendError<B>>>,
    counts: &Counts,
) -> Result<bool, String> {
    let answer = match timeout(client::SOON, sent).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(mut error)) => {
            let never_sent = error.take_message().is_some() || is_left_to_the_next(error.error());
            return if never_sent { Ok(false) } else { Err(format!("no answer: {:?}", error.into_error())) };
        }
        Err(_) => return Err("no answer in time".to_owned()),
    };
    let last = answer.headers().get("connection").is_some_and(|value| value == "close");
    match answer.status() {
        StatusCode::OK => client::text(answer).await,
        status => return Err(status.to_string()),
    };
    counts.answers.fetch_add(1, Ordering::SeqCst);
    Ok(!last)
}

async fn over_http1(stream: TlsStream<TcpStream>, counts: &Counts) -> Result<(), String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    ask(async || Ok(answered(sender.try_send_request(client::get(SHOP, "/echo")), counts).await? && sender.ready().await.is_ok())).await
}

async fn over_http2(stream: TlsStream<TcpStream>, counts: &Counts) -> Result<(), String> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    let opened = builder.timer(TokioTimer::new()).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = opened.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    ask(async || Ok(answered(sender.try_send_request(client::get_h2(SHOP, "/echo")), counts).await? && sender.ready().await.is_ok())).await
}

/// Asks for as long as the connection goes on, and not too often.
async fn ask(mut once: impl AsyncFnMut() -> Result<bool, String>) -> Result<(), String> {
    for _ in 0..ASKED_EACH {
        if !once().await? {
            break;
        }
    }
    Ok(())
}

async fn over_websocket(stream: TlsStream<TcpStream>, counts: &Counts) -> Result<(), String> {
    let mut socket = Socket::open(stream).await?;
    for _ in 0..ASKED_EACH {
        socket.say(b"hello").await?;
        counts.answers.fetch_add(1, Ordering::SeqCst);
    }
    socket.close().await
}

/// A WebSocket that hears back what it says.
pub(crate) struct Socket(TlsStream<TcpStream>);

impl Socket {
    pub(crate) async fn open(mut stream: TlsStream<TcpStream>) -> Result<Self, String> {
        let ask = format!(
            "GET /socket HTTP/1.1\r\nHost: {SHOP}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(ask.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(client::SOON, stream.read_u8()).await.map_err(|_| "no answer in time")?;
            head.push(byte.map_err(|error| format!("no answer: {error}"))?);
        }
        match head.starts_with(b"HTTP/1.1 101 ") {
            true => Ok(Self(stream)),
            false => Err(String::from_utf8_lossy(&head).into_owned()),
        }
    }

    /// Says something, and waits until it comes back.
    pub(crate) async fn say(&mut self, words: &[u8]) -> Result<(), String> {
        self.0.write_all(words).await.map_err(|error| error.to_string())?;
        let mut back = vec![0; words.len()];
        let read = timeout(client::SOON, self.0.read_exact(&mut back)).await.map_err(|_| "nothing came back in time")?;
        read.map_err(|error| format!("nothing came back: {error}"))?;
        if back == words { Ok(()) } else { Err(format!("{back:?} came back")) }
    }

    pub(crate) async fn close(mut self) -> Result<(), String> {
        self.0.shutdown().await.map_err(|error| error.to_string())?;
        let left = client::read_to_end(&mut self.0, client::SOON).await;
        if left == (String::new(), true) { Ok(()) } else { Err(format!("not closed: {left:?}")) }
    }
}
