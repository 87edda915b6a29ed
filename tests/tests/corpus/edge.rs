//! Where a CA fetches its challenges from.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

/// Port 80 of an edge: answers every token with one account's thumbprint.
pub(crate) struct Edge {
    port: u16,
    thumbprint: Arc<Mutex<String>>,
    _serving: JoinSet<()>,
}

impl Edge {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let thumbprint = Arc::new(Mutex::new(String::new()));
        let known = Arc::clone(&thumbprint);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let known = Arc::clone(&known);
                let service = service_fn(move |request: Request<Incoming>| {
                    let token = request.uri().path().strip_prefix("/.well-known/acme-challenge/").unwrap_or_default().to_owned();
                    let answer = format!("{token}.{}", known.lock().unwrap());
                    async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer)))) }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, thumbprint, _serving: serving }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn answer_for(&self, thumbprint: &str) {
        *self.thumbprint.lock().unwrap() = thumbprint.to_owned();
    }
}
