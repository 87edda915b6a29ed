//! The demo origin: a SaaS that answers with what it received, so that one sees what the edge passes on.
//!
//! Arrives: requests from the edge. Leaves: JSON with method, path, and every header. Goes wrong: nothing that
//! matters here.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, task::JoinHandle};

/// The most of a body that is counted.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// Serves until the task is aborted.
pub(crate) fn serve(listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(60))
                    .serve_connection(TokioIo::new(stream), service_fn(echo));
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the demo origin ended");
                }
            });
        }
    })
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let body_bytes = Limited::new(body, MAX_BODY_BYTES).collect().await.map(|body| body.to_bytes().len()).ok();
    let mut headers = serde_json::Map::new();
    for name in parts.headers.keys() {
        let values: Vec<_> =
            parts.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
        headers.insert(name.to_string(), values.join(", ").into());
    }
    let page = serde_json::json!({
        "message": "Hello from the demo origin. This is what the edge passed on.",
        "method": parts.method.as_str(),
        "path": parts.uri.path(),
        "headers": headers,
        "body_bytes": body_bytes,
    });
    let text = serde_json::to_string_pretty(&page).unwrap_or_default() + "\n";
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
