//! What a CA's refusal means to us: the one place where ACME's problem types become [`IssueError`]s.
//!
//! Arrives: a [`Failure`], that is an error of the ACME client and [what it was said about](Said). Leaves: the [`IssueError`] that names
//! whose move it is. Goes wrong: nothing; a type that no standard knows is judged by its HTTP status.
//!
//! An error that keeps the order never comes from an order that has ended: the same end would be read again for ever.

use std::time::Duration;

use domains::IssueError;
use instant_acme::{Error, Problem};
use jiff::Timestamp;

use super::client::ExchangeError;

/// What every ACME error type starts with. Source: RFC 8555, section 6.7 (read 2026-11).
const NAMESPACE: &str = "urn:ietf:params:acme:error:";
/// How much of a CA's words we keep; they may quote a page that a stranger's server sent.
const MOST_DETAIL_CHARACTERS: usize = 600;
/// How deep `compound` may nest; RFC 8555, section 6.7.1 knows one level.
const MOST_SUBPROBLEMS: usize = 16;

/// What the CA's words are about, which decides what a type means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// Refusing a request that belongs to no order yet: directory, account, newOrder, renewal information.
    ToRequest,
    /// Refusing a request about an order that exists: its state, its authorizations, challenges, finalize.
    ToOrderRequest,
    /// The end of an order: it was finalized, and no certificate came.
    OfOrder,
    /// The end of a validation.
    OfChallenge,
}

/// An error of the ACME client with what it was said about.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) said: Said,
    pub(crate) error: Error,
}

impl Said {
    /// Wraps an error, for `map_err`.
    pub(crate) fn failure(self) -> impl FnOnce(Error) -> Failure {
        move |error| Failure { said: self, error }
    }
}

macro_rules! kinds {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// The error types of RFC 8555 (6.7), RFC 9773 (7.4) and the profiles draft (6).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($variant),+ }

        impl Kind {
            /// Every type with its name.
            const ALL: &[(Self, &str)] = &[$((Self::$variant, $name)),+];
        }
    };
}

kinds! {
    AccountDoesNotExist = "accountDoesNotExist",
    AlreadyReplaced = "alreadyReplaced",
    AlreadyRevoked = "alreadyRevoked",
    BadCsr = "badCSR",
    BadNonce = "badNonce",
    BadPublicKey = "badPublicKey",
    BadRevocationReason = "badRevocationReason",
    BadSignatureAlgorithm = "badSignatureAlgorithm",
    Caa = "caa",
    Compound = "compound",
    Connection = "connection",
    Dns = "dns",
    ExternalAccountRequired = "externalAccountRequired",
    IncorrectResponse = "incorrectResponse",
    InvalidContact = "invalidContact",
    InvalidProfile = "invalidProfile",
    Malformed = "malformed",
    OrderNotReady = "orderNotReady",
    RateLimited = "rateLimited",
    RejectedIdentifier = "rejectedIdentifier",
    ServerInternal = "serverInternal",
    Tls = "tls",
    Unauthorized = "unauthorized",
    UnsupportedContact = "unsupportedContact",
    UnsupportedIdentifier = "unsupportedIdentifier",
    UserActionRequired = "userActionRequired",
}

impl Kind {
    /// Reads a problem's type; `None` for one that no standard knows.
    pub(crate) fn parse(uri: &str) -> Option<Self> {
        let name = uri.strip_prefix(NAMESPACE)?;
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }

    fn of(problem: &Problem) -> Option<Self> {
        Self::parse(problem.r#type.as_deref()?)
    }
}

/// An [`IssueError`] before its words and waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    NotYet,
    OrderDead,
    RateLimited,
    Paused,
    Unavailable,
    ChallengeFailed,
    DnsFailed,
    CaaForbids,
    RejectedIdentifier,
    AccountRefused,
    Refused,
}

/// Judges one problem type. `compound` and a paused name are settled before.
fn verdict(kind: Kind, said: Said, status: Option<u16>) -> Verdict {
    let ended = matches!(said, Said::OfOrder | Said::OfChallenge);
    match kind {
        Kind::Connection | Kind::IncorrectResponse | Kind::Tls => Verdict::ChallengeFailed,
        Kind::Dns => Verdict::DnsFailed,
        Kind::Caa => Verdict::CaaForbids,
        Kind::RejectedIdentifier | Kind::UnsupportedIdentifier => Verdict::RejectedIdentifier,

        Kind::Unauthorized => match said {
            Said::OfChallenge => Verdict::ChallengeFailed,
            Said::ToRequest => Verdict::AccountRefused,
            // The order is another account's, or its proof has lapsed. If it is the account that is refused, the next newOrder says so.
            Said::ToOrderRequest | Said::OfOrder => Verdict::OrderDead,
        },
        Kind::AccountDoesNotExist => match said {
            Said::ToRequest => Verdict::AccountRefused,
            Said::ToOrderRequest | Said::OfOrder | Said::OfChallenge => Verdict::OrderDead,
        },
        Kind::ExternalAccountRequired | Kind::InvalidContact | Kind::UnsupportedContact | Kind::UserActionRequired => {
            if ended {
                Verdict::OrderDead
            } else {
                Verdict::AccountRefused
            }
        }
        // To a request without an order it is the account's key; to finalize it is the certificate's.
        Kind::BadPublicKey => match said {
            Said::ToRequest => Verdict::AccountRefused,
            Said::ToOrderRequest | Said::OfOrder | Said::OfChallenge => Verdict::Refused,
        },

        Kind::RateLimited => {
            if ended {
                Verdict::OrderDead
            } else {
                Verdict::RateLimited
            }
        }
        Kind::BadNonce | Kind::ServerInternal => {
            if ended {
                Verdict::OrderDead
            } else {
                Verdict::Unavailable
            }
        }
        Kind::OrderNotReady => match said {
            Said::ToOrderRequest => Verdict::NotYet,
            Said::OfOrder | Said::OfChallenge => Verdict::OrderDead,
            Said::ToRequest => Verdict::Refused,
        },

        Kind::Malformed => match (said, status) {
            // Boulder and Pebble: an order that is no more, or another account's.
            (Said::ToOrderRequest, Some(404)) => Verdict::OrderDead,
            (Said::OfChallenge, _) => Verdict::ChallengeFailed,
            _ => Verdict::Refused,
        },
        Kind::AlreadyReplaced
        | Kind::AlreadyRevoked
        | Kind::BadCsr
        | Kind::BadRevocationReason
        | Kind::BadSignatureAlgorithm
        | Kind::Compound
        | Kind::InvalidProfile => Verdict::Refused,
    }
}

/// Judges a type that no standard knows, by status; what ended an order or a validation ended it, whatever the reason is called.
fn verdict_by_status(said: Said, status: Option<u16>) -> Verdict {
    match (said, status) {
        (Said::OfOrder, _) => Verdict::OrderDead,
        (Said::OfChallenge, _) => Verdict::ChallengeFailed,
        (_, Some(429)) => Verdict::RateLimited,
        (_, Some(408 | 500..)) => Verdict::Unavailable,
        (Said::ToOrderRequest, Some(404 | 410)) => Verdict::OrderDead,
        (Said::ToRequest, Some(401 | 403)) => Verdict::AccountRefused,
        (Said::ToRequest | Said::ToOrderRequest, _) => Verdict::Refused,
    }
}

impl Verdict {
    fn with(self, detail: String, retry_after: Option<Duration>) -> IssueError {
        match self {
            Self::NotYet => IssueError::NotYet { retry_after },
            Self::OrderDead => IssueError::OrderDead { detail },
            Self::RateLimited => IssueError::RateLimited { retry_after, detail },
            Self::Paused => IssueError::Paused { detail },
            Self::Unavailable => IssueError::Unavailable { retry_after, detail },
            Self::ChallengeFailed => IssueError::ChallengeFailed { detail },
            Self::DnsFailed => IssueError::DnsFailed { detail },
            Self::CaaForbids => IssueError::CaaForbids { detail },
            Self::RejectedIdentifier => IssueError::RejectedIdentifier { detail },
            Self::AccountRefused => IssueError::AccountRefused { detail },
            Self::Refused => IssueError::Refused { detail },
        }
    }
}

impl Failure {
    /// Says what this failure means; `now` is for waits that the CA names as a date in its words.
    pub(crate) fn judge(self, now: Timestamp) -> IssueError {
        let Self { said, error } = self;
        let unclear = |error: Error| IssueError::Unavailable {
            retry_after: None,
            detail: printable(&format!("the CA's answer is not understood: {error}")),
        };
        match error {
            Error::Api(problem) => judge_problem(&problem, said, problem.status, None, now),
            Error::Other(error) => match error.downcast::<ExchangeError>() {
                Ok(error) => judge_exchange(*error, said, now),
                Err(error) => unclear(Error::Other(error)),
            },
            Error::Timeout(_) => IssueError::NotYet { retry_after: None },
            Error::Crypto | Error::KeyRejected => IssueError::AccountRefused { detail: "the account's key does not sign".into() },
            Error::Unsupported(what) => IssueError::Refused { detail: format!("the CA does not offer {what}") },
            Error::Http(_) | Error::InvalidUri(_) => match said {
                Said::ToRequest => IssueError::Refused { detail: printable(&format!("the CA's URL is none: {error}")) },
                _ => IssueError::OrderDead { detail: printable(&format!("its URL is none: {error}")) },
            },
            error => unclear(error),
        }
    }

    /// The problem type, when the CA named one that we know.
    pub(crate) fn kind(&self) -> Option<Kind> {
        Kind::of(problem_in(&self.error)?)
    }

    /// Whether a newOrder may have failed for the certificate that it was to replace: replaced already (409), another account's
    /// (`unauthorized`), another CA's (`malformed`, 404), by a CA without renewal information, or one that did not take it over.
    ///
    /// Source: RFC 9773, sections 5 and 7.4; Boulder, wfe2 and sa (read 2026-11).
    pub(crate) fn may_be_about_replacing(&self) -> bool {
        if let Error::Unsupported(_) = &self.error {
            return true;
        }
        if let Error::Other(error) = &self.error
            && error.downcast_ref::<ExchangeError>().is_none()
        {
            return true;
        }
        let kinds = [Kind::AlreadyReplaced, Kind::Unauthorized, Kind::Malformed];
        self.kind().is_some_and(|kind| kinds.contains(&kind)) || matches!(self.status(), Some(404 | 409))
    }

    /// The HTTP status of a refusal.
    pub(crate) fn status(&self) -> Option<u16> {
        match &self.error {
            Error::Other(error) => match error.downcast_ref::<ExchangeError>()? {
                ExchangeError::Refused(refusal) => Some(refusal.status.as_u16()),
                _ => None,
            },
            Error::Api(problem) => problem.status,
            _ => None,
        }
    }
}

/// Whether the CA did nothing but wants the same again with a fresh nonce.
pub(crate) fn is_bad_nonce(error: &Error) -> bool {
    problem_in(error).and_then(Kind::of) == Some(Kind::BadNonce)
}

fn problem_in(error: &Error) -> Option<&Problem> {
    match error {
        Error::Api(problem) => Some(problem),
        Error::Other(error) => match error.downcast_ref::<ExchangeError>()? {
            ExchangeError::Refused(refusal) => refusal.problem.as_ref(),
            _ => None,
        },
        _ => None,
    }
}

fn judge_exchange(error: ExchangeError, said: Said, now: Timestamp) -> IssueError {
    let refusal = match error {
        ExchangeError::Refused(refusal) => refusal,
        error => return IssueError::Unavailable { retry_after: None, detail: printable(&error.to_string()) },
    };
    let status = refusal.status.as_u16();
    match &refusal.problem {
        Some(problem) => judge_problem(problem, said, Some(status), refusal.retry_after, now),
        // Without a problem document it was not the CA that spoke, but what stands before it.
        None if status == 429 => IssueError::RateLimited { retry_after: refusal.retry_after, detail: printable(&refusal.to_string()) },
        None => IssueError::Unavailable { retry_after: refusal.retry_after, detail: printable(&refusal.to_string()) },
    }
}

/// Judges a problem document, whether it came as an answer or is kept in an order or a challenge.
pub(crate) fn judge_problem(
    problem: &Problem,
    said: Said,
    status: Option<u16>,
    retry_after: Option<Duration>,
    now: Timestamp,
) -> IssueError {
    let words = words_of(problem);
    let kind = match Kind::of(problem) {
        // Several names failed; we order one, so the subproblem that we know is ours.
        Some(Kind::Compound) => problem
            .subproblems
            .iter()
            .take(MOST_SUBPROBLEMS)
            .filter_map(|sub| Kind::parse(sub.r#type.as_deref()?))
            .find(|kind| *kind != Kind::Compound)
            .or(Some(Kind::Compound)),
        kind => kind,
    };
    let verdict = match kind {
        // The same type as a limit, but only the operator ends it. Source: Boulder, probs.Paused (read 2026-11).
        Some(Kind::RateLimited) if is_paused(problem) => Verdict::Paused,
        Some(Kind::Compound) if matches!(said, Said::OfOrder | Said::OfChallenge) => Verdict::OrderDead,
        Some(kind) => verdict(kind, said, status),
        None => verdict_by_status(said, status),
    };
    verdict.with(words, retry_after.or_else(|| wait_in_words(problem.detail.as_deref()?, now)))
}

/// Whether the CA has stopped serving this name for this account until someone visits its page.
fn is_paused(problem: &Problem) -> bool {
    let detail = problem.detail.as_deref().unwrap_or_default();
    detail.contains("temporarily prevented from requesting certificates") || detail.contains("unpause")
}

/// The wait in words such as "retry after 2026-11-24 10:20:30 UTC". Source: Boulder, ratelimits/transaction (read 2026-11).
fn wait_in_words(detail: &str, now: Timestamp) -> Option<Duration> {
    const BEFORE: &str = "retry after ";
    let start = detail.find(BEFORE)? + BEFORE.len();
    let (date, rest) = detail.get(start..)?.split_once(' ')?;
    let time = rest.get(..8)?;
    let until: Timestamp = format!("{date}T{time}Z").parse().ok()?;
    Duration::try_from(until.duration_since(now)).ok().map(super::client::sensible_wait)
}

fn words_of(problem: &Problem) -> String {
    let name = problem.r#type.as_deref().map_or("no type", |uri| uri.strip_prefix(NAMESPACE).unwrap_or(uri));
    let mut words = match problem.detail.as_deref() {
        Some(detail) if !detail.is_empty() => format!("{detail} ({name})"),
        _ => name.to_owned(),
    };
    for sub in problem.subproblems.iter().take(MOST_SUBPROBLEMS) {
        words.push_str("; ");
        words.push_str(&sub.to_string());
    }
    printable(&words)
}

/// A stranger's words as we keep them: one line, bounded.
pub(crate) fn printable(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_DETAIL_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::client::Refusal;

    const NOW: &str = "2026-11-24T10:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn problem(name: &str, detail: &str) -> Problem {
        serde_json::from_value(serde_json::json!({ "type": format!("{NAMESPACE}{name}"), "detail": detail })).unwrap()
    }

    fn variant(error: &IssueError) -> &'static str {
        match error {
            IssueError::NotYet { .. } => "NotYet",
            IssueError::OrderDead { .. } => "OrderDead",
            IssueError::RateLimited { .. } => "RateLimited",
            IssueError::Paused { .. } => "Paused",
            IssueError::Unavailable { .. } => "Unavailable",
            IssueError::ChallengeFailed { .. } => "ChallengeFailed",
            IssueError::DnsFailed { .. } => "DnsFailed",
            IssueError::CaaForbids { .. } => "CaaForbids",
            IssueError::RejectedIdentifier { .. } => "RejectedIdentifier",
            IssueError::AccountRefused { .. } => "AccountRefused",
            IssueError::Refused { .. } => "Refused",
            other => panic!("not a refusal of a CA: {other:?}"),
        }
    }

    const EVERYWHERE: [Said; 4] = [Said::ToRequest, Said::ToOrderRequest, Said::OfOrder, Said::OfChallenge];

    /// Type, then what it means said to a request, to an order's request, of an order, of a challenge.
    const TABLE: &[(&str, [&str; 4])] = &[
        ("accountDoesNotExist", ["AccountRefused", "OrderDead", "OrderDead", "OrderDead"]),
        ("alreadyReplaced", ["Refused", "Refused", "Refused", "Refused"]),
        ("alreadyRevoked", ["Refused", "Refused", "Refused", "Refused"]),
        ("badCSR", ["Refused", "Refused", "Refused", "Refused"]),
        ("badNonce", ["Unavailable", "Unavailable", "OrderDead", "OrderDead"]),
        ("badPublicKey", ["AccountRefused", "Refused", "Refused", "Refused"]),
        ("badRevocationReason", ["Refused", "Refused", "Refused", "Refused"]),
        ("badSignatureAlgorithm", ["Refused", "Refused", "Refused", "Refused"]),
        ("caa", ["CaaForbids", "CaaForbids", "CaaForbids", "CaaForbids"]),
        ("compound", ["Refused", "Refused", "OrderDead", "OrderDead"]),
        ("connection", ["ChallengeFailed", "ChallengeFailed", "ChallengeFailed", "ChallengeFailed"]),
        ("dns", ["DnsFailed", "DnsFailed", "DnsFailed", "DnsFailed"]),
        ("externalAccountRequired", ["AccountRefused", "AccountRefused", "OrderDead", "OrderDead"]),
        ("incorrectResponse", ["ChallengeFailed", "ChallengeFailed", "ChallengeFailed", "ChallengeFailed"]),
        ("invalidContact", ["AccountRefused", "AccountRefused", "OrderDead", "OrderDead"]),
        ("invalidProfile", ["Refused", "Refused", "Refused", "Refused"]),
        ("malformed", ["Refused", "Refused", "Refused", "ChallengeFailed"]),
        ("orderNotReady", ["Refused", "NotYet", "OrderDead", "OrderDead"]),
        ("rateLimited", ["RateLimited", "RateLimited", "OrderDead", "OrderDead"]),
        ("rejectedIdentifier", ["RejectedIdentifier", "RejectedIdentifier", "RejectedIdentifier", "RejectedIdentifier"]),
        ("serverInternal", ["Unavailable", "Unavailable", "OrderDead", "OrderDead"]),
        ("tls", ["ChallengeFailed", "ChallengeFailed", "ChallengeFailed", "ChallengeFailed"]),
        ("unauthorized", ["AccountRefused", "OrderDead", "OrderDead", "ChallengeFailed"]),
        ("unsupportedContact", ["AccountRefused", "AccountRefused", "OrderDead", "OrderDead"]),
        ("unsupportedIdentifier", ["RejectedIdentifier", "RejectedIdentifier", "RejectedIdentifier", "RejectedIdentifier"]),
        ("userActionRequired", ["AccountRefused", "AccountRefused", "OrderDead", "OrderDead"]),
    ];

    #[test]
    fn every_problem_type_means_what_the_table_says() {
        let listed: Vec<_> = TABLE.iter().map(|(name, _)| *name).collect();
        let known: Vec<_> = Kind::ALL.iter().map(|(_, name)| *name).collect();
        assert_eq!(listed, known, "the table has one row for each type");
        for (name, expected) in TABLE {
            for (said, expected) in EVERYWHERE.into_iter().zip(expected) {
                let error = judge_problem(&problem(name, "the CA's words"), said, Some(400), None, now());
                assert_eq!(variant(&error), *expected, "{name} {said:?}");
                if !matches!(error, IssueError::NotYet { .. }) {
                    assert!(error.to_string().contains("the CA's words"), "{error}");
                }
            }
        }
    }

    #[test]
    fn what_ended_an_order_never_keeps_that_order() {
        let names = Kind::ALL.iter().map(|(_, name)| *name).chain(["onionCAARequired", "somethingNew"]);
        for name in names {
            for said in [Said::OfOrder, Said::OfChallenge] {
                for status in [None, Some(400), Some(403), Some(404), Some(429), Some(500), Some(503)] {
                    let error = judge_problem(&problem(name, ""), said, status, None, now());
                    assert!(!error.keeps_the_order(), "{name} {said:?} {status:?}: {error:?}");
                }
            }
        }
    }

    #[test]
    fn an_unknown_type_is_judged_by_its_status() {
        for (said, status, expected) in [
            (Said::ToRequest, 429, "RateLimited"),
            (Said::ToRequest, 503, "Unavailable"),
            (Said::ToRequest, 403, "AccountRefused"),
            (Said::ToRequest, 400, "Refused"),
            (Said::ToOrderRequest, 404, "OrderDead"),
            (Said::ToOrderRequest, 500, "Unavailable"),
            (Said::OfOrder, 500, "OrderDead"),
            (Said::OfChallenge, 403, "ChallengeFailed"),
        ] {
            let error = judge_problem(&problem("somethingNew", ""), said, Some(status), None, now());
            assert_eq!(variant(&error), expected, "{said:?} {status}");
        }
    }

    #[test]
    fn an_order_that_the_ca_no_longer_knows_is_dead_but_a_missing_page_elsewhere_is_a_defect() {
        let gone = judge_problem(&problem("malformed", "No order for ID 7"), Said::ToOrderRequest, Some(404), None, now());
        assert_eq!(variant(&gone), "OrderDead");
        let elsewhere = judge_problem(&problem("malformed", ""), Said::ToRequest, Some(404), None, now());
        assert_eq!(variant(&elsewhere), "Refused");
    }

    #[test]
    fn a_compound_problem_is_judged_by_its_subproblem() {
        let compound: Problem = serde_json::from_value(serde_json::json!({
            "type": "urn:ietf:params:acme:error:compound",
            "detail": "Errors during validation",
            "subproblems": [
                { "type": "urn:ietf:params:acme:error:caa", "detail": "CAA record for shop.brand.com prevents issuance",
                  "identifier": { "type": "dns", "value": "shop.brand.com" } }
            ]
        }))
        .unwrap();
        let error = judge_problem(&compound, Said::OfOrder, None, None, now());
        assert_eq!(variant(&error), "CaaForbids");
        assert!(error.to_string().contains("prevents issuance"), "{error}");
    }

    #[test]
    fn a_paused_name_is_not_mistaken_for_a_limit_and_keeps_its_link() {
        let detail = "Your account is temporarily prevented from requesting certificates for shop.brand.com and possibly others. \
                      Please visit: https://portal.letsencrypt.org/sfe/v1/unpause?jwt=abc";
        let error = judge_problem(&problem("rateLimited", detail), Said::ToRequest, Some(429), None, now());
        assert_eq!(variant(&error), "Paused");
        assert!(error.to_string().contains("unpause?jwt=abc"));
    }

    #[test]
    fn a_wait_named_only_in_words_is_kept_and_a_header_goes_before_it() {
        let detail =
            "too many certificates (5) already issued for this exact set of identifiers, retry after 2026-11-24 10:20:30 UTC: see …";
        for (header, expected) in [(None, 1230), (Some(Duration::from_secs(9)), 9)] {
            let error = judge_problem(&problem("rateLimited", detail), Said::ToRequest, Some(429), header, now());
            let IssueError::RateLimited { retry_after, .. } = error else { panic!("{error:?}") };
            assert_eq!(retry_after, Some(Duration::from_secs(expected)));
        }
        for unusual in ["retry after soon", "retry after 2026-11-24 é", "retry after 2026-11-24 09:00:00 UTC"] {
            let error = judge_problem(&problem("rateLimited", unusual), Said::ToRequest, Some(429), None, now());
            assert!(matches!(error, IssueError::RateLimited { retry_after: None, .. }), "{unusual}: {error:?}");
        }
    }

    #[test]
    fn a_page_of_a_load_balancer_is_a_limit_or_an_outage_never_a_verdict_on_the_order() {
        for (status, expected) in
            [(429, "RateLimited"), (403, "Unavailable"), (404, "Unavailable"), (502, "Unavailable"), (503, "Unavailable")]
        {
            for said in [Said::ToRequest, Said::ToOrderRequest] {
                let refusal = Refusal {
                    asked: "POST https://ca.test/order".into(),
                    status: http::StatusCode::from_u16(status).unwrap(),
                    retry_after: Some(Duration::from_secs(7)),
                    problem: None,
                    excerpt: "<html>busy</html>".into(),
                };
                let error = Error::Other(Box::new(ExchangeError::Refused(refusal)));
                let error = Failure { said, error }.judge(now());
                assert_eq!(variant(&error), expected, "{status}");
                assert_eq!(error.disposition(), domains::Disposition::Retry { after: Some(Duration::from_secs(7)) });
                assert!(error.keeps_the_order());
            }
        }
    }

    #[test]
    fn words_of_a_stranger_stay_on_one_line_and_bounded() {
        let error = judge_problem(&problem("unauthorized", &"line\r\n\u{7}".repeat(500)), Said::OfChallenge, None, None, now());
        let IssueError::ChallengeFailed { detail } = error else { panic!("{error:?}") };
        assert_eq!(detail.chars().count(), MOST_DETAIL_CHARACTERS);
        assert!(!detail.contains(char::is_control));
    }
}
