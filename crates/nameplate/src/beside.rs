//! What ticks beside the pipeline: imports and webhooks.
//!
//! Arrives: the running pipeline, the API, the store. Leaves: both ticking until the pipeline stops. Goes wrong: a root certificate for
//! webhooks that does not read.

use std::{sync::Arc, time::Duration};

use deliver_events::{DeliverEvents, HttpsSender};
use domains::Clock;
use import_domains::ImportDomains;
use pipeline::Running;
use register_domain::Api;

use crate::{config::WebhookSettings, files, home::Home};

/// How long an import waits at most before it is looked at.
const IMPORTS_EVERY: Duration = Duration::from_millis(500);

/// Starts both; what went wrong, in words.
pub(crate) fn start(
    running: &mut Running,
    settings: &WebhookSettings,
    home: &Home,
    api: Arc<Api>,
    clock: Arc<dyn Clock>,
) -> Result<(), String> {
    running.tick(Arc::new(ImportDomains { api, budget: import_domains::BUDGET }), IMPORTS_EVERY);
    let Some(interval) = settings.interval else { return Ok(()) };
    let root = match &settings.root {
        Some(path) => {
            let found = files::read(path).map_err(|error| error.to_string())?;
            Some(found.ok_or_else(|| format!("{} does not exist", path.display()))?)
        }
        None => None,
    };
    let sender = HttpsSender::new(root.as_deref(), settings.allow_private).map_err(|error| telemetry::error_chain(&error))?;
    let deliverer = DeliverEvents {
        documents: home.documents.clone(),
        events: home.events.clone(),
        sender: Arc::new(sender),
        clock,
        budget: deliver_events::BUDGET,
    };
    running.tick(Arc::new(deliverer), interval);
    Ok(())
}
