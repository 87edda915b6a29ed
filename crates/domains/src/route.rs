//! Which nudges a claim gives rise to: when it changes, and when the timer finds it overdue.
//!
//! Arrives: a claim as the stream shows it, or an entry of the due-index. Leaves: dispatches. Goes wrong: nothing; a nudge too many is
//! told apart by the step, a nudge too few is made up by the timer.

use std::time::Duration;

use jiff::Timestamp;

use crate::{Claim, Dispatch, DueEntry, MAX_DELAY, claim::after};

/// The nudges for a claim that was just written: each step due within what a queue can hold. Later ones exist only as `next_look`.
pub fn dispatches(claim: &Claim, now: Timestamp) -> Vec<Dispatch> {
    let within_queue = |(step, at): (crate::Step, Timestamp)| {
        let delay = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        (delay <= MAX_DELAY).then(|| Dispatch { step, nudge: claim.nudge(), delay })
    };
    claim.steps().into_iter().filter_map(within_queue).collect()
}

/// Whether the timer nudges an overdue entry in this tick.
///
/// It does once the entry is overdue by `grace`, and again whenever the time overdue has doubled, so that a lost nudge is always made up for
/// and a step that nobody can take is nudged ever less often. Depends on the two ticks and the entry only: nothing is remembered per entry.
pub fn is_nudged(entry: &DueEntry, last_tick: Timestamp, now: Timestamp, grace: Duration) -> bool {
    let mut overdue = grace.max(Duration::from_millis(1));
    loop {
        let moment = after(entry.next_look, overdue);
        if moment > now {
            return false;
        }
        if moment > last_tick {
            return true;
        }
        overdue = overdue.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClaimKey, Hostname, Step, TenantId};

    fn entry(next_look: Timestamp) -> DueEntry {
        let key = ClaimKey { hostname: Hostname::parse_name("shop.brand.com").unwrap(), tenant: TenantId::parse("t1").unwrap() };
        DueEntry { key, version: 1, step: Step::VerifyOwnership, next_look }
    }

    #[test]
    fn a_timer_that_slept_three_days_nudges_each_entry_once_and_a_stuck_one_ever_less_often() {
        let start: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        let grace = Duration::from_secs(10);
        let stuck = entry(after(start, Duration::from_secs(3600)));
        let wake = after(start, Duration::from_secs(3 * 86_400));
        assert!(is_nudged(&stuck, start, wake, grace));
        assert!(!is_nudged(&stuck, wake, after(wake, Duration::from_secs(60)), grace));
        let minute = Duration::from_secs(60);
        let mut tick = start;
        let mut nudges = 0;
        for _ in 0..(7 * 1440) {
            let next = after(tick, minute);
            nudges += u32::from(is_nudged(&stuck, tick, next, grace));
            tick = next;
        }
        assert!((8..=20).contains(&nudges), "{nudges} nudges in a week");
    }

    #[test]
    fn an_entry_is_left_to_its_own_message_until_the_grace_is_over() {
        let due: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        let grace = Duration::from_secs(10);
        let at = |seconds| after(due, Duration::from_secs(seconds));
        assert!(!is_nudged(&entry(due), at(0), at(9), grace));
        assert!(is_nudged(&entry(due), at(9), at(10), grace));
    }
}
