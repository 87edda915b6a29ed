//! Small versioned documents: the `ask` secret, webhooks, jobs.
//!
//! Arrives: a kind, an id, a body and the version that was read. Leaves: the document, one version on. Goes wrong: another writer was
//! first; a body that the harder home could not hold.

use async_trait::async_trait;
use domains::{CommitError, Document, Documents, MAX_DOCUMENT_BYTES, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{LocalHome, database::Writing, failure::Failure};
use crate::cursor;

fn document_row(row: &Row<'_>) -> Result<Document, rusqlite::Error> {
    Ok(Document { id: row.get(0)?, version: row.get(1)?, body: row.get(2)? })
}

#[async_trait]
impl Documents for LocalHome {
    async fn document(&self, kind: &str, id: &str) -> Result<Option<Document>, StoreError> {
        let (kind, id) = (kind.to_owned(), id.to_owned());
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached("SELECT id, version, body FROM documents WHERE kind = ?1 AND id = ?2")?;
            Ok(statement.query_row([&kind, &id], document_row).optional()?)
        };
        Ok(self.0.database.read(read).await?)
    }

    async fn put_document(&self, kind: &str, id: &str, body: &str, expected: Option<u64>) -> Result<u64, CommitError> {
        if body.len() > MAX_DOCUMENT_BYTES {
            let detail = format!("the {kind} `{id}` has {} bytes; at most {MAX_DOCUMENT_BYTES} fit", body.len());
            return Err(StoreError::Defect { detail }.into());
        }
        let (kind, id, body) = (kind.to_owned(), id.to_owned(), body.to_owned());
        let version = expected.unwrap_or(0) + 1;
        let write = move |writing: &mut Writing<'_>| {
            let rows = match expected {
                None => writing
                    .db
                    .prepare_cached("INSERT INTO documents (kind, id, version, body) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING")?
                    .execute(params![kind, id, version, body])?,
                Some(expected) => {
                    writing.effects.erased = true;
                    writing
                        .db
                        .prepare_cached("UPDATE documents SET version = ?3, body = ?4 WHERE kind = ?1 AND id = ?2 AND version = ?5")?
                        .execute(params![kind, id, version, body, expected])?
                }
            };
            written(rows)
        };
        self.0.database.write(write).await?;
        Ok(version)
    }

    async fn delete_document(&self, kind: &str, id: &str, expected: u64) -> Result<(), CommitError> {
        let (kind, id) = (kind.to_owned(), id.to_owned());
        let write = move |writing: &mut Writing<'_>| {
            writing.effects.erased = true;
            let mut delete = writing.db.prepare_cached("DELETE FROM documents WHERE kind = ?1 AND id = ?2 AND version = ?3")?;
            written(delete.execute(params![kind, id, expected])?)
        };
        Ok(self.0.database.write(write).await?)
    }

    async fn documents(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        let (kind, after) = (kind.to_owned(), after.unwrap_or_default().to_owned());
        let size = cursor::page_size(limit);
        let read = move |db: &Connection| {
            let mut statement =
                db.prepare_cached("SELECT id, version, body FROM documents WHERE kind = ?1 AND id > ?2 ORDER BY id LIMIT ?3")?;
            Ok(statement.query_map(params![kind, after, size], document_row)?.collect::<Result<_, _>>()?)
        };
        Ok(self.0.database.read(read).await?)
    }
}

fn written(rows: usize) -> Result<(), Failure> {
    match rows {
        1 => Ok(()),
        _ => Err(Failure::Conflict),
    }
}
