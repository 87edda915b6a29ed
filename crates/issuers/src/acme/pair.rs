//! Two CAs as one issuer: each move goes to the CA that the claim's record names.
//!
//! Arrives: moves with the choice that `domains` made. Leaves: what that CA answers. Goes wrong: a choice of a second CA that is no longer
//! configured ends its order, so that the next one goes to the first.

use std::sync::Arc;

use async_trait::async_trait;
use domains::{
    Attempt, CaChoice, ChallengeKind, ClaimKey, Hostname, IssueError, Issued, Issuer, OrderPlan, PreparedKey, RenewalWindow, ZoneSettings,
};

use super::AcmeIssuer;

/// The CA that certificates come from, and the one to turn to meanwhile.
pub struct CaPair {
    first: Arc<dyn Issuer>,
    second: Option<Arc<dyn Issuer>>,
}

impl CaPair {
    /// Puts them together. Both must seal keys to the same edge.
    pub fn new(first: Arc<dyn Issuer>, second: Option<Arc<dyn Issuer>>) -> Self {
        Self { first, second }
    }

    fn chosen(&self, ca: CaChoice) -> Option<&dyn Issuer> {
        match ca {
            CaChoice::First => Some(self.first.as_ref()),
            CaChoice::Second => self.second.as_deref(),
        }
    }
}

/// The zone with the CAs as CAA records would name them, our account at each. A second CA whose account has a key of its own is shown no
/// http-01 challenge, since the edge answers with the first one's.
pub fn named_in(first: &AcmeIssuer, second: Option<&AcmeIssuer>, zone: &ZoneSettings) -> ZoneSettings {
    let mut zone = zone.clone();
    for ca in &mut zone.issuers {
        let account = match ca.ca {
            CaChoice::First => Some(first),
            CaChoice::Second => second,
        };
        ca.account_uri = account.map(|issuer| issuer.account_url().to_owned());
        if account.is_some_and(|issuer| issuer.thumbprint() != first.thumbprint()) {
            ca.methods.retain(|method| method != ChallengeKind::Http01.as_str());
        }
    }
    zone
}

fn not_configured() -> IssueError {
    IssueError::OrderDead { detail: "there is no second CA in the configuration any more".into() }
}

#[async_trait]
impl Issuer for CaPair {
    fn prepare(&self, key: &ClaimKey) -> Result<PreparedKey, IssueError> {
        self.first.prepare(key)
    }

    async fn order(&self, hostname: &Hostname, plan: &OrderPlan) -> Result<String, IssueError> {
        self.chosen(plan.ca).ok_or_else(not_configured)?.order(hostname, plan).await
    }

    async fn complete(&self, hostname: &Hostname, order_url: &str, attempt: &Attempt) -> Result<Issued, IssueError> {
        self.chosen(attempt.plan.ca).ok_or_else(not_configured)?.complete(hostname, order_url, attempt).await
    }

    async fn renewal_window(&self, ca: CaChoice, ari_id: &str) -> Result<Option<RenewalWindow>, IssueError> {
        match self.chosen(ca) {
            Some(issuer) => issuer.renewal_window(ca, ari_id).await,
            // Its dates decide when it is renewed, at the first.
            None => Ok(None),
        }
    }
}
