//! Obtains one certificate per period, resumable after a crash at any point.
//!
//! Arrives: a nudge from `issue-certificate`. Leaves: the claim `Active` with a checked certificate recorded, or a problem and the next
//! attempt. Goes wrong: the CA asks to wait (we wait), cannot validate (we ask the customer), refuses us (the operator is told). Key, CSR and
//! order URL are stored before the step that needs them, so that a second worker continues the same order.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use async_trait::async_trait;
use domains::{
    Attempt, CaChoice, Change, Claim, ClaimKey, Clock, CommitError, Documents, DomainTable, IssuancePolicy, IssueError, Issuer, LastLook,
    LedgerMove, Limits, LookSchedule, Nudge, OrderPlan, OwnershipLookup, Problem, ProblemCode, Reserved, State, Step, ZoneSettings, decide,
    judge, ledger::CaLimits,
};
use steps::{Outcome, StepFailure, StepHandler, keep_look};

/// A look this recent is not repeated before an order: the one that proved the name has just been made.
const FRESH_LOOK: Duration = Duration::from_secs(600);

/// How often one write is decided anew after other writers were first.
const RACES: usize = 5;

/// The step's parts.
pub struct IssueCertificate {
    /// Claims, owners and certificates.
    pub table: Arc<dyn DomainTable>,
    /// The CA.
    pub issuer: Arc<dyn Issuer>,
    /// Asks DNS before an order is made.
    pub lookup: Arc<dyn OwnershipLookup>,
    /// Keeps what was found, for people who ask why.
    pub documents: Arc<dyn Documents>,
    /// Where targets and proofs are.
    pub zone: ZoneSettings,
    /// When to look next.
    pub looks: LookSchedule,
    /// Lease and backoff.
    pub policy: IssuancePolicy,
    /// Where the ledger of the CA's limits is kept.
    pub limits: Arc<dyn Limits>,
    /// What the CA allows.
    pub ca_limits: CaLimits,
    /// Whether something serves the answer zone, so that dns-01 challenges can be answered.
    pub has_answer_zone: bool,
    /// What the second CA allows; `None` without one.
    pub second_ca_limits: Option<CaLimits>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl StepHandler for IssueCertificate {
    fn step(&self) -> Step {
        Step::IssueCertificate
    }

    fn deadline(&self) -> Duration {
        // A worker whose lease ran out may share its order with the next one; it must not outlive it.
        self.policy.lease
    }

    async fn take(&self, nudge: &Nudge) -> Result<Outcome, StepFailure> {
        let key = nudge.key();
        let Some(claim) = self.table.claim(&key).await? else { return Ok(Outcome::Nothing("no such claim")) };
        let now = self.clock.now();
        let Some(issuance) = claim.issuance() else { return Ok(Outcome::Nothing("nothing to issue in this state")) };
        if !claim.is_due(Step::IssueCertificate, now) {
            return Ok(Outcome::Nothing("not due"));
        }
        if issuance.next_look > now {
            return self.ask_for_window(&claim).await;
        }
        if issuance.attempt.as_ref().is_some_and(|attempt| attempt.order_url.is_some()) {
            return self.issue(claim, None).await;
        }
        // Before each order; one that waited for its turn has waited long enough for the name to be led elsewhere.
        if let Some(planned) = self.recent_look(&claim).and_then(|seen| self.planned(&claim, seen.clone())) {
            return self.issue(claim, Some(planned)).await;
        }
        let claim = match self.wait_without_looking(claim).await? {
            ControlFlow::Break(waits) => return Ok(waits),
            ControlFlow::Continue(claim) => claim,
        };
        let subject = claim.look_subject(&self.zone);
        let look = self.lookup.look(&subject).await;
        let judgement = judge(&look, &subject);
        let now = self.clock.now();
        keep_look(self.documents.as_ref(), &claim, &subject, &look, now).await;
        match self.planned(&claim, LastLook::of(&judgement, now)) {
            Some(planned) if judgement.obstacle.is_none() => self.issue(claim, Some(planned)).await,
            _ => {
                let why = judgement.finding.as_ref().map_or("not routed here", |finding| finding.code.as_str());
                self.record_once(decide::postpone_order(&claim, &judgement, &self.looks, now), why).await
            }
        }
    }
}

impl IssueCertificate {
    /// The look that proved the name, while nothing has gone wrong since.
    fn recent_look<'c>(&self, claim: &'c Claim) -> Option<&'c LastLook> {
        let first_certificate = matches!(claim.state, State::Issuing { .. });
        let age = |look: &LastLook| Duration::try_from(self.clock.now().duration_since(look.at)).unwrap_or_default();
        claim.last_look.as_ref().filter(|look| first_certificate && claim.problem.is_none() && age(look) < FRESH_LOOK)
    }

    /// Books the turn of an order that the CA's limits keep waiting anyway, without a look at DNS: that is made when its turn comes, right before
    /// the order. Goes on with the claim where nothing keeps it, or where DNS is what it waits for: somebody may have mended that, and asked.
    async fn wait_without_looking(&self, claim: Claim) -> Result<ControlFlow<Outcome, Claim>, StepFailure> {
        let waits_for_dns = |problem: &Problem| problem.code.is_of_a_look() || problem.code == ProblemCode::AtRisk;
        if claim.problem.as_ref().is_some_and(waits_for_dns) {
            return Ok(ControlFlow::Continue(claim));
        }
        let attempt = claim.issuance().and_then(|issuance| issuance.attempt.as_ref());
        // What was last seen is good enough to wait on.
        let foreseen = match (attempt, &claim.last_look) {
            (None, Some(seen)) => decide::plan_order(&claim, seen, &self.zone),
            _ => None,
        };
        let now = self.clock.now();
        let reservation = match (attempt, &foreseen) {
            (Some(attempt), _) => self.limits_at(attempt.plan.ca).reservation(&claim, now),
            (None, Some(plan)) => Some(self.limits_at(plan.ca).foreseen(&claim, plan, now)),
            (None, None) => None,
        };
        let Some(reservation) = reservation else { return Ok(ControlFlow::Continue(claim)) };
        let asked = LedgerMove::Reserve(reservation);
        let items = self.limits.ledger_items(&asked.names()).await?;
        if matches!(asked.decide(&items, now)?, (Reserved::Granted, _)) {
            return Ok(ControlFlow::Continue(claim));
        }
        let prepared = match foreseen.map(|plan| Ok((self.issuer.prepare(&claim.key)?, plan))).transpose() {
            Ok(prepared) => prepared,
            Err(refusal) => return Ok(ControlFlow::Break(self.record_refusal(&claim, None, &refusal).await?)),
        };
        let Some(lease) = decide::lease_issuance(&claim, prepared, &self.policy, now) else { return Ok(ControlFlow::Continue(claim)) };
        match self.table.commit(&lease).await {
            Ok(()) => {}
            Err(CommitError::Conflict) => return Ok(ControlFlow::Break(Outcome::Nothing("someone else was first"))),
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
        let Some((claim, attempt)) = lease.claims.into_iter().next().and_then(|put| attempt_of(put.item)) else {
            return Err(StepFailure::Defect("a leased claim has no attempt".into()));
        };
        // Granted after all, if a place became free meanwhile.
        Ok(self.await_turn(&claim, &attempt).await?.map_or(ControlFlow::Continue(claim), ControlFlow::Break))
    }

    fn planned(&self, claim: &Claim, seen: LastLook) -> Option<(OrderPlan, LastLook)> {
        let plan = decide::plan_order(claim, &seen, &self.zone)?;
        let plan = if self.has_answer_zone { plan } else { decide::without_answer_zone(plan, claim, &seen) };
        Some((plan, seen))
    }

    /// Goes on with the order under way, or makes the one that was `planned`.
    async fn issue(&self, claim: Claim, planned: Option<(OrderPlan, LastLook)>) -> Result<Outcome, StepFailure> {
        let key = claim.key.clone();
        let prepared = match claim.issuance().and_then(|issuance| issuance.attempt.as_ref()) {
            Some(_) => None,
            None => match self.issuer.prepare(&key) {
                Ok(prepared) => Some(prepared),
                Err(refusal) => return self.record_refusal(&claim, None, &refusal).await,
            },
        };
        let now = self.clock.now();
        let lease = match planned {
            Some((plan, seen)) => decide::lease_for_order(&claim, prepared, plan, &seen, &self.policy, now),
            None => decide::lease_issuance(&claim, None, &self.policy, now),
        };
        let Some(lease) = lease else {
            return Ok(Outcome::Nothing("nothing to issue in this state"));
        };
        match self.table.commit(&lease).await {
            Ok(()) => {}
            Err(CommitError::Conflict) => return Ok(Outcome::Nothing("someone else was first")),
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
        let before = claim;
        let Some((claim, attempt)) = lease.claims.into_iter().next().and_then(|put| attempt_of(put.item)) else {
            return Err(StepFailure::Defect("a leased claim has no attempt".into()));
        };
        if before.issuance().is_some_and(|issuance| issuance.attempt.is_some() && issuance.at() != attempt.plan.ca) {
            // What it had waited for is the other CA's.
            self.release(&before).await?;
        }

        let (claim, attempt, order_url) = match &attempt.order_url {
            Some(order_url) => (claim, attempt.clone(), order_url.clone()),
            None => {
                if let Some(waits) = self.await_turn(&claim, &attempt).await? {
                    return Ok(waits);
                }
                let order_url = match self.issuer.order(&key.hostname, &attempt.plan).await {
                    Ok(order_url) => order_url,
                    Err(refusal) => return self.record_refusal(&claim, Some(&attempt), &refusal).await,
                };
                fail::fail_point!("issue.order_answered", |_| std::process::abort());
                let record = |claim: &Claim| decide::record_order(claim, &order_url, &self.policy, self.clock.now());
                match self.write(claim, &attempt, record).await?.and_then(attempt_of) {
                    Some((claim, attempt)) => (claim, attempt, order_url),
                    None => return Ok(Outcome::Nothing("someone else was first")),
                }
            }
        };

        let issued = match self.issuer.complete(&key.hostname, &order_url, &attempt).await {
            Ok(issued) => issued,
            Err(refusal) => return self.record_refusal(&claim, Some(&attempt), &refusal).await,
        };
        fail::fail_point!("issue.chain_fetched", |_| std::process::abort());
        let mut claim = claim;
        for _ in 0..RACES {
            let Some(owner) = self.table.owner(&key.hostname).await? else { return Ok(Outcome::Nothing("the name has no owner")) };
            let change = decide::record_certificate(&claim, &owner, &issued, &self.looks, self.clock.now());
            let Some(change) = change else { return Ok(Outcome::Nothing("the name changed hands")) };
            match self.table.commit(&change).await {
                Ok(()) => return Ok(Outcome::Recorded("certificate recorded")),
                Err(CommitError::Store(error)) => return Err(error.into()),
                Err(CommitError::Conflict) => {}
            }
            match self.same_attempt(&key, &attempt).await? {
                Some(again) => claim = again,
                None => return Ok(Outcome::Nothing("someone else was first")),
            }
        }
        Err(CommitError::Conflict.into())
    }

    /// Reserves what the order needs under the CA's limits; `None` when it is granted, as it is again after a crash.
    async fn await_turn(&self, claim: &Claim, attempt: &Attempt) -> Result<Option<Outcome>, StepFailure> {
        let now = self.clock.now();
        let ca_limits = self.limits_at(attempt.plan.ca);
        let Some(reservation) = ca_limits.reservation(claim, now) else { return Ok(None) };
        let wait = match self.limits.apply(&LedgerMove::Reserve(reservation), now).await? {
            Reserved::Granted => {
                fail::fail_point!("issue.reserved", |_| std::process::abort());
                return Ok(None);
            }
            Reserved::Wait(wait) => wait,
        };
        let limit = ca_limits.told(&wait.bucket);
        let record = |claim: &Claim| decide::await_turn(claim, &wait, &limit, &self.policy, self.clock.now());
        let Some(written) = self.write(claim.clone(), attempt, record).await? else {
            return Ok(Some(Outcome::Nothing("someone else was first")));
        };
        if has_dropped(&written, attempt) {
            // What it has there, if a pause came after its tokens, is the others'.
            self.release(claim).await?;
            return Ok(Some(Outcome::Recorded("turns to the other CA")));
        }
        Ok(Some(Outcome::Recorded("waits for its turn")))
    }

    fn limits_at(&self, ca: CaChoice) -> &CaLimits {
        match ca {
            CaChoice::First => &self.ca_limits,
            CaChoice::Second => self.second_ca_limits.as_ref().unwrap_or(&self.ca_limits),
        }
    }

    /// Tells the ledger what a refusal says about the CA's limits: a wait holds for every worker.
    async fn heed(&self, claim: &Claim, refusal: &IssueError) -> Result<(), StepFailure> {
        let now = self.clock.now();
        let attempt = claim.issuance().and_then(|issuance| issuance.attempt.as_ref());
        let ca_limits = self.limits_at(attempt.map(|attempt| attempt.plan.ca).unwrap_or_default());
        let pause = match refusal {
            IssueError::RateLimited { retry_after, detail } => Some(ca_limits.pause(&claim.key.hostname, *retry_after, detail, now)),
            IssueError::Unavailable { retry_after: Some(wait), detail } => {
                Some(ca_limits.pause(&claim.key.hostname, Some(*wait), detail, now))
            }
            _ => None,
        };
        if let Some(pause) = pause {
            self.limits.apply(&pause, now).await?;
        }
        Ok(())
    }

    /// Gives back what the claim's attempt reserved at its CA and did not use up there.
    async fn release(&self, claim: &Claim) -> Result<(), StepFailure> {
        let Some(attempt) = claim.issuance().and_then(|issuance| issuance.attempt.as_ref()) else { return Ok(()) };
        let now = self.clock.now();
        if let Some(reservation) = self.limits_at(attempt.plan.ca).reservation(claim, now) {
            self.limits.apply(&LedgerMove::Release(reservation), now).await?;
        }
        Ok(())
    }

    async fn ask_for_window(&self, claim: &Claim) -> Result<Outcome, StepFailure> {
        let State::Active { certificate, .. } = &claim.state else { return Ok(Outcome::Nothing("not due")) };
        let Some(ari_id) = &certificate.ari_id else { return Ok(Outcome::Nothing("no renewal information for this certificate")) };
        let now = || self.clock.now();
        match self.issuer.renewal_window(certificate.ca, ari_id).await {
            Ok(window) => self.record_once(decide::record_window(claim, window.as_ref(), now()), "renewal window").await,
            Err(error) => {
                tracing::warn!(%error, "the CA did not tell its renewal window");
                let wait = match error.disposition() {
                    domains::Disposition::Retry { after } => after,
                    _ => None,
                };
                self.record_once(decide::postpone_window(claim, wait, now()), "renewal window unknown").await
            }
        }
    }

    async fn record_once(&self, change: Option<Change>, what: &'static str) -> Result<Outcome, StepFailure> {
        let Some(change) = change else { return Ok(Outcome::Nothing("nothing to record in this state")) };
        match self.table.commit(&change).await {
            Ok(()) => Ok(Outcome::Recorded(what)),
            Err(CommitError::Conflict) => Ok(Outcome::Nothing("someone else was first")),
            Err(CommitError::Store(error)) => Err(error.into()),
        }
    }

    async fn record_refusal(&self, claim: &Claim, attempt: Option<&Attempt>, refusal: &IssueError) -> Result<Outcome, StepFailure> {
        match refusal.disposition() {
            domains::Disposition::Defect => tracing::error!(%refusal, "the CA refuses; a person must look"),
            _ => tracing::warn!(%refusal, "no certificate yet"),
        }
        self.heed(claim, refusal).await?;
        let record = |claim: &Claim| decide::record_refusal(claim, refusal, &self.policy, self.clock.now());
        let Some(attempt) = attempt else { return self.record_once(record(claim), "refused").await };
        let Some(written) = self.write(claim.clone(), attempt, record).await? else {
            return Ok(Outcome::Nothing("someone else was first"));
        };
        // A dead order has not used up what only certificates use up. One that is given up for the other CA may have brought one after all.
        let may_have_issued = refusal.used_a_certificate() || refusal.keeps_the_order() && attempt.order_url.is_some();
        if has_dropped(&written, attempt) && !may_have_issued {
            self.release(claim).await?;
        }
        Ok(Outcome::Recorded("refused"))
    }

    /// Commits what `decide` makes of the claim; if another lane of the claim wrote first, decides anew on what it wrote, as long as the
    /// attempt is still ours. `None` when it is not.
    async fn write(
        &self,
        mut claim: Claim,
        attempt: &Attempt,
        decide: impl Fn(&Claim) -> Option<Change> + Send,
    ) -> Result<Option<Claim>, StepFailure> {
        for _ in 0..RACES {
            let Some(change) = decide(&claim) else { return Ok(None) };
            match self.table.commit(&change).await {
                Ok(()) => return Ok(change.claims.into_iter().next().map(|put| put.item)),
                Err(CommitError::Store(error)) => return Err(error.into()),
                Err(CommitError::Conflict) => {}
            }
            match self.same_attempt(&claim.key, attempt).await? {
                Some(again) => claim = again,
                None => return Ok(None),
            }
        }
        Err(CommitError::Conflict.into())
    }

    async fn same_attempt(&self, key: &ClaimKey, attempt: &Attempt) -> Result<Option<Claim>, StepFailure> {
        let claim = self.table.claim(key).await?;
        Ok(claim.filter(|claim| {
            let theirs = claim.issuance().and_then(|issuance| issuance.attempt.as_ref());
            theirs.is_some_and(|theirs| theirs.spki_sha256 == attempt.spki_sha256)
        }))
    }
}

/// Whether the claim no longer has this attempt.
fn has_dropped(claim: &Claim, attempt: &Attempt) -> bool {
    let theirs = claim.issuance().and_then(|issuance| issuance.attempt.as_ref());
    theirs.is_none_or(|theirs| theirs.spki_sha256 != attempt.spki_sha256)
}

fn attempt_of(claim: Claim) -> Option<(Claim, Attempt)> {
    let attempt = claim.issuance()?.attempt.clone()?;
    Some((claim, attempt))
}
