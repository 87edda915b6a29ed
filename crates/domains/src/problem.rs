//! What stands in a domain's way, in words someone can act on.
//!
//! Arrives: a finding of a look or a refusal of a CA. Leaves: a [`Problem`] beside the state, never instead of it. Goes wrong: nothing;
//! a problem is data.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose move it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// The tenant, at their DNS provider.
    Customer,
    /// Whoever runs this installation.
    Operator,
    /// Nobody: time is expected to mend it, and we look again.
    Nameplate,
}

macro_rules! problem_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $code:literal),+ $(,)?) => {
        /// A stable code for what stands in a domain's way; clients may branch on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum ProblemCode {
            $($(#[doc = $doc])+ #[serde(rename = $code)] $variant,)+
        }

        impl ProblemCode {
            /// Every code, in the order of the documentation's table.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code as clients see it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// What it means, in one sentence: the text of the documentation's table.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii()),+ }
            }
        }
    };
}

problem_codes! {
    /// The registered domain does not exist or has no name servers.
    DnsZoneMissing = "dns.zone_missing",
    /// The hostname does not exist in its zone.
    DnsNameMissing = "dns.name_missing",
    /// The hostname exists but carries neither our CNAME nor our TXT.
    DnsRecordMissing = "dns.record_missing",
    /// The name routes to us by address, but the TXT proof is not there.
    DnsTxtMissing = "dns.txt_missing",
    /// A TXT record is there, with another value.
    DnsTxtMismatch = "dns.txt_mismatch",
    /// The TXT record stands at a name with the zone repeated, as some panels do.
    DnsTxtDoubled = "dns.txt_doubled",
    /// A CNAME to our target stands at the hostname with the zone repeated, as some panels do.
    DnsCnameDoubled = "dns.cname_doubled",
    /// The CNAME points somewhere that is not ours.
    DnsCnameElsewhere = "dns.cname_elsewhere",
    /// The CNAME points at a target of ours that belongs to another or an older claim.
    DnsCnameOtherClaim = "dns.cname_other_claim",
    /// The CNAME chain comes back to itself.
    DnsCnameLoop = "dns.cname_loop",
    /// The CNAME chain is longer than resolvers follow.
    DnsCnameTooLong = "dns.cname_too_long",
    /// The CNAME chain ends at a name without an address.
    DnsCnameDangling = "dns.cname_dangling",
    /// The hostname's CNAME resolves, and the name it leads to belongs to a zone that fails.
    DnsCnameTargetFails = "dns.cname_target_fails",
    /// A CNAME stands where a zone begins, beside records that must be there.
    DnsCnameAtApex = "dns.cname_at_apex",
    /// The name leads here by addresses, and the CNAME that would prove it is hidden: the provider answers with the target's addresses.
    DnsCnameFlattened = "dns.cname_flattened",
    /// A wildcard of the customer's zone answers for the hostname, and leads elsewhere.
    DnsWildcardElsewhere = "dns.wildcard_elsewhere",
    /// The TXT below the hostname made the name exist, so the zone's wildcard no longer answers for it.
    DnsWildcardSwitchedOff = "dns.wildcard_switched_off",
    /// The name's A records are not the edge's.
    DnsAddressElsewhere = "dns.address_elsewhere",
    /// Some A records are the edge's and some are not.
    DnsAddressMixed = "dns.address_mixed",
    /// The name's addresses belong to a proxying CDN, which answers in our place.
    DnsProxied = "dns.proxied",
    /// The name's addresses are private, loopback or link-local: nobody outside that network reaches them.
    DnsAddressPrivate = "dns.address_private",
    /// The A records are right, but an AAAA record leads elsewhere, and CAs try IPv6 first.
    DnsAaaaElsewhere = "dns.aaaa_elsewhere",
    /// The name leads here, but its HTTPS record sends browsers elsewhere.
    DnsHttpsElsewhere = "dns.https_elsewhere",
    /// Proved, but neither CNAME nor address leads to the edge yet.
    DnsRoutingMissing = "dns.routing_missing",
    /// The name is served elsewhere: it is proved and gets its certificate before it is switched.
    DnsLiveElsewhere = "dns.live_elsewhere",
    /// The name's dns-01 challenges are not delegated to us.
    DnsDelegationMissing = "dns.delegation_missing",
    /// The name's dns-01 challenges are delegated somewhere else.
    DnsDelegationElsewhere = "dns.delegation_elsewhere",
    /// The zone's name servers answer SERVFAIL.
    DnsServfail = "dns.servfail",
    /// The zone's name servers refuse to answer for it.
    DnsRefused = "dns.refused",
    /// The zone's name servers do not answer in time.
    DnsUnreachable = "dns.unreachable",
    /// The zone's name servers send something that is not a usable answer.
    DnsMalformed = "dns.malformed",
    /// The zone's name servers have only addresses that are not on the public internet.
    DnsServerNotGlobal = "dns.server_not_global",
    /// A name server that the zone names has no address.
    DnsServerMissing = "dns.server_missing",
    /// Some of the zone's name servers do not serve it, though others do.
    DnsServerLame = "dns.server_lame",
    /// The zone's name servers do not agree with each other.
    DnsServersDisagree = "dns.servers_disagree",
    /// The authority has the record; the public resolver does not show it yet.
    DnsPropagating = "dns.propagating",
    /// The public resolver still shows the record; the zone's servers no longer have it.
    DnsRecordWithdrawn = "dns.record_withdrawn",
    /// The zone's signatures do not verify (DNSSEC), and neither its keys nor their dates say why.
    DnssecBogus = "dns.dnssec_bogus",
    /// The zone's signatures are past their date, or not valid yet.
    DnssecExpired = "dns.dnssec_expired",
    /// The zone's parent announces a key (DS) that the zone does not have.
    DnssecKeyMismatch = "dns.dnssec_key_mismatch",
    /// The zone's parent announces that it is signed, and its records or its denials carry no signature.
    DnssecUnsigned = "dns.dnssec_unsigned",
    /// The authority answers; the public resolver fails for the name, and not because of DNSSEC.
    DnsResolverServfail = "dns.resolver_servfail",
    /// The public resolver could not be reached, or refuses to answer us.
    DnsResolverUnreachable = "dns.resolver_unreachable",
    /// The look needed more queries or time than one look may spend.
    DnsTooManyQueries = "dns.too_many_queries",
    /// CAA records name other CAs only.
    CaaForbids = "caa.forbids",
    /// CAA records name our CA, for another account.
    CaaForbidsAccount = "caa.forbids_account",
    /// CAA records name our CA, for challenges that we do not answer.
    CaaForbidsMethod = "caa.forbids_method",
    /// CAA records allow our CA for names, and not for wildcards.
    CaaForbidsWildcard = "caa.forbids_wildcard",
    /// CAA records carry a critical property that no CA knows.
    CaaCriticalUnknown = "caa.critical_unknown",
    /// The question for CAA records fails, which CAs take for a no.
    CaaUnreadable = "caa.unreadable",
    /// The name is proved and served for another tenant.
    ClaimedElsewhere = "claim.claimed_elsewhere",
    /// Another tenant proved the name; unless this tenant's records stay, it changes hands.
    Contested = "claim.contested",
    /// The domain is served, but its DNS no longer leads here: renewal will fail.
    AtRisk = "domain.at_risk",
    /// The edge serves the domain; the name itself does not lead here yet.
    NotRouted = "domain.not_routed",
    /// The order waits for its turn under the CA's limits, as we count them; nothing was refused.
    CaQueued = "ca.queued",
    /// The CA asks to wait.
    CaRateLimited = "ca.rate_limited",
    /// The CA issues no more for this name until somebody visits the page that it names.
    CaPaused = "ca.paused",
    /// The CA refused this name very often in a row; nothing more is ordered until a person asks for a check.
    CaSuspended = "ca.suspended",
    /// The CA cannot be reached or fails on its side.
    CaUnavailable = "ca.unavailable",
    /// The CA could not fetch the challenge from the hostname.
    CaChallengeFailed = "ca.challenge_failed",
    /// CAA records forbid this CA.
    CaCaaForbids = "ca.caa_forbids",
    /// The CA's own look at DNS failed.
    CaDnsFailed = "ca.dns_failed",
    /// The CA will not issue for this name.
    CaRejectedIdentifier = "ca.rejected_identifier",
    /// The CA refuses our account; the operator must act.
    CaAccountRefused = "ca.account_refused",
    /// The CA refused something that we made; a defect of ours or of the CA.
    CaRefused = "ca.refused",
    /// The certificate the CA returned is not the one we asked for.
    CaWrongCertificate = "ca.wrong_certificate",
}

/// What stands in a domain's way: a stable code, who must act, what to do, what we expected and saw, and when we look again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// The stable code.
    pub code: ProblemCode,
    /// Whose move it is.
    pub actor: Actor,
    /// Exactly what to do.
    pub action: String,
    /// The DNS record or the peer it is about.
    pub about: String,
    /// What should have been there.
    pub expected: String,
    /// What was there.
    pub saw: String,
    /// When this problem was first seen.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// Since when the domain waits without a break, whichever problems of this kind took turns meanwhile; `None` where nothing waits, as for
    /// advice, and in what was written before this was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub waits_since: Option<Timestamp>,
    /// When we look again.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub next_look: Timestamp,
}

/// A [`Problem`] before the clock has been asked: what a pure judge returns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The stable code.
    pub code: ProblemCode,
    /// Whose move it is.
    pub actor: Actor,
    /// Exactly what to do.
    pub action: String,
    /// The DNS record or the peer it is about.
    pub about: String,
    /// What should have been there.
    pub expected: String,
    /// What was there.
    pub saw: String,
}

impl ProblemCode {
    /// Whether a look at DNS finds it, so that the next look says whether it still stands.
    pub fn is_of_a_look(self) -> bool {
        self.as_str().starts_with("dns.") || self.as_str().starts_with("caa.")
    }
}

impl ProblemCode {
    /// Whether a wait with this problem goes on as one with that problem: both are about the name's DNS, or both about the CA's time. A name at
    /// risk waits for itself alone, since its grace counts from when it left.
    fn waits_like(self, other: Self) -> bool {
        let waits_for_dns = |code: Self| code.is_of_a_look() || code == Self::NotRouted;
        self == other || waits_for_dns(self) && waits_for_dns(other) || self.is_wait_for_ca() && other.is_wait_for_ca()
    }

    /// Whether only time at the CA is waited for.
    pub(crate) fn is_wait_for_ca(self) -> bool {
        matches!(self, Self::CaQueued | Self::CaRateLimited | Self::CaUnavailable)
    }
}

impl Problem {
    /// Whether nothing waits for it to be mended. Of what was written before that was kept, it is not known either; the next look mends that.
    pub(crate) fn is_advice(&self) -> bool {
        self.waits_since.is_none()
    }

    /// Since when the domain waits, if it goes on waiting with this code; now, if that wait begins only now. What alternates between codes waits
    /// as long as what keeps one.
    pub(crate) fn wait_of(before: Option<&Self>, code: ProblemCode, now: Timestamp) -> Timestamp {
        let same = before.filter(|problem| problem.code == code).map(|problem| problem.since);
        before.filter(|problem| problem.code.waits_like(code)).and_then(|problem| problem.waits_since).or(same).unwrap_or(now)
    }
}

impl Finding {
    /// Dates what stands in nobody's way: nothing waits for it.
    pub(crate) fn into_advice(self, before: Option<&Problem>, now: Timestamp, next_look: Timestamp) -> Problem {
        Problem { waits_since: None, ..self.into_problem(before, now, next_look) }
    }

    /// Dates the finding; a problem that stays keeps its first date, and one that takes over from another of its kind goes on with its wait.
    pub fn into_problem(self, before: Option<&Problem>, now: Timestamp, next_look: Timestamp) -> Problem {
        let since = before.filter(|problem| problem.code == self.code).map_or(now, |problem| problem.since);
        let waits_since = Problem::wait_of(before, self.code, now);
        Problem {
            code: self.code,
            actor: self.actor,
            action: self.action,
            about: self.about,
            expected: self.expected,
            saw: self.saw,
            since,
            waits_since: Some(waits_since),
            next_look,
        }
    }
}
