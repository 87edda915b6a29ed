//! The ledger under a load of names: what it grants, who waits how long, and what waiting costs.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use domains::{
    BucketShape, Hostname, Lane, LedgerMove, Reserved, TenantId, Timestamp,
    ledger::{CaLimits, Level, MemoryLedger, OrderKind, Reservation, forecast},
};

fn start() -> Timestamp {
    "2026-11-25T00:00:00Z".parse().unwrap()
}

fn after(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_add(wait).unwrap()
}

fn name(text: &str) -> Hostname {
    Hostname::parse_name(text).unwrap()
}

fn tenant(text: &str) -> TenantId {
    TenantId::parse(text).unwrap()
}

fn lets_encrypt() -> CaLimits {
    CaLimits::lets_encrypt("ca")
}

/// One name of the load.
#[derive(Clone)]
struct Asks {
    at: Timestamp,
    hostname: Hostname,
    tenant: TenantId,
    kind: OrderKind,
    lane: Lane,
}

fn new_name(at: Timestamp, hostname: &str, owner: &str) -> Asks {
    Asks { at, hostname: name(hostname), tenant: tenant(owner), kind: OrderKind::New, lane: Lane::New }
}

/// When each was granted, and how often all of them looked.
fn play(limits: &CaLimits, asks: &[Asks]) -> (Vec<Timestamp>, usize) {
    play_woken_by(limits, asks, Duration::ZERO)
}

/// The same where who waits longer than a minute is woken by a timer that ticks so often.
fn play_woken_by(limits: &CaLimits, asks: &[Asks], tick: Duration) -> (Vec<Timestamp>, usize) {
    let mut ledger = MemoryLedger::default();
    let mut turns: BinaryHeap<_> = asks.iter().enumerate().map(|(index, ask)| Reverse((ask.at, index))).collect();
    let (mut granted, mut looks) = (vec![Timestamp::MAX; asks.len()], 0);
    while let Some(Reverse((at, index))) = turns.pop() {
        let ask = &asks[index];
        let reservation = Reservation {
            attempt: index.to_string(),
            tenant: ask.tenant.clone(),
            lane: ask.lane,
            needs: limits.needs(&ask.hostname, ask.kind, ask.lane),
            remembered: Duration::from_secs(86_400),
        };
        looks += 1;
        match ledger.apply(&LedgerMove::Reserve(reservation), at).unwrap() {
            Reserved::Granted => granted[index] = at,
            Reserved::Wait(wait) => {
                assert!(wait.until > at, "told to look again at once");
                let due = wait.until.duration_since(start()).as_secs();
                let ticks = i64::try_from(tick.as_secs()).unwrap();
                let is_the_timers = ticks > 0 && wait.until.duration_since(at).as_secs() > 60;
                let woken = if is_the_timers { after(start(), tick * u32::try_from(due / ticks + 1).unwrap()) } else { wait.until };
                turns.push(Reverse((woken, index)));
            }
        }
    }
    (granted, looks)
}

/// The most grants that a bucket of this shape would ever have been short of.
fn overdrawn(granted: &[Timestamp], shape: BucketShape) -> bool {
    let mut times: Vec<i64> = granted.iter().map(|at| at.as_microsecond()).collect();
    times.sort_unstable();
    let refill = i64::try_from(shape.refill.as_micros()).unwrap();
    let mut full_at = i64::MIN;
    times.into_iter().any(|at| {
        full_at = full_at.max(at) + refill;
        full_at - at > refill * i64::from(shape.capacity)
    })
}

fn names_of(count: usize, domains: usize, owner: &str) -> Vec<Asks> {
    (0..count).map(|n| new_name(start(), &format!("shop{n}.brand{}.com", n % domains), owner)).collect()
}

#[test]
fn what_is_granted_never_overdraws_the_cas_own_buckets() {
    let limits = lets_encrypt();
    let (granted, _) = play(&limits, &names_of(1500, 20, "acme"));
    assert!(!overdrawn(&granted, limits.orders.unwrap()), "new orders");
    for domain in 0..20 {
        let of_domain: Vec<_> = granted.iter().skip(domain).step_by(20).copied().collect();
        assert!(!overdrawn(&of_domain, limits.domain.unwrap()), "certificates of brand{domain}.com");
    }
}

#[test]
fn waiting_costs_one_look_a_bucket_waited_for_and_wastes_no_token() {
    let limits = CaLimits { domain: None, ..lets_encrypt() };
    let (granted, looks) = play(&limits, &names_of(2000, 2000, "acme"));
    // One for the pace, since all came at once, one for the account, one at its slot.
    assert!(looks <= 3 * 2000, "{looks} looks for 2,000 names");
    let last = *granted.iter().max().unwrap();
    // 240 tokens at hand of which 24 stay in reserve, one more each 45 s.
    let ideal = Duration::from_secs((2000 - 216) * 45);
    let took = Duration::try_from(last.duration_since(start())).unwrap();
    assert!(took >= ideal - Duration::from_secs(45) && took <= ideal + ideal / 100, "{took:?}, not {ideal:?}");
}

#[test]
fn a_tenant_with_five_hundred_waiting_names_does_not_delay_anothers_first() {
    let limits = lets_encrypt();
    let mut asks: Vec<_> = (0..500).map(|n| new_name(start(), &format!("shop{n}.big{n}.com"), "big")).collect();
    for minute in [0u64, 1, 7, 60, 180] {
        let at = after(start(), Duration::from_secs(minute * 60 + 1));
        asks.push(new_name(at, &format!("www.small{minute}.com"), &format!("small{minute}")));
    }
    let (granted, looks) = play(&limits, &asks);
    for (ask, at) in asks.iter().zip(&granted).skip(500) {
        let delay = at.duration_since(ask.at);
        assert!(delay.as_secs_f64() <= 2.0, "{} waited {delay:?}", ask.hostname);
    }
    assert!(looks <= 4 * 505, "{looks} looks for 505 names");
}

#[test]
fn five_hundred_names_that_fail_and_come_again_do_not_delay_anothers_first() {
    let limits = lets_encrypt();
    let failing = |round: u64| {
        let at = after(start(), Duration::from_secs(round * 600));
        (0..500).map(move |n| new_name(at, &format!("shop{n}.big{n}.com"), "big"))
    };
    let mut asks: Vec<_> = (0..4).flat_map(failing).collect();
    let count = asks.len();
    asks.extend(
        (0..20u64).map(|n| new_name(after(start(), Duration::from_secs(90 + n * 95)), &format!("www.small{n}.com"), &format!("s{n}"))),
    );
    let (granted, _) = play(&limits, &asks);
    for (ask, at) in asks.iter().zip(&granted).skip(count) {
        assert!(at.duration_since(ask.at).as_secs_f64() <= 2.0, "{} waited {:?}", ask.hostname, at.duration_since(ask.at));
    }
}

#[test]
fn three_thousand_tenants_with_one_name_each_are_served_in_turn() {
    let limits = lets_encrypt();
    let asks: Vec<_> = (0..3000).map(|n| new_name(start(), &format!("www.shop{n}.com"), &format!("t{n}"))).collect();
    let (mut granted, looks) = play(&limits, &asks);
    assert!(looks <= 3 * 3000, "{looks} looks");
    assert!(!overdrawn(&granted, limits.orders.unwrap()));
    granted.sort();
    let took = granted[2999].duration_since(start()).as_secs();
    // The pace lets the first five minutes pass before the last has asked.
    assert!((took - (3000 - 240) * 45).abs() <= 400, "{took} s, {looks} looks");
}

#[test]
fn who_waited_for_its_domain_keeps_its_place_there_while_it_waits_for_the_pace() {
    // A timer wakes who is due each ten minutes: names of many domains at once, more than the pace lets through.
    let limits = CaLimits { orders: None, ..lets_encrypt() };
    let tick = Duration::from_secs(600);
    let (granted, _) = play_woken_by(&limits, &names_of(60 * 46, 60, "acme"), tick);
    let last = granted.iter().max().unwrap().duration_since(start()).as_secs();
    // 40 at hand, six more at 15,120 s each.
    assert!(last <= 6 * 15_120 + 2 * 600, "{last} s");
}

#[test]
fn of_two_backlogs_the_smaller_is_done_long_before_the_larger() {
    let limits = CaLimits { domain: None, ..lets_encrypt() };
    let mut asks: Vec<_> = (0..2000).map(|n| new_name(start(), &format!("shop{n}.big.com"), "big")).collect();
    let later = after(start(), Duration::from_secs(3600));
    asks.extend((0..100).map(|n| new_name(later, &format!("shop{n}.mid.com"), "mid")));
    let (granted, looks) = play(&limits, &asks);
    let mid = granted[2000..].iter().max().unwrap().duration_since(later).as_secs();
    // Alone it would take about 100 × 45 s; twice its own share before it is what the levels promise at most.
    assert!(mid <= 3 * 100 * 45, "the smaller backlog took {mid} s");
    let all = granted.iter().max().unwrap().duration_since(start()).as_secs();
    assert!(all <= (2100 - 216) * 45 + 1000, "all took {all} s: tokens were wasted");
    assert!(looks <= 4 * 2100, "{looks} looks");
}

#[test]
fn new_names_never_keep_a_renewal_waiting() {
    let limits = CaLimits { are_renewals_exempt: false, domain: None, ..lets_encrypt() };
    let mut asks: Vec<_> = (0..1000).map(|n| new_name(start(), &format!("shop{n}.big{n}.com"), &format!("t{}", n % 7))).collect();
    asks.extend((0..30u64).map(|n| Asks {
        kind: OrderKind::Renewal,
        lane: if n % 3 == 0 { Lane::Urgent } else { Lane::Renewal },
        ..new_name(after(start(), Duration::from_secs(60 + n * 100)), &format!("old{n}.brand{n}.com"), "old")
    }));
    let (granted, _) = play(&limits, &asks);
    for (ask, at) in asks.iter().zip(&granted).skip(1000) {
        assert!(at.duration_since(ask.at).as_secs_f64() <= 1.0, "{} waited", ask.hostname);
    }
}

#[test]
fn renewals_need_what_the_ca_counts_for_them_and_no_more() {
    let limits = lets_encrypt();
    let kinds = |kind, lane| {
        let needs = limits.needs(&name("shop.brand.co.uk"), kind, lane);
        needs.into_iter().map(|need| need.bucket).collect::<Vec<_>>()
    };
    assert_eq!(
        kinds(OrderKind::New, Lane::New),
        ["ca|pace", "ca|orders", "ca|domain|brand.co.uk", "ca|set|shop.brand.co.uk", "ca|failures|shop.brand.co.uk"]
    );
    assert_eq!(kinds(OrderKind::Renewal, Lane::Renewal), ["ca|pace", "ca|set|shop.brand.co.uk", "ca|failures|shop.brand.co.uk"]);
    assert_eq!(kinds(OrderKind::AriRenewal, Lane::Urgent), ["ca|pace"]);
}

#[test]
fn a_forecast_is_what_then_happens() {
    let limits = lets_encrypt();
    let asks = names_of(600, 8, "acme");
    let plan: Vec<_> = asks.iter().map(|ask| (ask.hostname.clone(), ask.tenant.clone())).collect();
    let told = forecast(&limits, MemoryLedger::default(), &plan, start()).unwrap();
    let (granted, _) = play(&limits, &asks);
    assert_eq!(told.done_at, *granted.iter().max().unwrap());
    assert!(told.bottleneck.as_deref().is_some_and(|limit| limit.starts_with("certificates for brand")), "{told:?}");
    assert_eq!((told.domains.len(), told.domains[0].names), (8, 75));
    // 40 at hand, then one each 4.2 h: 35 more.
    let hours = told.done_at.duration_since(start()).as_hours();
    assert!((146..=148).contains(&hours), "{hours} h");
}

#[test]
fn a_level_says_how_many_wait_and_when_they_are_done() {
    let limits = CaLimits { domain: None, ..lets_encrypt() };
    let mut ledger = MemoryLedger::default();
    let mut latest = start();
    for n in 0..316 {
        let reservation = Reservation {
            attempt: n.to_string(),
            tenant: tenant("acme"),
            lane: Lane::New,
            needs: limits.needs(&name(&format!("shop{n}.brand.com")), OrderKind::New, Lane::New),
            remembered: Duration::from_secs(86_400),
        };
        // Slowly enough for the pace, fast enough to refill nothing to speak of.
        let at = after(start(), Duration::from_millis(n * 110));
        if let Reserved::Wait(wait) = ledger.apply(&LedgerMove::Reserve(reservation), at).unwrap() {
            latest = latest.max(wait.until);
        }
    }
    let now = after(start(), Duration::from_secs(35));
    let (bucket, shape) = limits.shown(None).into_iter().find(|(bucket, _)| *bucket == limits.orders_bucket()).unwrap();
    let level = Level::of(&bucket, ledger.item(&bucket), shape, now).unwrap();
    assert_eq!((level.capacity, level.left), (240, 24));
    assert_eq!(level.waiting.len(), 1);
    assert!((98..=101).contains(&level.waiting[0].orders), "{level:?}");
    assert_eq!(level.waiting[0].done_at, latest);
}

#[test]
fn the_cas_own_words_say_which_bucket_is_paused_and_until_when() {
    let limits = lets_encrypt();
    let host = name("shop.brand.com");
    let at = |retry_after: Option<u64>, detail: &str| match limits.pause(&host, retry_after.map(Duration::from_secs), detail, start()) {
        LedgerMove::Pause { bucket, until, .. } => (bucket, until.duration_since(start()).as_secs()),
        other => panic!("{other:?}"),
    };
    let cases = [
        (Some(36), "too many new orders (300) from this account in the last 3h0m0s", "ca|orders", 36),
        (
            None,
            "too many certificates (50) already issued for \"brand.com\" in the last 168h0m0s, retry after 2026-11-25 01:00:00 UTC: see",
            "ca|domain|brand.com",
            3600,
        ),
        (
            Some(9),
            "too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s",
            "ca|set|shop.brand.com",
            9,
        ),
        (Some(720), "too many failed authorizations (5) for \"shop.brand.com\" in the last 1h0m0s", "ca|failures|shop.brand.com", 720),
        (Some(30), "Service busy; retry later.", "ca|pace", 30),
        (None, "slow down", "ca|pace", 60),
        (Some(0), "slow down", "ca|pace", 1),
    ];
    for (retry_after, detail, bucket, seconds) in cases {
        assert_eq!(at(retry_after, detail), (bucket.to_owned(), seconds), "{detail}");
    }
}
