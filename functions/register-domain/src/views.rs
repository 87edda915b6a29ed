//! A claim as the API shows it.

use domains::{Claim, LookSchedule, Problem, Publication, State, StateName, Timestamp, ZoneSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DnsRecord, Path, records};

/// A domain as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainView {
    /// A-labels.
    pub hostname: String,
    /// As people of its script write it.
    pub hostname_unicode: String,
    /// Whose claim it is.
    pub tenant: String,
    /// Where it is on its walk.
    pub state: StateName,
    /// Whether the edge serves it now.
    pub ready: bool,
    /// Since when it is in this state.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// When it was registered.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: Timestamp,
    /// Which records the customer sets.
    pub path: Path,
    /// The records, in order.
    pub records: Vec<DnsRecord>,
    /// What stands in its way: who must do what, what we expected and saw, when we look again.
    pub problem: Option<Problem>,
    /// When something is looked at next; `null` once it is removed.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_look: Option<Timestamp>,
    /// Set while the operator has taken it out of service.
    pub suspension: Option<SuspensionView>,
    /// Set while it is served and leads elsewhere.
    pub at_risk: Option<AtRiskView>,
    /// The certificate in service.
    pub certificate: Option<CertificateView>,
    /// The origin that its requests go to; `null` is the usual one.
    pub origin: Option<String>,
    /// Grows with every write.
    pub version: u64,
}

/// A suspension as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SuspensionView {
    /// Since when.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Why, in the operator's words.
    pub reason: String,
}

/// A served domain that leads elsewhere. It is served until its certificate ends, and never removed by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AtRiskView {
    /// Since when.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Until when it is looked at often. Then `at_risk_grace_ended` is told, and it is looked at as seldom as a healthy one.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub grace_ends: Timestamp,
}

/// A certificate as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateView {
    /// Serial number, hex.
    pub serial: String,
    /// Start of validity.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub not_before: Timestamp,
    /// End of validity.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub not_after: Timestamp,
    /// When renewal is due.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub renewal_due: Timestamp,
    /// When it reached the bucket; `null` while it is on its way.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub published_at: Option<Timestamp>,
}

impl DomainView {
    /// Shows a claim.
    pub fn of(claim: &Claim, zone: &ZoneSettings, looks: &LookSchedule) -> Self {
        let path = Path::of(claim);
        let certificate = certificate(&claim.state);
        Self {
            hostname: claim.key.hostname.to_string(),
            hostname_unicode: claim.key.hostname.to_unicode(),
            tenant: claim.key.tenant.to_string(),
            state: claim.state.name(),
            // A renewal on its way does not make a served domain less ready.
            ready: matches!(claim.state, State::Active { .. })
                && claim.suspension.is_none()
                && certificate.as_ref().is_some_and(|c| c.published_at.is_some() || claim.is_renewed()),
            since: claim.since,
            created_at: claim.created_at,
            path,
            records: if claim.is_removed() { Vec::new() } else { records(claim, zone, path) },
            problem: claim.problem.clone(),
            next_look: claim.next_look(),
            suspension: claim
                .suspension
                .as_ref()
                .filter(|_| !claim.is_removed())
                .map(|known| SuspensionView { since: known.since, reason: known.reason.clone() }),
            at_risk: claim
                .problem
                .as_ref()
                .zip(claim.grace_ends(looks))
                .map(|(problem, grace_ends)| AtRiskView { since: problem.since, grace_ends }),
            certificate,
            origin: claim.origin.as_ref().map(ToString::to_string),
            version: claim.version,
        }
    }
}

fn certificate(state: &State) -> Option<CertificateView> {
    let State::Active { certificate, publication, renewal, .. } = state else { return None };
    Some(CertificateView {
        serial: certificate.serial.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        renewal_due: renewal.due_at,
        published_at: match publication {
            Publication::Due { .. } => None,
            Publication::Done { at, .. } => Some(*at),
        },
    })
}
