//! Token buckets, callers and marks.

use std::time::Duration;

use domains::{
    BucketShape, Caller, Callers, Lane, LedgerMove, Limits, Marks, Reserved, Role, Taken, Timestamp,
    ledger::{Level, Need, Reservation, Wait},
};

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

fn need(bucket: &str, capacity: u32) -> Need {
    let shape = BucketShape { capacity, ..SHAPE };
    Need { bucket: bucket.into(), shape, keeps: 0, reserve: 0, is_returned: false }
}

fn reservation(attempt: &str, needs: Vec<Need>) -> Reservation {
    Reservation { attempt: attempt.into(), tenant: tenant("acme"), lane: Lane::New, needs, remembered: Duration::from_secs(86_400) }
}

async fn left(home: &impl Limits, need: &Need, now: Timestamp) -> u32 {
    let items = home.ledger_items(std::slice::from_ref(&need.bucket)).await.unwrap();
    Level::of(&need.bucket, items[0].as_deref(), need.shape, now).unwrap().left
}

pub(super) async fn of_sixteen_reservations_no_more_are_granted_than_the_scarcest_bucket_holds<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let needs = [need("ca|orders", 100), need("ca|domain|brand.com", 5), need("ca|pace", 20)];
    let answers = race(RACERS, |number| {
        let (home, needs) = (home.clone(), needs.to_vec());
        async move { home.apply(&LedgerMove::Reserve(reservation(&format!("a{number}"), needs)), now).await.unwrap() }
    })
    .await;
    assert_eq!(answers.iter().filter(|answer| **answer == Reserved::Granted).count(), 5, "{answers:?}");
    let left = [left(&home, &needs[0], now).await, left(&home, &needs[1], now).await, left(&home, &needs[2], now).await];
    assert_eq!(left, [95, 0, 15], "who was not granted took something");
    let mut slots: Vec<Timestamp> = answers.iter().filter_map(|answer| waits(answer).map(|wait| wait.until)).collect();
    slots.sort();
    slots.dedup();
    assert_eq!(slots.len(), RACERS - 5, "two wait for one slot: {slots:?}");
}

pub(super) async fn a_reservation_takes_of_every_bucket_or_of_none<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let (wide, narrow) = (need("wide", 9), need("narrow", 1));
    let both = || vec![wide.clone(), narrow.clone()];
    assert_eq!(home.apply(&LedgerMove::Reserve(reservation("a", both())), now).await.unwrap(), Reserved::Granted);
    let refused = home.apply(&LedgerMove::Reserve(reservation("b", both())), now).await.unwrap();
    assert_eq!(waits(&refused).map(|wait| wait.bucket.as_str()), Some("narrow"));
    assert_eq!((left(&home, &wide, now).await, left(&home, &narrow, now).await), (8, 0));
}

pub(super) async fn a_repeated_reservation_takes_none_whoever_repeats_it<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let bucket = need("b", 5);
    let granted = race(RACERS, |_| {
        let (home, bucket) = (home.clone(), bucket.clone());
        async move { home.apply(&LedgerMove::Reserve(reservation("one", vec![bucket])), now).await.unwrap() }
    })
    .await;
    assert!(granted.iter().all(|answer| *answer == Reserved::Granted), "{granted:?}");
    assert_eq!(left(&home, &bucket, now).await, 4);
}

pub(super) async fn a_reservation_survives_a_crash_and_is_not_taken_twice<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let bucket = need("b", 2);
    let one = LedgerMove::Reserve(reservation("one", vec![bucket.clone()]));
    home.apply(&one, now).await.unwrap();
    let home = stand.reopened(home).await;
    assert_eq!(left(&home, &bucket, now).await, 1, "a crash gave tokens back");
    assert_eq!(home.apply(&one, now).await.unwrap(), Reserved::Granted);
    assert_eq!(left(&home, &bucket, now).await, 1, "the attempt took a second token after the crash");
}

pub(super) async fn who_waits_gets_a_slot_of_its_own_and_its_token_there<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let bucket = need("b", 1);
    let ask = |attempt: &str| LedgerMove::Reserve(reservation(attempt, vec![bucket.clone()]));
    assert_eq!(home.apply(&ask("first"), now).await.unwrap(), Reserved::Granted);
    for number in 1..=8u32 {
        let answer = home.apply(&ask(&format!("w{number}")), now).await.unwrap();
        let slot = waits(&answer).expect("a bucket of one gave two").until;
        let due = after(now, SHAPE.refill * number);
        assert!(slot >= due && slot <= after(due, Duration::from_millis(2)), "waiter {number}: {slot}, not {due}");
        assert_eq!(home.apply(&ask(&format!("w{number}")), now).await.unwrap(), answer, "a repeat moved the slot");
    }
    for number in 1..=8u32 {
        let slot = after(after(now, SHAPE.refill * number), Duration::from_millis(2));
        assert_eq!(home.apply(&ask(&format!("w{number}")), slot).await.unwrap(), Reserved::Granted, "waiter {number} at its slot");
    }
}

pub(super) async fn a_paused_bucket_gives_to_nobody_until_its_moment<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let bucket = need("b", 50);
    let pause = |until, why: &str| LedgerMove::Pause { bucket: "b".into(), until, why: why.into() };
    let until = after(now, Duration::from_secs(600));
    home.apply(&pause(until, "slow down"), now).await.unwrap();
    home.apply(&pause(after(now, Duration::from_secs(5)), "shorter"), now).await.unwrap();
    let home = stand.reopened(home).await;
    let answers = race(RACERS, |number| {
        let (home, bucket) = (home.clone(), bucket.clone());
        let soon = after(now, Duration::from_secs(599));
        async move { home.apply(&LedgerMove::Reserve(reservation(&format!("a{number}"), vec![bucket])), soon).await.unwrap() }
    })
    .await;
    for answer in &answers {
        let wait = waits(answer).expect("a paused bucket gave a token");
        assert!(wait.until >= until, "{wait:?}");
        assert_eq!(wait.paused_for.as_deref(), Some("slow down"), "a shorter pause ended a longer one");
    }
    let urgent = LedgerMove::Reserve(Reservation { lane: Lane::Urgent, ..reservation("urgent", vec![bucket]) });
    assert_eq!(home.apply(&urgent, after(until, Duration::from_secs(1))).await.unwrap(), Reserved::Granted);
}

pub(super) async fn what_an_order_did_not_use_is_given_back_once<S: Stand>(stand: &S) {
    let home = stand.fresh().await;
    let now = stand.now();
    let (kept, returned) = (need("orders", 5), Need { is_returned: true, ..need("set", 5) });
    let one = reservation("one", vec![kept.clone(), returned.clone()]);
    let release = LedgerMove::Release(one.clone());
    home.apply(&release, now).await.unwrap();
    assert_eq!(left(&home, &returned, now).await, 5, "what was never taken was given back");
    home.apply(&LedgerMove::Reserve(one.clone()), now).await.unwrap();
    home.apply(&LedgerMove::Reserve(reservation("two", vec![kept.clone(), returned.clone()])), now).await.unwrap();
    for _ in 0..3 {
        home.apply(&release, now).await.unwrap();
    }
    assert_eq!((left(&home, &kept, now).await, left(&home, &returned, now).await), (3, 4));
    assert_eq!(home.apply(&LedgerMove::Reserve(one), now).await.unwrap(), Reserved::Granted);
    assert_eq!(left(&home, &returned, now).await, 3, "an attempt that goes on after its tokens were given back has none");
}

fn waits(answer: &Reserved) -> Option<&Wait> {
    match answer {
        Reserved::Granted => None,
        Reserved::Wait(wait) => Some(wait),
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
