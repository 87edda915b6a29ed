//! The second table: token buckets, API keys' hashes and small named values; the ledger's moves are in `ledger`. It has no stream.
//!
//! Arrives: a bucket's name and shape, a key's hash, a name. Leaves: whether a token was there, who calls, the value. Goes wrong: an item
//! that does not read is a defect, so that an unreadable caller is never a stranger and an unreadable mark never a fresh start.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    operation::update_item::UpdateItemError,
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use domains::{BucketShape, Caller, Callers, LedgerMove, Limits, Marks, Reserved, StoreError, Taken, Timestamp};

use super::{
    AwsHome, failure,
    items::{Item, attribute, number, text},
};
use crate::checks;

/// How often a bucket that others take from at the same moment is tried.
const RACES: usize = 10;
/// How long after it says nothing any more, such as a bucket that is full again, an item is swept, in seconds.
const SWEPT_AFTER: i64 = 86_400;

/// The sort key of an item that is alone in its partition.
pub(super) const SOLE: &str = "-";

/// What a bucket answered to one conditional write.
enum Taking {
    Taken,
    /// The condition did not hold; when the bucket is full, if it was ever used.
    Refused(Option<i64>),
}

#[async_trait]
impl Limits for AwsHome {
    /// A bucket is the moment at which it is full again (GCRA). One conditional write takes a token from a bucket in use; one that is full,
    /// or was never used, is started by another.
    async fn take(&self, bucket: &str, shape: BucketShape, now: Timestamp) -> Result<Taken, StoreError> {
        let now = now.as_microsecond();
        let refill = i64::try_from(shape.refill.as_micros()).unwrap_or(i64::MAX);
        let empty = refill.saturating_mul(i64::from(shape.capacity));
        let last = now.saturating_add(empty).saturating_sub(refill);
        for _ in 0..RACES {
            let full_at = match self.take_from_used(bucket, refill, now, last).await? {
                Taking::Taken => return Ok(Taken::Granted),
                Taking::Refused(full_at) => full_at,
            };
            match full_at.filter(|full_at| *full_at > now) {
                Some(full_at) if full_at > last => {
                    // Never emptier than empty, so that a changed shape does not close a bucket for longer than its own refill.
                    let full_at = full_at.min(now.saturating_add(empty));
                    return Ok(Taken::Wait(Duration::from_micros(full_at.saturating_sub(last).unsigned_abs())));
                }
                // Someone started it between the two looks.
                Some(_) => {}
                None if shape.capacity == 0 => return Ok(Taken::Wait(shape.refill)),
                None => {
                    if let Taking::Taken = self.start(bucket, now.saturating_add(refill), now).await? {
                        return Ok(Taken::Granted);
                    }
                }
            }
        }
        Err(StoreError::Unavailable { detail: format!("bucket {bucket} changed under {RACES} attempts to take from it") })
    }

    async fn apply(&self, entry: &LedgerMove, now: Timestamp) -> Result<Reserved, StoreError> {
        self.move_ledger(entry, now).await
    }

    async fn ledger_items(&self, names: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        self.ledger_says(names).await
    }
}

impl AwsHome {
    async fn take_from_used(&self, bucket: &str, refill: i64, now: i64, last: i64) -> Result<Taking, StoreError> {
        let update = self
            .update(&format!("limit#{bucket}"))
            .update_expression("SET full_at = full_at + :refill, expires_at = :expires")
            .condition_expression("full_at > :now AND full_at <= :last")
            .expression_attribute_values(":refill", number(refill))
            .expression_attribute_values(":now", number(now))
            .expression_attribute_values(":last", number(last))
            // A bucket in use is full at the latest when an empty one would be.
            .expression_attribute_values(":expires", number(expiry(last.saturating_add(refill))));
        taking(update.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld).send().await)
    }

    async fn start(&self, bucket: &str, full_at: i64, now: i64) -> Result<Taking, StoreError> {
        let update = self
            .update(&format!("limit#{bucket}"))
            .update_expression("SET full_at = :full_at, expires_at = :expires")
            .condition_expression("attribute_not_exists(full_at) OR full_at <= :now")
            .expression_attribute_values(":full_at", number(full_at))
            .expression_attribute_values(":now", number(now))
            .expression_attribute_values(":expires", number(expiry(full_at)));
        taking(update.send().await)
    }

    fn update(&self, pk: &str) -> aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder {
        self.0.dynamo.update_item().table_name(&self.0.places.second_table).key("pk", text(pk)).key("sk", text(SOLE))
    }

    async fn second(&self, pk: String) -> Result<Option<Item>, StoreError> {
        let asked = self
            .0
            .dynamo
            .get_item()
            .table_name(&self.0.places.second_table)
            .key("pk", text(pk))
            .key("sk", text(SOLE))
            .consistent_read(true)
            .send()
            .await;
        Ok(asked.map_err(|error| failure::classify("reading the second table", &error))?.item)
    }

    async fn put_second(&self, pk: String, mut item: Item) -> Result<(), StoreError> {
        item.insert("pk".to_owned(), text(pk));
        item.insert("sk".to_owned(), text(SOLE));
        let put = self.0.dynamo.put_item().table_name(&self.0.places.second_table).set_item(Some(item)).send().await;
        put.map(|_| ()).map_err(|error| failure::classify("writing the second table", &error))
    }
}

/// When an item may be swept that says nothing from a moment on, in seconds: late enough for every clock.
pub(super) fn expiry(micros: i64) -> i64 {
    (micros / 1_000_000).saturating_add(SWEPT_AFTER)
}

type Updated = Result<
    aws_sdk_dynamodb::operation::update_item::UpdateItemOutput,
    aws_sdk_dynamodb::error::SdkError<UpdateItemError, aws_sdk_dynamodb::config::http::HttpResponse>,
>;

fn taking(updated: Updated) -> Result<Taking, StoreError> {
    let Err(error) = updated else { return Ok(Taking::Taken) };
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
            let full_at = refused.item().and_then(|item| item.get("full_at"));
            full_at.map(micros).transpose().map(Taking::Refused)
        }
        _ => Err(failure::classify("taking from a bucket", &error)),
    }
}

fn micros(value: &AttributeValue) -> Result<i64, StoreError> {
    let read = value.as_n().ok().and_then(|text| text.parse().ok());
    read.ok_or_else(|| StoreError::Defect { detail: "a bucket does not read".to_owned() })
}

#[async_trait]
impl Callers for AwsHome {
    async fn caller(&self, key_sha256: &str) -> Result<Option<Caller>, StoreError> {
        // What is no hash belongs to nobody; the table is not asked for names that strangers make up.
        if checks::key_hash(key_sha256).is_err() {
            return Ok(None);
        }
        let Some(mut item) = self.second(format!("caller#{key_sha256}")).await? else { return Ok(None) };
        item.remove("pk");
        let unreadable = |_| StoreError::Defect {
            detail: format!("the caller whose key's hash begins with {} does not read", key_sha256.get(..8).unwrap_or_default()),
        };
        serde_dynamo::from_item(item).map(Some).map_err(unreadable)
    }

    async fn admit(&self, key_sha256: &str, caller: &Caller) -> Result<(), StoreError> {
        checks::key_hash(key_sha256)?;
        let item: Item =
            serde_dynamo::to_item(caller).map_err(|error| StoreError::Defect { detail: format!("a caller cannot be written: {error}") })?;
        self.put_second(format!("caller#{key_sha256}"), item).await
    }
}

#[async_trait]
impl Marks for AwsHome {
    async fn load(&self, name: &str) -> Result<Option<String>, StoreError> {
        let Some(item) = self.second(format!("mark#{name}")).await? else { return Ok(None) };
        let value = attribute(&item, "value").map(str::to_owned);
        value.map(Some).ok_or_else(|| StoreError::Defect { detail: format!("the mark {name} does not read") })
    }

    async fn store(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.put_second(format!("mark#{name}"), HashMap::from([("value".to_owned(), text(value))])).await
    }
}
