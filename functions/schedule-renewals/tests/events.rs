//! `events/schedule/tick.json` through the real handler over a local home.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{sync::Arc, time::Duration};

use bundles::{EDGE_SETTINGS_OBJECT, EdgeSettings, SealKeyPair};
use domains::{
    BundleBucket, ClaimId, ClaimKey, Clock, DomainTable, HandClock, Hostname, LookSchedule, ObjectCondition, OwnershipToken, Step,
    TenantId, decide,
};
use schedule_renewals::{
    EdgeKeys, OPENS_AFTER, PUBLISHED_AFTER, PUBLISHED_AHEAD, SEALS_FOR, SHARED_AHEAD, SIGNS_FOR, ScheduleRenewals, Tick,
};
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
        let seal_to = SealKeyPair::generate().unwrap().public().clone();
        let keys = EdgeKeys { bucket: home.clone(), seal_to, shared_tickets: false };
        let timer =
            ScheduleRenewals { due: home.clone(), queue: home.clone(), marks: home.clone(), keys, clock: clock.clone(), grace: GRACE };
        Self { timer, home, clock, _folder: folder }
    }

    async fn settings(&self) -> EdgeSettings {
        EdgeSettings::from_bytes(&self.home.get(EDGE_SETTINGS_OBJECT).await.unwrap().unwrap().0).unwrap()
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
    let before = EdgeSettings::new(4, vec!["thumbprint".to_owned()]);
    stand.home.put(EDGE_SETTINGS_OBJECT, &before.to_bytes(), &ObjectCondition::Absent).await.unwrap();
    stand.tick().await;
    stand.tick().await;
    let first = stand.settings().await;
    assert_eq!((first.generation, first.signing_keys.len()), (5, 1), "one key, made once");
    assert_eq!(first.ticket_keys, [], "edges share no keys of tickets unless told to");
    assert_eq!(first.challenge_thumbprints, before.challenge_thumbprints);

    stand.clock.advance(SIGNS_FOR - PUBLISHED_AHEAD);
    stand.tick().await;
    let both = stand.settings().await;
    assert_eq!(both.signing_keys[0], first.signing_keys[0]);
    assert!(both.signing_keys[1].sign_from >= (stand.clock.now() + PUBLISHED_AHEAD).as_second(), "it is shown before it signs");

    stand.clock.advance(PUBLISHED_AHEAD + PUBLISHED_AFTER);
    stand.tick().await;
    assert_eq!(stand.settings().await.signing_keys, both.signing_keys[1..]);
}

#[tokio::test]
async fn where_edges_share_them_ticket_keys_follow_one_another_without_a_gap() {
    let mut stand = Stand::new().await;
    stand.timer.keys.shared_tickets = true;
    stand.tick().await;
    let first = stand.settings().await;
    assert_eq!((first.signing_keys.len(), first.ticket_keys.len(), first.generation), (1, 1, 1), "one write for both");
    let mut known = first.ticket_keys;
    // Three days, an hour at a time: there is always one that seals, seen an hour before, and never more than are needed.
    for _ in 0..72 {
        stand.clock.advance(Duration::from_secs(3600));
        stand.tick().await;
        let now = stand.clock.now().as_second();
        let keys = stand.settings().await.ticket_keys;
        let (ahead, open) = (SHARED_AHEAD.as_secs().cast_signed(), (SEALS_FOR + OPENS_AFTER).as_secs().cast_signed());
        for key in keys.iter().filter(|key| !known.contains(key)) {
            assert!(key.issue_from >= now + ahead && key.accept_until == key.issue_from + open, "{key:?}");
        }
        let sealing = keys.iter().filter(|key| key.issue_from <= now).max_by_key(|key| key.issue_from).unwrap();
        assert!(now - sealing.issue_from <= SEALS_FOR.as_secs().cast_signed(), "{keys:?}");
        assert!(keys.len() <= 3 && keys.iter().all(|key| key.accept_until > now), "{keys:?}");
        let opened_before = known.iter().filter(|key| key.accept_until > now);
        assert!(opened_before.into_iter().all(|key| keys.contains(key)), "none goes before its end");
        known = keys;
    }
}
