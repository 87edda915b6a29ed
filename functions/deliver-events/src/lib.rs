//! Tells webhooks what happened: the feed of events, signed, one event after the other, at least once.
//!
//! Arrives: a tick. Leaves: signed messages, and how far each endpoint was told. Goes wrong: an endpoint that does not take an event (tried
//! again, and in the end a dead letter), a home that cannot be asked (the next tick makes up for it).
//!
//! Where an endpoint stands is kept after each event. A crash in between sends that one again, under the same id and number. Two deliverers
//! at once do the same: whoever keeps the place second has lost, and stops. One endpoint's order is the feed's, and no endpoint waits for
//! another. Secrets are documents of the home, as the secret of `ask` is; nothing prints them.

mod send;
mod sign;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use domains::{
    Clock, CommitError, Documents, EventFeed, StoreError,
    webhooks::{
        After, DeadLetter, Failed, MAX_WEBHOOKS, PROGRESS_KIND, Progress, Refused, Tested, WEBHOOKS_KIND, WISHES_KIND, Webhook, Wish,
        dead_letter_id, dead_letters_kind, message_id, payload,
    },
};
use futures_util::future::join_all;
use serde::{Serialize, de::DeserializeOwned};
use steps::Ticker;
use tokio::time::Instant;

pub use send::{HttpsSender, Message, PATIENCE, Sender, SetupError};

/// How long one tick may take, a last delivery not counted: well below a minute, at which a schedule sends the next.
pub const BUDGET: Duration = Duration::from_secs(30);

/// How many events are read at once.
const PAGE: usize = 100;
/// How many dead letters are read at once.
const DEAD_PAGE: usize = 50;
/// The pause of an endpoint that has all it needs, while others of the same tick still work.
const PAUSE: Duration = Duration::from_millis(500);

/// The deliverer's parts.
pub struct DeliverEvents {
    /// Endpoints, and how far each was told.
    pub documents: Arc<dyn Documents>,
    /// What happened.
    pub events: Arc<dyn EventFeed>,
    /// Sends messages.
    pub sender: Arc<dyn Sender>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// How long one tick may take.
    pub budget: Duration,
}

/// What one tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Delivered {
    /// Events that an endpoint took.
    pub taken: usize,
    /// Whether more could be sent at once.
    pub more: bool,
}

/// One endpoint, and where it stands.
struct Place {
    webhook: Webhook,
    progress: Progress,
    version: u64,
    taken: usize,
}

impl DeliverEvents {
    /// Takes the schedule's event, which says nothing that the feed does not say better, and tells every endpoint what it was not told.
    ///
    /// # Errors
    /// [`StoreError`] when the endpoints cannot be listed, or one of them cannot be served; the others were served all the same.
    pub async fn handle(&self, _event: serde_json::Value) -> Result<Delivered, StoreError> {
        let until = Instant::now() + self.budget;
        let known = self.documents.documents(WEBHOOKS_KIND, None, MAX_WEBHOOKS).await?;
        let working = AtomicUsize::new(known.len());
        let served = join_all(known.iter().map(|webhook| self.serve(&webhook.id, until, &working))).await;
        let mut delivered = Delivered::default();
        let mut failed = None;
        for result in served {
            match result {
                Ok(one) => {
                    delivered.taken += one.taken;
                    delivered.more |= one.more;
                }
                Err(error) => failed = Some(error),
            }
        }
        if delivered.taken > 0 {
            tracing::info!(step = self.name(), taken = delivered.taken, more = delivered.more, "ticked");
        }
        failed.map_or(Ok(delivered), Err)
    }

    /// Serves one endpoint until the time is over, or until it and all others have what they need: a slow one delays nobody.
    async fn serve(&self, id: &str, until: Instant, working: &AtomicUsize) -> Result<Delivered, StoreError> {
        let mut delivered = Delivered::default();
        loop {
            let passed = self.pass(id, until).await;
            working.fetch_sub(1, Ordering::SeqCst);
            let passed = passed?;
            delivered.taken += passed.taken;
            delivered.more = passed.more;
            if Instant::now() >= until {
                return Ok(delivered);
            }
            if !passed.more {
                if working.load(Ordering::SeqCst) == 0 {
                    return Ok(delivered);
                }
                tokio::time::sleep(PAUSE).await;
            }
            working.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Sends what can be sent now.
    async fn pass(&self, id: &str, until: Instant) -> Result<Delivered, StoreError> {
        let (Some((webhook, _)), Some((progress, version))) =
            (self.read::<Webhook>(WEBHOOKS_KIND, id).await?, self.read::<Progress>(PROGRESS_KIND, id).await?)
        else {
            return Ok(Delivered::default());
        };
        let mut place = Place { webhook, progress, version, taken: 0 };
        let is_ours = self.grant_wish(&mut place, until).await?;
        let waits = place.progress.next_attempt.is_some_and(|at| at > self.clock.now());
        let more = is_ours && place.progress.disabled.is_none() && !waits && self.send_page(&mut place, until).await?;
        Ok(Delivered { taken: place.taken, more })
    }

    /// Sends the next page of the feed; whether there may be another.
    async fn send_page(&self, place: &mut Place, until: Instant) -> Result<bool, StoreError> {
        let tenant = place.webhook.tenant.as_ref();
        let page = self
            .events
            .events(tenant, place.progress.cursor.as_deref(), PAGE)
            .await?
            .ok_or_else(|| StoreError::Defect { detail: format!("the cursor of webhook {} is none of this feed", place.webhook.id) })?;
        for event in page.items.iter().skip(place.progress.passed) {
            if !place.webhook.wants(event) {
                place.progress.passed += 1;
                continue;
            }
            if Instant::now() >= until {
                return self.keep(place).await;
            }
            let sequence = place.progress.sequence + 1;
            let sent = self.send(&place.webhook, &message_id(&place.webhook.id, sequence), &payload(sequence, event)).await;
            let now = self.clock.now();
            let goes_on = match sent {
                Ok(()) => {
                    place.progress.take(now);
                    place.taken += 1;
                    true
                }
                Err(refused) => {
                    let attempts = place.progress.attempts.saturating_add(1);
                    let after = place.progress.fail(&place.webhook.id, event, &refused, now);
                    tracing::warn!(webhook = place.webhook.id, sequence, attempts, why = refused.why(), ?after, "an event was not taken");
                    if after == After::DeadLetter {
                        let failure = Failed { at: now, why: refused.why().to_owned() };
                        self.bury(&place.webhook.id, &DeadLetter { sequence, event: event.clone(), attempts, failure }).await?;
                    }
                    after == After::DeadLetter && place.progress.disabled.is_none()
                }
            };
            if !self.keep(place).await? || !goes_on {
                return Ok(false);
            }
        }
        if !page.items.is_empty() || page.more {
            place.progress.cursor = Some(page.cursor);
            place.progress.passed = 0;
            return Ok(self.keep(place).await? && page.more);
        }
        Ok(false)
    }

    /// Does what the operator asked for; `false` when another deliverer is at this endpoint.
    async fn grant_wish(&self, place: &mut Place, until: Instant) -> Result<bool, StoreError> {
        let id = place.webhook.id.clone();
        let Some((wish, mut version)) = self.read::<Wish>(WISHES_KIND, &id).await? else { return Ok(true) };
        if wish.test {
            let now = self.clock.now();
            let test = serde_json::json!({ "type": "webhook.test", "timestamp": now, "data": { "webhook": id } });
            let sent = self.send(&place.webhook, &format!("msg_{id}_test_{}", now.as_second()), &test).await;
            place.progress.last_test = Some(Tested { at: now, failure: sent.err().map(|refused| refused.why().to_owned()) });
        }
        if wish.redeliver {
            place.progress.disabled = None;
            place.progress.next_attempt = None;
            place.progress.dead_in_a_row = 0;
        }
        if !self.keep(place).await? {
            return Ok(false);
        }
        if wish.test && wish.redeliver {
            // The redelivery may outlast this tick, and one test is what was asked for.
            let rest = serialise(&Wish { test: false, ..wish })?;
            version = match self.documents.put_document(WISHES_KIND, &id, &rest, Some(version)).await {
                Ok(version) => version,
                Err(CommitError::Conflict) => return Ok(true),
                Err(CommitError::Store(error)) => return Err(error),
            };
        }
        // Where there is no time left in this tick, the wish stays.
        if wish.redeliver && !(self.redeliver(place, until).await? && self.keep(place).await?) {
            return Ok(false);
        }
        match self.documents.delete_document(WISHES_KIND, &id, version).await {
            // Something more was asked for meanwhile; it is granted with the next pass.
            Ok(()) | Err(CommitError::Conflict) => Ok(true),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    /// Sends dead letters again, the oldest first, until one is not taken; `false` when the time is over before.
    async fn redeliver(&self, place: &mut Place, until: Instant) -> Result<bool, StoreError> {
        let kind = dead_letters_kind(&place.webhook.id);
        loop {
            let letters = self.documents.documents(&kind, None, DEAD_PAGE).await?;
            if letters.is_empty() {
                return Ok(true);
            }
            for found in letters {
                if Instant::now() >= until {
                    return Ok(false);
                }
                let mut letter: DeadLetter = parse(&kind, &found.body)?;
                let message = payload(letter.sequence, &letter.event);
                match self.send(&place.webhook, &message_id(&place.webhook.id, letter.sequence), &message).await {
                    Ok(()) => {
                        place.taken += 1;
                        settled(self.documents.delete_document(&kind, &found.id, found.version).await)?;
                        place.progress.recover(self.clock.now());
                    }
                    Err(refused) => {
                        letter.attempts = letter.attempts.saturating_add(1);
                        letter.failure = Failed { at: self.clock.now(), why: refused.why().to_owned() };
                        let body = serialise(&letter)?;
                        settled(self.documents.put_document(&kind, &found.id, &body, Some(found.version)).await)?;
                        return Ok(true);
                    }
                }
            }
        }
    }

    async fn send(&self, webhook: &Webhook, id: &str, message: &serde_json::Value) -> Result<(), Refused> {
        let (now, body) = (self.clock.now(), Bytes::from(message.to_string()));
        let seconds = now.as_second();
        let signatures: Vec<String> = webhook.signing(now).filter_map(|secret| sign::signature(&secret.key, id, seconds, &body)).collect();
        if signatures.is_empty() {
            return Err(Refused::Other { why: "the secret does not read; rotate it".into(), retry_after: None });
        }
        let message = Message { url: webhook.url.clone(), id: id.to_owned(), seconds, signature: signatures.join(" "), body };
        self.sender.send(&message).await
    }

    /// Keeps a dead letter; one that a crash left is the same.
    async fn bury(&self, webhook: &str, letter: &DeadLetter) -> Result<(), StoreError> {
        let kept =
            self.documents.put_document(&dead_letters_kind(webhook), &dead_letter_id(letter.sequence), &serialise(letter)?, None).await;
        settled(kept)
    }

    /// Keeps where the endpoint stands; `false` when another deliverer kept it first, or the endpoint is gone.
    async fn keep(&self, place: &mut Place) -> Result<bool, StoreError> {
        let body = serialise(&place.progress)?;
        match self.documents.put_document(PROGRESS_KIND, &place.webhook.id, &body, Some(place.version)).await {
            Ok(version) => {
                place.version = version;
                Ok(true)
            }
            Err(CommitError::Conflict) => Ok(false),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    async fn read<T: DeserializeOwned>(&self, kind: &str, id: &str) -> Result<Option<(T, u64)>, StoreError> {
        let found = self.documents.document(kind, id).await?;
        found.map(|found| Ok((parse(kind, &found.body)?, found.version))).transpose()
    }
}

#[async_trait]
impl Ticker for DeliverEvents {
    fn name(&self) -> &'static str {
        "deliver-events"
    }

    async fn tick(&self) -> Result<bool, StoreError> {
        Ok(self.handle(serde_json::Value::Null).await?.more)
    }
}

fn parse<T: DeserializeOwned>(kind: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|error| StoreError::Defect { detail: format!("a {kind} does not read: {error}") })
}

fn serialise(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Defect { detail: format!("a webhook's document does not serialise: {error}") })
}

/// Someone else having written first is as good.
fn settled<T>(result: Result<T, CommitError>) -> Result<(), StoreError> {
    match result {
        Ok(_) | Err(CommitError::Conflict) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}
