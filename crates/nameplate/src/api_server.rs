//! The HTTP API on one machine: what API Gateway does in front of register-domain.
//!
//! Arrives: HTTP/1.1 connections on loopback. Leaves: the handler's answers. Goes wrong: slow, oversized or broken requests, each ended by
//! its own bound.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use register_domain::{Api, Code, MAX_BODY_BYTES, Refusal, refuse};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

/// How long headers, and then a body, may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many connections are served at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 512;

/// Serves the API until the task is aborted.
pub(crate) fn serve(listener: TcpListener, api: Arc<Api>) -> JoinHandle<()> {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely; others must close first.
                    tracing::warn!(%error, "a connection to the API was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // An answer is one small write; waiting to fill a segment would only delay it.
            let _ = stream.set_nodelay(true);
            let api = api.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(api.clone(), request));
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    // A client that has said all it will say still waits for its answer.
                    .half_close(true)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "a connection to the API ended");
                }
                drop(permit);
            });
        }
    })
}

async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    // One byte more than the handler reads, so that it is the handler who refuses.
    let body = tokio::time::timeout(PATIENCE, Limited::new(body, MAX_BODY_BYTES + 1).collect()).await;
    let bytes = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Bytes::from(vec![b' '; MAX_BODY_BYTES + 1]),
        Ok(Err(_)) | Err(_) => {
            let refusal = Refusal::new(Code::Incomplete, "the body did not arrive whole in time");
            return Ok(refuse(&refusal).map(Full::new));
        }
    };
    Ok(api.handle(Request::from_parts(parts, bytes)).await.map(Full::new))
}
