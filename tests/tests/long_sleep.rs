//! A timer that was away for days: what fell due meanwhile is done when it is back, once.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::HashMap, time::Duration};

use domains::{Clock, StateName};
use futures_util::{StreamExt, stream};
use system_tests::{
    simulation::{Simulation, later},
    sizes::size,
};

const DAY: Duration = Duration::from_secs(86_400);
/// Renewed at half of its life, which is while the timer is away.
const LIFETIME: Duration = Duration::from_secs(8 * 86_400);

#[tokio::test]
async fn what_fell_due_while_the_timer_slept_three_days_is_done_once_when_it_is_back() {
    let count = size(200, 2_000);
    let mut world = Simulation::new("long_sleep", LIFETIME).await;
    let names: Vec<String> = (0..count).map(|n| format!("shop{n}.brand{}.com", n % 20)).collect();
    stream::iter(&names).for_each_concurrent(16, |name| world.onboard(name, "brand")).await;
    world.run_for(DAY * 2).await;
    let issued = world.ca.issued();
    assert!(names.iter().all(|name| issued[name].len() == 1), "one certificate each before the timer sleeps");

    world.timer = false;
    world.dns.take_looks();
    world.run_for(DAY * 3).await;
    assert_eq!(world.ca.orders(), count as u64, "nobody was there to see that renewals were due");
    let due = world.claims().await.iter().filter(|claim| claim.next_look().unwrap() < world.clock.now()).count();
    assert_eq!(due, count, "every name fell due");

    let versions: HashMap<_, _> = world.claims().await.into_iter().map(|claim| (claim.key.clone(), claim.version)).collect();
    world.timer = true;
    world.run_for(Duration::from_secs(3_600)).await;
    let issued = world.ca.issued();
    let twice = |name: &String| issued[name].len() == 2;
    let wrong: Vec<_> = names.iter().filter(|name| !twice(name)).map(|name| (name, &issued[name])).collect();
    assert!(wrong.is_empty(), "not renewed exactly once: {wrong:?}");
    assert_eq!(world.ca.orders(), 2 * count as u64, "no order was wasted");
    for claim in world.claims().await {
        assert_eq!((claim.state.name(), &claim.problem), (StateName::Active, &None), "{}", claim.key);
        let next = claim.next_look().unwrap();
        assert!(next > world.clock.now(), "{} is due again already: {next}", claim.key);
        assert!(next < later(world.clock.now(), DAY * 2), "{} is looked at no more: {next}", claim.key);
    }
    // What is written down of it, in five writes: the health look, the worker's lease, the order, the certificate, its publication. Looks at
    // DNS may be made for a repeated nudge too; only one of them is recorded.
    for claim in world.claims().await {
        let written = claim.version - versions[&claim.key];
        assert_eq!(written, 5, "{} was written {written} times", claim.key);
    }
    assert_eq!(world.dns.take_looks().len(), count, "a name whose health was not looked at");
}
