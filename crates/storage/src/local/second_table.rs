//! The second table: token buckets, API keys' hashes and small named values. Nothing in it enters the feed.
//!
//! Arrives: a bucket's name and shape, a key's hash, a name. Leaves: whether a token was there, who calls, the value. Goes wrong: an item
//! that does not read is a defect, so that an unreadable caller is never a stranger and an unreadable mark never a fresh start.

use async_trait::async_trait;
use domains::{BucketShape, Caller, Callers, LedgerMove, Limits, Marks, Reserved, StoreError, Taken};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    LocalHome,
    database::Writing,
    failure::Failure,
    micros, span,
    table::{parse, text},
};
use crate::checks;

#[async_trait]
impl Limits for LocalHome {
    async fn take(&self, bucket: &str, shape: BucketShape, now: Timestamp) -> Result<Taken, StoreError> {
        let bucket = bucket.to_owned();
        let write = move |writing: &mut Writing<'_>| {
            let mut statement = writing.db.prepare_cached("SELECT full_at FROM limits WHERE bucket = ?1")?;
            let full_at: Option<i64> = statement.query_row([&bucket], |row| row.get(0)).optional()?;
            let (taken, full_at) = take_one(full_at, shape, micros(now));
            if taken == Taken::Granted {
                let mut upsert = writing.db.prepare_cached(
                    "INSERT INTO limits (bucket, full_at) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET full_at = excluded.full_at",
                )?;
                upsert.execute(params![bucket, full_at])?;
            }
            Ok(taken)
        };
        Ok(self.0.database.write(write).await?)
    }

    async fn apply(&self, entry: &LedgerMove, now: Timestamp) -> Result<Reserved, StoreError> {
        let entry = entry.clone();
        // One writer: what is read inside the operation is as it was when it is written.
        let write = move |writing: &mut Writing<'_>| {
            let items = ledger_items(writing.db, &entry.names())?;
            let (answer, writes) = entry.decide(&items, now)?;
            let mut upsert = writing.db.prepare_cached(
                "INSERT INTO ledger (name, expires_at, item) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at, item = excluded.item",
            )?;
            for written in writes {
                upsert.execute(params![written.name, micros(written.expires_at), written.item])?;
            }
            Ok(answer)
        };
        Ok(self.0.database.write(write).await?)
    }

    async fn ledger_items(&self, names: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        let names = names.to_vec();
        Ok(self.0.database.read(move |db: &Connection| ledger_items(db, &names)).await?)
    }
}

fn ledger_items(db: &Connection, names: &[String]) -> Result<Vec<Option<String>>, Failure> {
    let mut statement = db.prepare_cached("SELECT item FROM ledger WHERE name = ?1")?;
    names.iter().map(|name| Ok(statement.query_row([name], |row| row.get(0)).optional()?)).collect()
}

/// Takes a token from a bucket that will be full at `full_at`, which is all there is to know of a bucket (GCRA).
///
/// A bucket is never emptier than empty, so that a changed shape or a clock that was wrong does not close it for longer than its own refill.
fn take_one(full_at: Option<i64>, shape: BucketShape, now: i64) -> (Taken, i64) {
    let refill = span(shape.refill);
    let empty = refill.saturating_mul(i64::from(shape.capacity));
    let full_at = full_at.unwrap_or(now).clamp(now, now.saturating_add(empty));
    let after = full_at.saturating_add(refill);
    match after.saturating_sub(now.saturating_add(empty)) {
        early if early > 0 => (Taken::Wait(std::time::Duration::from_micros(early.unsigned_abs())), full_at),
        _ => (Taken::Granted, after),
    }
}

#[async_trait]
impl Callers for LocalHome {
    async fn caller(&self, key_sha256: &str) -> Result<Option<Caller>, StoreError> {
        let key = key_sha256.to_owned();
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached("SELECT item FROM callers WHERE key_sha256 = ?1")?;
            let item: Option<String> = statement.query_row([&key], |row| row.get(0)).optional()?;
            item.map(|item| parse(&item, || format!("the caller whose key's hash begins with {}", key.get(..8).unwrap_or_default())))
                .transpose()
        };
        Ok(self.0.database.read(read).await?)
    }

    async fn admit(&self, key_sha256: &str, caller: &Caller) -> Result<(), StoreError> {
        checks::key_hash(key_sha256)?;
        let key = key_sha256.to_owned();
        let item = text(caller, &"a caller")?;
        let write = move |writing: &mut Writing<'_>| {
            let mut upsert = writing
                .db
                .prepare_cached("INSERT INTO callers (key_sha256, item) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET item = excluded.item")?;
            upsert.execute(params![key, item])?;
            Ok(())
        };
        Ok(self.0.database.write(write).await?)
    }
}

#[async_trait]
impl Marks for LocalHome {
    async fn load(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached("SELECT value FROM marks WHERE name = ?1")?;
            Ok(statement.query_row([&name], |row| row.get(0)).optional()?)
        };
        Ok(self.0.database.read(read).await?)
    }

    async fn store(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, value) = (name.to_owned(), value.to_owned());
        let write = move |writing: &mut Writing<'_>| {
            let mut upsert = writing
                .db
                .prepare_cached("INSERT INTO marks (name, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value")?;
            upsert.execute([&name, &value])?;
            Ok(())
        };
        Ok(self.0.database.write(write).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: i64 = 1_000_000;

    fn shape(capacity: u32, refill: Duration) -> BucketShape {
        BucketShape { capacity, refill }
    }

    #[test]
    fn a_bucket_gives_what_it_holds_and_then_one_token_a_refill() {
        let shape = shape(3, Duration::from_secs(10));
        let mut full_at = None;
        for _ in 0..3 {
            let (taken, after) = take_one(full_at, shape, 0);
            assert_eq!(taken, Taken::Granted);
            full_at = Some(after);
        }
        assert_eq!(take_one(full_at, shape, 0).0, Taken::Wait(Duration::from_secs(10)));
        assert_eq!(take_one(full_at, shape, 4 * SECOND).0, Taken::Wait(Duration::from_secs(6)));
        let (taken, after) = take_one(full_at, shape, 10 * SECOND);
        assert_eq!(taken, Taken::Granted);
        assert_eq!(take_one(Some(after), shape, 10 * SECOND).0, Taken::Wait(Duration::from_secs(10)));
    }

    #[test]
    fn a_bucket_of_nothing_never_gives() {
        assert_eq!(take_one(None, shape(0, Duration::from_secs(7)), 0).0, Taken::Wait(Duration::from_secs(7)));
    }

    #[test]
    fn a_bucket_written_under_another_shape_opens_after_its_own_refill() {
        let shape = shape(2, Duration::from_secs(1));
        assert_eq!(take_one(Some(1_000_000 * SECOND), shape, 0).0, Taken::Wait(Duration::from_secs(1)));
    }
}
