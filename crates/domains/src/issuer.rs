//! What the walk asks of a certificate authority, and whose move it is when the CA refuses.
//!
//! Arrives: a hostname that was proved and looked at. Leaves: a checked certificate whose key nobody outside the edge can open. Goes
//! wrong: an [`IssueError`], which an exhaustive match turns into a [`Disposition`].

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{Actor, Attempt, CaChoice, ChallengeWay, ClaimKey, Finding, Hostname, OrderPlan, ProblemCode};

/// Whose move it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Time may mend it.
    Retry {
        /// How long to wait at least; `None` lets the caller's own backoff decide.
        after: Option<Duration>,
    },
    /// Only the customer can mend it; we look again on schedule.
    AskCustomer,
    /// Nobody will mend it for this name; we look again rarely.
    GiveUp,
    /// Ours to mend: code, configuration or account. A person must see it.
    Defect,
}

/// A key and what the CA must know of it, made in one step so that the plain key never leaves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreparedKey {
    /// The certificate signing request, DER in base64.
    pub csr: String,
    /// The private key sealed to the edge.
    pub sealed_key: String,
    /// SHA-256 of the SubjectPublicKeyInfo, hex.
    pub spki_sha256: String,
}

/// A certificate that the CA returned and we checked: key, name, dates, chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The chain, PEM, leaf first.
    pub chain: String,
    /// Serial number, hex.
    pub serial: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// The identifier renewal information is asked under, when the certificate carries what it needs.
    pub ari_id: Option<String>,
}

/// When a CA would like a certificate to be renewed (RFC 9773).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalWindow {
    /// Its start.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
    /// When to ask again.
    pub retry_after: Duration,
}

/// Why no certificate came.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The CA works on it; ask again.
    #[error("the CA has not finished yet")]
    NotYet {
        /// The CA's own wait, when it named one.
        retry_after: Option<Duration>,
    },
    /// The order can no longer become a certificate; a new one must be made.
    #[error("the order ended without a certificate: {detail}")]
    OrderDead {
        /// The CA's words.
        detail: String,
    },
    /// The certificate exists, and cannot be fetched yet: no more is known to be wrong with the CA.
    #[error("the certificate cannot be fetched yet: {detail}")]
    CertificateLate {
        /// The CA's own wait, when it named one.
        retry_after: Option<Duration>,
        /// What happened.
        detail: String,
    },
    /// The certificate was issued, and cannot be fetched any more; a new order must be made, and the CA counts both.
    #[error("the certificate was issued and cannot be fetched: {detail}")]
    CertificateLost {
        /// The CA's words.
        detail: String,
    },
    /// A limit of the CA.
    #[error("the CA asks to wait: {detail}")]
    RateLimited {
        /// The CA's own wait, when it named one.
        retry_after: Option<Duration>,
        /// The CA's words.
        detail: String,
    },
    /// The CA stopped serving this name for our account until somebody visits the page that its words name.
    #[error("the CA paused this name: {detail}")]
    Paused {
        /// The CA's words.
        detail: String,
    },
    /// The CA cannot be reached, or fails on its side.
    #[error("the CA is unavailable: {detail}")]
    Unavailable {
        /// The CA's own wait, when it named one.
        retry_after: Option<Duration>,
        /// What happened.
        detail: String,
    },
    /// The CA could not validate the challenge at the hostname; the order is dead.
    #[error("the CA could not validate the challenge: {detail}")]
    ChallengeFailed {
        /// The CA's words.
        detail: String,
    },
    /// The CA's look at the hostname's DNS failed; the order is dead.
    #[error("the CA could not resolve the name: {detail}")]
    DnsFailed {
        /// The CA's words.
        detail: String,
    },
    /// CAA records forbid this CA.
    #[error("CAA forbids this CA: {detail}")]
    CaaForbids {
        /// The CA's words.
        detail: String,
    },
    /// The CA will not issue for this name.
    #[error("the CA does not issue for this name: {detail}")]
    RejectedIdentifier {
        /// The CA's words.
        detail: String,
    },
    /// The CA refuses our account.
    #[error("the CA refuses our account: {detail}")]
    AccountRefused {
        /// The CA's words.
        detail: String,
    },
    /// The CA refused what we sent.
    #[error("the CA refused our request: {detail}")]
    Refused {
        /// The CA's words.
        detail: String,
    },
    /// The certificate is not the one asked for.
    #[error("the CA returned a certificate that is not ours: {detail}")]
    WrongCertificate {
        /// What differs.
        detail: String,
    },
}

impl IssueError {
    /// Whose move it is.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::NotYet { retry_after }
            | Self::CertificateLate { retry_after, .. }
            | Self::RateLimited { retry_after, .. }
            | Self::Unavailable { retry_after, .. } => Disposition::Retry { after: *retry_after },
            Self::OrderDead { .. } | Self::CertificateLost { .. } => Disposition::Retry { after: None },
            Self::ChallengeFailed { .. } | Self::DnsFailed { .. } | Self::CaaForbids { .. } => Disposition::AskCustomer,
            Self::RejectedIdentifier { .. } | Self::Paused { .. } => Disposition::GiveUp,
            Self::AccountRefused { .. } | Self::Refused { .. } | Self::WrongCertificate { .. } => Disposition::Defect,
        }
    }

    /// Whether the order under way may still become a certificate, so that the attempt must be kept.
    pub fn keeps_the_order(&self) -> bool {
        match self {
            Self::NotYet { .. }
            | Self::CertificateLate { .. }
            | Self::RateLimited { .. }
            | Self::Unavailable { .. }
            | Self::AccountRefused { .. } => true,
            Self::OrderDead { .. }
            | Self::CertificateLost { .. }
            | Self::Paused { .. }
            | Self::ChallengeFailed { .. }
            | Self::DnsFailed { .. }
            | Self::CaaForbids { .. }
            | Self::RejectedIdentifier { .. }
            | Self::Refused { .. }
            | Self::WrongCertificate { .. } => false,
        }
    }

    /// Whether it is this name that the CA refuses, rather than all of us or nobody: only that counts towards suspending the name.
    pub fn is_about_the_name(&self) -> bool {
        match self {
            Self::ChallengeFailed { .. }
            | Self::DnsFailed { .. }
            | Self::CaaForbids { .. }
            | Self::RejectedIdentifier { .. }
            | Self::Paused { .. } => true,
            Self::NotYet { .. }
            | Self::OrderDead { .. }
            | Self::CertificateLate { .. }
            | Self::CertificateLost { .. }
            | Self::RateLimited { .. }
            | Self::Unavailable { .. }
            | Self::AccountRefused { .. }
            | Self::Refused { .. }
            | Self::WrongCertificate { .. } => false,
        }
    }

    /// Whether the CA issued a certificate all the same, which its limits count.
    pub fn used_a_certificate(&self) -> bool {
        matches!(self, Self::CertificateLost { .. } | Self::WrongCertificate { .. })
    }

    /// What people are told of an order whose challenge was answered this way; `None` while the CA is simply at work.
    pub fn finding(&self, hostname: &Hostname, way: &ChallengeWay) -> Option<Finding> {
        let (code, actor, action) = match self {
            Self::NotYet { .. } => return None,
            Self::OrderDead { .. } | Self::CertificateLost { .. } => {
                (ProblemCode::CaUnavailable, Actor::Nameplate, "Nothing; a new order is made.".to_owned())
            }
            Self::CertificateLate { .. } => (ProblemCode::CaUnavailable, Actor::Nameplate, "Nothing; it is fetched again.".into()),
            Self::RateLimited { .. } => {
                (ProblemCode::CaRateLimited, Actor::Nameplate, "Nothing; the order waits for the CA's limit.".into())
            }
            Self::Paused { .. } => (
                ProblemCode::CaPaused,
                Actor::Operator,
                format!("Mend what made {hostname} fail, visit the page that the CA names, then ask for a check of {hostname}."),
            ),
            Self::Unavailable { .. } => (ProblemCode::CaUnavailable, Actor::Nameplate, "Nothing; the order is tried again.".into()),
            Self::ChallengeFailed { .. } => (
                ProblemCode::CaChallengeFailed,
                Actor::Customer,
                match way {
                    ChallengeWay::Http01 => {
                        format!(
                            "Let http://{hostname}/.well-known/acme-challenge/ reach the edge: no proxy, firewall or redirect before it."
                        )
                    }
                    ChallengeWay::Dns01 { name } => {
                        let base = hostname.base();
                        format!(
                            "Leave CNAME _acme-challenge.{base} with the value {name}, the same at every name server, and no TXT beside it."
                        )
                    }
                },
            ),
            Self::DnsFailed { .. } => (
                ProblemCode::CaDnsFailed,
                Actor::Customer,
                format!("Make {hostname} resolve from everywhere: the CA asks from several places and found no address or a failing zone."),
            ),
            Self::CaaForbids { .. } => (
                ProblemCode::CaCaaForbids,
                Actor::Customer,
                format!("Allow the CA in the CAA records of {hostname} or of the zone above it."),
            ),
            Self::RejectedIdentifier { .. } => {
                (ProblemCode::CaRejectedIdentifier, Actor::Operator, format!("Ask the CA why {hostname} is refused, or use another name."))
            }
            Self::AccountRefused { .. } => {
                (ProblemCode::CaAccountRefused, Actor::Operator, "Check the ACME account with `nameplate setup`.".into())
            }
            Self::Refused { .. } => (ProblemCode::CaRefused, Actor::Operator, "Report this; the CA refused a request of ours.".into()),
            Self::WrongCertificate { .. } => (
                ProblemCode::CaWrongCertificate,
                Actor::Operator,
                "Report this; the certificate was thrown away and nothing else changed.".into(),
            ),
        };
        Some(Finding {
            code,
            actor,
            action,
            about: format!("certificate for {hostname}"),
            expected: "a certificate".into(),
            saw: self.to_string(),
        })
    }
}

/// A certificate authority, one move at a time, each move resumable.
#[async_trait]
pub trait Issuer: Send + Sync {
    /// Makes key, CSR and sealed key; asks nobody.
    ///
    /// # Errors
    /// [`IssueError::Refused`] when the key cannot be made or sealed.
    fn prepare(&self, key: &ClaimKey) -> Result<PreparedKey, IssueError>;

    /// Makes the order as planned and returns its URL, or the URL of the identical order that the CA still holds open.
    async fn order(&self, hostname: &Hostname, plan: &OrderPlan) -> Result<String, IssueError>;

    /// Takes the order as far as it goes: answers challenges, finalizes with the stored CSR, fetches and checks the certificate.
    ///
    /// Resumes at any point: an order that was finalized before a crash is fetched, never finalized again.
    async fn complete(&self, hostname: &Hostname, order_url: &str, attempt: &Attempt) -> Result<Issued, IssueError>;

    /// The renewal window of a certificate of this CA; `None` when the CA offers none.
    async fn renewal_window(&self, ca: CaChoice, ari_id: &str) -> Result<Option<RenewalWindow>, IssueError>;
}
