//! How what is stored stands in the table: its keys, and an item each way.
//!
//! An item is the stored value's own fields beside `pk`, `sk` and `kind`, so that the stream shows claims in the form that route-changes reads.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use domains::{Claim, ClaimKey, HistoryEntry, Hostname, SiteVersion, StateName, StoreError, TenantId, Timestamp};
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

/// An item as DynamoDB holds it.
pub(super) type Item = HashMap<String, AttributeValue>;

/// How many partitions the due-index is spread over: each takes a thousand writes a second before DynamoDB has to split it.
///
/// By a claim's name and not by the hour: a timer asks as many partitions after a minute as after a month, and can ask for all of time.
///
/// Source: DynamoDB partition throughput, docs.aws.amazon.com/amazondynamodb (read 2026-11).
const DUE_SHARDS: u8 = 8;

/// How many partitions the feed of events is spread over, by claim, so that one claim's events lie together.
const EVENT_SHARDS: u8 = 8;

/// How many partitions each state is spread over in the listing of all claims.
const STATE_SHARDS: u8 = 4;

/// The longest sort key that is asked for; DynamoDB takes no longer ones, and ours are shorter.
///
/// Source: DynamoDB sort key length, docs.aws.amazon.com/amazondynamodb (read 2026-11).
pub(super) const MAX_KEY: usize = 1_000;

/// Comes after everything that a key of ours may go on with.
pub(super) const LAST: char = '~';

/// Comes before everything that a key of ours may go on with.
pub(super) const NEXT: char = '!';

pub(super) fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub(super) fn number(value: impl ToString) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

pub(super) fn claim_key(tenant: &TenantId) -> String {
    format!("claim|{tenant}")
}

pub(super) const OWNER_KEY: &str = "owner";

pub(super) fn certificate_key(version: SiteVersion) -> String {
    format!("certificate|{:020}", version.0)
}

pub(super) fn history_key(tenant: &TenantId, sequence: u64) -> String {
    format!("history|{tenant}|{sequence:020}")
}

/// The key of an item.
pub(super) fn key(hostname: &Hostname, sk: impl Into<String>) -> Item {
    HashMap::from([("pk".to_owned(), text(hostname.as_str())), ("sk".to_owned(), text(sk))])
}

/// A stored value as an item.
pub(super) fn item(hostname: &Hostname, sk: String, kind: &str, value: &impl Serialize) -> Result<Item, StoreError> {
    let fields = serde_dynamo::to_item(value)
        .map_err(|error| StoreError::Defect { detail: format!("the item {sk} of {hostname} cannot be written: {error}") })?;
    let mut item: Item = fields;
    item.extend(key(hostname, sk));
    item.insert("kind".to_owned(), text(kind));
    Ok(item)
}

/// A claim as an item, with what its indexes are sorted by.
pub(super) fn claim_item(claim: &Claim) -> Result<Item, StoreError> {
    let hostname = &claim.key.hostname;
    let mut item = item(hostname, claim_key(&claim.key.tenant), "claim", claim)?;
    item.insert("by_state".to_owned(), text(state_partition(claim.state.name(), shard(hostname.as_str(), STATE_SHARDS))));
    item.insert("by_tenant".to_owned(), text(claim.key.tenant.as_str()));
    item.insert("listed_as".to_owned(), text(listed_as(&claim.key)));
    if let Some((step, at)) = claim.next_step() {
        item.insert("due_shard".to_owned(), text(format!("due#{}", shard(hostname.as_str(), DUE_SHARDS))));
        item.insert("due_at".to_owned(), text(format!("{}#{}", time_up(at), listed_as(&claim.key))));
        item.insert("due_step".to_owned(), text(step.as_str()));
    }
    Ok(item)
}

/// A history entry as an item, with what its feeds are sorted by.
pub(super) fn history_item(entry: &HistoryEntry) -> Result<Item, StoreError> {
    let ClaimKey { hostname, tenant } = &entry.key;
    let mut item = item(hostname, history_key(tenant, entry.sequence), "history", entry)?;
    item.insert("event_shard".to_owned(), text(format!("event#{}", shard(&listed_as(&entry.key), EVENT_SHARDS))));
    item.insert("event_tenant".to_owned(), text(tenant.as_str()));
    item.insert("event_sort".to_owned(), text(format!("{}#{}#{:020}", time_up(entry.at), listed_as(&entry.key), entry.sequence)));
    Ok(item)
}

/// Reads an item, or says which one does not read. Neither its content nor serde's words, which repeat it, are told: it may
/// hold a sealed key.
pub(super) fn read<T: DeserializeOwned>(item: Item) -> Result<T, StoreError> {
    let name = format!("{} {}", attribute(&item, "pk").unwrap_or("?"), attribute(&item, "sk").unwrap_or("?"));
    serde_dynamo::from_item(item).map_err(|_| StoreError::Defect { detail: format!("{name} does not read") })
}

pub(super) fn attribute<'i>(item: &'i Item, name: &str) -> Option<&'i str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

/// The claim that an item, or an index's entry for one, is about.
pub(super) fn claim_of(item: &Item) -> Result<ClaimKey, StoreError> {
    let read = || {
        let hostname = Hostname::parse_name(attribute(item, "pk")?).ok()?;
        let tenant = TenantId::parse(attribute(item, "sk")?.strip_prefix("claim|")?).ok()?;
        Some(ClaimKey { hostname, tenant })
    };
    read().ok_or_else(|| StoreError::Defect {
        detail: format!("{:?} {:?} is not the key of a claim", attribute(item, "pk"), attribute(item, "sk")),
    })
}

fn shard(name: &str, shards: u8) -> u8 {
    Sha256::digest(name.as_bytes())[0] % shards
}

fn listed_as(key: &ClaimKey) -> String {
    format!("{}#{}", key.hostname, key.tenant)
}

fn state_partition(state: StateName, shard: u8) -> String {
    format!("{}#{shard}", state.as_str())
}

pub(super) fn due_partitions() -> Vec<String> {
    (0..DUE_SHARDS).map(|shard| format!("due#{shard}")).collect()
}

pub(super) fn event_partitions() -> Vec<String> {
    (0..EVENT_SHARDS).map(|shard| format!("event#{shard}")).collect()
}

/// The partitions of the listing of claims in one state, or in any.
pub(super) fn state_partitions(state: Option<StateName>) -> Vec<String> {
    let states = StateName::ALL.iter().filter(|name| state.is_none_or(|state| state == **name));
    states.flat_map(|state| (0..STATE_SHARDS).map(|shard| state_partition(*state, shard))).collect()
}

/// A time as keys hold it: whole microseconds, in text that sorts as time does.
pub(super) fn time_down(at: Timestamp) -> String {
    // Only four-digit years have one width; nothing is ever due before them.
    let first = Timestamp::UNIX_EPOCH;
    format!("{:.6}", at.max(first))
}

/// The same, rounded up, so that nothing is ever due early.
pub(super) fn time_up(at: Timestamp) -> String {
    let early = i64::from(at.subsec_nanosecond().rem_euclid(1_000));
    let up = if early == 0 { at } else { at.checked_add(std::time::Duration::from_nanos((1_000 - early).unsigned_abs())).unwrap_or(at) };
    time_down(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sort_as_text_and_never_come_early() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(time_up(at("2026-11-23T12:00:00Z")), "2026-11-23T12:00:00.000000Z");
        assert_eq!(time_up(at("2026-11-23T12:00:00.000000001Z")), "2026-11-23T12:00:00.000001Z");
        assert_eq!(time_down(at("2026-11-23T12:00:00.000000999Z")), "2026-11-23T12:00:00.000000Z");
        assert_eq!(time_up(at("2026-11-23T12:00:00.9999999Z")), "2026-11-23T12:00:01.000000Z");
        let texts = [
            time_down(Timestamp::MIN),
            time_down(at("1999-12-31T23:59:59Z")),
            time_up(at("2030-01-01T00:00:00Z")),
            time_up(Timestamp::MAX),
        ];
        assert!(texts.is_sorted(), "{texts:?}");
        assert!(texts.iter().all(|text| text.len() == texts[0].len()), "{texts:?}");
    }

    #[test]
    fn numbers_in_keys_sort_as_numbers_do() {
        let tenant = TenantId::parse("acme").unwrap();
        assert!(history_key(&tenant, 9) < history_key(&tenant, 10));
        assert!(certificate_key(SiteVersion(u64::MAX)) > certificate_key(SiteVersion(7)));
    }
}
