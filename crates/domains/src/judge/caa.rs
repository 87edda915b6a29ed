//! Which of our CAs CAA records let issue, and by which challenges.
//!
//! Arrives: what the climb from the hostname found. Leaves: the ways that are forbidden, and, when no usable one is left, a [`Finding`] that
//! names the record to add. Goes wrong: nothing; a question that failed is a finding of its own, as CAs take it for a no.
//!
//! Source: RFC 8659; RFC 8657; Let's Encrypt's own reading of both, which takes a flag of 1 for critical as well (boulder, va/caa.go,
//! read 2026-11).

use super::{Case, findings::shown};
use crate::{Actor, Answer, Asked, CaChoice, CaaIssuer, CertificateWay, ChallengeKind, Failure, Finding, ProblemCode};

/// The bits of the flags that make a property critical: the one the standard names, and the one it is often mistaken for.
const CRITICAL: u8 = 128 | 1;
/// Properties that restrict nothing we do; a critical flag on them changes nothing. Source: as above.
const KNOWN: &[&str] = &["issue", "issuewild", "iodef"];

/// One CAA record as the look wrote it down.
struct Property<'r> {
    flags: u8,
    tag: String,
    value: &'r str,
}

/// How near a set of records comes to allowing us; the nearest tells the customer most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    OtherCa,
    OtherAccount,
    OtherMethod,
    Allowed,
}

/// What CAA says.
#[derive(Default)]
pub(super) struct Caa {
    /// Why every CA would refuse.
    pub(super) obstacle: Option<Finding>,
    /// The ways that are forbidden.
    pub(super) forbidden: Vec<CertificateWay>,
}

impl<'l> Case<'l> {
    /// What CAA says of the challenges that could be answered; nothing also when it was not asked.
    pub(super) fn caa(&self, usable: &[ChallengeKind]) -> Caa {
        for asked in &self.look.further.caa {
            match &asked.answer {
                Answer::Failed(failure) => return Caa::no(self.caa_unreadable(asked, failure)),
                Answer::Records(records) => return self.judge_caa(asked, records, usable),
                Answer::NoData | Answer::NxDomain => {}
            }
        }
        Caa::default()
    }

    fn judge_caa(&self, asked: &Asked, records: &[String], usable: &[ChallengeKind]) -> Caa {
        let properties: Vec<Property<'_>> = records.iter().filter_map(|record| Property::read(record)).collect();
        if let Some(unknown) = properties.iter().find(|property| property.flags & CRITICAL != 0 && !KNOWN.contains(&property.tag.as_str()))
        {
            return Caa::no(self.caa_finding(ProblemCode::CaaCriticalUnknown, asked, records, &unknown.tag, usable));
        }
        let named = |tag: &str| properties.iter().filter(|property| property.tag == tag).map(|property| property.value).collect::<Vec<_>>();
        let (issue, wild) = (named("issue"), named("issuewild"));
        let is_wildcard = self.subject.hostname.is_wildcard() && !wild.is_empty();
        let deciding = if is_wildcard { &wild } else { &issue };
        if deciding.is_empty() || self.subject.issuers.is_empty() {
            return Caa::default();
        }
        let allows = |way: &CertificateWay| self.nearest(deciding, Some(way.ca), &[way.challenge]) == Nearness::Allowed;
        let forbidden = every_way().filter(|way| !allows(way)).collect();
        let code = match self.nearest(deciding, None, usable) {
            Nearness::Allowed => return Caa { obstacle: None, forbidden },
            Nearness::OtherAccount => ProblemCode::CaaForbidsAccount,
            Nearness::OtherMethod => ProblemCode::CaaForbidsMethod,
            Nearness::OtherCa if is_wildcard && (issue.is_empty() || self.nearest(&issue, None, usable) == Nearness::Allowed) => {
                ProblemCode::CaaForbidsWildcard
            }
            Nearness::OtherCa => ProblemCode::CaaForbids,
        };
        Caa { obstacle: Some(self.caa_finding(code, asked, records, "", usable)), forbidden }
    }

    /// How near the values come to allowing this CA, or any, one of the challenges.
    fn nearest(&self, values: &[&str], ca: Option<CaChoice>, challenges: &[ChallengeKind]) -> Nearness {
        let issuers = self.subject.issuers.iter().filter(|issuer| ca.is_none_or(|ca| issuer.ca == ca));
        let read: Vec<_> = values.iter().filter_map(|value| read_issue(value)).collect();
        let all = issuers.flat_map(|issuer| read.iter().map(move |(ca, parameters)| nearness(ca, parameters, issuer, challenges)));
        all.max().unwrap_or(Nearness::OtherCa)
    }

    fn caa_finding(&self, code: ProblemCode, asked: &Asked, records: &[String], unknown: &str, usable: &[ChallengeKind]) -> Finding {
        let about = format!("CAA {}", asked.name);
        let tag = if code == ProblemCode::CaaForbidsWildcard { "issuewild" } else { "issue" };
        let issuer = self.subject.issuers.first();
        let identity = issuer.and_then(|issuer| issuer.identities.first()).map_or("the CA's name", String::as_str);
        let value = format!("0 {tag} \"{identity}\"");
        let action = match code {
            ProblemCode::CaaCriticalUnknown => {
                format!(
                    "Remove the critical flag from the property `{}` in {about}, or the property: no CA may issue beside it.",
                    shown(unknown)
                )
            }
            ProblemCode::CaaForbidsAccount => {
                let account = issuer.and_then(|issuer| issuer.account_uri.as_deref()).unwrap_or_default();
                format!(
                    "Add the record {about} with the value {value}, or 0 {tag} \"{identity}; accounturi={account}\" for our account alone."
                )
            }
            ProblemCode::CaaForbidsMethod => {
                let methods = usable.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(",");
                format!("Add the record {about} with the value {value}, or name our challenges in it: validationmethods={methods}.")
            }
            _ => format!("Add the record {about} with the value {value}, beside those that are there."),
        };
        Finding { code, actor: Actor::Customer, action, about, expected: value, saw: shown(&records.join(", ")) }
    }

    fn caa_unreadable(&self, asked: &Asked, failure: &Failure) -> Finding {
        let about = format!("CAA {}", asked.name);
        match failure {
            Failure::BudgetSpent => return self.too_much(&about),
            Failure::Servfail if self.is_bogus() => return self.resolver_fails(failure, &about),
            _ => {}
        }
        Finding {
            code: ProblemCode::CaaUnreadable,
            actor: Actor::Customer,
            action: format!(
                "Have the name servers of {} answer {about}, with records or with none: they fail on it, and a CA takes that for a no.",
                asked.name
            ),
            expected: format!("an answer for {about}"),
            saw: shown(&super::findings::words(&asked.answer)),
            about,
        }
    }
}

impl Caa {
    /// Nobody may issue by any challenge.
    fn no(obstacle: Finding) -> Self {
        Self { obstacle: Some(obstacle), forbidden: every_way().collect() }
    }
}

fn every_way() -> impl Iterator<Item = CertificateWay> {
    let of = |ca: CaChoice| ChallengeKind::ALL.iter().map(move |challenge| CertificateWay { ca, challenge: *challenge });
    [CaChoice::First, CaChoice::Second].into_iter().flat_map(of)
}

impl<'r> Property<'r> {
    /// Reads `flags tag "value"`.
    fn read(record: &'r str) -> Option<Self> {
        let (flags, rest) = record.split_once(' ')?;
        let (tag, value) = rest.split_once(' ')?;
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        Some(Self { flags: flags.parse().ok()?, tag: tag.to_ascii_lowercase(), value })
    }
}

/// Reads the value of `issue`: the CA, empty for none, and its parameters. `None` when it does not read, in which case it allows nobody.
fn read_issue(value: &str) -> Option<(String, Vec<(String, String)>)> {
    let mut parts = value.split(';').map(|part| part.trim_matches([' ', '\t']));
    let ca = parts.next()?.to_ascii_lowercase();
    let mut parameters = Vec::new();
    for part in parts.filter(|part| !part.is_empty()) {
        let (tag, value) = part.split_once('=')?;
        parameters.push((tag.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some((ca, parameters))
}

fn nearness(ca: &str, parameters: &[(String, String)], issuer: &CaaIssuer, challenges: &[ChallengeKind]) -> Nearness {
    if !issuer.identities.iter().any(|identity| identity.eq_ignore_ascii_case(ca)) {
        return Nearness::OtherCa;
    }
    let given = |tag: &str| parameters.iter().filter(|(name, _)| name == tag).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    let account = given("accounturi");
    let is_ours = |uri: &str| issuer.account_uri.as_ref().is_none_or(|ours| ours == uri);
    // More than one of either allows nobody: RFC 8657, sections 3 and 4.
    if account.len() > 1 || account.first().is_some_and(|uri| !is_ours(uri)) {
        return Nearness::OtherAccount;
    }
    let methods = given("validationmethods");
    let answered = || challenges.iter().map(|kind| kind.as_str()).filter(|kind| issuer.methods.iter().any(|ours| ours == kind));
    let is_answered = |methods: &str| methods.split(',').any(|method| answered().any(|kind| kind == method.trim()));
    if methods.len() > 1 || !methods.first().map_or_else(|| answered().next().is_some(), |methods| is_answered(methods)) {
        return Nearness::OtherMethod;
    }
    Nearness::Allowed
}
