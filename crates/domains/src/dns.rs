//! What one look at DNS found, as plain facts, so that judging it is a pure function and can be replayed.
//!
//! Arrives: a [`LookSubject`], what a claim expects of DNS. Leaves: a [`Look`], filled in by `lookups`. Goes wrong: every failure to
//! learn something is itself a fact ([`Failure`]); it never reads as an absence.

use std::net::IpAddr;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{CaChoice, ClaimId, Hostname, OwnershipToken};

/// What one claim expects to see in DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookSubject {
    /// The claimed name.
    pub hostname: Hostname,
    /// The claim whose target and token these are.
    pub claim_id: ClaimId,
    /// `<claim>.t.<zone>`: proof (a) and routing at once.
    pub routing_target: String,
    /// `t.<zone>`: what every claim's target lies under.
    pub targets_zone: String,
    /// `<prefix>.<hostname>`: where proof (b) stands.
    pub txt_name: String,
    /// What proof (b) must say.
    pub token: OwnershipToken,
    /// The edge's addresses, for names routed without a visible CNAME.
    pub edge_addresses: Vec<IpAddr>,
    /// The CAs that may be asked for the certificate, as CAA records would name them. Empty: CAA is read, and nobody is missed in it.
    #[serde(default)]
    pub issuers: Vec<CaaIssuer>,
    /// Whether the claim was proved before: its proof may have gone, and what leads here is renewed all the same.
    #[serde(default)]
    pub proved: bool,
    /// Proof (c); `None` in looks recorded before there was one.
    #[serde(default)]
    pub delegation: Option<DelegationSubject>,
}

/// What proof (c) expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationSubject {
    /// `_acme-challenge.<hostname>`: where the CNAME stands.
    pub name: String,
    /// `<claim>.acme.<zone>`: what it must name.
    pub target: String,
    /// `acme.<zone>`: what every claim's answers lie under.
    pub answers_zone: String,
    /// Whether the customer is asked for it, so that its absence is worth a question to the zone's own servers.
    pub wanted: bool,
}

/// A CA as CAA records name it, with our account there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaaIssuer {
    /// Which of our CAs it is.
    #[serde(default)]
    pub ca: CaChoice,
    /// The names it answers to: its directory's `caaIdentities` (RFC 8555, section 9.7.6). Empty: they are not known, and no record allows it.
    pub identities: Vec<String>,
    /// Our account's URL, which `accounturi` may name (RFC 8657, section 3); `None` while there is none, when nothing is held against it.
    #[serde(default)]
    pub account_uri: Option<String>,
    /// The challenges we answer there, which `validationmethods` may name (RFC 8657, section 4).
    pub methods: Vec<String>,
}

impl LookSubject {
    /// Whether DNS allows a CNAME at the hostname: not at a registered domain, where a zone begins.
    pub fn can_be_alias(&self) -> bool {
        self.hostname.is_wildcard() || !self.hostname.is_apex()
    }
}

/// Why a question got no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "failure", rename_all = "snake_case")]
pub enum Failure {
    /// SERVFAIL.
    Servfail,
    /// REFUSED, or an answer without authority from a server that the zone names (lame delegation).
    Refused,
    /// No answer in time, or no connection.
    Unreachable,
    /// Another response code or a message that cannot be read; the text says which.
    Malformed {
        /// What was wrong with it.
        detail: String,
    },
    /// The server's address is not on the public internet.
    NotGlobal,
    /// The server's name has no address.
    NoAddress,
    /// The look's budget of queries or time was spent.
    BudgetSpent,
}

/// The answer to one question from one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The records of the type asked for, as text: names lower-case without a trailing dot, addresses as they print, TXT with its strings
    /// joined and bytes that are not UTF-8 replaced. Sorted.
    Records(Vec<String>),
    /// The name exists, without this type.
    NoData,
    /// The name does not exist.
    NxDomain,
    /// Nothing was learned.
    Failed(Failure),
}

impl Answer {
    /// The records, empty when there are none.
    pub fn records(&self) -> &[String] {
        match self {
            Self::Records(records) => records,
            _ => &[],
        }
    }

    /// The failure, when nothing was learned.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            _ => None,
        }
    }
}

/// What one name server of the zone said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerAnswer {
    /// The server's name and address, `ns1.dns.net (192.0.2.1)`.
    pub server: String,
    /// What it said.
    pub answer: Answer,
}

/// One question, asked of the zone's own servers and of the public resolver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The name asked about.
    pub name: String,
    /// Each authoritative server's answer; empty when the zone's servers could not be found.
    pub authority: Vec<ServerAnswer>,
    /// The public resolver's answer.
    pub resolver: Answer,
}

/// How the CNAME chain from the hostname ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainEnd {
    /// At a name without a CNAME.
    Complete,
    /// It came back to itself.
    Loop,
    /// It was longer than we follow.
    TooLong,
    /// A question on the way failed.
    Unknown,
}

/// Everything one look learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The zone the hostname lies in, with its servers' names; the failure when the zone could not be found. `NxDomain` and `NoData` mean
    /// that the registered domain does not exist or has no servers.
    pub zone: Result<ZoneCut, Answer>,
    /// CNAME at the hostname.
    pub cname: Observed,
    /// The names of the CNAME chain after the hostname, as the resolver shows them.
    pub chain: Vec<String>,
    /// How the chain ended.
    pub chain_end: ChainEnd,
    /// A at the hostname, the chain followed.
    pub a: Observed,
    /// AAAA at the hostname, the chain followed.
    pub aaaa: Observed,
    /// TXT at the proof's name.
    pub txt: Observed,
    /// TXT at the proof's name with the zone's apex repeated; asked only when the TXT is missing.
    pub txt_doubled: Option<Observed>,
    /// What was asked only because of the answers above.
    #[serde(default)]
    pub further: Further,
    /// CNAME at `_acme-challenge.<hostname>`; `None` when it was not wanted and the resolver shows none.
    #[serde(default)]
    pub delegation: Option<Observed>,
    /// How many queries the look sent.
    pub queries: u32,
}

/// What a look asks only where the first answers made it worth asking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Further {
    /// CAA as the resolver shows it, from the hostname upwards to the first name that has some (RFC 8659, section 3); asked when the name
    /// is proved and leads here.
    pub caa: Vec<Asked>,
    /// HTTPS at the hostname, as the resolver shows it; asked when the name leads here by its own addresses.
    pub https: Option<Asked>,
    /// Asked when the resolver fails: whether DNSSEC is why, and where.
    pub dnssec: Option<Dnssec>,
    /// CNAME at the hostname with the zone's apex repeated, where there is one.
    pub cname_doubled: Option<Asked>,
    /// What a name beside the hostname gets that nobody created: something only where a wildcard answers.
    pub wildcard: Option<Asked>,
    /// CNAME where a zone begins and none can stand, as one of the zone's servers shows it.
    pub apex_cname: Option<Asked>,
}

/// One question to one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The name asked about.
    pub name: String,
    /// Who was asked: a server as in [`ServerAnswer`], or `resolver`.
    pub server: String,
    /// What was said.
    pub answer: Answer,
}

/// Why a validating resolver may have failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dnssec {
    /// The question that failed, `CNAME shop.brand.com`.
    pub question: String,
    /// The resolver's answer to it without checking signatures (CD, RFC 4035, section 3.2.2).
    pub unchecked: Answer,
    /// The reasons the resolver gave with its failure, by number (RFC 8914).
    pub extended_errors: Vec<u16>,
    /// The zones on the way to the name, from the registered domain downwards.
    pub zones: Vec<SignedZone>,
}

/// One zone's link in the chain of DNSSEC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedZone {
    /// The zone's apex.
    pub apex: String,
    /// What the parent says of its keys: `tag algorithm digest-type digest`.
    pub ds: Answer,
    /// The keys it has: `tag algorithm sha256-digest`.
    pub dnskey: Answer,
}

/// A zone and the servers its parent delegates it to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneCut {
    /// The zone's apex.
    pub apex: String,
    /// Its name servers' names.
    pub servers: Vec<String>,
}

/// Looks at DNS once.
#[async_trait]
pub trait OwnershipLookup: Send + Sync {
    /// Asks everything one look needs, within its budget of queries and time.
    ///
    /// Never fails as a whole: what could not be learned is in the [`Look`] as a [`Failure`].
    async fn look(&self, subject: &LookSubject) -> Look;
}
