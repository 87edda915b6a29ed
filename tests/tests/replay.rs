//! Every message that was ever sent, delivered again at the end and in any order.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use domains::{Claim, DomainTable, Hostname, Owner, StateName};
use futures_util::{StreamExt, stream};
use http::Method;
use system_tests::{chance::Chance, simulation::Simulation, sizes::size};

const DAY: Duration = Duration::from_secs(86_400);
const LIFETIME: Duration = Duration::from_secs(8 * 86_400);

/// Everything that lasts: claims, owners, the bucket byte by byte, orders at the CA.
#[derive(Debug, PartialEq)]
struct World {
    claims: Vec<Claim>,
    owners: Vec<Option<Owner>>,
    bucket: BTreeMap<String, Vec<u8>>,
    orders: u64,
}

async fn everything(world: &Simulation, names: &[String]) -> World {
    let mut owners = Vec::new();
    for name in names {
        owners.push(world.home.owner(&Hostname::parse_name(name).unwrap()).await.unwrap());
    }
    let mut bucket = BTreeMap::new();
    files(world.home.bucket_folder(), &mut bucket);
    World { claims: world.claims().await, owners, bucket, orders: world.ca.orders() }
}

fn files(folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
}

#[tokio::test]
async fn every_message_ever_sent_changes_nothing_when_it_comes_again_in_any_order() {
    let count = size(60, 600);
    let mut chance = Chance::seeded("replay");
    let mut world = Simulation::new("replay home", LIFETIME).await;
    world.recorder.keep();
    let names: Vec<String> = (0..count).map(|n| format!("shop{n}.brand{}.com", n % 10)).collect();
    stream::iter(&names).for_each_concurrent(16, |name| world.onboard(name, "first")).await;
    // Long enough for one renewal each.
    world.run_for(DAY * 5).await;
    let (kept, gone) = names.split_at(count / 3);
    let (moved, removed) = gone.split_at(count / 3);
    for name in gone {
        world.ask(Method::DELETE, &format!("/v1/domains/{name}?tenant=first"), None).await;
    }
    world.run_for(Duration::from_secs(600)).await;
    for name in moved {
        world.onboard(name, "second").await;
    }
    world.run_for(Duration::from_secs(3_600)).await;
    let states = world.claims().await.into_iter().fold(BTreeMap::new(), |mut states, claim| {
        *states.entry((claim.key.tenant.to_string(), claim.state.name())).or_insert(0) += 1;
        states
    });
    let expected = [
        (("first".to_owned(), StateName::Active), kept.len()),
        (("first".to_owned(), StateName::Removed), gone.len()),
        (("second".to_owned(), StateName::Active), moved.len()),
    ];
    assert_eq!(states, BTreeMap::from(expected), "the story is told before its messages are repeated");
    assert_eq!(world.ca.orders() as usize, 2 * count + moved.len(), "one renewal each, and a certificate for the second owner");

    let before = everything(&world, &names).await;
    assert!(removed.iter().all(|name| {
        before
            .bucket
            .iter()
            .any(|(path, bytes)| path.ends_with(&format!("{name}.json")) && String::from_utf8_lossy(bytes).contains("removed"))
    }));
    for round in 0..3 {
        let messages = world.recorder.replay(&mut chance).await;
        world.run_for(Duration::from_secs(60)).await;
        println!("round {round}: {messages} messages delivered again");
        assert!(messages > count * 6, "only {messages} messages for {count} names");
        assert_eq!(everything(&world, &names).await, before, "round {round}");
    }
}
