//! Every claim's history as one feed.
//!
//! Arrives: a cursor, or none. Leaves: what was committed after it, in the order of the commits. Goes wrong: a cursor of nobody, which is
//! said, because a reader that went on from nowhere would miss everything.
//!
//! One file has one writer at a time, so that the order of commits is the order of positions, and nothing comes late.

use async_trait::async_trait;
use domains::{EventFeed, EventPage, HistoryEntry, StoreError, TenantId};
use rusqlite::{Connection, Row, params};

use super::{LocalHome, failure::Failure, table::parse};
use crate::cursor::{self, Start};

type EventRow = (i64, String, String, u64, String);

fn event_row(row: &Row<'_>) -> Result<EventRow, rusqlite::Error> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
}

#[async_trait]
impl EventFeed for LocalHome {
    async fn events(&self, tenant: Option<&TenantId>, after: Option<&str>, limit: usize) -> Result<Option<EventPage>, StoreError> {
        let list = ("events".to_owned(), tenant.map(|tenant| tenant.as_str().to_owned()));
        let after = match cursor::decode::<_, i64>(&list, after) {
            Start::First => 0,
            Start::After(position) if position >= 0 => position,
            Start::After(_) | Start::Nowhere => return Ok(None),
        };
        let size = cursor::page_size(limit);
        let read = move |db: &Connection| {
            let mut rows = event_rows(db, list.1.as_deref(), after, size + 1)?;
            let more = rows.len() > size;
            rows.truncate(size);
            let items = rows.iter().map(event).collect::<Result<_, _>>()?;
            let last = rows.last().map_or(after, |(position, ..)| *position);
            let cursor = cursor::encode(&list, last).ok_or_else(|| Failure::defect("a cursor cannot be written".to_owned()))?;
            Ok(Some(EventPage { items, cursor, more }))
        };
        Ok(self.0.database.read(read).await?)
    }
}

fn event_rows(db: &Connection, tenant: Option<&str>, after: i64, rows: usize) -> Result<Vec<EventRow>, Failure> {
    let columns = "SELECT position, hostname, tenant, sequence, item FROM events JOIN history USING (hostname, tenant, sequence)";
    let found = match tenant {
        None => db
            .prepare_cached(&format!("{columns} WHERE position > ?1 ORDER BY position LIMIT ?2"))?
            .query_map(params![after, rows], event_row)?
            .collect::<Result<_, _>>()?,
        Some(tenant) => db
            .prepare_cached(&format!("{columns} WHERE events.tenant = ?3 AND position > ?1 ORDER BY position LIMIT ?2"))?
            .query_map(params![after, rows, tenant], event_row)?
            .collect::<Result<_, _>>()?,
    };
    Ok(found)
}

fn event((_, hostname, tenant, sequence, item): &EventRow) -> Result<HistoryEntry, Failure> {
    parse(item, || format!("history {hostname}|{tenant} entry {sequence}"))
}
