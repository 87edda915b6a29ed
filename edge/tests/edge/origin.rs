//! An origin that tells what it received.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen_connections, seen_requests) = (Arc::clone(&connections), Arc::clone(&requests));
        let task = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                socket.set_nodelay(true).unwrap();
                seen_connections.fetch_add(1, Ordering::SeqCst);
                let requests = Arc::clone(&seen_requests);
                let service = service_fn(move |request| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    answer(request)
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service).with_upgrades());
            }
        });
        Self { address, connections, requests, task }
    }

    /// Accepts nobody any more.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

type Body = BoxBody<Bytes, Infallible>;

fn text(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(text.into()).boxed())
}

/// A body of pieces sent through a channel.
fn piped() -> (mpsc::Sender<Frame<Bytes>>, Body) {
    let (sender, receiver) = mpsc::channel::<Frame<Bytes>>(1);
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| receiver.recv().await.map(|frame| (Ok(frame), receiver)));
    (sender, StreamBody::new(Box::pin(stream)).boxed())
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    Ok(match request.uri().path() {
        "/echo" => {
            let mut lines: Vec<_> =
                request.headers().iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap_or("?"))).collect();
            lines.sort();
            text(format!("{} {}\n{}", request.method(), request.uri(), lines.concat()))
        }
        "/upload" => {
            let mut size = 0;
            while let Some(frame) = request.body_mut().frame().await {
                match frame {
                    Ok(frame) => size += frame.data_ref().map_or(0, Bytes::len),
                    Err(_) => return Ok(text("broken")),
                }
            }
            text(size.to_string())
        }
        // Every piece of the upload comes back as it arrives.
        "/mirror" => {
            let (sender, body) = piped();
            tokio::spawn(async move {
                while let Some(Ok(frame)) = request.body_mut().frame().await {
                    if sender.send(frame).await.is_err() {
                        return;
                    }
                }
            });
            Response::new(body)
        }
        "/endless" => {
            let (sender, body) = piped();
            tokio::spawn(async move { while sender.send(Frame::data(Bytes::from(vec![b'x'; 64 * 1024]))).await.is_ok() {} });
            Response::new(body)
        }
        "/big" => text(vec![b'x'; 20 << 20]),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(700)).await;
            text("slow")
        }
        "/never" => std::future::pending().await,
        "/trailers" => {
            let (sender, body) = piped();
            tokio::spawn(async move {
                let mut trailers = http::HeaderMap::new();
                trailers.insert("x-checksum", http::HeaderValue::from_static("42"));
                let _ = sender.send(Frame::data(Bytes::from_static(b"body"))).await;
                let _ = sender.send(Frame::trailers(trailers)).await;
            });
            let mut answer = Response::new(body);
            answer.headers_mut().insert(header::TRAILER, http::HeaderValue::from_static("x-checksum"));
            answer
        }
        "/hop" => {
            let mut answer = text("hop");
            answer.headers_mut().insert("connection", http::HeaderValue::from_static("x-internal"));
            answer.headers_mut().insert("x-internal", http::HeaderValue::from_static("secret"));
            answer.headers_mut().insert("keep-alive", http::HeaderValue::from_static("timeout=5"));
            answer.headers_mut().insert("x-outside", http::HeaderValue::from_static("yes"));
            answer
        }
        "/socket" => return Ok(switch(request)),
        _ => {
            let mut answer = text("no such page");
            *answer.status_mut() = StatusCode::NOT_FOUND;
            answer
        }
    })
}

/// Switches protocols and sends every byte back, told who asked.
fn switch(mut request: Request<Incoming>) -> Response<Body> {
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else { return text("no websocket") };
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = io.read(&mut buffer).await {
            if io.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    });
    let mut answer = text("");
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert("upgrade", http::HeaderValue::from_static("websocket"));
    answer.headers_mut().insert("connection", http::HeaderValue::from_static("upgrade"));
    answer.headers_mut().insert("sec-websocket-accept", http::HeaderValue::from_str(&accept).unwrap());
    answer
}
