//! HTTP/1.1 servers, with TLS or without, that end in an orderly way.
//!
//! Arrives: connections from anyone who can reach the listener. Leaves: their requests, bodies read, at a [`Handler`]; its answers to them.
//! Goes wrong: slow, silent or oversized peers, each cut off at a limit named below; a handler that wants the connection closed.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::problem::{Kind, Problem};

/// How many connections are served at once; more wait in the listen queue.
const MOST_CONNECTIONS: usize = 2_048;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may be idle, or take to send a request's head. Longer than hyper's clients keep idle connections (90 s), so
/// that it is they who close them, and no request meets a closing connection.
const HEAD: Duration = Duration::from_secs(120);
/// How long a request's body may take.
const BODY: Duration = Duration::from_secs(10);
/// As large as a request's body may be: a finalize request with an RSA-4096 CSR of 25 names is a tenth of it.
const MOST_BODY_BYTES: usize = 64 * 1024;
/// How long connections may finish what they do when the server stops.
const GRACE: Duration = Duration::from_secs(3);
/// How long to leave a listener alone that cannot accept, as when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
pub(crate) struct ConnectionLost;

/// What answers requests.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request<Bytes>) -> impl Future<Output = Result<Response<Full<Bytes>>, ConnectionLost>> + Send;
}

/// A server that runs until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Starts serving what `listener` accepts.
    pub(crate) fn start<H: Handler>(listener: TcpListener, tls: Option<TlsAcceptor>, handler: H) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopping) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, tls, Arc::new(handler), stopping));
        Ok(Self { address, stop, accepting })
    }

    /// Stops accepting and lets the connections finish, for a while.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        // One more second than the connections get, so that they are ended by the loop, which says so.
        if timeout(GRACE + Duration::from_secs(1), &mut self.accepting).await.is_err() {
            tracing::warn!(address = %self.address, "the listener did not stop in time");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<H: Handler>(listener: TcpListener, tls: Option<TlsAcceptor>, handler: Arc<H>, mut stopping: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = told_to_stop(&mut stopping) => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task ended badly");
                }
                continue;
            }
            accepted = accept_one(&listener, &room) => accepted,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (tls, handler, stopping) = (tls.clone(), Arc::clone(&handler), stopping.clone());
                connections.spawn(connection(stream, permit, tls, handler, stopping));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, finish).await.is_err() {
        tracing::warn!("connections cut off after {} s", GRACE.as_secs());
    }
}

async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is one more reason to stop.
    let _ = stopping.wait_for(|stop| *stop).await;
}

async fn accept_one(listener: &TcpListener, room: &Arc<Semaphore>) -> std::io::Result<(tokio::net::TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _peer) = listener.accept().await?;
    Ok((stream, permit))
}

async fn connection<H: Handler>(
    stream: tokio::net::TcpStream,
    _permit: OwnedSemaphorePermit,
    tls: Option<TlsAcceptor>,
    handler: Arc<H>,
    stopping: watch::Receiver<bool>,
) {
    // Answers are small and clients wait for them: without this, each may wait for the kernel to fill a segment.
    let _ = stream.set_nodelay(true);
    let Some(acceptor) = tls else {
        return serve(stream, handler, stopping).await;
    };
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, handler, stopping).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

async fn serve<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    handler: Arc<H>,
    mut stopping: watch::Receiver<bool>,
) {
    let service = service_fn(|request| answer(Arc::clone(&handler), request));
    let mut http = http1::Builder::new();
    let serving = http.timer(TokioTimer::new()).header_read_timeout(HEAD).serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = told_to_stop(&mut stopping) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = crate::error_chain(&error), "connection ended");
    }
}

async fn answer<H: Handler>(handler: Arc<H>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, ConnectionLost> {
    let (head, body) = request.into_parts();
    match timeout(BODY, Limited::new(body, MOST_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => handler.handle(Request::from_parts(head, body.to_bytes())).await,
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Ok(Problem::new(Kind::TooLarge, format!("the body is larger than {MOST_BODY_BYTES} bytes")).response())
        }
        Ok(Err(_)) | Err(_) => Err(ConnectionLost),
    }
}
