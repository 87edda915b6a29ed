//! Records as people write them, and as answers carry them.
//!
//! Arrives: a [`Record`], in the text form that every DNS panel and zone file uses. Leaves: the same, parsed, with its text made
//! canonical. Goes wrong: [`RecordError`], which names the record, what was sent, and what to send instead.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use hickory_proto::{
    rr::{
        Name, RData, RecordType as WireType,
        rdata::{A, AAAA, CAA, CNAME, MX, NS, SOA, TXT},
    },
    serialize::binary::{BinEncodable, BinEncoder},
};
use serde::{Deserialize, Serialize};

use crate::names::{NameError, parse_name, shown};

mod service;

/// The longest time to live. Source: RFC 2181, section 8.
const MAX_TTL_SECONDS: u32 = i32::MAX as u32;
/// The most bytes in one character-string. Source: RFC 1035, section 3.3.
const MAX_STRING_BYTES: usize = 255;
/// What a set of records may take, so that header, question and OPT record still fit into one message over TCP.
const MAX_SET_BYTES: usize = u16::MAX as usize - 512;
/// Type, class, TTL and length before each record's data. Source: RFC 1035, section 4.1.3.
const RECORD_HEADER_BYTES: usize = 10;

/// All records of one name and type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The owner: lower-case and without a final dot when it comes from the zone.
    pub name: String,
    /// What kind of data it holds.
    #[serde(rename = "type")]
    pub record_type: RecordType,
    /// How many seconds a resolver may keep it; the zone's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// One text per record, in presentation format. A TXT text that does not begin with `"` is taken literally, as one value.
    pub data: Vec<String>,
}

/// The record types that the zone stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum RecordType {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Who may issue certificates (RFC 8659).
    Caa,
    /// The name is an alias of another.
    Cname,
    /// A zone's public key, as DNSSEC publishes it. Nothing here signs with it.
    Dnskey,
    /// What a zone's parent says of its key (RFC 4034, section 5).
    Ds,
    /// Where browsers find the name's HTTPS service (RFC 9460).
    Https,
    /// Where mail goes.
    Mx,
    /// A zone's name servers, or a delegation when it stands below an apex.
    Ns,
    /// The start of a zone: a name that holds one is an apex.
    Soa,
    /// Text.
    Txt,
}

/// Why a record was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The owner's name, or a name asked for.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The type is not one that the zone stores.
    #[error("`{0}` is not a record type of this server; use one of A, AAAA, CAA, CNAME, DNSKEY, DS, HTTPS, MX, NS, SOA, TXT")]
    UnknownType(String),
    /// The text is not data of its type.
    #[error("{name} {record_type}: `{text}` does not fit: {reason}")]
    Data {
        /// The owner.
        name: String,
        /// The type it should fit.
        record_type: RecordType,
        /// What was sent, as far as an error may repeat it.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No data came along.
    #[error("{name} {record_type}: no data; send at least one value, or delete the record")]
    NoData {
        /// The owner.
        name: String,
        /// The type.
        record_type: RecordType,
    },
    /// A type of which a name has one at most.
    #[error("{name} {record_type}: a name has one {record_type} record at most, and this would make {count}")]
    OnlyOne {
        /// The owner.
        name: String,
        /// The type.
        record_type: RecordType,
        /// How many there would be.
        count: usize,
    },
    /// The records would not fit into one answer.
    #[error("{name} {record_type}: {bytes} bytes of records do not fit into one DNS message; at most {MAX_SET_BYTES} do")]
    TooLarge {
        /// The owner.
        name: String,
        /// The type.
        record_type: RecordType,
        /// How large they would be.
        bytes: usize,
    },
    /// The time to live is over the limit of DNS.
    #[error("{name} {record_type}: a TTL of {ttl} seconds is over the limit of {MAX_TTL_SECONDS}")]
    Ttl {
        /// The owner.
        name: String,
        /// The type.
        record_type: RecordType,
        /// What was sent.
        ttl: u32,
    },
    /// A CNAME and other data cannot share a name (RFC 1034, section 3.6.2).
    #[error("{name} already has {present} data and cannot have {record_type} too: a CNAME stands alone; delete the {present} first")]
    CnameConflict {
        /// The owner.
        name: String,
        /// What was to be added.
        record_type: RecordType,
        /// What is there.
        present: RecordType,
    },
    /// An apex has SOA and NS, so it cannot have a CNAME.
    #[error("{name} is a zone's apex, which always has SOA and NS data and so cannot be a CNAME; use A and AAAA records")]
    CnameAtApex {
        /// The owner.
        name: String,
    },
}

impl RecordError {
    /// Whether the record is sound by itself, and only what the zone already holds stands against it.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::CnameConflict { .. } | Self::CnameAtApex { .. } | Self::OnlyOne { .. })
    }
}

impl RecordType {
    /// As written in zone files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Caa => "CAA",
            Self::Cname => "CNAME",
            Self::Dnskey => "DNSKEY",
            Self::Ds => "DS",
            Self::Https => "HTTPS",
            Self::Mx => "MX",
            Self::Ns => "NS",
            Self::Soa => "SOA",
            Self::Txt => "TXT",
        }
    }

    pub(crate) fn wire(self) -> WireType {
        match self {
            Self::A => WireType::A,
            Self::Aaaa => WireType::AAAA,
            Self::Caa => WireType::CAA,
            Self::Cname => WireType::CNAME,
            Self::Dnskey => WireType::DNSKEY,
            Self::Ds => WireType::DS,
            Self::Https => WireType::HTTPS,
            Self::Mx => WireType::MX,
            Self::Ns => WireType::NS,
            Self::Soa => WireType::SOA,
            Self::Txt => WireType::TXT,
        }
    }

    fn is_single(self) -> bool {
        matches!(self, Self::Cname | Self::Soa)
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RecordType {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let all =
            [Self::A, Self::Aaaa, Self::Caa, Self::Cname, Self::Dnskey, Self::Ds, Self::Https, Self::Mx, Self::Ns, Self::Soa, Self::Txt];
        all.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text)).ok_or_else(|| RecordError::UnknownType(excerpt(text)))
    }
}

impl TryFrom<String> for RecordType {
    type Error = RecordError;

    fn try_from(text: String) -> Result<Self, RecordError> {
        text.parse()
    }
}

impl From<RecordType> for &'static str {
    fn from(record_type: RecordType) -> Self {
        record_type.as_str()
    }
}

/// The parsed records of one name and type.
#[derive(Clone, Debug)]
pub(crate) struct RecordSet {
    pub(crate) record_type: RecordType,
    /// `None` until the zone's default is filled in.
    pub(crate) ttl: Option<u32>,
    values: Vec<Value>,
}

#[derive(Clone, Debug)]
struct Value {
    text: String,
    rdata: RData,
}

impl RecordSet {
    /// Parses a record and its owner's name.
    pub(crate) fn parse(record: &Record) -> Result<(Name, Self), RecordError> {
        let owner = parse_name(&record.name)?.to_lowercase();
        let record_type = record.record_type;
        let name = || shown(&owner);
        if record.data.is_empty() {
            return Err(RecordError::NoData { name: name(), record_type });
        }
        if let Some(ttl) = record.ttl.filter(|ttl| *ttl > MAX_TTL_SECONDS) {
            return Err(RecordError::Ttl { name: name(), record_type, ttl });
        }
        let mut set = Self { record_type, ttl: record.ttl, values: Vec::with_capacity(record.data.len()) };
        for text in &record.data {
            let value = parse_value(record_type, text.trim()).map_err(|reason| RecordError::Data {
                name: name(),
                record_type,
                text: excerpt(text),
                reason,
            })?;
            set.push(value);
        }
        set.check_size(&owner)?;
        Ok((owner, set))
    }

    /// Returns this set with the values of `more`; each value stays single, and the newer TTL counts for all (RFC 2181, section 5.2).
    pub(crate) fn with(&self, more: &Self, owner: &Name) -> Result<Self, RecordError> {
        let mut sum = self.clone();
        sum.ttl = more.ttl.or(self.ttl);
        more.values.iter().for_each(|value| sum.push(value.clone()));
        sum.check_size(owner)?;
        Ok(sum)
    }

    /// The data as answers carry it.
    pub(crate) fn rdata(&self) -> impl Iterator<Item = &RData> {
        self.values.iter().map(|value| &value.rdata)
    }

    /// The set as people read it.
    pub(crate) fn to_record(&self, name: &str) -> Record {
        let data = self.values.iter().map(|value| value.text.clone()).collect();
        Record { name: name.to_owned(), record_type: self.record_type, ttl: self.ttl, data }
    }

    fn push(&mut self, value: Value) {
        if !self.values.iter().any(|present| present.rdata == value.rdata) {
            self.values.push(value);
        }
    }

    fn check_size(&self, owner: &Name) -> Result<(), RecordError> {
        let record_type = self.record_type;
        if record_type.is_single() && self.values.len() > 1 {
            return Err(RecordError::OnlyOne { name: shown(owner), record_type, count: self.values.len() });
        }
        let each = owner.len() + RECORD_HEADER_BYTES;
        let bytes = self.values.iter().map(|value| each + wire_bytes(&value.rdata)).sum();
        if bytes > MAX_SET_BYTES {
            return Err(RecordError::TooLarge { name: shown(owner), record_type, bytes });
        }
        Ok(())
    }
}

/// How long the data is in a message; data that cannot be written at all counts as too long.
fn wire_bytes(rdata: &RData) -> usize {
    let mut bytes = Vec::new();
    match rdata.emit(&mut BinEncoder::new(&mut bytes)) {
        Ok(()) => bytes.len(),
        Err(_) => MAX_SET_BYTES + 1,
    }
}

fn parse_value(record_type: RecordType, text: &str) -> Result<Value, String> {
    let (rdata, text) = match record_type {
        RecordType::A => {
            let address: Ipv4Addr = text.parse().map_err(|_| "an IPv4 address such as 127.0.0.1 is needed".to_owned())?;
            (RData::A(A(address)), address.to_string())
        }
        RecordType::Aaaa => {
            let address: Ipv6Addr = text.parse().map_err(|_| "an IPv6 address such as ::1 is needed".to_owned())?;
            (RData::AAAA(AAAA(address)), address.to_string())
        }
        RecordType::Cname => {
            let target = target(text)?;
            (RData::CNAME(CNAME(target.clone())), shown(&target))
        }
        RecordType::Ns => {
            let target = target(text)?;
            (RData::NS(NS(target.clone())), shown(&target))
        }
        RecordType::Mx => parse_mx(text)?,
        RecordType::Soa => parse_soa(text)?,
        RecordType::Caa => parse_caa(text)?,
        RecordType::Dnskey => service::parse_dnskey(text)?,
        RecordType::Ds => service::parse_ds(text)?,
        RecordType::Https => service::parse_https(text)?,
        RecordType::Txt => parse_txt(text)?,
    };
    Ok(Value { text, rdata })
}

fn target(text: &str) -> Result<Name, String> {
    parse_name(text).map_err(|error| error.to_string())
}

fn parse_mx(text: &str) -> Result<(RData, String), String> {
    let [preference, exchange] = fields(text).ok_or("a preference and a name are needed, such as `10 mail.brand.test`")?;
    let preference: u16 = number(preference, "the preference")?;
    // RFC 7505: `0 .` says that the name takes no mail.
    let exchange = if exchange == "." { Name::root() } else { target(exchange)? };
    let shown = format!("{preference} {}", shown(&exchange));
    Ok((RData::MX(MX::new(preference, exchange)), shown))
}

fn parse_soa(text: &str) -> Result<(RData, String), String> {
    let [mname, rname, serial, refresh, retry, expire, minimum] =
        fields(text).ok_or("seven fields are needed: primary, mailbox, serial, refresh, retry, expire, minimum")?;
    let (mname, rname) = (target(mname)?, target(rname)?);
    let (serial, minimum): (u32, u32) = (number(serial, "the serial")?, number(minimum, "the minimum")?);
    let seconds = |text, what| number::<u32>(text, what).and_then(|s| i32::try_from(s).map_err(|_| format!("{what} is too large")));
    let (refresh, retry, expire) = (seconds(refresh, "refresh")?, seconds(retry, "retry")?, seconds(expire, "expire")?);
    let text = format!("{} {} {serial} {refresh} {retry} {expire} {minimum}", shown(&mname), shown(&rname));
    Ok((RData::SOA(SOA::new(mname, rname, serial, refresh, retry, expire, minimum)), text))
}

fn parse_caa(text: &str) -> Result<(RData, String), String> {
    let needed = "flags, tag and value are needed, such as `0 issue \"letsencrypt.org\"`";
    let (flags, rest) = text.split_once(char::is_whitespace).ok_or(needed)?;
    let (tag, value) = rest.trim_start().split_once(char::is_whitespace).ok_or(needed)?;
    let flags: u8 = number(flags, "the flags")?;
    if tag.len() > 15 || !tag.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err("the tag has 1 to 15 letters and digits".to_owned());
    }
    let value = match value.trim_start() {
        quoted if quoted.starts_with('"') => match quoted_strings(quoted)?.as_slice() {
            [one] => one.clone(),
            _ => return Err("the value is one quoted text".to_owned()),
        },
        literal => literal.as_bytes().to_vec(),
    };
    let text = format!("{flags} {tag} {}", quote(&value));
    // The struct is non-exhaustive and its constructors know two tags only; any tag and value must be possible, broken ones too.
    let mut caa = CAA::new_issue(flags & 0x80 != 0, None, Vec::new());
    (caa.reserved_flags, caa.tag, caa.value) = (flags & 0x7f, tag.to_owned(), value);
    Ok((RData::CAA(caa), text))
}

fn parse_txt(text: &str) -> Result<(RData, String), String> {
    let strings = match text {
        "" => return Err("the text is empty; write `\"\"` for a record of one empty string".to_owned()),
        quoted if quoted.starts_with('"') => quoted_strings(quoted)?,
        literal => literal.as_bytes().chunks(MAX_STRING_BYTES).map(<[u8]>::to_vec).collect(),
    };
    let text = strings.iter().map(|string| quote(string)).collect::<Vec<_>>().join(" ");
    Ok((RData::TXT(TXT::from_bytes(strings.iter().map(Vec::as_slice).collect())), text))
}

/// Exactly `N` fields between white space.
fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    text.split_whitespace().collect::<Vec<_>>().try_into().ok()
}

fn number<T: FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{what} `{text}` is not a number in range"))
}

/// Reads `"one" "two"`, with `\"`, `\\` and `\DDD` inside. Source: RFC 1035, section 5.1.
fn quoted_strings(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut strings = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let inside = rest.strip_prefix('"').ok_or("each string stands in double quotes of its own")?;
        let (string, after) = quoted_string(inside)?;
        if string.len() > MAX_STRING_BYTES {
            return Err(format!("a string has {} bytes; each has at most {MAX_STRING_BYTES}, so split it into several", string.len()));
        }
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return Err("a space is needed between strings".to_owned());
        }
        strings.push(string);
        rest = after.trim_start();
    }
    Ok(strings)
}

/// Reads up to the closing quote; returns the string's bytes and what follows.
fn quoted_string(inside: &str) -> Result<(Vec<u8>, &str), String> {
    let bytes = inside.as_bytes();
    let (mut string, mut at) = (Vec::new(), 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            // Both quote and backslash are ASCII, so `at + 1` is a character boundary.
            b'"' => return Ok((string, &inside[at + 1..])),
            b'\\' if bytes.get(at + 1).is_some_and(u8::is_ascii_digit) => {
                let code = inside.get(at + 1..at + 4).and_then(|digits| digits.parse::<u8>().ok());
                string.push(code.ok_or("after a backslash stand three decimal digits up to 255, or one other character")?);
                at += 4;
            }
            b'\\' => {
                string.push(*bytes.get(at + 1).ok_or("the text ends in a backslash")?);
                at += 2;
            }
            other => {
                string.push(other);
                at += 1;
            }
        }
    }
    Err("a closing double quote is missing".to_owned())
}

fn quote(string: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in string {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte as char]),
            b' '..=b'~' => text.push(byte as char),
            other => text.push_str(&format!("\\{other:03}")),
        }
    }
    text + "\""
}

/// As much of a stranger's text as an error may repeat, without control characters.
fn excerpt(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(record_type: &str, data: &[&str]) -> Result<Record, RecordError> {
        let data = data.iter().map(|&text| text.to_owned()).collect();
        let record = Record { name: "Shop.Brand.test.".into(), record_type: record_type.parse()?, ttl: None, data };
        let (owner, set) = RecordSet::parse(&record)?;
        Ok(set.to_record(&shown(&owner)))
    }

    #[test]
    fn good_data_becomes_canonical_text_that_reads_back_as_itself() {
        for (record_type, text, canonical) in [
            ("a", "127.0.0.1", "127.0.0.1"),
            ("AAAA", "0:0::1", "::1"),
            ("CNAME", "Abc.t.edge.test.", "Abc.t.edge.test"),
            ("NS", "ns1.brand.test", "ns1.brand.test"),
            ("MX", "10  mail.brand.test.", "10 mail.brand.test"),
            ("MX", "0 .", "0 ."),
            ("SOA", "ns1.brand.test. admin.brand.test. 7 1 2 3 4", "ns1.brand.test admin.brand.test 7 1 2 3 4"),
            ("CAA", "0 issue letsencrypt.org", r#"0 issue "letsencrypt.org""#),
            ("CAA", r#"128 issuewild ";""#, r#"128 issuewild ";""#),
            ("CAA", "0 issue ca.test; accounturi=https://ca.test/1", r#"0 issue "ca.test; accounturi=https://ca.test/1""#),
            ("TXT", "v=1; a b", r#""v=1; a b""#),
            ("TXT", r#""one" "two""#, r#""one" "two""#),
            ("TXT", r#""quote \" back \\ byte \200""#, r#""quote \" back \\ byte \200""#),
            ("TXT", "ü", r#""\195\188""#),
            ("TXT", r#""""#, r#""""#),
        ] {
            let once = parse(record_type, &[text]).unwrap();
            assert_eq!(once.data, [canonical], "{record_type} {text}");
            assert_eq!(parse(record_type, &[canonical]).unwrap(), once);
        }
    }

    #[test]
    fn bad_data_is_refused_with_the_name_the_value_and_what_is_needed() {
        let too_long = format!("\"{}\"", "x".repeat(256));
        for (record_type, text, needed) in [
            ("A", "127.0.0.256", "an IPv4 address"),
            ("A", "::1", "an IPv4 address"),
            ("AAAA", "127.0.0.1", "an IPv6 address"),
            ("CNAME", "127.0.0.1", "is an IP address where a name is needed"),
            ("CNAME", "a..test", "empty label"),
            ("NS", "", "the name is empty"),
            ("MX", "mail.brand.test", "a preference and a name"),
            ("MX", "70000 mail.brand.test", "not a number in range"),
            ("SOA", "ns1.test admin.test 1 2 3 4", "seven fields"),
            ("SOA", "ns1.test admin.test 1 2 3 4294967295 5", "expire is too large"),
            ("CAA", "0 issue", "flags, tag and value"),
            ("CAA", "256 issue ca.test", "the flags `256`"),
            ("CAA", "0 is-sue ca.test", "the tag has"),
            ("TXT", "", "the text is empty"),
            ("TXT", "\"open", "a closing double quote"),
            ("TXT", "\"a\"b", "a space is needed"),
            ("TXT", "\"a\" b", "double quotes of its own"),
            ("TXT", "\"\\256\"", "three decimal digits"),
            ("TXT", "\"\\1ü\"", "three decimal digits"),
            ("TXT", too_long.as_str(), "256 bytes"),
        ] {
            let refused = parse(record_type, &[text]).unwrap_err();
            let said = refused.to_string();
            assert!(said.contains(needed) && said.contains("shop.brand.test"), "{record_type} {text}: {said}");
        }
        assert_eq!(parse("SRV", &["x"]), Err(RecordError::UnknownType("SRV".into())));
        assert!(matches!(parse("A", &[]), Err(RecordError::NoData { .. })));
        assert!(matches!(parse("CNAME", &["a.test", "b.test"]), Err(RecordError::OnlyOne { count: 2, .. })));
    }

    #[test]
    fn a_long_literal_text_is_cut_into_strings_that_together_say_the_same() {
        let text = "k".repeat(600);
        let record = parse("TXT", &[&text]).unwrap();
        let strings = quoted_strings(&record.data[0]).unwrap();
        assert_eq!(strings.iter().map(Vec::len).collect::<Vec<_>>(), [255, 255, 90]);
        assert_eq!(strings.concat(), text.as_bytes());
    }

    #[test]
    fn a_set_that_no_message_can_carry_is_refused() {
        let texts: Vec<String> = (0..400).map(|n| format!("{n:0200}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert!(matches!(parse("TXT", &texts), Err(RecordError::TooLarge { bytes, .. }) if bytes > MAX_SET_BYTES));
        assert!(parse("TXT", &texts[..250]).is_ok());
    }

    #[test]
    fn a_value_sent_twice_is_stored_once() {
        assert_eq!(parse("A", &["127.0.0.1", "127.0.0.2", "127.0.0.1"]).unwrap().data, ["127.0.0.1", "127.0.0.2"]);
        assert_eq!(parse("NS", &["ns.a.test", "NS.A.test"]).unwrap().data, ["ns.a.test"]);
    }
}
