//! One question to one server, for whoever looks after an installation.
//!
//! Arrives: a server, a name, a type. Leaves: what it said. Goes wrong: a [`Failure`], a refusal's response code among them.

use std::{net::SocketAddr, time::Duration};

use domains::{Answer, Failure};
use hickory_proto::rr::{Name, RecordType};

use crate::{
    budget::Budget,
    exchange::{Exchange, Question},
    reading::{self, Voice},
};

/// How long one question may take, its repeats included.
const PATIENCE: Duration = Duration::from_secs(6);
/// How long one try may take.
const TRY: Duration = Duration::from_secs(2);
/// How many messages one question may send.
const MESSAGES: u32 = 4;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// A zone's servers.
    Ns,
}

/// Who is asked, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// A resolver, which finds the answer elsewhere.
    Resolver,
    /// An authority, over UDP.
    AuthorityOverUdp,
    /// An authority, over TCP.
    AuthorityOverTcp,
}

/// Asks one question.
pub async fn ask(server: SocketAddr, asking: Asking, name: &str, wanted: Wanted) -> Answer {
    let record_type = match wanted {
        Wanted::A => RecordType::A,
        Wanted::Aaaa => RecordType::AAAA,
        Wanted::Ns => RecordType::NS,
    };
    let Ok(mut name) = Name::from_ascii(name) else {
        return Answer::Failed(Failure::Malformed { detail: format!("{name} is not a name of DNS") });
    };
    name.set_fqdn(true);
    let (exchange, budget) = (Exchange::new(TRY, 1), Budget::new(PATIENCE, MESSAGES));
    let question = Question { name: &name, record_type, recursive: asking == Asking::Resolver, unchecked: false, signed: false };
    let reply = match asking {
        Asking::AuthorityOverTcp => exchange.ask_over_tcp(server, question, &budget).await,
        Asking::AuthorityOverUdp | Asking::Resolver => exchange.ask(server, question, &budget).await,
    };
    let voice = if asking == Asking::Resolver { Voice::Resolver } else { Voice::Authority };
    reading::answer(&reply, &name, record_type, voice)
}

/// A zone that was signed before this was written and will be for as long as names are registered in it. Source: data.iana.org's list of
/// signed top-level domains (read 2026-11).
const SIGNED_ZONE: &str = "com";

/// Asks whether a resolver checks signatures (DNSSEC): whether it says so of an answer that has them.
///
/// # Errors
/// [`Failure`] when it gave no answer for that zone, and nothing is known.
pub async fn validates(resolver: SocketAddr) -> Result<bool, Failure> {
    let unaskable = |_| Failure::Malformed { detail: format!("{SIGNED_ZONE} is not a name of DNS") };
    let mut name = Name::from_ascii(SIGNED_ZONE).map_err(unaskable)?;
    name.set_fqdn(true);
    let (exchange, budget) = (Exchange::new(TRY, 1), Budget::new(PATIENCE, MESSAGES));
    let question = Question { name: &name, record_type: RecordType::SOA, recursive: true, unchecked: false, signed: true };
    let reply = exchange.ask(resolver, question, &budget).await;
    let is_checked = reply.as_ref().is_ok_and(|message| message.metadata.authentic_data);
    match reading::answer(&reply, &name, RecordType::SOA, Voice::Resolver) {
        Answer::Failed(failure) => Err(failure),
        // A resolver that says it does not exist knows another world than the public one.
        Answer::NxDomain => Err(Failure::Malformed { detail: format!("it says that {SIGNED_ZONE} does not exist") }),
        Answer::NoData | Answer::Records(_) => Ok(is_checked),
    }
}
