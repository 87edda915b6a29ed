//! What is due when.

use std::time::Duration;

use domains::{Claim, DomainTable, DueEntry, DueIndex, RemovalReason, State, Step};
use jiff::Timestamp;

use super::{
    Stand, eventually,
    fixtures::{after, claim, created, key, replaced, states},
};

/// The oldest that the index may be shown.
const STALE: Duration = Duration::from_secs(2);

fn at(base: Timestamp, seconds: usize) -> Timestamp {
    after(base, Duration::from_secs(seconds as u64))
}

/// Every entry of the window, page by page.
async fn all<H: DueIndex>(home: &H, from: Timestamp, until: Timestamp, limit: usize) -> Vec<DueEntry> {
    let mut entries = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = home.due(from, until, cursor.as_deref(), limit).await.unwrap();
        assert!(page.items.len() <= limit.max(1), "{} entries on a page of {limit}", page.items.len());
        entries.extend(page.items);
        cursor = page.cursor;
        if cursor.is_none() {
            return entries;
        }
    }
}

/// Claims due at `base + seconds`.
async fn planted<S: Stand>(stand: &S, seconds: impl IntoIterator<Item = usize>) -> (S::Home, Timestamp) {
    let home = stand.fresh().await;
    let base = at(stand.now(), 0);
    for seconds in seconds {
        home.commit(&created(claim(key(seconds), 1, at(base, seconds)))).await.unwrap();
    }
    stand.pass(&home, STALE).await;
    (home, base)
}

pub(super) async fn what_is_due_comes_in_its_order_and_within_its_bounds<S: Stand>(stand: &S) {
    let (home, base) = planted(stand, [40, 10, 30, 20, 50]).await;
    let seen = all(&home, at(base, 20), at(base, 40), 100).await;
    let expected: Vec<DueEntry> = [20, 30, 40]
        .map(|seconds| DueEntry { key: key(seconds), version: 1, step: Step::VerifyOwnership, next_look: at(base, seconds) })
        .into();
    assert_eq!(seen, expected, "both bounds belong to the window");
    assert_eq!(all(&home, at(base, 41), at(base, 49), 100).await, vec![]);
    assert_eq!(all(&home, at(base, 50), at(base, 10), 100).await, vec![]);
    assert_eq!(all(&home, Timestamp::MIN, Timestamp::MAX, 100).await.len(), 5);
}

pub(super) async fn the_due_index_is_paged_without_gaps<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let base = at(stand.now(), 0);
    // Ten at a time are due at the very same moment, so that pages end between equals.
    for number in 0..50 {
        home.commit(&created(claim(key(number), 1, at(base, number / 10)))).await.unwrap();
    }
    stand.pass(&home, STALE).await;
    let whole = all(&home, base, at(base, 60), 1000).await;
    assert_eq!(whole.len(), 50);
    assert!(whole.is_sorted_by_key(|entry| entry.next_look));
    for limit in [1, 7, 10, 49, 50] {
        assert_eq!(all(&home, base, at(base, 60), limit).await, whole, "pages of {limit}");
    }
    assert_eq!(home.due(base, at(base, 60), None, 0).await.unwrap().items.len(), 1, "a page of none would never end");
}

pub(super) async fn a_moved_claim_is_due_only_at_its_new_time<S: Stand>(stand: &S) {
    let (home, base) = planted(stand, [10]).await;
    home.commit(&replaced(claim(key(10), 2, at(base, 500)))).await.unwrap();
    eventually(stand, &home, "the entry at its new time only", async || {
        let seen = all(&home, base, at(base, 1000), 100).await;
        let times: Vec<(u64, Timestamp)> = seen.iter().map(|entry| (entry.version, entry.next_look)).collect();
        (times == [(2, at(base, 500))]).then_some(())
    })
    .await;
}

pub(super) async fn a_tombstone_is_never_due<S: Stand>(stand: &S) {
    let (home, base) = planted(stand, [10]).await;
    let gone = Claim { state: State::Removed { reason: RemovalReason::Requested }, ..claim(key(10), 2, base) };
    home.commit(&replaced(gone)).await.unwrap();
    eventually(stand, &home, "an empty index", async || all(&home, Timestamp::MIN, Timestamp::MAX, 100).await.is_empty().then_some(()))
        .await;
}

pub(super) async fn the_earliest_step_is_the_one_due<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let base = at(stand.now(), 5);
    let mut expected = Vec::new();
    for (number, state) in states(base).into_iter().enumerate() {
        let claim = Claim { state, ..claim(key(number), 1, base) };
        expected.extend(claim.next_step().map(|(step, at)| (claim.key.clone(), step, at)));
        home.commit(&created(claim)).await.unwrap();
    }
    stand.pass(&home, STALE).await;
    let mut seen: Vec<_> =
        all(&home, Timestamp::MIN, Timestamp::MAX, 100).await.into_iter().map(|due| (due.key, due.step, due.next_look)).collect();
    seen.sort_by_key(|(key, ..)| key.clone());
    assert_eq!(seen, expected);
}

pub(super) async fn a_foreign_due_cursor_leads_nowhere<S: Stand>(stand: &S) {
    let (home, base) = planted(stand, [10, 20]).await;
    for cursor in super::listings::GARBAGE {
        let page = home.due(base, at(base, 60), Some(cursor), 10).await.unwrap();
        assert!(page.items.is_empty() && page.cursor.is_none(), "{cursor:?}");
    }
}
