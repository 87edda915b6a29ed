//! The DNS records a claim asks its customer for, in order, with what we see of each.
//!
//! Arrives: a claim. Leaves: the records of its path: one CNAME where DNS allows it, TXT and addresses at a zone's apex. Goes wrong: nothing.

use domains::{Claim, Proof, Routing, ZoneSettings};
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
}

impl Path {
    /// The path that fits the hostname: DNS forbids a CNAME at a zone's apex (RFC 1034, section 3.6.2).
    pub fn of(claim: &Claim) -> Self {
        if claim.key.hostname.is_apex() { Self::TxtAndAddress } else { Self::Cname }
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

/// One record to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsRecord {
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

/// The records of one path.
pub fn records(claim: &Claim, zone: &ZoneSettings, path: Path) -> Vec<DnsRecord> {
    let hostname = claim.key.hostname.base();
    let look = claim.last_look.as_ref();
    match path {
        Path::Cname => vec![DnsRecord {
            purpose: Purpose::ProofAndRouting,
            record_type: "CNAME".into(),
            name: hostname.into(),
            value: zone.routing_target(&claim.claim_id),
            seen: look.map(|look| look.routing == Routing::OurTarget),
            removable: "when the domain is removed: it routes every request".into(),
        }],
        Path::TxtAndAddress => {
            let proof = DnsRecord {
                purpose: Purpose::Proof,
                record_type: "TXT".into(),
                name: zone.txt_name(&claim.key.hostname),
                value: claim.token.to_string(),
                seen: look.map(|look| look.proof == Some(Proof::Txt)),
                removable: "when the domain is removed: it keeps another tenant from taking the name".into(),
            };
            let routes = zone.edge_addresses.iter().map(|address| DnsRecord {
                purpose: Purpose::Routing,
                record_type: if address.is_ipv4() { "A".into() } else { "AAAA".into() },
                name: hostname.into(),
                value: address.to_string(),
                seen: look.map(|look| look.routing == Routing::EdgeAddresses),
                removable: "when the domain is removed: it routes every request".into(),
            });
            std::iter::once(proof).chain(routes).collect()
        }
    }
}
