//! What does not stop an order, and will hurt all the same: told while everything works.
//!
//! Arrives: a look at a name that is proved and leads here. Leaves: a [`Finding`], or nothing. Goes wrong: nothing.

use super::{Case, findings::shown};
use crate::{Actor, Failure, Finding, ProblemCode, ServerAnswer};

impl<'l> Case<'l> {
    /// The most pressing thing of those that can wait.
    pub(super) fn advice(&self) -> Option<Finding> {
        self.https_elsewhere().or_else(|| self.broken_server())
    }

    /// An HTTPS record is what browsers follow before any address: its target or its hints may lead past us (RFC 9460, sections 2.4 and 7.3).
    fn https_elsewhere(&self) -> Option<Finding> {
        let asked = self.look.further.https.as_ref()?;
        let strays: Vec<&str> = asked.answer.records().iter().map(String::as_str).filter(|record| self.strays(record)).collect();
        if strays.is_empty() {
            return None;
        }
        let about = format!("HTTPS {}", self.hostname());
        Some(Finding {
            code: ProblemCode::DnsHttpsElsewhere,
            actor: Actor::Customer,
            action: format!("Remove the record {about}, or its target and address hints: browsers follow it instead of the addresses."),
            about,
            expected: "no HTTPS record, or one that leads to the edge".into(),
            saw: shown(&strays.join(", ")),
        })
    }

    /// Whether `priority target [hint …]` leads anywhere but to the name itself, our target, or the edge's addresses.
    fn strays(&self, record: &str) -> bool {
        let mut words = record.split(' ').skip(1);
        let target = words.next().unwrap_or(".");
        let stays = target == "." || target == self.hostname() || target == self.subject.routing_target;
        !stays || words.any(|hint| !self.is_edge(hint))
    }

    /// One of several name servers that does not do its part.
    fn broken_server(&self) -> Option<Finding> {
        let servers = &self.look.txt.authority;
        if servers.iter().all(|said| said.answer.failure().is_some()) {
            return None;
        }
        let fails = |failure: &Failure| servers.iter().find(move |said| said.answer.failure() == Some(failure));
        let missing = fails(&Failure::NoAddress).map(|said| (ProblemCode::DnsServerMissing, said));
        let (code, said) = missing.or_else(|| fails(&Failure::Refused).map(|said| (ProblemCode::DnsServerLame, said)))?;
        Some(self.server_out(code, said))
    }

    /// A server that refuses while the others answer, if there is one.
    pub(super) fn lame_server(&self) -> Option<Finding> {
        self.broken_server().filter(|finding| finding.code == ProblemCode::DnsServerLame)
    }

    fn server_out(&self, code: ProblemCode, said: &ServerAnswer) -> Finding {
        let zone = self.zone();
        let about = format!("NS {zone}");
        let name = said.server.split(' ').next().unwrap_or_default();
        let why = if code == ProblemCode::DnsServerMissing {
            "that name has no address"
        } else {
            "it does not serve the zone, and the others do"
        };
        Finding {
            code,
            actor: Actor::Customer,
            action: format!(
                "Take {name} out of the records {about} at the registrar of {zone}, or mend it: {why}. Some resolvers fail on it."
            ),
            about,
            expected: "every name server listed serves the zone".into(),
            saw: shown(&format!("{}: {}", said.server, super::findings::words(&said.answer))),
        }
    }
}
