//! Whether a resolver fails because signatures do not verify, and what the zones on the way say of their keys.
//!
//! Arrives: the question a resolver answered with SERVFAIL. Leaves: a [`Dnssec`]. Goes wrong: nothing as a whole; a resolver that fails
//! without checking too leaves its failure there, and then DNSSEC is not why.
//!
//! No signature is checked here: the resolver did that. Asking again without checking (CD) shows whether it was the reason, its extended
//! errors say more, and DS and DNSKEY of each zone show where the chain of keys ends.

use domains::{Answer, Asked, Dnssec, Hostname, SignedZone};
use hickory_proto::{
    op::Message,
    rr::{Name, RData, RecordType},
};
use sha2::{Digest, Sha256};

use crate::{
    exchange::Question,
    further::First,
    look::{Walk, fqdn},
    reading::{self, Voice, text_of},
    zone::infrastructure,
};

/// How many names are asked for DS: the registered domain and what may be delegated below it.
const MAX_ZONES: usize = 4;

impl Walk<'_> {
    /// Finds out why the resolver failed; `None` when it did not.
    pub(crate) async fn diagnose(&self, first: &First<'_>, caa: &[Asked], apex: Option<&Name>) -> Option<Dnssec> {
        let (name, record_type) = self.failed_question(first, caa)?;
        let question = format!("{record_type} {name}");
        let name = fqdn(name)?;
        let unchecked = Question { name: &name, record_type, recursive: true, unchecked: true, signed: false };
        let reply = self.ask_resolver(unchecked).await;
        let answer = reading::answer(&reply, &name, record_type, Voice::Resolver);
        if answer.failure().is_some() {
            return Some(Dnssec { question, unchecked: answer, extended_errors: Vec::new(), zones: Vec::new() });
        }
        let extended_errors = self.reasons(&name, record_type).await;
        // Behind an alias that resolves, it is the last zone of the chain that fails.
        let behind = match (&reply, record_type) {
            (Ok(message), RecordType::A | RecordType::AAAA | RecordType::CAA) => reading::chain(message, &name).0.pop(),
            _ => None,
        };
        let (floor, lowest) = match &behind {
            Some(last) => (registered(last)?, registered(last)?),
            None => (first.names.floor.clone(), apex.cloned().unwrap_or_else(|| first.names.floor.clone())),
        };
        Some(Dnssec { question, unchecked: answer, extended_errors, zones: self.keys_between(&floor, lowest).await })
    }

    /// DS and DNSKEY of each name from `floor` down to `lowest` at which a zone is signed.
    async fn keys_between(&self, floor: &Name, lowest: Name) -> Vec<SignedZone> {
        let mut names = vec![lowest];
        while let Some(above) = names.last().filter(|name| floor.zone_of(name) && *name != floor && !name.is_root()).map(Name::base_name) {
            names.push(above);
        }
        let mut zones = Vec::new();
        for name in names.into_iter().rev().take(MAX_ZONES) {
            let ds =
                reading::answer(&self.ask_resolver(infrastructure(&name, RecordType::DS)).await, &name, RecordType::DS, Voice::Resolver);
            if ds.records().is_empty() && ds.failure().is_none() {
                continue;
            }
            let reply = self.ask_resolver(infrastructure(&name, RecordType::DNSKEY)).await;
            zones.push(SignedZone { apex: text_of(&name), ds, dnskey: keys(&reply, &name) });
        }
        zones
    }
}

/// The registered domain above a name of somebody else's.
fn registered(name: &Name) -> Option<Name> {
    let hostname = Hostname::parse_name(&text_of(name)).ok()?;
    fqdn(hostname.registered_domain()?)
}

/// The zone's keys, each as a DS record with SHA-256 would announce it.
fn keys(reply: &Result<Message, domains::Failure>, name: &Name) -> Answer {
    let told = reading::answer(reply, name, RecordType::DNSKEY, Voice::Resolver);
    let (Ok(message), None) = (reply, told.failure()) else { return told };
    let mut texts: Vec<String> = reading::at(message, name)
        .filter_map(|record| match &record.data {
            RData::Unknown { code: RecordType::DNSKEY, rdata } => key_text(name, &rdata.anything),
            _ => None,
        })
        .collect();
    texts.sort();
    match texts.is_empty() {
        true => told,
        false => Answer::Records(texts),
    }
}

/// `tag algorithm digest-type digest`. Source: RFC 4034, section 5.1.
pub(crate) fn ds_text(data: &[u8]) -> Option<String> {
    let [a, b, algorithm, kind, digest @ ..] = data else { return None };
    Some(format!("{} {algorithm} {kind} {}", u16::from_be_bytes([*a, *b]), hex(digest)))
}

/// `tag algorithm sha256-digest`. Source: RFC 4034, sections 2.1 and 5.1.4.
fn key_text(owner: &Name, data: &[u8]) -> Option<String> {
    let algorithm = data.get(3)?;
    let mut digest = Sha256::new();
    for label in owner.iter() {
        digest.update([u8::try_from(label.len()).ok()?]);
        digest.update(label.to_ascii_lowercase());
    }
    digest.update([0]);
    digest.update(data);
    Some(format!("{} {algorithm} {}", key_tag(data), hex(&digest.finalize())))
}

/// Source: RFC 4034, appendix B.
fn key_tag(data: &[u8]) -> u16 {
    let sum = data
        .iter()
        .enumerate()
        .fold(0u32, |sum, (at, byte)| sum + if at.is_multiple_of(2) { u32::from(*byte) << 8 } else { u32::from(*byte) });
    ((sum + (sum >> 16)) & 0xffff) as u16
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_and_its_announcement_match_as_the_standard_has_them() {
        // RFC 4509, section 2.3: the DNSKEY of dskey.example.com and its DS with SHA-256.
        let key = "AQOeiiR0GOMYkDshWoSKz9XzfwJr1AYtsmx3TGkJaNXVbfi/2pHm822aJ5iI9BMzNXxeYCmZDRD99WYwYqUSdjMmmAphXdvxegXd/M5+X7OrzKBaMbCVdFLUUh6DhweJBjEVv5f2wwjM9XzcnOf+EPbtG9DMBmADjFDc2w/rljwvFw==";
        let mut data = vec![0x01, 0x00, 3, 5];
        data.extend(base64(key));
        let owner = fqdn("dskey.example.com").unwrap();
        assert_eq!(key_text(&owner, &data).unwrap(), "60485 5 d4b7d520e7bb5f0f67674a0cceb1e3e0614b93c4f9e99b8383f6a1e4469da50a");
    }

    fn base64(text: &str) -> Vec<u8> {
        let value = |byte: u8| match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        let digits: Vec<u32> = text.bytes().filter(|byte| *byte != b'=').map(|byte| u32::from(value(byte))).collect();
        digits
            .chunks(4)
            .flat_map(|chunk| {
                let sum = chunk.iter().enumerate().fold(0, |sum, (at, digit)| sum | digit << (18 - 6 * at));
                sum.to_be_bytes()[1..chunk.len()].to_vec()
            })
            .collect()
    }
}
