//! What a look may do and whom it asks.
//!
//! Arrives: the operator's settings. Leaves: a [`LookupConfig`]. Goes wrong: nothing; every value is usable.

use std::{net::SocketAddr, num::NonZeroU16, time::Duration};

/// The port name servers listen on. Source: RFC 1035, section 4.2.
const DNS_PORT: u16 = 53;
/// How long one try may take: a server on the far side of the world answers in under 0.4 s, so this forgives a slow one, and two tries of
/// it leave room for the rest of a look.
const QUERY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one look may take. Source: DESIGN, section 4.
const LOOK_BUDGET: Duration = Duration::from_secs(10);
/// How many queries one look may send. Source: DESIGN, section 4.
const MAX_QUERIES: u32 = 30;
/// How many queries of all looks may be in the air: each holds one socket, so this bounds file descriptors.
const MAX_IN_FLIGHT: usize = 256;

/// Whom looks ask, and what they may spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupConfig {
    /// The public resolver, asked over UDP and TCP. It may have any address: the operator chose it.
    pub resolver: SocketAddr,
    /// The port of the zones' own servers: 53, except on a machine of one's own.
    pub authority_port: u16,
    /// Whether name servers may have addresses that are not on the public internet. For tests and one's own machine only: with it, anyone
    /// who can register a hostname can make this process send DNS queries into the network it runs in.
    pub allow_non_global: bool,
    /// How long one try of one query may take; every query is tried twice.
    pub query_timeout: Duration,
    /// How long one look may take, whatever it meets.
    pub look_budget: Duration,
    /// How many queries one look may send, every try counted.
    pub max_queries: u32,
    /// How many queries of all looks together may wait for an answer; further ones wait their turn, on their own look's time.
    pub max_in_flight: usize,
}

impl LookupConfig {
    /// The settings for the public internet, with this resolver.
    pub fn asking(resolver: SocketAddr) -> Self {
        Self {
            resolver,
            authority_port: DNS_PORT,
            allow_non_global: false,
            query_timeout: QUERY_TIMEOUT,
            look_budget: LOOK_BUDGET,
            max_queries: MAX_QUERIES,
            max_in_flight: MAX_IN_FLIGHT,
        }
    }

    /// The same with the zones' own servers at another port than DNS's, if one is given, and with or without those that are not on the public
    /// internet.
    #[must_use]
    pub fn with(self, authority_port: Option<NonZeroU16>, allow_non_global: bool) -> Self {
        Self { authority_port: authority_port.map_or(self.authority_port, NonZeroU16::get), allow_non_global, ..self }
    }

    /// The settings for one machine, where one server is resolver and authority at once.
    pub fn on_loopback(server: SocketAddr) -> Self {
        Self { authority_port: server.port(), allow_non_global: true, ..Self::asking(server) }
    }
}
