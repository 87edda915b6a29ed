//! The DNS records a claim asks its customer for, in order, with what we see of each.
//!
//! Arrives: a claim. Leaves: the records of its path: one CNAME where DNS allows it, TXT and addresses at a zone's apex, the delegation of
//! its challenges first where the name is served elsewhere or is a wildcard. Goes wrong: nothing.

use domains::{Claim, Delegation, ProblemCode, Proof, Routing, State, ZoneSettings};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which records a customer sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Path {
    /// One CNAME, which is proof and routing at once.
    Cname,
    /// A TXT for the proof, addresses for the routing: where DNS allows no CNAME.
    TxtAndAddress,
    /// A CNAME at `_acme-challenge` for the proof and every certificate, and what routes the name once the edge serves it: for wildcards,
    /// and for names that are served elsewhere until they are switched.
    Delegation,
}

impl Path {
    /// The path that fits the hostname and what was seen of it: DNS forbids a CNAME at a zone's apex (RFC 1034, section 3.6.2).
    pub fn of(claim: &Claim) -> Self {
        match (claim.asks_for_delegation(), claim.key.hostname.is_apex()) {
            (true, _) => Self::Delegation,
            (false, true) => Self::TxtAndAddress,
            (false, false) => Self::Cname,
        }
    }
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Proves control and routes.
    ProofAndRouting,
    /// Proves control.
    Proof,
    /// Routes.
    Routing,
}

/// When a record is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Due {
    /// Now.
    #[default]
    Now,
    /// Not yet: once the edge serves the name's certificate, so that there is no moment without HTTPS.
    OnceServed,
}

/// One record to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsRecord {
    /// Its place in the order in which records are set, from 1.
    #[serde(default)]
    pub order: usize,
    /// Whether its time has come.
    #[serde(default)]
    pub due: Due,
    /// What it is for.
    pub purpose: Purpose,
    /// Its type.
    #[serde(rename = "type")]
    pub record_type: String,
    /// Its owner name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether the last look saw it; `null` before the first look.
    pub seen: Option<bool>,
    /// When it may be removed.
    pub removable: String,
}

/// The records of one path, in the order in which they are set.
pub fn records(claim: &Claim, zone: &ZoneSettings, path: Path) -> Vec<DnsRecord> {
    let mut records = match path {
        Path::Cname => vec![DnsRecord { purpose: Purpose::ProofAndRouting, ..cname(claim, zone) }],
        Path::TxtAndAddress => std::iter::once(txt(claim, zone)).chain(addresses(claim, zone)).collect(),
        Path::Delegation => {
            let hostname = &claim.key.hostname;
            let routes = match hostname.is_wildcard() || !hostname.is_apex() {
                true => vec![cname(claim, zone)],
                false => addresses(claim, zone).collect(),
            };
            let due = if may_be_switched(claim) { Due::Now } else { Due::OnceServed };
            let routes = routes.into_iter().map(|record| DnsRecord { due, ..record });
            std::iter::once(delegation(claim, zone)).chain(routes).collect()
        }
    };
    for (number, record) in records.iter_mut().enumerate() {
        record.order = number + 1;
    }
    records
}

/// Whether every edge serves the name: it asks for the switch, or the switch was seen. A name that nobody serves has nothing to lose.
fn may_be_switched(claim: &Claim) -> bool {
    let routing = claim.last_look.as_ref().map(|look| &look.routing);
    let asked = claim.suspension.is_none() && claim.problem.as_ref().is_some_and(|problem| problem.code == ProblemCode::NotRouted);
    let was_served = matches!(claim.state, State::Active { .. }) && routing.is_some_and(Routing::is_ours);
    asked || was_served || matches!(routing, Some(Routing::Nowhere))
}

fn delegation(claim: &Claim, zone: &ZoneSettings) -> DnsRecord {
    DnsRecord {
        order: 0,
        due: Due::Now,
        purpose: Purpose::Proof,
        record_type: "CNAME".into(),
        name: zone.delegation_name(&claim.key.hostname),
        value: zone.answer_name(&claim.claim_id),
        seen: claim.last_look.as_ref().map(|look| look.delegation == Delegation::Ours),
        removable: "when the domain is removed: every certificate is proved through it".into(),
    }
}

fn cname(claim: &Claim, zone: &ZoneSettings) -> DnsRecord {
    DnsRecord {
        order: 0,
        due: Due::Now,
        purpose: Purpose::Routing,
        record_type: "CNAME".into(),
        name: claim.key.hostname.to_string(),
        value: zone.routing_target(&claim.claim_id),
        seen: claim.last_look.as_ref().map(|look| look.routing == Routing::OurTarget),
        removable: "when the domain is removed: it routes every request".into(),
    }
}

fn txt(claim: &Claim, zone: &ZoneSettings) -> DnsRecord {
    DnsRecord {
        order: 0,
        due: Due::Now,
        purpose: Purpose::Proof,
        record_type: "TXT".into(),
        name: zone.txt_name(&claim.key.hostname),
        value: claim.token.to_string(),
        seen: claim.last_look.as_ref().map(|look| look.proof == Some(Proof::Txt)),
        removable: "when the domain is removed: it keeps another tenant from taking the name".into(),
    }
}

fn addresses(claim: &Claim, zone: &ZoneSettings) -> impl Iterator<Item = DnsRecord> {
    zone.edge_addresses.iter().map(|address| DnsRecord {
        order: 0,
        due: Due::Now,
        purpose: Purpose::Routing,
        record_type: if address.is_ipv4() { "A".into() } else { "AAAA".into() },
        name: claim.key.hostname.base().into(),
        value: address.to_string(),
        seen: claim.last_look.as_ref().map(|look| look.routing == Routing::EdgeAddresses),
        removable: "when the domain is removed: it routes every request".into(),
    })
}
