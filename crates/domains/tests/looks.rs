//! Recorded looks and what each means: a file a case, its name the problem's code and what is special about it.
//!
//! `expect.record` is the record the finding is about, as its action must name it; without a code the look must bring no finding.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{collections::BTreeSet, fs, path::Path};

use domains::{Actor, Judgement, Look, LookSubject, ProblemCode, Proof, Routing, judge};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    expect: Expected,
    subject: LookSubject,
    look: Look,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    code: Option<ProblemCode>,
    actor: Option<Actor>,
    record: Option<String>,
    proof: Option<Proof>,
    routing: Routing,
}

fn recorded() -> Vec<(String, Recorded)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/looks");
    let mut looks = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let recorded = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        looks.push((name, recorded));
    }
    looks.sort_by(|(one, _), (other, _)| one.cmp(other));
    looks
}

#[test]
fn each_recorded_look_means_what_its_file_says() {
    for (name, Recorded { expect, subject, look }) in recorded() {
        let Judgement { proof, routing, finding, .. } = judge(&look, &subject);
        assert_eq!((proof, &routing), (expect.proof, &expect.routing), "{name}: {finding:?}");
        assert_eq!(finding.as_ref().map(|finding| finding.code), expect.code, "{name}: {finding:?}");
        let Some(finding) = finding else { continue };
        assert_eq!((Some(finding.actor), Some(&finding.about)), (expect.actor, expect.record.as_ref()), "{name}: {finding:?}");
        assert!(finding.action.contains(&finding.about), "{name}: the action does not name its record: {}", finding.action);
        assert!(!finding.expected.is_empty() && !finding.saw.is_empty(), "{name}: {finding:?}");
        let code = finding.code.as_str();
        let file = code.strip_prefix("dns.").map_or_else(|| code.replace('.', "_"), str::to_owned);
        assert_eq!(name.split('.').next(), Some(file.as_str()), "the file's name is not its code");
    }
}

#[test]
fn every_code_that_a_look_finds_has_a_recorded_look() {
    let shown: BTreeSet<ProblemCode> = recorded().into_iter().filter_map(|(_, recorded)| recorded.expect.code).collect();
    let all: BTreeSet<ProblemCode> = ProblemCode::ALL.iter().copied().filter(|code| code.is_of_a_look()).collect();
    assert_eq!(shown, all);
    assert!(all.len() >= 30, "{}", all.len());
}

#[test]
fn a_customers_action_says_which_value_to_enter() {
    for (name, Recorded { subject, look, .. }) in recorded() {
        let Some(finding) = judge(&look, &subject).finding else { continue };
        let value = match finding.code {
            ProblemCode::DnsTxtMissing | ProblemCode::DnsTxtMismatch => subject.token.to_string(),
            ProblemCode::DnsRoutingMissing
            | ProblemCode::DnsCnameElsewhere
            | ProblemCode::DnsCnameOtherClaim
            | ProblemCode::DnsCnameLoop
            | ProblemCode::DnsCnameTooLong
            | ProblemCode::DnsCnameDangling => subject.routing_target.clone(),
            ProblemCode::DnsNameMissing | ProblemCode::DnsRecordMissing | ProblemCode::DnsZoneMissing => {
                assert_eq!(finding.action.contains(&subject.routing_target), subject.can_be_alias(), "{name}: {}", finding.action);
                subject.token.to_string()
            }
            ProblemCode::DnsLiveElsewhere => {
                assert!(finding.action.contains(&subject.routing_target), "{name}: {}", finding.action);
                "c7f3k2m9.acme.edge.acme-saas.io".to_owned()
            }
            ProblemCode::DnsDelegationMissing | ProblemCode::DnsDelegationElsewhere => "c7f3k2m9.acme.edge.acme-saas.io".to_owned(),
            ProblemCode::DnsAddressElsewhere if subject.can_be_alias() => subject.routing_target.clone(),
            ProblemCode::DnsAddressElsewhere => "52.1.2.3, 52.1.2.4".to_owned(),
            ProblemCode::DnsAddressMixed => "203.0.113.80".to_owned(),
            ProblemCode::DnsAaaaElsewhere => "2a00:1450::80".to_owned(),
            _ => continue,
        };
        assert!(finding.action.contains(&value), "{name}: {}", finding.action);
    }
}
