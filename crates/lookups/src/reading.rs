//! Messages read as facts.
//!
//! Arrives: a server's message, or why there is none. Leaves: an [`Answer`], a CNAME chain, the zone a denial came from. Goes wrong: a
//! response code that denies the answer is a [`Failure`]; whatever else a message carries is not looked at.

use std::net::IpAddr;

use domains::{Answer, ChainEnd, Failure};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{HTTPS, opt::EdnsOption, svcb::SvcParamValue},
    },
};

use crate::dnssec;

/// How many CNAMEs are followed. Source: what resolvers follow differs, from 8 (BIND 9, Let's Encrypt's own limit is 10) upwards; a longer
/// chain fails somewhere.
pub(crate) const MAX_CHAIN: usize = 8;

/// What a server is to the question: whether the AA bit must be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    Authority,
    Resolver,
}

/// The name as facts carry it: lower-case, without a final dot, bytes that are no letters escaped.
pub(crate) fn text_of(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') && !text.ends_with("\\.") {
        text.pop();
    }
    text
}

/// Reads the answer to a question for `record_type` at `name`.
///
/// Addresses and CAA are looked for at the end of the CNAME chain, as far as the message shows it (for CAA: RFC 8659, section 3); everything
/// else at the name itself only, since what stands behind an alias is somebody else's to write.
pub(crate) fn answer(reply: &Result<Message, Failure>, name: &Name, record_type: RecordType, voice: Voice) -> Answer {
    let message = match reply {
        Ok(message) => message,
        Err(failure) => return Answer::Failed(failure.clone()),
    };
    if let Some(failure) = refusal(message, voice) {
        return Answer::Failed(failure);
    }
    let aliases = chain(message, name).0;
    let owner = match (record_type, aliases.last()) {
        (RecordType::A | RecordType::AAAA | RecordType::CAA, Some(last)) => last,
        _ => name,
    };
    let mut records: Vec<String> =
        at(message, owner).filter(|record| record.record_type() == record_type).filter_map(|record| text(&record.data)).collect();
    records.sort();
    records.dedup();
    // NXDOMAIN denies the end of the chain, so a name that is an alias exists all the same.
    let denied = message.metadata.response_code == ResponseCode::NXDomain && (aliases.is_empty() || owner != name);
    match records.is_empty() {
        false => Answer::Records(records),
        true if denied => Answer::NxDomain,
        true => Answer::NoData,
    }
}

/// The names of the CNAME chain after `name`, as far as this message shows it, and how it ends there.
pub(crate) fn chain(message: &Message, name: &Name) -> (Vec<Name>, ChainEnd) {
    let mut names: Vec<Name> = Vec::new();
    loop {
        let here = names.last().unwrap_or(name);
        let next = at(message, here).find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        });
        match next {
            None => return (names, ChainEnd::Complete),
            Some(next) if next == *name || names.contains(&next) => {
                names.push(next);
                return (names, ChainEnd::Loop);
            }
            Some(_) if names.len() == MAX_CHAIN => return (names, ChainEnd::TooLong),
            Some(next) => names.push(next),
        }
    }
}

/// The zone that denies having what was asked for: the owner of the SOA record that every denial carries (RFC 2308, section 3). `None`
/// when the message denies nothing, or denies it for the end of a CNAME chain, which may lie in another zone.
pub(crate) fn denying_zone(message: &Message) -> Option<&Name> {
    let denies = matches!(message.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain) && message.answers.is_empty();
    denies.then(|| message.authorities.iter().find(|record| record.record_type() == RecordType::SOA).map(|record| &record.name))?
}

/// The name servers that the answer names for `apex`.
pub(crate) fn servers_of(message: &Message, apex: &Name) -> Vec<Name> {
    let named = at(message, apex).filter_map(|record| match &record.data {
        RData::NS(server) => Some(server.0.to_lowercase()),
        _ => None,
    });
    let mut servers: Vec<Name> = named.collect();
    servers.sort();
    servers.dedup();
    servers
}

/// The addresses that come along for `name`, in the answer or beside it.
pub(crate) fn addresses_of(message: &Message, name: &Name) -> Vec<IpAddr> {
    let chain = chain(message, name).0;
    let owner = chain.last().unwrap_or(name);
    let mut addresses: Vec<IpAddr> = at(message, owner)
        .chain(message.additionals.iter().filter(|record| record.name == *owner))
        .filter_map(|record| record.data.ip_addr())
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// The failure that a response code or a missing AA bit is.
pub(crate) fn refusal(message: &Message, voice: Voice) -> Option<Failure> {
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain if voice == Voice::Authority && !message.metadata.authoritative => {
            Some(Failure::Refused) // lame: the parent names this server, and it does not serve the zone
        }
        ResponseCode::NoError | ResponseCode::NXDomain => None,
        ResponseCode::ServFail => Some(Failure::Servfail),
        ResponseCode::Refused | ResponseCode::NotAuth => Some(Failure::Refused),
        code => Some(Failure::Malformed { detail: format!("response code {} ({code})", u16::from(code)) }),
    }
}

pub(crate) fn at<'m>(message: &'m Message, owner: &Name) -> impl Iterator<Item = &'m Record> {
    message.answers.iter().filter(move |record| record.dns_class == DNSClass::IN && record.name == *owner)
}

fn text(data: &RData) -> Option<String> {
    match data {
        RData::A(address) => Some(address.0.to_string()),
        RData::AAAA(address) => Some(address.0.to_string()),
        RData::CNAME(target) => Some(text_of(&target.0)),
        RData::NS(server) => Some(text_of(&server.0)),
        RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
        RData::CAA(caa) => Some(format!("{} {} \"{}\"", caa.flags(), caa.tag, String::from_utf8_lossy(&caa.value))),
        RData::HTTPS(https) => Some(service(https)),
        RData::Unknown { code: RecordType::DS, rdata } => dnssec::ds_text(&rdata.anything),
        _ => None,
    }
}

/// `priority target [hint …]`: what an HTTPS record says of where the service is; what it says of protocols leads nowhere.
fn service(https: &HTTPS) -> String {
    let target = if https.target_name.is_root() { ".".to_owned() } else { text_of(&https.target_name) };
    let hints = https.svc_params.iter().flat_map(|(_, value)| match value {
        SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|address| address.0.to_string()).collect::<Vec<_>>(),
        SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|address| address.0.to_string()).collect(),
        _ => Vec::new(),
    });
    [https.svc_priority.to_string(), target].into_iter().chain(hints).collect::<Vec<_>>().join(" ")
}

/// The reasons that come with a failure. Source: RFC 8914, section 2.
pub(crate) fn extended_errors(message: &Message) -> Vec<u16> {
    let options = message.edns.iter().flat_map(|edns| edns.options().options.iter());
    let mut codes: Vec<u16> = options
        .filter_map(|(_, option)| match option {
            EdnsOption::Unknown(EXTENDED_ERROR, data) => Some(u16::from_be_bytes([*data.first()?, *data.get(1)?])),
            _ => None,
        })
        .collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// The EDNS option of an extended error. Source: RFC 8914, section 2.
const EXTENDED_ERROR: u16 = 15;
