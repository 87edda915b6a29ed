//! The receiving side of a home: who reads the change feed and the step queues.
//!
//! Arrives: what [`DomainTable::commit`](domains::DomainTable::commit) and [`StepQueue::send`](domains::StepQueue::send) left. Leaves:
//! records and messages, each at least once, in any order. Goes wrong: whatever is not acknowledged or deleted comes again.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use domains::{Claim, Nudge, Step, StoreError};

/// The most messages one call returns, and the most dead letters one page holds.
///
/// Source: SQS `ReceiveMessage`, docs.aws.amazon.com/AWSSimpleQueueService (read 2026-11).
pub const MAX_RECEIVED: usize = 10;

/// The longest a received message stays invisible.
///
/// Source: SQS visibility timeout, docs.aws.amazon.com/AWSSimpleQueueService (read 2026-11).
pub const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 3600);

/// One committed claim, as the change feed shows it.
#[derive(Clone, PartialEq)]
pub struct FeedRecord {
    /// Names this delivery when it is acknowledged. Says nothing about order between claims.
    pub sequence: u64,
    /// The claim as committed, in the form it is stored in.
    pub image: serde_json::Value,
}

impl FeedRecord {
    /// Reads the claim.
    ///
    /// # Errors
    /// [`StoreError::Defect`] with the record's number, when the image is not a claim.
    pub fn claim(&self) -> Result<Claim, StoreError> {
        serde::Deserialize::deserialize(&self.image)
            .map_err(|error| StoreError::Defect { detail: format!("feed record {} is not a claim: {error}", self.sequence) })
    }
}

impl fmt::Debug for FeedRecord {
    // The image may hold a sealed key, which has no business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FeedRecord").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// Reads the change feed. One consumer at a time: two would be shown the same records.
#[async_trait]
pub trait FeedConsumer: Send + Sync {
    /// Up to `max` records that were not acknowledged yet, waiting up to `wait` for the first; empty when there was none.
    ///
    /// A record that is not acknowledged is shown again by the next call, and may be shown again after it was acknowledged.
    async fn next_batch(&self, max: usize, wait: Duration) -> Result<Vec<FeedRecord>, StoreError>;

    /// Takes these records off the feed. One that is not there any more is no failure.
    async fn acknowledge(&self, sequences: &[u64]) -> Result<(), StoreError>;
}

/// What proves to a queue that a message was received.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The queue it was received from.
    pub step: Step,
    /// The queue's own words.
    pub handle: String,
}

/// One message, received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message's name; the same at every delivery.
    pub id: String,
    /// What deletes this delivery.
    pub receipt: Receipt,
    /// The nudge as JSON.
    pub body: String,
    /// How often it was received, this time included.
    pub receive_count: u32,
}

impl Message {
    /// Reads the nudge.
    ///
    /// # Errors
    /// [`StoreError::Defect`] with the message's id, when the body is not a nudge.
    pub fn nudge(&self) -> Result<Nudge, StoreError> {
        serde_json::from_str(&self.body)
            .map_err(|error| StoreError::Defect { detail: format!("message {} is not a nudge: {error}", self.id) })
    }
}

/// Receives nudges.
#[async_trait]
pub trait QueueConsumer: Send + Sync {
    /// Up to `max` messages (at most [`MAX_RECEIVED`]), waiting up to `wait` for the first; empty when there was none.
    ///
    /// A message received stays invisible for `visibility` (at most [`MAX_VISIBILITY`]) and comes again unless it is deleted by then. One
    /// that came too often goes to the dead letters instead.
    async fn receive(&self, step: Step, max: usize, visibility: Duration, wait: Duration) -> Result<Vec<Message>, StoreError>;

    /// Deletes the message. Deletes nothing, and is no failure, when the message was received again since.
    async fn delete(&self, receipt: &Receipt) -> Result<(), StoreError>;

    /// Shows the message again after this long, counted from now. Changes nothing when the message was received again since.
    async fn change_visibility(&self, receipt: &Receipt, visibility: Duration) -> Result<(), StoreError>;
}

/// A message that was received too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The message's name.
    pub id: String,
    /// The queue it came from.
    pub step: Step,
    /// The nudge as JSON.
    pub body: String,
    /// How often it was received.
    pub receive_count: u32,
}

/// The messages that nobody could work on, for the operator.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// How many there are for this step.
    async fn count_dead(&self, step: Step) -> Result<u64, StoreError>;

    /// Some of them, at most `limit`, the oldest first where the home knows.
    async fn dead_letters(&self, step: Step, limit: usize) -> Result<Vec<DeadLetter>, StoreError>;

    /// Sends all of them to their queue again, counted from the start; says how many.
    async fn redrive(&self, step: Step) -> Result<u64, StoreError>;
}
