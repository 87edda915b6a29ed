//! Works off imports: hostnames that came many at a time are registered as if each had come alone.
//!
//! Arrives: a tick. Leaves: registered domains, and the progress that `GET /v1/imports/{id}` shows. Goes wrong: a store that cannot be
//! asked; the next tick takes the same lines. Two at once do no harm: who keeps a chunk's outcome first was first.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use domains::StoreError;
use register_domain::{Api, Worked};
use steps::Ticker;

/// How long one tick may take: well below a minute, at which a schedule sends the next.
pub const BUDGET: Duration = Duration::from_secs(45);

/// The parts.
pub struct ImportDomains {
    /// Registers each hostname, by the code that answers `POST /v1/domains`.
    pub api: Arc<Api>,
    /// How long one tick may take.
    pub budget: Duration,
}

impl ImportDomains {
    /// Takes the schedule's event, which says nothing that the open imports do not say better, and ticks.
    ///
    /// # Errors
    /// [`StoreError`] when the home cannot be asked.
    pub async fn handle(&self, _event: serde_json::Value) -> Result<Worked, StoreError> {
        let worked = self.api.work_imports(self.budget).await?;
        if worked.lines > 0 {
            tracing::info!(step = self.name(), lines = worked.lines, more = worked.more, "ticked");
        }
        Ok(worked)
    }
}

#[async_trait]
impl Ticker for ImportDomains {
    fn name(&self) -> &'static str {
        "import-domains"
    }

    async fn tick(&self) -> Result<bool, StoreError> {
        Ok(self.handle(serde_json::Value::Null).await?.more)
    }
}
