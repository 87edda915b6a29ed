//! One token bucket, as the moment at which it will be full again (GCRA): all there is to know of it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::queue::Queue;

/// A token bucket's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketShape {
    /// The most it holds.
    pub capacity: u32,
    /// How long one token takes to come back.
    pub refill: Duration,
}

impl BucketShape {
    pub(crate) fn refill_micros(self) -> i64 {
        i64::try_from(self.refill.as_micros()).unwrap_or(i64::MAX).max(1)
    }

    fn span(self, tokens: u32) -> i64 {
        self.refill_micros().saturating_mul(i64::from(tokens))
    }

    /// The most that may be asked to stay in it, so that it still gives something.
    fn floor(self, keeps: u32) -> u32 {
        keeps.min(self.capacity.saturating_sub(1))
    }
}

/// A bucket as it is stored: everything in microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    /// When it will be full again; the past means that it is full.
    pub(crate) full_at: i64,
    /// Until when it gives nothing, whatever it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paused_until: Option<i64>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) paused_for: String,
    /// Who waits for it.
    #[serde(default)]
    pub(crate) queue: Queue,
}

impl Bucket {
    /// A bucket is never emptier than empty, so that a changed shape or a clock that was wrong does not close it for longer than its own refill.
    pub(crate) fn full_at(&self, shape: BucketShape, now: i64) -> i64 {
        self.full_at.clamp(now, now.saturating_add(shape.span(shape.capacity)))
    }

    pub(crate) fn left(&self, shape: BucketShape, now: i64) -> u32 {
        let spent = self.full_at(shape, now).saturating_sub(now);
        let left = shape.span(shape.capacity).saturating_sub(spent) / shape.refill_micros();
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Until when it gives nothing, when that is still to come.
    pub(crate) fn pause(&self, now: i64) -> Option<i64> {
        self.paused_until.filter(|until| *until > now)
    }

    /// How long until it can give one token and still keep `keeps`; zero when it can now.
    pub(crate) fn wait(&self, shape: BucketShape, keeps: u32, now: i64) -> i64 {
        let after = self.full_at(shape, now).saturating_add(shape.span(shape.floor(keeps).saturating_add(1)));
        let tokens = after.saturating_sub(now.saturating_add(shape.span(shape.capacity))).max(0);
        self.pause(now).map_or(tokens, |until| tokens.max(until.saturating_sub(now)))
    }

    pub(crate) fn take(&mut self, shape: BucketShape, now: i64) {
        self.full_at = self.full_at(shape, now).saturating_add(shape.refill_micros());
    }

    pub(crate) fn give_back(&mut self, shape: BucketShape, now: i64) {
        self.full_at = self.full_at(shape, now).saturating_sub(shape.refill_micros()).max(now);
    }

    /// From when on it is the same as one never used.
    pub(crate) fn idle_from(&self) -> i64 {
        self.full_at.max(self.paused_until.unwrap_or(i64::MIN)).max(self.queue.end())
    }
}

pub(crate) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// Rounded up to the millisecond, which every clock of ours can tell: nobody wakes before its slot.
pub(crate) fn timestamp(micros: i64) -> Timestamp {
    let rounded = micros.saturating_add(999).div_euclid(1000);
    Timestamp::from_millisecond(rounded).unwrap_or(if micros < 0 { Timestamp::MIN } else { Timestamp::MAX })
}
