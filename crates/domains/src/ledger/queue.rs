//! Who waits for a bucket: the ends of sixteen backlogs, which time drains.

use serde::{Deserialize, Serialize};

use super::Lane;

/// How many levels a queue has: two for renewals, the others for new names by the debt of their tenant, doubling.
pub const LEVELS: usize = 16;

/// The level of a tenant's first name.
const FIRST_NEW: usize = 2;

/// The last level that may use what is kept for small backlogs: a tenant's first three names.
const LAST_LIGHT: usize = 3;

/// The level of who asks, first come first served within it.
pub fn level(lane: Lane, debt: u32) -> usize {
    match lane {
        Lane::Urgent => 0,
        Lane::Renewal => 1,
        Lane::New => (FIRST_NEW + usize::try_from(debt.saturating_add(1).ilog2()).unwrap_or(LEVELS)).min(LEVELS - 1),
    }
}

/// The lane that a level belongs to.
pub fn lane(level: usize) -> Lane {
    match level {
        0 => Lane::Urgent,
        1 => Lane::Renewal,
        _ => Lane::New,
    }
}

/// Whether a level may use what larger backlogs must leave.
pub fn is_light(level: usize) -> bool {
    level <= LAST_LIGHT
}

/// The ends of the backlogs, in microseconds since 1970; a moment in the past is an empty backlog.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Queue {
    /// The last slot booked at each level.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ends: Vec<i64>,
    /// The last slot given at each level to somebody whose first slot was taken by others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fronts: Vec<i64>,
}

impl Queue {
    /// A queue whose first levels end there.
    pub(crate) fn ending_at(ends: [Option<i64>; 3]) -> Self {
        Self { ends: ends.map(|end| end.unwrap_or(0)).to_vec(), fronts: Vec::new() }
    }

    /// Whether anybody at this level or before it waits.
    pub(crate) fn is_ahead_of(&self, level: usize, now: i64) -> bool {
        self.end_through(level) > now
    }

    /// The slot that a newcomer at this level would have: after everybody up to it, when the bucket gives its next token after `wait`.
    pub(crate) fn slot(&self, level: usize, wait: i64, refill: i64, now: i64) -> i64 {
        let first = now.saturating_add(wait).saturating_sub(refill);
        first.max(self.end_through(level)).saturating_add(refill)
    }

    /// Books a newcomer's slot: every later level waits one refill longer.
    pub(crate) fn book(&mut self, level: usize, wait: i64, refill: i64, now: i64) -> i64 {
        let slot = self.slot(level, wait, refill, now);
        *at(&mut self.ends, level) = slot;
        for later in self.ends.iter_mut().skip(level + 1).chain(self.fronts.iter_mut().skip(level + 1)) {
            if *later > now {
                *later = later.saturating_add(refill);
            }
        }
        slot
    }

    /// The slot of somebody who had one and found it taken: after who was let in before its level, and in the order in which they come back.
    pub(crate) fn slot_again(&self, level: usize, wait: i64, refill: i64, now: i64) -> i64 {
        let first = now.saturating_add(wait).saturating_sub(refill);
        let before = level.checked_sub(1).map_or(i64::MIN, |level| self.end_through(level));
        let front = self.fronts.get(level).copied().unwrap_or(i64::MIN);
        first.max(before).max(front).saturating_add(refill)
    }

    pub(crate) fn book_again(&mut self, level: usize, wait: i64, refill: i64, now: i64) -> i64 {
        let slot = self.slot_again(level, wait, refill, now);
        *at(&mut self.fronts, level) = slot;
        let end = at(&mut self.ends, level);
        *end = slot.max(*end);
        slot
    }

    /// When the last of those who wait has its slot.
    pub(crate) fn end(&self) -> i64 {
        self.ends.iter().copied().max().unwrap_or(i64::MIN)
    }

    /// Each level's backlog: how many, and when the last has its slot. Estimated from the ends; exact while nobody comes late.
    pub(crate) fn backlogs(&self, refill: i64, now: i64) -> Vec<(usize, u32, i64)> {
        let mut from = now;
        let mut backlogs = Vec::new();
        for (level, end) in self.ends.iter().copied().enumerate().filter(|(_, end)| *end > now) {
            let span = end.saturating_sub(from.min(end));
            let count = u32::try_from(span.saturating_add(refill - 1) / refill).unwrap_or(u32::MAX);
            backlogs.push((level, count.max(1), end));
            from = from.max(end);
        }
        backlogs
    }

    fn end_through(&self, level: usize) -> i64 {
        self.ends.iter().take(level + 1).copied().max().unwrap_or(i64::MIN)
    }
}

/// The number at `level`, made when it is not there yet. Zero lies in the past of every clock here, as an empty backlog does.
fn at(numbers: &mut Vec<i64>, level: usize) -> &mut i64 {
    if numbers.len() <= level {
        numbers.resize(level + 1, 0);
    }
    &mut numbers[level]
}
