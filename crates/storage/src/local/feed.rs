//! The change feed: every committed claim, until it is acknowledged or a day old.
//!
//! Arrives: a claim, inside the transaction that writes it. Leaves: its image, at least once. Goes wrong: an image that is not JSON is
//! still shown, as a string, so that one broken record never stops the feed.

use std::time::Duration;

use async_trait::async_trait;
use domains::{Claim, StoreError};
use rusqlite::{Connection, params};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Inner, LocalHome,
    database::Writing,
    failure::Failure,
    micros,
    queues::wait_for,
    table::{padding_for, text},
};
use crate::consumers::{FeedConsumer, FeedRecord};

/// The most records of one batch.
const MAX_BATCH: usize = 1_000;

impl Inner {
    /// Adds the claim as it now stands, in the transaction that writes it.
    pub(super) fn enter_feed(&self, claim: &Claim, writing: &mut Writing<'_>) -> Result<(), Failure> {
        let image = text(claim, &claim.key)?;
        let padding = padding_for(&image);
        let now = micros(self.clock.now());
        for _ in 0..self.mischief.as_ref().map_or(1, |mischief| mischief.copies()) {
            // Without chaos a record is visible at once, whatever the clock does.
            let visible_at = self.mischief.as_ref().map_or(0, |mischief| now.saturating_add(mischief.feed_delay()));
            writing
                .db
                .prepare_cached("INSERT INTO feed (visible_at, committed_at, padding, image) VALUES (?1, ?2, zeroblob(?3), ?4)")?
                .execute(params![visible_at, now, padding, image])?;
        }
        writing.effects.feed = true;
        Ok(())
    }

    /// What is visible now, and when the next record will be.
    async fn look_at_feed(&self, max: usize) -> Result<(Vec<FeedRecord>, Option<i64>), StoreError> {
        let now = micros(self.clock.now());
        let read = move |db: &Connection| {
            let mut statement =
                db.prepare_cached("SELECT sequence, image FROM feed WHERE visible_at <= ?1 ORDER BY visible_at, sequence LIMIT ?2")?;
            let record = |row: &rusqlite::Row<'_>| Ok((row.get::<_, u64>(0)?, row.get::<_, String>(1)?));
            let rows: Vec<(u64, String)> = statement.query_map(params![now, max], record)?.collect::<Result<_, _>>()?;
            let records = rows.into_iter().map(|(sequence, image)| FeedRecord { sequence, image: image_value(image) }).collect();
            let mut next = db.prepare_cached("SELECT min(visible_at) FROM feed WHERE visible_at > ?1")?;
            Ok((records, next.query_row([now], |row| row.get(0))?))
        };
        let (mut records, next): (Vec<FeedRecord>, _) = self.database.read(read).await?;
        if let Some(mischief) = &self.mischief {
            mischief.shuffle(&mut records);
        }
        Ok((records, next))
    }
}

#[async_trait]
impl FeedConsumer for LocalHome {
    async fn next_batch(&self, max: usize, wait: Duration) -> Result<Vec<FeedRecord>, StoreError> {
        let max = max.clamp(1, MAX_BATCH);
        let deadline = Instant::now() + wait;
        loop {
            // Listening before looking: a record that comes in between still wakes us.
            let woken = self.0.wakeups.feed.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let (records, next) = self.0.look_at_feed(max).await?;
            if !records.is_empty() || !wait_for(woken, next, deadline, &*self.0.clock).await {
                return Ok(records);
            }
        }
    }

    async fn acknowledge(&self, sequences: &[u64]) -> Result<(), StoreError> {
        if sequences.is_empty() {
            return Ok(());
        }
        let sequences = sequences.to_vec();
        let write = move |writing: &mut Writing<'_>| {
            let mut delete = writing.db.prepare_cached("DELETE FROM feed WHERE sequence = ?1")?;
            for sequence in &sequences {
                delete.execute([sequence])?;
            }
            writing.effects.erased = true;
            Ok(())
        };
        Ok(self.0.database.write(write).await?)
    }
}

fn image_value(image: String) -> Value {
    serde_json::from_str(&image).unwrap_or(Value::String(image))
}
