//! Looks at DNS for one claim and records what it means.
//!
//! Arrives: a nudge from `verify-ownership`. Leaves: the claim, one version on: proved, routed, or with a problem and the next look. Goes
//! wrong: silent or lying DNS (we look again), records that are not there (we ask the customer).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use domains::{
    Claim, ClaimKey, Clock, CommitError, Documents, DomainTable, Judgement, LookSchedule, Nudge, OwnershipLookup, State, Step,
    ZoneSettings, decide, judge,
};
use steps::{Outcome, StepFailure, StepHandler, keep_look};

/// How often one nudge decides anew after other writers were first.
const RACES: usize = 4;

/// The step's parts.
pub struct VerifyOwnership {
    /// Claims and owners.
    pub table: Arc<dyn DomainTable>,
    /// Asks DNS.
    pub lookup: Arc<dyn OwnershipLookup>,
    /// Keeps what was found, for people who ask why.
    pub documents: Arc<dyn Documents>,
    /// Where targets and proofs are.
    pub zone: ZoneSettings,
    /// When to look next.
    pub looks: LookSchedule,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

#[async_trait]
impl StepHandler for VerifyOwnership {
    fn step(&self) -> Step {
        Step::VerifyOwnership
    }

    fn deadline(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn take(&self, nudge: &Nudge) -> Result<Outcome, StepFailure> {
        let key = nudge.key();
        let Some(claim) = self.table.claim(&key).await? else { return Ok(Outcome::Nothing("no such claim")) };
        if !claim.is_due(Step::VerifyOwnership, self.clock.now()) {
            return Ok(Outcome::Nothing("not due"));
        }
        let subject = claim.look_subject(&self.zone);
        let looked_at = self.clock.now();
        let look = self.lookup.look(&subject).await;
        let judgement = judge(&look, &subject);
        keep_look(self.documents.as_ref(), &claim, &subject, &look, looked_at).await;
        let looked_for = claim.claim_id.clone();
        let mut claim = claim;
        for _ in 0..RACES {
            let owner = self.table.owner(&key.hostname).await?;
            let rival = self.rival(&key, owner.as_ref().and_then(|owner| owner.tenant.as_ref())).await?;
            let now = self.clock.now();
            let change = decide::after_look(&claim, owner.as_ref(), rival.as_ref(), &judgement, &self.looks, looked_at, now);
            let Some(change) = change else { return Ok(Outcome::Nothing("nothing to look for in this state")) };
            match self.table.commit(&change).await {
                Ok(()) => {
                    self.return_to_service(&key, &judgement).await?;
                    return Ok(Outcome::Recorded(judgement.finding.as_ref().map_or("looked", |finding| finding.code.as_str())));
                }
                Err(CommitError::Store(error)) => return Err(error.into()),
                Err(CommitError::Conflict) => {}
            }
            // Someone wrote this claim, its owner or its rival meanwhile. What was seen still holds, unless the claim is another one now.
            match self.table.claim(&key).await? {
                Some(now) if now.claim_id == looked_for && now.is_due(Step::VerifyOwnership, self.clock.now()) => claim = now,
                _ => return Ok(Outcome::Nothing("someone else was first")),
            }
        }
        Err(CommitError::Conflict.into())
    }
}

impl VerifyOwnership {
    /// A claim restored from a backup is served again once its records were seen. Losing a race is no harm: the next look does it.
    async fn return_to_service(&self, key: &ClaimKey, judgement: &Judgement) -> Result<(), StepFailure> {
        let Some(claim) = self.table.claim(key).await?.filter(|claim| decide::is_seen_again(claim, judgement)) else { return Ok(()) };
        let State::Active { certificate, .. } = &claim.state else { return Ok(()) };
        let stored = self.table.certificate(&key.hostname, certificate.version).await?;
        let owner = self.table.owner(&key.hostname).await?;
        match decide::resume(&claim, owner.as_ref(), stored.as_ref(), self.clock.now()) {
            Some(change) => match self.table.commit(&change).await {
                Err(CommitError::Store(error)) => Err(error.into()),
                Ok(()) | Err(CommitError::Conflict) => Ok(()),
            },
            None => Ok(()),
        }
    }

    async fn rival(&self, key: &ClaimKey, owner: Option<&domains::TenantId>) -> Result<Option<Claim>, StepFailure> {
        match owner.filter(|tenant| **tenant != key.tenant) {
            Some(tenant) => {
                let rival = ClaimKey { hostname: key.hostname.clone(), tenant: tenant.clone() };
                Ok(self.table.claim(&rival).await?)
            }
            None => Ok(None),
        }
    }
}
