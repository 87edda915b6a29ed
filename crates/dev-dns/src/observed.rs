//! What was asked: the last questions, and how many there were of each kind.
//!
//! Arrives: every question with its outcome. Leaves: [`Queries`]. Nothing goes wrong: the oldest question makes room for the newest.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};

/// How many questions are remembered.
const REMEMBERED: usize = 4096;

/// One question as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Its number since the server started.
    pub number: u64,
    /// The name in the letters it was asked in, without a final dot.
    pub name: String,
    /// The type, as zone files write it.
    #[serde(rename = "type")]
    pub record_type: String,
    /// How it came.
    pub transport: Transport,
    /// Whether it asked for recursion (RD).
    pub recursion_desired: bool,
    /// The response code it got, or would have got had it not been dropped.
    pub rcode: String,
    /// Whether a quirk kept the answer back.
    pub dropped: bool,
}

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// In one datagram.
    Udp,
    /// Over a connection.
    Tcp,
}

/// The last questions, oldest first, and counts of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queries {
    /// How many questions there were since the server started.
    pub total: u64,
    /// How many of them came over UDP.
    pub udp: u64,
    /// How many of them came over TCP.
    pub tcp: u64,
    /// How many a quirk left without an answer.
    pub dropped: u64,
    /// How many got each response code.
    pub rcodes: BTreeMap<String, u64>,
    /// The last of them, oldest first.
    pub queries: Vec<Query>,
}

/// Collects questions.
#[derive(Debug, Default)]
pub(crate) struct Observed(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    counts: Queries,
    last: VecDeque<Query>,
}

impl Observed {
    /// Takes a question in; its number is given here.
    pub(crate) fn note(&self, mut query: Query) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut seen.counts;
        counts.total += 1;
        match query.transport {
            Transport::Udp => counts.udp += 1,
            Transport::Tcp => counts.tcp += 1,
        }
        counts.dropped += u64::from(query.dropped);
        match counts.rcodes.get_mut(&query.rcode) {
            Some(count) => *count += 1,
            None => drop(counts.rcodes.insert(query.rcode.clone(), 1)),
        }
        query.number = counts.total;
        if seen.last.len() == REMEMBERED {
            seen.last.pop_front();
        }
        seen.last.push_back(query);
    }

    /// The counts, and the last questions that `wanted` chooses.
    pub(crate) fn queries(&self, wanted: impl Fn(&Query) -> bool) -> Queries {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Queries { queries: seen.last.iter().filter(|query| wanted(query)).cloned().collect(), ..seen.counts.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_question_makes_room_for_the_newest_and_the_counts_stay_whole() {
        let observed = Observed::default();
        let query = |name: String| Query {
            number: 0,
            name,
            record_type: "A".into(),
            transport: Transport::Udp,
            recursion_desired: true,
            rcode: "NOERROR".into(),
            dropped: false,
        };
        (0..REMEMBERED + 2).for_each(|n| observed.note(query(n.to_string())));
        let seen = observed.queries(|_| true);
        assert_eq!(seen.total, REMEMBERED as u64 + 2);
        assert_eq!(seen.rcodes["NOERROR"], seen.total);
        assert_eq!(seen.queries.len(), REMEMBERED);
        assert_eq!((seen.queries[0].name.as_str(), seen.queries[0].number), ("2", 3));
    }
}
