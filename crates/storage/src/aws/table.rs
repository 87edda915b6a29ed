//! The truth: claims, owners, certificates and history.
//!
//! Arrives: a [`Change`], or a key. Leaves: one `TransactWriteItems` with a condition for each item that has a version, or a consistent read.
//! Goes wrong: a condition that does not hold, which is a conflict; two transactions at one item at once, which are tried again and then
//! unavailable, because neither may have been written.
//!
//! A change of one item is a transaction too, at twice the price of a plain put: the SDK sends each call with a `ClientRequestToken` of its
//! own and repeats it with every attempt, so that a change whose answer was lost is answered as written and not as a conflict.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::{
    operation::transact_write_items::TransactWriteItemsError,
    types::{CancellationReason, Delete, Put as PutItem, TransactWriteItem},
};
use domains::{Change, Claim, ClaimKey, CommitError, DomainTable, Hostname, Owner, SiteVersion, StoreError, StoredCertificate};
use serde::de::DeserializeOwned;

use super::{
    AwsHome, failure,
    items::{self, Item, OWNER_KEY, certificate_key, claim_key, number},
};
use crate::checks;

/// How often a transaction that met another one is tried in all.
const MEETINGS: u32 = 6;
/// How old history may be when its commit ends, by [`domains::EVENTS_LAG`]'s own account.
const HISTORY_LIFE: Duration = Duration::from_secs(10);
/// The pause after the first meeting; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

#[async_trait]
impl DomainTable for AwsHome {
    async fn claim(&self, key: &ClaimKey) -> Result<Option<Claim>, StoreError> {
        let found: Option<Claim> = self.item(&key.hostname, claim_key(&key.tenant)).await?;
        match found {
            Some(claim) if claim.key != *key => Err(StoreError::Defect { detail: format!("claim {key} holds the item of {}", claim.key) }),
            found => Ok(found),
        }
    }

    async fn owner(&self, hostname: &Hostname) -> Result<Option<Owner>, StoreError> {
        self.item(hostname, OWNER_KEY.to_owned()).await
    }

    async fn certificate(&self, hostname: &Hostname, version: SiteVersion) -> Result<Option<StoredCertificate>, StoreError> {
        self.item(hostname, certificate_key(version)).await
    }

    async fn commit(&self, change: &Change) -> Result<(), CommitError> {
        checks::change(change)?;
        let writes = self.writes(change)?;
        if writes.is_empty() {
            return Ok(());
        }
        let Some(oldest) = change.history.iter().map(|entry| entry.at).min() else { return self.write(writes).await };
        // The feed of events is read behind the newest by a lag that leaves a commit so much time, and no more.
        let age = Duration::try_from(self.0.clock.now().duration_since(oldest)).unwrap_or_default();
        let Some(left) = HISTORY_LIFE.checked_sub(age) else { return Err(CommitError::Conflict) };
        let late = |_| StoreError::Unavailable { detail: format!("writing a transaction: not within {left:?}") };
        tokio::time::timeout(left, self.write(writes)).await.map_err(late)?
    }
}

impl AwsHome {
    /// Writes a transaction, again when it met another one.
    pub(super) async fn write(&self, writes: Vec<TransactWriteItem>) -> Result<(), CommitError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..MEETINGS {
            match self.transact(writes.clone()).await {
                Transacted::Met(_) => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Transacted::Ended(result) => return result,
            }
        }
        match self.transact(writes).await {
            Transacted::Met(detail) => Err(StoreError::Unavailable { detail }.into()),
            Transacted::Ended(result) => result,
        }
    }
}

/// How a transaction came out.
pub(super) enum Transacted {
    /// Another one was at one of its items at that moment; nothing was written.
    Met(String),
    /// Finally.
    Ended(Result<(), CommitError>),
}

impl AwsHome {
    async fn item<T: DeserializeOwned>(&self, hostname: &Hostname, sk: String) -> Result<Option<T>, StoreError> {
        let key = items::key(hostname, sk);
        let asked = self.0.dynamo.get_item().table_name(&self.0.places.table).set_key(Some(key)).consistent_read(true).send().await;
        let answer = asked.map_err(|error| failure::classify("reading an item", &error))?;
        answer.item.map(items::read).transpose()
    }

    /// Writes a transaction once.
    pub(super) async fn transact(&self, writes: Vec<TransactWriteItem>) -> Transacted {
        let sent = self.0.dynamo.transact_write_items().set_transact_items(Some(writes)).send().await;
        let Err(error) = sent else { return Transacted::Ended(Ok(())) };
        let verdict = failure::classify("writing a transaction", &error);
        match error.as_service_error() {
            Some(TransactWriteItemsError::TransactionCanceledException(canceled)) => cancelled(canceled.cancellation_reasons()),
            Some(TransactWriteItemsError::TransactionInProgressException(_)) => Transacted::Met(verdict.to_string()),
            _ => Transacted::Ended(Err(verdict.into())),
        }
    }

    /// The change as a transaction's parts.
    fn writes(&self, change: &Change) -> Result<Vec<TransactWriteItem>, StoreError> {
        let mut writes = Vec::new();
        for put in &change.claims {
            writes.push(self.put(items::claim_item(&put.item)?, condition(put.expected))?);
        }
        if let Some(put) = &change.owner {
            let item = items::item(&put.item.hostname, OWNER_KEY.to_owned(), "owner", &put.item)?;
            writes.push(self.put(item, condition(put.expected))?);
        }
        for entry in &change.history {
            writes.push(self.put(items::history_item(entry)?, Condition::Absent)?);
        }
        if let Some(certificate) = &change.certificate {
            let item = items::item(&certificate.hostname, certificate_key(certificate.version), "certificate", certificate)?;
            writes.push(self.put(item, Condition::None)?);
        }
        for (hostname, version) in &change.dropped_certificates {
            let key = items::key(hostname, certificate_key(*version));
            let delete = Delete::builder().table_name(&self.0.places.table).set_key(Some(key)).build().map_err(unbuildable)?;
            writes.push(TransactWriteItem::builder().delete(delete).build());
        }
        Ok(writes)
    }

    fn put(&self, item: Item, condition: Condition) -> Result<TransactWriteItem, StoreError> {
        put(&self.0.places.table, item, condition)
    }
}

/// A put as a transaction's part.
pub(super) fn put(table: &str, item: Item, condition: Condition) -> Result<TransactWriteItem, StoreError> {
    let put = PutItem::builder().table_name(table).set_item(Some(item));
    let put = match condition {
        Condition::None => put,
        Condition::Absent => put.condition_expression("attribute_not_exists(pk)"),
        Condition::Version(expected) => put
            .condition_expression("#version = :expected")
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":expected", number(expected)),
    };
    Ok(TransactWriteItem::builder().put(put.build().map_err(unbuildable)?).build())
}

/// What must be true of an item for it to be written.
pub(super) enum Condition {
    None,
    Absent,
    Version(u64),
}

pub(super) fn condition(expected: Option<u64>) -> Condition {
    expected.map_or(Condition::Absent, Condition::Version)
}

pub(super) fn unbuildable(error: aws_sdk_dynamodb::error::BuildError) -> StoreError {
    StoreError::Defect { detail: format!("a transaction cannot be put together: {error}") }
}

/// Why a transaction was cancelled, by the reasons of its items: nothing of it was written.
fn cancelled(reasons: &[CancellationReason]) -> Transacted {
    let codes: Vec<&str> = reasons.iter().filter_map(CancellationReason::code).filter(|code| *code != "None").collect();
    let detail = || {
        let words: Vec<&str> = reasons.iter().filter_map(CancellationReason::message).collect();
        format!("writing a transaction: cancelled with {} {}", codes.join(", "), words.join(" "))
    };
    let passes = |code: &str| code.contains("Throttl") || code == "ProvisionedThroughputExceeded";
    if codes.contains(&"ConditionalCheckFailed") {
        Transacted::Ended(Err(CommitError::Conflict))
    } else if !codes.is_empty() && codes.iter().all(|code| *code == "TransactionConflict" || passes(code)) {
        Transacted::Met(detail())
    } else {
        Transacted::Ended(Err(StoreError::Defect { detail: detail() }.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(codes: &[&str]) -> &'static str {
        let reasons: Vec<_> = codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect();
        match cancelled(&reasons) {
            Transacted::Met(_) => "met",
            Transacted::Ended(Err(CommitError::Conflict)) => "conflict",
            Transacted::Ended(Err(CommitError::Store(StoreError::Defect { .. }))) => "defect",
            Transacted::Ended(_) => "something else",
        }
    }

    #[test]
    fn a_cancelled_transaction_is_judged_by_its_worst_reason() {
        assert_eq!(outcome(&["None", "ConditionalCheckFailed", "TransactionConflict"]), "conflict");
        assert_eq!(outcome(&["None", "TransactionConflict"]), "met");
        assert_eq!(outcome(&["ThrottlingError", "None"]), "met");
        assert_eq!(outcome(&["ProvisionedThroughputExceeded"]), "met");
        assert_eq!(outcome(&["ValidationError", "TransactionConflict"]), "defect");
        assert_eq!(outcome(&["ItemCollectionSizeLimitExceeded"]), "defect");
        assert_eq!(outcome(&["None"]), "defect");
    }
}
