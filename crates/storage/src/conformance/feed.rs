//! The change feed.

use std::{collections::HashSet, time::Duration};

use domains::{CommitError, DomainTable};

use super::{
    Stand, eventually,
    fixtures::{claim, created, key, replaced, states},
    race,
};
use crate::consumers::{FeedConsumer, FeedRecord};

/// How long after a commit no record of it can be still on its way, in any home.
const SETTLED: Duration = Duration::from_secs(2);

/// Takes everything off the feed and returns it.
pub(super) async fn drain<S: Stand>(stand: &S, home: &S::Home) -> Vec<FeedRecord> {
    let mut seen = Vec::new();
    stand.pass(home, SETTLED).await;
    loop {
        let batch = home.next_batch(100, Duration::ZERO).await.unwrap();
        if batch.is_empty() {
            return seen;
        }
        home.acknowledge(&batch.iter().map(|record| record.sequence).collect::<Vec<_>>()).await.unwrap();
        seen.extend(batch);
    }
}

/// Takes everything off the feed.
pub(super) async fn drained<S: Stand>(stand: &S, home: &S::Home) {
    drain(stand, home).await;
}

fn versions(records: &[FeedRecord]) -> HashSet<(String, u64)> {
    records.iter().map(|record| record.claim().unwrap()).map(|claim| (claim.key.to_string(), claim.version)).collect()
}

pub(super) async fn every_version_committed_enters_the_feed<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    race(8, |number| {
        let home = home.clone();
        async move {
            home.commit(&created(claim(key(number), 1, now))).await.unwrap();
            for (version, state) in (2..).zip(states(now)) {
                let mut next = claim(key(number), version, now);
                next.state = state;
                home.commit(&replaced(next)).await.unwrap();
            }
        }
    })
    .await;
    let mut seen = Vec::new();
    let expected = 8 * (1 + states(now).len());
    eventually(stand, &home, "every version in the feed", async || {
        let batch = home.next_batch(7, Duration::ZERO).await.unwrap();
        assert!(batch.len() <= 7, "{} records in a batch of 7", batch.len());
        home.acknowledge(&batch.iter().map(|record| record.sequence).collect::<Vec<_>>()).await.unwrap();
        seen.extend(batch);
        (versions(&seen).len() == expected).then_some(())
    })
    .await;
    for record in seen {
        let shown = record.claim().unwrap();
        let last = home.claim(&shown.key).await.unwrap().unwrap();
        assert!(shown.version <= last.version);
        assert!(shown.version < last.version || shown == last, "the image is not what was committed");
    }
}

pub(super) async fn what_was_not_committed_never_enters_the_feed<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    home.commit(&created(claim(key(1), 1, now))).await.unwrap();
    assert!(matches!(home.commit(&created(claim(key(1), 2, now))).await, Err(CommitError::Conflict)));
    assert!(matches!(home.commit(&replaced(claim(key(2), 2, now))).await, Err(CommitError::Conflict)));
    assert_eq!(versions(&drain(stand, &home).await), HashSet::from([(key(1).to_string(), 1)]));
}

pub(super) async fn a_record_comes_again_until_it_is_acknowledged<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    home.commit(&created(claim(key(1), 1, now))).await.unwrap();
    for _ in 0..3 {
        let batch = eventually(stand, &home, "the record", async || {
            Some(home.next_batch(10, Duration::ZERO).await.unwrap()).filter(|batch| !batch.is_empty())
        })
        .await;
        assert_eq!(versions(&batch), HashSet::from([(key(1).to_string(), 1)]));
    }
    drained(stand, &home).await;
    eventually(stand, &home, "an empty feed", async || drain(stand, &home).await.is_empty().then_some(())).await;
}

pub(super) async fn the_feed_survives_a_crash<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    for number in 0..20 {
        home.commit(&created(claim(key(number), 1, now))).await.unwrap();
    }
    stand.pass(&home, SETTLED).await;
    let some = home.next_batch(5, Duration::ZERO).await.unwrap();
    home.acknowledge(&some.iter().map(|record| record.sequence).collect::<Vec<_>>()).await.unwrap();
    // Shown but not acknowledged when the process dies.
    home.next_batch(5, Duration::ZERO).await.unwrap();
    let home = stand.reopened(home).await;
    let mut seen = versions(&some);
    seen.extend(versions(&drain(stand, &home).await));
    assert_eq!(seen.len(), 20, "{seen:?}");
}

pub(super) async fn acknowledging_what_is_not_there_is_no_failure<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    home.acknowledge(&[]).await.unwrap();
    home.acknowledge(&[1, 2, 3]).await.unwrap();
    home.commit(&created(claim(key(1), 1, stand.now()))).await.unwrap();
    let seen = drain(stand, &home).await;
    assert_eq!(versions(&seen).len(), 1, "a record was acknowledged before it was written");
    home.acknowledge(&seen.iter().map(|record| record.sequence).collect::<Vec<_>>()).await.unwrap();
}

pub(super) async fn a_waiting_consumer_hears_of_a_commit<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let waiting = tokio::spawn({
        let home = home.clone();
        async move { home.next_batch(10, super::PATIENCE).await.unwrap() }
    });
    tokio::task::yield_now().await;
    home.commit(&created(claim(key(1), 1, stand.now()))).await.unwrap();
    eventually(stand, &home, "the waiting consumer's answer", async || {
        tokio::task::yield_now().await;
        // The consumer's answer crosses threads that no clock moves; look at it a little longer than one turn.
        tokio::time::timeout(super::PACE, async {
            while !waiting.is_finished() {
                tokio::task::yield_now().await
            }
        })
        .await
        .ok()
    })
    .await;
    assert_eq!(versions(&waiting.await.unwrap()).len(), 1);
}
