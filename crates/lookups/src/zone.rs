//! From a hostname to the servers of its zone.
//!
//! Arrives: a hostname, and what the resolver already let slip about its zone. Leaves: the zone's apex, its servers' names and the
//! addresses to ask. Goes wrong: an [`Answer`] that says why there is no zone to ask.
//!
//! The resolver is asked, from the hostname up to its registered domain and never above: a public suffix's servers have nothing to say
//! about a claim, and should not pay for it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use domains::{Answer, Failure};
use futures_util::future::join_all;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Name, RecordType},
};

use crate::{
    exchange::Question,
    global::is_global,
    look::Walk,
    reading::{self, Voice, text_of},
};

/// How many of a zone's servers are asked: the first by name, so that two looks ask the same. Zones have two to four as a rule, and what
/// differs between more than that is seen by asking again.
const MAX_SERVERS: usize = 4;
/// Up to so many labels a hostname leaves room for all of [`MAX_SERVERS`] servers, even when their addresses must be asked for one by one.
const SHALLOW_LABELS: usize = 4;
/// A server costs five queries at most, so for about every four labels more one server less is asked.
const LABELS_PER_SERVER: usize = 4;

/// A zone as the resolver shows it.
#[derive(Debug)]
pub(crate) struct Zone {
    pub(crate) apex: Name,
    /// Every server's name.
    pub(crate) servers: Vec<Name>,
    /// The message that named them; it often has their addresses, too.
    message: Message,
}

/// One server to ask.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Its name and address, for people.
    pub(crate) label: Arc<str>,
    /// Where it is, or why it cannot be asked.
    pub(crate) address: Result<SocketAddr, Failure>,
}

impl Walk<'_> {
    /// Finds the closest zone around `start`, at or below `floor`, the registered domain.
    pub(crate) async fn find_zone(&self, start: Name, floor: &Name) -> Result<Zone, Answer> {
        let mut candidate = start;
        loop {
            let reply = self.ask_resolver(infrastructure(&candidate, RecordType::NS)).await;
            let message = match reply.and_then(|message| reading::refusal(&message, Voice::Resolver).map_or(Ok(message), Err)) {
                Ok(message) => message,
                Err(failure @ (Failure::Unreachable | Failure::BudgetSpent)) => return Err(Answer::Failed(failure)),
                // Some servers fail on types they do not know at names that are no zone; the apex is asked before giving up.
                Err(failure) if candidate == *floor => return Err(Answer::Failed(failure)),
                Err(_) => {
                    candidate = candidate.base_name();
                    continue;
                }
            };
            let servers = reading::servers_of(&message, &candidate);
            if !servers.is_empty() {
                return Ok(Zone { apex: candidate, servers, message });
            }
            let nothing = if message.metadata.response_code == ResponseCode::NXDomain { Answer::NxDomain } else { Answer::NoData };
            candidate = match reading::denying_zone(&message) {
                // The zone above the registered domain answers: nobody has registered it, or it was never delegated.
                Some(zone) if zone.num_labels() < floor.num_labels() => return Err(nothing),
                Some(zone) if zone.zone_of(&candidate) && *zone != candidate => zone.to_lowercase(),
                _ if candidate == *floor => return Err(nothing),
                _ => candidate.base_name(),
            };
        }
    }

    /// Finds where the zone's servers are, at most [`MAX_SERVERS`] of them, one address each. Servers that share one are one.
    pub(crate) async fn servers(&self, zone: &Zone, hostname: &Name) -> Vec<Server> {
        // Every label of a deep name is one more name to climb over for CAA, and the queries of a look are counted.
        let depth = usize::from(hostname.num_labels()).saturating_sub(SHALLOW_LABELS);
        let asked = MAX_SERVERS.saturating_sub(depth.div_ceil(LABELS_PER_SERVER)).max(1);
        let found = join_all(zone.servers.iter().take(asked).map(|name| self.server(zone, name))).await;
        let mut servers: Vec<Server> = Vec::with_capacity(found.len());
        for server in found {
            if server.address.is_err() || !servers.iter().any(|known| known.address == server.address) {
                servers.push(server);
            }
        }
        servers
    }

    async fn server(&self, zone: &Zone, name: &Name) -> Server {
        let text = text_of(name);
        let mut addresses = reading::addresses_of(&zone.message, name);
        let mut failure = Failure::NoAddress;
        for record_type in [RecordType::A, RecordType::AAAA] {
            if addresses.is_empty() {
                match self.ask_resolver(infrastructure(name, record_type)).await {
                    Ok(message) if reading::refusal(&message, Voice::Resolver).is_some() => failure = Failure::Unreachable,
                    Ok(message) => addresses = reading::addresses_of(&message, name),
                    Err(spent @ Failure::BudgetSpent) => failure = spent,
                    Err(_) if failure == Failure::NoAddress => failure = Failure::Unreachable,
                    Err(_) => {}
                }
            }
        }
        // IPv4 sorts first: not every home has IPv6.
        let allowed = |address: &&IpAddr| self.config.allow_non_global || is_global(**address);
        match (addresses.iter().find(allowed), addresses.first()) {
            (Some(&address), _) => {
                Server { label: format!("{text} ({address})").into(), address: Ok((address, self.config.authority_port).into()) }
            }
            (None, Some(refused)) => Server { label: format!("{text} ({refused})").into(), address: Err(Failure::NotGlobal) },
            (None, None) => Server { label: format!("{text} (no address)").into(), address: Err(failure) },
        }
    }
}

/// A question on the way to the records under judgement. What the servers then say is checked by the resolver's own answer, so broken
/// signatures need not hide them.
pub(crate) fn infrastructure(name: &Name, record_type: RecordType) -> Question<'_> {
    Question { name, record_type, recursive: true, unchecked: true, signed: false }
}
