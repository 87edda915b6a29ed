//! What stands in the answer zone: in the file, so that it survives a restart, and in memory, so that a stranger's question costs no read.
//!
//! Arrives: answers of dns-01 challenges. Leaves: an [`AnswerBook`], which the zone's server reads; it shows what is on disk, never less.
//! Goes wrong: a write that fails leaves the book as it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use domains::{AnswerZone, StoreError};
use rusqlite::{Connection, OpenFlags, params};

use super::{LocalHome, database::Writing, locked, micros};

/// The most values at one name: one for each challenge under way, which are two for a name and its wildcard at each CA.
const MOST_VALUES: usize = 32;

/// The longest value; an answer has 43 characters.
const MOST_VALUE_BYTES: usize = 255;

/// Names from the last label to the first, so that what lies below a name follows it.
type Names = BTreeMap<String, BTreeSet<String>>;

/// What stands in the answer zone. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct AnswerBook(Arc<Mutex<Names>>);

impl AnswerBook {
    pub(super) fn load(file: &Path) -> Result<Self, rusqlite::Error> {
        let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        let mut names = Names::new();
        let mut stored = db.prepare("SELECT name, value FROM answers")?;
        for row in stored.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))? {
            let (name, value) = row?;
            names.entry(key(&name)).or_default().insert(value);
        }
        Ok(Self(Arc::new(Mutex::new(names))))
    }

    /// The values at a lower-case name without a final dot.
    pub fn values(&self, name: &str) -> Vec<String> {
        locked(&self.0).get(&key(name)).into_iter().flatten().cloned().collect()
    }

    /// Whether any name below this one has values.
    pub fn has_below(&self, name: &str) -> bool {
        let above = format!("{}.", key(name));
        let names = locked(&self.0);
        let next = names.range::<str, _>((Bound::Included(above.as_str()), Bound::Unbounded)).next();
        next.is_some_and(|(known, _)| known.starts_with(&above))
    }

    fn add(&self, name: &str, value: &str) {
        locked(&self.0).entry(key(name)).or_default().insert(value.to_owned());
    }

    fn remove(&self, name: &str, value: &str) {
        let mut names = locked(&self.0);
        if let Some(values) = names.get_mut(&key(name)) {
            values.remove(value);
            if values.is_empty() {
                names.remove(&key(name));
            }
        }
    }
}

#[async_trait]
impl AnswerZone for LocalHome {
    async fn present(&self, name: &str, value: &str) -> Result<(), StoreError> {
        if value.is_empty() || value.len() > MOST_VALUE_BYTES {
            return Err(StoreError::Defect {
                detail: format!("an answer of {} bytes for {name}; 1 to {MOST_VALUE_BYTES} fit", value.len()),
            });
        }
        let (stored_name, stored_value, now) = (name.to_ascii_lowercase(), value.to_owned(), micros(self.0.clock.now()));
        let write = move |writing: &mut Writing<'_>| {
            // The oldest make room: they are left over from challenges that nobody finished.
            let mut crowd = writing.db.prepare_cached(
                "DELETE FROM answers WHERE name = ?1 AND value IN
                 (SELECT value FROM answers WHERE name = ?1 AND value <> ?2 ORDER BY presented_at DESC LIMIT -1 OFFSET ?3) RETURNING value",
            )?;
            let gone = crowd.query_map(params![stored_name, stored_value, MOST_VALUES - 1], |row| row.get::<_, String>(0))?;
            let gone: Vec<String> = gone.collect::<Result<_, _>>()?;
            let mut upsert = writing.db.prepare_cached(
                "INSERT INTO answers (name, value, presented_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET presented_at = excluded.presented_at",
            )?;
            upsert.execute(params![stored_name, stored_value, now])?;
            Ok(gone)
        };
        let gone = self.0.database.write(write).await?;
        gone.iter().for_each(|old| self.0.answers.remove(name, old));
        self.0.answers.add(name, value);
        Ok(())
    }

    async fn withdraw(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (stored_name, stored_value) = (name.to_ascii_lowercase(), value.to_owned());
        let write = move |writing: &mut Writing<'_>| {
            let mut delete = writing.db.prepare_cached("DELETE FROM answers WHERE name = ?1 AND value = ?2")?;
            delete.execute(params![stored_name, stored_value])?;
            Ok(())
        };
        self.0.database.write(write).await?;
        self.0.answers.remove(name, value);
        Ok(())
    }
}

impl LocalHome {
    /// What stands in the answer zone, for its server.
    pub fn answer_book(&self) -> AnswerBook {
        self.0.answers.clone()
    }
}

/// `a.b.c` as `c.b.a`, lower-case.
fn key(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower.rsplit('.').collect::<Vec<_>>().join(".")
}
