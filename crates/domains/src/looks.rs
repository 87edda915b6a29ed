//! The last looks of a claim as they were made, so that a judgement can be made again and explained.
//!
//! Arrives: a look with what it was made for. Leaves: a document of bounded number and bytes beside the claim. Goes wrong: nothing; what is
//! too long is cut, and said to be.
//!
//! The looks are a document of their own, not part of the claim: the claim is written with every look and enters the change feed, and an
//! answer of DNS may be sixty kilobytes. A look that found what the one before found writes nothing here but, now and then, its date: that
//! of the last look is the claim's.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Answer, Judgement, Look, LookSubject, Observed, claim::after, judge};

/// The kind of the documents; each one's id is its claim's.
pub const LOOKS_KIND: &str = "looks";
/// How many looks are kept. Our choice: the last change and what led to it.
const MAX_LOOKS: usize = 5;
/// How many records of one answer are kept, and how much of each. Our choice: with every server's answer to every question, five looks stay
/// well below the size of a document.
const MAX_RECORDS: usize = 12;
const MAX_RECORD_CHARS: usize = 200;
/// How often an unchanged look renews its date. Far more seldom than an active name is looked at: the claim itself says when it was last, and a
/// second write with each look at each name at rest would say no more.
const RENEW: Duration = Duration::from_secs(7 * 86_400);

/// One look, and how long it has been all the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLook {
    /// When it was made first.
    pub first: Timestamp,
    /// When it was last found unchanged, to the week. The API adds what the claim knows of it.
    pub last: Timestamp,
    /// What it was made for.
    pub subject: LookSubject,
    /// What was asked and answered.
    pub look: Look,
    /// Whether answers were shortened to be kept.
    pub is_cut: bool,
}

/// The last looks, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLooks {
    /// At most a handful.
    pub looks: Vec<StoredLook>,
}

impl StoredLook {
    /// Makes the judgement again.
    pub fn judge(&self) -> Judgement {
        judge(&self.look, &self.subject)
    }
}

impl StoredLooks {
    /// The looks with one more; `None` when it says nothing new and there is nothing to write.
    pub fn with(mut self, subject: &LookSubject, look: &Look, now: Timestamp) -> Option<Self> {
        let (look, is_cut) = shortened(look, subject);
        if let Some(newest) = self.looks.first_mut()
            && newest.subject == *subject
            && facts(&newest.look) == facts(&look)
        {
            if now < after(newest.last, RENEW) {
                return None;
            }
            newest.last = now;
            return Some(self);
        }
        self.looks.insert(0, StoredLook { first: now, last: now, subject: subject.clone(), look, is_cut });
        self.looks.truncate(MAX_LOOKS);
        Some(self)
    }
}

/// What was learned, without what it took.
fn facts(look: &Look) -> Look {
    Look { queries: 0, ..look.clone() }
}

/// The look with long answers cut. What proves the claim stays, wherever it stood, so that the judgement stays too.
fn shortened(look: &Look, subject: &LookSubject) -> (Look, bool) {
    let mut short = look.clone();
    let further = &mut short.further;
    let observed = [&mut short.cname, &mut short.a, &mut short.aaaa, &mut short.txt].into_iter().chain(&mut short.txt_doubled);
    let asked = further.caa.iter_mut().chain(&mut further.https).chain(&mut further.cname_doubled).chain(&mut further.wildcard);
    let zones = further.dnssec.iter_mut().flat_map(|dnssec| &mut dnssec.zones).flat_map(|zone| [&mut zone.ds, &mut zone.dnskey]);
    let answers = observed.flat_map(answers_of).chain(asked.map(|asked| &mut asked.answer)).chain(zones);
    let mut is_cut = false;
    for answer in answers {
        is_cut |= cut(answer, subject);
    }
    (short, is_cut)
}

fn answers_of(observed: &mut Observed) -> impl Iterator<Item = &mut Answer> {
    observed.authority.iter_mut().map(|said| &mut said.answer).chain([&mut observed.resolver])
}

fn cut(answer: &mut Answer, subject: &LookSubject) -> bool {
    let Answer::Records(records) = answer else { return false };
    let decides = |record: &String| record.contains(subject.token.as_str()) || *record == subject.routing_target;
    let mut is_cut = false;
    if records.len() > MAX_RECORDS {
        // Stable, so that the first of the others stay in their order.
        records.sort_by_key(|record| !decides(record));
        records.truncate(MAX_RECORDS);
        records.sort();
        is_cut = true;
    }
    for record in records {
        if record.chars().count() > MAX_RECORD_CHARS {
            *record = record.chars().take(MAX_RECORD_CHARS).chain(['…']).collect();
            is_cut = true;
        }
    }
    is_cut
}
