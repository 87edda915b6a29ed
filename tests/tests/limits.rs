//! The pipeline under a CA that enforces Let's Encrypt's limits, on virtual time.
//!
//! The judge is the local CA's own book of limits, which counts in another way than the ledger does. "At 1:100" means that the capacities are
//! Let's Encrypt's and that their tokens come back a hundred times faster.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use domains::{
    Clock, Hostname, StateName, TenantId, Timestamp,
    ledger::{BucketShape, CaLimits, MemoryLedger, forecast},
};
use futures_util::{StreamExt, stream};
use system_tests::{
    simulation::{Simulation, later},
    sizes::size,
};

const LIFETIME: Duration = Duration::from_secs(90 * 86_400);
const SCALE: u32 = 100;

#[tokio::test]
async fn an_import_under_the_cas_limits_is_never_refused_and_ends_when_it_was_told_to() {
    let (count, domains) = (size(400, 3_000), size(6, 40));
    let began = Instant::now();
    let limits = CaLimits::lets_encrypt("ca.simulated.test").scaled(SCALE);
    let mut world = Simulation::new("limits", LIFETIME).await;
    world.ca.hold_to(dev_ca::Limits::lets_encrypt(SCALE));
    world.ca.crash(5);
    world.work_under(&limits, 2);

    let names: Vec<(String, String)> = (0..count).map(|n| (format!("shop{n}.brand{}.com", n % domains), format!("t{}", n % 11))).collect();
    let plan: Vec<_> = names.iter().map(|(name, tenant)| (Hostname::parse_name(name).unwrap(), TenantId::parse(tenant).unwrap())).collect();
    let start = world.clock.now();
    let told = forecast(&limits, MemoryLedger::default(), &plan, start).unwrap();
    stream::iter(&names).for_each_concurrent(16, |(name, tenant)| world.onboard(name, tenant)).await;
    let predicted = Duration::try_from(told.done_at.duration_since(start)).unwrap();
    world.run_for(predicted + predicted / 5).await;

    let issued = world.ca.issued();
    let missing: Vec<_> = names.iter().filter(|(name, _)| issued.get(name).is_none_or(|list| list.len() != 1)).collect();
    assert!(
        missing.is_empty(),
        "not exactly one certificate: {} of {count}, such as {:?} with {:?}",
        missing.len(),
        missing.first(),
        missing.first().and_then(|(name, _)| issued.get(name))
    );
    assert_eq!(world.ca.refused(), Vec::<String>::new(), "the CA answered rateLimited");
    assert!(world.ca.crashes() > 0, "no worker was ended on its way");
    assert_eq!(world.ca.orders(), count as u64, "an order was made twice");
    let last = issued.values().flatten().map(|(at, _)| *at).max().unwrap();
    let took = Duration::try_from(last.duration_since(start)).unwrap();
    let written: u64 = world.claims().await.iter().map(|claim| claim.version).sum();
    println!(
        "{count} names over {domains} registered domains at 1:{SCALE}: told {predicted:?}, took {took:?}; {} workers ended on their way, \
         {:.1} writes a name, {:?} of real time",
        world.ca.crashes(),
        written as f64 / count as f64,
        began.elapsed()
    );
    assert!(took.abs_diff(predicted) <= predicted / 10, "told {predicted:?}, took {took:?}");
}

#[tokio::test]
async fn a_backlog_longer_than_a_queue_can_delay_drains_as_fast_as_the_pace_allows() {
    let count = size(300, 1_500);
    let pace = BucketShape { capacity: 4, refill: Duration::from_secs(5) };
    let limits = CaLimits { pace, ..CaLimits::unknown("ca.simulated.test") };
    let mut world = Simulation::new("backlog", LIFETIME).await;
    world.work_under(&limits, 2);
    let names: Vec<String> = (0..count).map(|n| format!("shop{n}.brand{}.com", n / 20)).collect();
    stream::iter(&names).for_each_concurrent(16, |name| world.onboard(name, name.split('.').nth(1).unwrap())).await;
    let start = world.clock.now();
    let told = pace.refill * u32::try_from(count).unwrap();
    world.run_for(told * 2).await;
    let issued = world.ca.issued();
    assert_eq!(issued.len(), count, "names without a certificate after twice the time that the pace takes");
    let last = issued.values().flatten().map(|(at, _)| *at).max().unwrap();
    let took = Duration::try_from(last.duration_since(start)).unwrap();
    let written: u64 = world.claims().await.iter().map(|claim| claim.version).sum();
    println!("{count} names at one each {:?}: {took:?} of {told:?}, {:.1} writes a name", pace.refill, written as f64 / count as f64);
    assert!(took <= told + told / 10, "the pace takes {told:?}, they took {took:?}");
}

/// When a name was proved, and how long its certificate took from then on.
async fn waits(world: &Simulation, names: &[String]) -> Vec<f64> {
    let mut waits = Vec::new();
    for name in names {
        let history = world.ask(http::Method::GET, &format!("/v1/domains/{name}/history?limit=200"), None).await;
        let at = |event: &str| -> Timestamp {
            let entry = history["items"].as_array().unwrap().iter().find(|entry| entry["event"] == event);
            entry.unwrap_or_else(|| panic!("{name} has no {event}: {history}"))["at"].as_str().unwrap().parse().unwrap()
        };
        waits.push(at("certificate_recorded").duration_since(at("ownership_proved")).as_secs_f64());
    }
    waits
}

#[tokio::test]
async fn five_hundred_failing_names_of_one_tenant_delay_the_first_certificate_of_another_by_two_seconds_at_most() {
    let limits = CaLimits::lets_encrypt("ca.simulated.test");
    let mut slowest = [0.0f64; 2];
    for (index, failing) in [0, 500].into_iter().enumerate() {
        let mut world = Simulation::new("fairness", LIFETIME).await;
        world.ca.hold_to(dev_ca::Limits::lets_encrypt(1));
        world.work_under(&limits, 2);
        for n in 0..failing {
            let name = format!("shop{n}.big{}.com", n % 50);
            world.ca.fail(&name);
            world.onboard(&name, "big").await;
        }
        world.run_for(Duration::from_secs(600)).await;
        let mut small = Vec::new();
        for n in 0..20 {
            let name = format!("www.small{n}.com");
            world.onboard(&name, &format!("small{n}")).await;
            world.run_for(Duration::from_secs(90)).await;
            small.push(name);
        }
        let waits = waits(&world, &small).await;
        slowest[index] = waits.iter().copied().fold(0.0, f64::max);
        println!(
            "beside {failing} failing names of one tenant: first certificates after {waits:?} s; {} refused",
            world.ca.refused().len()
        );
        assert_eq!(world.ca.refused(), Vec::<String>::new());
        let waiting = world.claims().await.iter().filter(|claim| claim.state.name() == StateName::Issuing).count();
        assert_eq!(waiting, failing, "the failing names stay what they are");
        let next = world.claims().await.iter().filter_map(domains::Claim::next_look).min().unwrap();
        assert!(next <= later(world.clock.now(), Duration::from_secs(86_400)));
    }
    let [alone, beside] = slowest;
    assert!(beside - alone <= 2.0, "{beside} s beside them, {alone} s without");
}
