//! The questions that only the first answers make worth asking.
//!
//! Arrives: what the first rounds found. Leaves: a [`Further`]. Goes wrong: nothing as a whole; each question that brought nothing says so
//! where its answer would stand.

use domains::{Answer, Asked, Failure, Further, LookSubject, Observed};
use futures_util::future::join;
use hickory_proto::rr::{Name, RecordType};

use crate::{
    look::{Names, Said, Walk, checked, from_authority, shows_target},
    reading::{self, Voice, text_of},
    zone::Zone,
};

/// Who is named where only the resolver was asked.
const RESOLVER: &str = "resolver";

/// What the first rounds found.
pub(crate) struct First<'l> {
    pub(crate) subject: &'l LookSubject,
    pub(crate) names: &'l Names,
    pub(crate) delegation: Option<&'l Observed>,
    pub(crate) cname: &'l Observed,
    pub(crate) txt: &'l Observed,
    pub(crate) a: &'l Observed,
    pub(crate) aaaa: &'l Observed,
    pub(crate) chain: &'l [String],
    pub(crate) said: &'l [Said],
}

impl First<'_> {
    /// Whether the name may be proved and lead here, or have its challenges led here, so that a CA may be asked next.
    fn may_be_ordered(&self) -> bool {
        let target = &self.subject.routing_target;
        let by_name = voices(self.cname).flat_map(Answer::records).chain(self.chain).any(|name| name == target);
        let is_proved =
            || self.subject.proved || voices(self.txt).flat_map(Answer::records).any(|value| value.contains(self.subject.token.as_str()));
        by_name || self.is_delegated() || self.is_at_the_edge() && is_proved()
    }

    fn is_delegated(&self) -> bool {
        let (Some(expected), Some(observed)) = (&self.subject.delegation, self.delegation) else { return false };
        voices(observed).flat_map(Answer::records).any(|name| *name == expected.target)
    }

    fn is_at_the_edge(&self) -> bool {
        let is_edge = |address: &String| address.parse().is_ok_and(|address| self.subject.edge_addresses.contains(&address));
        [&self.a.resolver, &self.aaaa.resolver].into_iter().flat_map(Answer::records).any(is_edge)
    }

    /// A server that answers.
    fn usable(&self) -> Option<&Said> {
        self.said.iter().find(|said| said.txt.failure().is_none())
    }
}

impl Walk<'_> {
    /// Asks what the first answers call for.
    pub(crate) async fn further(&self, first: &First<'_>, zone: Option<&Zone>) -> Further {
        let mut further = Further::default();
        if first.may_be_ordered() {
            (further.caa, further.https) = join(self.climb_for_caa(&first.names.hostname), self.https(first)).await;
        }
        (further.wildcard, further.apex_cname) = join(self.beside(first), self.at_the_apex(first, zone)).await;
        further.dnssec = self.diagnose(first, &further.caa, zone.map(|zone| &zone.apex)).await;
        further
    }

    /// CAA at the hostname, then at each name above it, to the first that has some or fails; the root has none.
    ///
    /// The resolver follows a CNAME at each of them, and what lies above the CNAME's target is not climbed: RFC 8659, section 3.
    async fn climb_for_caa(&self, hostname: &Name) -> Vec<Asked> {
        let mut climbed = Vec::new();
        let mut name = if hostname.is_wildcard() { hostname.base_name() } else { hostname.clone() };
        while !name.is_root() {
            let answer = self.at_resolver(Some(&name), RecordType::CAA).await;
            let ends = matches!(answer, Answer::Records(_) | Answer::Failed(_));
            climbed.push(Asked { name: text_of(&name), server: RESOLVER.into(), answer });
            if ends {
                break;
            }
            name = name.base_name();
        }
        climbed
    }

    /// HTTPS at a name that leads here by its own addresses; behind an alias it is the target's, which is ours.
    async fn https(&self, first: &First<'_>) -> Option<Asked> {
        let name = &first.names.hostname;
        if !first.chain.is_empty() || shows_target(first.cname, first.subject) {
            return None;
        }
        let answer = self.at_resolver(Some(name), RecordType::HTTPS).await;
        Some(Asked { name: text_of(name), server: RESOLVER.into(), answer })
    }

    /// What a name beside the hostname gets, which nobody ever created.
    async fn beside(&self, first: &First<'_>) -> Option<Asked> {
        let names = first.names;
        let nothing_to_explain = shows_target(first.cname, first.subject) || first.is_at_the_edge();
        if nothing_to_explain || !names.aliasable || names.hostname.is_wildcard() {
            return None;
        }
        let found = [first.cname, first.a, first.txt].into_iter().flat_map(from_authority).any(|answer| !answer.records().is_empty());
        let server = &first.usable().filter(|_| found)?.server;
        let label = format!("np-{}", first.subject.claim_id);
        let name = names.hostname.base_name().prepend_label(label.as_bytes()).ok()?;
        let reply = self.reply_of(server, &name, RecordType::A).await;
        let alias = reply.as_ref().ok().map(|message| reading::chain(message, &name).0).and_then(|chain| chain.first().map(text_of));
        let answer = match alias {
            Some(target) => Answer::Records(vec![target]),
            None => reading::answer(&reply, &name, RecordType::A, Voice::Authority),
        };
        Some(server.asked(&name, answer))
    }

    /// A CNAME where none can stand: at a name where a zone begins.
    async fn at_the_apex(&self, first: &First<'_>, zone: Option<&Zone>) -> Option<Asked> {
        let name = &first.names.hostname;
        let begins = !first.names.aliasable || zone.is_some_and(|zone| zone.apex == *name);
        let server = &first.usable().filter(|_| begins)?.server;
        let answer = self.at_server(server, name, RecordType::CNAME).await;
        (!answer.records().is_empty()).then(|| server.asked(name, answer))
    }

    /// The question the resolver failed, if it failed one, in the order in which the judge cares.
    pub(crate) fn failed_question<'q>(&self, first: &'q First<'_>, caa: &'q [Asked]) -> Option<(&'q str, RecordType)> {
        let failed = |answer: &Answer| answer.failure() == Some(&Failure::Servfail);
        let asked =
            [(first.cname, RecordType::CNAME), (first.txt, RecordType::TXT), (first.a, RecordType::A), (first.aaaa, RecordType::AAAA)];
        let of_first =
            asked.into_iter().find(|(observed, _)| failed(&observed.resolver)).map(|(observed, kind)| (observed.name.as_str(), kind));
        of_first.or_else(|| caa.iter().find(|asked| failed(&asked.answer)).map(|asked| (asked.name.as_str(), RecordType::CAA)))
    }

    /// The resolver's word on a question, whatever its code, with what it says of its failure.
    pub(crate) async fn reasons(&self, name: &Name, record_type: RecordType) -> Vec<u16> {
        match self.ask_resolver(checked(name, record_type)).await {
            Ok(message) => reading::extended_errors(&message),
            Err(_) => Vec::new(),
        }
    }
}

fn voices(observed: &Observed) -> impl Iterator<Item = &Answer> {
    from_authority(observed).chain([&observed.resolver])
}
