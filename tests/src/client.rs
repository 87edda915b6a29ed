//! Plain HTTP to this machine: the API, and the editors of DNS and CA.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// How long one exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer, read whole.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` when there is none.
    pub fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body, given that the request was granted.
    pub fn granted(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, String::from_utf8_lossy(&self.body));
        self.json()
    }
}

/// Makes one request over a connection of its own. `Err` when nobody answers.
pub async fn ask(method: Method, url: &str, key: Option<&str>, body: Option<&Value>) -> Result<Answer, String> {
    let key = key.map(|key| format!("Bearer {key}"));
    let headers: Vec<_> = key.iter().map(|key| ("authorization", key.as_str())).collect();
    ask_with(method, url, &headers, body).await
}

/// The same with headers of the caller's choice.
pub async fn ask_with(method: Method, url: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Result<Answer, String> {
    tokio::time::timeout(PATIENCE, exchange(method, url, headers, body)).await.map_err(|_| format!("{url}: no answer in {PATIENCE:?}"))?
}

async fn exchange(method: Method, url: &str, headers: &[(&str, &str)], body: Option<&Value>) -> Result<Answer, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let authority = uri.authority().ok_or("the URL has no host")?.as_str().to_owned();
    let stream = TcpStream::connect(&authority).await.map_err(|error| format!("{authority}: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(uri.path_and_query().map_or("/", |path| path.as_str()));
    request = request.header(header::HOST, &authority).header(header::CONNECTION, "close");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let request = request.body(Full::new(bytes)).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    connection.abort();
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// A client that keeps its connection from one request to the next, as those of applications do.
#[derive(Debug)]
pub struct KeptAlive {
    authority: String,
    key: String,
    connection: Option<SendRequest<Empty<Bytes>>>,
    /// How many connections it has made.
    pub connections: u32,
}

impl KeptAlive {
    /// One that speaks to `authority` with this API key.
    pub fn new(authority: &str, key: &str) -> Self {
        Self { authority: authority.to_owned(), key: key.to_owned(), connection: None, connections: 0 }
    }

    /// Makes one request. `Err` when it was sent and not answered: a connection that the server closed in good order before is made anew.
    pub async fn get(&mut self, path: &str) -> Result<StatusCode, String> {
        tokio::time::timeout(PATIENCE, self.exchange(path)).await.map_err(|_| format!("{path}: no answer in {PATIENCE:?}"))?
    }

    /// Whether the server left the connection open after its last answer.
    pub fn is_kept(&self) -> bool {
        self.connection.is_some()
    }

    async fn exchange(&mut self, path: &str) -> Result<StatusCode, String> {
        let kept = match self.connection.take() {
            Some(mut kept) => kept.ready().await.is_ok().then_some(kept),
            None => None,
        };
        let mut connection = match kept {
            Some(kept) => kept,
            None => self.connect().await?,
        };
        let request = Request::get(path).header(header::HOST, &self.authority).header("authorization", format!("Bearer {}", self.key));
        let request = request.body(Empty::new()).map_err(|error| error.to_string())?;
        let answer = connection.send_request(request).await.map_err(|error| format!("{path}: {error}"))?;
        let status = answer.status();
        let ends = answer.headers().get(header::CONNECTION).is_some_and(|value| value == "close");
        answer.into_body().collect().await.map_err(|error| format!("{path}, the body: {error}"))?;
        self.connection = (!ends).then_some(connection);
        Ok(status)
    }

    async fn connect(&mut self) -> Result<SendRequest<Empty<Bytes>>, String> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| format!("{}: {error}", self.authority))?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        self.connections += 1;
        Ok(sender)
    }
}
