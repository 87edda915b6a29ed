//! Every decision of the walk: what was read in, one [`Change`] out, nothing done.
//!
//! Arrives: a claim, its owner item and what a look or a CA said. Leaves: everything to write, in one transaction, each item on condition
//! of the version that was read. Goes wrong: nothing here; losing the race for the write means that someone else decided first.

mod failover;
mod origin;
mod restoring;
mod suspension;

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    Actor, Attempt, CLAIM_SCHEMA, CaChoice, CertificateFacts, CertificateWay, ChallengeKind, ChallengeWay, Change, Claim, ClaimId,
    ClaimKey, Delegation, Disposition, Finding, HistoryEntry, Issuance, IssueError, Issued, Judgement, LastLook, LookSchedule, MAX_DELAY,
    OrderPlan, Owner, OwnershipToken, PreparedKey, Problem, ProblemCode, Proof, Publication, Put, RemovalReason, Renewal, RenewalWindow,
    Routing, SiteVersion, State, StoredCertificate, Suspension, TenantId, ZoneSettings, claim::after, ledger::Wait, renewal,
};

pub use failover::{Failover, next_ca};
pub use origin::set_origin;
pub use restoring::{Shown, ShownSite, is_seen_again, restore};
pub use suspension::{resume, suspend};

use failover::{ca_wait_of, down_since, turns_while_waiting};

/// How long a worker may take before another one may take over, and how failures back off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuancePolicy {
    /// The lease a worker takes on an order; longer than a step may run.
    pub lease: Duration,
    /// The wait after the first failure; each further one triples it. After a name's third refusal in a row it is ten times, then a hundred
    /// times this.
    pub first_retry: Duration,
    /// The longest wait between attempts.
    pub retry_cap: Duration,
    /// When to turn to the second CA; `None` without one.
    pub failover: Option<Failover>,
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// After so many refusals of one name in a row nothing more is ordered until a person asks: no CA must have to stop us.
///
/// Source: Let's Encrypt pauses a name after 1,152 failures in a row (letsencrypt.org/docs/rate-limits, read 2026-11).
pub const SUSPENDED_AFTER: u32 = 20;

/// The shortest wait between two moves at a CA: one that says "at once" must not make us busy.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// When a stopped issuance looks again, which is never; every claim that is not over has a next look.
const STOPPED_FOR: Duration = Duration::from_secs(3650 * 86_400);

impl Default for IssuancePolicy {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(90),
            first_retry: Duration::from_secs(60),
            retry_cap: Duration::from_secs(86_400),
            failover: None,
        }
    }
}

impl IssuancePolicy {
    /// The waits between orders for a name that the CA refuses: three in an hour, then minutes, hours, a day.
    ///
    /// Source: Let's Encrypt's integration guide: one minute, ten, a hundred, then daily (read 2026-11).
    fn name_backoff(&self, name_failures: u32) -> Duration {
        let factor = match name_failures {
            0..=2 => 1,
            3 => 10,
            4 => 100,
            _ => return self.retry_cap,
        };
        self.first_retry.saturating_mul(factor).min(self.retry_cap)
    }

    fn backoff(&self, failures: u32) -> Duration {
        let factor = 3u32.saturating_pow(failures.saturating_sub(1).min(16));
        self.first_retry.saturating_mul(factor).min(self.retry_cap)
    }
}

/// Makes a claim, over the tombstone of an earlier one if there is one. Target and token are new every time.
pub fn register(
    key: ClaimKey,
    claim_id: ClaimId,
    token: OwnershipToken,
    tombstone: Option<&Claim>,
    looks: &LookSchedule,
    now: Timestamp,
) -> Change {
    let state = State::AwaitingProof { expires_at: after(now, looks.claim_life), first_proved: None, next_look: after(now, looks.floor) };
    let claim = Claim {
        schema: CLAIM_SCHEMA,
        key,
        claim_id,
        token,
        version: tombstone.map_or(0, |claim| claim.version) + 1,
        sequence: tombstone.map_or(0, |claim| claim.sequence) + 1,
        created_at: now,
        since: now,
        written_at: now,
        state,
        problem: None,
        last_look: None,
        // Leaving and coming back is no way around the operator, here and at the origin.
        suspension: tombstone.and_then(|claim| claim.suspension.clone()).map(|known| Suspension { site_version: None, ..known }),
        stale_site: None,
        origin: tombstone.and_then(|claim| claim.origin.clone()),
    };
    let history = vec![entry(&claim, "claim_registered", None, now)];
    Change { claims: vec![Put { item: claim, expected: tombstone.map(|claim| claim.version) }], history, ..Change::default() }
}

/// Ends a claim because the API was asked to: route, certificate and ownership go in the same write.
pub fn request_removal(claim: &Claim, owner: Option<&Owner>, now: Timestamp) -> Change {
    let mut change = end(claim, RemovalReason::Requested, now);
    if let Some(owner) = owner.filter(|owner| owner.tenant.as_ref() == Some(&claim.key.tenant)) {
        change.owner = Some(Put { item: Owner::changed(Some(owner), &claim.key.hostname, None), expected: Some(owner.version) });
    }
    change
}

/// Moves the next look to now; `None` when a worker is on it already or there is nothing to look at.
pub fn look_now(claim: &Claim, now: Timestamp) -> Option<Change> {
    let mut state = claim.state.clone();
    match &mut state {
        State::AwaitingProof { next_look, .. } | State::AwaitingRouting { next_look, .. } => *next_look = now,
        State::Active { health_look, renewal, .. } => {
            *health_look = now;
            if stop_of(claim).is_some() {
                wake(&mut renewal.issuance, now);
            }
        }
        State::Issuing { issuance, .. } if issuance.attempt.is_none() || waits_for_dns(claim, issuance) => wake(issuance, now),
        State::Issuing { .. } | State::Removing { .. } | State::Removed { .. } => return None,
    }
    Some(rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, None))
}

/// Records a look at DNS that was made at `looked_at`. `rival` is the claim of the hostname's present owner, when that is another tenant.
pub fn after_look(
    claim: &Claim,
    owner: Option<&Owner>,
    rival: Option<&Claim>,
    judgement: &Judgement,
    looks: &LookSchedule,
    looked_at: Timestamp,
    now: Timestamp,
) -> Option<Change> {
    let last_look = Some(LastLook::of(judgement, now));
    let next_look = looks.next_look(claim.since, now);
    match &claim.state {
        State::AwaitingProof { expires_at, first_proved, .. } => {
            let Some(proof) = judgement.proof else {
                if now >= *expires_at {
                    return Some(expire(claim, now));
                }
                let state = State::AwaitingProof { expires_at: *expires_at, first_proved: None, next_look };
                let problem = dated(judgement.finding.clone(), claim, now, next_look);
                return Some(rewrite(claim, state, problem, last_look, now, None));
            };
            let owned_by_other = owner.and_then(|owner| owner.tenant.as_ref()).is_some_and(|tenant| *tenant != claim.key.tenant);
            if !owned_by_other {
                return Some(win(claim, owner, None, proof, judgement, last_look, looks, now));
            }
            let since = first_proved.unwrap_or(now);
            // From when the first look was recorded to when this one was made: two looks made together count as one, however late the
            // second is recorded.
            let waited = Duration::try_from(looked_at.duration_since(since)).unwrap_or_default();
            let rival_left = rival.is_none_or(|rival| has_left(rival, judgement));
            if first_proved.is_some() && waited >= looks.hand_over && rival_left {
                return Some(win(claim, owner, rival, proof, judgement, last_look, looks, now));
            }
            let next_look = if first_proved.is_none() { after(now, looks.hand_over) } else { next_look };
            let state = State::AwaitingProof { expires_at: *expires_at, first_proved: Some(since), next_look };
            let problem = claimed_elsewhere(claim, rival_left).into_problem(claim.problem.as_ref(), now, next_look);
            let mut change = rewrite(claim, state, Some(problem), last_look, now, None);
            if let Some(rival) = rival.filter(|rival| first_proved.is_none() && rival.problem.is_none()) {
                tell_of_contest(&mut change, rival, now, after(now, looks.health));
            }
            Some(change)
        }
        State::AwaitingRouting { proof, .. } => {
            if judgement.routing.is_ours() {
                let (state, problem) = ready_to_issue(claim, *proof, judgement, looks, now);
                return Some(rewrite(claim, state, problem, last_look, now, Some("routing_seen")));
            }
            if judgement.delegation == Delegation::Ours {
                // The certificate can come before the name leads here, and for one that never shows that it does.
                let (state, problem) = ready_to_issue(claim, Proof::Delegation, judgement, looks, now);
                return Some(rewrite(claim, state, problem, last_look, now, Some("delegation_seen")));
            }
            let state = State::AwaitingRouting { proof: *proof, next_look };
            Some(rewrite(claim, state, dated(judgement.finding.clone(), claim, now, next_look), last_look, now, None))
        }
        State::Active { .. } => Some(after_health_look(claim, judgement, last_look, looks, now)),
        State::Issuing { .. } | State::Removing { .. } | State::Removed { .. } => None,
    }
}

/// Whether a look before the order put it off, and no worker took it up since, which would have moved the issuance's next look.
fn waits_for_dns(claim: &Claim, issuance: &Issuance) -> bool {
    let put_off = |problem: &Problem| problem.code.is_of_a_look() && problem.next_look == issuance.next_look;
    let is_ordered = issuance.attempt.as_ref().is_some_and(|attempt| attempt.order_url.is_some());
    !is_ordered && claim.problem.as_ref().is_some_and(put_off)
}

fn wake(issuance: &mut Issuance, now: Timestamp) {
    issuance.next_look = now;
    issuance.stopped = None;
}

/// Why nothing is ordered for this claim until a person asks for a check.
fn stop_of(claim: &Claim) -> Option<&Problem> {
    let issuance = claim.issuance()?;
    // In claims written before the issuance kept it, the problem beside it says so, as long as nobody asked.
    let stopped = |problem: &&Problem| {
        matches!(problem.code, ProblemCode::CaSuspended | ProblemCode::CaPaused) && problem.next_look == issuance.next_look
    };
    // Whoever was at the second CA since may have its words there, which stop nothing at the first.
    let is_old = issuance.second_not_before.is_none();
    issuance.stopped.as_ref().or_else(|| claim.problem.as_ref().filter(stopped).filter(|_| is_old))
}

fn after_health_look(claim: &Claim, judgement: &Judgement, last_look: Option<LastLook>, looks: &LookSchedule, now: Timestamp) -> Change {
    let mut state = claim.state.clone();
    let stop = stop_of(claim).cloned();
    let (problem, next) = match (standing(claim, judgement), &judgement.obstacle) {
        // What could not be learned says nothing: the problem stays as it is, and we look again soon.
        (Standing::Unknown, _) => (claim.problem.clone(), after(now, looks.cap)),
        (Standing::AtRisk, _) => {
            let since = claim.problem.as_ref().filter(|p| p.code == ProblemCode::AtRisk).map_or(now, |p| p.since);
            let grace_ends = after(since, looks.at_risk_grace);
            let next = if now < grace_ends { looks.next_look(since, now).min(grace_ends) } else { after(now, looks.health) };
            (Some(at_risk(claim, judgement).into_problem(claim.problem.as_ref(), now, next)), next)
        }
        // It is served, and nothing is ordered for it: no record in DNS changes that, so only the stop is told.
        (Standing::Here | Standing::Delegated, _) if stop.is_some() => (stop.clone(), after(now, looks.health)),
        // A suspended name is served by nobody, so there is nothing to switch to.
        (Standing::Delegated, _) if claim.suspension.is_some() => (claim.problem.clone(), after(now, looks.health)),
        // Served, and renewal would be refused: looked at again as closely as a name that left, and told as the look before an order tells it.
        (Standing::Here | Standing::Delegated, Some(obstacle)) => {
            let next = looks.next_look(Problem::wait_of(claim.problem.as_ref(), obstacle.code, now), now);
            (dated(Some(obstacle.clone()), claim, now, next), next)
        }
        (Standing::Delegated, None) => match served_by_every_edge_from(&claim.state, looks) {
            Some(from) if from <= now => {
                let since = Problem::wait_of(claim.problem.as_ref(), ProblemCode::NotRouted, now);
                // What stayed so for longer than a claim may wait is meant to stay, as behind a proxy.
                let lasting = elapsed(since, now) > looks.claim_life;
                let next = if lasting { after(now, looks.health) } else { looks.next_look(since, now) };
                (Some(not_routed(claim, judgement).into_problem(claim.problem.as_ref(), now, next)), next)
            }
            from => (claim.problem.clone(), from.unwrap_or_else(|| looks.next_look(claim.since, now).max(after(now, settling(looks))))),
        },
        (Standing::Here, None) => {
            let healed = |problem: &Problem| {
                matches!(problem.code, ProblemCode::AtRisk | ProblemCode::NotRouted | ProblemCode::Contested) || problem.code.is_of_a_look()
            };
            let next = after(now, looks.health);
            let stays = claim.problem.clone().filter(|problem| !healed(problem));
            (stays.or_else(|| advised(judgement, claim, now, next)), next)
        }
    };
    if let State::Active { health_look, renewal, .. } = &mut state {
        // It is resumed by a change of its own; should that fail, a look soon makes up for it.
        let waits_since = claim.suspension.as_ref().filter(|_| is_seen_again(claim, judgement)).map(|suspension| suspension.since);
        *health_look = waits_since.map_or(next, |since| looks.next_look(since, now));
        renewal.issuance.stopped = stop;
    }
    let event = grace_event(claim, problem.as_ref(), looks, now);
    rewrite(claim, state, problem, last_look, now, event)
}

/// Told once: by the first look that finds the grace over.
fn grace_event(claim: &Claim, problem: Option<&Problem>, looks: &LookSchedule, now: Timestamp) -> Option<&'static str> {
    let stays = problem.is_some_and(|problem| problem.code == ProblemCode::AtRisk);
    let ends = claim.grace_ends(looks).filter(|_| stays)?;
    let told = claim.last_look.as_ref().is_some_and(|look| look.at >= ends);
    (now >= ends && !told).then_some("at_risk_grace_ended")
}

/// What the next order is to be, from what was last seen of the name; `None` when no challenge of it could be answered.
///
/// A delegated name is answered for in the answer zone, wherever the name leads: behind a proxy, or not here yet. Any other name must lead to
/// the edge, and a wildcard has no challenge but dns-01. What CAA records forbid is not planned: where they forbid the CA whose turn it is, the
/// order is made at the other one.
pub fn plan_order(claim: &Claim, seen: &LastLook, zone: &ZoneSettings) -> Option<OrderPlan> {
    let wanted = claim.issuance()?.ca;
    let has = |ca: CaChoice| ca == CaChoice::First || ca == wanted || zone.issuers.iter().any(|issuer| issuer.ca == ca);
    let (ca, kind) = [wanted, wanted.other()].into_iter().filter(|ca| has(*ca)).find_map(|ca| Some((ca, seen.challenge_at(claim, ca)?)))?;
    let challenge = match kind {
        ChallengeKind::Dns01 => ChallengeWay::Dns01 { name: zone.answer_name(&claim.claim_id) },
        ChallengeKind::Http01 => ChallengeWay::Http01,
    };
    let replaces = match &claim.state {
        // Only the CA that issued a certificate knows it.
        State::Active { certificate, .. } if certificate.ca == ca => certificate.ari_id.clone(),
        _ => None,
    };
    Some(OrderPlan { challenge, replaces, ca })
}

/// The plan where nothing serves the answer zone: a delegated name is proved by http-01, if it leads here and CAA records allow that. Any other
/// plan stays, so that whoever runs the installation is told what it lacks.
pub fn without_answer_zone(plan: OrderPlan, claim: &Claim, seen: &LastLook) -> OrderPlan {
    let way = ChallengeWay::Http01;
    if seen.may_be_challenged(claim, plan.ca, way.kind()) { OrderPlan { challenge: way, ..plan } } else { plan }
}

/// Begins a move of the issuance: takes the lease, and stores key, CSR and plan when there are none yet, before anything is asked of the CA.
pub fn lease_issuance(
    claim: &Claim,
    prepared: Option<(PreparedKey, OrderPlan)>,
    policy: &IssuancePolicy,
    now: Timestamp,
) -> Option<Change> {
    change_issuance(claim, now, |issuance| {
        issuance.next_look = after(now, policy.lease);
        if let Some((key, plan)) = prepared {
            let PreparedKey { csr, sealed_key, spki_sha256 } = key;
            issuance.attempt = Some(Attempt { started_at: now, csr, sealed_key, spki_sha256, order_url: None, plan });
        }
    })
}

/// The same for an order that a look was just made for, which the claim remembers: which CA may be asked next follows from it. An attempt whose
/// order was not made yet is planned anew: where the name leads may have changed while it waited.
pub fn lease_for_order(
    claim: &Claim,
    prepared: Option<PreparedKey>,
    plan: OrderPlan,
    seen: &LastLook,
    policy: &IssuancePolicy,
    now: Timestamp,
) -> Option<Change> {
    let mut state = claim.state.clone();
    if let Some(attempt) = issuance_mut(&mut state)?.attempt.as_mut().filter(|attempt| attempt.order_url.is_none()) {
        attempt.plan = plan.clone();
    }
    let planned = Claim { state, last_look: Some(seen.clone()), ..claim.clone() };
    lease_issuance(&planned, prepared.map(|key| (key, plan)), policy, now)
}

/// Stores the order's URL, before anything is asked of the order. What it waited for until now is over.
pub fn record_order(claim: &Claim, order_url: &str, policy: &IssuancePolicy, now: Timestamp) -> Option<Change> {
    let mut state = claim.state.clone();
    let issuance = issuance_mut(&mut state)?;
    issuance.next_look = after(now, policy.lease);
    if issuance.at() == CaChoice::First {
        issuance.down_since = None;
    }
    issuance.waits_since = None;
    if let Some(attempt) = &mut issuance.attempt {
        attempt.order_url = Some(order_url.to_owned());
        // A certificate is late by what its order takes, not by how long the order waited for its turn.
        attempt.started_at = now;
    }
    let problem = claim.problem.clone().filter(|problem| !problem.code.is_wait_for_ca());
    Some(rewrite(claim, state, problem, claim.last_look.clone(), now, None))
}

/// Records the certificate: the claim is `Active` (or stays so), and the next site version is its. `None` when the claim or the owner item
/// is no longer what the certificate was ordered for.
pub fn record_certificate(claim: &Claim, owner: &Owner, issued: &Issued, looks: &LookSchedule, now: Timestamp) -> Option<Change> {
    let attempt = issuance(&claim.state)?.attempt.as_ref()?;
    if owner.tenant.as_ref() != Some(&claim.key.tenant) {
        return None;
    }
    let owner_after = Owner::changed(Some(owner), &claim.key.hostname, Some(claim.key.tenant.clone()));
    let facts = CertificateFacts {
        version: owner_after.site_version,
        serial: issued.serial.clone(),
        spki_sha256: attempt.spki_sha256.clone(),
        not_before: issued.not_before,
        not_after: issued.not_after,
        ari_id: issued.ari_id.clone(),
        ca: attempt.plan.ca,
    };
    let leads_here = claim.last_look.as_ref().is_none_or(|look| look.routing.is_ours());
    let (proof, health_look, before, event) = match &claim.state {
        // Not served before it is seen again, so it is looked at now.
        State::Issuing { proof, .. } if claim.suspension.as_ref().is_some_and(|suspension| suspension.ends_when_seen) => {
            (*proof, now, None, "certificate_recorded")
        }
        // Whoever is to switch the name now must be told so as soon as every edge serves it.
        State::Issuing { proof, .. } if !leads_here => (*proof, after(now, settling(looks)), None, "certificate_recorded"),
        State::Issuing { proof, .. } => (*proof, after(now, looks.health), None, "certificate_recorded"),
        State::Active { proof, health_look, certificate, .. } => {
            // A refusal of the order may have covered what was known of the name's DNS: that is told again now, and not in a day.
            let is_covered = !leads_here && claim.problem.as_ref().is_none_or(|problem| !outlives_an_order(claim, problem));
            let health_look = if is_covered { (*health_look).min(after(now, settling(looks))) } else { *health_look };
            (*proof, health_look, Some(certificate.version), "certificate_renewed")
        }
        _ => return None,
    };
    let certificate = StoredCertificate {
        hostname: claim.key.hostname.clone(),
        tenant: claim.key.tenant.clone(),
        version: facts.version,
        chain: issued.chain.clone(),
        sealed_key: attempt.sealed_key.clone(),
        spki_sha256: attempt.spki_sha256.clone(),
    };
    let due_at = renewal::due_without_window(&claim.key.hostname, &facts);
    let state = State::Active {
        proof,
        renewal: Renewal {
            due_at,
            window: None,
            window_poll: facts.ari_id.as_ref().map(|_| renewal::first_window_poll(&facts, now)),
            issuance: Issuance::new(due_at),
        },
        certificate: facts,
        renewed: before.is_some(),
        publication: Publication::Due { next_look: now },
        health_look,
    };
    let problem = claim.problem.clone().filter(|problem| outlives_an_order(claim, problem));
    let mut change = rewrite(claim, state, problem, claim.last_look.clone(), now, Some(event));
    change.owner = Some(Put { item: owner_after, expected: Some(owner.version) });
    change.certificate = Some(certificate);
    change.dropped_certificates = before.map(|version| (claim.key.hostname.clone(), version)).into_iter().collect();
    Some(change)
}

/// How long before a turn that no queue can hold a nudge for the claim is looked at.
///
/// Such a turn is left to the timer, which is late by its grace and up to a tick; a bucket that is refilled every tenth of a second has long given
/// away what was not taken in time, and with a long backlog nearly all turns would be lost. Who comes early is told the same turn, which then is
/// near enough for a nudge that comes on time.
const COME_EARLY: Duration = Duration::from_secs(10 * 60);

/// Records that the order waits for its turn: who gives it, and when. Nothing failed. Where the first CA's limits keep it for too long, the next
/// order goes to the second one, and what was reserved for this one is free.
pub fn await_turn(claim: &Claim, wait: &Wait, limit: &str, policy: &IssuancePolicy, now: Timestamp) -> Option<Change> {
    let mut state = claim.state.clone();
    let issuance = issuance_mut(&mut state)?;
    issuance.waits_since = Some(ca_wait_of(claim, now));
    let other = turns_while_waiting(claim, wait.paused_for.is_some(), wait.until, policy.failover.as_ref(), now);
    let turn = wait.until.max(after(now, Duration::from_millis(1)));
    let next_look = match other {
        Some(_) => after(now, SHORTEST_WAIT),
        None if elapsed(now, turn) > MAX_DELAY => turn.checked_sub(COME_EARLY).unwrap_or(turn),
        None => turn,
    };
    issuance.next_look = next_look;
    issuance.turn = Some(turn);
    if let Some(other) = other {
        (issuance.ca, issuance.attempt) = (other, None);
    }
    if other == Some(CaChoice::First) {
        issuance.second_not_before = Some(turn);
    }
    let finding = Finding {
        code: if wait.paused_for.is_some() { ProblemCode::CaRateLimited } else { ProblemCode::CaQueued },
        actor: Actor::Nameplate,
        action: match other {
            Some(CaChoice::Second) => {
                "Nothing; the order goes to the second CA, since the first one's limit lasts for too long.".to_owned()
            }
            Some(CaChoice::First) => "Nothing; the order goes back to the first CA, since the second one asks to wait.".to_owned(),
            None => format!("Nothing; the order is made at {turn}, as soon as the CA's limit allows."),
        },
        about: format!("certificate for {}", claim.key.hostname),
        expected: format!("a free place under the limit of {limit}"),
        saw: match &wait.paused_for {
            Some(words) => format!("the CA asks to wait: {words}"),
            None => "none is free, and others wait for theirs".to_owned(),
        },
    };
    // A CA that is down asks everybody to wait; that it is down tells more.
    let is_down = |problem: &&Problem| problem.code == ProblemCode::CaUnavailable && wait.paused_for.is_some();
    let problem = match (told_beside_a_wait(claim), claim.problem.as_ref().filter(is_down)) {
        (Some(told), _) => told.clone(),
        (None, Some(problem)) => Problem { next_look, ..problem.clone() },
        (None, None) => finding.into_problem(claim.problem.as_ref(), now, next_look),
    };
    Some(rewrite(claim, state, Some(problem), claim.last_look.clone(), now, None))
}

/// What is told of a served name and still true while its renewal waits for the CA: a person must act on it, and on the wait nobody.
fn told_beside_a_wait(claim: &Claim) -> Option<&Problem> {
    let is_served = matches!(claim.state, State::Active { .. });
    claim.problem.as_ref().filter(|problem| is_served && outlives_an_order(claim, problem))
}

/// Whether an order, before which the name was looked at, leaves the problem true. What stood in the order's way does not outlive it.
fn outlives_an_order(claim: &Claim, problem: &Problem) -> bool {
    let leads_here = claim.last_look.as_ref().is_some_and(|look| look.routing.is_ours());
    match problem.code {
        ProblemCode::Contested => true,
        ProblemCode::NotRouted => !leads_here,
        code => code.is_of_a_look() && problem.is_advice(),
    }
}

/// The last refusal of a name that was refused very often.
fn suspended(claim: &Claim, error: &IssueError, way: &ChallengeWay) -> Finding {
    let hostname = &claim.key.hostname;
    let told = error.finding(hostname, way);
    Finding {
        code: ProblemCode::CaSuspended,
        actor: told.as_ref().map_or(Actor::Operator, |finding| finding.actor),
        action: format!(
            "{} Then ask for a check of {hostname}: nothing is ordered before.",
            told.map_or_else(String::new, |finding| finding.action)
        ),
        about: format!("certificate for {hostname}"),
        expected: "a certificate".to_owned(),
        saw: format!("{SUSPENDED_AFTER} refusals in a row, the last: {error}"),
    }
}

/// Records that no certificate came: what people are told, and when it is tried again. The state stays what it is.
pub fn record_refusal(claim: &Claim, error: &IssueError, policy: &IssuancePolicy, now: Timestamp) -> Option<Change> {
    let mut state = claim.state.clone();
    let issuance = issuance_mut(&mut state)?;
    let next_ca = next_ca(claim, error, policy.failover.as_ref(), now);
    let at = issuance.at();
    let turns = next_ca != at;
    issuance.down_since = down_since(issuance, error, now);
    if matches!(error, IssueError::RateLimited { .. } | IssueError::Unavailable { .. }) {
        issuance.waits_since = Some(ca_wait_of(claim, now));
    }
    issuance.ca = next_ca;
    let way = issuance.attempt.as_ref().map(|attempt| attempt.plan.challenge.clone()).unwrap_or_default();
    let waiting_on_ca = matches!(error, IssueError::NotYet { .. });
    if !waiting_on_ca {
        issuance.failures = issuance.failures.saturating_add(1);
    }
    let of_name = issuance.name_failures_at(at);
    if error.is_about_the_name() {
        *of_name = of_name.saturating_add(1);
    }
    let is_paused = matches!(error, IssueError::Paused { .. });
    if is_paused && at == CaChoice::Second {
        *of_name = (*of_name).max(SUSPENDED_AFTER);
    }
    let refusals = *of_name;
    // A second CA that does not want the name is not asked again; that ends nothing at the first.
    let stops = !turns && (is_paused || error.is_about_the_name() && refusals >= SUSPENDED_AFTER);
    // The order stays where it is; the next one is made elsewhere.
    if turns || !error.keeps_the_order() {
        issuance.attempt = None;
    }
    let wait = match error.disposition() {
        // Nothing is known against the other CA.
        _ if turns && next_ca == CaChoice::Second => Duration::ZERO,
        // The second CA's wait is not the first one's.
        Disposition::Retry { .. } if turns => policy.backoff(issuance.failures),
        Disposition::Retry { after: Some(wait) } => wait,
        Disposition::Retry { after: None } if waiting_on_ca => policy.first_retry.min(Duration::from_secs(5)),
        Disposition::AskCustomer => policy.name_backoff(refusals),
        Disposition::Retry { after: None } => policy.backoff(issuance.failures),
        Disposition::GiveUp | Disposition::Defect => policy.backoff(issuance.failures).max(policy.retry_cap / 24),
    };
    let wait = wait.max(SHORTEST_WAIT).min(policy.retry_cap.max(SHORTEST_WAIT));
    let next_look = after(now, if stops { STOPPED_FOR } else { wait });
    issuance.next_look = next_look;
    if turns && at == CaChoice::Second {
        let asked = match error.disposition() {
            Disposition::Retry { after } => after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        issuance.second_not_before = Some(after(now, asked.max(wait)));
    }
    let finding = if stops && !is_paused { Some(suspended(claim, error, &way)) } else { error.finding(&claim.key.hostname, &way) };
    let problem = match finding {
        // Nobody can do anything about a wait; what else is told, somebody can.
        Some(finding) if finding.code.is_wait_for_ca() => {
            let told = told_beside_a_wait(claim).cloned();
            Some(told.unwrap_or_else(|| finding.into_problem(claim.problem.as_ref(), now, next_look)))
        }
        Some(finding) => Some(finding.into_problem(claim.problem.as_ref(), now, next_look)),
        None => claim.problem.clone(),
    };
    if let Some(issuance) = issuance_mut(&mut state) {
        issuance.stopped = problem.clone().filter(|_| stops);
    }
    Some(rewrite(claim, state, problem, claim.last_look.clone(), now, None))
}

/// Records that the look before an order found the name leading elsewhere, or something for which the CA would refuse: no order is made.
pub fn postpone_order(claim: &Claim, judgement: &Judgement, looks: &LookSchedule, now: Timestamp) -> Option<Change> {
    let mut state = claim.state.clone();
    let active = matches!(state, State::Active { .. });
    let issuance = issuance_mut(&mut state)?;
    let since = claim.problem.as_ref().map_or(now, |problem| problem.waits_since.unwrap_or(problem.since));
    let next_look = looks.next_look(since, now);
    issuance.next_look = next_look;
    let obstacle = judgement.obstacle.clone();
    let standing = standing(claim, judgement);
    let at_risk = (active && standing == Standing::AtRisk).then(|| at_risk(claim, judgement));
    let finding = at_risk.or(obstacle).or_else(|| judgement.finding.clone());
    // A look that learned nothing does not say that a name at risk is back.
    let is_kept = |problem: &&Problem| active && standing == Standing::Unknown && problem.code == ProblemCode::AtRisk;
    let problem = match claim.problem.as_ref().filter(is_kept) {
        Some(problem) => Some(problem.clone()),
        None => dated(finding, claim, now, next_look).or_else(|| claim.problem.clone()),
    };
    let event = grace_event(claim, problem.as_ref(), looks, now);
    Some(rewrite(claim, state, problem, Some(LastLook::of(judgement, now)), now, event))
}

/// Records the CA's renewal window, or that it has none; renewal happens at a point of the window that a restart does not move.
pub fn record_window(claim: &Claim, window: Option<&RenewalWindow>, now: Timestamp) -> Option<Change> {
    let mut state = claim.state.clone();
    let State::Active { certificate, renewal, .. } = &mut state else { return None };
    match window {
        Some(window) => {
            renewal.due_at = renewal::due_in_window(&claim.key.hostname, certificate, window);
            renewal.window_poll = Some(renewal::next_window_poll(certificate, window, now));
            renewal.window = Some((window.start, window.end));
            if renewal.issuance.failures == 0 {
                renewal.issuance.next_look = renewal.due_at;
            }
        }
        None => (renewal.window_poll, renewal.window) = (None, None),
    }
    Some(rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, None))
}

/// Records that asking for the window failed; it is asked again later, and renewal does not depend on it.
/// A CA that names no wait is asked again after a share of the certificate's life, so that a fleet does not ask one that is down each minute.
pub fn postpone_window(claim: &Claim, wait: Option<Duration>, now: Timestamp) -> Option<Change> {
    let mut state = claim.state.clone();
    let State::Active { renewal, certificate, .. } = &mut state else { return None };
    let wait = wait.unwrap_or_else(|| renewal::window_retry(certificate));
    renewal.window_poll = Some(after(now, wait.max(Duration::from_secs(60))));
    Some(rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, None))
}

/// Records that the bucket shows this claim's site, or no longer shows it: at `version` it shows the site of the tenant `shown`, or a
/// tombstone, or nothing. `None` when that is not what the claim waits for.
pub fn record_publication(claim: &Claim, shown: Option<&TenantId>, version: SiteVersion, now: Timestamp) -> Option<Change> {
    let shows_ours = shown == Some(&claim.key.tenant);
    let mut state = claim.state.clone();
    let event = match &mut state {
        State::Active { publication, .. } if shown.is_none() && claim.taken_down_at() == Some(version) => {
            if !matches!(publication, Publication::Due { .. }) {
                return None;
            }
            *publication = Publication::Done { version, at: now };
            Some("site_suspended")
        }
        State::Active { publication, certificate, .. } if claim.suspension.is_none() && shows_ours && certificate.version == version => {
            if !matches!(publication, Publication::Due { .. }) {
                return None;
            }
            *publication = Publication::Done { version, at: now };
            Some("site_published")
        }
        // A site written while the claim ended is not its take-down.
        State::Removing { reason, .. } if !shows_ours => {
            state = State::Removed { reason: *reason };
            Some("site_removed")
        }
        // What was stale is over; nothing happened to this claim.
        State::AwaitingProof { .. } | State::AwaitingRouting { .. } | State::Issuing { .. } if claim.stale_site.is_some() => None,
        _ => return None,
    };
    let mut change = rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, event);
    change.claims[0].item.stale_site = None;
    Some(change)
}

/// Proved and routed: the order comes at once, unless the look saw what would make the CA refuse.
fn ready_to_issue(claim: &Claim, proof: Proof, judgement: &Judgement, looks: &LookSchedule, now: Timestamp) -> (State, Option<Problem>) {
    let next_look = if judgement.may_order() { now } else { looks.next_look(now, now) };
    let state = State::Issuing { proof, issuance: Issuance::new(next_look) };
    let told = dated(judgement.obstacle.clone(), claim, now, next_look).or_else(|| advised(judgement, claim, now, next_look));
    (state, told)
}

/// The claim becomes the owner; whoever owned the name before ends in the same write.
#[allow(clippy::too_many_arguments, reason = "one decision with everything it read")]
fn win(
    claim: &Claim,
    owner: Option<&Owner>,
    rival: Option<&Claim>,
    proof: Proof,
    judgement: &Judgement,
    last_look: Option<LastLook>,
    looks: &LookSchedule,
    now: Timestamp,
) -> Change {
    let (state, problem) = if judgement.routing.is_ours() || proof == Proof::Delegation {
        ready_to_issue(claim, proof, judgement, looks, now)
    } else {
        let next_look = looks.next_look(now, now);
        (State::AwaitingRouting { proof, next_look }, dated(judgement.finding.clone(), claim, now, next_look))
    };
    let mut change = rewrite(claim, state, problem, last_look, now, Some("ownership_proved"));
    let item = Owner::changed(owner, &claim.key.hostname, Some(claim.key.tenant.clone()));
    change.owner = Some(Put { item, expected: owner.map(|owner| owner.version) });
    if let Some(rival) = rival.filter(|rival| !matches!(rival.state, State::Removing { .. } | State::Removed { .. })) {
        let ended = end(rival, RemovalReason::Transferred, now);
        change.claims.extend(ended.claims);
        change.history.extend(ended.history);
        change.dropped_certificates.extend(ended.dropped_certificates);
    }
    change
}

/// Whether nothing in DNS speaks for `rival` any more: its target is not routed to, its token is gone, and so is its delegation.
fn has_left(rival: &Claim, judgement: &Judgement) -> bool {
    let routed = judgement.routing == Routing::OtherClaim(rival.claim_id.clone()) || judgement.routing == Routing::Unknown;
    let token = judgement.txt_values.iter().any(|value| value == rival.token.as_str());
    let delegated = match &judgement.delegation {
        Delegation::OtherClaim(claim) => *claim == rival.claim_id,
        Delegation::Unknown => true,
        Delegation::None | Delegation::Ours | Delegation::Elsewhere => false,
    };
    !routed && !token && !delegated
}

fn claimed_elsewhere(claim: &Claim, rival_left: bool) -> Finding {
    let hostname = &claim.key.hostname;
    let action = if rival_left {
        "Leave the record in place; the name changes hands after a second look.".to_owned()
    } else {
        format!("Remove the record of the present owner at {hostname} and leave only this claim's; or ask the present owner to remove it.")
    };
    Finding {
        code: ProblemCode::ClaimedElsewhere,
        actor: if rival_left { Actor::Nameplate } else { Actor::Customer },
        action,
        about: hostname.to_string(),
        expected: "no record of another claim".into(),
        saw: "the name is proved for another tenant".into(),
    }
}

fn tell_of_contest(change: &mut Change, rival: &Claim, now: Timestamp, next_look: Timestamp) {
    let hostname = &rival.key.hostname;
    let finding = Finding {
        code: ProblemCode::Contested,
        actor: Actor::Customer,
        action: format!("Keep this claim's record at {hostname} if the name is still yours; without it the name changes hands."),
        about: hostname.to_string(),
        expected: "proof of one tenant".into(),
        saw: "another tenant proved the name, too".into(),
    };
    let problem = finding.into_problem(None, now, next_look);
    let told = rewrite(rival, rival.state.clone(), Some(problem), rival.last_look.clone(), now, Some("ownership_contested"));
    change.claims.extend(told.claims);
    change.history.extend(told.history);
}

/// How an active name stands in DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It leads here and can be renewed.
    Here,
    /// It can be renewed, through its delegation, and does not lead here: not yet, or a proxy stands before it.
    Delegated,
    /// It can no longer be renewed.
    AtRisk,
    /// It could not be learned.
    Unknown,
}

fn standing(claim: &Claim, judgement: &Judgement) -> Standing {
    let wildcard = claim.key.hostname.is_wildcard();
    match (&judgement.delegation, &judgement.routing) {
        (Delegation::Ours, routing) if routing.is_ours() => Standing::Here,
        (Delegation::Ours, Routing::Unknown) => Standing::Unknown,
        (Delegation::Ours, _) => Standing::Delegated,
        (_, routing) if routing.is_ours() && !wildcard => Standing::Here,
        (Delegation::Unknown, _) => Standing::Unknown,
        (_, Routing::Unknown) if !wildcard => Standing::Unknown,
        _ => Standing::AtRisk,
    }
}

/// How long an index change may take to reach every edge, and a little more. They poll in a fraction of the shortest wait between two looks,
/// or, on AWS, every 5 s with jitter.
fn settling(looks: &LookSchedule) -> Duration {
    looks.floor * 2
}

/// From when on every edge serves this name; `None` while that is not known.
fn served_by_every_edge_from(state: &State, looks: &LookSchedule) -> Option<Timestamp> {
    match state {
        State::Active { publication: Publication::Done { at, .. }, .. } => Some(after(*at, settling(looks))),
        // The certificate before this one is served.
        State::Active { renewed: true, .. } => Some(Timestamp::MIN),
        _ => None,
    }
}

/// The last step of a name that got its certificate before it was switched.
fn not_routed(claim: &Claim, judgement: &Judgement) -> Finding {
    let hostname = &claim.key.hostname;
    let seen = judgement.finding.as_ref();
    let step = seen.map_or_else(|| format!("Lead {hostname} to the edge."), |finding| finding.action.clone());
    Finding {
        code: ProblemCode::NotRouted,
        actor: Actor::Customer,
        action: format!(
            "The edge serves {hostname} now, so it can be switched without a gap. {step} Behind a proxying CDN, lead its origin here."
        ),
        about: seen.map_or_else(|| hostname.to_string(), |finding| finding.about.clone()),
        expected: seen.map_or_else(|| "a record that leads to the edge".to_owned(), |finding| finding.expected.clone()),
        saw: seen.map_or_else(|| "it leads elsewhere".to_owned(), |finding| finding.saw.clone()),
    }
}

fn at_risk(claim: &Claim, judgement: &Judgement) -> Finding {
    let hostname = &claim.key.hostname;
    let seen = judgement.finding.as_ref();
    Finding {
        code: ProblemCode::AtRisk,
        actor: Actor::Customer,
        action: seen.map_or_else(
            || format!("Lead {hostname} back to the edge, or remove the domain; it is served until its certificate ends."),
            |finding| finding.action.clone(),
        ),
        about: seen.map_or_else(|| hostname.to_string(), |finding| finding.about.clone()),
        expected: seen.map_or_else(|| "a record that leads to the edge".to_owned(), |finding| finding.expected.clone()),
        saw: seen.map_or_else(|| "it leads elsewhere".to_owned(), |finding| finding.saw.clone()),
    }
}

fn expire(claim: &Claim, now: Timestamp) -> Change {
    let reason = RemovalReason::Expired;
    let state = if claim.stale_site.is_some() { State::Removing { reason, next_look: now } } else { State::Removed { reason } };
    rewrite(claim, state, None, claim.last_look.clone(), now, Some("claim_expired"))
}

/// The claim leaves: its certificate is dropped, and its site is taken down by the next publishing.
fn end(claim: &Claim, reason: RemovalReason, now: Timestamp) -> Change {
    let event = match reason {
        RemovalReason::Requested => "removal_requested",
        RemovalReason::Expired => "claim_expired",
        RemovalReason::Transferred => "ownership_transferred",
    };
    let mut change = rewrite(claim, State::Removing { reason, next_look: now }, None, claim.last_look.clone(), now, Some(event));
    if let State::Active { certificate, .. } = &claim.state {
        change.dropped_certificates.push((claim.key.hostname.clone(), certificate.version));
    }
    change
}

fn issuance(state: &State) -> Option<&Issuance> {
    match state {
        State::Issuing { issuance, .. } => Some(issuance),
        State::Active { renewal, .. } => Some(&renewal.issuance),
        _ => None,
    }
}

fn issuance_mut(state: &mut State) -> Option<&mut Issuance> {
    match state {
        State::Issuing { issuance, .. } => Some(issuance),
        State::Active { renewal, .. } => Some(&mut renewal.issuance),
        _ => None,
    }
}

impl LastLook {
    /// What people and the next order need to know of a look.
    pub fn of(judgement: &Judgement, at: Timestamp) -> Self {
        Self {
            at,
            proof: judgement.proof,
            routing: judgement.routing.clone(),
            delegation: judgement.delegation.clone(),
            forbidden: judgement.forbidden.clone(),
        }
    }

    /// How a challenge of this CA could be answered; `None` when it cannot, or CAA records forbid it.
    fn challenge_at(&self, claim: &Claim, ca: CaChoice) -> Option<ChallengeKind> {
        [ChallengeKind::Dns01, ChallengeKind::Http01].into_iter().find(|challenge| self.may_be_challenged(claim, ca, *challenge))
    }

    fn may_be_challenged(&self, claim: &Claim, ca: CaChoice, challenge: ChallengeKind) -> bool {
        let is_usable = match challenge {
            ChallengeKind::Dns01 => self.delegation == Delegation::Ours,
            ChallengeKind::Http01 => self.routing.is_ours() && !claim.key.hostname.is_wildcard(),
        };
        is_usable && !self.forbidden.contains(&CertificateWay { ca, challenge })
    }
}

impl Issuance {
    /// One that begins at `next_look`.
    pub fn new(next_look: Timestamp) -> Self {
        Self {
            next_look,
            attempt: None,
            failures: 0,
            ca: CaChoice::First,
            name_failures: 0,
            second_name_failures: 0,
            second_not_before: None,
            stopped: None,
            turn: None,
            down_since: None,
            waits_since: None,
        }
    }

    /// The CA that the order under way is at, or the next one goes to.
    pub fn at(&self) -> CaChoice {
        self.attempt.as_ref().map_or(self.ca, |attempt| attempt.plan.ca)
    }

    /// How often in a row this CA refused the name.
    fn name_failures_at(&mut self, ca: CaChoice) -> &mut u32 {
        match ca {
            CaChoice::First => &mut self.name_failures,
            CaChoice::Second => &mut self.second_name_failures,
        }
    }
}

impl CaChoice {
    /// The other one.
    fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

impl Claim {
    /// The issuance under way or to come, in the states that have one.
    pub fn issuance(&self) -> Option<&Issuance> {
        issuance(&self.state)
    }
}

fn change_issuance(claim: &Claim, now: Timestamp, edit: impl FnOnce(&mut Issuance)) -> Option<Change> {
    let mut state = claim.state.clone();
    edit(issuance_mut(&mut state)?);
    Some(rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, None))
}

fn dated(finding: Option<Finding>, claim: &Claim, now: Timestamp, next_look: Timestamp) -> Option<Problem> {
    finding.map(|finding| finding.into_problem(claim.problem.as_ref(), now, next_look))
}

fn advised(judgement: &Judgement, claim: &Claim, now: Timestamp, next_look: Timestamp) -> Option<Problem> {
    judgement.advice.clone().map(|advice| advice.into_advice(claim.problem.as_ref(), now, next_look))
}

/// The claim's next version. A transition, or a problem that appears, changes or goes, leaves a history item.
fn rewrite(
    claim: &Claim,
    state: State,
    problem: Option<Problem>,
    last_look: Option<LastLook>,
    now: Timestamp,
    transition: Option<&str>,
) -> Change {
    let moved = state.name() != claim.state.name();
    let before = claim.problem.as_ref().map(|problem| problem.code);
    let event = match (transition, problem.as_ref().map(|problem| problem.code)) {
        (Some(event), _) => Some(event),
        (None, after) if after == before => None,
        (None, Some(ProblemCode::AtRisk)) => Some("became_at_risk"),
        (None, _) if before == Some(ProblemCode::AtRisk) => Some("recovered"),
        (None, Some(_)) => Some("problem_found"),
        (None, None) => Some("problem_cleared"),
    };
    let mut next = Claim { version: claim.version + 1, written_at: now, state, problem, last_look, ..claim.clone() };
    if moved {
        next.since = now;
    }
    let mut history = Vec::new();
    if let Some(event) = event {
        next.sequence += 1;
        let detail = next.problem.as_ref().map(|problem| problem.saw.clone());
        history.push(entry(&next, event, detail, now));
    }
    Change { claims: vec![Put { item: next, expected: Some(claim.version) }], history, ..Change::default() }
}

fn entry(claim: &Claim, event: &str, detail: Option<String>, now: Timestamp) -> HistoryEntry {
    HistoryEntry {
        key: claim.key.clone(),
        sequence: claim.sequence,
        at: now,
        event: event.to_owned(),
        state: claim.state.name().as_str().to_owned(),
        code: claim.problem.as_ref().map(|problem| problem.code.as_str().to_owned()),
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CertificateFacts, Hostname};

    const NOW: &str = "2026-11-25T12:00:00Z";

    fn at(hours: i64) -> Timestamp {
        let now: Timestamp = NOW.parse().unwrap();
        now.checked_add(jiff::SignedDuration::from_hours(hours)).unwrap()
    }

    fn claim(renews: Option<i64>, ca: CaChoice, challenge: ChallengeWay, down_since: Option<i64>) -> Claim {
        let key = ClaimKey { hostname: Hostname::parse_name("shop.brand.com").unwrap(), tenant: TenantId::parse("t1").unwrap() };
        let (id, token) = (ClaimId::parse("c1").unwrap(), OwnershipToken::parse("np-1").unwrap());
        let registered = register(key, id, token, None, &LookSchedule::default(), at(-100));
        let plan = OrderPlan { challenge, replaces: None, ca };
        let attempt =
            Attempt { started_at: at(0), csr: String::new(), sealed_key: String::new(), spki_sha256: String::new(), order_url: None, plan };
        let issuance = Issuance { attempt: Some(attempt), ca, down_since: down_since.map(at), ..Issuance::new(at(0)) };
        let state = match renews {
            None => State::Issuing { proof: Proof::RoutingRecord, issuance },
            Some(hours_left) => State::Active {
                proof: Proof::RoutingRecord,
                certificate: CertificateFacts {
                    version: SiteVersion(1),
                    serial: "01".into(),
                    spki_sha256: String::new(),
                    not_before: at(-1000),
                    not_after: at(hours_left),
                    ari_id: None,
                    ca: CaChoice::First,
                },
                renewed: false,
                publication: Publication::Done { version: SiteVersion(1), at: at(-999) },
                renewal: Renewal { due_at: at(0), window_poll: None, window: None, issuance },
                health_look: at(1),
            },
        };
        let unavailable = || IssueError::Unavailable { retry_after: None, detail: "503".into() };
        let problem = down_since.map(|hours| {
            let finding = unavailable().finding(&Hostname::parse_name("shop.brand.com").unwrap(), &ChallengeWay::Http01).unwrap();
            finding.into_problem(None, at(hours), at(0))
        });
        Claim { state, problem, ..registered.claims[0].item.clone() }
    }

    #[test]
    fn orders_turn_to_the_second_ca_only_when_the_first_cannot_be_waited_for_and_back_after_any_failure() {
        use CaChoice::{First, Second};
        let (http, dns) = (ChallengeWay::Http01, ChallengeWay::Dns01 { name: "c1.acme.edge.saas.net".into() });
        let down = || IssueError::Unavailable { retry_after: None, detail: "503".into() };
        let limited = |hours: u64| IssueError::RateLimited { retry_after: Some(Duration::from_secs(hours * 3600)), detail: "429".into() };
        let refused = || IssueError::ChallengeFailed { detail: "404".into() };
        let not_yet = || IssueError::NotYet { retry_after: None };
        let both = Failover::default();
        let apart = Failover { http_01: false, ..both };
        for (what, claim, error, failover, expected) in [
            ("down a moment", claim(None, First, http.clone(), None), down(), Some(both), First),
            ("down an hour", claim(None, First, http.clone(), Some(-1)), down(), Some(both), Second),
            ("down an hour, no second", claim(None, First, http.clone(), Some(-1)), down(), None, First),
            ("down an hour, other key", claim(None, First, http.clone(), Some(-1)), down(), Some(apart), First),
            ("down an hour, other key, delegated", claim(None, First, dns, Some(-1)), down(), Some(apart), Second),
            ("a new name, a short limit", claim(None, First, http.clone(), None), limited(1), Some(both), First),
            ("a new name, a long limit", claim(None, First, http.clone(), None), limited(2), Some(both), Second),
            ("a renewal with time", claim(Some(30 * 24), First, http.clone(), None), limited(24), Some(both), First),
            ("a renewal without", claim(Some(4 * 24), First, http.clone(), None), limited(25), Some(both), Second),
            ("the customer's to mend", claim(None, First, http.clone(), Some(-1)), refused(), Some(both), First),
            ("the second at work", claim(None, Second, http.clone(), Some(-1)), not_yet(), Some(both), Second),
            ("the second fails", claim(None, Second, http.clone(), Some(-1)), refused(), Some(both), First),
            ("the second is down, too", claim(None, Second, http, Some(-1)), down(), Some(both), First),
        ] {
            assert_eq!(next_ca(&claim, &error, failover.as_ref(), at(0)), expected, "{what}");
            let policy = IssuancePolicy { failover, ..IssuancePolicy::default() };
            let change = record_refusal(&claim, &error, &policy, at(0)).unwrap();
            let after = change.claims[0].item.issuance().unwrap();
            let before = claim.issuance().unwrap().ca;
            assert_eq!(after.ca, expected, "{what}");
            assert!(after.attempt.is_none() || before == expected, "{what}: an order is never resumed at the other CA");
            let look =
                LastLook { at: at(0), proof: None, routing: Routing::OurTarget, delegation: Delegation::None, forbidden: Vec::new() };
            let zone = ZoneSettings {
                zone: Hostname::parse_name("edge.saas.net").unwrap(),
                txt_prefix: "_nameplate".into(),
                edge_addresses: Vec::new(),
                issuers: Vec::new(),
            };
            assert_eq!(plan_order(&change.claims[0].item, &look, &zone).unwrap().ca, expected, "{what}");
        }
    }

    #[test]
    fn only_the_ca_that_issued_a_certificate_is_told_that_it_is_replaced() {
        let look = LastLook { at: at(0), proof: None, routing: Routing::OurTarget, delegation: Delegation::None, forbidden: Vec::new() };
        let zone = ZoneSettings {
            zone: Hostname::parse_name("edge.saas.net").unwrap(),
            txt_prefix: "_np".into(),
            edge_addresses: Vec::new(),
            issuers: Vec::new(),
        };
        for (ca, replaces) in [(CaChoice::First, Some("a.b".to_owned())), (CaChoice::Second, None)] {
            let mut claim = claim(Some(24), ca, ChallengeWay::Http01, None);
            if let State::Active { certificate, .. } = &mut claim.state {
                certificate.ari_id = Some("a.b".into());
            }
            assert_eq!(plan_order(&claim, &look, &zone).unwrap().replaces, replaces);
        }
    }
}
