//! What every queue-driven function does alike: read a batch of nudges, take each step under a deadline, tell SQS which to send again.
//!
//! Arrives: an SQS event. Leaves: a partial batch response. Goes wrong: a message that does not parse or a step that panics is reported as
//! failed, so that its queue's dead letters and a person see it; it never takes the rest of the batch with it.

mod looks;
pub mod settings;

pub use looks::keep_look;

use std::{panic::AssertUnwindSafe, time::Duration};

use async_trait::async_trait;
use aws_lambda_events::event::sqs::{SqsBatchResponse, SqsEvent, SqsMessage};
use domains::{CommitError, Nudge, Step, StoreError};
use futures_util::{FutureExt, StreamExt, stream};
use tracing::Instrument;

/// How many messages of one batch are worked on at once: a batch is at most ten (SQS, read 2026-11).
const CONCURRENCY: usize = 10;

/// What a step did with one nudge. Each is final for the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The record moved on, or a look was recorded.
    Recorded(&'static str),
    /// There was nothing to do: early, late, repeated, or someone else was first.
    Nothing(&'static str),
}

/// Why a step could not finish. The message comes back.
#[derive(Debug, thiserror::Error)]
pub enum StepFailure {
    /// Time may mend it.
    #[error("{0}")]
    Retry(String),
    /// Ours to mend; after its redeliveries the message is a dead letter.
    #[error("{0}")]
    Defect(String),
}

impl From<StoreError> for StepFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => Self::Retry(error.to_string()),
            StoreError::Defect { .. } => Self::Defect(error.to_string()),
        }
    }
}

impl From<CommitError> for StepFailure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict => Self::Retry("other writers were first each time".into()),
            CommitError::Store(error) => error.into(),
        }
    }
}

/// One step of the walk: load, decide, act, record, answer.
#[async_trait]
pub trait StepHandler: Send + Sync {
    /// Which step it is.
    fn step(&self) -> Step;

    /// How long one nudge may take.
    fn deadline(&self) -> Duration;

    /// Takes the step for one claim, if it is due.
    async fn take(&self, nudge: &Nudge) -> Result<Outcome, StepFailure>;
}

/// What a clock drives rather than a queue.
#[async_trait]
pub trait Ticker: Send + Sync {
    /// What it is called in logs.
    fn name(&self) -> &'static str;

    /// Does what can be done now, within a time of its own, and says whether more could be done at once.
    ///
    /// # Errors
    /// [`StoreError`] when the home cannot be asked; the next tick makes up for it.
    async fn tick(&self) -> Result<bool, StoreError>;
}

/// Takes the step for each message of a batch and reports the failed ones.
pub async fn handle_batch(handler: &dyn StepHandler, event: SqsEvent) -> SqsBatchResponse {
    let answers: Vec<Option<String>> =
        stream::iter(event.records).map(|message| take_message(handler, message)).buffer_unordered(CONCURRENCY).collect().await;
    respond(answers.into_iter().flatten())
}

/// The partial batch response that names these messages as failed.
pub fn respond(failed: impl IntoIterator<Item = String>) -> SqsBatchResponse {
    let mut response = SqsBatchResponse::default();
    for id in failed {
        response.add_failure(id);
    }
    response
}

/// Reads a message's nudge.
///
/// # Errors
/// [`StepFailure::Defect`] when the body is not a nudge.
pub fn read_nudge(message: &SqsMessage) -> Result<Nudge, StepFailure> {
    let body = message.body.as_deref().unwrap_or_default();
    serde_json::from_str(body).map_err(|error| StepFailure::Defect(format!("the message is not a nudge: {error}")))
}

/// The id SQS wants to hear about a failed message.
///
/// An empty identifier would fail the whole batch, so a message without one is reported as acknowledged: it cannot be named, and a message
/// without an id does not exist on SQS.
pub fn message_id(message: &SqsMessage) -> Option<String> {
    message.message_id.clone().filter(|id| !id.is_empty())
}

/// Runs one step for one nudge under the handler's deadline, with its span and its one outcome line.
pub async fn take_nudge(handler: &dyn StepHandler, nudge: &Nudge) -> Result<Outcome, StepFailure> {
    let step = handler.step().as_str();
    let span = tracing::info_span!("step", step, hostname = %nudge.hostname, tenant = %nudge.tenant, version = nudge.version);
    async {
        let started = std::time::Instant::now();
        let work = AssertUnwindSafe(handler.take(nudge)).catch_unwind();
        let result = match tokio::time::timeout(handler.deadline(), work).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StepFailure::Defect("the step panicked".into())),
            Err(_) => Err(StepFailure::Retry("the step ran out of time".into())),
        };
        let ms = started.elapsed().as_millis();
        match &result {
            Ok(Outcome::Recorded(what)) => tracing::info!(outcome = what, ms, "recorded"),
            Ok(Outcome::Nothing(why)) => tracing::debug!(outcome = why, ms, "nothing to do"),
            Err(StepFailure::Retry(why)) => tracing::warn!(outcome = "retry", why, ms, "will be tried again"),
            Err(StepFailure::Defect(why)) => tracing::error!(outcome = "defect", why, ms, "needs a person"),
        }
        result
    }
    .instrument(span)
    .await
}

async fn take_message(handler: &dyn StepHandler, message: SqsMessage) -> Option<String> {
    let result = match read_nudge(&message) {
        Ok(nudge) => take_nudge(handler, &nudge).await.map(|_| ()),
        Err(defect) => {
            tracing::error!(step = handler.step().as_str(), why = %defect, "needs a person");
            Err(defect)
        }
    };
    result.err().and_then(|_| message_id(&message))
}
