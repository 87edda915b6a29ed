//! Ninety days of a fleet whose certificates live forty-five, under Let's Encrypt's limits and with everything that a CA does in a bad quarter:
//! a week of silence when the first renewals are due, one request in twenty refused, every certificate recalled at once.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use domains::{Clock, StateName, Timestamp, ledger::CaLimits};
use futures_util::{StreamExt, stream};
use system_tests::{
    simulation::{Simulation, later},
    sizes::size,
};

const DAY: Duration = Duration::from_secs(86_400);
const LIFETIME: Duration = Duration::from_secs(45 * 86_400);

async fn writes(world: &Simulation) -> u64 {
    world.claims().await.iter().map(|claim| claim.version).sum()
}

/// Writes per name on a day on which nothing but looks is due.
async fn quiet_day(world: &mut Simulation, count: usize) -> f64 {
    let before = writes(world).await;
    world.run_for(DAY).await;
    (writes(world).await - before) as f64 / count as f64
}

#[tokio::test]
async fn no_certificate_ends_and_no_limit_is_met_in_ninety_bad_days() {
    let count = size(12, 1_000);
    let mut world = Simulation::with_windows("ninety_days", LIFETIME).await;
    // Virtual months: the timer need not tick as often as on AWS.
    world.tick = Duration::from_secs(900);
    world.ca.hold_to(dev_ca::Limits::lets_encrypt(1));
    world.ca.throttle(5);
    world.ca.crash(2);
    world.work_under(&CaLimits::lets_encrypt("ca.simulated.test"), 2);
    let names: Vec<String> = (0..count).map(|n| format!("shop{n}.brand{}.com", n / 20)).collect();
    stream::iter(&names).for_each_concurrent(16, |name| world.onboard(name, name.split('.').nth(1).unwrap())).await;
    let start = world.clock.now();
    let day = |number: u32| later(start, DAY * number);

    world.run_until(day(10)).await;
    let quiet = quiet_day(&mut world, count).await;
    world.run_until(day(27)).await;
    assert!(names.iter().all(|name| world.ca.issued()[name].len() == 1), "renewed before it is due, or twice");
    world.ca.set_down(true);
    world.run_until(day(34)).await;
    world.ca.set_down(false);
    world.run_until(day(60)).await;
    let renewed = world.ca.orders();
    world.ca.renew_everything();
    world.run_until(later(day(60), DAY)).await;
    let recalled: Vec<Timestamp> = names.iter().map(|name| world.ca.issued()[name].last().unwrap().0).collect();
    let late = recalled.iter().filter(|at| **at < day(60)).count();
    assert_eq!(late, 0, "not replaced within a day of their recall: {late} of {count}");
    world.run_until(day(90)).await;

    assert_eq!(world.ca.refused(), Vec::<String>::new(), "the CA answered rateLimited");
    for (name, certificates) in &world.ca.issued() {
        let gap = certificates.windows(2).find(|pair| pair[1].0 >= pair[0].1);
        assert!(gap.is_none(), "{name} was without a certificate: {gap:?}");
        assert!(certificates.last().unwrap().1 > world.clock.now(), "{name} has no certificate at the end");
    }
    for claim in world.claims().await {
        assert_eq!(claim.state.name(), StateName::Active, "{}", claim.key);
    }
    println!(
        "{count} names, 90 days: {} orders, {} of them after the recall; {} workers ended on their way; a quiet day costs {quiet:.2} writes a name",
        world.ca.orders(),
        world.ca.orders() - renewed,
        world.ca.crashes(),
    );
    assert!(world.ca.orders() <= 4 * count as u64, "orders were wasted: {}", world.ca.orders());
    // Four looks at the renewal window and one at DNS, one in twenty asked again.
    assert!(quiet <= 6.0, "a day on which nothing is due costs {quiet} writes a name");
}
