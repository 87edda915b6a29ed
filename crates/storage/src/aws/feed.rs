//! The table's stream, read by a process of our own: the tests, and whoever runs the steps beside this home. Lambdas are fed by AWS.
//!
//! Arrives: the stream's shards. Leaves: claims, each at least once. Goes wrong: a shard trimmed before it was read (the timer makes up for
//! what it held), an iterator that expired (asked for again where it was).
//!
//! How far each shard was acknowledged is a mark in the second table, so that another process goes on from there.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_dynamodbstreams::{
    Client,
    types::{AttributeValue, Record, ShardIteratorType},
};
use domains::{Marks, StoreError};
use serde_json::Value;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

use super::{AwsHome, failure};
use crate::consumers::{FeedConsumer, FeedRecord};

/// The mark with how far the stream was acknowledged.
const MARK: &str = "feed";
/// The pause between two looks at a quiet stream: a shard may be read five times a second.
///
/// Source: DynamoDB Streams `GetRecords`, docs.aws.amazon.com/amazondynamodb (read 2026-11).
const PACE: Duration = Duration::from_millis(250);
/// The most records of one call.
///
/// Source: as [`PACE`].
const MOST: i32 = 1_000;
/// How often the list of shards is asked for: a shard is closed after hours.
const SHARDS_EVERY: Duration = Duration::from_secs(10);
/// What the mark says of a shard that was read and acknowledged to its end; no sequence number is spelled so.
const FINISHED: &str = "finished";

/// What the stream's one reader knows.
pub(super) struct Feed {
    client: Client,
    reading: Mutex<Option<Reading>>,
}

impl Feed {
    pub(super) fn new(client: Client) -> Self {
        Self { client, reading: Mutex::new(None) }
    }
}

struct Reading {
    stream: String,
    listed_at: Instant,
    shards: BTreeMap<String, Shard>,
    /// Shown or to be shown, and not acknowledged.
    waiting: VecDeque<Waiting>,
    /// The number of the next delivery; it means something to this process only.
    next: u64,
}

#[derive(Default)]
struct Shard {
    /// Everything up to here is acknowledged.
    acknowledged: Option<String>,
    /// Everything up to here was read.
    read: Option<String>,
    iterator: Option<String>,
    /// Whether it was read to its end.
    is_finished: bool,
}

struct Waiting {
    number: u64,
    shard: String,
    /// Where its shard was read up to before it.
    before: Option<String>,
    image: Value,
}

#[async_trait]
impl FeedConsumer for AwsHome {
    async fn next_batch(&self, max: usize, wait: Duration) -> Result<Vec<FeedRecord>, StoreError> {
        let max = max.max(1);
        let deadline = Instant::now() + wait;
        loop {
            {
                let mut guard = self.0.feed.reading.lock().await;
                let reading = match guard.as_mut() {
                    Some(reading) => reading,
                    None => guard.insert(self.begin().await?),
                };
                if reading.waiting.len() < max {
                    self.read_shards(reading).await?;
                }
                if !reading.waiting.is_empty() || Instant::now() >= deadline {
                    let shown = reading.waiting.iter().take(max);
                    return Ok(shown.map(|w| FeedRecord { sequence: w.number, image: w.image.clone() }).collect());
                }
            }
            sleep_until(deadline.min(Instant::now() + PACE)).await;
        }
    }

    async fn acknowledge(&self, sequences: &[u64]) -> Result<(), StoreError> {
        let mut guard = self.0.feed.reading.lock().await;
        let Some(reading) = guard.as_mut() else { return Ok(()) };
        let before = reading.waiting.len();
        reading.waiting.retain(|waiting| !sequences.contains(&waiting.number));
        if reading.waiting.len() == before {
            return Ok(());
        }
        reading.settle();
        self.store(MARK, &reading.mark()?).await
    }
}

impl Reading {
    /// Moves each shard's mark up to before the first of its records that still waits.
    fn settle(&mut self) {
        for (name, shard) in &mut self.shards {
            let first = self.waiting.iter().find(|waiting| waiting.shard == *name);
            shard.acknowledged = match first {
                Some(first) => first.before.clone(),
                None => shard.read.clone(),
            };
        }
    }

    fn mark(&self) -> Result<String, StoreError> {
        let marks: BTreeMap<&str, &str> = self
            .shards
            .iter()
            .filter_map(|(name, shard)| {
                let is_over = shard.is_finished && shard.acknowledged == shard.read;
                let at = if is_over { Some(FINISHED) } else { shard.acknowledged.as_deref() };
                at.map(|at| (name.as_str(), at))
            })
            .collect();
        serde_json::to_string(&marks).map_err(|error| StoreError::Defect { detail: format!("the feed's mark cannot be written: {error}") })
    }
}

impl AwsHome {
    async fn begin(&self) -> Result<Reading, StoreError> {
        let table = &self.0.places.table;
        let asked = self.0.dynamo.describe_table().table_name(table).send().await;
        let described = asked.map_err(|error| failure::classify("looking for the stream", &error))?;
        let stream = described.table.and_then(|table| table.latest_stream_arn);
        let stream = stream.ok_or_else(|| StoreError::Defect { detail: format!("table {table} has no stream") })?;
        let marks: BTreeMap<String, String> = match self.load(MARK).await? {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(&text)
                .map_err(|error| StoreError::Defect { detail: format!("the feed's mark does not read: {error}") })?,
        };
        let shard = |at: String| match at.as_str() {
            FINISHED => Shard { is_finished: true, ..Shard::default() },
            _ => Shard { acknowledged: Some(at.clone()), read: Some(at), ..Shard::default() },
        };
        let shards = marks.into_iter().map(|(name, at)| (name, shard(at))).collect();
        let mut reading = Reading { stream, listed_at: Instant::now(), shards, waiting: VecDeque::new(), next: 1 };
        self.list_shards(&mut reading).await?;
        Ok(reading)
    }

    /// Learns of new shards and forgets those that the stream no longer has.
    async fn list_shards(&self, reading: &mut Reading) -> Result<(), StoreError> {
        let mut known = Vec::new();
        let mut after = None;
        loop {
            let asked = self.0.feed.client.describe_stream().stream_arn(&reading.stream).set_exclusive_start_shard_id(after);
            let answer = asked.send().await.map_err(|error| failure::classify("listing the stream's shards", &error))?;
            let Some(described) = answer.stream_description else { break };
            known.extend(described.shards.unwrap_or_default().into_iter().filter_map(|shard| shard.shard_id));
            after = described.last_evaluated_shard_id;
            if after.is_none() {
                break;
            }
        }
        let waiting = &reading.waiting;
        reading.shards.retain(|name, _| known.contains(name) || waiting.iter().any(|waiting| waiting.shard == *name));
        for name in known {
            reading.shards.entry(name).or_default();
        }
        reading.listed_at = Instant::now();
        Ok(())
    }

    async fn read_shards(&self, reading: &mut Reading) -> Result<(), StoreError> {
        if reading.listed_at.elapsed() >= SHARDS_EVERY {
            self.list_shards(reading).await?;
        }
        let open: Vec<String> = reading.shards.iter().filter(|(_, shard)| !shard.is_finished).map(|(name, _)| name.clone()).collect();
        for name in open {
            self.read_shard(reading, name).await?;
        }
        Ok(())
    }

    async fn read_shard(&self, reading: &mut Reading, name: String) -> Result<(), StoreError> {
        let Reading { stream, shards, waiting, next, .. } = reading;
        let Some(shard) = shards.get_mut(&name) else { return Ok(()) };
        let iterator = match shard.iterator.take() {
            Some(iterator) => iterator,
            None => self.iterator(stream, &name, shard.read.as_deref()).await?,
        };
        let answer = match self.0.feed.client.get_records().shard_iterator(iterator).limit(MOST).send().await {
            Ok(answer) => answer,
            // The iterator was left for too long; the next read asks for another.
            Err(error) if failure::code(&error) == Some("ExpiredIteratorException") => return Ok(()),
            Err(error) if failure::code(&error) == Some("TrimmedDataAccessException") => {
                tracing::warn!(shard = name, "the stream was trimmed before it was read; the timer makes up for it");
                shard.read = None;
                return Ok(());
            }
            Err(error) => return Err(failure::classify("reading the stream", &error)),
        };
        for record in answer.records.unwrap_or_default() {
            let Some(sequence) = record.dynamodb.as_ref().and_then(|change| change.sequence_number.clone()) else { continue };
            let before = shard.read.replace(sequence);
            if let Some(image) = claim_image(record) {
                waiting.push_back(Waiting { number: *next, shard: name.clone(), before, image });
                *next += 1;
            }
        }
        shard.is_finished = answer.next_shard_iterator.is_none();
        shard.iterator = answer.next_shard_iterator;
        Ok(())
    }

    async fn iterator(&self, stream: &str, shard: &str, after: Option<&str>) -> Result<String, StoreError> {
        let ask = |from: ShardIteratorType, after: Option<&str>| {
            let ask = self.0.feed.client.get_shard_iterator().stream_arn(stream).shard_id(shard).shard_iterator_type(from);
            ask.set_sequence_number(after.map(str::to_owned)).send()
        };
        let answer = match after {
            None => ask(ShardIteratorType::TrimHorizon, None).await,
            Some(after) => match ask(ShardIteratorType::AfterSequenceNumber, Some(after)).await {
                Err(error) if failure::code(&error) == Some("TrimmedDataAccessException") => {
                    ask(ShardIteratorType::TrimHorizon, None).await
                }
                answer => answer,
            },
        };
        let iterator = answer.map_err(|error| failure::classify("finding a place in the stream", &error))?.shard_iterator;
        iterator.ok_or_else(|| StoreError::Defect { detail: format!("shard {shard} has no place to read from") })
    }
}

/// The claim that a record shows; `None` for other items and for what was deleted.
fn claim_image(record: Record) -> Option<Value> {
    let mut image = record.dynamodb?.new_image?;
    let is_claim = matches!(image.get("kind"), Some(AttributeValue::S(kind)) if kind == "claim");
    if !is_claim {
        return None;
    }
    image.retain(|name, _| name != "pk" && name != "sk");
    // An image that cannot be shown as JSON is shown all the same, so that whoever reads it says which one it was.
    Some(serde_dynamo::from_item(image).unwrap_or(Value::Null))
}
