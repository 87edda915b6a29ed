//! What AWS does between the functions, on one machine: the change feed to route-changes, each queue to its step, the timer.
//!
//! Arrives: a home's feed and queues and the functions' handlers, the very ones that run as Lambdas, called with the very events. Leaves:
//! nothing but what they do. Goes wrong: a home that cannot be asked for a moment (asked again), a handler that fails (its message comes back,
//! and goes to the dead letters after that).
//!
//! [`Pipeline::start`] runs it beside the clock on the wall; [`Pipeline::settle`] takes what is there now, for whoever moves a clock by hand.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use aws_lambda_events::event::{
    dynamodb::{Event, EventRecord, StreamRecord},
    sqs::{SqsBatchResponse, SqsEvent, SqsMessage},
};
use domains::{Step, StoreError};
use futures_util::future::{join_all, try_join_all};
use issue_certificate::IssueCertificate;
use publish_site::PublishSite;
use route_changes::RouteChanges;
use schedule_renewals::ScheduleRenewals;
use steps::Ticker;
use storage::consumers::{FeedConsumer, FeedRecord, MAX_RECEIVED, Message, QueueConsumer};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use verify_ownership::VerifyOwnership;

/// How long a received message stays invisible: longer than any step may take.
const VISIBILITY: Duration = Duration::from_secs(180);
/// How long one call waits for something to arrive; also how long a stop waits for the receivers.
const LONG_POLL: Duration = Duration::from_secs(1);
/// The pause after a home could not be asked.
const PAUSE: Duration = Duration::from_millis(250);
/// The most messages publish-site takes at once; on AWS its event source mapping's batch window gathers as many.
const PUBLISH_BATCH: usize = 100;
/// How many records of the feed are routed at once.
const FEED_BATCH: usize = 100;

/// The steps that a queue feeds, each with how many batches are worked on at once.
const QUEUES: [(Step, usize); 3] = [(Step::VerifyOwnership, 6), (Step::IssueCertificate, 8), (Step::PublishSite, 1)];

/// The functions on one machine.
pub struct Pipeline {
    /// Where changes are read.
    pub feed: Arc<dyn FeedConsumer>,
    /// Where nudges are received.
    pub queues: Arc<dyn QueueConsumer>,
    /// Turns changes into nudges.
    pub route: RouteChanges,
    /// Looks at DNS.
    pub verify: VerifyOwnership,
    /// Orders certificates.
    pub issue: IssueCertificate,
    /// Writes the bucket.
    pub publish: Arc<PublishSite>,
    /// Nudges what is overdue.
    pub timer: ScheduleRenewals,
    /// How often the timer ticks; `None`: never.
    pub timer_interval: Option<Duration>,
    /// Whether the change feed is read at all.
    pub stream: bool,
}

/// The running pipeline; stops when told.
pub struct Running {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Pipeline {
    /// Starts reading the feed and the queues, and the timer.
    pub fn start(self) -> Running {
        self.start_with(NonZeroUsize::MIN)
    }

    /// The same with so many workers: each receives from every queue for itself and works on as many batches as one alone would, as another
    /// instance of the functions does on AWS. They share nothing but the home. The feed and the timer have one.
    pub fn start_with(self, workers: NonZeroUsize) -> Running {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let this = Arc::new(self);
        if this.stream {
            tasks.spawn(this.clone().feed_loop(stopped.clone()));
        }
        if let Some(interval) = this.timer_interval {
            tasks.spawn(this.clone().timer_loop(interval, stopped.clone()));
        }
        for _ in 0..workers.get() {
            for (step, batches) in QUEUES {
                tasks.spawn(this.clone().queue_loop(step, batches, stopped.clone()));
            }
        }
        Running { stop, tasks }
    }

    /// Takes whatever is visible now, and whatever follows from it at once, and comes back when the feed and the queues show nothing more.
    /// What is due later, or was failed and is hidden for a while, waits for the clock to be moved. Says how many batches were taken.
    ///
    /// # Errors
    /// As the home's; what was taken until then is done.
    pub async fn settle(&self) -> Result<usize, StoreError> {
        let mut taken = 0;
        loop {
            let before = taken;
            if self.stream {
                let batch = self.feed.next_batch(FEED_BATCH, Duration::ZERO).await?;
                if !batch.is_empty() {
                    self.route_batch(batch).await?;
                    taken += 1;
                }
            }
            for (step, batches) in QUEUES {
                // As many at once as beside the clock on the wall.
                let received = try_join_all((0..batches).map(|_| self.gather(step, Duration::ZERO))).await?;
                let work = received.into_iter().filter(|messages| !messages.is_empty()).map(|messages| self.work(step, messages));
                taken += join_all(work).await.len();
            }
            if taken == before {
                return Ok(taken);
            }
        }
    }

    async fn feed_loop(self: Arc<Self>, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let batch = tokio::select! {
                batch = self.feed.next_batch(FEED_BATCH, LONG_POLL) => batch,
                _ = stopped.changed() => return,
            };
            let routed = match batch {
                Ok(batch) if batch.is_empty() => continue,
                Ok(batch) => self.route_batch(batch).await,
                Err(error) => Err(error),
            };
            if let Err(error) = routed {
                tracing::error!(step = "route-changes", %error, "the change feed stands still for a moment");
                pause(&mut stopped).await;
            }
        }
    }

    async fn route_batch(&self, batch: Vec<FeedRecord>) -> Result<(), StoreError> {
        let sequences: Vec<u64> = batch.iter().map(|record| record.sequence).collect();
        let mut event = Event::default();
        event.records = batch.into_iter().map(stream_record).collect::<Result<_, _>>()?;
        let response = self.route.handle(event).await;
        let failed = response.batch_item_failures.first().map(|failure| failure.item_identifier.clone());
        let done = match failed {
            None => sequences.len(),
            Some(id) => sequences.iter().position(|sequence| Some(sequence.to_string()) == id).unwrap_or(0),
        };
        self.feed.acknowledge(&sequences[..done]).await?;
        if done < sequences.len() {
            return Err(StoreError::Unavailable { detail: "a change was not routed; it is shown again".into() });
        }
        Ok(())
    }

    async fn timer_loop(self: Arc<Self>, interval: Duration, mut stopped: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stopped.changed() => return,
            }
            match self.timer.tick().await {
                Ok(tick) if tick.nudged > 0 => {
                    tracing::debug!(step = "schedule-renewals", overdue = tick.overdue, nudged = tick.nudged, "ticked")
                }
                Ok(_) => {}
                Err(error) => tracing::error!(step = "schedule-renewals", %error, "this tick is made up for by the next"),
            }
        }
    }

    async fn queue_loop(self: Arc<Self>, step: Step, batches: usize, mut stopped: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(batches));
        let mut working = JoinSet::new();
        while !*stopped.borrow() {
            // The semaphore is never closed; an error would only mean that there is no room.
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            while working.try_join_next().is_some() {}
            let received = tokio::select! {
                received = self.gather(step, LONG_POLL) => received,
                _ = stopped.changed() => break,
            };
            match received {
                Ok(messages) if messages.is_empty() => {}
                Ok(messages) => {
                    let this = self.clone();
                    working.spawn(async move {
                        this.work(step, messages).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::error!(step = step.as_str(), %error, "the queue stands still for a moment");
                    pause(&mut stopped).await;
                }
            }
        }
        while working.join_next().await.is_some() {}
    }

    /// Receives one batch: ten messages, or up to [`PUBLISH_BATCH`] for publish-site, whose writes to the index are shared by a batch.
    async fn gather(&self, step: Step, wait: Duration) -> Result<Vec<Message>, StoreError> {
        let mut batch = self.queues.receive(step, MAX_RECEIVED, VISIBILITY, wait).await?;
        let most = if step == Step::PublishSite { PUBLISH_BATCH } else { MAX_RECEIVED };
        let mut full = batch.len() == MAX_RECEIVED;
        while full && batch.len() < most {
            // What was received already is worked on, whatever becomes of the next call.
            let Ok(more) = self.queues.receive(step, MAX_RECEIVED, VISIBILITY, Duration::ZERO).await else { break };
            full = more.len() == MAX_RECEIVED;
            batch.extend(more);
        }
        Ok(batch)
    }

    async fn work(&self, step: Step, messages: Vec<Message>) {
        let event = sqs_event(&messages);
        let response = match step {
            Step::VerifyOwnership => steps::handle_batch(&self.verify, event).await,
            Step::IssueCertificate => steps::handle_batch(&self.issue, event).await,
            Step::PublishSite => self.publish.handle_batch(event).await,
        };
        let done = messages.iter().filter(|message| !is_failed(&response, &message.id));
        let deleted = join_all(done.map(|message| self.queues.delete(&message.receipt))).await;
        for error in deleted.into_iter().filter_map(Result::err) {
            tracing::warn!(step = step.as_str(), %error, "a finished message was not deleted; it comes again and changes nothing");
        }
        // SQS would show a failed message again when its visibility ends; on one machine there is no reason to wait that long.
        for message in messages.iter().filter(|message| is_failed(&response, &message.id)) {
            let wait = Duration::from_secs(1 << message.receive_count.min(6));
            if let Err(error) = self.queues.change_visibility(&message.receipt, wait).await {
                tracing::warn!(step = step.as_str(), %error, "a failed message comes again only when its visibility ends");
            }
        }
    }
}

impl Running {
    /// Lets something else tick beside the functions, at this pace, until all of it stops.
    pub fn tick(&mut self, ticker: Arc<dyn Ticker>, interval: Duration) {
        self.tasks.spawn(ticker_loop(ticker, interval, self.stop.subscribe()));
    }

    /// Stops receiving, lets what is being worked on finish, and says whether it did in time.
    pub async fn stop(mut self, within: Duration) -> bool {
        self.stop.send_replace(true);
        let finished = tokio::time::timeout(within, async { while self.tasks.join_next().await.is_some() {} }).await.is_ok();
        self.tasks.abort_all();
        finished
    }
}

async fn ticker_loop(ticker: Arc<dyn Ticker>, interval: Duration, mut stopped: watch::Receiver<bool>) {
    let step = ticker.name();
    while !*stopped.borrow() {
        // What a stop interrupts is done again at the next start, as after a crash.
        let ticked = tokio::select! {
            ticked = ticker.tick() => ticked,
            _ = stopped.changed() => return,
        };
        let has_more = ticked.unwrap_or_else(|error| {
            tracing::error!(step, %error, "this tick is made up for by the next");
            false
        });
        if !has_more {
            let _ = tokio::time::timeout(interval, stopped.changed()).await;
        }
    }
}

async fn pause(stopped: &mut watch::Receiver<bool>) {
    // Either the pause is over or the pipeline stops; both end it.
    let _ = tokio::time::timeout(PAUSE, stopped.changed()).await;
}

fn is_failed(response: &SqsBatchResponse, id: &str) -> bool {
    response.batch_item_failures.iter().any(|failure| failure.item_identifier == id)
}

/// The record as DynamoDB Streams would show it.
fn stream_record(record: FeedRecord) -> Result<EventRecord, StoreError> {
    let mut image = record.image;
    if let Some(item) = image.as_object_mut() {
        item.insert(route_changes::KIND.0.to_owned(), route_changes::KIND.1.into());
    }
    let item = serde_dynamo::to_item(image)
        .map_err(|error| StoreError::Defect { detail: format!("feed record {} cannot be shown as an item: {error}", record.sequence) })?;
    let mut change = StreamRecord::default();
    change.new_image = item;
    change.sequence_number = Some(record.sequence.to_string());
    let mut shown = EventRecord::default();
    shown.event_name = "MODIFY".into();
    shown.change = change;
    Ok(shown)
}

/// The messages as SQS would show them.
fn sqs_event(messages: &[Message]) -> SqsEvent {
    let mut event = SqsEvent::default();
    event.records = messages
        .iter()
        .map(|message| {
            let mut shown = SqsMessage::default();
            shown.message_id = Some(message.id.clone());
            shown.body = Some(message.body.clone());
            shown
        })
        .collect();
    event
}
