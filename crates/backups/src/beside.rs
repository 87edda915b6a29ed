//! What a backup holds beside the names.
//!
//! Arrives: webhooks, open imports, the secret of `ask`, API keys, all as of the backup. Leaves: what is still right to do by itself. Goes wrong: a
//! document that does not read.
//!
//! Nothing outside the store tells what became of them since. An endpoint that was removed must hear nothing more, and an import that ended
//! must not register again what was removed after it: so both stop, and are told with their numbers to whoever can know. Nothing is lost by
//! waiting: the feed is a webhook's backlog, and an import's lines are kept. The path of `ask` stays, unless the operator says otherwise: it
//! tells only what any handshake tells, and a new one would cut off a Caddy that still serves.

use domains::{
    Documents, StoreError, Timestamp,
    webhooks::{MAX_WEBHOOKS, PROGRESS_KIND, Progress, WEBHOOKS_KIND, WISHES_KIND, Webhook},
};
use register_domain::{ask_made_at, forget_ask_secret, stop_imports};
use serde::{Serialize, de::DeserializeOwned};
use storage::local::LocalHome;

use crate::{Restore, RestoreError, Restored};

/// A webhook that is told nothing until somebody says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PausedWebhook {
    /// Its name.
    pub id: String,
    /// Where events would be sent.
    pub url: String,
}

pub(crate) async fn carry_on(home: &LocalHome, asked: &Restore<'_>, now: Timestamp, made: &mut Restored) -> Result<(), RestoreError> {
    if !asked.keep_webhooks {
        made.webhooks = pause_webhooks(home, made.taken_at, now).await?;
    }
    let why = format!(
        "stopped: restored from the backup of {}, after which this line may have been registered and removed; send the same list again to go on",
        made.taken_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    );
    made.imports = stop_imports(home, &why, now).await?;
    if asked.new_ask_secret {
        forget_ask_secret(home).await?;
    }
    made.ask_made_at = ask_made_at(home).await?;
    Ok(())
}

async fn pause_webhooks(home: &LocalHome, taken_at: Timestamp, now: Timestamp) -> Result<Vec<PausedWebhook>, RestoreError> {
    let why = format!(
        "restored from the backup of {}; told on once `nameplate webhooks redeliver` says so",
        taken_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    );
    let mut paused = Vec::new();
    for found in home.documents(WEBHOOKS_KIND, None, MAX_WEBHOOKS).await? {
        let webhook: Webhook = read(WEBHOOKS_KIND, &found.body)?;
        // A redelivery that was asked for before the backup would enable it.
        if let Some(wish) = home.document(WISHES_KIND, &webhook.id).await? {
            home.delete_document(WISHES_KIND, &webhook.id, wish.version).await?;
        }
        let Some(known) = home.document(PROGRESS_KIND, &webhook.id).await? else { continue };
        let mut progress: Progress = read(PROGRESS_KIND, &known.body)?;
        progress.pause(&why, now);
        let body = serde_json::to_string(&progress).map_err(|error| StoreError::Defect { detail: error.to_string() })?;
        home.put_document(PROGRESS_KIND, &webhook.id, &body, Some(known.version)).await?;
        paused.push(PausedWebhook { id: webhook.id, url: webhook.url });
    }
    Ok(paused)
}

fn read<T: DeserializeOwned>(kind: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|error| StoreError::Defect { detail: format!("a {kind} does not read: {error}") })
}
