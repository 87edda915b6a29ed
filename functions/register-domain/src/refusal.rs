//! Errors as callers see them: problem documents with our stable codes.
//!
//! Source: RFC 9457 (read 2026-11).

use std::time::Duration;

use bytes::Bytes;
use domains::{CommitError, HostnameError, StoreError};
use http::{Response, StatusCode, header};

/// Why a request was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// Our stable code.
    pub code: &'static str,
    /// What happened and what to do.
    pub detail: String,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// The methods allowed, for 405.
    pub allow: Option<&'static str>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), retry_after: None, allow: None }
    }

    pub(crate) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(crate) fn no_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "auth.missing", "send one header `Authorization: Bearer <API key>`")
    }

    pub(crate) fn unknown_key() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "auth.unknown_key", "this API key is not known here; check that it is for this installation")
    }

    pub(crate) fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "auth.forbidden", detail)
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        let shown: String = path.chars().filter(|c| !c.is_control()).take(100).collect();
        Self::new(StatusCode::NOT_FOUND, "request.no_such_path", format!("there is nothing at {shown}; the API starts at /v1/domains"))
    }

    pub(crate) fn no_such_domain(hostname: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "domain.not_found", format!("no domain {hostname} is registered; POST /v1/domains registers it"))
    }

    pub(crate) fn method(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, "request.method_not_allowed", format!("allowed here: {allow}"))
        }
    }

    pub(crate) fn slow_down(code: &'static str, detail: impl Into<String>, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, detail) }
    }

    pub(crate) fn unavailable(detail: &str) -> Self {
        tracing::error!(detail, "a request could not be answered");
        let text = "the service cannot answer just now; try again";
        Self { retry_after: Some(Duration::from_secs(1)), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "store.unavailable", text) }
    }
}

impl From<HostnameError> for Refusal {
    fn from(error: HostnameError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, error.code(), error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::unavailable(&error.to_string())
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        Self::unavailable(&error.to_string())
    }
}

/// The refusal as a problem document.
pub fn refuse(refusal: &Refusal) -> Response<Bytes> {
    let document = serde_json::json!({
        "type": format!("urn:nameplate:problem:{}", refusal.code),
        "title": refusal.status.canonical_reason().unwrap_or("refused"),
        "status": refusal.status.as_u16(),
        "code": refusal.code,
        "detail": refusal.detail,
    });
    let mut response = Response::new(Bytes::from(document.to_string()));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    if let Some(wait) = refusal.retry_after {
        // Rounded up, so that who waits as told is not refused again.
        headers.insert(header::RETRY_AFTER, http::HeaderValue::from(wait.as_millis().div_ceil(1000).max(1) as u64));
    }
    if let Some(allow) = refusal.allow {
        headers.insert(header::ALLOW, http::HeaderValue::from_static(allow));
    }
    if refusal.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
    }
    response
}
