//! `events/schedule/tick.json` through the real handler over a local home.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{sync::Arc, time::Duration};

use bundles::{EDGE_SETTINGS_OBJECT, EdgeSettings, SealKeyPair};
use domains::{
    BundleBucket, ClaimId, ClaimKey, Clock, DomainTable, HandClock, Hostname, LookSchedule, ObjectCondition, OwnershipToken, Step,
    TenantId, decide,
};
use schedule_renewals::{PUBLISHED_AFTER, PUBLISHED_AHEAD, SIGNS_FOR, ScheduleRenewals, SigningKeys, Tick};
use serde_json::Value;
use storage::{
    consumers::QueueConsumer,
    local::{LocalConfig, LocalHome},
};
use tempfile::TempDir;

const TICK: &str = include_str!("../../../events/schedule/tick.json");
const GRACE: Duration = Duration::from_secs(30);

struct Stand {
    timer: ScheduleRenewals,
    home: Arc<LocalHome>,
    clock: Arc<HandClock>,
    _folder: TempDir,
}

impl Stand {
    /// A home with one claim, whose change nobody routed.
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
        let home = Arc::new(LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap());
        let key = ClaimKey { hostname: Hostname::parse_name("shop.client-brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
        let (claim_id, token) = (ClaimId::parse("k3q9x2m7p4").unwrap(), OwnershipToken::parse("nameplate-verify=h5r2t8w6").unwrap());
        home.commit(&decide::register(key, claim_id, token, None, &LookSchedule::default(), clock.now())).await.unwrap();
        let signing = SigningKeys { bucket: home.clone(), seal_to: SealKeyPair::generate().unwrap().public().clone() };
        let timer =
            ScheduleRenewals { due: home.clone(), queue: home.clone(), marks: home.clone(), signing, clock: clock.clone(), grace: GRACE };
        Self { timer, home, clock, _folder: folder }
    }

    async fn tick(&self) -> Tick {
        let event: Value = serde_json::from_str(TICK).unwrap();
        self.timer.handle(event).await.unwrap()
    }
}

#[tokio::test]
async fn a_claim_whose_change_was_lost_is_nudged_once_its_grace_is_over() {
    let stand = Stand::new().await;
    assert_eq!(stand.tick().await, Tick { overdue: 0, nudged: 0 }, "its look is not due yet");

    stand.clock.advance(LookSchedule::default().floor + GRACE);
    assert_eq!(stand.tick().await, Tick { overdue: 1, nudged: 1 });
    let messages = stand.home.receive(Step::VerifyOwnership, 10, Duration::from_secs(60), Duration::ZERO).await.unwrap();
    let nudged: Vec<_> = messages.iter().map(|message| message.nudge().unwrap().hostname.to_string()).collect();
    assert_eq!(nudged, ["shop.client-brand.com"]);

    assert_eq!(stand.tick().await, Tick { overdue: 1, nudged: 0 }, "the next tick leaves it to the message just sent");
}

#[tokio::test]
async fn a_home_that_cannot_be_asked_fails_the_invocation_so_that_it_is_seen() {
    let stand = Stand::new().await;
    stand.home.close().await.unwrap();
    assert!(stand.timer.handle(serde_json::from_str(TICK).unwrap()).await.is_err());
}

#[tokio::test]
async fn the_keys_of_tenant_assertions_follow_one_another_and_nothing_else_in_the_settings_is_touched() {
    let stand = Stand::new().await;
    let settings = async || EdgeSettings::from_bytes(&stand.home.get(EDGE_SETTINGS_OBJECT).await.unwrap().unwrap().0).unwrap();
    let before = EdgeSettings::new(4, vec!["thumbprint".to_owned()]);
    stand.home.put(EDGE_SETTINGS_OBJECT, &before.to_bytes(), &ObjectCondition::Absent).await.unwrap();
    stand.tick().await;
    stand.tick().await;
    let first = settings().await;
    assert_eq!((first.generation, first.signing_keys.len()), (5, 1), "one key, made once");
    assert_eq!(first.challenge_thumbprints, before.challenge_thumbprints);

    stand.clock.advance(SIGNS_FOR - PUBLISHED_AHEAD);
    stand.tick().await;
    let both = settings().await;
    assert_eq!(both.signing_keys[0], first.signing_keys[0]);
    assert!(both.signing_keys[1].sign_from >= (stand.clock.now() + PUBLISHED_AHEAD).as_second(), "it is shown before it signs");

    stand.clock.advance(PUBLISHED_AHEAD + PUBLISHED_AFTER);
    stand.tick().await;
    assert_eq!(settings().await.signing_keys, both.signing_keys[1..]);
}
