//! Errors as callers see them: problem documents with our stable codes.
//!
//! Arrives: what went wrong. Leaves: a problem document whose status follows from its code, so that the API's document can say which codes
//! a status brings. Goes wrong: nothing.
//!
//! Source: RFC 9457 (read 2026-11).

use std::time::Duration;

use bytes::Bytes;
use domains::{CommitError, HostnameError, StoreError};
use http::{Response, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $status:literal $code:literal),+ $(,)?) => {
        /// Why a request was refused: a stable code; clients may branch on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code as clients see it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// The status it comes with.
            pub fn status(self) -> StatusCode {
                let status = match self { $(Self::$variant => $status),+ };
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// What it means.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_start()),+ }
            }
        }
    };
}

codes! {
    /// The request has no API key, or more than one.
    AuthMissing = 401 "auth.missing",
    /// The API key is not known here.
    AuthUnknownKey = 401 "auth.unknown_key",
    /// The API key may not do this.
    AuthForbidden = 403 "auth.forbidden",
    /// The body is not the JSON expected here.
    InvalidBody = 400 "request.invalid_body",
    /// The reason is empty or longer than it may be.
    InvalidReason = 400 "request.invalid_reason",
    /// There is no such origin.
    UnknownOrigin = 422 "request.unknown_origin",
    /// The list or the key of an import is empty or longer than it may be.
    InvalidImport = 400 "request.invalid_import",
    /// The URL of a webhook or its list of events is not what it must be.
    InvalidWebhook = 422 "request.invalid_webhook",
    /// The tenant is not a tenant's name.
    InvalidTenant = 400 "request.invalid_tenant",
    /// The state is none that a domain can have.
    InvalidState = 400 "request.invalid_state",
    /// A number is not a whole number within its bounds.
    InvalidNumber = 400 "request.invalid_number",
    /// A parameter stands there more than once.
    DuplicateParameter = 400 "request.duplicate_parameter",
    /// Only a tenant tells which domain or list is meant.
    TenantNeeded = 422 "request.tenant_needed",
    /// Several tenants claim the hostname; the request must say which is meant.
    TenantMissing = 409 "request.tenant_missing",
    /// The cursor was not made for this list.
    InvalidCursor = 422 "request.invalid_cursor",
    /// The body is larger than any such request needs to be.
    TooLarge = 413 "request.too_large",
    /// The body did not arrive whole in time.
    Incomplete = 408 "request.incomplete",
    /// Nothing is at this path.
    NoSuchPath = 404 "request.no_such_path",
    /// The path knows other methods only.
    MethodNotAllowed = 405 "request.method_not_allowed",
    /// The hostname is empty.
    HostnameEmpty = 422 "hostname.empty",
    /// More than a hostname was sent: a scheme, a port, a path.
    HostnameNotBare = 422 "hostname.not_bare",
    /// The hostname does not fit into DNS together with `_acme-challenge.`.
    HostnameTooLong = 422 "hostname.too_long",
    /// The hostname is no valid domain name.
    HostnameInvalid = 422 "hostname.invalid",
    /// A label has an underscore, which no certificate may carry.
    HostnameUnderscore = 422 "hostname.underscore",
    /// An IP address is no hostname.
    HostnameIpAddress = 422 "hostname.ip_address",
    /// One label alone is no public name.
    HostnameSingleLabel = 422 "hostname.single_label",
    /// No public CA signs a name under a special-use name.
    HostnameSpecialUse = 422 "hostname.special_use",
    /// Strangers register names under the hostname.
    HostnamePublicSuffix = 422 "hostname.public_suffix",
    /// The hostname belongs to the operator's own zone.
    HostnameOperatorZone = 422 "hostname.operator_zone",
    /// Wildcards are not open to tenants here.
    HostnameWildcardNotAllowed = 422 "hostname.wildcard_not_allowed",
    /// A wildcard is one `*` as the whole first label.
    HostnameWildcardPosition = 422 "hostname.wildcard_position",
    /// The tenant has no such domain.
    DomainNotFound = 404 "domain.not_found",
    /// The domain is being removed; it can be registered again in a few seconds.
    DomainBeingRemoved = 409 "domain.being_removed",
    /// The domain is removed, or is being removed.
    DomainRemoved = 409 "domain.removed",
    /// There is no such import.
    ImportNotFound = 404 "import.not_found",
    /// The key of the import belongs to another list.
    ImportKeyUsed = 409 "import.key_used",
    /// The tenant has as many imports open as it may.
    TooManyImports = 429 "limits.too_many_imports",
    /// There is no such webhook.
    WebhookNotFound = 404 "webhook.not_found",
    /// There are as many webhooks as are served.
    TooManyWebhooks = 409 "webhook.too_many",
    /// The name is not owned here, or the path is not the secret one.
    AskNo = 404 "ask.no",
    /// The tenant registers domains faster than it may.
    TooManyClaims = 429 "limits.too_many_claims",
    /// The domain was checked very often just now.
    TooManyChecks = 429 "limits.too_many_checks",
    /// The service cannot answer just now; try again.
    Unavailable = 503 "store.unavailable",
}

impl Code {
    /// Every code that a hostname can be refused with.
    pub(crate) const HOSTNAMES: &[Self] = &[
        Self::HostnameEmpty,
        Self::HostnameNotBare,
        Self::HostnameTooLong,
        Self::HostnameInvalid,
        Self::HostnameUnderscore,
        Self::HostnameIpAddress,
        Self::HostnameSingleLabel,
        Self::HostnameSpecialUse,
        Self::HostnamePublicSuffix,
        Self::HostnameOperatorZone,
        Self::HostnameWildcardNotAllowed,
        Self::HostnameWildcardPosition,
    ];
}

/// Why a request was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Our stable code; the status follows from it.
    pub code: Code,
    /// What happened and what to do.
    pub detail: String,
    /// When to come back.
    pub retry_after: Option<Duration>,
    /// The methods allowed, for 405.
    pub allow: Option<String>,
}

impl Refusal {
    /// A refusal with these words.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None, allow: None }
    }

    pub(crate) fn no_key() -> Self {
        Self::new(Code::AuthMissing, "send one header `Authorization: Bearer <API key>`")
    }

    pub(crate) fn unknown_key() -> Self {
        Self::new(Code::AuthUnknownKey, "this API key is not known here; check that it is for this installation")
    }

    pub(crate) fn forbidden(detail: &str) -> Self {
        Self::new(Code::AuthForbidden, detail)
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        let shown: String = path.chars().filter(|c| !c.is_control()).take(100).collect();
        Self::new(Code::NoSuchPath, format!("there is nothing at {shown}; GET /v1/openapi.json describes what there is"))
    }

    pub(crate) fn no_such_domain(hostname: &str) -> Self {
        Self::new(Code::DomainNotFound, format!("no domain {hostname} is registered; POST /v1/domains registers it"))
    }

    pub(crate) fn method(allow: String) -> Self {
        let detail = format!("allowed here: {allow}");
        Self { allow: Some(allow), ..Self::new(Code::MethodNotAllowed, detail) }
    }

    pub(crate) fn slow_down(code: Code, detail: impl Into<String>, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(code, detail) }
    }

    pub(crate) fn unavailable(detail: &str) -> Self {
        tracing::error!(detail, "a request could not be answered");
        Self::slow_down(Code::Unavailable, "the service cannot answer just now; try again", Duration::from_secs(1))
    }
}

impl From<HostnameError> for Refusal {
    fn from(error: HostnameError) -> Self {
        let code = Code::HOSTNAMES.iter().copied().find(|code| code.as_str() == error.code());
        Self::new(code.unwrap_or(Code::HostnameInvalid), error.to_string())
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

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemDocument {
    /// Names the kind of problem; the same for every problem of one code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// Our stable code.
    pub code: String,
    /// What happened and what to do.
    pub detail: String,
}

/// The refusal as a problem document.
pub fn refuse(refusal: &Refusal) -> Response<Bytes> {
    let (code, status) = (refusal.code.as_str(), refusal.code.status());
    let document = ProblemDocument {
        kind: format!("urn:nameplate:problem:{code}"),
        title: status.canonical_reason().unwrap_or("refused").to_owned(),
        status: status.as_u16(),
        code: code.to_owned(),
        detail: refusal.detail.clone(),
    };
    // A document of five texts always serializes.
    let mut response = Response::new(Bytes::from(serde_json::to_vec(&document).unwrap_or_default()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    if let Some(wait) = refusal.retry_after {
        // Rounded up, so that who waits as told is not refused again.
        headers.insert(header::RETRY_AFTER, http::HeaderValue::from(wait.as_millis().div_ceil(1000).max(1) as u64));
    }
    if let Some(allow) = refusal.allow.as_deref().and_then(|allow| http::HeaderValue::from_str(allow).ok()) {
        headers.insert(header::ALLOW, allow);
    }
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, http::HeaderValue::from_static("Bearer"));
    }
    response
}

#[cfg(test)]
mod tests {
    use domains::{Hostname, HostnamePolicy};

    use super::*;

    #[test]
    fn a_hostname_is_refused_with_the_code_of_its_rule() {
        let zone = Hostname::parse_name("edge.saas.net").unwrap();
        let policy = HostnamePolicy { operator_zones: vec![zone], ..HostnamePolicy::default() };
        let long = "a.".repeat(130) + "com";
        let names = [
            "",
            "https://a.com/",
            &long,
            "a..b",
            "a_b.com",
            "192.0.2.1",
            "shop",
            "shop.example",
            "co.uk",
            "a.edge.saas.net",
            "*.brand.com",
            "a.*.brand.com",
        ];
        let codes: Vec<_> = names.iter().map(|name| Refusal::from(Hostname::parse(name, &policy).unwrap_err()).code).collect();
        assert_eq!(codes, Code::HOSTNAMES);
    }

    #[test]
    fn codes_are_told_apart() {
        let mut codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| code.status().as_u16() >= 400 && !code.meaning().is_empty()));
    }
}
