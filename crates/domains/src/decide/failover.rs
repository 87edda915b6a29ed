//! When an order goes to the second CA, and when back.
//!
//! Arrives: a claim, and what the CA it was at said of its order, or the wait that its limits ask for. Leaves: the CA that the next order goes
//! to. Goes wrong: nothing; without a second CA, or where the second could not be used, it is the first.

use std::time::Duration;

use jiff::Timestamp;

use super::{SUSPENDED_AFTER, elapsed};
use crate::{CaChoice, ChallengeKind, Claim, Issuance, IssueError, State, claim::after};

/// The part of a short certificate's life that is slack: half of the third in which it is renewed.
const SLACK_PART: u32 = 6;

/// When an order goes to the second CA instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failover {
    /// How long the first may be unavailable.
    pub unavailable_for: Duration,
    /// How long a limit of the first may keep a new name waiting.
    pub new_name_patience: Duration,
    /// How much of a certificate's life must be left when a limit of the first lets it be renewed; of a short life, a sixth is enough.
    pub renewal_slack: Duration,
    /// Whether the edge's answers to http-01 challenges fit the second CA as well, as they do when both accounts have one key. Otherwise only
    /// names whose challenges are delegated can turn to it.
    pub http_01: bool,
}

impl Default for Failover {
    /// Our choice: an outage of the first is waited out for half an hour, which most are over by; a certificate keeps three days, in which
    /// a person can act.
    fn default() -> Self {
        Self {
            unavailable_for: Duration::from_secs(30 * 60),
            new_name_patience: Duration::from_secs(3600),
            renewal_slack: Duration::from_secs(3 * 86_400),
            http_01: true,
        }
    }
}

impl Failover {
    /// Whether the second CA could be given the claim's order: a challenge of it can be answered there, CAA records allow that, and it neither
    /// refused the name for good nor asks to wait. A place in the first one's queue is not given up for nothing.
    fn can_take(&self, claim: &Claim, issuance: &Issuance, now: Timestamp) -> bool {
        let kind = match &claim.last_look {
            Some(seen) => seen.challenge_at(claim, CaChoice::Second),
            None => issuance.attempt.as_ref().map(|attempt| attempt.plan.challenge.kind()),
        };
        let may_be_asked = issuance.second_not_before.is_none_or(|moment| moment <= now);
        may_be_asked
            && issuance.second_name_failures < SUSPENDED_AFTER
            && kind.is_some_and(|kind| self.http_01 || kind == ChallengeKind::Dns01)
    }

    /// Whether a limit of the first that ends at `until` lasts beyond what the name can wait, which waited since `since`.
    fn is_too_long(&self, claim: &Claim, since: Timestamp, until: Timestamp) -> bool {
        match &claim.state {
            State::Active { certificate, .. } => {
                let slack = self.renewal_slack.min(elapsed(certificate.not_before, certificate.not_after) / SLACK_PART);
                after(until, slack) > certificate.not_after
            }
            _ => elapsed(since, until) > self.new_name_patience,
        }
    }

    fn is_down_too_long(&self, claim: &Claim, now: Timestamp) -> bool {
        // What is told beside the state is no measure: a certificate that is late, of a CA that is up, goes by the same code.
        let since = claim.issuance().and_then(|issuance| issuance.down_since);
        since.is_some_and(|since| elapsed(since, now) >= self.unavailable_for)
    }
}

/// The CA that the order after this refusal goes to.
///
/// Away from the first only when it is down for too long, or its limit lasts beyond what the name can wait; back to it after any failure of
/// the second, which is there for the meantime. Without a second there is no choice.
pub fn next_ca(claim: &Claim, error: &IssueError, failover: Option<&Failover>, now: Timestamp) -> CaChoice {
    let Some(issuance) = claim.issuance() else { return CaChoice::First };
    let Some(failover) = failover else { return CaChoice::First };
    let at = issuance.at();
    let turn = match (at, error) {
        (at, IssueError::NotYet { .. } | IssueError::CertificateLate { .. }) => return at,
        // Where records allow the second CA alone, it is no stand-in.
        (CaChoice::Second, _) if forbids_first(claim) => return at,
        (CaChoice::Second, _) => false,
        (CaChoice::First, IssueError::Unavailable { .. }) => failover.is_down_too_long(claim, now),
        (CaChoice::First, IssueError::RateLimited { retry_after, .. }) => {
            failover.is_too_long(claim, ca_wait_of(claim, now), after(now, retry_after.unwrap_or_default()))
        }
        (CaChoice::First, _) => false,
    };
    if turn && failover.can_take(claim, issuance, now) { CaChoice::Second } else { CaChoice::First }
}

/// The other CA, if an order that must wait until `until` for its turn goes there instead.
///
/// To the second when the first one's limits last for too long; back from it as soon as it asks to wait, since it is there for the meantime.
/// Many short waits are one long one: it counts from when the name began to wait. A CA that asks everybody to wait because it is down is
/// down for this name, too, once the name met it so itself.
pub(super) fn turns_while_waiting(
    claim: &Claim,
    is_pause: bool,
    until: Timestamp,
    failover: Option<&Failover>,
    now: Timestamp,
) -> Option<CaChoice> {
    let (Some(issuance), Some(failover)) = (claim.issuance(), failover) else { return None };
    if issuance.at() == CaChoice::Second {
        return (is_pause && !forbids_first(claim)).then_some(CaChoice::First);
    }
    let turns = failover.is_too_long(claim, ca_wait_of(claim, now), until) || is_pause && failover.is_down_too_long(claim, now);
    (turns && failover.can_take(claim, issuance, now)).then_some(CaChoice::Second)
}

/// Since when the claim's order waits for a CA's time, if it goes on waiting. A look that put it off meanwhile, or another reason to wait, does
/// not make its wait a new one: else a name that flaps would never have waited for too long.
pub(super) fn ca_wait_of(claim: &Claim, now: Timestamp) -> Timestamp {
    // In claims written before the issuance kept it, the problem beside it says so.
    let told = claim.problem.as_ref().filter(|problem| problem.code.is_wait_for_ca()).map(|problem| problem.since);
    claim.issuance().and_then(|issuance| issuance.waits_since).or(told).unwrap_or(now)
}

fn forbids_first(claim: &Claim) -> bool {
    let seen = claim.last_look.as_ref();
    seen.is_some_and(|seen| seen.challenge_at(claim, CaChoice::First).is_none() && seen.challenge_at(claim, CaChoice::Second).is_some())
}

/// Since when the first CA is silent, once this was said.
pub(super) fn down_since(issuance: &Issuance, error: &IssueError, now: Timestamp) -> Option<Timestamp> {
    match (issuance.at(), error) {
        // What the second says is no news of the first.
        (CaChoice::Second, _) => issuance.down_since,
        (CaChoice::First, IssueError::Unavailable { .. }) => issuance.down_since.or(Some(now)),
        (CaChoice::First, _) => None,
    }
}
