//! Token buckets, callers and marks.

use std::time::Duration;

use domains::{BucketShape, Caller, Callers, Limits, Marks, Role, Taken};

use super::{
    RACERS, Stand,
    fixtures::{after, tenant},
    is_defect, race,
};

const SHAPE: BucketShape = BucketShape { capacity: 5, refill: Duration::from_secs(60) };

pub(super) async fn a_bucket_gives_no_more_than_it_holds<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let taken = race(RACERS, |_| {
        let home = home.clone();
        async move { home.take("acme:orders", SHAPE, now).await.unwrap() }
    })
    .await;
    assert_eq!(taken.iter().filter(|taken| **taken == Taken::Granted).count(), 5, "{taken:?}");
    for refused in taken.iter().filter(|taken| **taken != Taken::Granted) {
        assert_eq!(*refused, Taken::Wait(SHAPE.refill));
    }
}

pub(super) async fn a_bucket_fills_again_with_time<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    for _ in 0..5 {
        assert_eq!(home.take("b", SHAPE, now).await.unwrap(), Taken::Granted);
    }
    let soon = after(now, Duration::from_secs(59));
    let Taken::Wait(wait) = home.take("b", SHAPE, soon).await.unwrap() else { panic!("a sixth token") };
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(2), "{wait:?}");
    let then = after(soon, wait + Duration::from_millis(1));
    assert_eq!(home.take("b", SHAPE, then).await.unwrap(), Taken::Granted, "the wait it named was not enough");
    assert!(matches!(home.take("b", SHAPE, then).await.unwrap(), Taken::Wait(_)));
    let full = after(then, Duration::from_secs(3600));
    for token in 0..5 {
        assert_eq!(home.take("b", SHAPE, full).await.unwrap(), Taken::Granted, "token {token}");
    }
    assert!(matches!(home.take("b", SHAPE, full).await.unwrap(), Taken::Wait(_)), "more than it holds");
}

pub(super) async fn buckets_do_not_share_tokens<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let one = BucketShape { capacity: 1, ..SHAPE };
    for bucket in ["a", "b", "a:b", "A", "a b/'\"%"] {
        assert_eq!(home.take(bucket, one, now).await.unwrap(), Taken::Granted, "{bucket}");
        assert_eq!(home.take(bucket, one, now).await.unwrap(), Taken::Wait(SHAPE.refill), "{bucket}");
    }
}

pub(super) async fn a_caller_is_found_by_the_hash_of_the_key_only<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let hash = "0f".repeat(32);
    let acme = Caller { role: Role::Tenant, tenant: Some(tenant("acme")) };
    assert_eq!(home.caller(&hash).await.unwrap(), None);
    home.admit(&hash, &acme).await.unwrap();
    assert_eq!(home.caller(&hash).await.unwrap(), Some(acme));
    let operator = Caller { role: Role::Operator, tenant: None };
    home.admit(&hash, &operator).await.unwrap();
    assert_eq!(home.caller(&hash).await.unwrap(), Some(operator.clone()));
    for stranger in ["", "0f", &"0e".repeat(32), &hash.to_uppercase(), "' OR 1=1 --"] {
        assert_eq!(home.caller(stranger).await.unwrap(), None);
    }
    // A key itself, given by mistake, is not stored.
    assert!(is_defect(&home.admit("np_live_secret", &operator).await.unwrap_err()));
}

pub(super) async fn a_mark_is_what_was_stored_last<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    assert_eq!(home.load("low-water").await.unwrap(), None);
    for value in ["2026-11-23T00:00:00Z", "2026-11-24T00:00:00Z"] {
        home.store("low-water", value).await.unwrap();
        assert_eq!(home.load("low-water").await.unwrap().as_deref(), Some(value));
    }
    assert_eq!(home.load("high-water").await.unwrap(), None);
}

pub(super) async fn the_second_table_survives_a_crash<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let one = BucketShape { capacity: 1, ..SHAPE };
    let operator = Caller { role: Role::Operator, tenant: None };
    home.store("mark", "1").await.unwrap();
    home.admit(&"aa".repeat(32), &operator).await.unwrap();
    home.take("bucket", one, now).await.unwrap();
    let home = stand.reopened(home).await;
    assert_eq!(home.load("mark").await.unwrap().as_deref(), Some("1"));
    assert_eq!(home.caller(&"aa".repeat(32)).await.unwrap(), Some(operator));
    assert!(matches!(home.take("bucket", one, now).await.unwrap(), Taken::Wait(_)), "a crash gave tokens back");
}
