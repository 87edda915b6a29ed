//! What is kept of a claim's looks: enough to judge again, never more than a document holds.

#![allow(clippy::unwrap_used, reason = "tests may")]

use std::{fs, path::Path};

use domains::{Answer, Look, LookSubject, MAX_DOCUMENT_BYTES, StoredLooks, Timestamp, judge};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    subject: LookSubject,
    look: Look,
}

fn recorded() -> Vec<Recorded> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/looks");
    fs::read_dir(folder).unwrap().map(|file| serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap()).collect()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

#[test]
fn every_recorded_look_is_judged_the_same_after_it_was_kept() {
    for Recorded { subject, look } in recorded() {
        let kept = StoredLooks::default().with(&subject, &look, at(0)).unwrap();
        let again: StoredLooks = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        assert_eq!(again.looks[0].judge(), judge(&look, &subject));
    }
}

#[test]
fn a_look_that_finds_nothing_new_is_not_written_again_until_its_date_is_old() {
    let Recorded { subject, look } = recorded().remove(0);
    let kept = StoredLooks::default().with(&subject, &look, at(0)).unwrap();
    let again = Look { queries: look.queries + 3, ..look.clone() };
    assert_eq!(kept.clone().with(&subject, &again, at(7 * 86_400 - 1)), None);
    let renewed = kept.with(&subject, &again, at(7 * 86_400)).unwrap();
    assert_eq!((renewed.looks.len(), renewed.looks[0].first, renewed.looks[0].last), (1, at(0), at(7 * 86_400)));
}

#[test]
fn the_longest_answers_are_cut_to_fit_and_still_prove_the_claim() {
    let Recorded { subject, mut look } =
        recorded().into_iter().find(|recorded| judge(&recorded.look, &recorded.subject).proof == Some(domains::Proof::Txt)).unwrap();
    let mut values: Vec<String> = (0..220).map(|n| format!("{n:03}{}", "x".repeat(240))).collect();
    values.push(subject.token.to_string());
    look.txt.resolver = Answer::Records(values.clone());
    for said in &mut look.txt.authority {
        said.answer = Answer::Records(values.clone());
    }
    let mut kept = StoredLooks::default();
    for n in 0..20 {
        look.chain = vec![format!("link{n}.brand.com")];
        kept = kept.with(&subject, &look, at(n)).unwrap();
    }
    assert!(kept.looks.len() <= 5 && kept.looks[0].is_cut);
    assert!(kept.looks[0].first == at(19), "the newest comes first");
    assert!(serde_json::to_string(&kept).unwrap().len() < MAX_DOCUMENT_BYTES / 2);
    assert_eq!(kept.looks[0].judge().proof, Some(domains::Proof::Txt));
}
