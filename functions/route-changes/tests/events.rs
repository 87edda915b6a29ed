//! `events/dynamodb` through the real handler over a local home.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{sync::Arc, time::Duration};

use aws_lambda_events::event::dynamodb::{Event, EventRecord};
use domains::{Clock, HandClock, Step};
use route_changes::RouteChanges;
use storage::{
    consumers::{Message, QueueConsumer},
    local::{LocalConfig, LocalHome},
};
use tempfile::TempDir;

const CHANGED: &str = include_str!("../../../events/dynamodb/claim-changed.json");

struct Stand {
    route: RouteChanges,
    home: LocalHome,
    clock: Arc<HandClock>,
    _folder: TempDir,
}

impl Stand {
    fn at(now: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at(now.parse().unwrap()));
        let home = LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap();
        let route = RouteChanges { queue: Arc::new(home.clone()), clock: clock.clone() };
        Self { route, home, clock, _folder: folder }
    }

    async fn received(&self, step: Step) -> Vec<Message> {
        self.home.receive(step, 10, Duration::from_secs(60), Duration::ZERO).await.unwrap()
    }

    async fn waiting(&self) -> usize {
        let mut waiting = 0;
        for step in Step::ALL {
            waiting += self.received(*step).await.len();
        }
        waiting
    }
}

fn event() -> Event {
    serde_json::from_str(CHANGED).unwrap()
}

/// The file's claim, with a state that no version of ours wrote.
fn unreadable(sequence: &str) -> EventRecord {
    let mut record = event().records.remove(0);
    record.change.sequence_number = Some(sequence.to_owned());
    record.change.new_image.remove("state");
    record
}

#[tokio::test]
async fn a_new_claim_is_nudged_when_its_first_look_is_due_and_its_history_item_is_not() {
    let stand = Stand::at("2026-11-24T10:00:00Z");
    let response = stand.route.handle(event()).await;
    assert_eq!(response.batch_item_failures, []);
    assert_eq!(stand.waiting().await, 0, "the look is due in five seconds");

    stand.clock.advance(Duration::from_secs(5));
    let messages = stand.received(Step::VerifyOwnership).await;
    assert_eq!(messages.len(), 1);
    let nudge = messages[0].nudge().unwrap();
    assert_eq!((nudge.hostname.as_str(), nudge.tenant.as_str(), nudge.version), ("shop.client-brand.com", "brand", 1));
    assert_eq!(stand.waiting().await, 0, "one claim that waits for one step is nudged for that step only");
}

#[tokio::test]
async fn a_look_further_ahead_than_a_queue_can_hold_is_left_to_the_timer() {
    let stand = Stand::at("2026-11-24T09:00:00Z");
    assert_eq!(stand.route.handle(event()).await.batch_item_failures, []);
    stand.clock.advance(Duration::from_secs(7200));
    assert_eq!(stand.waiting().await, 0);
}

#[tokio::test]
async fn a_record_that_does_not_read_is_named_and_those_before_it_are_sent() {
    let stand = Stand::at("2026-11-24T10:00:05Z");
    let mut event = event();
    event.records.insert(1, unreadable("1405400000000002063282899"));
    let response = stand.route.handle(event).await;
    let failed: Vec<_> = response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_deref()).collect();
    assert_eq!(failed, [Some("1405400000000002063282899")]);
    assert_eq!(stand.received(Step::VerifyOwnership).await.len(), 1);
}

#[tokio::test]
async fn a_queue_that_cannot_be_reached_sends_the_batch_again_from_its_first_record() {
    let stand = Stand::at("2026-11-24T10:00:00Z");
    stand.home.close().await.unwrap();
    let response = stand.route.handle(event()).await;
    let failed: Vec<_> = response.batch_item_failures.iter().map(|failure| failure.item_identifier.as_deref()).collect();
    assert_eq!(failed, [Some("1405400000000002063282832")]);
}
