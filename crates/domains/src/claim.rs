//! One claim's record: its state, and beside it what stands in its way.
//!
//! Arrives: what a step decided. Leaves: the item that homes store, as it stands here. Goes wrong: an item that does not read back is a
//! defect of ours and is reported as such by the home, never taken for an absence.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    CaaIssuer, ClaimId, ClaimKey, Delegation, DelegationSubject, Hostname, LookSubject, Nudge, OriginName, OwnershipToken, Problem,
    ProblemCode, Routing, SiteVersion, Step, TenantId,
};

/// The schema number written with every claim.
pub const CLAIM_SCHEMA: u16 = 1;

/// How control of the name was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// (a) the hostname's CNAME names the claim's own target.
    RoutingRecord,
    /// (b) the claim's token stands in TXT.
    Txt,
    /// (c) the hostname's `_acme-challenge` is delegated to the claim's own name in the answer zone.
    Delegation,
}

/// One tenant's claim to one hostname.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// How this item is to be read.
    pub schema: u16,
    /// Hostname and tenant.
    #[serde(flatten)]
    pub key: ClaimKey,
    /// The claim's own label; its target is `<claim>.t.<zone>`.
    pub claim_id: ClaimId,
    /// What the TXT proof must say.
    pub token: OwnershipToken,
    /// Guards every write: a writer names the version it read.
    pub version: u64,
    /// The number of the newest history item.
    pub sequence: u64,
    /// When this claim was made.
    pub created_at: Timestamp,
    /// When the state last changed.
    pub since: Timestamp,
    /// When this was written, whatever it changed.
    #[serde(default)]
    pub written_at: Timestamp,
    /// Where the claim is on its walk.
    pub state: State,
    /// What stands in its way; never changes the state.
    pub problem: Option<Problem>,
    /// What the last look saw.
    pub last_look: Option<LastLook>,
    /// Taken out of service until it is resumed; stands beside the state, and changes neither proof nor certificate.
    #[serde(default)]
    pub suspension: Option<Suspension>,
    /// Since when the bucket shows a site of the name that should be gone, while this claim has none of its own to publish: so it is after a
    /// restore beside a bucket older than the backup.
    #[serde(default)]
    pub stale_site: Option<Timestamp>,
    /// The origin that its requests go to; `None` is the edge's usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginName>,
}

/// The operator took a name out of service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Since when.
    pub since: Timestamp,
    /// Why, in the operator's words.
    pub reason: String,
    /// The site version that takes the site down; `None` when there was no site yet.
    pub site_version: Option<SiteVersion>,
    /// Whether it ends by itself once a look finds the name's records, as for a name restored from a backup.
    #[serde(default)]
    pub ends_when_seen: bool,
}

/// What the last look saw, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastLook {
    /// When it was.
    pub at: Timestamp,
    /// The proof it saw.
    pub proof: Option<Proof>,
    /// Where the name led.
    pub routing: Routing,
    /// Where the name's dns-01 challenges led.
    #[serde(default)]
    pub delegation: Delegation,
    /// The ways to a certificate that CAA records forbid.
    #[serde(default)]
    pub forbidden: Vec<CertificateWay>,
}

/// Where a claim is on its walk. Each variant owns what is true only there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "most stored claims are active, the largest; a box would cost them an allocation each")]
pub enum State {
    /// Waits for a proof in DNS. Blocks nobody.
    AwaitingProof {
        /// When an unproved claim ends.
        expires_at: Timestamp,
        /// The first of the looks that saw the proof while another tenant owned the name.
        first_proved: Option<Timestamp>,
        /// When DNS is looked at next.
        next_look: Timestamp,
    },
    /// Proved, and waits for the name to lead to the edge.
    AwaitingRouting {
        /// How it was proved.
        proof: Proof,
        /// When DNS is looked at next.
        next_look: Timestamp,
    },
    /// Proved and routed; the first certificate is being ordered.
    Issuing {
        /// How it was proved.
        proof: Proof,
        /// The order under way.
        issuance: Issuance,
    },
    /// Served. Renewal happens inside this state.
    Active {
        /// How it was proved.
        proof: Proof,
        /// The certificate in service.
        certificate: CertificateFacts,
        /// Whether it replaced an earlier one.
        renewed: bool,
        /// Whether the bucket shows it yet.
        publication: Publication,
        /// When and how it is renewed.
        renewal: Renewal,
        /// When its DNS is looked at next.
        health_look: Timestamp,
    },
    /// Asked to go; its site is being taken down.
    Removing {
        /// Why.
        reason: RemovalReason,
        /// When the take-down is tried next.
        next_look: Timestamp,
    },
    /// Gone; a tombstone.
    Removed {
        /// Why.
        reason: RemovalReason,
    },
}

/// Why a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemovalReason {
    /// The API was asked to.
    Requested,
    /// It was never proved.
    Expired,
    /// Another tenant proved the name.
    Transferred,
}

/// One certificate being obtained: everything a crash must not lose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issuance {
    /// When the next move is made; a worker that starts moves it ahead, so that it is also the worker's lease.
    pub next_look: Timestamp,
    /// The order under way; `None` before key and CSR are made.
    pub attempt: Option<Attempt>,
    /// Failed attempts in a row.
    pub failures: u32,
    /// The CA that the next order goes to.
    #[serde(default)]
    pub ca: CaChoice,
    /// Of these, how often in a row it was this name that the first CA refused.
    #[serde(default)]
    pub name_failures: u32,
    /// The same of the second CA.
    #[serde(default)]
    pub second_name_failures: u32,
    /// Until when the second CA is not asked again, because it failed or asks to wait.
    #[serde(default)]
    pub second_not_before: Option<Timestamp>,
    /// Why nothing is ordered until a person asks for a check; `None` while orders are made. What is told of the name's DNS may cover the same
    /// words beside the state, and never these.
    #[serde(default)]
    pub stopped: Option<Problem>,
    /// Since when the first CA cannot be reached, as far as this name's orders know.
    #[serde(default)]
    pub down_since: Option<Timestamp>,
    /// When its turn came or comes under the CA's limits, if it ever had to wait for one; it may be looked at before.
    #[serde(default)]
    pub turn: Option<Timestamp>,
    /// Since when its order waits for a CA's time, whatever else was told meanwhile; `None` once it was made, or never had to wait.
    #[serde(default)]
    pub waits_since: Option<Timestamp>,
}

/// One order at one CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When its order was made; until then, when it was begun.
    pub started_at: Timestamp,
    /// The certificate signing request, DER in base64.
    pub csr: String,
    /// The private key sealed to the edge, as `bundles` writes it, carried unread.
    pub sealed_key: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo, hex.
    pub spki_sha256: String,
    /// The order's URL; stored before anything is asked of the order.
    pub order_url: Option<String>,
    /// What the order is, so that whoever resumes repeats it.
    #[serde(default)]
    pub plan: OrderPlan,
}

/// What an order is to be, decided before it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlan {
    /// How its challenge is answered.
    pub challenge: ChallengeWay,
    /// The renewal identifier of the certificate it replaces (RFC 9773, section 5), when that is the same CA's.
    pub replaces: Option<String>,
    /// The CA it is made at.
    #[serde(default)]
    pub ca: CaChoice,
}

/// One of the CAs of an installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaChoice {
    /// The one that certificates come from.
    #[default]
    First,
    /// The one to turn to while the first is down or limited for too long.
    Second,
}

/// A kind of challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChallengeKind {
    /// http-01 (RFC 8555, section 8.3).
    #[serde(rename = "http-01")]
    Http01,
    /// dns-01 (RFC 8555, section 8.4).
    #[serde(rename = "dns-01")]
    Dns01,
}

impl ChallengeKind {
    /// Both that we answer.
    pub const ALL: &[Self] = &[Self::Http01, Self::Dns01];

    /// As ACME spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// One way to a certificate: a CA, and what it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CertificateWay {
    /// The CA.
    pub ca: CaChoice,
    /// The challenge.
    pub challenge: ChallengeKind,
}

/// How an order's challenge is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeWay {
    /// By the edge, which needs no more than the account's thumbprint.
    #[default]
    Http01,
    /// In the answer zone, where the hostname's `_acme-challenge` leads.
    Dns01 {
        /// The claim's name there.
        name: String,
    },
}

impl ChallengeWay {
    /// The kind of the challenge.
    pub fn kind(&self) -> ChallengeKind {
        match self {
            Self::Http01 => ChallengeKind::Http01,
            Self::Dns01 { .. } => ChallengeKind::Dns01,
        }
    }
}

/// What is known of the certificate in service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// The site version it was recorded as.
    pub version: SiteVersion,
    /// Serial number, hex.
    pub serial: String,
    /// The key's SHA-256, hex.
    pub spki_sha256: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// The identifier renewal information is asked under (RFC 9773, section 4.1).
    pub ari_id: Option<String>,
    /// The CA that issued it.
    #[serde(default)]
    pub ca: CaChoice,
}

/// Whether the bucket shows the certificate in service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Publication {
    /// Not yet.
    Due {
        /// When publishing is tried next.
        next_look: Timestamp,
    },
    /// Yes, as this version.
    Done {
        /// The version the bucket shows.
        version: SiteVersion,
        /// Since when.
        at: Timestamp,
    },
}

/// When and how the certificate in service is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewal {
    /// When renewal is due.
    pub due_at: Timestamp,
    /// When the CA is asked for its renewal window next; `None` when it offers none.
    pub window_poll: Option<Timestamp>,
    /// Start and end of the window that it named last.
    #[serde(default)]
    pub window: Option<(Timestamp, Timestamp)>,
    /// The order under way, or when the next one begins.
    pub issuance: Issuance,
}

/// A certificate with its sealed key: an item of its own.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCertificate {
    /// The name it is for.
    pub hostname: Hostname,
    /// Who proved the name.
    pub tenant: TenantId,
    /// The site version it was recorded as.
    pub version: SiteVersion,
    /// The chain, PEM, leaf first.
    pub chain: String,
    /// The sealed key, as `bundles` writes it.
    pub sealed_key: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo, hex.
    pub spki_sha256: String,
}

impl std::fmt::Debug for StoredCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoredCertificate({}|{} version {})", self.hostname, self.tenant, self.version)
    }
}

/// Who owns a hostname: one item a name, never deleted, so that its site version never goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The name.
    pub hostname: Hostname,
    /// Who proved it; `None` once the last owner left.
    pub tenant: Option<TenantId>,
    /// The site version that the newest change of owner, certificate or removal made.
    pub site_version: SiteVersion,
    /// Guards every write.
    pub version: u64,
}

impl Owner {
    /// The owner item after this change: the next site version, and this tenant or none.
    pub fn changed(before: Option<&Self>, hostname: &Hostname, tenant: Option<TenantId>) -> Self {
        let site_version = before.map_or(SiteVersion(0), |owner| owner.site_version).next();
        Self { hostname: hostname.clone(), tenant, site_version, version: before.map_or(0, |owner| owner.version) + 1 }
    }
}

/// One transition of one claim: audit trail, event feed, webhook source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// Hostname and tenant.
    #[serde(flatten)]
    pub key: ClaimKey,
    /// Counts per claim, without gaps.
    pub sequence: u64,
    /// When it happened.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
    /// What happened, in the past tense: `ownership_proved`, `certificate_recorded`.
    pub event: String,
    /// The state after it.
    pub state: String,
    /// The problem's code, when one was set.
    pub code: Option<String>,
    /// More for people.
    pub detail: Option<String>,
}

/// Where this installation's targets, proofs and edge are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneSettings {
    /// The operator's edge zone; targets are `<claim>.t.<zone>`.
    pub zone: Hostname,
    /// The label before the hostname where the TXT proof stands.
    pub txt_prefix: String,
    /// The edge's addresses, for names that cannot have a CNAME.
    pub edge_addresses: Vec<IpAddr>,
    /// The CAs as CAA records would name them.
    #[serde(default)]
    pub issuers: Vec<CaaIssuer>,
}

/// How often DNS is looked at: a share of the time waited so far, between a floor and a cap, so that a change made soon is seen soon and
/// one that never comes costs little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookSchedule {
    /// The shortest wait.
    pub floor: Duration,
    /// The longest wait.
    pub cap: Duration,
    /// How long a claim may stay unproved.
    pub claim_life: Duration,
    /// How often the DNS of an active name is looked at.
    pub health: Duration,
    /// How far apart the two looks of a change of hands are, at least.
    pub hand_over: Duration,
    /// How long a served name that leads elsewhere is looked at often. After that it is told once more, and looked at as seldom as a healthy
    /// one. It is never removed for it.
    ///
    /// The default is what others give a moved name before they drop it: Cloudflare for SaaS, validation status (read 2026-11).
    pub at_risk_grace: Duration,
}

impl Default for LookSchedule {
    fn default() -> Self {
        Self {
            floor: Duration::from_secs(5),
            cap: Duration::from_secs(3600),
            claim_life: Duration::from_secs(7 * 86_400),
            health: Duration::from_secs(86_400),
            hand_over: Duration::from_secs(60),
            at_risk_grace: Duration::from_secs(7 * 86_400),
        }
    }
}

impl LookSchedule {
    /// When to look next at something waited for since `since`.
    pub fn next_look(&self, since: Timestamp, now: Timestamp) -> Timestamp {
        let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        after(now, (waited / 20).clamp(self.floor, self.cap.max(self.floor)))
    }
}

/// `at + wait`, at the end of time when there is none.
pub(crate) fn after(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}

impl State {
    /// The state's name, as the API and the stored item spell it.
    pub fn name(&self) -> StateName {
        match self {
            Self::AwaitingProof { .. } => StateName::AwaitingProof,
            Self::AwaitingRouting { .. } => StateName::AwaitingRouting,
            Self::Issuing { .. } => StateName::Issuing,
            Self::Active { .. } => StateName::Active,
            Self::Removing { .. } => StateName::Removing,
            Self::Removed { .. } => StateName::Removed,
        }
    }
}

/// A [`State`] without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// Waits for a proof.
    AwaitingProof,
    /// Waits for routing.
    AwaitingRouting,
    /// Waits for the CA.
    Issuing,
    /// Served.
    Active,
    /// Being taken down.
    Removing,
    /// A tombstone.
    Removed,
}

impl StateName {
    /// Every state, in the order of the walk.
    pub const ALL: &[Self] = &[Self::AwaitingProof, Self::AwaitingRouting, Self::Issuing, Self::Active, Self::Removing, Self::Removed];

    /// The name as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingProof => "awaiting_proof",
            Self::AwaitingRouting => "awaiting_routing",
            Self::Issuing => "issuing",
            Self::Active => "active",
            Self::Removing => "removing",
            Self::Removed => "removed",
        }
    }

    /// Reads a name as the API spells it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == name)
    }
}

impl Claim {
    /// The steps this claim waits for, each with when it is due. Empty for a tombstone, and only for a tombstone.
    pub fn steps(&self) -> Vec<(Step, Timestamp)> {
        let stale_site = self.stale_site.map(|since| (Step::PublishSite, since));
        match &self.state {
            State::AwaitingProof { next_look, .. } | State::AwaitingRouting { next_look, .. } => {
                std::iter::once((Step::VerifyOwnership, *next_look)).chain(stale_site).collect()
            }
            State::Issuing { issuance, .. } => std::iter::once((Step::IssueCertificate, issuance.next_look)).chain(stale_site).collect(),
            State::Active { publication, renewal, health_look, .. } => {
                let renewal_at = match (&renewal.issuance.attempt, renewal.window_poll) {
                    (None, Some(poll)) => poll.min(renewal.issuance.next_look),
                    _ => renewal.issuance.next_look,
                };
                let mut steps = vec![(Step::VerifyOwnership, *health_look)];
                // What is not served needs no renewal; an order that was made is finished all the same.
                let is_ordered = renewal.issuance.attempt.as_ref().is_some_and(|attempt| attempt.order_url.is_some());
                if self.suspension.is_none() || is_ordered {
                    steps.push((Step::IssueCertificate, renewal_at));
                }
                if let Publication::Due { next_look } = publication {
                    steps.push((Step::PublishSite, *next_look));
                }
                steps
            }
            State::Removing { next_look, .. } => vec![(Step::PublishSite, *next_look)],
            State::Removed { .. } => Vec::new(),
        }
    }

    /// The earliest step due, which is what the due-index holds: never at a moment before it was written. The timer, which has seen those
    /// already, reads on from where it was, and would miss what a renewal window in the past or the end of a suspension brings there.
    pub fn next_step(&self) -> Option<(Step, Timestamp)> {
        let (step, at) = self.steps().into_iter().min_by_key(|(_, at)| *at)?;
        Some((step, at.max(self.written_at)))
    }

    /// When something is looked at next; `None` only for a tombstone.
    pub fn next_look(&self) -> Option<Timestamp> {
        self.next_step().map(|(_, at)| at)
    }

    /// Whether `step` is due now. A message that comes early, late or twice is told apart here.
    pub fn is_due(&self, step: Step, now: Timestamp) -> bool {
        self.steps().iter().any(|(due, at)| *due == step && *at <= now)
    }

    /// The nudge for this claim as it stands.
    pub fn nudge(&self) -> Nudge {
        Nudge { hostname: self.key.hostname.clone(), tenant: self.key.tenant.clone(), version: self.version }
    }

    /// How the name was proved, once it was.
    pub fn proof(&self) -> Option<Proof> {
        match &self.state {
            State::AwaitingRouting { proof, .. } | State::Issuing { proof, .. } | State::Active { proof, .. } => Some(*proof),
            State::AwaitingProof { .. } | State::Removing { .. } | State::Removed { .. } => None,
        }
    }

    /// Whether the customer is asked to delegate the name's challenges: for a wildcard, which has no other challenge; for a name that was
    /// proved so; and for one that leads elsewhere, because another server or a proxy stands there, which gets its certificate first.
    pub fn asks_for_delegation(&self) -> bool {
        let is_live = || {
            // What leads here in part is not live elsewhere: its own finding says what is wrong with it.
            let in_part = |problem: &Problem| matches!(problem.code, ProblemCode::DnsAddressMixed | ProblemCode::DnsAaaaElsewhere);
            let elsewhere = |look: &LastLook| look.routing == Routing::Elsewhere && !self.problem.as_ref().is_some_and(in_part);
            self.last_look.as_ref().is_some_and(|look| elsewhere(look) || look.delegation == Delegation::Ours)
        };
        match (&self.state, self.proof()) {
            (_, None) => self.key.hostname.is_wildcard() || is_live(),
            (State::AwaitingRouting { .. }, Some(_)) => is_live(),
            (_, Some(proof)) => proof == Proof::Delegation,
        }
    }

    /// What this claim expects of DNS.
    pub fn look_subject(&self, zone: &ZoneSettings) -> LookSubject {
        LookSubject {
            hostname: self.key.hostname.clone(),
            claim_id: self.claim_id.clone(),
            routing_target: zone.routing_target(&self.claim_id),
            targets_zone: zone.targets_zone(),
            txt_name: zone.txt_name(&self.key.hostname),
            token: self.token.clone(),
            edge_addresses: zone.edge_addresses.clone(),
            issuers: zone.issuers.clone(),
            proved: self.proof().is_some(),
            delegation: Some(DelegationSubject {
                name: zone.delegation_name(&self.key.hostname),
                target: zone.answer_name(&self.claim_id),
                answers_zone: zone.answers_zone(),
                wanted: self.asks_for_delegation(),
            }),
        }
    }

    /// Whether the certificate in service replaced an earlier one, which the edge serves until the new one arrives.
    pub fn is_renewed(&self) -> bool {
        matches!(&self.state, State::Active { renewed: true, .. })
    }

    /// The version as which the bucket shows a suspended site as gone; `None` for any other claim.
    ///
    /// It follows from the claim alone. Taken from the owner item, read a moment later, it could be the very version of the site's return,
    /// which would then never be newer than what is there.
    pub fn taken_down_at(&self) -> Option<SiteVersion> {
        let State::Active { certificate, .. } = &self.state else { return None };
        self.suspension.as_ref().map(|suspension| suspension.site_version.unwrap_or_default().max(certificate.version))
    }

    /// When the grace of a served name that leads elsewhere ends; `None` while it leads here.
    pub fn grace_ends(&self, looks: &LookSchedule) -> Option<Timestamp> {
        self.problem.as_ref().filter(|problem| problem.code == ProblemCode::AtRisk).map(|problem| after(problem.since, looks.at_risk_grace))
    }

    /// Whether the claim is over.
    pub fn is_removed(&self) -> bool {
        matches!(self.state, State::Removed { .. })
    }
}

impl ZoneSettings {
    /// `t.<zone>`.
    pub fn targets_zone(&self) -> String {
        format!("t.{}", self.zone)
    }

    /// `<claim>.t.<zone>`.
    pub fn routing_target(&self, claim: &ClaimId) -> String {
        format!("{claim}.t.{}", self.zone)
    }

    /// `acme.<zone>`: the zone with the answers of dns-01 challenges.
    pub fn answers_zone(&self) -> String {
        format!("acme.{}", self.zone)
    }

    /// `<claim>.acme.<zone>`: where the claim's answers stand.
    pub fn answer_name(&self, claim: &ClaimId) -> String {
        format!("{claim}.acme.{}", self.zone)
    }

    /// `_acme-challenge.<hostname>`: what a customer delegates. A wildcard's is its base's (RFC 8555, section 8.4).
    pub fn delegation_name(&self, hostname: &Hostname) -> String {
        format!("_acme-challenge.{}", hostname.base())
    }

    /// `<prefix>.<hostname>`.
    pub fn txt_name(&self, hostname: &Hostname) -> String {
        format!("{}.{}", self.txt_prefix, hostname.base())
    }
}
