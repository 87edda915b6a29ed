//! The HTTP API on one machine: what API Gateway does in front of register-domain.
//!
//! Arrives: HTTP/1.1 connections on loopback. Leaves: the handler's answers. Goes wrong: slow, oversized or broken requests, each ended by
//! its own bound; requests that are not answered within the time for leaving.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use register_domain::{Api, Code, MAX_BODY_BYTES, Refusal, refuse};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

/// How long headers, and then a body, may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many connections are served at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 512;
/// How long a connection without a request under way stays open when the server leaves: closing it could meet a request on its way, which
/// its client could not tell from one that was begun. The answer to that request asks to close.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// How long no connection is accepted after one was not: out of descriptors, most likely, and others must close first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The running server.
#[derive(Debug)]
pub(crate) struct ApiServer {
    leaving: watch::Sender<bool>,
    /// Ends, with its connections, once all of them have.
    task: JoinHandle<()>,
}

impl ApiServer {
    /// Accepts nothing more, lets every request under way be answered, and says whether that ended in time; what did not is cut off.
    pub(crate) async fn stop(mut self, within: Duration) -> bool {
        self.leaving.send_replace(true);
        let ended = timeout(within, &mut self.task).await.is_ok();
        if !ended {
            self.task.abort();
            // The connections are the task's own, and end with it.
            let _ = self.task.await;
        }
        ended
    }
}

/// Serves the API until it is stopped.
pub(crate) fn serve(listener: TcpListener, api: Arc<Api>) -> ApiServer {
    let (leaving, told) = watch::channel(false);
    ApiServer { leaving, task: tokio::spawn(accept(listener, api, told)) }
}

async fn accept(listener: TcpListener, api: Arc<Api>, mut leaving: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = told(&mut leaving) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, api.clone(), leaving.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "a connection to the API was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    // Who connects from now on waits for the next process, where a supervisor holds the socket.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Returns once the server leaves.
async fn told(leaving: &mut watch::Receiver<bool>) {
    // A server that is gone has left, too.
    let _ = leaving.wait_for(|leaving| *leaving).await;
}

async fn connection(stream: TcpStream, api: Arc<Api>, mut leaving: watch::Receiver<bool>) {
    // An answer is one small write; waiting to fill a segment would only delay it.
    let _ = stream.set_nodelay(true);
    let is_leaving = leaving.clone();
    let service = service_fn(move |request| {
        let (api, is_leaving) = (api.clone(), is_leaving.clone());
        async move {
            let mut answer = answer(api, request).await?;
            if *is_leaving.borrow() {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = http1::Builder::new();
    // With half_close, a client that has said all it will say still waits for its answer.
    let serving = http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).half_close(true);
    let mut serving = std::pin::pin!(serving.serve_connection(TokioIo::new(stream), service));
    let last_request = async {
        told(&mut leaving).await;
        tokio::time::sleep(LAST_REQUEST).await;
    };
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = last_request => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended");
    }
}

async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    // One byte more than the handler reads, so that it is the handler who refuses.
    let body = timeout(PATIENCE, Limited::new(body, MAX_BODY_BYTES + 1).collect()).await;
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
