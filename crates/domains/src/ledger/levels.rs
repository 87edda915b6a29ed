//! What a bucket shows to people.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    BucketShape, Lane,
    bucket::{Bucket, micros, timestamp},
    moves::read_item,
    queue,
};
use crate::StoreError;

/// A bucket's level: what is left, when more comes, and who waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Level {
    /// The most it holds.
    pub capacity: u32,
    /// Seconds for one token to come back.
    pub refill_seconds: f64,
    /// Tokens there now.
    pub left: u32,
    /// When it is full again, if nobody takes from it.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub full_at: Timestamp,
    /// Until when it gives nothing because the CA asked for that.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub paused_until: Option<Timestamp>,
    /// The CA's words for it.
    pub paused_for: Option<String>,
    /// Who waits, by lane; a lane nobody waits in is left out.
    pub waiting: Vec<Waiting>,
}

/// Who waits in one lane of a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// The lane.
    pub lane: Lane,
    /// How many; an estimate while some come late for their slot.
    pub orders: u32,
    /// When the last of them has its slot.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub done_at: Timestamp,
}

impl Level {
    /// The bucket's item as far as a level tells it, for a forecast that begins here: newcomers come after everybody who waits.
    pub fn as_item(&self, now: Timestamp) -> String {
        let ends = |lane: Lane| self.waiting.iter().filter(|known| known.lane == lane).map(|known| micros(known.done_at)).max();
        let bucket = Bucket {
            full_at: micros(self.full_at).max(micros(now)),
            paused_until: self.paused_until.map(micros),
            paused_for: self.paused_for.clone().unwrap_or_default(),
            queue: queue::Queue::ending_at([ends(Lane::Urgent), ends(Lane::Renewal), ends(Lane::New)]),
        };
        serde_json::json!(bucket).to_string()
    }

    /// Reads a bucket's stored item; `None` is a bucket never used, which is full.
    ///
    /// # Errors
    /// [`StoreError::Defect`] when the item is not a bucket.
    pub fn of(name: &str, item: Option<&str>, shape: BucketShape, now: Timestamp) -> Result<Self, StoreError> {
        let bucket: Bucket = read_item(name, item)?.unwrap_or_default();
        let at = micros(now);
        let pause = bucket.pause(at);
        let mut waiting: Vec<Waiting> = Vec::new();
        for (level, orders, end) in bucket.queue.backlogs(shape.refill_micros(), at) {
            let (lane, done_at) = (queue::lane(level), timestamp(end));
            match waiting.last_mut().filter(|known| known.lane == lane) {
                Some(known) => {
                    known.orders = known.orders.saturating_add(orders);
                    known.done_at = known.done_at.max(done_at);
                }
                None => waiting.push(Waiting { lane, orders, done_at }),
            }
        }
        Ok(Self {
            capacity: shape.capacity,
            refill_seconds: shape.refill.as_secs_f64(),
            left: bucket.left(shape, at),
            full_at: timestamp(bucket.full_at(shape, at)),
            paused_until: pause.map(timestamp),
            paused_for: pause.map(|_| bucket.paused_for),
            waiting,
        })
    }
}
