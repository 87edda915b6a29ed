//! The lists people ask for, and the list of what is due.
//!
//! Arrives: what to list and where to go on. Leaves: a page. Goes wrong: a row that does not read fails its page, naming the row.

use async_trait::async_trait;
use domains::{Claim, ClaimKey, DueEntry, DueIndex, HistoryEntry, Hostname, Listings, Page, StateName, Step, StoreError, TenantId};
use jiff::Timestamp;
use rusqlite::{Connection, Row, ToSql, params};

use super::{
    LocalHome,
    failure::Failure,
    micros,
    table::{parse, parse_claim},
    timestamp,
};
use crate::cursor::{self, Start};

/// A claim's row as the listings read it.
type ClaimRow = (String, String, String);

fn claim_row(row: &Row<'_>) -> Result<ClaimRow, rusqlite::Error> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

#[async_trait]
impl Listings for LocalHome {
    async fn claims(
        &self,
        tenant: Option<&TenantId>,
        state: Option<StateName>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<Claim>, StoreError> {
        let list = ("claims".to_owned(), tenant.map(|tenant| tenant.as_str().to_owned()), state);
        let after = match cursor::decode::<_, (String, String)>(&list, cursor) {
            Start::First => (String::new(), String::new()),
            Start::After(key) => key,
            Start::Nowhere => return Ok(Page { items: Vec::new(), cursor: None }),
        };
        let size = cursor::page_size(limit);
        let read = move |db: &Connection| {
            let (_, tenant, state) = &list;
            let rows = claim_rows(db, tenant.as_deref(), *state, &after, size + 1)?;
            let is_last = rows.len() <= size;
            let shown = &rows[..rows.len().min(size)];
            let items = shown.iter().map(|(hostname, tenant, item)| parse_claim(item, hostname, tenant)).collect::<Result<_, _>>()?;
            let last = shown.last().filter(|_| !is_last);
            let cursor = last.and_then(|(hostname, tenant, _)| cursor::encode(&list, (hostname, tenant)));
            Ok(Page { items, cursor })
        };
        Ok(self.0.database.read(read).await?)
    }

    async fn history(&self, key: &ClaimKey, after: u64, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let key = key.clone();
        // No sequence is as high as the tables cannot hold.
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let size = cursor::page_size(limit);
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached(
                "SELECT sequence, item FROM history WHERE hostname = ?1 AND tenant = ?2 AND sequence > ?3 ORDER BY sequence LIMIT ?4",
            )?;
            let rows = statement.query_map(params![key.hostname.as_str(), key.tenant.as_str(), after, size], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
            })?;
            rows.map(|row| {
                row.map_err(Failure::from).and_then(|(sequence, item)| parse(&item, || format!("history {key} entry {sequence}")))
            })
            .collect()
        };
        Ok(self.0.database.read(read).await?)
    }

    async fn claims_to(&self, hostname: &Hostname) -> Result<Vec<Claim>, StoreError> {
        let hostname = hostname.clone();
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached("SELECT hostname, tenant, item FROM claims WHERE hostname = ?1 ORDER BY tenant")?;
            let rows = statement.query_map([hostname.as_str()], claim_row)?;
            rows.map(|row| row.map_err(Failure::from).and_then(|(hostname, tenant, item)| parse_claim(&item, &hostname, &tenant))).collect()
        };
        Ok(self.0.database.read(read).await?)
    }
}

/// The rows after a key, in the order of hostnames; each combination has an index in that order.
fn claim_rows(
    db: &Connection,
    tenant: Option<&str>,
    state: Option<StateName>,
    (after_hostname, after_tenant): &(String, String),
    rows: usize,
) -> Result<Vec<ClaimRow>, Failure> {
    let state = state.map(StateName::as_str);
    let mut conditions = String::from("(hostname, tenant) > (?1, ?2)");
    let mut values: Vec<&dyn ToSql> = vec![after_hostname, after_tenant, &rows];
    for (column, value) in [("tenant", &tenant), ("state", &state)] {
        if let Some(value) = value {
            values.push(value);
            conditions.push_str(&format!(" AND {column} = ?{}", values.len()));
        }
    }
    let statement = format!("SELECT hostname, tenant, item FROM claims WHERE {conditions} ORDER BY hostname, tenant LIMIT ?3");
    let mut statement = db.prepare_cached(&statement)?;
    Ok(statement.query_map(values.as_slice(), claim_row)?.collect::<Result<_, _>>()?)
}

#[async_trait]
impl DueIndex for LocalHome {
    async fn due(&self, from: Timestamp, until: Timestamp, cursor: Option<&str>, limit: usize) -> Result<Page<DueEntry>, StoreError> {
        // The window may move on between two pages: the key goes on from where it was.
        let list = "due".to_owned();
        // What is rounded up must not pass a bound it did not reach.
        let (from, until) = (micros(from), until.as_microsecond());
        let after = match cursor::decode::<_, (i64, String, String)>(&list, cursor) {
            Start::First => (i64::MIN, String::new(), String::new()),
            Start::After(key) => key,
            Start::Nowhere => return Ok(Page { items: Vec::new(), cursor: None }),
        };
        let as_of = self.0.mischief.as_ref().map(|mischief| micros(self.0.clock.now()).saturating_sub(mischief.index_age()));
        let size = cursor::page_size(limit);
        let read = move |db: &Connection| {
            // Without chaos the index is shown as it is, whatever the clock does.
            let shown = match as_of {
                Some(_) => "shown_from <= ?7 AND (shown_until IS NULL OR shown_until > ?7)",
                None => "shown_until IS NULL AND ?7 IS NULL",
            };
            let mut statement = db.prepare_cached(&format!(
                "SELECT next_look, hostname, tenant, version, step FROM due
                 WHERE next_look BETWEEN ?1 AND ?2 AND (next_look, hostname, tenant) > (?3, ?4, ?5) AND {shown}
                 ORDER BY next_look, hostname, tenant LIMIT ?6"
            ))?;
            let rows: Vec<DueRow> = statement
                .query_map(params![from, until, after.0, after.1, after.2, size + 1, as_of], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                })?
                .collect::<Result<_, _>>()?;
            let is_last = rows.len() <= size;
            let shown = &rows[..rows.len().min(size)];
            let items = shown.iter().map(due_entry).collect::<Result<_, _>>()?;
            let last = shown.last().filter(|_| !is_last);
            let cursor = last.and_then(|(next_look, hostname, tenant, ..)| cursor::encode(&list, (next_look, hostname, tenant)));
            Ok(Page { items, cursor })
        };
        Ok(self.0.database.read(read).await?)
    }
}

type DueRow = (i64, String, String, u64, String);

fn due_entry((next_look, hostname, tenant, version, step): &DueRow) -> Result<DueEntry, Failure> {
    let unreadable = |what: &dyn std::fmt::Display| Failure::defect(format!("due entry {hostname}|{tenant} does not read: {what}"));
    let step = parse_step(step).ok_or_else(|| unreadable(&format!("no step is called `{step}`")))?;
    let hostname = Hostname::parse_name(hostname).map_err(|error| unreadable(&error))?;
    let tenant = TenantId::parse(tenant).map_err(|error| unreadable(&error))?;
    Ok(DueEntry { key: ClaimKey { hostname, tenant }, version: *version, step, next_look: timestamp(*next_look) })
}

pub(super) fn parse_step(name: &str) -> Option<Step> {
    Step::ALL.iter().copied().find(|step| step.as_str() == name)
}
