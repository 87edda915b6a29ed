//! The findings of a judge, in words a customer can act on.
//!
//! Arrives: what the judge made of a look. Leaves: a [`Finding`] that names the record, what it should say and what it says. Goes wrong:
//! nothing. What DNS shows is a stranger's text, so it is cleaned and cut before it is repeated.

use super::{Addresses, Case, Evidence, Routing, from_authority, voices};
use crate::{Actor, Answer, Asked, Failure, Finding, Observed, ProblemCode, providers::provider_of};

/// The findings, from what is nearest to a proof to what is farthest.
impl<'l> Case<'l> {
    pub(super) fn unproved(
        &self,
        cname: Evidence<'l>,
        txt: Evidence<'l>,
        delegated: Evidence<'l>,
        routing: &Routing,
        misled: Option<Finding>,
    ) -> Finding {
        if let Err(answer) = &self.look.zone {
            return self.no_zone(answer);
        }
        let delegation = self.look.delegation.as_ref().map(|observed| (delegated, observed, self.delegation_record()));
        if self.subject.hostname.is_wildcard() {
            return match delegation {
                Some((evidence, observed, record)) if evidence != Evidence::Absent => self.unclear(evidence, observed, &record),
                _ => self.not_delegated(),
            };
        }
        let is_live = self.is_live(misled.as_ref());
        let found = self.unproved_by_own_records(cname, txt, delegation, routing, misled);
        match found.code {
            // Whoever is served somewhere gets the certificate first, and switches when it is there.
            ProblemCode::DnsCnameElsewhere | ProblemCode::DnsRecordMissing if is_live => self.live_elsewhere(),
            _ => found,
        }
    }

    fn unproved_by_own_records(
        &self,
        cname: Evidence<'l>,
        txt: Evidence<'l>,
        delegation: Option<(Evidence<'l>, &'l Observed, String)>,
        routing: &Routing,
        misled: Option<Finding>,
    ) -> Finding {
        let mut all = vec![(cname, &self.look.cname, self.cname()), (txt, &self.look.txt, self.txt())];
        all.extend(delegation.filter(|_| self.subject.delegation.as_ref().is_some_and(|delegation| delegation.wanted)));
        let nearest = all.iter().filter(|(evidence, ..)| *evidence != Evidence::Absent).min_by_key(|(evidence, ..)| evidence.distance());
        if let Some((evidence, observed, record)) = nearest {
            return self.unclear(*evidence, observed, record);
        }
        if let Some((observed, record)) = self.withdrawn() {
            return self.record_withdrawn(observed, &record);
        }
        let told =
            [ProblemCode::DnsCnameAtApex, ProblemCode::DnsWildcardElsewhere, ProblemCode::DnsProxied, ProblemCode::DnsAddressPrivate];
        let misled = misled.filter(|finding| finding.about == self.cname() || told.contains(&finding.code));
        match misled.as_ref().map(|finding| finding.code) {
            Some(
                ProblemCode::DnsCnameOtherClaim
                | ProblemCode::DnsCnameLoop
                | ProblemCode::DnsCnameTooLong
                | ProblemCode::DnsCnameAtApex
                | ProblemCode::DnsCnameTargetFails
                | ProblemCode::DnssecBogus
                | ProblemCode::DnssecExpired
                | ProblemCode::DnssecKeyMismatch
                | ProblemCode::DnssecUnsigned,
            ) => {}
            _ if self.look.further.cname_doubled.is_some() => return self.cname_doubled(),
            _ if self.look.txt_doubled.as_ref().is_some_and(|doubled| voices(doubled).any(|answer| self.has_token(answer))) => {
                return self.txt_doubled();
            }
            _ if from_authority(&self.look.txt).any(|answer| !answer.records().is_empty()) => {
                return self.wrong_txt(ProblemCode::DnsTxtMismatch);
            }
            Some(
                ProblemCode::DnsCnameElsewhere
                | ProblemCode::DnsCnameDangling
                | ProblemCode::DnsWildcardElsewhere
                | ProblemCode::DnsProxied
                | ProblemCode::DnsAddressPrivate,
            ) => {}
            _ if routing.is_ours() && self.prefers_cname() => return self.cname_flattened(),
            _ if routing.is_ours() => return self.wrong_txt(ProblemCode::DnsTxtMissing),
            _ if from_authority(&self.look.cname).any(|answer| !answer.records().is_empty()) => {
                return self.wrong_cname(ProblemCode::DnsCnameElsewhere);
            }
            _ => return self.nothing_there(),
        }
        misled.unwrap_or_else(|| self.nothing_there())
    }

    /// What stands between evidence and a proof, when something does that is not plain absence.
    pub(super) fn unclear(&self, evidence: Evidence<'l>, observed: &Observed, record: &str) -> Finding {
        match evidence {
            Evidence::Shown | Evidence::Absent => self.nothing_there(),
            Evidence::Propagating => self.propagating(observed, record),
            Evidence::ResolverFails(failure) => self.resolver_fails(failure, record),
            Evidence::Disagree => self.servers_disagree(observed, record),
            Evidence::Unreadable(failure) => self.authority_fails(failure, observed, record),
        }
    }

    pub(super) fn no_zone(&self, answer: &Answer) -> Finding {
        let zone = self.zone();
        let record = format!("NS {zone}");
        match answer {
            Answer::Failed(failure) => self.resolver_fails(failure, &record),
            _ => Finding {
                code: ProblemCode::DnsZoneMissing,
                actor: Actor::Customer,
                action: format!("Register {zone}, or give it name servers ({record}) at its registrar. {}", self.then_create()),
                about: record,
                expected: format!("the name servers of {zone}"),
                saw: shown(&words(answer)),
            },
        }
    }

    fn nothing_there(&self) -> Finding {
        let absent = |observed: &Observed| from_authority(observed).all(|answer| matches!(answer, Answer::NxDomain | Answer::Failed(_)));
        let code = match self.subject.can_be_alias() && absent(&self.look.cname) && !self.has_addresses() {
            true => ProblemCode::DnsNameMissing,
            false => ProblemCode::DnsRecordMissing,
        };
        let saw = match (code, self.has_addresses()) {
            (ProblemCode::DnsNameMissing, _) => format!("{} does not exist", self.hostname()),
            (_, true) => format!("{}, and neither {} nor {}", self.seen_addresses(), self.cname(), self.txt()),
            (_, false) => format!("neither {} nor {}", self.cname(), self.txt()),
        };
        Finding {
            code,
            actor: Actor::Customer,
            action: self.create(),
            about: if self.prefers_cname() { self.cname() } else { self.txt() },
            expected: self.proofs(),
            saw: shown(&saw),
        }
    }

    /// The name is served by somebody: nothing that stands there is touched before the edge has its certificate.
    pub(super) fn live_elsewhere(&self) -> Finding {
        if self.delegation_leads_elsewhere() {
            return self.not_delegated();
        }
        let (record, target) = (self.delegation_record(), self.delegation_target());
        let switch = if self.prefers_cname() { self.routes() } else { format!("{}, and {}", self.proofs(), self.routes()) };
        Finding {
            code: ProblemCode::DnsLiveElsewhere,
            actor: Actor::Customer,
            action: format!(
                "Create the record {record} with the value {target}, and leave {} as it is: it is served elsewhere, and is switched \
                 without a gap once the edge has its certificate. Or, if a moment without HTTPS does not matter, switch it now: {switch}.",
                self.hostname()
            ),
            about: record.clone(),
            expected: format!("{record} with {target}"),
            saw: match from_authority(&self.look.cname).any(|answer| !answer.records().is_empty()) {
                true => shown(&format!("CNAME: {}; {}", seen(&self.look.cname), self.seen_addresses())),
                false => self.seen_addresses(),
            },
        }
    }

    /// The challenges lead nowhere, or to somebody else.
    fn not_delegated(&self) -> Finding {
        let (record, target) = (self.delegation_record(), self.delegation_target());
        let observed = self.look.delegation.as_ref();
        let (code, verb) = match self.delegation_leads_elsewhere() {
            true => (ProblemCode::DnsDelegationElsewhere, "Change"),
            false => (ProblemCode::DnsDelegationMissing, "Create"),
        };
        Finding {
            code,
            actor: Actor::Customer,
            action: format!("{verb} the record {record} with the value {target}; leave it there, since each renewal is proved through it."),
            about: record.clone(),
            expected: format!("{record} with {target}"),
            saw: observed.map_or_else(|| "no such record".to_owned(), |observed| shown(&seen(observed))),
        }
    }

    fn delegation_leads_elsewhere(&self) -> bool {
        // A wildcard CNAME of the zone answers for every name that has no record, this one and the hostname alike; a record of its own wins.
        let own = |answer: &Answer| !answer.records().is_empty() && !from_authority(&self.look.cname).any(|cname| cname == answer);
        self.look.delegation.as_ref().is_some_and(|observed| from_authority(observed).any(own))
    }

    fn wrong_txt(&self, code: ProblemCode) -> Finding {
        let (txt, token) = (self.txt(), &self.subject.token);
        let action = match code {
            ProblemCode::DnsTxtMismatch => format!("Change the record {txt}, or add one, so that it has exactly the value {token}."),
            _ => format!("Create the record {txt} with the value {token}; the name leads to the edge already."),
        };
        Finding { code, actor: Actor::Customer, action, about: txt, expected: token.to_string(), saw: shown(&seen(&self.look.txt)) }
    }

    fn txt_doubled(&self) -> Finding {
        let stands = self.look.txt_doubled.as_ref().map_or("", |doubled| &doubled.name);
        let zone = self.zone();
        let panel_name = self.subject.txt_name.strip_suffix(&zone).map_or(&*self.subject.txt_name, |label| label.trim_end_matches('.'));
        Finding {
            code: ProblemCode::DnsTxtDoubled,
            actor: Actor::Customer,
            action: format!(
                "Rename the record TXT {stands} to {}: at this DNS provider its name is entered as `{panel_name}`, since {zone} is added to it.",
                self.txt()
            ),
            about: self.txt(),
            expected: self.subject.token.to_string(),
            saw: shown(&format!("the value stands at TXT {stands}")),
        }
    }

    pub(super) fn wrong_cname(&self, code: ProblemCode) -> Finding {
        let (cname, target) = (self.cname(), &self.subject.routing_target);
        let why = match code {
            ProblemCode::DnsCnameOtherClaim => "it names the target of another or an older claim",
            ProblemCode::DnsCnameLoop => "its chain comes back to itself",
            ProblemCode::DnsCnameTooLong => "its chain is longer than resolvers follow",
            ProblemCode::DnsCnameDangling => "its chain ends at a name without an address",
            ProblemCode::DnsCnameTargetFails => "the name it leads to cannot be resolved",
            _ => "it leads elsewhere",
        };
        let mut saw = seen(&self.look.cname);
        if self.look.chain.len() > 1 {
            saw = format!("{saw}; the chain {} → {}", self.hostname(), self.look.chain.join(" → "));
        }
        let expected = target.clone();
        let action = format!("Change the record {cname} to the value {target}: {why}.");
        Finding { code, actor: Actor::Customer, action, about: cname, expected, saw: shown(&saw) }
    }

    pub(super) fn wrong_addresses(&self, addresses: Addresses) -> Finding {
        let hostname = self.hostname();
        let foreign = |observed: &Observed| {
            let mut foreign: Vec<&str> =
                from_authority(observed).flat_map(Answer::records).map(String::as_str).filter(|address| !self.is_edge(address)).collect();
            foreign.sort_unstable();
            foreign.dedup();
            shown(&foreign.join(", "))
        };
        let (code, record, action) = match addresses {
            Addresses::Mixed => {
                let action = format!("Remove the records A {hostname} with the values {}; the others are right.", foreign(&self.look.a));
                (ProblemCode::DnsAddressMixed, "A", action)
            }
            Addresses::AaaaElsewhere => {
                let values = foreign(&self.look.aaaa);
                let action = format!("Remove the records AAAA {hostname} with the values {values}: CAs and browsers try IPv6 first.");
                (ProblemCode::DnsAaaaElsewhere, "AAAA", action)
            }
            Addresses::Elsewhere => (ProblemCode::DnsAddressElsewhere, "A", self.replace_addresses()),
            Addresses::Private => {
                let action = format!("{} Nobody outside your network reaches the addresses of A {hostname}.", self.replace_addresses());
                (ProblemCode::DnsAddressPrivate, "A", action)
            }
            Addresses::Proxied(proxy) => {
                let proof = if from_authority(&self.look.txt).any(|answer| self.has_token(answer)) {
                    String::new()
                } else {
                    format!(" {}", self.then_create())
                };
                let action = format!(
                    "A {hostname} leads to {}, which answers in our place: {}, so that the name leads here.{proof}",
                    proxy.name, proxy.switch_off
                );
                (ProblemCode::DnsProxied, "A", action)
            }
            Addresses::None | Addresses::Edge => (ProblemCode::DnsRoutingMissing, "A", self.route()),
        };
        let about = match code {
            ProblemCode::DnsRoutingMissing if self.prefers_cname() => self.cname(),
            _ => format!("{record} {hostname}"),
        };
        let actor = if self.prefers_cname() || !self.subject.edge_addresses.is_empty() { Actor::Customer } else { Actor::Operator };
        Finding { code, actor, action, about, expected: self.routes(), saw: self.seen_addresses() }
    }

    pub(super) fn propagating(&self, observed: &Observed, record: &str) -> Finding {
        Finding {
            code: ProblemCode::DnsPropagating,
            actor: Actor::Nameplate,
            action: format!("Nothing; leave {record} as it is. The zone has it, and resolvers follow when what they remember expires."),
            about: record.to_owned(),
            expected: "the same from the name servers and from the public resolver".into(),
            saw: shown(&seen(observed)),
        }
    }

    pub(super) fn servers_disagree(&self, observed: &Observed, record: &str) -> Finding {
        Finding {
            code: ProblemCode::DnsServersDisagree,
            actor: Actor::Customer,
            action: format!(
                "If {record} was changed in the last minutes, wait. If not, have all name servers of {} serve the same zone, or take those \
                 that do not out at the registrar.",
                self.zone()
            ),
            about: record.to_owned(),
            expected: "the same from every name server".into(),
            saw: shown(&seen(observed)),
        }
    }

    pub(super) fn authority_fails(&self, failure: &Failure, observed: &Observed, record: &str) -> Finding {
        let zone = self.zone();
        let (code, action) = match failure {
            Failure::Servfail => {
                (ProblemCode::DnsServfail, format!("Ask the DNS provider of {zone} why its name servers answer SERVFAIL for {record}."))
            }
            Failure::Refused => (
                ProblemCode::DnsRefused,
                format!("Set the name servers of {zone} at its registrar to those that serve it: the ones named refuse {record}."),
            ),
            Failure::Unreachable => (
                ProblemCode::DnsUnreachable,
                format!("Let the name servers of {zone} answer for {record} over UDP and TCP port 53, from anywhere; none did in time."),
            ),
            Failure::Malformed { .. } => {
                (ProblemCode::DnsMalformed, format!("Ask the DNS provider of {zone} to mend the answers of its name servers for {record}."))
            }
            Failure::NoAddress => (
                ProblemCode::DnsServerMissing,
                format!(
                    "Set the name servers of {zone} at its registrar to names that exist: those listed have no address to ask for {record}."
                ),
            ),
            Failure::NotGlobal => (
                ProblemCode::DnsServerNotGlobal,
                format!("Give the name servers of {zone} addresses on the public internet; {record} is asked nowhere else."),
            ),
            Failure::BudgetSpent => return self.too_much(record),
        };
        let expected = format!("an answer for {record}");
        Finding { code, actor: Actor::Customer, action, about: record.to_owned(), expected, saw: shown(&seen(observed)) }
    }

    pub(super) fn resolver_fails(&self, failure: &Failure, record: &str) -> Finding {
        if *failure == Failure::Servfail
            && let Some(finding) =
                self.broken_chain(record).or_else(|| self.lame_server().map(|finding| self.seen_by_resolver(finding, record)))
        {
            return finding;
        }
        let (code, actor, action) = match failure {
            Failure::BudgetSpent => return self.too_much(record),
            Failure::Servfail => (
                ProblemCode::DnsResolverServfail,
                Actor::Customer,
                format!(
                    "See that every name server of {} answers for {record} from everywhere, over UDP and TCP, and that the names it leads over \
                     resolve: the public resolver fails on it, and not because of DNSSEC.",
                    self.zone()
                ),
            ),
            Failure::Refused | Failure::Unreachable | Failure::Malformed { .. } | Failure::NotGlobal | Failure::NoAddress => (
                ProblemCode::DnsResolverUnreachable,
                Actor::Operator,
                format!("Check the public resolver this installation is configured with: it gives no usable answer for {record}."),
            ),
        };
        let saw = shown(&format!("public resolver: {}", failure_words(failure)));
        Finding { code, actor, action, about: record.to_owned(), expected: format!("the public resolver's answer for {record}"), saw }
    }

    /// A lame server, when it is why the resolver fails for a record.
    fn seen_by_resolver(&self, finding: Finding, record: &str) -> Finding {
        Finding { saw: shown(&format!("{}; the public resolver fails on {record}", finding.saw)), ..finding }
    }

    /// The hostname's own alias is fine, and its target cannot be resolved.
    pub(super) fn target_fails(&self, failure: &Failure) -> Finding {
        if *failure != Failure::Servfail || self.is_bogus() {
            return self.resolver_fails(failure, &self.cname());
        }
        let mut finding = self.wrong_cname(ProblemCode::DnsCnameTargetFails);
        finding.saw = shown(&format!("{}; its addresses: {}", finding.saw, failure_words(failure)));
        finding
    }

    /// A record of ours that the resolver still shows and the zone's servers deny.
    fn withdrawn(&self) -> Option<(&'l Observed, String)> {
        let denied = |observed: &Observed| {
            let mut answers = from_authority(observed).filter(|answer| answer.failure().is_none()).peekable();
            answers.peek().is_some() && answers.all(|answer| answer.records().is_empty())
        };
        let cname = matches!(self.look.cname.resolver.records(), [only] if *only == self.subject.routing_target);
        if cname && denied(&self.look.cname) {
            return Some((&self.look.cname, self.cname()));
        }
        (self.has_token(&self.look.txt.resolver) && denied(&self.look.txt)).then(|| (&self.look.txt, self.txt()))
    }

    fn record_withdrawn(&self, observed: &Observed, record: &str) -> Finding {
        Finding {
            code: ProblemCode::DnsRecordWithdrawn,
            actor: Actor::Customer,
            action: format!(
                "Create the record {record} at the DNS provider that the name servers of {} belong to: only what resolvers remember still shows it.",
                self.zone()
            ),
            about: record.to_owned(),
            expected: "the same from the name servers and from the public resolver".into(),
            saw: shown(&seen(observed)),
        }
    }

    fn cname_flattened(&self) -> Finding {
        let (cname, txt, token) = (self.cname(), self.txt(), &self.subject.token);
        Finding {
            code: ProblemCode::DnsCnameFlattened,
            actor: Actor::Customer,
            action: format!(
                "Create the record {txt} with the value {token}: the name leads here by addresses, and no {cname} is visible that would prove it. \
                 If {cname} exists at the DNS provider, it is flattened there (ALIAS, ANAME, CNAME flattening)."
            ),
            about: cname,
            expected: self.proofs(),
            saw: self.seen_addresses(),
        }
    }

    fn cname_doubled(&self) -> Finding {
        let stands = self.look.further.cname_doubled.as_ref().map_or("", |asked| &asked.name);
        let zone = self.zone();
        let panel_name = self.hostname().strip_suffix(&zone).map_or(self.hostname(), |label| label.trim_end_matches('.'));
        Finding {
            code: ProblemCode::DnsCnameDoubled,
            actor: Actor::Customer,
            action: format!(
                "Rename the record CNAME {stands} to {}: at this DNS provider its name is entered as `{panel_name}`, since {zone} is added to it.",
                self.cname()
            ),
            about: self.cname(),
            expected: self.subject.routing_target.clone(),
            saw: shown(&format!("the target stands at CNAME {stands}")),
        }
    }

    pub(super) fn cname_at_apex(&self, asked: &Asked) -> Finding {
        let about = format!("CNAME {}", asked.name);
        Finding {
            code: ProblemCode::DnsCnameAtApex,
            actor: Actor::Customer,
            action: format!(
                "Remove the record {about}: a zone begins at this name, so a CNAME hides its NS, SOA and every other record. {}",
                self.route()
            ),
            about,
            expected: self.routes(),
            saw: shown(&words(&asked.answer)),
        }
    }

    pub(super) fn wildcard_elsewhere(&self, observed: &Observed, kind: &str) -> Finding {
        let hostname = self.hostname();
        let about = format!("{kind} {hostname}");
        Finding {
            code: ProblemCode::DnsWildcardElsewhere,
            actor: Actor::Customer,
            action: format!(
                "{} Today a wildcard of {} answers for {about}; the name's own record goes before it.",
                self.route(),
                self.zone()
            ),
            about,
            expected: self.routes(),
            saw: shown(&format!("{}, as for every name beside it", seen(observed))),
        }
    }

    pub(super) fn wildcard_switched_off(&self) -> Finding {
        let cname = self.cname();
        Finding {
            code: ProblemCode::DnsWildcardSwitchedOff,
            actor: Actor::Customer,
            action: format!(
                "{} Since {} exists, so does the hostname, and the wildcard of {} no longer answers for it.",
                self.route(),
                self.txt(),
                self.zone()
            ),
            about: cname,
            expected: self.routes(),
            saw: "no record at the hostname, and a wildcard beside it".into(),
        }
    }

    pub(super) fn too_much(&self, record: &str) -> Finding {
        Finding {
            code: ProblemCode::DnsTooManyQueries,
            actor: Actor::Customer,
            action: format!("Make {record} quicker to find: name servers of {} that answer at once, and fewer of them.", self.zone()),
            about: record.to_owned(),
            expected: "an answer within the queries and the time of one look".into(),
            saw: words(&Answer::Failed(Failure::BudgetSpent)),
        }
    }
}

/// The records in words.
impl Case<'_> {
    pub(super) fn hostname(&self) -> &str {
        self.subject.hostname.as_str()
    }

    pub(super) fn cname(&self) -> String {
        format!("CNAME {}", self.hostname())
    }

    pub(super) fn txt(&self) -> String {
        format!("TXT {}", self.subject.txt_name)
    }

    fn delegation_record(&self) -> String {
        format!("CNAME _acme-challenge.{}", self.subject.hostname.base())
    }

    fn delegation_target(&self) -> &str {
        self.subject.delegation.as_ref().map_or("", |delegation| &delegation.target)
    }

    pub(super) fn addresses_of_hostname(&self) -> String {
        format!("A {}", self.hostname())
    }

    /// The zone found, or the registered domain, which should be one.
    pub(super) fn zone(&self) -> String {
        let hostname = &self.subject.hostname;
        self.look
            .zone
            .as_ref()
            .map_or_else(|_| hostname.registered_domain().unwrap_or(hostname.base()).to_owned(), |zone| zone.apex.clone())
    }

    /// Whether the customer should be asked for a CNAME: not where a zone begins, be it delegated below the registered domain.
    pub(super) fn prefers_cname(&self) -> bool {
        self.subject.can_be_alias() && self.zone() != self.hostname()
    }

    /// Adds where at the zone's DNS provider it is done, when the provider is known and the finding is about a record of the zone.
    pub(super) fn at_the_provider(&self, mut finding: Finding) -> Finding {
        let servers = self.look.zone.as_ref().map(|zone| zone.servers.as_slice()).unwrap_or_default();
        let is_record = ["CNAME ", "TXT ", "A ", "AAAA ", "CAA ", "HTTPS "].iter().any(|kind| finding.about.starts_with(kind));
        if let (Some(provider), Actor::Customer, true) = (provider_of(servers.iter().map(String::as_str)), finding.actor, is_record) {
            finding.action = format!("{} {}", finding.action, provider.hint(&self.zone()));
        }
        finding
    }

    fn create(&self) -> String {
        let (txt, token) = (self.txt(), &self.subject.token);
        match self.prefers_cname() {
            true => format!(
                "Create the record {} with the value {}; or, to keep what stands there, {txt} with the value {token}.",
                self.cname(),
                self.subject.routing_target
            ),
            false => format!("Create the record {txt} with the value {token}."),
        }
    }

    fn then_create(&self) -> String {
        let create = self.create();
        create.strip_prefix("Create").map_or_else(|| create.clone(), |rest| format!("Then create{rest}"))
    }

    fn proofs(&self) -> String {
        let txt = format!("{} with {}", self.txt(), self.subject.token);
        match self.prefers_cname() {
            true => format!("{} with {}, or {txt}", self.cname(), self.subject.routing_target),
            false => txt,
        }
    }

    fn edge_addresses(&self, six: bool) -> String {
        let chosen: Vec<String> =
            self.subject.edge_addresses.iter().filter(|address| address.is_ipv6() == six).map(ToString::to_string).collect();
        chosen.join(", ")
    }

    /// What routes the name.
    fn routes(&self) -> String {
        match (self.prefers_cname(), self.subject.edge_addresses.is_empty()) {
            (true, _) => format!("{} with {}", self.cname(), self.subject.routing_target),
            (false, true) => "addresses of the edge, of which this installation names none".into(),
            (false, false) => {
                let (four, six) = (self.edge_addresses(false), self.edge_addresses(true));
                let six = if six.is_empty() { format!("no AAAA {}", self.hostname()) } else { format!("AAAA {six} or none") };
                format!("A {} with {four}, and {six}", self.hostname())
            }
        }
    }

    pub(super) fn route(&self) -> String {
        match (self.prefers_cname(), self.subject.edge_addresses.is_empty()) {
            (true, _) => format!("Create the record {} with the value {}.", self.cname(), self.subject.routing_target),
            (false, true) => self.name_edge_addresses(),
            (false, false) => format!("Create the records A {} with the values {}.", self.hostname(), self.edge_addresses(false)),
        }
    }

    fn replace_addresses(&self) -> String {
        let hostname = self.hostname();
        match (self.prefers_cname(), self.subject.edge_addresses.is_empty()) {
            (true, _) => format!(
                "Replace the records A {hostname}, and AAAA if there are any, by the record {} with the value {}.",
                self.cname(),
                self.subject.routing_target
            ),
            (false, true) => self.name_edge_addresses(),
            (false, false) => {
                format!("Change the records A {hostname} to the values {}, and remove other AAAA records.", self.edge_addresses(false))
            }
        }
    }

    fn name_edge_addresses(&self) -> String {
        format!("Configure the edge's addresses: A {} can only lead to addresses, and this installation names none.", self.hostname())
    }

    fn has_addresses(&self) -> bool {
        [&self.look.a, &self.look.aaaa].into_iter().flat_map(voices).any(|answer| !answer.records().is_empty())
    }

    fn seen_addresses(&self) -> String {
        shown(&format!("A: {}; AAAA: {}", seen(&self.look.a), seen(&self.look.aaaa)))
    }
}

/// What everybody said, each name server once, in as few words as that takes.
fn seen(observed: &Observed) -> String {
    let resolver = words(&observed.resolver);
    let mut servers = observed.authority.iter().map(|said| (&said.server, words(&said.answer)));
    let zone = match servers.next() {
        None => return format!("public resolver: {resolver}"),
        Some((_, first)) if servers.clone().all(|(_, other)| other == first) => first,
        Some(first) => {
            let each: Vec<String> = [first].into_iter().chain(servers).map(|(server, words)| format!("{server}: {words}")).collect();
            return format!("{}; public resolver: {resolver}", each.join("; "));
        }
    };
    if zone == resolver { zone } else { format!("name servers: {zone}; public resolver: {resolver}") }
}

pub(super) fn words(answer: &Answer) -> String {
    match answer {
        Answer::Records(records) => {
            let values: Vec<&str> = records.iter().map(|value| if value.is_empty() { "(an empty value)" } else { value }).collect();
            values.join(", ")
        }
        Answer::NoData => "no such record".into(),
        Answer::NxDomain => "the name does not exist".into(),
        Answer::Failed(failure) => failure_words(failure),
    }
}

fn failure_words(failure: &Failure) -> String {
    match failure {
        Failure::Servfail => "SERVFAIL".into(),
        Failure::Refused => "REFUSED, or an answer without authority".into(),
        Failure::Unreachable => "no answer in time".into(),
        Failure::Malformed { detail } => format!("an unusable answer ({detail})"),
        Failure::NotGlobal => "an address that is not on the public internet".into(),
        Failure::NoAddress => "no address".into(),
        Failure::BudgetSpent => "the look's queries or time were spent".into(),
    }
}

/// A stranger's text as people and logs may see it: of bounded length, without control characters.
pub(super) fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut shown: String = text.chars().take(MAX_SHOWN_CHARS).map(clean).collect();
    if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// How much of what DNS shows a finding repeats: four servers' answers, and no 64 KiB record.
const MAX_SHOWN_CHARS: usize = 500;
