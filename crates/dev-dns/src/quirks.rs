//! Ways to misbehave on purpose, so that tests see what their code does about it.
//!
//! Arrives: a [`Quirk`] for a name. Leaves: what to do with a question that meets it. Goes wrong: [`QuirkError`]. Quirks live in memory
//! only: a restarted server behaves.

use std::{collections::HashMap, sync::Arc, time::Duration};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record as Answered, RecordType as WireType},
};
use serde::{Deserialize, Serialize};

use crate::{
    names::{Key, NameError, parse_name, shown},
    record::{Record, RecordError, RecordSet, RecordType},
};

/// The longest delay: past every timeout of a DNS client, and short enough not to pile up questions.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Response codes by name. Source: IANA's DNS RCODE registry (read 2026-11).
const CODES: &[&str] =
    &["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET", "NOTAUTH", "NOTZONE"];
/// Twelve bits: four in the header, eight in the OPT record. Source: RFC 6891, section 6.1.3.
const MAX_CODE: u16 = 0xfff;
/// The TTL of records that a quirk answers with: they may be gone with the next edit.
const QUIRK_TTL_SECONDS: u32 = 1;

/// What happens to questions for one name, and to those whose aliases lead over it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quirk {
    /// The exact name; it needs no records.
    pub name: String,
    /// Only questions for this type; all when absent.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub record_type: Option<RecordType>,
    /// Answer with this response code and nothing else: a name such as `SERVFAIL`, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<String>,
    /// Wait so many milliseconds before answering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Never answer.
    #[serde(default)]
    pub drop: bool,
    /// Over UDP, answer with the TC bit and nothing else, so that the client must come over TCP.
    #[serde(default)]
    pub truncate_udp: bool,
    /// As a resolver, fail DNSSEC: SERVFAIL to whoever leaves the checking to us, the records to whoever sets CD (RFC 4035, section 5.5).
    #[serde(default, skip_serializing_if = "is_false")]
    pub bogus: bool,
    /// As a resolver, say of the answer that its signatures were checked (AD), to whoever asks for that with DO (RFC 4035, section 3.2.3).
    #[serde(default, skip_serializing_if = "is_false")]
    pub authentic: bool,
    /// The extended error that goes with a failure, by its number (RFC 8914).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ede: Option<u16>,
    /// As an authority, answer with nothing and without authority, as a server does that was never told of the zone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub lame: bool,
    /// Answer with exactly these records, though the zone would never hold them: a CNAME at an apex, for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer: Vec<Record>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Why a quirk was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuirkError {
    /// The name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Not a response code.
    #[error("`{0}` is not a response code; use a name such as SERVFAIL or REFUSED, or a number up to {MAX_CODE}")]
    Code(String),
    /// A delay that nobody would wait out.
    #[error("a delay of {0} ms is too long; at most {max} ms", max = MAX_DELAY.as_millis())]
    Delay(u64),
    /// A record to answer with.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The quirk asks for nothing.
    #[error(
        "the quirk for {0} does nothing; give it at least one of rcode, delay_ms, drop, truncate_udp, bogus, authentic, lame and answer"
    )]
    Nothing(String),
}

/// A quirk ready to be acted on.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    pub(crate) code: Option<ResponseCode>,
    pub(crate) delay: Duration,
    pub(crate) drop: bool,
    pub(crate) truncate_udp: bool,
    pub(crate) bogus: bool,
    pub(crate) authentic: bool,
    pub(crate) ede: Option<u16>,
    pub(crate) lame: bool,
    /// `None` leaves the answer to the zone.
    pub(crate) answer: Option<Arc<[Answered]>>,
}

/// All quirks in force.
#[derive(Debug, Default)]
pub(crate) struct Quirks(HashMap<Place, (Quirk, Behaviour)>);

/// A name's key, and the type if the quirk is for one only.
type Place = (Box<[u8]>, Option<WireType>);

impl Quirks {
    /// Puts a quirk in force instead of an earlier one for the same name and type.
    pub(crate) fn put(&mut self, quirk: Quirk) -> Result<Quirk, QuirkError> {
        let name = parse_name(&quirk.name)?.to_lowercase();
        let behaviour = Behaviour {
            code: quirk.rcode.as_deref().map(parse_code).transpose()?,
            delay: Duration::from_millis(quirk.delay_ms.unwrap_or_default()),
            drop: quirk.drop,
            truncate_udp: quirk.truncate_udp,
            bogus: quirk.bogus,
            authentic: quirk.authentic,
            ede: quirk.ede,
            lame: quirk.lame,
            answer: if quirk.answer.is_empty() { None } else { Some(records(&quirk.answer)?) },
        };
        if behaviour.delay > MAX_DELAY {
            return Err(QuirkError::Delay(quirk.delay_ms.unwrap_or_default()));
        }
        let flags = [behaviour.drop, behaviour.truncate_udp, behaviour.bogus, behaviour.authentic, behaviour.lame];
        let misbehaves = flags.contains(&true) || behaviour.answer.is_some();
        if behaviour.code.is_none() && behaviour.delay.is_zero() && !misbehaves {
            return Err(QuirkError::Nothing(shown(&name)));
        }
        let quirk = Quirk { name: shown(&name), ..quirk };
        let key = (Key::of(&name).full().into(), quirk.record_type.map(RecordType::wire));
        self.0.insert(key, (quirk.clone(), behaviour));
        Ok(quirk)
    }

    /// Ends the quirks of one name, or all; returns how many there were.
    pub(crate) fn clear(&mut self, name: Option<&Name>) -> usize {
        let before = self.0.len();
        match name.map(Key::of) {
            Some(key) => self.0.retain(|(name, _), _| **name != *key.full()),
            None => self.0.clear(),
        }
        before - self.0.len()
    }

    pub(crate) fn list(&self) -> Vec<Quirk> {
        let mut all: Vec<Quirk> = self.0.values().map(|(quirk, _)| quirk.clone()).collect();
        all.sort_by(|a, b| (&a.name, a.record_type).cmp(&(&b.name, b.record_type)));
        all
    }

    /// The first quirk on a question's way: at its name, then at each alias's target.
    pub(crate) fn met(&self, asked: &Name, wanted: WireType, answers: &[Answered]) -> Option<Behaviour> {
        if self.0.is_empty() {
            return None;
        }
        let targets = answers.iter().filter_map(|record| match &record.data {
            RData::CNAME(target) if wanted != WireType::CNAME => Some(&target.0),
            _ => None,
        });
        std::iter::once(asked).chain(targets).find_map(|name| self.at(name, wanted))
    }

    fn at(&self, name: &Name, wanted: WireType) -> Option<Behaviour> {
        let key: Box<[u8]> = Key::of(name).full().into();
        let exact = self.0.get(&(key.clone(), Some(wanted)));
        exact.or_else(|| self.0.get(&(key, None))).map(|(_, behaviour)| behaviour.clone())
    }
}

/// Records as answers carry them, each under its own name.
fn records(records: &[Record]) -> Result<Arc<[Answered]>, RecordError> {
    let mut answers = Vec::new();
    for record in records {
        let (owner, set) = RecordSet::parse(record)?;
        answers.extend(set.rdata().map(|data| Answered::from_rdata(owner.clone(), set.ttl.unwrap_or(QUIRK_TTL_SECONDS), data.clone())));
    }
    Ok(answers.into())
}

fn parse_code(text: &str) -> Result<ResponseCode, QuirkError> {
    let named = CODES.iter().position(|name| name.eq_ignore_ascii_case(text)).and_then(|code| u16::try_from(code).ok());
    let code = named.or_else(|| text.parse().ok()).filter(|code| *code <= MAX_CODE);
    code.map(Into::into).ok_or_else(|| QuirkError::Code(text.chars().take(40).collect()))
}

/// A response code as people write it.
pub(crate) fn code_name(code: ResponseCode) -> String {
    let number = u16::from(code);
    CODES.get(usize::from(number)).map_or_else(|| number.to_string(), |name| (*name).to_owned())
}
