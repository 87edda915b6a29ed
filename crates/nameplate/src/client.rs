//! A small HTTP client for loopback: the API and the demo DNS's editor.
//!
//! Arrives: a method, a URL, JSON. Leaves: status and JSON. Goes wrong: nobody listens, or the answer is not JSON; both say what to do.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("nothing answers at {url}: {detail}")]
    Unreachable { url: String, detail: String },
    #[error("{url} answered something that is not JSON: {detail}")]
    NotJson { url: String, detail: String },
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Value,
}

/// Makes one request.
pub(crate) async fn exchange(method: Method, url: &str, key: Option<&str>, body: Option<&Value>) -> Result<Answer, ClientError> {
    let unreachable = |detail: String| ClientError::Unreachable { url: url.to_owned(), detail };
    let asked = tokio::time::timeout(PATIENCE, ask(method, url, key, body)).await;
    let (status, bytes) = asked.map_err(|_| unreachable("no answer in time".into()))?.map_err(unreachable)?;
    let body = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes).map_err(|error| ClientError::NotJson { url: url.to_owned(), detail: error.to_string() })?
    };
    Ok(Answer { status, body })
}

async fn ask(method: Method, url: &str, key: Option<&str>, body: Option<&Value>) -> Result<(StatusCode, Bytes), String> {
    let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("only http:// URLs of this machine are asked; set NAMEPLATE_API".into());
    }
    let authority = uri.authority().ok_or("the URL has no host")?.clone();
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let stream = TcpStream::connect(&address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "close");
    if let Some(key) = key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    if !bytes.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request.body(Full::new(bytes)).map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    driver.abort();
    Ok((status, bytes))
}
