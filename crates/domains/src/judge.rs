//! What a look means for one claim: a pure function of the facts.
//!
//! Arrives: a [`Look`] and the [`LookSubject`] it was made for. Leaves: a [`Judgement`]. Goes wrong: nothing; whatever is not proved
//! carries a [`Finding`] that says why.
//!
//! Presence needs two voices, the zone's own servers and the public resolver; absence needs only the zone's. What could not be read is
//! neither: it proves nothing, and it takes nothing away.

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::{Actor, Answer, ChainEnd, ClaimId, Failure, Finding, Look, LookSubject, Observed, ProblemCode, Proof};

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

/// What a look means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The proof, when authority and resolver agree that it is there.
    pub proof: Option<Proof>,
    /// Where the hostname leads, as authority and resolver agree. As long as either shows the CNAME of one other claim, it is that claim's.
    pub routing: Routing,
    /// Every TXT value at the proof's name that either side shows: another claim's token among them means that it has not left.
    pub txt_values: Vec<String>,
    /// Why there is no proof, or, once proved, why the name does not lead here.
    pub finding: Option<Finding>,
}

/// Judges a look.
pub fn judge(look: &Look, subject: &LookSubject) -> Judgement {
    let case = Case { look, subject };
    let cname = case.cname_evidence();
    let txt = case.txt_evidence();
    let proof = match (cname, txt) {
        (Evidence::Shown, _) => Some(Proof::RoutingRecord),
        (_, Evidence::Shown) => Some(Proof::Txt),
        _ => None,
    };
    let (routing, leads_elsewhere) = case.routing(cname);
    let finding = match proof {
        None => Some(case.unproved(cname, txt, &routing)),
        Some(_) => leads_elsewhere,
    };
    let values: BTreeSet<String> = voices(&look.txt).flat_map(Answer::records).map(|value| token_of(value).to_owned()).collect();
    Judgement { proof, routing, txt_values: values.into_iter().collect(), finding }
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
}

/// Where a name's addresses lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addresses {
    /// To the edge, every one.
    Edge,
    /// There are none, or none that IPv4 could use.
    None,
    /// Some A records are the edge's, some are not.
    Mixed,
    /// No A record is the edge's.
    Elsewhere,
    /// The A records are right or absent, and an AAAA record is not the edge's.
    AaaaElsewhere,
}

/// One look with what it is judged against.
#[derive(Clone, Copy)]
struct Case<'l> {
    look: &'l Look,
    subject: &'l LookSubject,
}

impl<'l> Case<'l> {
    /// Whether the hostname carries this claim's target; never asked at a registered domain, which cannot have a CNAME.
    fn cname_evidence(&self) -> Evidence<'l> {
        let target = &self.subject.routing_target;
        match self.aliasable() {
            true => Evidence::of(&self.look.cname, |answer| matches!(answer.records(), [only] if only == target)),
            false => Evidence::Absent,
        }
    }

    fn txt_evidence(&self) -> Evidence<'l> {
        Evidence::of(&self.look.txt, |answer| self.has_token(answer))
    }

    fn has_token(&self, answer: &Answer) -> bool {
        answer.records().iter().any(|value| token_of(value) == self.subject.token.as_str())
    }

    fn aliasable(&self) -> bool {
        self.subject.hostname.is_wildcard() || !self.subject.hostname.is_apex()
    }

    /// Where the name leads, and, when that is not here, what to do about it.
    fn routing(&self, cname: Evidence<'l>) -> (Routing, Option<Finding>) {
        let learned = match (cname, &self.look.cname.resolver) {
            (Evidence::Shown, _) => (Routing::OurTarget, None),
            (Evidence::Absent, Answer::Failed(failure)) if self.aliasable() => self.unknown(self.resolver_fails(failure, &self.cname())),
            (Evidence::Absent, _) => self.routing_without_our_target(),
            (unclear, _) => self.unknown(self.unclear(unclear, &self.look.cname, &self.cname())),
        };
        // Whoever else is named by any voice keeps the name for now: what a resolver still shows, people still reach.
        let others = self.other_claims();
        let mine_at_authority = matches!(cname, Evidence::Shown | Evidence::Propagating | Evidence::ResolverFails(_));
        match (others.first(), others.len()) {
            (None, _) => learned,
            (Some(other), count) => {
                let routing = if count == 1 { Routing::OtherClaim(other.clone()) } else { Routing::Unknown };
                (routing, if mine_at_authority { learned.1 } else { Some(self.cname_names(ProblemCode::DnsCnameOtherClaim)) })
            }
        }
    }

    fn routing_without_our_target(&self) -> (Routing, Option<Finding>) {
        if !self.aliasable() {
            return self.routing_by_address();
        }
        match Evidence::of(&self.look.cname, |answer| !answer.records().is_empty()) {
            Evidence::Absent => self.routing_by_address(),
            Evidence::Shown => self.routing_by_foreign_cname(),
            unclear => self.unknown(self.unclear(unclear, &self.look.cname, &self.cname())),
        }
    }

    /// The zone shows a CNAME that is not ours; where it ends only the resolver can tell.
    fn routing_by_foreign_cname(&self) -> (Routing, Option<Finding>) {
        if self.look.chain.contains(&self.subject.routing_target) {
            return (Routing::OurTarget, None);
        }
        match (self.look.chain_end, self.addresses(&self.look.a.resolver, &self.look.aaaa.resolver)) {
            (ChainEnd::Loop, _) => (Routing::Elsewhere, Some(self.cname_names(ProblemCode::DnsCnameLoop))),
            (ChainEnd::TooLong, _) => (Routing::Elsewhere, Some(self.cname_names(ProblemCode::DnsCnameTooLong))),
            (_, Err(failure)) => self.unknown(self.resolver_fails(failure, &self.cname())),
            (ChainEnd::Unknown, _) => self.unknown(self.resolver_fails(&Failure::Unreachable, &self.cname())),
            (ChainEnd::Complete, Ok(Addresses::Edge)) => (Routing::EdgeAddresses, None),
            (ChainEnd::Complete, Ok(Addresses::None)) => (Routing::Nowhere, Some(self.cname_names(ProblemCode::DnsCnameDangling))),
            (ChainEnd::Complete, Ok(_)) => (Routing::Elsewhere, Some(self.cname_names(ProblemCode::DnsCnameElsewhere))),
        }
    }

    fn routing_by_address(&self) -> (Routing, Option<Finding>) {
        let (a, aaaa) = (&self.look.a, &self.look.aaaa);
        let by_server = a.authority.iter().map(|said| {
            let other = aaaa.authority.iter().find(|other| other.server == said.server).map(|other| &other.answer);
            self.addresses(&said.answer, other.unwrap_or(&Answer::Failed(Failure::Unreachable)).to_owned_failure(other))
        });
        let seen: Vec<Result<Addresses, &Failure>> = by_server.collect();
        let answered: Vec<Addresses> = seen.iter().filter_map(|seen| seen.ok()).collect();
        let at_edge = answered.iter().filter(|leads| **leads == Addresses::Edge).count();
        let Some(&first) = answered.first() else {
            let failure = seen.iter().filter_map(|seen| seen.err()).min_by_key(|failure| vagueness(failure));
            return self.unknown(self.authority_fails(failure.unwrap_or(&Failure::Unreachable), a, &self.address_record(first_type(a, aaaa))));
        };
        if at_edge == 0 {
            return self.addresses_lead_elsewhere(first);
        }
        let record = self.address_record("A");
        if at_edge < answered.len() {
            return self.unknown(self.servers_disagree(a, &record));
        }
        match self.addresses(&a.resolver, &aaaa.resolver) {
            Err(failure) => self.unknown(self.resolver_fails(failure, &record)),
            Ok(Addresses::Edge) if self.look.cname.resolver.records().is_empty() => (Routing::EdgeAddresses, None),
            Ok(_) => self.unknown(self.propagating(a, &record)),
        }
    }
}
