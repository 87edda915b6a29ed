//! The step queues: a nudge waits, is received, and comes again until it is deleted or dead.
//!
//! Arrives: dispatches. Leaves: messages, each at least once, in no promised order. Goes wrong: a delay or an invisibility that the harder
//! home could not hold is refused.

use std::time::Duration;

use async_trait::async_trait;
use domains::{Clock, Dispatch, Step, StepQueue, StoreError};
use rusqlite::{Connection, OptionalExtension, params};
use tokio::time::Instant;

use super::{Inner, LocalHome, database::Writing, failure::Failure, listings::parse_step, micros, span, table::text};
use crate::{
    checks,
    consumers::{DeadLetter, DeadLetters, MAX_RECEIVED, MAX_VISIBILITY, Message, QueueConsumer, Receipt},
};

/// The most dead letters of one answer.
const MAX_DEAD: usize = 1_000;

/// How many messages a reordered receive picks from, for each it may return.
const REORDER: usize = 4;

#[async_trait]
impl StepQueue for LocalHome {
    async fn send(&self, dispatches: &[Dispatch]) -> Result<(), StoreError> {
        checks::delays(dispatches)?;
        if dispatches.is_empty() {
            return Ok(());
        }
        let now = micros(self.0.clock.now());
        let mut rows = Vec::with_capacity(dispatches.len());
        for dispatch in dispatches {
            let body = text(&dispatch.nudge, &dispatch.nudge.key())?;
            let copies = self.0.mischief.as_ref().map_or(1, |mischief| mischief.copies());
            rows.push((dispatch.step, now.saturating_add(span(dispatch.delay)), body, copies));
        }
        let write = move |writing: &mut Writing<'_>| {
            for (step, visible_at, body, copies) in &rows {
                enqueue(writing, *step, *visible_at, now, body, *copies)?;
            }
            Ok(())
        };
        Ok(self.0.database.write(write).await?)
    }
}

/// Adds one message. Its name is the number of its first row, so that a duplicate has the same.
fn enqueue(writing: &mut Writing<'_>, step: Step, visible_at: i64, now: i64, body: &str, copies: u32) -> Result<(), Failure> {
    let mut name: Option<String> = None;
    for _ in 0..copies {
        writing
            .db
            .prepare_cached("INSERT INTO messages (name, step, visible_at, sent_at, receive_count, body) VALUES (?1, ?2, ?3, ?4, 0, ?5)")?
            .execute(params![name.as_deref().unwrap_or_default(), step.as_str(), visible_at, now, body])?;
        if name.is_none() {
            let id = writing.db.last_insert_rowid();
            name = Some(id.to_string());
            writing.db.prepare_cached("UPDATE messages SET name = ?2 WHERE id = ?1")?.execute(params![id, id.to_string()])?;
        }
    }
    writing.effects.queues[step as usize] = true;
    Ok(())
}

/// A message's row as a receive reads it.
struct Row {
    id: i64,
    name: String,
    receive_count: u32,
    body: String,
}

impl Inner {
    /// Whether a message is visible now, and when the next one will be. Asked before every receive, which costs a commit.
    async fn look_at_queue(&self, step: Step) -> Result<(bool, Option<i64>), StoreError> {
        let now = micros(self.clock.now());
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached("SELECT min(visible_at) FROM messages WHERE step = ?1")?;
            let next: Option<i64> = statement.query_row([step.as_str()], |row| row.get(0))?;
            Ok((next.is_some_and(|next| next <= now), next))
        };
        Ok(self.database.read(read).await?)
    }

    /// Takes what is visible; what came too often goes to the dead letters.
    fn take(&self, step: Step, max: usize, visibility: Duration, writing: &mut Writing<'_>) -> Result<Vec<Message>, Failure> {
        let now = micros(self.clock.now());
        let again = now.saturating_add(span(visibility));
        let mut messages = Vec::with_capacity(max);
        while messages.len() < max {
            let mut rows = visible(writing.db, step, now, max * if self.mischief.is_some() { REORDER } else { 1 })?;
            if rows.is_empty() {
                break;
            }
            if let Some(mischief) = &self.mischief {
                mischief.shuffle(&mut rows);
            }
            for row in rows {
                if row.receive_count >= self.max_receives {
                    bury(row.id, writing.db)?;
                } else if messages.len() < max {
                    let receive_count = row.receive_count + 1;
                    writing
                        .db
                        .prepare_cached("UPDATE messages SET visible_at = ?2, receive_count = ?3 WHERE id = ?1")?
                        .execute(params![row.id, again, receive_count])?;
                    let receipt = Receipt { step, handle: format!("{}.{receive_count}", row.id) };
                    messages.push(Message { id: row.name, receipt, body: row.body, receive_count });
                }
            }
            // An invisibility of nothing would be taken again and again.
            if again <= now {
                break;
            }
        }
        Ok(messages)
    }
}

fn visible(db: &Connection, step: Step, now: i64, rows: usize) -> Result<Vec<Row>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT id, name, receive_count, body FROM messages WHERE step = ?1 AND visible_at <= ?2 ORDER BY visible_at, id LIMIT ?3",
    )?;
    let row = |row: &rusqlite::Row<'_>| Ok(Row { id: row.get(0)?, name: row.get(1)?, receive_count: row.get(2)?, body: row.get(3)? });
    Ok(statement.query_map(params![step.as_str(), now, rows], row)?.collect::<Result<_, _>>()?)
}

/// Moves a message to the dead letters.
fn bury(id: i64, db: &Connection) -> Result<(), Failure> {
    db.prepare_cached(
        "INSERT INTO dead_letters (name, step, sent_at, receive_count, body)
         SELECT name, step, sent_at, receive_count, body FROM messages WHERE id = ?1",
    )?
    .execute([id])?;
    db.prepare_cached("DELETE FROM messages WHERE id = ?1")?.execute([id])?;
    Ok(())
}

#[async_trait]
impl QueueConsumer for LocalHome {
    async fn receive(&self, step: Step, max: usize, visibility: Duration, wait: Duration) -> Result<Vec<Message>, StoreError> {
        checks::visibility(visibility)?;
        let max = max.clamp(1, MAX_RECEIVED);
        let deadline = Instant::now() + wait;
        loop {
            // Listening before looking: a message that comes in between still wakes us.
            let woken = self.0.wakeups.queue(step).notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            let (is_visible, next) = self.0.look_at_queue(step).await?;
            if is_visible {
                let inner = std::sync::Arc::clone(&self.0);
                let messages = self.0.database.write(move |writing| inner.take(step, max, visibility, writing)).await?;
                if !messages.is_empty() {
                    return Ok(messages);
                }
                // Someone else took them, or they were dead; another may be visible.
                if Instant::now() < deadline {
                    continue;
                }
            }
            if !wait_for(woken, next, deadline, &*self.0.clock).await {
                return Ok(Vec::new());
            }
        }
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), StoreError> {
        let (id, receive_count) = read_receipt(receipt)?;
        let write = move |writing: &mut Writing<'_>| {
            let mut delete = writing.db.prepare_cached("DELETE FROM messages WHERE id = ?1 AND receive_count = ?2")?;
            delete.execute(params![id, receive_count])?;
            Ok(())
        };
        Ok(self.0.database.write(write).await?)
    }

    async fn change_visibility(&self, receipt: &Receipt, visibility: Duration) -> Result<(), StoreError> {
        checks::visibility(visibility)?;
        let (id, receive_count) = read_receipt(receipt)?;
        let again = micros(self.0.clock.now()).saturating_add(span(visibility));
        let step = receipt.step;
        let write = move |writing: &mut Writing<'_>| {
            let mut update = writing.db.prepare_cached("UPDATE messages SET visible_at = ?3 WHERE id = ?1 AND receive_count = ?2")?;
            update.execute(params![id, receive_count, again])?;
            // Whoever waits for the old time must hear of an earlier one.
            writing.effects.queues[step as usize] = true;
            Ok(())
        };
        Ok(self.0.database.write(write).await?)
    }
}

#[async_trait]
impl DeadLetters for LocalHome {
    async fn count_dead(&self, step: Step) -> Result<u64, StoreError> {
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached("SELECT count(*) FROM dead_letters WHERE step = ?1")?;
            Ok(statement.query_row([step.as_str()], |row| row.get(0))?)
        };
        Ok(self.0.database.read(read).await?)
    }

    async fn dead_letters(&self, step: Step, limit: usize) -> Result<Vec<DeadLetter>, StoreError> {
        let limit = limit.clamp(1, MAX_DEAD);
        let read = move |db: &Connection| {
            let mut statement =
                db.prepare_cached("SELECT name, step, body, receive_count FROM dead_letters WHERE step = ?1 ORDER BY id LIMIT ?2")?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?));
            let rows = statement.query_map(params![step.as_str(), limit], row)?;
            rows.map(|row| {
                let (id, step, body, receive_count) = row?;
                let step = parse_step(&step).ok_or_else(|| Failure::defect(format!("dead letter {id} is of no step: `{step}`")))?;
                Ok(DeadLetter { id, step, body, receive_count })
            })
            .collect()
        };
        Ok(self.0.database.read(read).await?)
    }

    async fn redrive(&self, step: Step) -> Result<u64, StoreError> {
        let now = micros(self.0.clock.now());
        let mut moved = 0;
        loop {
            let some = self.0.database.write(move |writing| revive(step, now, writing)).await?;
            moved += u64::from(some);
            if some == 0 {
                return Ok(moved);
            }
        }
    }
}

/// Sends some dead letters again, as new messages; says how many.
fn revive(step: Step, now: i64, writing: &mut Writing<'_>) -> Result<u32, Failure> {
    let mut statement = writing.db.prepare_cached("SELECT id FROM dead_letters WHERE step = ?1 ORDER BY id LIMIT 100")?;
    let dead: Vec<i64> = statement.query_map([step.as_str()], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut moved = 0;
    for id in dead {
        let mut take = writing.db.prepare_cached("DELETE FROM dead_letters WHERE id = ?1 RETURNING body")?;
        if let Some(body) = take.query_row([id], |row| row.get::<_, String>(0)).optional()? {
            drop(take);
            enqueue(writing, step, now, now, &body, 1)?;
            moved += 1;
        }
    }
    Ok(moved)
}

/// Waits until woken or until `next` is visible; `false` when the deadline came first.
pub(super) async fn wait_for(woken: impl Future<Output = ()>, next: Option<i64>, deadline: Instant, clock: &dyn Clock) -> bool {
    if Instant::now() >= deadline {
        return false;
    }
    // At least a moment: what another consumer is about to take would be looked at in a circle.
    let until_next = next.map(|next| Duration::from_micros(u64::try_from(next.saturating_sub(micros(clock.now()))).unwrap_or(0)));
    let pause = until_next.map_or(MAX_VISIBILITY, |wait| wait.max(Duration::from_millis(1)));
    let wake_at = deadline.min(Instant::now() + pause);
    let _ = tokio::time::timeout_at(wake_at, woken).await;
    true
}

fn read_receipt(receipt: &Receipt) -> Result<(i64, u32), StoreError> {
    let parse = || {
        let (id, count) = receipt.handle.split_once('.')?;
        Some((id.parse().ok()?, count.parse().ok()?))
    };
    parse().ok_or_else(|| StoreError::Defect { detail: format!("`{}` is not a receipt", receipt.handle.escape_debug()) })
}
