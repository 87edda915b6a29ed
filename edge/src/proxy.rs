//! One request: from the client's words to the origin's answer.
//!
//! Arrives: a request on a connection whose SNI is known. Leaves: the origin's answer, streamed. Goes wrong: requests for another name
//! (421), with two readings (400), for a name that went meanwhile (421); an origin that is not there (502), too slow (504) or too busy
//! (503). The edge's own answers are a few words of text with the request's id.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use domains::Hostname;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};
use hyper::{body::Incoming, service::Service, upgrade::OnUpgrade};

use crate::{
    access_log::{self, Record},
    addresses::Guest,
    assertion::{Assertion, Facts},
    authority,
    body::{Answer, Upload, UploadProgress},
    connections::Registration,
    drain::Phase,
    edge::Shared,
    forwarding::{self, Known, REQUEST_ID},
    framing::{self, Heads},
    listener::Held,
    names::Match,
    origin::Lease,
    tenants::Seat,
    tunnel,
    watch::{Activity, RequestGuard},
    websocket::{self, Asked},
};

/// A connection after its handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) sni: Hostname,
    /// What the name was in the index at the handshake.
    pub(crate) found: Match,
    pub(crate) client: IpAddr,
    /// The same, as the origin gets it.
    pub(crate) forwarded_for: HeaderValue,
    pub(crate) is_http2: bool,
    /// The version of TLS spoken: 1.3 or 1.2.
    pub(crate) tls: &'static str,
    pub(crate) assertion: Assertion,
    /// What was seen of request headers; HTTP/1 only.
    pub(crate) heads: Option<Heads>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) registration: Registration,
    pub(crate) guest: Guest,
    pub(crate) seat: Arc<Seat>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) _held: Held,
}

/// Answers a connection's requests.
#[derive(Clone, Debug)]
pub(crate) struct Requests(pub(crate) Arc<Connection>);

impl Service<Request<Incoming>> for Requests {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = Arc::clone(&self.0);
        Box::pin(async move { Ok(connection.answer(request).await) })
    }
}

/// A request the edge answers itself.
#[derive(Clone, Copy, Debug)]
struct Refused {
    status: StatusCode,
    reason: &'static str,
    words: &'static str,
    /// The connection cannot or should not be used again.
    close: bool,
}

/// A tunnel that an answer opens.
struct Tunnel {
    client: OnUpgrade,
    origin: OnUpgrade,
    ends: tunnel::Ends,
    lease: Lease,
    guard: Option<RequestGuard>,
}

impl Tunnel {
    /// Carries it to its end. The connection stays registered, and counted, for as long as it lives.
    async fn carry(self, connection: Arc<Connection>, record: Option<Record>) {
        let Self { client, origin, ends, lease, guard } = self;
        let carried = tunnel::carry(client, origin, ends).await;
        connection.shared.metrics.connection_ended(carried.reason);
        if let Some(mut record) = record {
            record.carried(carried);
        }
        drop((connection, lease, guard));
    }
}

impl Connection {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Answer> {
        let began = Instant::now();
        let guard = self.activity.request();
        let request_id = new_request_id();
        let said = tracing::enabled!(target: "edge::requests", tracing::Level::DEBUG)
            .then(|| format!("{} {}", request.method(), request.uri().path()));
        let logged = self.shared.access_log.as_ref().map(|log| access_log::Request::of(&request, log));
        let mut reason = None;
        let (mut answer, tunnel) = match self.forward(request, guard, &request_id).await {
            Ok(forwarded) => forwarded,
            Err((refused, guard)) => {
                self.shared.metrics.request_refused(refused.reason);
                reason = Some(refused.reason);
                (self.own_answer(refused, guard, &request_id), None)
            }
        };
        if !self.is_http2 && self.shared.leaving.phase() != Phase::Serving && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        self.shared.metrics.answered(answer.status());
        self.shared.metrics.first_byte.observe(began.elapsed());
        self.shared.metrics.tenants.answered(&self.seat, answer.status());
        tracing::debug!(
            target: "edge::requests",
            hostname = %self.sni, tenant = %self.found.tenant, request_id = request_id.to_str().unwrap_or_default(),
            request = said, outcome = answer.status().as_u16(), "request answered"
        );
        let status = answer.status().as_u16();
        let record = logged.map(|request| {
            let connection = Arc::clone(&self);
            Record { connection, request, request_id, began, status, reason, bytes: 0, bytes_received: None }
        });
        match (tunnel, record) {
            (Some(tunnel), record) => {
                self.shared.leaving.tasks.spawn(tunnel.carry(Arc::clone(&self), record));
                answer
            }
            (None, Some(record)) => answer.map(|body| Answer::Recorded(Box::new((body, record)))),
            (None, None) => answer,
        }
    }

    async fn forward(
        self: &Arc<Self>,
        mut request: Request<Incoming>,
        guard: RequestGuard,
        request_id: &HeaderValue,
    ) -> Result<(Response<Answer>, Option<Tunnel>), (Refused, RequestGuard)> {
        let now = match self.check(&request) {
            Ok(now) => now,
            Err(refused) => return Err((refused, guard)),
        };
        let upgrade = websocket::asked_for(&request);
        let client_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let progress = UploadProgress::new();
        let request = match self.to_origin(request, request_id, upgrade.as_ref(), &progress) {
            Ok(request) => request,
            Err(refused) => return Err((refused, guard)),
        };
        let sent = match self.shared.origins.find(now.origin.as_ref()) {
            Ok(origin) => origin.send(request, &progress).await,
            Err(error) => Err(error),
        };
        let (mut answer, lease) = match sent {
            Ok(sent) => sent,
            Err(error) => {
                tracing::warn!(
                    hostname = %self.sni, request_id = request_id.to_str().unwrap_or_default(),
                    code = error.reason(), error = telemetry::error_chain(&error), "no answer from the origin"
                );
                // What is left of an upload that went wrong is not waited for.
                let (status, close) = (error.status(), error.status().is_client_error());
                let refused = Refused { status, reason: error.reason(), words: words_of(status), close };
                return Err((refused, guard));
            }
        };
        if let Err(words) = websocket::agrees(upgrade.as_ref(), &answer) {
            return Err((Refused { status: StatusCode::BAD_GATEWAY, reason: "origin_failed", words, close: false }, guard));
        }
        if let (StatusCode::SWITCHING_PROTOCOLS, Some(client), Some(asked)) = (answer.status(), client_upgrade, upgrade) {
            if let Some(heads) = &self.heads {
                heads.switch_protocols();
            }
            let origin = hyper::upgrade::on(&mut answer);
            let ends = tunnel::Ends {
                finish: self.registration.finish.clone(),
                leave: self.shared.leaving.end.clone(),
                idle: self.shared.limits.tunnel_idle,
                write_stall: self.shared.limits.write_stall,
            };
            // Over HTTP/2 the connection serves on beside its tunnel, and is not idle while that lives.
            let (of_answer, of_tunnel) = if self.is_http2 { (None, Some(guard)) } else { (Some(guard), None) };
            let tunnel = Tunnel { client, origin, ends, lease, guard: of_tunnel };
            return Ok((websocket::switched(&asked, answer, of_answer), Some(tunnel)));
        }
        let (mut parts, body) = answer.into_parts();
        forwarding::to_client(&mut parts.headers);
        parts.version = Version::default();
        parts.extensions.clear();
        Ok((Response::from_parts(parts, Answer::origin(body, self.shared.limits.origin_silence, lease, guard)), None))
    }

    /// Answers with the operator's page where there is one, and a few words otherwise.
    fn own_answer(&self, refused: Refused, guard: RequestGuard, request_id: &HeaderValue) -> Response<Answer> {
        let id = request_id.to_str().unwrap_or_default();
        let page = self.shared.pages.of(refused.status, id);
        let (kind, text) = match page {
            Some(page) => ("text/html; charset=utf-8", page),
            None => ("text/plain; charset=utf-8", format!("{}\n{}\nrequest {id}\n", refused.status, refused.words)),
        };
        let mut answer = Response::new(Answer::own(text, Some(guard)));
        *answer.status_mut() = refused.status;
        let headers: &mut HeaderMap = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(REQUEST_ID, request_id.clone());
        if matches!(refused.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if refused.close && !self.is_http2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    /// Refuses what must not reach the origin, and says what the name is now.
    fn check(&self, request: &Request<Incoming>) -> Result<Match, Refused> {
        let unclear = |reason| {
            let words = "The request can be read in more than one way.";
            Refused { status: StatusCode::BAD_REQUEST, reason, words, close: true }
        };
        self.heads.as_ref().map_or(Ok(()), Heads::next).and_then(|()| framing::check(request)).map_err(unclear)?;
        self.shared.addresses.request(&self.guest).map_err(|too_much| {
            let words = "Too many requests come from your address. Please wait a moment.";
            Refused { status: StatusCode::TOO_MANY_REQUESTS, reason: too_much.reason(), words, close: true }
        })?;
        if hyper::body::Body::size_hint(request.body()).lower() > self.shared.limits.max_body_bytes {
            let words = "The upload is larger than this site takes.";
            return Err(Refused { status: StatusCode::PAYLOAD_TOO_LARGE, reason: "upload_too_large", words, close: true });
        }
        let tunnels = *request.method() == Method::CONNECT && websocket::over_http2(request).is_none();
        if tunnels || *request.method() == Method::TRACE {
            let words = "This method is not served here.";
            return Err(Refused { status: StatusCode::METHOD_NOT_ALLOWED, reason: "method", words, close: true });
        }
        let authority = authority::of_request(request.version(), request.uri(), request.headers());
        authority.and_then(|authority| authority::check(authority, &self.sni)).map_err(|refusal| {
            let words = match refusal {
                authority::Refusal::Misdirected => "This connection was opened for another name.",
                _ => "The request must name its host exactly once.",
            };
            Refused { status: refusal.status(), reason: refusal.reason(), words, close: true }
        })?;
        // Whose the name is, is asked for every request: it may have changed since the handshake.
        match self.shared.names.find(&self.sni) {
            Some(now) if now.hostname == self.found.hostname && now.tenant == self.found.tenant => Ok(now),
            _ => {
                let words = "This name is not served on this connection any more.";
                Err(Refused { status: StatusCode::MISDIRECTED_REQUEST, reason: "moved", words, close: true })
            }
        }
    }

    fn to_origin(
        &self,
        request: Request<Incoming>,
        request_id: &HeaderValue,
        upgrade: Option<&Asked>,
        progress: &Arc<UploadProgress>,
    ) -> Result<Request<Upload>, Refused> {
        let (mut parts, body) = request.into_parts();
        let unreadable =
            Refused { status: StatusCode::BAD_REQUEST, reason: "target", words: "The request's target cannot be read.", close: true };
        let authority = authority::of_request(parts.version, &parts.uri, &parts.headers).map_err(|_| unreadable)?;
        let authority = match parts.headers.get(http::header::HOST) {
            Some(host) if host == authority => host.clone(),
            _ => HeaderValue::from_str(authority).map_err(|_| unreadable)?,
        };
        let facts = Facts {
            tenant: &self.found.tenant,
            host: &self.sni,
            client: self.client.to_canonical(),
            tls: self.tls,
            alpn: if self.is_http2 { "h2" } else { "http/1.1" },
        };
        let assertion = self.assertion.current(&self.shared.signer, facts);
        let known = Known {
            client: &self.forwarded_for,
            authority: &authority,
            public_port: &self.shared.forwarded_port,
            tenant: &self.found.tenant,
            request_id,
            assertion: assertion.as_ref(),
        };
        forwarding::to_origin(&mut parts.headers, known);
        if let Some(asked) = upgrade {
            asked.ask(&mut parts);
        }
        let target = parts.uri.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        parts.uri = Uri::builder().path_and_query(target).build().map_err(|_| unreadable)?;
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let body = Upload::new(body, self.shared.limits.upload_stall, self.shared.limits.max_body_bytes, Arc::clone(progress));
        Ok(Request::from_parts(parts, body))
    }
}

fn words_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::GATEWAY_TIMEOUT => "The site took too long to answer.",
        StatusCode::SERVICE_UNAVAILABLE => "The site is too busy. Please try again.",
        StatusCode::REQUEST_TIMEOUT => "The upload made no progress.",
        StatusCode::BAD_REQUEST => "The upload broke off.",
        StatusCode::PAYLOAD_TOO_LARGE => "The upload is larger than this site takes.",
        _ => "The site cannot be reached at the moment.",
    }
}

/// An id that no other request of any edge has: random for the process, counted within it.
fn new_request_id() -> HeaderValue {
    static PROCESS: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static OF_PROCESS: std::sync::LazyLock<[u8; 16]> = std::sync::LazyLock::new(|| hexadecimal(PROCESS.hash_one("edge")));
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut id = [0; 32];
    id[..16].copy_from_slice(&*OF_PROCESS);
    id[16..].copy_from_slice(&hexadecimal(PROCESS.hash_one(count)));
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

fn hexadecimal(number: u64) -> [u8; 16] {
    let digit = |index: usize| b"0123456789abcdef"[(number >> (60 - 4 * index)) as usize & 15];
    std::array::from_fn(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_thirty_two_digits_that_no_other_has() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| new_request_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.len() == 32 && id.as_bytes().iter().all(u8::is_ascii_hexdigit)), "{ids:?}");
        assert_eq!(&hexadecimal(0x0123_4567_89ab_cdef), b"0123456789abcdef");
    }
}
