//! What a look means for one claim: a pure function of the facts.
//!
//! Arrives: a [`Look`] and the [`LookSubject`] it was made for. Leaves: a [`Judgement`]. Goes wrong: nothing; whatever is not proved
//! carries a [`Finding`] that says why.
//!
//! Presence needs two voices, the zone's own servers and the public resolver; absence needs only the zone's. What could not be read is
//! neither: it proves nothing, and it takes nothing away.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{
    Answer, CertificateWay, ChainEnd, ChallengeKind, ClaimId, Failure, Finding, Look, LookSubject, Observed, ProblemCode, Proof,
    networks::{Proxy, is_private, proxy_of},
};

use caa::Caa;

mod advice;
mod caa;
mod dnssec;
mod findings;

/// Where the hostname leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// To this claim's target, by a visible CNAME.
    OurTarget,
    /// To the edge's addresses, without a visible CNAME to a target.
    EdgeAddresses,
    /// To the target of another claim.
    OtherClaim(ClaimId),
    /// Somewhere else.
    Elsewhere,
    /// Nowhere.
    Nowhere,
    /// It could not be learned.
    Unknown,
}

impl Routing {
    /// Whether requests for the hostname reach the edge on this claim's account.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::OurTarget | Self::EdgeAddresses)
    }
}

/// Where the name's dns-01 challenges lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delegation {
    /// Nowhere: there is no CNAME.
    #[default]
    None,
    /// To this claim's name in the answer zone, as authority and resolver agree.
    Ours,
    /// To the name of another claim there, as either of them shows.
    OtherClaim(ClaimId),
    /// Somewhere else.
    Elsewhere,
    /// It could not be learned.
    Unknown,
}

/// What a look means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The proof, when authority and resolver agree that it is there.
    pub proof: Option<Proof>,
    /// Where the hostname leads, as authority and resolver agree. As long as either shows the CNAME of one other claim, it is that claim's.
    pub routing: Routing,
    /// Where its dns-01 challenges lead.
    #[serde(default)]
    pub delegation: Delegation,
    /// Every TXT value at the proof's name that either side shows: another claim's token among them means that it has not left.
    pub txt_values: Vec<String>,
    /// The first thing to tell people: why there is no proof; once proved, why the name does not lead here; once it does, the obstacle to
    /// an order; and when there is none, the advice.
    pub finding: Option<Finding>,
    /// Why every CA would refuse although the name leads here.
    pub obstacle: Option<Finding>,
    /// The ways to a certificate that CAA records forbid.
    #[serde(default)]
    pub forbidden: Vec<CertificateWay>,
    /// What hurts without stopping anything; looked for only where nothing else is in the way.
    pub advice: Option<Finding>,
}

impl Judgement {
    /// Whether an order would be worth making: the name or its dns-01 challenges lead here, and nothing seen makes the CA refuse.
    pub fn may_order(&self) -> bool {
        (self.routing.is_ours() || self.delegation == Delegation::Ours) && self.obstacle.is_none()
    }
}

/// Judges a look.
pub fn judge(look: &Look, subject: &LookSubject) -> Judgement {
    let case = Case { look, subject };
    let cname = case.cname_evidence();
    let txt = case.txt_evidence();
    let delegated = case.delegation_evidence();
    let proof = match (delegated, cname, txt) {
        (Evidence::Shown, ..) => Some(Proof::Delegation),
        // A wildcard has no other challenge than dns-01, so no other proof is of use (RFC 8555, section 7.1.3).
        _ if subject.hostname.is_wildcard() => None,
        (_, Evidence::Shown, _) => Some(Proof::RoutingRecord),
        (_, _, Evidence::Shown) => Some(Proof::Txt),
        _ => None,
    };
    let (routing, misled) = case.routing(cname);
    let finding = match proof {
        None => Some(case.unproved(cname, txt, delegated, &routing, misled)),
        // A token proves as much while the name is served elsewhere or stands behind a proxy, and the certificate can come all the same.
        Some(Proof::Txt) if case.is_live(misled.as_ref()) => Some(case.live_elsewhere()),
        Some(_) => misled,
    };
    let delegation = case.delegation(delegated);
    let Caa { obstacle, forbidden } = case.caa(&case.usable(&routing, &delegation));
    let advice = if finding.is_none() && obstacle.is_none() { case.advice() } else { None };
    let [finding, obstacle, advice] = [finding, obstacle, advice].map(|found| found.map(|finding| case.at_the_provider(finding)));
    // A delegated name is ordered before it leads here, so what keeps the CA from it comes first; any other must lead here first.
    let finding = match delegation {
        Delegation::Ours => obstacle.clone().or(finding),
        _ => finding.or_else(|| obstacle.clone()),
    };
    let finding = finding.or_else(|| advice.clone());
    let values: BTreeSet<String> = voices(&look.txt).flat_map(Answer::records).map(|value| token_of(value).to_owned()).collect();
    Judgement { proof, routing, delegation, txt_values: values.into_iter().collect(), finding, obstacle, forbidden, advice }
}

/// What both voices together say about one thing that a record may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evidence<'l> {
    /// Every server that answered has it, and so has the resolver.
    Shown,
    /// Every server that answered has it; the resolver answers without.
    Propagating,
    /// Every server that answered has it; the resolver fails.
    ResolverFails(&'l Failure),
    /// Some servers have it, some answer without.
    Disagree,
    /// Every server that answered is without.
    Absent,
    /// No server answered.
    Unreadable(&'l Failure),
}

impl<'l> Evidence<'l> {
    fn of(observed: &'l Observed, shows: impl Fn(&Answer) -> bool) -> Self {
        let answered = observed.authority.iter().filter(|said| said.answer.failure().is_none());
        let (with, without): (Vec<_>, Vec<_>) = answered.partition(|said| shows(&said.answer));
        match (with.is_empty(), without.is_empty()) {
            (false, false) => Self::Disagree,
            (true, false) => Self::Absent,
            (true, true) => {
                let failures = observed.authority.iter().filter_map(|said| said.answer.failure());
                Self::Unreadable(failures.min_by_key(|failure| vagueness(failure)).unwrap_or(&Failure::Unreachable))
            }
            (false, true) => match &observed.resolver {
                Answer::Failed(failure) => Self::ResolverFails(failure),
                answer if shows(answer) => Self::Shown,
                _ => Self::Propagating,
            },
        }
    }

    /// How far from a proof this is: what only time or a second party keeps from being one comes first.
    fn distance(self) -> u8 {
        match self {
            Self::Shown => 0,
            Self::Propagating => 1,
            Self::ResolverFails(_) => 2,
            Self::Disagree => 3,
            Self::Unreadable(_) => 4,
            Self::Absent => 5,
        }
    }
}

/// Where a name's addresses lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    /// To the edge, every one.
    Edge,
    /// There is none, or none that IPv4 could use.
    None,
    /// Some A records are the edge's, some are not.
    Mixed,
    /// No A record is the edge's.
    Elsewhere,
    /// The A records are right or absent, and an AAAA record is not the edge's.
    AaaaElsewhere,
    /// To a proxying CDN.
    Proxied(&'static Proxy),
    /// To addresses that nobody outside a network of somebody's own reaches.
    Private,
}

/// Where the name leads, and, when that is not here, what to do about it.
type Route = (Routing, Option<Finding>);

/// One look with what it is judged against.
#[derive(Clone, Copy)]
struct Case<'l> {
    look: &'l Look,
    subject: &'l LookSubject,
}

impl<'l> Case<'l> {
    /// Whether the hostname itself carries this claim's target; the names after it may be anyone's. Not asked where there can be no CNAME.
    fn cname_evidence(&self) -> Evidence<'l> {
        let target = &self.subject.routing_target;
        match self.subject.can_be_alias() {
            true => Evidence::of(&self.look.cname, |answer| matches!(answer.records(), [only] if only == target)),
            false => Evidence::Absent,
        }
    }

    fn txt_evidence(&self) -> Evidence<'l> {
        Evidence::of(&self.look.txt, |answer| self.has_token(answer))
    }

    /// Whether the name is served somewhere else, all of it: what leads here in part is not live there, it is wrong.
    fn is_live(&self, misled: Option<&Finding>) -> bool {
        let elsewhere = |code| matches!(code, ProblemCode::DnsCnameElsewhere | ProblemCode::DnsAddressElsewhere);
        self.subject.delegation.is_some() && misled.is_some_and(|finding| elsewhere(finding.code))
    }

    /// Whether `_acme-challenge` carries this claim's name in the answer zone, and nothing else.
    fn delegation_evidence(&self) -> Evidence<'l> {
        match (&self.subject.delegation, &self.look.delegation) {
            (Some(expected), Some(observed)) => {
                Evidence::of(observed, |answer| matches!(answer.records(), [only] if *only == expected.target))
            }
            _ => Evidence::Absent,
        }
    }

    fn delegation(&self, evidence: Evidence<'l>) -> Delegation {
        let Some(observed) = &self.look.delegation else { return Delegation::None };
        let others: BTreeSet<ClaimId> = voices(observed)
            .flat_map(Answer::records)
            .filter_map(|target| claim_below(target, &self.subject.delegation.as_ref()?.answers_zone))
            .filter(|claim| *claim != self.subject.claim_id)
            .collect();
        // Whoever else is named by any voice keeps the name for now, as with routing.
        match (others.first(), others.len(), evidence) {
            (Some(other), 1, _) => Delegation::OtherClaim(other.clone()),
            (Some(_), ..) => Delegation::Unknown,
            (None, _, Evidence::Shown) => Delegation::Ours,
            (None, _, Evidence::Absent) if from_authority(observed).any(|answer| !answer.records().is_empty()) => Delegation::Elsewhere,
            (None, _, Evidence::Absent) => Delegation::None,
            (None, ..) => Delegation::Unknown,
        }
    }

    /// The challenges that could be answered for the name as it stands; where none can yet, those that may be one day.
    fn usable(&self, routing: &Routing, delegation: &Delegation) -> Vec<ChallengeKind> {
        let is_wildcard = self.subject.hostname.is_wildcard();
        let mut usable = Vec::new();
        if routing.is_ours() && !is_wildcard {
            usable.push(ChallengeKind::Http01);
        }
        if *delegation == Delegation::Ours {
            usable.push(ChallengeKind::Dns01);
        }
        match (usable.is_empty(), is_wildcard) {
            (false, _) => usable,
            (true, true) => vec![ChallengeKind::Dns01],
            (true, false) => ChallengeKind::ALL.to_vec(),
        }
    }

    fn has_token(&self, answer: &Answer) -> bool {
        answer.records().iter().any(|value| token_of(value) == self.subject.token.as_str())
    }

    fn routing(&self, cname: Evidence<'l>) -> Route {
        let learned = match (&self.look.zone, cname) {
            (Err(answer @ (Answer::NxDomain | Answer::NoData)), _) => (Routing::Nowhere, Some(self.no_zone(answer))),
            (Err(answer), _) => unknown(self.no_zone(answer)),
            (Ok(_), Evidence::Shown) => (Routing::OurTarget, None),
            (Ok(_), Evidence::Absent) => self.routing_without_our_target(),
            (Ok(_), unclear) => unknown(self.unclear(unclear, &self.look.cname, &self.cname())),
        };
        // Whoever else is named by any voice keeps the name for now: where a resolver still leads, people still go.
        let others = self.other_claims();
        let routing = match (others.first(), others.len()) {
            (None, _) => return learned,
            (Some(other), 1) => Routing::OtherClaim(other.clone()),
            _ => Routing::Unknown,
        };
        // Where the zone is right already, only the old record has not left every cache.
        let mended = matches!(cname, Evidence::Shown | Evidence::Propagating | Evidence::ResolverFails(_));
        let finding = learned.1.filter(|_| mended).unwrap_or_else(|| self.wrong_cname(ProblemCode::DnsCnameOtherClaim));
        (routing, Some(finding))
    }

    fn routing_without_our_target(&self) -> Route {
        let answered = from_authority(&self.look.a).any(|answer| answer.failure().is_none());
        if let Some(asked) = self.look.further.apex_cname.as_ref().filter(|asked| answered && !asked.answer.records().is_empty()) {
            return (Routing::Elsewhere, Some(self.cname_at_apex(asked)));
        }
        if !self.subject.can_be_alias() {
            return self.routing_by_address();
        }
        if let Answer::Failed(failure) = &self.look.cname.resolver {
            return unknown(self.resolver_fails(failure, &self.cname()));
        }
        match Evidence::of(&self.look.cname, |answer| !answer.records().is_empty()) {
            Evidence::Absent => self.routing_by_address(),
            Evidence::Shown => self.routing_by_foreign_cname(),
            unclear => unknown(self.unclear(unclear, &self.look.cname, &self.cname())),
        }
    }

    /// Everybody shows a CNAME that is not ours; where it ends only the resolver can tell.
    fn routing_by_foreign_cname(&self) -> Route {
        if self.look.chain.contains(&self.subject.routing_target) {
            return (Routing::OurTarget, None);
        }
        let elsewhere = |code| (Routing::Elsewhere, Some(self.wrong_cname(code)));
        match (self.look.chain_end, self.addresses(&self.look.a.resolver, &self.look.aaaa.resolver)) {
            (ChainEnd::Loop, _) => elsewhere(ProblemCode::DnsCnameLoop),
            (ChainEnd::TooLong, _) => elsewhere(ProblemCode::DnsCnameTooLong),
            (_, Err(failure)) => unknown(self.target_fails(failure)),
            (ChainEnd::Unknown, _) => unknown(self.resolver_fails(&Failure::Unreachable, &self.cname())),
            (ChainEnd::Complete, Ok(Addresses::Edge)) => (Routing::EdgeAddresses, None),
            (ChainEnd::Complete, Ok(Addresses::None)) => (Routing::Nowhere, Some(self.wrong_cname(ProblemCode::DnsCnameDangling))),
            (ChainEnd::Complete, Ok(_)) if self.is_a_wildcards(&self.look.cname) => {
                (Routing::Elsewhere, Some(self.wildcard_elsewhere(&self.look.cname, "CNAME")))
            }
            (ChainEnd::Complete, Ok(_)) => elsewhere(ProblemCode::DnsCnameElsewhere),
        }
    }

    /// The zone has no CNAME here, so its own addresses say where the name leads: a name elsewhere is so by the zone's word alone, a name
    /// at the edge only when the resolver agrees. Sets are not compared with each other, since many zones show each asker another part.
    fn routing_by_address(&self) -> Route {
        let (a, aaaa) = (&self.look.a, &self.look.aaaa);
        let mut seen = Vec::new();
        let mut failed = Vec::new();
        for said in &a.authority {
            let six = aaaa.authority.iter().find(|six| six.server == said.server).map_or(&NOT_ASKED, |six| &six.answer);
            match self.addresses(&said.answer, six) {
                Ok(addresses) => seen.push(addresses),
                Err(failure) => failed.push(failure),
            }
        }
        let record = self.addresses_of_hostname();
        let Some(&first) = seen.first() else {
            let failure = failed.into_iter().min_by_key(|failure| vagueness(failure)).unwrap_or(&Failure::Unreachable);
            return unknown(self.authority_fails(failure, a, &record));
        };
        if !seen.contains(&Addresses::Edge) {
            return match first {
                Addresses::None if self.wildcard_is_off() => (Routing::Nowhere, Some(self.wildcard_switched_off())),
                Addresses::None => (Routing::Nowhere, Some(self.wrong_addresses(first))),
                _ if self.is_a_wildcards(a) => (Routing::Elsewhere, Some(self.wildcard_elsewhere(a, "A"))),
                _ => (Routing::Elsewhere, Some(self.wrong_addresses(first))),
            };
        }
        if seen.iter().any(|addresses| *addresses != Addresses::Edge) {
            return unknown(self.servers_disagree(a, &record));
        }
        match self.addresses(&a.resolver, &aaaa.resolver) {
            Err(failure) => unknown(self.resolver_fails(failure, &record)),
            Ok(Addresses::Edge) if self.look.cname.resolver.records().is_empty() => (Routing::EdgeAddresses, None),
            Ok(_) => unknown(self.propagating(a, &record)),
        }
    }

    fn addresses(&self, a: &'l Answer, aaaa: &'l Answer) -> Result<Addresses, &'l Failure> {
        if let Some(failure) = a.failure().or(aaaa.failure()) {
            return Err(failure);
        }
        let foreign = |answer: &Answer| answer.records().iter().filter(|address| !self.is_edge(address)).count();
        Ok(match (a.records().len(), foreign(a), aaaa.records().len(), foreign(aaaa)) {
            (_, 0, _, 1..) => Addresses::AaaaElsewhere,
            (0, ..) => Addresses::None,
            (_, 0, ..) => Addresses::Edge,
            (all, strays, ..) if all == strays => self.elsewhere(a),
            _ => Addresses::Mixed,
        })
    }

    /// What kind of elsewhere it is, when every address is of that kind.
    fn elsewhere(&self, a: &Answer) -> Addresses {
        let addresses: Vec<IpAddr> = a.records().iter().filter_map(|address| address.parse().ok()).collect();
        let proxy = addresses.first().and_then(|address| proxy_of(*address));
        match proxy {
            Some(proxy) if addresses.iter().all(|address| proxy_of(*address) == Some(proxy)) => Addresses::Proxied(proxy),
            _ if !addresses.is_empty() && addresses.iter().all(|address| is_private(*address)) => Addresses::Private,
            _ => Addresses::Elsewhere,
        }
    }

    /// Whether a name beside the hostname, which nobody created, gets the very same: then a wildcard speaks, and the hostname has no record.
    fn is_a_wildcards(&self, observed: &Observed) -> bool {
        let beside = self.look.further.wildcard.as_ref().map_or(&[][..], |asked| asked.answer.records());
        !beside.is_empty() && from_authority(observed).filter(|answer| answer.failure().is_none()).all(|answer| answer.records() == beside)
    }

    /// Whether a wildcard answers beside the hostname, and the TXT below the hostname keeps it from answering for it (RFC 4592, section 2.2.2).
    fn wildcard_is_off(&self) -> bool {
        let beside = self.look.further.wildcard.as_ref().is_some_and(|asked| !asked.answer.records().is_empty());
        beside && self.prefers_cname() && from_authority(&self.look.txt).any(|answer| !answer.records().is_empty())
    }

    fn is_edge(&self, address: &str) -> bool {
        address.parse::<IpAddr>().is_ok_and(|address| self.subject.edge_addresses.contains(&address))
    }

    /// The claims, other than this one, whose targets anybody shows on the way from the hostname.
    fn other_claims(&self) -> BTreeSet<ClaimId> {
        let shown = voices(&self.look.cname).flat_map(Answer::records).chain(&self.look.chain);
        shown.filter_map(|target| self.claim_of(target)).filter(|claim| *claim != self.subject.claim_id).collect()
    }

    /// The claim whose target this is; the claim's label is all that stands before the targets' zone.
    fn claim_of(&self, target: &str) -> Option<ClaimId> {
        claim_below(target, &self.subject.targets_zone)
    }
}

fn claim_below(target: &str, zone: &str) -> Option<ClaimId> {
    ClaimId::parse(target.strip_suffix(zone)?.strip_suffix('.')?).ok()
}

/// Stands in for the answer of a server that was asked for one kind of address only.
static NOT_ASKED: Answer = Answer::Failed(Failure::Unreachable);

fn unknown(finding: Finding) -> Route {
    (Routing::Unknown, Some(finding))
}

/// The zone's servers, then the resolver.
fn voices(observed: &Observed) -> impl Iterator<Item = &Answer> {
    from_authority(observed).chain([&observed.resolver])
}

fn from_authority(observed: &Observed) -> impl Iterator<Item = &Answer> {
    observed.authority.iter().map(|said| &said.answer)
}

/// A TXT value as the token it may be: panels add quotes and spaces.
fn token_of(value: &str) -> &str {
    value.trim_matches(|c: char| c == '"' || c.is_whitespace())
}

/// Orders failures from the one that tells most. What a server said tells more than its silence.
fn vagueness(failure: &Failure) -> u8 {
    match failure {
        Failure::Servfail => 0,
        Failure::Refused => 1,
        Failure::Malformed { .. } => 2,
        Failure::Unreachable => 3,
        Failure::NotGlobal => 4,
        Failure::NoAddress => 5,
        Failure::BudgetSpent => 6,
    }
}
