//! Turns changes of the table into nudges.
//!
//! Arrives: records of the table's stream, at least once, in no order across items. Leaves: nudges on the step queues. Goes wrong: a queue
//! that cannot be reached or a record that does not read; the first such record is reported, and the stream starts again from it.

use std::sync::Arc;

use aws_lambda_events::event::{
    dynamodb::{Event, EventRecord},
    streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse},
};
use domains::{Claim, Clock, Dispatch, StepQueue, dispatches};

/// The attribute that tells the table's items apart, and its value for claims.
pub const KIND: (&str, &str) = ("kind", "claim");

/// The function's parts.
pub struct RouteChanges {
    /// Where nudges go.
    pub queue: Arc<dyn StepQueue>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl RouteChanges {
    /// Sends the nudges that the changed claims give rise to, and reports the first record that failed.
    pub async fn handle(&self, event: Event) -> DynamoDbEventResponse {
        let mut nudges = Vec::new();
        let mut failed = None;
        for record in &event.records {
            match self.read(record) {
                Ok(found) => nudges.extend(found),
                // Those before it are sent; the stream starts again from this one.
                Err(why) => {
                    failed = Some((record, why));
                    break;
                }
            }
        }
        if let Err(error) = self.queue.send(&nudges).await {
            failed = event.records.first().map(|first| (first, error.to_string()));
        }
        let mut response = DynamoDbEventResponse::default();
        if let Some((record, why)) = failed {
            tracing::error!(step = "route-changes", why, sequence = record.change.sequence_number.as_deref(), "a change was not routed");
            // Without a sequence number the whole batch comes again; an empty one would say the same less clearly.
            let mut failure = DynamoDbBatchItemFailure::default();
            failure.item_identifier = record.change.sequence_number.clone();
            response.batch_item_failures.push(failure);
        }
        response
    }

    fn read(&self, record: &EventRecord) -> Result<Vec<Dispatch>, String> {
        let image = &record.change.new_image;
        let is_claim = matches!(image.get(KIND.0), Some(serde_dynamo::AttributeValue::S(kind)) if kind == KIND.1);
        if !is_claim {
            return Ok(Vec::new());
        }
        let claim: Claim = serde_dynamo::from_item(image.clone()).map_err(|error| format!("the claim does not read: {error}"))?;
        Ok(dispatches(&claim, self.clock.now()))
    }
}
