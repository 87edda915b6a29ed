//! The step queues on SQS, and their dead letters.
//!
//! Arrives: dispatches. Leaves: messages, each at least once, in no promised order. Goes wrong: a batch of which SQS takes a part (the rest is
//! sent again), a delay or an invisibility that a queue could not hold.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::types::{Message as SqsMessage, MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry};
use domains::{Dispatch, Step, StepQueue, StoreError};
use futures_util::{TryStreamExt, future::join_all, stream};
use tokio::time::Instant;

use super::{AwsHome, clients::timeouts, failure};
use crate::{
    checks,
    consumers::{DeadLetter, DeadLetters, MAX_RECEIVED, Message, QueueConsumer, Receipt},
};

/// The most messages of one batch.
///
/// Source: SQS `SendMessageBatch`, docs.aws.amazon.com/AWSSimpleQueueService (read 2026-11).
const BATCH: usize = 10;
/// How many batches are sent at once.
const SENDERS: usize = 8;
/// How often what a batch left out is sent again.
const AGAIN: u32 = 5;
/// The pause before it is sent again; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest wait of one receive.
///
/// Source: SQS long polling, docs.aws.amazon.com/AWSSimpleQueueService (read 2026-11).
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// How long a dead letter is hidden from others who look, while it is looked at.
const PEEK: i32 = 5;
/// How long a dead letter is hidden while it is sent again.
const MOVING: i32 = 60;
/// The most dead letters of one answer.
const MAX_DEAD: usize = 1_000;

/// Whole seconds, rounded up: SQS knows no smaller ones, and nothing may come early.
fn seconds(duration: Duration) -> i32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}

#[async_trait]
impl StepQueue for AwsHome {
    async fn send(&self, dispatches: &[Dispatch]) -> Result<(), StoreError> {
        checks::delays(dispatches)?;
        let mut batches = Vec::new();
        for step in Step::ALL {
            let bodies = dispatches.iter().filter(|dispatch| dispatch.step == *step).map(body).collect::<Result<Vec<_>, _>>()?;
            batches.extend(bodies.chunks(BATCH).map(|some| (self.0.places.queue(*step).to_owned(), some.to_vec())));
        }
        stream::iter(batches.into_iter().map(Ok)).try_for_each_concurrent(SENDERS, |(url, batch)| self.send_batch(url, batch)).await
    }
}

/// A nudge as JSON, and how many seconds it waits.
fn body(dispatch: &Dispatch) -> Result<(String, i32), StoreError> {
    let text = serde_json::to_string(&dispatch.nudge)
        .map_err(|error| StoreError::Defect { detail: format!("the nudge for {} cannot be written: {error}", dispatch.nudge.key()) })?;
    Ok((text, seconds(dispatch.delay)))
}

impl AwsHome {
    async fn send_batch(&self, url: String, mut batch: Vec<(String, i32)>) -> Result<(), StoreError> {
        let mut pause = FIRST_PAUSE;
        let mut words = String::new();
        for _ in 0..AGAIN {
            let entries = batch.iter().enumerate().map(|(number, (body, delay))| {
                SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(body).delay_seconds(*delay).build()
            });
            let entries = entries
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| StoreError::Defect { detail: format!("a batch cannot be put together: {error}") })?;
            let sent = self.0.sqs.send_message_batch().queue_url(&url).set_entries(Some(entries)).send().await;
            let failed = sent.map_err(|error| failure::classify("sending nudges", &error))?.failed;
            let Some(first) = failed.first() else { return Ok(()) };
            words = format!("sending nudges: {} {}", first.code(), first.message().unwrap_or_default());
            if let Some(ours) = failed.iter().find(|entry| entry.sender_fault()) {
                return Err(StoreError::Defect {
                    detail: format!("sending nudges: {} {}", ours.code(), ours.message().unwrap_or_default()),
                });
            }
            let left = failed.iter().filter_map(|entry| entry.id().parse::<usize>().ok()).filter_map(|number| batch.get(number).cloned());
            batch = left.collect();
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Err(StoreError::Unavailable { detail: words })
    }

    /// One receive from any queue.
    async fn receive_from(&self, url: &str, max: usize, visibility: i32, wait: Duration) -> Result<Vec<SqsMessage>, StoreError> {
        let wait = wait.min(LONGEST_WAIT);
        let patient = aws_sdk_sqs::config::Builder::new().timeout_config(timeouts(wait));
        let asked = self
            .0
            .sqs
            .receive_message()
            .queue_url(url)
            .max_number_of_messages(i32::try_from(max.clamp(1, MAX_RECEIVED)).unwrap_or(1))
            .visibility_timeout(visibility)
            .wait_time_seconds(seconds(wait))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .customize()
            .config_override(patient)
            .send()
            .await;
        Ok(asked.map_err(|error| failure::classify("receiving nudges", &error))?.messages.unwrap_or_default())
    }
}

/// What our receipts begin with: SQS has one word for a receipt that is past and for what never was one.
const RECEIPT: &str = "sqs:";

/// The receipt in SQS's own words.
fn handle(receipt: &Receipt) -> Result<&str, StoreError> {
    let handle = receipt.handle.strip_prefix(RECEIPT);
    handle.ok_or_else(|| StoreError::Defect { detail: format!("`{}` is not a receipt", receipt.handle.escape_debug()) })
}

fn message(step: Step, message: SqsMessage) -> Result<Message, StoreError> {
    let count = message.attributes.as_ref().and_then(|all| all.get(&MessageSystemAttributeName::ApproximateReceiveCount));
    let receive_count = count.and_then(|count| count.parse().ok());
    match (message.message_id, message.receipt_handle, receive_count) {
        (Some(id), Some(handle), Some(receive_count)) => {
            let receipt = Receipt { step, handle: format!("{RECEIPT}{handle}") };
            Ok(Message { id, receipt, body: message.body.unwrap_or_default(), receive_count })
        }
        (id, ..) => Err(StoreError::Defect { detail: format!("message {id:?} came without a receipt or a count") }),
    }
}

#[async_trait]
impl QueueConsumer for AwsHome {
    async fn receive(&self, step: Step, max: usize, visibility: Duration, wait: Duration) -> Result<Vec<Message>, StoreError> {
        checks::visibility(visibility)?;
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let received = self.receive_from(self.0.places.queue(step), max, seconds(visibility), left).await?;
            if !received.is_empty() || left <= LONGEST_WAIT {
                return received.into_iter().map(|received| message(step, received)).collect();
            }
        }
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), StoreError> {
        let asked = self.0.sqs.delete_message().queue_url(self.0.places.queue(receipt.step)).receipt_handle(handle(receipt)?);
        match asked.send().await {
            Ok(_) => Ok(()),
            Err(error) if is_stale(failure::code(&error)) => Ok(()),
            Err(error) => Err(failure::classify("deleting a message", &error)),
        }
    }

    async fn change_visibility(&self, receipt: &Receipt, visibility: Duration) -> Result<(), StoreError> {
        checks::visibility(visibility)?;
        let asked = self.0.sqs.change_message_visibility().queue_url(self.0.places.queue(receipt.step)).receipt_handle(handle(receipt)?);
        match asked.visibility_timeout(seconds(visibility)).send().await {
            Ok(_) => Ok(()),
            Err(error) if is_stale(failure::code(&error)) => Ok(()),
            Err(error) => Err(failure::classify("changing a message's invisibility", &error)),
        }
    }
}

/// Whether SQS says that a receipt of its own is past: the message was deleted, or received again since. It speaks of an invalid receipt, an
/// invalid parameter, or a message not in flight.
///
/// Source: SQS `ChangeMessageVisibility`, docs.aws.amazon.com/AWSSimpleQueueService (read 2026-11).
fn is_stale(code: Option<&str>) -> bool {
    let past = ["MessageNotInflight", "InvalidParameterValue", "ReceiptHandleIsInvalid"];
    code.is_some_and(|code| past.iter().any(|past| code.ends_with(past)))
}

#[async_trait]
impl DeadLetters for AwsHome {
    /// As SQS counts, which may lag.
    async fn count_dead(&self, step: Step) -> Result<u64, StoreError> {
        use QueueAttributeName::{ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesNotVisible as Hidden};
        let asked = self.0.sqs.get_queue_attributes().queue_url(self.0.places.dead_queue(step));
        let answer = asked.attribute_names(Visible).attribute_names(Hidden).send().await;
        let counts = answer.map_err(|error| failure::classify("counting dead letters", &error))?.attributes.unwrap_or_default();
        let count = |name| counts.get(&name).and_then(|text| text.parse::<u64>().ok());
        match (count(Visible), count(Hidden)) {
            (Some(visible), Some(hidden)) => Ok(visible + hidden),
            _ => Err(StoreError::Defect { detail: "counting dead letters: the counts do not read".to_owned() }),
        }
    }

    /// Those that are not being looked at by someone else.
    async fn dead_letters(&self, step: Step, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let limit = limit.clamp(1, MAX_DEAD);
        let (url, mut letters, mut handles) = (self.0.places.dead_queue(step), Vec::new(), Vec::new());
        while letters.len() < limit {
            let some = self.receive_from(&url, limit - letters.len(), PEEK, Duration::ZERO).await?;
            if some.is_empty() {
                break;
            }
            for letter in some {
                handles.extend(letter.receipt_handle);
                letters.push(DeadLetter {
                    id: letter.message_id.unwrap_or_default(),
                    step,
                    body: letter.body.unwrap_or_default(),
                    // What SQS counts includes the looks at the dead letter; it died of exactly so many.
                    receive_count: self.0.places.max_receives,
                });
            }
        }
        // Looked at and put back. What is not put back now comes back by itself in a moment.
        let back =
            |handle: String| self.0.sqs.change_message_visibility().queue_url(&url).receipt_handle(handle).visibility_timeout(0).send();
        for failed in join_all(handles.into_iter().map(back)).await.into_iter().filter_map(Result::err) {
            tracing::debug!(error = %failure::classify("putting a dead letter back", &failed), "it comes back later");
        }
        Ok(letters)
    }

    /// Sends and then deletes, so that a crash in between repeats a nudge instead of losing it.
    async fn redrive(&self, step: Step) -> Result<u64, StoreError> {
        let (url, mut moved) = (self.0.places.dead_queue(step), 0);
        loop {
            let some = self.receive_from(&url, MAX_RECEIVED, MOVING, Duration::ZERO).await?;
            if some.is_empty() {
                return Ok(moved);
            }
            let bodies = some.iter().filter_map(|letter| letter.body.clone()).map(|body| (body, 0)).collect();
            self.send_batch(self.0.places.queue(step).to_owned(), bodies).await?;
            let mut deleted = Vec::with_capacity(some.len());
            for handle in some.into_iter().filter_map(|letter| letter.receipt_handle) {
                deleted.push(self.0.sqs.delete_message().queue_url(&url).receipt_handle(handle).send());
            }
            for answer in join_all(deleted).await {
                answer.map_err(|error| failure::classify("deleting a dead letter", &error))?;
                moved += 1;
            }
        }
    }
}
