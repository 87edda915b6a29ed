//! One HTTPS client for all exchanges with a CA, which keeps what `instant-acme` throws away.
//!
//! Arrives: a request that `instant-acme` has signed. Leaves: the CA's answer, and in [`last_wait`] the wait it named. Goes wrong: an
//! [`ExchangeError`]: nobody answered in time, or a refusal with its status, its `Retry-After` and its problem document or page.
//!
//! Refusals become errors here rather than in `instant-acme`, which knows neither statuses nor waits of what it cannot read as JSON.
//! A `badNonce` passes through, so that `instant-acme` tries again with the nonce that came with it.

use std::cell::Cell;
use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domains::Clock;
use http::header::{DATE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::time::timeout;

use super::problems::{Kind, printable};

/// How we name ourselves, which CAs ask of clients. Source: RFC 8555, section 6.1.
const OWN_USER_AGENT: &str = concat!("nameplate/", env!("CARGO_PKG_VERSION"));
/// The largest answer that is read; a chain of ten certificates has about 20 kB.
const MOST_ANSWER_BYTES: usize = 1024 * 1024;
/// How much of a page that is no problem document is quoted.
const MOST_QUOTED_CHARACTERS: usize = 160;
/// How long an idle connection is kept: long enough for the moves of one order, short so that few requests meet one that the CA closes.
const IDLE: Duration = Duration::from_secs(20);
/// The longest wait that we believe; the longest window of a limit. Source: docs/rate-limits of Let's Encrypt (read 2026-11).
const LONGEST_WAIT: Duration = Duration::from_hours(7 * 24);
/// How often to ask for renewal information when the CA does not say. Source: RFC 9773, section 4.3.3.
const USUAL_RENEWAL_POLL: HeaderValue = HeaderValue::from_static("21600");

tokio::task_local! {
    static LAST_WAIT: Cell<Option<Duration>>;
}

/// Runs one operation so that [`last_wait`] works inside it.
pub(crate) async fn noting_waits<F: Future>(operation: F) -> F::Output {
    LAST_WAIT.scope(Cell::new(None), operation).await
}

/// The wait that the CA named in its latest answer of this operation.
pub(crate) fn last_wait() -> Option<Duration> {
    LAST_WAIT.try_with(Cell::get).ok().flatten()
}

/// Why an exchange brought no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// Nothing came in time.
    #[error("{asked}: no answer within {} ms", .limit.as_millis())]
    Silent { asked: String, limit: Duration },
    /// No connection, or one that broke.
    #[error("{asked}: {reason}")]
    Broken {
        asked: String,
        /// The whole chain of causes.
        reason: String,
    },
    /// An answer that says no.
    #[error(transparent)]
    Refused(Refusal),
}

/// An answer that says no, with what one needs to act on it.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Refusal {
    pub(crate) asked: String,
    pub(crate) status: StatusCode,
    /// The wait that came with it.
    pub(crate) retry_after: Option<Duration>,
    /// The problem document; `None` when the answer is none, so that something before the CA spoke.
    pub(crate) problem: Option<Problem>,
    /// The beginning of an answer that is no problem document.
    pub(crate) excerpt: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.asked, self.status)?;
        if !self.excerpt.is_empty() {
            write!(f, ", {:?}", self.excerpt)?;
        }
        Ok(())
    }
}

/// The client; clones share its connections.
#[derive(Clone)]
pub(crate) struct CaClient {
    http: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    limit: Duration,
    clock: Arc<dyn Clock>,
}

impl CaClient {
    /// Sets up a client that trusts what `tls` trusts and gives each request, connecting included, until `limit`.
    pub(crate) fn new(tls: ClientConfig, limit: Duration, clock: Arc<dyn Clock>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(limit));
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().enable_http2().wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector);
        Self { http, limit, clock }
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, ExchangeError> {
        let method = request.method().clone();
        let asked = format!("{method} {}", request.uri());
        let answered = timeout(self.limit, async {
            let answer = self.http.request(request).await.map_err(|error| chain_of(&error))?;
            let (parts, body) = answer.into_parts();
            match Limited::new(body, MOST_ANSWER_BYTES).collect().await {
                Ok(body) => Ok((parts, body.to_bytes())),
                Err(error) => Err(chain_of(error.as_ref())),
            }
        });
        let (mut parts, body) = match answered.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(reason)) => return Err(ExchangeError::Broken { asked, reason }),
            Err(_) => return Err(ExchangeError::Silent { asked, limit: self.limit }),
        };
        let wait = wait_in(&parts.headers, self.clock.as_ref());
        // Outside an operation nobody asks for it.
        let _ = LAST_WAIT.try_with(|last| last.set(wait));
        tracing::debug!(asked, status = parts.status.as_u16(), wait_seconds = wait.map(|wait| wait.as_secs()), "the CA answered");

        if parts.status.is_success() {
            // Of all GETs, only renewal information is read with its wait, and `instant-acme` refuses it without one.
            if method == Method::GET && wait.is_none() {
                parts.headers.insert(RETRY_AFTER, USUAL_RENEWAL_POLL);
            }
            return Ok(BytesResponse { parts, body: Box::new(body) });
        }
        let problem = serde_json::from_slice::<Problem>(&body).ok().filter(|problem| problem.r#type.is_some());
        let kind = problem.as_ref().and_then(|problem| Kind::parse(problem.r#type.as_deref()?));
        if kind == Some(Kind::BadNonce) && parts.status == StatusCode::BAD_REQUEST {
            return Ok(BytesResponse { parts, body: Box::new(body) });
        }
        let excerpt = if problem.is_some() { String::new() } else { excerpt_of(&body) };
        Err(ExchangeError::Refused(Refusal { asked, status: parts.status, retry_after: wait, problem, excerpt }))
    }
}

impl HttpClient for CaClient {
    fn request(&self, mut request: Request<BodyWrapper<Bytes>>) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(OWN_USER_AGENT));
        let exchange = self.clone().exchange(request);
        Box::pin(async move { exchange.await.map_err(|error| Error::Other(Box::new(error))) })
    }
}

/// The `Retry-After` of an answer: seconds, or a date set against the answer's own `Date` (ours, if it has none), so that a clock that
/// differs from the CA's does no harm. Source: RFC 9110, section 10.2.3.
fn wait_in(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(sensible_wait(Duration::from_secs(seconds)));
    }
    let moment = |date| Timestamp::try_from(httpdate::parse_http_date(date).ok()?).ok();
    let from = text(DATE).and_then(moment).unwrap_or_else(|| clock.now());
    Some(sensible_wait(Duration::try_from(moment(value)?.duration_since(from)).unwrap_or_default()))
}

/// A wait, cut to what any limit of a CA can need.
pub(crate) fn sensible_wait(wait: Duration) -> Duration {
    wait.min(LONGEST_WAIT)
}

fn excerpt_of(body: &[u8]) -> String {
    // Four bytes a character at most, so the rest need not be looked at.
    let head = &body[..body.len().min(4 * MOST_QUOTED_CHARACTERS)];
    printable(String::from_utf8_lossy(head).trim()).chars().take(MOST_QUOTED_CHARACTERS).collect()
}

fn chain_of(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use domains::HandClock;

    fn clock() -> HandClock {
        HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap())
    }

    fn wait(headers: &[(http::HeaderName, &str)]) -> Option<Duration> {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect();
        wait_in(&headers, &clock())
    }

    #[test]
    fn a_wait_is_read_as_seconds_and_as_a_date_in_every_form_http_has() {
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Tue, 24 Nov 2026 10:00:30 GMT", Some(30)),
            ("Tuesday, 24-Nov-26 10:00:30 GMT", Some(30)),
            ("Tue Nov 24 10:00:30 2026", Some(30)),
            ("Tue, 24 Nov 2026 09:00:00 GMT", Some(0)),
            ("99999999999", Some(7 * 86_400)),
            ("Tue, 31 Dec 2199 23:59:59 GMT", Some(7 * 86_400)),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(wait(&[(RETRY_AFTER, value)]), seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn a_date_is_set_against_the_answers_own_date_when_clocks_differ() {
        let headers = [(RETRY_AFTER, "Tue, 24 Nov 2026 12:00:30 GMT"), (DATE, "Tue, 24 Nov 2026 12:00:00 GMT")];
        assert_eq!(wait(&headers), Some(Duration::from_secs(30)));
    }

    #[test]
    fn a_page_is_quoted_in_one_short_line() {
        let page = format!("<html>\n<body>{}</body>", "busy ".repeat(5_000));
        let quoted = excerpt_of(page.as_bytes());
        assert!(quoted.starts_with("<html> <body>busy"), "{quoted}");
        assert_eq!(quoted.chars().count(), MOST_QUOTED_CHARACTERS);
        assert_eq!(excerpt_of(&[0xff, 0xfe, b'x']), "\u{fffd}\u{fffd}x");
    }
}
