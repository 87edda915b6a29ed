//! A fleet whose certificates live forty-five days, under Let's Encrypt's limits and with everything that a CA and a store do in a bad quarter:
//! a week of silence of the CA when the first renewals are due, one request in twenty refused, every certificate recalled at once, one call of
//! the store in twenty refused or its answer lost.
//!
//! The judge is not the product: what is served is read from the bucket's objects, what was ordered is counted by the CA, and what the home was
//! asked is counted in front of it. What a tick costs is compared between fleets of several sizes.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use domains::{Clock, StateName, Timestamp, ledger::CaLimits};
use futures_util::{StreamExt, stream};
use schedule_renewals::{EdgeKeys, ScheduleRenewals};
use system_tests::{
    simulation::{Simulation, front::Work, later},
    sizes::sizes,
};

const DAY: Duration = Duration::from_secs(86_400);
const LIFETIME: Duration = Duration::from_secs(45 * 86_400);
/// How often the CA wants to be asked for a renewal window, at most; the product asks no less often than twice a day whatever it says.
const WINDOW_PACE: Duration = Duration::from_secs(12 * 3_600);
/// How long after its recall a certificate is worth nothing: CA/Browser Forum Baseline Requirements 4.9.1.1 (read 2026-11).
const REVOKED_AFTER: Duration = Duration::from_secs(5 * 86_400);
/// How often the timer ticks. On AWS it does each minute; nothing here is due so closely.
const TICK: Duration = Duration::from_secs(300);
/// When the CA is down, when it recalls everything.
const DOWN: std::ops::Range<u32> = 27..34;
const RECALL: u32 = 62;
/// How many names the account's usual limit of new orders brings in within a month; whoever has more asks the CA for a higher one.
/// Source: letsencrypt.org/docs/rate-limits, overrides (read 2026-11).
const USUAL_FLEET: usize = 50_000;
/// How many ticks without anything due are timed.
const IDLE_TICKS: u32 = 200;

/// What one size cost.
struct Cost {
    names: usize,
    /// A usual day: how many looks, polls and orders were due, and what they took beyond what its ticks cost without them.
    due: u64,
    day: Work,
    /// What the home was asked to write on that day, all in all.
    writes: u64,
    /// One tick without anything due.
    idle: Work,
    idle_took: Duration,
    /// After everything was recalled: what the replacements took, and how long after the recall the last one came.
    recall: Work,
    recalled_in: Duration,
    took: Duration,
}

#[tokio::test]
async fn no_certificate_ends_and_no_limit_is_met_in_ninety_bad_days() {
    for count in sizes(&[40], &[1_000, 10_000]) {
        ninety_days(count).await;
    }
}

#[tokio::test]
async fn what_a_tick_costs_follows_what_is_due_in_it_however_many_names_there_are() {
    let mut costs = Vec::new();
    for count in sizes(&[20, 200], &[1_000, 10_000, 100_000]) {
        costs.push(a_few_days(count).await);
        tell(costs.last().unwrap());
    }
    let first = &costs[0];
    for cost in &costs[1..] {
        let close = |what: &str, small: f64, large: f64| {
            let sizes = (first.names, cost.names);
            assert!((small - large).abs() <= 0.25 * small, "{what}: {small:.2} at {}, {large:.2} at {}", sizes.0, sizes.1);
        };
        let each = |what: &str, of: fn(&Work) -> u64| {
            close(&format!("{what} for each thing due"), per(of(&first.day), first.due), per(of(&cost.day), cost.due));
        };
        each("reads", |work| work.reads);
        each("writes", |work| work.writes);
        each("nudges", |work| work.sent);
        each("entries of the due-index", |work| work.timer_entries);
        close(
            "writes for each certificate replaced",
            per(first.recall.writes, first.names as u64),
            per(cost.recall.writes, cost.names as u64),
        );
        assert_eq!(cost.idle, first.idle, "a tick without anything due costs more at {} names", cost.names);
        let (small, large) = (first.idle_took, cost.idle_took);
        assert!(
            large <= small * 3 + Duration::from_millis(1),
            "such a tick takes {small:?} at {}, {large:?} at {}",
            first.names,
            cost.names
        );
    }
}

#[tokio::test]
async fn a_recall_reaches_every_name_though_no_change_is_shown_to_anybody() {
    let count = 10;
    let limits = CaLimits { orders: None, ..CaLimits::lets_encrypt("ca.simulated.test") };
    let (mut world, names) = fleet("a_lost_feed", count, &limits, dev_ca::Limits { orders: None, ..dev_ca::Limits::lets_encrypt(1) }).await;
    world.run_for(DAY).await;
    assert_eq!(world.served(), count);
    (world.pipeline.stream, world.tick) = (false, DAY / 48);
    let recall = world.clock.now();
    world.recall_everything(later(recall, REVOKED_AFTER));
    // Each is asked for its window within half a day, and the rest follows from tick to tick.
    world.run_for(DAY).await;
    assert!(replaced_in(&world, &names, recall).is_some(), "what the feed lost stays lost");
    assert_eq!(world.read_bucket().await, count);
}

fn per(work: u64, due: u64) -> f64 {
    work as f64 / due.max(1) as f64
}

fn hours(time: Duration) -> f64 {
    time.as_secs_f64() / 3_600.0
}

fn tell(cost: &Cost) {
    let Cost { names, due, day, idle, idle_took, recall, .. } = cost;
    println!(
        "{names} names: {due} looks, polls and orders on a usual day, {:.1} writes a second; {:?} of real time",
        cost.writes as f64 / DAY.as_secs_f64(),
        cost.took
    );
    println!(
        "  each: {:.2} reads, {:.2} writes, {:.2} entries of the due-index, {:.2} nudges sent, {:.2} received, {:.0} bytes of index",
        per(day.reads, *due),
        per(day.writes, *due),
        per(day.timer_entries, *due),
        per(day.sent, *due),
        per(day.received, *due),
        per(day.index_bytes, *due),
    );
    println!("  a tick without anything due: {} reads, {} write, {} nudges, {idle_took:?}", idle.timer_reads, idle.writes, idle.sent);
    println!(
        "  all replaced within {:.1} h of their recall: for each {:.1} reads, {:.1} writes, {:.1} nudges received, {:.0} bytes of index",
        hours(cost.recalled_in),
        per(recall.reads, *names as u64),
        per(recall.writes, *names as u64),
        per(recall.received, *names as u64),
        per(recall.index_bytes, *names as u64),
    );
}

/// A fleet that asks for its certificates, with two workers that may end on their way.
async fn fleet(what: &str, count: usize, limits: &CaLimits, at_the_ca: dev_ca::Limits) -> (Simulation, Vec<String>) {
    let mut world = Simulation::with_windows(what, LIFETIME).await;
    // Virtual months: the clock need not stop at each message.
    (world.tick, world.grain) = (TICK, Duration::from_secs(1));
    world.ca.hold_to(at_the_ca);
    world.ca.crash(2);
    world.ca.ask_for_windows_each(WINDOW_PACE);
    world.work_under(limits, 2);
    let names: Vec<String> = (0..count).map(|n| format!("shop{n}.brand{}.com", n / 20)).collect();
    stream::iter(&names).for_each_concurrent(64, |name| world.onboard(name, name.split('.').nth(1).unwrap())).await;
    (world, names)
}

/// How long after the recall the last certificate was replaced; `None` while one is not.
fn replaced_in(world: &Simulation, names: &[String], recall: Timestamp) -> Option<Duration> {
    let issued = world.ca.issued();
    let replaced = |name: &String| issued.get(name)?.iter().map(|(at, _)| *at).find(|at| *at >= recall);
    let all: Option<Vec<Timestamp>> = names.iter().map(replaced).collect();
    Duration::try_from(all?.into_iter().max()?.duration_since(recall)).ok()
}

async fn ninety_days(count: usize) {
    let began = Instant::now();
    let mut limits = CaLimits::lets_encrypt("ca.simulated.test");
    let mut at_the_ca = dev_ca::Limits::lets_encrypt(1);
    let raised = 1 + u32::try_from(count / USUAL_FLEET).unwrap();
    let (ours, theirs) = (limits.orders.as_mut().unwrap(), at_the_ca.orders.as_mut().unwrap());
    (ours.capacity, ours.refill, theirs.count) = (ours.capacity * raised, ours.refill / raised, theirs.count * raised);
    let (mut world, names) = fleet("ninety_days", count, &limits, at_the_ca).await;
    world.ca.throttle(5);
    if count < 1_000 {
        // So that a few names meet it, too.
        world.ca.crash(20);
    }
    let start = world.clock.now();
    let day = |number: u32| later(start, DAY * number);
    let told = |what: &str, world: &Simulation| {
        println!("  {count} names, {what}: {} served, {} orders, {:?} so far", world.served(), world.ca.orders(), began.elapsed());
    };

    world.run_until(day(DOWN.start)).await;
    told("the CA goes down", &world);
    assert_eq!(world.read_bucket().await, world.served(), "the index does not list what is served");
    world.front.throttle(5);
    world.ca.set_down(true);
    world.run_until(day(DOWN.end)).await;
    told("the CA comes back", &world);
    world.ca.set_down(false);
    world.run_until(day(RECALL)).await;
    told("everything is recalled", &world);
    assert_eq!(world.served(), count, "not every name is served when everything is recalled");
    assert_eq!(world.read_bucket().await, count, "the index does not list what is served");
    world.recall_everything(later(day(RECALL), REVOKED_AFTER));
    world.run_until(later(day(RECALL), REVOKED_AFTER)).await;
    told("the recalled certificates are worth nothing", &world);
    let recalled_in = replaced_in(&world, &names, day(RECALL)).expect("each certificate is replaced before it is revoked");
    world.run_until(day(90)).await;
    world.front.throttle(0);

    assert_eq!(world.ca.refused(), Vec::<String>::new(), "the CA answered rateLimited");
    assert_eq!(world.ended_in_service(), Vec::<String>::new(), "certificates ended while they were served");
    assert_eq!(world.read_bucket().await, count, "not every name is served at the end");
    for claim in world.claims().await {
        assert_eq!(claim.state.name(), StateName::Active, "{}", claim.key);
    }
    assert!(world.ca.crashes() > 0, "no worker was ended on its way");
    let orders = world.ca.orders();
    assert!(orders <= 4 * count as u64, "orders were wasted: {orders}");
    println!(
        "{count} names, 90 days: 0 ended in service, 0 refused by limits; {orders} orders, {} workers ended on their way, {} calls of the \
         store refused or lost, all replaced within {:.1} h of their recall; {:?} of real time",
        world.ca.crashes(),
        world.front.work().refused,
        hours(recalled_in),
        began.elapsed(),
    );
}

/// An import at an account whose limit of new orders was raised, as an operator of many names asks for; a usual day; a recall. Nothing is
/// throttled here: what is counted is what was due, not what had to be done again.
async fn a_few_days(count: usize) -> Cost {
    let began = Instant::now();
    let limits = CaLimits { orders: None, ..CaLimits::lets_encrypt("ca.simulated.test") };
    let (mut world, names) = fleet("a_few_days", count, &limits, dev_ca::Limits { orders: None, ..dev_ca::Limits::lets_encrypt(1) }).await;
    println!("  {count} names registered, {:?} so far", began.elapsed());
    world.run_for(DAY).await;
    assert_eq!(world.served(), count, "not every name is served a day after its registration");
    println!("  {count} names served, {:?} so far", began.elapsed());
    let (due, usual) = usual_day(&mut world).await;
    let (idle, idle_took) = idle_tick(&world).await;
    let day = (0..DAY.as_secs() / TICK.as_secs()).fold(usual, |day, _| day - idle);
    println!("  {count} names, a usual day is over, {:?} so far", began.elapsed());

    let (recall, before) = (world.clock.now(), world.front.work());
    world.recall_everything(later(recall, REVOKED_AFTER));
    let recalled_in = loop {
        world.run_for(DAY / 24).await;
        if let Some(time) = replaced_in(&world, &names, recall) {
            break time;
        }
        assert!(world.clock.now() < later(recall, REVOKED_AFTER), "certificates were revoked before they were replaced");
    };
    let work = world.front.work() - before;
    world.run_for(DAY / 24).await;
    assert_eq!(world.ca.refused(), Vec::<String>::new(), "the CA answered rateLimited");
    assert_eq!(world.ended_in_service(), Vec::<String>::new(), "certificates ended while they were served");
    assert_eq!(world.read_bucket().await, count, "not every name is served at the end");
    Cost { names: count, due, day, writes: usual.writes, idle, idle_took, recall: work, recalled_in, took: began.elapsed() }
}

/// One day on which nothing is wrong: how much was due, and what it took.
async fn usual_day(world: &mut Simulation) -> (u64, Work) {
    world.dns.take_looks();
    let (before, polls, orders) = (world.front.work(), world.ca.polls(), world.ca.orders());
    world.run_for(DAY).await;
    let looks: u64 = world.dns.take_looks().values().map(|looks| u64::from(*looks)).sum();
    (looks + world.ca.polls() - polls + world.ca.orders() - orders, world.front.work() - before)
}

/// What a tick costs when nothing is due in it: one that looks at the hour before the last, of which nothing is left.
async fn idle_tick(world: &Simulation) -> (Work, Duration) {
    world.settle().await;
    let real = &world.pipeline.timer;
    let (due, queue, marks) = (real.due.clone(), real.queue.clone(), real.marks.clone());
    let keys = EdgeKeys { bucket: real.keys.bucket.clone(), seal_to: real.keys.seal_to.clone(), shared_tickets: false };
    let timer = ScheduleRenewals { due, queue, marks, keys, clock: real.clock.clone(), grace: Duration::from_secs(3_600) };
    let before = world.front.work();
    assert_eq!(timer.tick().await.unwrap().overdue, 0, "something is left undone");
    let work = world.front.work() - before;
    let began = Instant::now();
    for _ in 0..IDLE_TICKS {
        timer.tick().await.unwrap();
    }
    (work, began.elapsed() / IDLE_TICKS)
}
