//! The text forms of HTTPS, DS and DNSKEY records.
//!
//! Arrives: one record's text, as zone files write it. Leaves: its data, and its text made canonical. Goes wrong: a reason that says what
//! is needed instead.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::{
    Name, RData, RecordType as WireType,
    rdata::{
        A, AAAA, HTTPS, NULL, SVCB,
        svcb::{Alpn, IpHint, SvcParamKey, SvcParamValue},
    },
};

use super::{fields, number, target};
use crate::names::shown;

/// `priority target key=value …`, of the keys the ones that lead somewhere (RFC 9460, section 2.1).
pub(super) fn parse_https(text: &str) -> Result<(RData, String), String> {
    let mut words = text.split_whitespace();
    let needed = "a priority and a target are needed, such as `1 . alpn=h2 ipv4hint=192.0.2.1`";
    let (priority, host) = words.next().zip(words.next()).ok_or(needed)?;
    let priority: u16 = number(priority, "the priority")?;
    let host = if host == "." { Name::root() } else { target(host)? };
    let mut params = words.map(parse_param).collect::<Result<Vec<_>, _>>()?;
    params.sort_by_key(|(key, ..)| u16::from(*key));
    let name = if host.is_root() { ".".to_owned() } else { shown(&host) };
    let texts: Vec<String> = [priority.to_string(), name].into_iter().chain(params.iter().map(|(.., text)| text.clone())).collect();
    let params = params.into_iter().map(|(key, value, _)| (key, value)).collect();
    Ok((RData::HTTPS(HTTPS(SVCB::new(priority, host, params))), texts.join(" ")))
}

fn parse_param(text: &str) -> Result<(SvcParamKey, SvcParamValue, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not key=value"))?;
    let bad = |what: &str| format!("`{value}` is not {what}");
    let parsed = match key {
        "alpn" => (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(value.split(',').map(str::to_owned).collect()))),
        "port" => (SvcParamKey::Port, SvcParamValue::Port(number(value, "the port")?)),
        "ipv4hint" => {
            let hints: Result<Vec<Ipv4Addr>, _> = value.split(',').map(str::parse).collect();
            (
                SvcParamKey::Ipv4Hint,
                SvcParamValue::Ipv4Hint(IpHint(hints.map_err(|_| bad("a list of IPv4 addresses"))?.into_iter().map(A).collect())),
            )
        }
        "ipv6hint" => {
            let hints: Result<Vec<Ipv6Addr>, _> = value.split(',').map(str::parse).collect();
            (
                SvcParamKey::Ipv6Hint,
                SvcParamValue::Ipv6Hint(IpHint(hints.map_err(|_| bad("a list of IPv6 addresses"))?.into_iter().map(AAAA).collect())),
            )
        }
        _ => return Err(format!("`{key}` is not one of alpn, port, ipv4hint, ipv6hint")),
    };
    Ok((parsed.0, parsed.1, text.to_owned()))
}

/// `tag algorithm digest-type digest`, the digest in hex (RFC 4034, section 5.3).
pub(super) fn parse_ds(text: &str) -> Result<(RData, String), String> {
    let [tag, algorithm, kind, digest] = fields(text).ok_or("four fields are needed: key tag, algorithm, digest type, digest in hex")?;
    let (tag, algorithm, kind): (u16, u8, u8) =
        (number(tag, "the key tag")?, number(algorithm, "the algorithm")?, number(kind, "the digest type")?);
    let mut data = tag.to_be_bytes().to_vec();
    data.extend([algorithm, kind]);
    data.extend(hex(digest)?);
    Ok((raw(WireType::DS, data), format!("{tag} {algorithm} {kind} {}", digest.to_ascii_lowercase())))
}

/// `flags protocol algorithm key`, the key in hex: it signs nothing here, so any bytes do.
pub(super) fn parse_dnskey(text: &str) -> Result<(RData, String), String> {
    let [flags, protocol, algorithm, key] = fields(text).ok_or("four fields are needed: flags, protocol, algorithm, key in hex")?;
    let (flags, protocol, algorithm): (u16, u8, u8) =
        (number(flags, "the flags")?, number(protocol, "the protocol")?, number(algorithm, "the algorithm")?);
    let mut data = flags.to_be_bytes().to_vec();
    data.extend([protocol, algorithm]);
    data.extend(hex(key)?);
    Ok((raw(WireType::DNSKEY, data), format!("{flags} {protocol} {algorithm} {}", key.to_ascii_lowercase())))
}

fn raw(code: WireType, data: Vec<u8>) -> RData {
    RData::Unknown { code, rdata: NULL::with(data) }
}

fn hex(text: &str) -> Result<Vec<u8>, String> {
    let bad = || format!("`{text}` is not hex");
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(bad());
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| bad())).collect()
}
