//! The lists people ask for: an index finds the claims, the table shows them.
//!
//! Arrives: what to list and where to go on. Leaves: a page, read from the indexes that carry keys and states only; the claims themselves
//! come from the table, so that no index holds a sealed key. Goes wrong: an item that does not read fails its page, naming it.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::KeysAndAttributes;
use domains::{Claim, ClaimKey, HistoryEntry, Hostname, Listings, Page, StateName, StoreError, TenantId};

use super::{
    AwsHome,
    definitions::{BY_STATE, BY_TENANT},
    failure,
    indexes::Reading,
    items::{self, Item, LAST, NEXT, attribute, claim_key, history_key, text},
};
use crate::cursor::{self, Start};

/// The most items of one `BatchGetItem`.
///
/// Source: DynamoDB `BatchGetItem`, docs.aws.amazon.com/amazondynamodb (read 2026-11).
const BATCH: usize = 100;
/// How often what a batch left out is asked for again.
const AGAIN: usize = 8;

#[async_trait]
impl Listings for AwsHome {
    async fn claims(
        &self,
        tenant: Option<&TenantId>,
        state: Option<StateName>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Claim>, StoreError> {
        let list = ("claims".to_owned(), tenant.map(|tenant| tenant.as_str().to_owned()), state);
        let from = match cursor::decode::<_, String>(&list, cursor) {
            Start::First => NEXT.to_string(),
            Start::After(key) if key.len() <= items::MAX_KEY => format!("{key}{NEXT}"),
            Start::After(_) | Start::Nowhere => return Ok(Page { items: Vec::new(), cursor: None }),
        };
        let until = LAST.to_string();
        let reading = match tenant {
            None => Reading { index: BY_STATE, partitions: items::state_partitions(state), from, until, only: None },
            Some(tenant) => {
                let only = state.map(|state| (BY_STATE.partition, format!("{}#", state.as_str())));
                Reading { index: BY_TENANT, partitions: vec![tenant.as_str().to_owned()], from, until, only }
            }
        };
        let size = cursor::page_size(limit);
        let mut found = self.sorted(&reading, size + 1).await?;
        let is_last = found.len() <= size;
        found.truncate(size);
        let last = found.last().filter(|_| !is_last).and_then(|item| attribute(item, reading.index.sort)).map(str::to_owned);
        let mut keys = found.iter().map(items::claim_of).collect::<Result<Vec<_>, _>>()?;
        // A claim that changes its state while the states are read one by one is found in both; a batch refuses to be asked twice.
        keys.dedup();
        let mut claims = self.claims_of(&keys).await?;
        // The index may lag: a claim that moved on meanwhile is in another list by now.
        claims.retain(|claim| state.is_none_or(|state| claim.state.name() == state));
        Ok(Page { items: claims, cursor: last.and_then(|last| cursor::encode(&list, last)) })
    }

    async fn history(&self, key: &ClaimKey, after: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        let (from, until) = (history_key(&key.tenant, first), history_key(&key.tenant, u64::MAX));
        let items = self.range(&key.hostname, from, until, cursor::page_size(limit)).await?;
        items.into_iter().map(items::read).collect()
    }

    async fn claims_to(&self, hostname: &Hostname) -> Result<Vec<Claim>, StoreError> {
        let items = self.range(hostname, "claim|".to_owned(), format!("claim|{LAST}"), usize::MAX).await?;
        items.into_iter().map(items::read).collect()
    }
}

impl AwsHome {
    /// The claims with these keys, in their order; those that are not there are left out.
    async fn claims_of(&self, keys: &[ClaimKey]) -> Result<Vec<Claim>, StoreError> {
        let mut found: HashMap<ClaimKey, Claim> = HashMap::with_capacity(keys.len());
        for batch in keys.chunks(BATCH) {
            let mut wanted: Vec<Item> = batch.iter().map(|key| items::key(&key.hostname, claim_key(&key.tenant))).collect();
            for _ in 0..AGAIN {
                let (items, left) = self.batch(wanted).await?;
                for item in items {
                    let claim: Claim = items::read(item)?;
                    found.insert(claim.key.clone(), claim);
                }
                wanted = left;
                if wanted.is_empty() {
                    break;
                }
            }
            if !wanted.is_empty() {
                let detail = format!("reading claims: {} of {} keys were left out {AGAIN} times", wanted.len(), batch.len());
                return Err(StoreError::Unavailable { detail });
            }
        }
        Ok(keys.iter().filter_map(|key| found.remove(key)).collect())
    }

    /// What a batch found, and the keys it left out.
    async fn batch(&self, wanted: Vec<Item>) -> Result<(Vec<Item>, Vec<Item>), StoreError> {
        let table = &self.0.places.table;
        let keys = KeysAndAttributes::builder().set_keys(Some(wanted)).consistent_read(true).build();
        let keys = keys.map_err(|error| StoreError::Defect { detail: format!("a batch cannot be put together: {error}") })?;
        let asked = self.0.dynamo.batch_get_item().request_items(table, keys).send().await;
        let mut answer = asked.map_err(|error| failure::classify("reading claims", &error))?;
        let items = answer.responses.as_mut().and_then(|tables| tables.remove(table)).unwrap_or_default();
        let left = answer.unprocessed_keys.and_then(|mut tables| tables.remove(table)).map(|left| left.keys).unwrap_or_default();
        Ok((items, left))
    }

    /// The items of one hostname between two sort keys, at most so many.
    async fn range(&self, hostname: &Hostname, from: String, until: String, most: usize) -> Result<Vec<Item>, StoreError> {
        let mut found: Vec<Item> = Vec::new();
        let mut next = None;
        loop {
            let left = most - found.len();
            let query = self
                .0
                .dynamo
                .query()
                .table_name(&self.0.places.table)
                .consistent_read(true)
                .key_condition_expression("pk = :hostname AND sk BETWEEN :from AND :until")
                .expression_attribute_values(":hostname", text(hostname.as_str()))
                .expression_attribute_values(":from", text(&from))
                .expression_attribute_values(":until", text(&until))
                .limit(i32::try_from(left).unwrap_or(i32::MAX))
                .set_exclusive_start_key(next);
            let answer = query.send().await.map_err(|error| failure::classify("reading items", &error))?;
            found.extend(answer.items.unwrap_or_default());
            next = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if next.is_none() || found.len() >= most {
                return Ok(found);
            }
        }
    }
}
