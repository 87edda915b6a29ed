//! `events/schedule/tick.json` through the real handler over a local home.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{sync::Arc, time::Duration};

use domains::{ClaimId, ClaimKey, Clock, DomainTable, HandClock, Hostname, LookSchedule, OwnershipToken, Step, TenantId, decide};
use schedule_renewals::{ScheduleRenewals, Tick};
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
        let timer = ScheduleRenewals { due: home.clone(), queue: home.clone(), marks: home.clone(), clock: clock.clone(), grace: GRACE };
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
