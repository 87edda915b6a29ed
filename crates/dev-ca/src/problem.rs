//! Problem documents: how this CA says no.
//!
//! Arrives: whatever a handler found wrong. Leaves: an RFC 7807 document with a type of RFC 8555, section 6.7, and the status that goes with
//! it. Goes wrong: nothing; a problem is a value.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use crate::limits::Refused;

/// What every ACME error type starts with. Source: RFC 8555, section 6.7 (read 2026-11).
pub(crate) const NAMESPACE: &str = "urn:ietf:params:acme:error:";

/// One problem document, ready to be sent or kept beside a challenge.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithms: Option<&'static [&'static str]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subproblems: Vec<Subproblem>,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

/// What is wrong with one identifier of several.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Subproblem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
    identifier: DnsIdentifier,
}

#[derive(Debug, Clone, Serialize)]
struct DnsIdentifier {
    #[serde(rename = "type")]
    kind: &'static str,
    value: String,
}

/// The error types this CA speaks, each with the status it is sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    AccountDoesNotExist,
    AlreadyReplaced,
    AlreadyRevoked,
    BadCsr,
    BadNonce,
    BadPublicKey,
    BadRevocationReason,
    BadSignatureAlgorithm,
    Connection,
    Dns,
    InvalidContact,
    InvalidProfile,
    Malformed,
    MethodNotAllowed,
    NotFound,
    OrderNotReady,
    RateLimited,
    RejectedIdentifier,
    ServerInternal,
    TooLarge,
    Unauthorized,
    UnsupportedContact,
    UnsupportedIdentifier,
    UnsupportedMediaType,
}

impl Kind {
    /// The last part of the type's URN; conditions that RFC 8555 has no type for are `malformed`, told apart by their status.
    fn name(self) -> &'static str {
        match self {
            Self::AccountDoesNotExist => "accountDoesNotExist",
            Self::AlreadyReplaced => "alreadyReplaced",
            Self::AlreadyRevoked => "alreadyRevoked",
            Self::BadCsr => "badCSR",
            Self::BadNonce => "badNonce",
            Self::BadPublicKey => "badPublicKey",
            Self::BadRevocationReason => "badRevocationReason",
            Self::BadSignatureAlgorithm => "badSignatureAlgorithm",
            Self::Connection => "connection",
            Self::Dns => "dns",
            Self::InvalidContact => "invalidContact",
            Self::InvalidProfile => "invalidProfile",
            Self::Malformed | Self::MethodNotAllowed | Self::NotFound | Self::TooLarge | Self::UnsupportedMediaType => "malformed",
            Self::OrderNotReady => "orderNotReady",
            Self::RateLimited => "rateLimited",
            Self::RejectedIdentifier => "rejectedIdentifier",
            Self::ServerInternal => "serverInternal",
            Self::Unauthorized => "unauthorized",
            Self::UnsupportedContact => "unsupportedContact",
            Self::UnsupportedIdentifier => "unsupportedIdentifier",
        }
    }

    fn status(self) -> u16 {
        match self {
            Self::OrderNotReady | Self::Unauthorized => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::AlreadyReplaced => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMediaType => 415,
            Self::RateLimited => 429,
            Self::ServerInternal => 500,
            _ => 400,
        }
    }
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{NAMESPACE}{}", kind.name()),
            detail: detail.into(),
            status: kind.status(),
            algorithms: None,
            subproblems: Vec::new(),
            retry_after: None,
        }
    }

    /// Builds a problem that a test scripted, whose type may be any word.
    pub(crate) fn scripted(kind: &str, detail: String, status: u16) -> Self {
        let kind = if kind.starts_with("urn:") { kind.to_owned() } else { format!("{NAMESPACE}{kind}") };
        Self { kind, detail, status, algorithms: None, subproblems: Vec::new(), retry_after: None }
    }

    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::Malformed, detail)
    }

    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unauthorized, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// Adds the list that `badSignatureAlgorithm` must carry. Source: RFC 8555, section 6.2.
    pub(crate) fn supporting(mut self, algorithms: &'static [&'static str]) -> Self {
        self.algorithms = Some(algorithms);
        self
    }

    /// Says which of an order's names were refused and why. Source: RFC 8555, section 6.7.1.
    pub(crate) fn about_names(mut self, kind: Kind, refused: impl IntoIterator<Item = (String, String)>) -> Self {
        self.subproblems = refused
            .into_iter()
            .map(|(value, detail)| Subproblem {
                kind: format!("{NAMESPACE}{}", kind.name()),
                detail,
                identifier: DnsIdentifier { kind: "dns", value },
            })
            .collect();
        self
    }

    /// The problem as an HTTP answer.
    pub(crate) fn response(&self) -> Response<Full<Bytes>> {
        let body = serde_json::to_vec(self).expect("a problem is made of strings and numbers");
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            // Whole seconds, rounded up: who waits as told is served.
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        response
    }

    /// The sentence for people.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The type's last word, for logs.
    pub(crate) fn short_type(&self) -> &str {
        self.kind.strip_prefix(NAMESPACE).unwrap_or(&self.kind)
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        Self { retry_after: refused.retry_after, ..Self::new(Kind::RateLimited, refused.detail) }
    }
}
