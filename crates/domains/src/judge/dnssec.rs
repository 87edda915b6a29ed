//! Which zone's DNSSEC is broken, and how.
//!
//! Arrives: what a look found out after its resolver failed. Leaves: a [`Finding`] that names the zone and what to do at its registrar or
//! provider. Goes wrong: nothing; a resolver that gives no reasons leaves the general code.
//!
//! A validating resolver that fails with checking and answers without is the proof; the zones' own records and the resolver's extended
//! errors then tell where and why.

use super::{Case, findings::shown};
use crate::{Actor, Answer, Dnssec, Finding, ProblemCode, SignedZone};

/// Extended errors. Source: RFC 8914, section 4.
const SIGNATURE_EXPIRED: u16 = 7;
const SIGNATURE_NOT_YET_VALID: u16 = 8;
const DNSKEY_MISSING: u16 = 9;
const RRSIGS_MISSING: u16 = 10;
const NSEC_MISSING: u16 = 12;

impl<'l> Case<'l> {
    /// Whether the resolver fails because signatures do not verify.
    pub(super) fn is_bogus(&self) -> bool {
        self.bogus().is_some()
    }

    fn bogus(&self) -> Option<&'l Dnssec> {
        self.look.further.dnssec.as_ref().filter(|dnssec| dnssec.unchecked.failure().is_none())
    }

    /// What is wrong with the chain of signatures; `None` when DNSSEC is not why the resolver fails.
    pub(super) fn broken_chain(&self, record: &str) -> Option<Finding> {
        let dnssec = self.bogus()?;
        let signed: Vec<&SignedZone> = dnssec.zones.iter().filter(|zone| !zone.ds.records().is_empty()).collect();
        let unmatched = signed.iter().find(|zone| !zone.has_the_announced_key());
        let zone = unmatched.or(signed.last()).map_or_else(|| self.zone(), |zone| zone.apex.clone());
        let told = |codes: &[u16]| dnssec.extended_errors.iter().any(|code| codes.contains(code));
        let code = match unmatched {
            Some(_) => ProblemCode::DnssecKeyMismatch,
            None if told(&[SIGNATURE_EXPIRED, SIGNATURE_NOT_YET_VALID]) => ProblemCode::DnssecExpired,
            None if told(&[DNSKEY_MISSING]) => ProblemCode::DnssecKeyMismatch,
            None if told(&[RRSIGS_MISSING, NSEC_MISSING]) => ProblemCode::DnssecUnsigned,
            None => ProblemCode::DnssecBogus,
        };
        let is_ours = self.subject.targets_zone == zone || self.subject.targets_zone.ends_with(&format!(".{zone}"));
        let mend = match code {
            ProblemCode::DnssecKeyMismatch => {
                format!(
                    "Remove the DS records of {zone} at its registrar, or replace them by those its DNS provider shows: they announce a key that {zone} does not have"
                )
            }
            ProblemCode::DnssecExpired => format!("Have the DNS provider of {zone} sign it again: its signatures are out of date"),
            ProblemCode::DnssecUnsigned => {
                format!(
                    "Switch DNSSEC on at the DNS provider of {zone}, or remove the DS records of {zone} at its registrar: it is announced as signed, and is not"
                )
            }
            _ => format!(
                "Remove the DS records of {zone} at its registrar, or have its DNS provider sign it anew: its signatures do not verify"
            ),
        };
        let ds = signed.iter().find(|signed| signed.apex == zone);
        let saw = ds.map_or_else(String::new, |zone| {
            format!(
                "; DS {}: {}; DNSKEY {}: {}",
                zone.apex,
                super::findings::words(&zone.ds),
                zone.apex,
                super::findings::words(&zone.dnskey)
            )
        });
        let reasons: Vec<String> = dnssec.extended_errors.iter().map(ToString::to_string).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" (extended error {})", reasons.join(", ")) };
        Some(Finding {
            code,
            actor: if is_ours { Actor::Operator } else { Actor::Customer },
            action: format!("{mend}; until then no resolver that checks shows {record}."),
            about: record.to_owned(),
            expected: format!("signatures of {zone} that verify"),
            saw: shown(&format!("the public resolver fails on {} with checking{reasons}, and answers without{saw}", dnssec.question)),
        })
    }
}

impl SignedZone {
    /// Whether one of the keys is one that the parent announces. A question that failed proves no mismatch.
    fn has_the_announced_key(&self) -> bool {
        let keys = match &self.dnskey {
            Answer::Failed(_) => return true,
            answer => answer.records(),
        };
        self.ds.records().iter().any(|ds| keys.iter().any(|key| matches(ds, key)))
    }
}

/// Whether `tag algorithm digest-type digest` announces `tag algorithm sha256-digest`. Digests of another kind are taken at their word.
fn matches(ds: &str, key: &str) -> bool {
    let (ds, key): (Vec<&str>, Vec<&str>) = (ds.split(' ').collect(), key.split(' ').collect());
    match (ds.as_slice(), key.as_slice()) {
        ([tag, algorithm, kind, digest], [key_tag, key_algorithm, sha256]) => {
            tag == key_tag && algorithm == key_algorithm && (*kind != SHA256 || digest == sha256)
        }
        _ => false,
    }
}

/// The digest type of SHA-256. Source: RFC 4509.
const SHA256: &str = "2";
