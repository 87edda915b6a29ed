//! What is too old to keep.
//!
//! Arrives: the time. Leaves: a file without records, messages and buckets past their time. Goes wrong: nothing that the next sweep does
//! not make up for.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::micros;

/// How long an unread feed record is kept.
///
/// Source: DynamoDB Streams, docs.aws.amazon.com/amazondynamodb (read 2026-11).
const FEED_MICROS: i64 = 24 * 3600 * 1_000_000;

/// How long a message nobody deletes is kept, dead or not.
///
/// Source: SQS message retention, docs.aws.amazon.com/AWSSimpleQueueService (read 2026-11).
const MESSAGE_MICROS: i64 = 14 * 24 * 3600 * 1_000_000;

/// How long an entry that the due-index no longer shows is kept: longer than it may be shown stale.
const INDEX_MICROS: i64 = 5 * 1_000_000;

/// How long an answer of a challenge is kept that nobody took away, as when its claim was removed while the CA was at work: longer than any
/// order lives. Source: Let's Encrypt's orders, 7 days at most (read 2026-11).
const ANSWER_MICROS: i64 = 8 * 24 * 3600 * 1_000_000;

/// The most rows of one kind that one sweep takes, so that writers never wait long for it.
const AT_ONCE: usize = 2_000;

/// What a sweep did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Swept {
    /// How many rows went.
    pub(crate) rows: usize,
    /// Whether nothing was left over.
    pub(crate) is_done: bool,
}

/// Deletes what is too old, some of it at least, inside the caller's transaction.
pub(crate) fn sweep(db: &Connection, now: Timestamp) -> Result<Swept, rusqlite::Error> {
    let now = micros(now);
    let old = [
        (
            "DELETE FROM feed WHERE sequence IN
             (SELECT sequence FROM (SELECT sequence, committed_at FROM feed ORDER BY sequence LIMIT ?2) WHERE committed_at < ?1)",
            FEED_MICROS,
        ),
        (
            "DELETE FROM messages WHERE id IN
             (SELECT id FROM (SELECT id, sent_at FROM messages ORDER BY id LIMIT ?2) WHERE sent_at < ?1)",
            MESSAGE_MICROS,
        ),
        (
            "DELETE FROM dead_letters WHERE id IN
             (SELECT id FROM (SELECT id, sent_at FROM dead_letters ORDER BY id LIMIT ?2) WHERE sent_at < ?1)",
            MESSAGE_MICROS,
        ),
        // A bucket that is full again is the same as one never used.
        ("DELETE FROM limits WHERE bucket IN (SELECT bucket FROM limits WHERE full_at < ?1 LIMIT ?2)", 0),
        ("DELETE FROM answers WHERE (name, value) IN (SELECT name, value FROM answers WHERE presented_at < ?1 LIMIT ?2)", ANSWER_MICROS),
        // An item of the ledger past its time says the same as none.
        ("DELETE FROM ledger WHERE name IN (SELECT name FROM ledger WHERE expires_at < ?1 LIMIT ?2)", 0),
        ("DELETE FROM due WHERE shown_until IS NOT NULL AND shown_until < ?1", INDEX_MICROS),
    ];
    let mut swept = Swept { rows: 0, is_done: true };
    for (statement, age) in old {
        let before = now.saturating_sub(age);
        let statement = &mut db.prepare_cached(statement)?;
        let rows = match statement.parameter_count() {
            1 => statement.execute(params![before])?,
            _ => statement.execute(params![before, AT_ONCE])?,
        };
        swept.rows += rows;
        swept.is_done &= rows < AT_ONCE;
    }
    Ok(swept)
}
