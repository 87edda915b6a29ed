//! Endpoints that take, refuse and come back, over a local home whose clock is moved by hand.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use deliver_events::{DeliverEvents, Delivered, Message, Sender};
use domains::{
    ClaimId, ClaimKey, Clock, Documents, DomainTable, EventFeed, HandClock, Hostname, LookSchedule, OwnershipToken, TenantId, decide,
    webhooks::{
        DeadLetter, Failed, GIVE_UP, PROGRESS_KIND, Progress, RETRY_CAP, Refused, Secret, WEBHOOKS_KIND, WISHES_KIND, Webhook, Wish,
        dead_letter_id, dead_letters_kind,
    },
};
use serde_json::Value;
use storage::local::{LocalConfig, LocalHome};
use tempfile::TempDir;

/// What each URL answers, and what it was sent.
#[derive(Default)]
struct Endpoints {
    refusing: Mutex<HashMap<String, Refused>>,
    slow: Mutex<Option<(String, Duration)>>,
    taken: Mutex<Vec<Message>>,
    tried: Mutex<usize>,
}

#[async_trait]
impl Sender for Endpoints {
    async fn send(&self, message: &Message) -> Result<(), Refused> {
        *self.tried.lock().unwrap() += 1;
        let slow = self.slow.lock().unwrap().clone().filter(|(url, _)| *url == message.url);
        if let Some((_, wait)) = slow {
            tokio::time::sleep(wait).await;
        }
        if let Some(refused) = self.refusing.lock().unwrap().get(&message.url) {
            return Err(refused.clone());
        }
        self.taken.lock().unwrap().push(message.clone());
        Ok(())
    }
}

impl Endpoints {
    fn refuse(&self, id: &str, refused: Refused) {
        self.refusing.lock().unwrap().insert(url(id), refused);
    }

    fn come_back(&self, id: &str) {
        self.refusing.lock().unwrap().remove(&url(id));
    }

    /// The sequence numbers an endpoint took, in the order in which it took them.
    fn numbers(&self, id: &str) -> Vec<u64> {
        self.bodies(id).iter().map(|body| body["sequence"].as_u64().unwrap()).collect()
    }

    fn bodies(&self, id: &str) -> Vec<Value> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|message| message.url == url(id)).map(|message| serde_json::from_slice(&message.body).unwrap()).collect()
    }
}

fn url(id: &str) -> String {
    format!("https://{id}.saas.net/")
}

fn away() -> Refused {
    Refused::Other { why: "answered 503".into(), retry_after: None }
}

struct Stand {
    deliverer: DeliverEvents,
    endpoints: Arc<Endpoints>,
    home: Arc<LocalHome>,
    clock: Arc<HandClock>,
    made: Mutex<usize>,
    _folder: TempDir,
}

impl Stand {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
        let home = Arc::new(LocalHome::open(LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>)).unwrap());
        let endpoints = Arc::new(Endpoints::default());
        let deliverer = DeliverEvents {
            documents: home.clone(),
            events: home.clone(),
            sender: endpoints.clone(),
            clock: clock.clone(),
            budget: Duration::from_secs(20),
        };
        Self { deliverer, endpoints, home, clock, made: Mutex::new(0), _folder: folder }
    }

    async fn webhook(&self, id: &str, change: impl FnOnce(&mut Webhook)) {
        let secret = Secret { key: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(), until: None };
        let mut webhook =
            Webhook { id: id.into(), url: url(id), events: Vec::new(), tenant: None, secrets: vec![secret], created_at: self.clock.now() };
        change(&mut webhook);
        self.home.put_document(PROGRESS_KIND, id, &serde_json::to_string(&Progress::default()).unwrap(), None).await.unwrap();
        self.home.put_document(WEBHOOKS_KIND, id, &serde_json::to_string(&webhook).unwrap(), None).await.unwrap();
    }

    /// Lets something happen: hostnames are registered.
    async fn happen(&self, count: usize, tenant: &str) {
        for _ in 0..count {
            let number = {
                let mut made = self.made.lock().unwrap();
                *made += 1;
                *made
            };
            let hostname = Hostname::parse_name(&format!("shop{number}.brand.com")).unwrap();
            let key = ClaimKey { hostname, tenant: TenantId::parse(tenant).unwrap() };
            let claim_id = ClaimId::parse(&format!("k3q9x2m7p{number}")).unwrap();
            let token = OwnershipToken::parse(&format!("nameplate-verify=h5r2t8w6{number}")).unwrap();
            self.home.commit(&decide::register(key, claim_id, token, None, &LookSchedule::default(), self.clock.now())).await.unwrap();
        }
    }

    async fn tick(&self) -> Delivered {
        self.deliverer.handle(Value::Null).await.unwrap()
    }

    async fn progress(&self, id: &str) -> Progress {
        serde_json::from_str(&self.home.document(PROGRESS_KIND, id).await.unwrap().unwrap().body).unwrap()
    }

    async fn letters(&self, id: &str) -> Vec<DeadLetter> {
        let found = self.home.documents(&dead_letters_kind(id), None, 200).await.unwrap();
        found.iter().map(|found| serde_json::from_str(&found.body).unwrap()).collect()
    }

    async fn wish(&self, id: &str, wish: Wish) {
        self.home.put_document(WISHES_KIND, id, &serde_json::to_string(&wish).unwrap(), None).await.unwrap();
    }
}

#[tokio::test]
async fn events_arrive_in_order_numbered_without_gaps_and_only_once_while_nothing_fails() {
    let stand = Stand::new();
    stand.happen(3, "brand").await;
    stand.clock.advance(Duration::from_secs(60));
    stand.webhook("all", |_| {}).await;
    stand.webhook("own", |webhook| webhook.tenant = Some(TenantId::parse("brand").unwrap())).await;
    stand.webhook("other", |webhook| webhook.events = vec!["certificate_recorded".into()]).await;
    stand.happen(120, "brand").await;
    stand.happen(5, "else").await;
    assert_eq!(stand.tick().await, Delivered { taken: 245, more: false });
    assert_eq!(stand.endpoints.numbers("all"), (1..=125).collect::<Vec<_>>(), "what happened before is not sent");
    assert_eq!(stand.endpoints.numbers("own"), (1..=120).collect::<Vec<_>>());
    assert_eq!(stand.endpoints.numbers("other"), Vec::<u64>::new());
    let first = &stand.endpoints.bodies("all")[0];
    assert_eq!((&first["type"], &first["data"]["hostname"]), (&"claim_registered".into(), &"shop4.brand.com".into()));
    assert_eq!(stand.tick().await.taken, 0);
    stand.happen(2, "brand").await;
    assert_eq!(stand.tick().await.taken, 4);
    assert_eq!(stand.endpoints.numbers("all").last(), Some(&127));
}

#[tokio::test]
async fn an_endpoint_that_was_away_gets_everything_when_it_is_back_and_nobody_else_waited_for_it() {
    let stand = Stand::new();
    stand.webhook("away", |_| {}).await;
    stand.webhook("well", |_| {}).await;
    stand.endpoints.refuse("away", away());
    stand.happen(10, "brand").await;
    assert_eq!(stand.tick().await.taken, 10);
    for _ in 0..20 {
        stand.clock.advance(RETRY_CAP);
        stand.tick().await;
    }
    assert_eq!(stand.endpoints.numbers("well").len(), 10);
    let progress = stand.progress("away").await;
    assert!(progress.attempts > 5 && progress.failing_since.is_some() && progress.sequence == 0, "{progress:?}");
    stand.endpoints.come_back("away");
    stand.clock.advance(RETRY_CAP * 2);
    stand.tick().await;
    assert_eq!(stand.endpoints.numbers("away"), (1..=10).collect::<Vec<_>>());
    assert_eq!(stand.letters("away").await, []);
}

#[tokio::test]
async fn what_is_not_taken_for_three_days_is_a_dead_letter_that_a_redelivery_brings() {
    let stand = Stand::new();
    stand.webhook("away", |_| {}).await;
    stand.endpoints.refuse("away", away());
    stand.happen(3, "brand").await;
    stand.tick().await;
    let hours = u32::try_from(GIVE_UP.as_secs() / RETRY_CAP.as_secs()).unwrap();
    for _ in 0..hours - 1 {
        stand.clock.advance(RETRY_CAP);
        stand.tick().await;
    }
    assert_eq!(stand.letters("away").await, [], "not before");
    stand.clock.advance(RETRY_CAP * 3);
    stand.tick().await;
    let letters = stand.letters("away").await;
    assert_eq!(letters.iter().map(|letter| letter.sequence).collect::<Vec<_>>(), [1, 2, 3], "{letters:?}");
    assert!(letters[0].attempts > 30 && letters[0].failure.why.contains("503"), "{letters:?}");

    // A younger event comes with the number after them, so that the receiver sees what is missing.
    stand.endpoints.come_back("away");
    stand.happen(1, "brand").await;
    stand.clock.advance(RETRY_CAP * 2);
    stand.tick().await;
    assert_eq!(stand.endpoints.numbers("away"), [4]);
    stand.wish("away", Wish { test: false, redeliver: true }).await;
    stand.tick().await;
    assert_eq!(stand.endpoints.numbers("away"), [4, 1, 2, 3]);
    assert_eq!(stand.letters("away").await, []);
    assert!(stand.home.document(WISHES_KIND, "away").await.unwrap().is_none(), "it was granted");
    let taken = stand.endpoints.taken.lock().unwrap();
    assert_eq!(taken[1].id, "msg_away_1", "a redelivered event has its own id");
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_left_alone_until_somebody_asks() {
    let stand = Stand::new();
    stand.webhook("gone", |_| {}).await;
    stand.endpoints.refuse("gone", Refused::Gone);
    stand.happen(2, "brand").await;
    stand.tick().await;
    let tried = *stand.endpoints.tried.lock().unwrap();
    stand.clock.advance(GIVE_UP);
    stand.tick().await;
    assert_eq!((tried, *stand.endpoints.tried.lock().unwrap()), (1, 1));
    assert!(stand.progress("gone").await.disabled.is_some());
    stand.endpoints.come_back("gone");
    stand.wish("gone", Wish { test: true, redeliver: true }).await;
    stand.tick().await;
    let bodies = stand.endpoints.bodies("gone");
    let types: Vec<_> = bodies.iter().map(|body| body["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["webhook.test", "claim_registered", "claim_registered"]);
    let progress = stand.progress("gone").await;
    assert!(progress.disabled.is_none() && progress.last_test.is_some_and(|test| test.failure.is_none()));
}

#[tokio::test]
async fn a_slow_endpoint_delays_no_other_even_within_one_tick() {
    let stand = Arc::new(Stand::new());
    stand.webhook("quick", |_| {}).await;
    stand.webhook("slow", |_| {}).await;
    *stand.endpoints.slow.lock().unwrap() = Some((url("slow"), Duration::from_secs(6)));
    stand.happen(1, "brand").await;
    let ticking = tokio::spawn({
        let stand = stand.clone();
        async move { stand.tick().await }
    });
    let waited = std::time::Instant::now();
    for wanted in [1, 2] {
        while stand.endpoints.numbers("quick").len() < wanted {
            assert!(waited.elapsed() < Duration::from_secs(5), "event {wanted} waits for the slow endpoint");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(stand.endpoints.numbers("slow"), Vec::<u64>::new());
        if wanted == 1 {
            stand.happen(1, "brand").await;
        }
    }
    ticking.abort();
}

#[tokio::test]
async fn two_deliverers_at_once_repeat_and_skip_nothing() {
    let stand = Stand::new();
    stand.webhook("all", |_| {}).await;
    stand.happen(150, "brand").await;
    let (one, other) = tokio::join!(stand.tick(), stand.tick());
    assert!(one.taken + other.taken >= 150);
    stand.tick().await;
    let mut numbers = stand.endpoints.numbers("all");
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (1..=150).collect::<Vec<_>>());
    assert_eq!(stand.progress("all").await.sequence, 150);
}

#[tokio::test]
async fn one_test_message_is_sent_however_long_the_redelivery_beside_it_takes() {
    let mut stand = Stand::new();
    stand.webhook("back", |_| {}).await;
    stand.endpoints.refuse("back", Refused::Gone);
    stand.happen(1, "brand").await;
    stand.tick().await;
    stand.endpoints.come_back("back");
    let event = stand.home.events(None, None, 1).await.unwrap().unwrap().items.remove(0);
    let letter = DeadLetter { sequence: 1, event, attempts: 3, failure: Failed { at: stand.clock.now(), why: "503".into() } };
    let body = serde_json::to_string(&letter).unwrap();
    stand.home.put_document(&dead_letters_kind("back"), &dead_letter_id(1), &body, None).await.unwrap();
    stand.wish("back", Wish { test: true, redeliver: true }).await;
    let types = |stand: &Stand| {
        let bodies = stand.endpoints.bodies("back");
        bodies.iter().map(|body| body["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    stand.deliverer.budget = Duration::ZERO;
    for _ in 0..3 {
        stand.tick().await;
    }
    assert_eq!(types(&stand), ["webhook.test"], "no time was left for the redelivery");
    stand.deliverer.budget = Duration::from_secs(20);
    stand.tick().await;
    assert_eq!(types(&stand), ["webhook.test", "claim_registered", "claim_registered"]);
    assert!(stand.home.document(WISHES_KIND, "back").await.unwrap().is_none(), "it was granted");
}
