//! What the zone answers, as a function of the question and of what stands in it.
//!
//! Arrives: a name and a type. Leaves: a [`Reply`]. Goes wrong: nothing; what is not this zone's is refused.
//!
//! Source: RFC 1034, section 4.3.2; RFC 2308 (denials carry the SOA record); RFC 8020 (a name below which something stands exists);
//! RFC 8482 (ANY gets one record, not all).

use std::net::IpAddr;

use domains::Hostname;
use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, NS, SOA, TXT},
    },
};

use crate::Reader;

/// How long anybody may remember an answer, or that there is none: one is needed for seconds, and an early question must not spoil it.
const ANSWER_TTL_SECONDS: u32 = 1;
/// How long who serves the zone may be remembered.
const SERVER_TTL_SECONDS: u32 = 3600;
/// Refresh, retry and expire of the SOA record. The zone has one server and no copies, so nobody acts on them. Source: RIPE-203.
const SOA_TIMES: (i32, i32, i32) = (86_400, 7_200, 3_600_000);
/// The longest string in a TXT record. Source: RFC 1035, section 3.3.
const TXT_STRING_BYTES: usize = 255;
/// The most values one answer carries; a name has one for each challenge under way.
const MOST_VALUES: usize = 32;

/// What a question gets.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) code: ResponseCode,
    pub(crate) authoritative: bool,
    pub(crate) answers: Vec<Record>,
    pub(crate) authorities: Vec<Record>,
    pub(crate) additionals: Vec<Record>,
}

impl Reply {
    /// A response code and nothing else.
    pub(crate) fn bare(code: ResponseCode) -> Self {
        Self { code, authoritative: false, answers: Vec::new(), authorities: Vec::new(), additionals: Vec::new() }
    }
}

/// The zone.
pub(crate) struct Zone {
    apex: Name,
    server: Name,
    addresses: Vec<IpAddr>,
    reader: Reader,
}

impl Zone {
    pub(crate) fn new(apex: &Hostname, addresses: Vec<IpAddr>, reader: Reader) -> Self {
        let fqdn = |text: &str| {
            let mut name = Name::from_ascii(text).unwrap_or_else(|_| Name::root());
            name.set_fqdn(true);
            name
        };
        // A hostname leaves room for `_acme-challenge.` before it, so `ns1.` fits as well.
        Self { apex: fqdn(apex.as_str()), server: fqdn(&format!("ns1.{apex}")), addresses, reader }
    }

    /// Answers a question; owners keep the letters they were asked in.
    pub(crate) fn answer(&self, asked: &Name, record_type: RecordType) -> Reply {
        if !self.apex.zone_of(asked) {
            return Reply::bare(ResponseCode::Refused);
        }
        let mut reply = Reply { authoritative: true, ..Reply::bare(ResponseCode::NoError) };
        let is_apex = *asked == self.apex;
        let is_server = *asked == self.server;
        let held = (self.reader)(&text_of(asked));
        if is_apex {
            self.at_apex(asked, record_type, &mut reply);
        }
        if is_server {
            reply.answers.extend(self.addresses_at(asked, record_type));
        }
        if matches!(record_type, RecordType::TXT | RecordType::ANY) {
            let values = held.values.iter().take(MOST_VALUES);
            reply.answers.extend(values.map(|value| Record::from_rdata(asked.clone(), ANSWER_TTL_SECONDS, RData::TXT(text(value)))));
        }
        if reply.answers.is_empty() {
            let exists = is_apex || is_server || held.has_below || !held.values.is_empty();
            reply.code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
            reply.authorities.push(self.soa(self.apex.clone(), ANSWER_TTL_SECONDS));
        }
        reply
    }

    fn at_apex(&self, asked: &Name, record_type: RecordType, reply: &mut Reply) {
        match record_type {
            RecordType::SOA | RecordType::ANY => reply.answers.push(self.soa(asked.clone(), SERVER_TTL_SECONDS)),
            RecordType::NS => {
                let ns = RData::NS(NS(self.server.clone()));
                reply.answers.push(Record::from_rdata(asked.clone(), SERVER_TTL_SECONDS, ns));
                reply.additionals.extend(self.addresses_at(&self.server, RecordType::ANY));
            }
            _ => {}
        }
    }

    fn addresses_at(&self, owner: &Name, record_type: RecordType) -> impl Iterator<Item = Record> {
        let wanted = move |address: &&IpAddr| match record_type {
            RecordType::A => address.is_ipv4(),
            RecordType::AAAA => address.is_ipv6(),
            RecordType::ANY => true,
            _ => false,
        };
        self.addresses.iter().filter(wanted).map(move |address| {
            let data = match address {
                IpAddr::V4(address) => RData::A(A(*address)),
                IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
            };
            Record::from_rdata(owner.clone(), SERVER_TTL_SECONDS, data)
        })
    }

    fn soa(&self, owner: Name, ttl: u32) -> Record {
        let (refresh, retry, expire) = SOA_TIMES;
        let mailbox = self.apex.prepend_label("hostmaster").unwrap_or_else(|_| self.apex.clone());
        // The serial number tells copies that something changed; there are none.
        let soa = SOA::new(self.server.clone(), mailbox, 1, refresh, retry, expire, ANSWER_TTL_SECONDS);
        Record::from_rdata(owner, ttl, RData::SOA(soa))
    }
}

/// The name as the reader knows it.
fn text_of(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') && !text.ends_with("\\.") {
        text.pop();
    }
    text
}

/// One value as the strings it needs, cut between characters.
fn text(value: &str) -> TXT {
    let mut strings = Vec::new();
    let mut rest = value;
    while rest.len() > TXT_STRING_BYTES {
        let end = (0..=TXT_STRING_BYTES).rev().find(|&end| rest.is_char_boundary(end)).unwrap_or(rest.len());
        strings.push(rest[..end].to_owned());
        rest = &rest[end..];
    }
    strings.push(rest.to_owned());
    TXT::new(strings)
}
