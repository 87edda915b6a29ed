//! What a look means for one claim: a pure function of the facts.
//!
//! Arrives: a [`Look`] and the [`LookSubject`] it was made for. Leaves: a [`Judgement`]. Goes wrong: nothing; whatever is not proved
//! carries a [`Finding`] that says why.

use serde::{Deserialize, Serialize};

use std::net::IpAddr;

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
    /// Where the hostname leads, as authority and resolver agree.
    pub routing: Routing,
    /// Every TXT value at the proof's name that either side shows: another claim's token among them means that it has not left.
    pub txt_values: Vec<String>,
    /// Why there is no proof, or, once proved, why the name does not lead here.
    pub finding: Option<Finding>,
}

/// Judges a look.
///
/// A proof counts when every server of the zone that answers and the public resolver show it. What could not be learned is never an absence:
/// it has a finding of its own.
pub fn judge(look: &Look, subject: &LookSubject) -> Judgement {
    let judge = Judge { look, subject };
    let mut txt_values: Vec<String> = everywhere(&look.txt);
    txt_values.sort();
    txt_values.dedup();
    let routing = judge.routing();
    let proof = judge.proof(&routing);
    let finding = match (&proof, routing.is_ours()) {
        (Ok(_), true) => None,
        (Ok(_), false) => Some(judge.why_not_routed(&routing)),
        (Err(finding), _) => Some(finding.clone()),
    };
    Judgement { proof: proof.ok(), routing, txt_values, finding }
}

struct Judge<'a> {
    look: &'a Look,
    subject: &'a LookSubject,
}

/// What authority and resolver together say about one question.
enum Agreed<'a> {
    /// Both show these records.
    Records(&'a [String]),
    /// Both show none.
    Nothing,
    /// They do not say the same, or one of them said nothing.
    Open(ProblemCode, String),
}

impl Judge<'_> {
    fn agreed<'a>(&self, observed: &'a Observed) -> Agreed<'a> {
        let mut answers = observed.authority.iter().map(|server| (&server.server, &server.answer));
        let usable: Vec<_> = answers.clone().filter(|(_, answer)| answer.failure().is_none()).collect();
        let Some((_, first)) = usable.first() else {
            let Some((server, failure)) = answers.find_map(|(server, answer)| answer.failure().map(|failure| (server.as_str(), failure)))
            else {
                return Agreed::Open(ProblemCode::DnsUnreachable, "no name server of the zone was asked".into());
            };
            return Agreed::Open(failure_code(failure), format!("{server}: {}", failure_words(failure)));
        };
        if let Some((server, other)) = usable.iter().find(|(_, answer)| answer.records() != first.records()) {
            let saw = format!("{}: {}; {server}: {}", usable[0].0, words(first), words(other));
            return Agreed::Open(ProblemCode::DnsServersDisagree, saw);
        }
        match &observed.resolver {
            Answer::Failed(Failure::Unreachable) => {
                Agreed::Open(ProblemCode::DnsResolverUnreachable, "the public resolver does not answer".into())
            }
            Answer::Failed(failure @ (Failure::BudgetSpent | Failure::NotGlobal)) => {
                Agreed::Open(failure_code(failure), failure_words(failure))
            }
            Answer::Failed(failure) => {
                Agreed::Open(ProblemCode::DnsResolverServfail, format!("the public resolver: {}", failure_words(failure)))
            }
            resolved if resolved.records() != first.records() => Agreed::Open(
                ProblemCode::DnsPropagating,
                format!("the zone's servers: {}; the public resolver: {}", words(first), words(resolved)),
            ),
            _ if first.records().is_empty() => Agreed::Nothing,
            _ => Agreed::Records(first.records()),
        }
    }

    fn routing(&self) -> Routing {
        match self.agreed(&self.look.cname) {
            Agreed::Open(..) => Routing::Unknown,
            Agreed::Records(targets) => match targets {
                [target] if *target == self.subject.routing_target => Routing::OurTarget,
                [target] => match self.claim_of(target) {
                    Some(claim) => Routing::OtherClaim(claim),
                    // A CNAME to a name of the customer's own that in turn leads here is routing, too.
                    None => self.routing_by_chain(),
                },
                _ => Routing::Unknown,
            },
            Agreed::Nothing => self.routing_by_address(),
        }
    }

    fn routing_by_chain(&self) -> Routing {
        if self.look.chain_end != ChainEnd::Complete {
            return if self.look.chain_end == ChainEnd::Unknown { Routing::Unknown } else { Routing::Elsewhere };
        }
        if self.look.chain.contains(&self.subject.routing_target) {
            return Routing::OurTarget;
        }
        match self.look.chain.iter().find_map(|name| self.claim_of(name)) {
            Some(claim) => Routing::OtherClaim(claim),
            None => Routing::Elsewhere,
        }
    }

    fn routing_by_address(&self) -> Routing {
        let (a, aaaa) = (self.agreed(&self.look.a), self.agreed(&self.look.aaaa));
        match (a, aaaa) {
            (Agreed::Open(..), _) | (_, Agreed::Open(..)) => Routing::Unknown,
            (Agreed::Nothing, Agreed::Nothing) => Routing::Nowhere,
            (a, aaaa) => {
                let all = [a, aaaa].into_iter().flat_map(|agreed| match agreed {
                    Agreed::Records(records) => records.to_vec(),
                    _ => Vec::new(),
                });
                if all.into_iter().all(|address| self.is_edge(&address)) { Routing::EdgeAddresses } else { Routing::Elsewhere }
            }
        }
    }

    fn is_edge(&self, address: &str) -> bool {
        address.parse::<IpAddr>().is_ok_and(|address| self.subject.edge_addresses.contains(&address))
    }

    /// The claim whose target this is; the claim's label is the whole part before the targets' zone.
    fn claim_of(&self, target: &str) -> Option<ClaimId> {
        let label = target.strip_suffix(&self.subject.targets_zone)?.strip_suffix('.')?;
        ClaimId::parse(label).ok()
    }

    fn proof(&self, routing: &Routing) -> Result<Proof, Finding> {
        // Only the hostname's own CNAME proves: the names after it may be anyone's.
        let own_cname = matches!(self.agreed(&self.look.cname), Agreed::Records([target]) if *target == self.subject.routing_target);
        if own_cname {
            return Ok(Proof::RoutingRecord);
        }
        match self.agreed(&self.look.txt) {
            Agreed::Records(values) if values.iter().any(|value| value.trim().trim_matches('"') == self.subject.token.as_str()) => {
                Ok(Proof::Txt)
            }
            txt => Err(self.why_not_proved(routing, &txt)),
        }
    }

    fn why_not_proved(&self, routing: &Routing, txt: &Agreed<'_>) -> Finding {
        if let Err(answer) = &self.look.zone {
            return self.no_zone(answer);
        }
        let apex = self.subject.hostname.is_apex();
        let cname = self.agreed(&self.look.cname);
        // Where a record of ours is on its way, that is the news; where DNS cannot be read, nothing else can be said.
        if let Agreed::Open(code, saw) = &cname
            && !apex
        {
            return self.open(*code, self.cname_record(), &self.subject.routing_target, saw);
        }
        if let Agreed::Open(code, saw) = txt {
            return self.open(*code, self.txt_record(), self.subject.token.as_str(), saw);
        }
        if let Agreed::Records(values) = txt {
            let saw = values.join(", ");
            return self.ask(ProblemCode::DnsTxtMismatch, self.set_txt(), self.txt_record(), self.subject.token.as_str(), &saw);
        }
        if let Some(doubled) = &self.look.txt_doubled
            && everywhere(doubled).iter().any(|value| value.trim().trim_matches('"') == self.subject.token.as_str())
        {
            let action = format!("Rename the TXT record {} to {}: the panel adds the zone by itself.", doubled.name, self.subject.txt_name);
            let saw = format!("TXT {}", doubled.name);
            return self.ask(ProblemCode::DnsTxtDoubled, action, self.txt_record(), self.subject.token.as_str(), &saw);
        }
        if let Agreed::Records(targets) = &cname {
            return self.wrong_cname(targets);
        }
        if routing == &Routing::EdgeAddresses {
            return self.ask(ProblemCode::DnsTxtMissing, self.set_txt(), self.txt_record(), self.subject.token.as_str(), "no TXT record");
        }
        if let Some(finding) = self.wrong_address() {
            return finding;
        }
        if apex {
            return self.ask(ProblemCode::DnsTxtMissing, self.set_txt(), self.txt_record(), self.subject.token.as_str(), "no TXT record");
        }
        let missing = [&self.look.cname, &self.look.a].iter().all(|observed| observed.resolver == Answer::NxDomain);
        let (code, saw) = if missing {
            (ProblemCode::DnsNameMissing, "the name does not exist")
        } else {
            (ProblemCode::DnsRecordMissing, "no CNAME record")
        };
        self.ask(code, self.set_cname(), self.cname_record(), &self.subject.routing_target, saw)
    }

    fn why_not_routed(&self, routing: &Routing) -> Finding {
        let (about, expected) = self.wanted_route();
        if let Agreed::Open(code, saw) = self.agreed(&self.look.cname) {
            return self.open(code, about, &expected, &saw);
        }
        if let Agreed::Records(targets) = self.agreed(&self.look.cname) {
            return self.wrong_cname(targets);
        }
        for observed in [&self.look.a, &self.look.aaaa] {
            if let Agreed::Open(code, saw) = self.agreed(observed) {
                return self.open(code, about, &expected, &saw);
            }
        }
        if let Some(finding) = self.wrong_address().filter(|_| routing == &Routing::Elsewhere) {
            return finding;
        }
        self.ask(ProblemCode::DnsRoutingMissing, self.set_route(), about, &expected, "the name leads nowhere yet")
    }

    fn wrong_cname(&self, targets: &[String]) -> Finding {
        let saw = targets.join(", ");
        let (about, expected) = self.wanted_route();
        let chain =
            std::iter::once(self.subject.hostname.to_string()).chain(self.look.chain.iter().cloned()).collect::<Vec<_>>().join(" → ");
        let code = match self.look.chain_end {
            ChainEnd::Loop => return self.ask(ProblemCode::DnsCnameLoop, self.set_route(), about, &expected, &chain),
            ChainEnd::TooLong => return self.ask(ProblemCode::DnsCnameTooLong, self.set_route(), about, &expected, &chain),
            _ if targets.iter().any(|target| self.claim_of(target).is_some()) => ProblemCode::DnsCnameOtherClaim,
            ChainEnd::Complete
                if matches!((self.agreed(&self.look.a), self.agreed(&self.look.aaaa)), (Agreed::Nothing, Agreed::Nothing)) =>
            {
                ProblemCode::DnsCnameDangling
            }
            _ => ProblemCode::DnsCnameElsewhere,
        };
        self.ask(code, self.set_route(), about, &expected, &saw)
    }

    fn wrong_address(&self) -> Option<Finding> {
        let records = |observed| match self.agreed(observed) {
            Agreed::Records(records) => records.to_vec(),
            _ => Vec::new(),
        };
        let (a, aaaa): (Vec<String>, Vec<String>) = (records(&self.look.a), records(&self.look.aaaa));
        let ours = a.iter().filter(|address| self.is_edge(address)).count();
        let foreign_v6 = aaaa.iter().any(|address| !self.is_edge(address));
        let hostname = self.subject.hostname.base();
        let (about, expected) = self.wanted_route();
        if !a.is_empty() && ours == 0 {
            return Some(self.ask(ProblemCode::DnsAddressElsewhere, self.set_route(), about, &expected, &a.join(", ")));
        }
        if ours < a.len() {
            let foreign: Vec<_> = a.iter().filter(|address| !self.is_edge(address)).cloned().collect();
            let action = format!("Remove the A records of {hostname} that are not the edge's: {}.", foreign.join(", "));
            return Some(self.ask(ProblemCode::DnsAddressMixed, action, format!("A {hostname}"), &expected, &a.join(", ")));
        }
        if foreign_v6 {
            let action = format!("Remove the AAAA records of {hostname}: CAs and browsers try IPv6 first, and they lead elsewhere.");
            return Some(self.ask(ProblemCode::DnsAaaaElsewhere, action, format!("AAAA {hostname}"), "no AAAA record", &aaaa.join(", ")));
        }
        None
    }

    fn no_zone(&self, answer: &Answer) -> Finding {
        let zone = self.subject.hostname.registered_domain().unwrap_or(self.subject.hostname.base());
        match answer {
            Answer::Failed(failure) => {
                self.open(failure_code(failure), format!("NS {zone}"), "the zone's name servers", &failure_words(failure))
            }
            _ => self.ask(
                ProblemCode::DnsZoneMissing,
                format!("Register {zone} or set its name servers at the registrar; it has none."),
                format!("NS {zone}"),
                "the zone's name servers",
                "none",
            ),
        }
    }

    fn open(&self, code: ProblemCode, about: String, expected: &str, saw: &str) -> Finding {
        let hostname = self.subject.hostname.base();
        let (actor, action) = match code {
            ProblemCode::DnsPropagating => (Actor::Nameplate, "Nothing; the record is there and spreads. We look again.".to_owned()),
            ProblemCode::DnsServersDisagree => (
                Actor::Customer,
                format!("Wait a few minutes; if it stays, ask the DNS provider why the name servers of {hostname} answer differently."),
            ),
            ProblemCode::DnsServfail | ProblemCode::DnsRefused | ProblemCode::DnsUnreachable | ProblemCode::DnsMalformed => (
                Actor::Customer,
                format!("Ask the DNS provider why the name servers of {hostname} do not answer, or correct them at the registrar."),
            ),
            ProblemCode::DnsServerNotGlobal => {
                (Actor::Customer, format!("Give the name servers of {hostname} addresses on the public internet; we ask no others."))
            }
            ProblemCode::DnsResolverServfail => (
                Actor::Customer,
                format!(
                    "Repair the DNSSEC chain of {hostname}, or remove its DS record at the registrar: resolvers refuse the zone's answers."
                ),
            ),
            ProblemCode::DnsResolverUnreachable => (Actor::Operator, "Check the resolver this installation asks (dns.server).".to_owned()),
            _ => (Actor::Customer, format!("Shorten the way to {hostname}: fewer CNAMEs, fewer name servers. We look again.")),
        };
        Finding { code, actor, action, about, expected: expected.to_owned(), saw: saw.to_owned() }
    }

    fn ask(&self, code: ProblemCode, action: String, about: String, expected: &str, saw: &str) -> Finding {
        Finding { code, actor: Actor::Customer, action, about, expected: expected.to_owned(), saw: saw.to_owned() }
    }

    fn cname_record(&self) -> String {
        format!("CNAME {}", self.subject.hostname.base())
    }

    fn txt_record(&self) -> String {
        format!("TXT {}", self.subject.txt_name)
    }

    fn set_cname(&self) -> String {
        format!("Create CNAME {} with the value {}.", self.subject.hostname.base(), self.subject.routing_target)
    }

    fn set_txt(&self) -> String {
        format!("Create TXT {} with the value {}.", self.subject.txt_name, self.subject.token)
    }

    /// The record that should route the name, and its value: DNS allows no CNAME at an apex.
    fn wanted_route(&self) -> (String, String) {
        if self.subject.hostname.is_apex() {
            let addresses: Vec<_> = self.subject.edge_addresses.iter().map(ToString::to_string).collect();
            return (format!("A {}", self.subject.hostname.base()), addresses.join(", "));
        }
        (self.cname_record(), self.subject.routing_target.clone())
    }

    fn set_route(&self) -> String {
        let (about, expected) = self.wanted_route();
        format!("Set {about} to {expected}, and remove what else stands there.")
    }
}

fn everywhere(observed: &Observed) -> Vec<String> {
    let authority = observed.authority.iter().flat_map(|server| server.answer.records());
    authority.chain(observed.resolver.records()).cloned().collect()
}

fn failure_code(failure: &Failure) -> ProblemCode {
    match failure {
        Failure::Servfail => ProblemCode::DnsServfail,
        Failure::Refused => ProblemCode::DnsRefused,
        Failure::Unreachable => ProblemCode::DnsUnreachable,
        Failure::Malformed { .. } => ProblemCode::DnsMalformed,
        Failure::NotGlobal => ProblemCode::DnsServerNotGlobal,
        Failure::BudgetSpent => ProblemCode::DnsTooManyQueries,
    }
}

fn failure_words(failure: &Failure) -> String {
    match failure {
        Failure::Servfail => "SERVFAIL".into(),
        Failure::Refused => "REFUSED, or an answer without authority".into(),
        Failure::Unreachable => "no answer in time".into(),
        Failure::Malformed { detail } => detail.clone(),
        Failure::NotGlobal => "an address that is not on the public internet".into(),
        Failure::BudgetSpent => "more queries or time were needed than one look has".into(),
    }
}

fn words(answer: &Answer) -> String {
    match answer {
        Answer::Records(records) => records.join(", "),
        Answer::NoData => "no such record".into(),
        Answer::NxDomain => "the name does not exist".into(),
        Answer::Failed(failure) => failure_words(failure),
    }
}
