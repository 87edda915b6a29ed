//! What every home refuses before it looks at a single item, because the harder one would.
//!
//! Arrives: what a caller asks for. Leaves: nothing, when every home could do it. Goes wrong: [`StoreError::Defect`] with what does not fit.

use std::{collections::HashSet, time::Duration};

use domains::{Change, Dispatch, MAX_DELAY, StoreError};

use crate::consumers::MAX_VISIBILITY;

/// The most items of one transaction.
///
/// Source: DynamoDB `TransactWriteItems`, docs.aws.amazon.com/amazondynamodb (read 2026-11).
const MAX_ITEMS: usize = 100;

/// What the harder home would refuse before looking at a single item.
pub(crate) fn change(change: &Change) -> Result<(), StoreError> {
    let defect = |detail: String| Err(StoreError::Defect { detail });
    let items = change.claims.len()
        + usize::from(change.owner.is_some())
        + change.history.len()
        + usize::from(change.certificate.is_some())
        + change.dropped_certificates.len();
    if items > MAX_ITEMS {
        return defect(format!("a transaction of {items} items; at most {MAX_ITEMS} fit"));
    }
    let mut names = HashSet::with_capacity(items);
    let claims = change.claims.iter().map(|put| format!("claim {}", put.item.key));
    let history = change.history.iter().map(|entry| format!("history {} entry {}", entry.key, entry.sequence));
    let recorded = change.certificate.iter().map(|item| (&item.hostname, item.version));
    let dropped = change.dropped_certificates.iter().map(|(hostname, version)| (hostname, *version));
    let certificates = recorded.chain(dropped).map(|(hostname, version)| format!("certificate {hostname} version {version}"));
    for name in claims.chain(history).chain(certificates) {
        if let Some(name) = names.replace(name) {
            return defect(format!("a transaction names one item twice: {name}"));
        }
    }
    let owner = change.owner.iter().map(|put| (put.item.version, put.expected));
    let stuck = |(version, expected): (u64, Option<u64>)| expected.is_some_and(|expected| version <= expected);
    if change.claims.iter().map(|put| (put.item.version, put.expected)).chain(owner).any(stuck) {
        return defect("an item's new version is not above the one it replaces".to_owned());
    }
    Ok(())
}

/// Refuses all of a send when one nudge in it is delayed for longer than a queue can hold it.
pub(crate) fn delays(dispatches: &[Dispatch]) -> Result<(), StoreError> {
    match dispatches.iter().find(|dispatch| dispatch.delay > MAX_DELAY) {
        None => Ok(()),
        Some(late) => Err(StoreError::Defect {
            detail: format!(
                "a nudge to {} for {} is delayed by {:?}; at most {MAX_DELAY:?} fit",
                late.step.as_str(),
                late.nudge.key(),
                late.delay
            ),
        }),
    }
}

/// Refuses an invisibility that a queue cannot hold.
pub(crate) fn visibility(visibility: Duration) -> Result<(), StoreError> {
    match visibility <= MAX_VISIBILITY {
        true => Ok(()),
        false => Err(StoreError::Defect { detail: format!("an invisibility of {visibility:?}; at most {MAX_VISIBILITY:?} fit") }),
    }
}

/// Refuses to store anything but the hash of an API key.
pub(crate) fn key_hash(key_sha256: &str) -> Result<(), StoreError> {
    match key_sha256.len() == 64 && key_sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        true => Ok(()),
        false => Err(StoreError::Defect { detail: "an API key is stored only as its SHA-256 in lower-case hex".to_owned() }),
    }
}
