//! The timer: nudges whatever is overdue, however long it slept, and heals what the stream lost.
//!
//! Arrives: a tick. Leaves: nudges, the low-water mark from which the next tick reads, and the keys in `edge.json`. Goes wrong: a store that
//! cannot be asked; the mark stays, and the next tick covers the same span.

mod keys;
mod signing;
mod tickets;

use std::{sync::Arc, time::Duration};

use domains::{Clock, Dispatch, DueIndex, Marks, Nudge, StepQueue, StoreError, Timestamp, is_nudged};
use serde::{Deserialize, Serialize};

pub use keys::EdgeKeys;
pub use signing::{PUBLISHED_AFTER, PUBLISHED_AHEAD, SIGNS_FOR};
pub use tickets::{OPENS_AFTER, SEALS_FOR, SHARED_AHEAD};

/// The mark's name.
const MARK: &str = "schedule-renewals";

/// How far behind the newest entry seen the low-water mark stays, for writers whose clocks differ and an index that lags.
const MARGIN: Duration = Duration::from_secs(300);

/// How many entries one page holds.
const PAGE: usize = 500;

/// The timer's parts.
pub struct ScheduleRenewals {
    /// What is due when.
    pub due: Arc<dyn DueIndex>,
    /// Where nudges go.
    pub queue: Arc<dyn StepQueue>,
    /// Holds the low-water mark.
    pub marks: Arc<dyn Marks>,
    /// Makes and retires the keys that edges read.
    pub keys: EdgeKeys,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// How long an entry is left to the message that its own change sent.
    pub grace: Duration,
}

/// What one tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tick {
    /// Entries found overdue.
    pub overdue: usize,
    /// Nudges sent.
    pub nudged: usize,
}

#[derive(Serialize, Deserialize)]
struct LowWater {
    last_tick: Timestamp,
    from: Timestamp,
}

impl ScheduleRenewals {
    /// Takes the schedule's event, which says nothing that the clock and the mark do not know better, and ticks.
    ///
    /// # Errors
    /// As [`Self::tick`].
    pub async fn handle(&self, _event: serde_json::Value) -> Result<Tick, StoreError> {
        let tick = self.tick().await?;
        tracing::info!(step = "schedule-renewals", overdue = tick.overdue, nudged = tick.nudged, "ticked");
        Ok(tick)
    }

    /// Drains the due-index from the stored low-water mark to now, then looks after the edges' keys: a bucket that fails delays no nudge.
    ///
    /// # Errors
    /// [`StoreError`] when the home cannot be asked; what was nudged so far may be nudged again.
    pub async fn tick(&self) -> Result<Tick, StoreError> {
        let now = self.clock.now();
        let tick = self.nudge(now).await?;
        self.keys.rotate(now).await?;
        Ok(tick)
    }

    async fn nudge(&self, now: Timestamp) -> Result<Tick, StoreError> {
        let until = minus(now, self.grace);
        let mark = self.low_water().await?;
        let mut tick = Tick::default();
        let mut oldest = minus(until, MARGIN);
        let mut cursor: Option<String> = None;
        loop {
            let page = self.due.due(mark.from, until, cursor.as_deref(), PAGE).await?;
            if let Some(first) = page.items.first() {
                oldest = oldest.min(first.next_look);
            }
            tick.overdue += page.items.len();
            let nudges: Vec<_> =
                page.items.into_iter().filter(|entry| is_nudged(entry, mark.last_tick, now, self.grace)).map(dispatch).collect();
            tick.nudged += nudges.len();
            self.queue.send(&nudges).await?;
            cursor = page.cursor;
            if cursor.is_none() {
                break;
            }
        }
        let mark = serde_json::to_string(&LowWater { last_tick: now, from: oldest })
            .map_err(|error| StoreError::Defect { detail: format!("the low-water mark does not serialise: {error}") })?;
        self.marks.store(MARK, &mark).await?;
        Ok(tick)
    }

    /// The stored mark; a first tick, or a mark that no longer reads, starts at the beginning of time: nudging too much is safe.
    async fn low_water(&self) -> Result<LowWater, StoreError> {
        let beginning = || LowWater { last_tick: Timestamp::MIN, from: Timestamp::MIN };
        let stored = self.marks.load(MARK).await?;
        Ok(stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_else(beginning))
    }
}

fn dispatch(entry: domains::DueEntry) -> Dispatch {
    let nudge = Nudge { hostname: entry.key.hostname, tenant: entry.key.tenant, version: entry.version };
    Dispatch { step: entry.step, nudge, delay: Duration::ZERO }
}

fn minus(at: Timestamp, wait: Duration) -> Timestamp {
    at.checked_sub(wait).unwrap_or(Timestamp::MIN)
}
