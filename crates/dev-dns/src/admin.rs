//! The admin API: records, quirks and questions over HTTP/1.1 and JSON, for this machine only.
//!
//! Arrives: `GET|PUT|POST|DELETE /records`, `GET|PUT|DELETE /quirks`, `GET /queries`. Leaves: JSON, and for an edit only once it
//! survives a crash. Goes wrong: a problem document with `title` and `detail`, and nothing changed, except where it says otherwise.
//!
//! There is no password, so requests from web pages are refused: those that carry an `Origin`, and those whose `Host` is not this
//! machine (a page whose name was pointed at loopback).

use std::{convert::Infallible, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode, Uri,
    header::{ALLOW, CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN},
    uri::Authority,
};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    handle::Zone,
    names::NameError,
    persist::SaveError,
    quirks::{Quirk, QuirkError},
    record::{Record, RecordError, RecordType},
    zone::EditError,
};

/// The largest body: some ten thousand records at once.
const MAX_BODY_BYTES: usize = 8 << 20;
/// How long a client may take over a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take over a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// How many connections are served at once.
const MAX_CONNECTIONS: usize = 256;
/// How long a connection may stay open: a client that neither asks nor reads does not keep its place for ever.
const MAX_CONNECTION_AGE: Duration = Duration::from_secs(300);
/// The pause after an accept that failed, as it does while the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long requests under way may take once the server stops.
const DRAIN: Duration = Duration::from_secs(3);

/// Serves until `stop` closes, then lets requests under way finish.
pub(crate) async fn serve(listener: TcpListener, zone: Zone, mut stop: watch::Receiver<()>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            _ = stop.changed() => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, permit)) => {
                let (zone, stop) = (zone.clone(), stop.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    serve_connection(stream, zone, stop).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    if timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(drain = ?DRAIN, left = connections.len(), "admin connections were cut");
    }
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

async fn serve_connection(stream: TcpStream, zone: Zone, mut stop: watch::Receiver<()>) {
    let service = service_fn(move |request| {
        let zone = zone.clone();
        async move { Ok::<_, Infallible>(respond(&zone, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = until_closing(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            match timeout(DRAIN, connection).await {
                Ok(ended) => ended,
                Err(_elapsed) => return tracing::debug!(drain = ?DRAIN, "an admin connection was cut"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an admin connection ended early");
    }
}

/// Waits until a connection has to end: because the server stops, or because it was open for long enough.
async fn until_closing(stop: &mut watch::Receiver<()>) {
    // Both outcomes mean the same: the sender is gone, or the time is over.
    let _ = timeout(MAX_CONNECTION_AGE, stop.changed()).await;
}

/// What a request gets when something is in its way.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    allow: Option<&'static str>,
}

impl Problem {
    fn new(status: StatusCode, title: &'static str, detail: impl ToString) -> Self {
        Self { status, title, detail: detail.to_string(), allow: None }
    }

    fn bad_request(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The request cannot be read", detail)
    }
}

impl From<NameError> for Problem {
    fn from(error: NameError) -> Self {
        Self::bad_request(error)
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        match error.is_conflict() {
            true => Self::new(StatusCode::CONFLICT, "The record conflicts with the zone", error),
            false => Self::new(StatusCode::BAD_REQUEST, "The record is not valid", error),
        }
    }
}

impl From<EditError> for Problem {
    fn from(refused: EditError) -> Self {
        let mut problem = Self::from(refused.error.clone());
        problem.detail = format!("{refused}: {}", refused.error);
        problem
    }
}

impl From<QuirkError> for Problem {
    fn from(error: QuirkError) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The quirk is not valid", error)
    }
}

impl From<SaveError> for Problem {
    fn from(error: SaveError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "The change is not saved", error)
    }
}

async fn respond(zone: &Zone, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match route(zone, request).await {
        Ok(body) => json_response(StatusCode::OK, "application/json", body),
        Err(Problem { status, title, detail, allow }) => {
            let body = json!({ "title": title, "status": status.as_u16(), "detail": detail });
            let mut response = json_response(status, "application/problem+json", body.to_string());
            if let Some(allow) = allow {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            }
            response
        }
    }
}

fn json_response(status: StatusCode, content_type: &'static str, mut body: String) -> Response<Full<Bytes>> {
    body.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

async fn route(zone: &Zone, request: Request<Incoming>) -> Result<String, Problem> {
    refuse_web_pages(&request)?;
    let (head, body) = request.into_parts();
    let method = &head.method;
    match head.uri.path() {
        "/records" if method == Method::GET => {
            let [name] = parameters(&head.uri, ["name"])?;
            written(&match name {
                Some(name) => zone.list_name(&name)?,
                None => zone.list(),
            })
        }
        "/records" if method == Method::PUT => edit(zone, body, Zone::set_all).await,
        "/records" if method == Method::POST => edit(zone, body, Zone::add_all).await,
        "/records" if method == Method::DELETE => {
            let [name, record_type] = parameters(&head.uri, ["name", "type"])?;
            delete(zone, name, record_type).await
        }
        "/quirks" if method == Method::GET => written(&zone.quirks()),
        "/quirks" if method == Method::PUT => written(&zone.quirk(read::<Quirk>(&collect(body).await?)?)?),
        "/quirks" if method == Method::DELETE => {
            let [name] = parameters(&head.uri, ["name"])?;
            written(&json!({ "cleared": zone.clear_quirks(name.as_deref())? }))
        }
        "/queries" if method == Method::GET => {
            let [name] = parameters(&head.uri, ["name"])?;
            written(&match name {
                Some(name) => zone.queries_for(&name),
                None => zone.queries(),
            })
        }
        "/records" => Err(not_allowed(method, "GET, PUT, POST, DELETE")),
        "/quirks" => Err(not_allowed(method, "GET, PUT, DELETE")),
        "/queries" => Err(not_allowed(method, "GET")),
        path => {
            let detail = format!("there is no {}; there are /records, /quirks and /queries", excerpt(path));
            Err(Problem::new(StatusCode::NOT_FOUND, "No such resource", detail))
        }
    }
}

fn not_allowed(method: &Method, allow: &'static str) -> Problem {
    let detail = format!("{} is not possible here; these are: {allow}", excerpt(method.as_str()));
    Problem { allow: Some(allow), ..Problem::new(StatusCode::METHOD_NOT_ALLOWED, "The method is not possible here", detail) }
}

/// Edits by one record or by a list; answers in the same form with the sets as stored.
async fn edit(zone: &Zone, body: Incoming, edit: fn(&Zone, Vec<Record>) -> Result<Vec<Record>, EditError>) -> Result<String, Problem> {
    let body = collect(body).await?;
    if body.trim_ascii_start().starts_with(b"[") {
        let stored = edit(zone, read(&body)?)?;
        zone.saved().await?;
        return written(&stored);
    }
    let stored = edit(zone, vec![read(&body)?]).map_err(|refused| refused.error)?;
    zone.saved().await?;
    written(&stored.first())
}

async fn delete(zone: &Zone, name: Option<String>, record_type: Option<String>) -> Result<String, Problem> {
    let name = name.ok_or_else(|| Problem::bad_request("say which records: /records?name=shop.brand.test&type=CNAME"))?;
    let record_type = record_type.map(|text| text.parse::<RecordType>()).transpose()?;
    let gone = zone.unset(&name, record_type)?;
    if gone.is_empty() {
        let what = record_type.map_or_else(String::new, |record_type| format!("{record_type} "));
        let detail = format!("{name} has no {what}records, so there is nothing to delete");
        return Err(Problem::new(StatusCode::NOT_FOUND, "No such record", detail));
    }
    zone.saved().await?;
    written(&gone)
}

/// Reads the named parameters of a query string; others are mistakes worth telling.
fn parameters<const N: usize>(uri: &Uri, known: [&str; N]) -> Result<[Option<String>; N], Problem> {
    let mut values = [const { None }; N];
    for (key, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        let Some(at) = known.iter().position(|known| *known == key) else {
            return Err(Problem::bad_request(format!("`{}` is not a parameter here; these are: {}", excerpt(&key), known.join(", "))));
        };
        values[at] = Some(value.into_owned());
    }
    Ok(values)
}

async fn collect(body: Incoming) -> Result<Bytes, Problem> {
    match timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the body has more than {MAX_BODY_BYTES} bytes; send the records in parts");
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large", detail))
        }
        Ok(Err(error)) => Err(Problem::bad_request(format!("the body ended early: {error}"))),
        Err(_elapsed) => {
            let detail = format!("the body did not come within {} s", BODY_TIMEOUT.as_secs());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "The body took too long", detail))
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("the body is not the JSON that belongs here: {error}")))
}

fn written(value: &impl Serialize) -> Result<String, Problem> {
    let failed = |error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The answer cannot be written", error);
    serde_json::to_string(value).map_err(failed)
}

fn refuse_web_pages<B>(request: &Request<B>) -> Result<(), Problem> {
    let forbidden = |detail: &str| Err(Problem::new(StatusCode::FORBIDDEN, "Not for web pages", detail));
    if request.headers().contains_key(ORIGIN) {
        return forbidden("requests from web pages (with an Origin header) are refused");
    }
    let host = header(request, HOST).and_then(|host| host.parse::<Authority>().ok());
    let is_local = host.is_some_and(|host| {
        let host = host.host().trim_matches(['[', ']']);
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    });
    if is_local { Ok(()) } else { forbidden("the Host header must name this machine: a loopback address or localhost") }
}

fn header<B>(request: &Request<B>, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}

/// As much of a stranger's text as a problem repeats.
fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
