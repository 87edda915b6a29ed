//! The feed of events.

use std::{collections::BTreeMap, time::Duration};

use domains::{Change, ClaimKey, DomainTable, DueIndex, EVENTS_LAG, EventFeed, HistoryEntry, Listings, TenantId};
use jiff::Timestamp;

use super::{
    PACE, PATIENCE, RACERS, Stand,
    fixtures::{claim, created, entry, hostname, key, tenant},
    listings::GARBAGE,
    race,
};

/// Reads on from a cursor until nothing more is there now.
async fn drain<H: EventFeed>(home: &H, tenant: Option<&TenantId>, cursor: &mut Option<String>, limit: usize) -> Vec<HistoryEntry> {
    let mut seen = Vec::new();
    loop {
        let page = home.events(tenant, cursor.as_deref(), limit).await.unwrap().expect("a cursor of its own");
        assert!(page.items.len() <= limit);
        seen.extend(page.items);
        *cursor = Some(page.cursor);
        if !page.more {
            return seen;
        }
    }
}

/// Reads on until this many came, for as long as the feed may lag.
async fn drained<S: Stand>(stand: &S, home: &S::Home, tenant: Option<&TenantId>, count: usize, limit: usize) -> Vec<HistoryEntry> {
    let mut cursor = None;
    let mut seen = Vec::new();
    let mut waited = Duration::ZERO;
    while seen.len() < count {
        assert!(waited < EVENTS_LAG + PATIENCE, "{} of {count} events after {waited:?}", seen.len());
        seen.extend(drain(home, tenant, &mut cursor, limit).await);
        if seen.len() < count {
            stand.pass(home, PACE).await;
            waited += PACE;
        }
    }
    seen
}

async fn happens<H: DomainTable>(home: &H, key: &ClaimKey, sequence: u64, at: Timestamp) {
    let change = Change { history: vec![entry(key.clone(), sequence, at)], ..Change::default() };
    home.commit(&change).await.unwrap();
}

/// Three tenants, four names each, five events each.
async fn planted<S: Stand>(stand: &S) -> (S::Home, usize) {
    let home = stand.fresh().await;
    let mut count = 0;
    for sequence in 1..=5 {
        for name in ["acme", "beta", "zenith"] {
            for number in 0..4 {
                happens(&home, &ClaimKey { hostname: hostname(number), tenant: tenant(name) }, sequence, stand.now()).await;
                count += 1;
            }
        }
        stand.pass(&home, PACE).await;
    }
    (home, count)
}

/// Each claim's numbers, in the order they came.
fn numbers(events: &[HistoryEntry]) -> BTreeMap<ClaimKey, Vec<u64>> {
    let mut numbers: BTreeMap<ClaimKey, Vec<u64>> = BTreeMap::new();
    for event in events {
        numbers.entry(event.key.clone()).or_default().push(event.sequence);
    }
    numbers
}

pub(super) async fn every_event_comes_once_and_in_one_order_whatever_the_page<S: Stand>(stand: &S) {
    let (home, count) = planted(stand).await;
    let whole = drained(stand, &home, None, count, 1000).await;
    assert_eq!(whole.len(), count);
    let numbers = numbers(&whole);
    assert_eq!(numbers.len(), 12);
    for (key, numbers) in numbers {
        assert_eq!(numbers, [1, 2, 3, 4, 5], "{key}");
    }
    for limit in [1, 7, count] {
        assert_eq!(drained(stand, &home, None, count, limit).await, whole, "pages of {limit}");
    }
    let none = home.events(None, None, 0).await.unwrap().unwrap();
    assert!(none.items.len() == 1 && none.more, "a page of none would never end");
}

pub(super) async fn a_tenants_events_are_its_own<S: Stand>(stand: &S) {
    let (home, count) = planted(stand).await;
    let whole = drained(stand, &home, None, count, 1000).await;
    for name in ["acme", "beta", "zenith"] {
        let tenant = tenant(name);
        let own: Vec<_> = whole.iter().filter(|event| event.key.tenant == tenant).cloned().collect();
        assert_eq!(drained(stand, &home, Some(&tenant), own.len(), 3).await, own);
    }
    let nobody = home.events(Some(&tenant("nobody")), None, 10).await.unwrap().unwrap();
    assert!(nobody.items.is_empty());
}

pub(super) async fn a_reader_among_writers_misses_nothing<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    const EACH: u64 = 12;
    let writers = {
        let home = home.clone();
        tokio::spawn(async move {
            race(RACERS, move |racer| {
                let home = home.clone();
                async move {
                    for sequence in 1..=EACH {
                        happens(&home, &key(racer), sequence, now).await;
                    }
                }
            })
            .await;
        })
    };
    let mut cursor = None;
    let mut seen = Vec::new();
    while !writers.is_finished() {
        seen.extend(drain(&home, None, &mut cursor, 5).await);
        tokio::task::yield_now().await;
    }
    writers.await.unwrap();
    let mut waited = Duration::ZERO;
    loop {
        seen.extend(drain(&home, None, &mut cursor, 5).await);
        let mut told = numbers(&seen);
        told.values_mut().for_each(|numbers| numbers.dedup());
        if told.len() == RACERS && told.values().all(|numbers| numbers.len() as u64 == EACH) {
            assert!(told.values().all(|numbers| numbers.is_sorted()), "one claim's events out of their order: {told:?}");
            return;
        }
        assert!(waited < EVENTS_LAG + PATIENCE, "a reader that went on from its cursor never saw all: {told:?}");
        stand.pass(&home, PACE).await;
        waited += PACE;
    }
}

pub(super) async fn an_event_cursor_of_nobody_is_refused<S: Stand>(stand: &S) {
    let (home, count) = planted(stand).await;
    drained(stand, &home, None, count, 1000).await;
    let acme = tenant("acme");
    let of_acme = home.events(Some(&acme), None, 1).await.unwrap().unwrap().cursor;
    home.commit(&created(claim(key(1), 1, stand.now()))).await.unwrap();
    let of_due = home.due(Timestamp::MIN, Timestamp::MAX, None, 1).await.unwrap().cursor;
    let of_claims = home.claims(None, None, None, 1).await.unwrap().cursor;
    let long = "A".repeat(100_000);
    for cursor in GARBAGE.iter().copied().chain([of_acme.as_str(), long.as_str()]).chain(of_due.as_deref()).chain(of_claims.as_deref()) {
        assert_eq!(home.events(Some(&tenant("beta")), Some(cursor), 10).await.unwrap(), None, "{cursor:?}");
    }
    assert!(home.events(Some(&acme), Some(&of_acme), 10).await.unwrap().is_some());
}

pub(super) async fn a_cursor_goes_on_after_a_crash<S: Stand>(stand: &S) {
    let (home, count) = planted(stand).await;
    let whole = drained(stand, &home, None, count, 1000).await;
    let mut cursor = Some(home.events(None, None, 10).await.unwrap().unwrap().cursor);
    let home = stand.reopened(home).await;
    assert_eq!(drain(&home, None, &mut cursor, 1000).await, whole[10..]);
    happens(&home, &key(77), 1, stand.now()).await;
    let mut waited = Duration::ZERO;
    loop {
        let new = drain(&home, None, &mut cursor, 1000).await;
        if let [event] = new.as_slice() {
            assert_eq!(event.key, key(77));
            return;
        }
        assert!(new.is_empty() && waited < EVENTS_LAG + PATIENCE, "{new:?}");
        stand.pass(&home, PACE).await;
        waited += PACE;
    }
}
