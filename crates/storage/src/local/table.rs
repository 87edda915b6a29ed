//! The truth: claims, owners, certificates and history.
//!
//! Arrives: a [`Change`], or a key. Leaves: everything the change says in one transaction, its claims in the feed and in the due-index; or
//! the item. Goes wrong: a condition that does not hold, which leaves nothing behind; a row that does not read, which is never an absence.

use std::fmt::Display;

use async_trait::async_trait;
use domains::{
    Change, Claim, ClaimKey, CommitError, DomainTable, HistoryEntry, Hostname, Owner, Put, SiteVersion, StoreError, StoredCertificate,
};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Inner, LocalHome,
    chaos::Mischief,
    database::Writing,
    failure::Failure,
    micros,
    schema::{KEYED_PADDING, ROWID_PADDING},
};
use crate::checks;

/// The field under which a claim carries a sealed key.
const SEALED: &str = "\"sealed_key\"";

#[async_trait]
impl DomainTable for LocalHome {
    async fn claim(&self, key: &ClaimKey) -> Result<Option<Claim>, StoreError> {
        let key = key.clone();
        Ok(self.0.database.read(move |db| read_claim(db, &key)).await?)
    }

    async fn owner(&self, hostname: &Hostname) -> Result<Option<Owner>, StoreError> {
        let hostname = hostname.clone();
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached("SELECT item FROM owners WHERE hostname = ?1")?;
            let item: Option<String> = statement.query_row([hostname.as_str()], |row| row.get(0)).optional()?;
            item.map(|item| parse(&item, || format!("owner {hostname}"))).transpose()
        };
        Ok(self.0.database.read(read).await?)
    }

    async fn certificate(&self, hostname: &Hostname, version: SiteVersion) -> Result<Option<StoredCertificate>, StoreError> {
        let hostname = hostname.clone();
        let read = move |db: &Connection| {
            let mut statement = db.prepare_cached("SELECT item FROM certificates WHERE hostname = ?1 AND version = ?2")?;
            let item: Option<String> = statement.query_row(params![hostname.as_str(), version.0], |row| row.get(0)).optional()?;
            item.map(|item| parse(&item, || format!("certificate {hostname} version {version}"))).transpose()
        };
        Ok(self.0.database.read(read).await?)
    }

    async fn commit(&self, change: &Change) -> Result<(), CommitError> {
        checks::change(change)?;
        let change = change.clone();
        let inner = std::sync::Arc::clone(&self.0);
        Ok(self.0.database.write(move |writing| inner.apply(&change, writing)).await?)
    }
}

impl Inner {
    fn apply(&self, change: &Change, writing: &mut Writing<'_>) -> Result<(), Failure> {
        for put in &change.claims {
            put_claim(put, writing)?;
            index(&put.item, self.mischief.as_ref(), micros(self.clock.now()), writing.db)?;
            self.enter_feed(&put.item, writing)?;
        }
        if let Some(put) = &change.owner {
            put_owner(put, writing.db)?;
        }
        for entry in &change.history {
            put_history(entry, writing.db)?;
        }
        if let Some(certificate) = &change.certificate {
            put_certificate(certificate, writing)?;
        }
        for (hostname, version) in &change.dropped_certificates {
            let mut statement = writing.db.prepare_cached("DELETE FROM certificates WHERE hostname = ?1 AND version = ?2")?;
            statement.execute(params![hostname.as_str(), version.0])?;
            writing.effects.erased = true;
        }
        Ok(())
    }
}

fn put_claim(put: &Put<Claim>, writing: &mut Writing<'_>) -> Result<(), Failure> {
    let Put { item: claim, expected } = put;
    let item = text(claim, &claim.key)?;
    let padding = padding_for(&item);
    let (hostname, tenant) = (claim.key.hostname.as_str(), claim.key.tenant.as_str());
    let state = claim.state.name().as_str();
    let rows = match expected {
        None => {
            let mut insert = writing.db.prepare_cached(
                "INSERT INTO claims (hostname, tenant, version, state, padding, item) VALUES (?1, ?2, ?3, ?4, zeroblob(?5), ?6)
                 ON CONFLICT DO NOTHING",
            )?;
            insert.execute(params![hostname, tenant, claim.version, state, padding, item])?
        }
        Some(expected) => {
            writing.effects.erased = true;
            let same_state = "UPDATE claims SET version = ?3, padding = zeroblob(?5), item = ?6
                 WHERE hostname = ?1 AND tenant = ?2 AND version = ?7 AND state = ?4";
            let other_state = "UPDATE claims SET version = ?3, state = ?4, padding = zeroblob(?5), item = ?6
                 WHERE hostname = ?1 AND tenant = ?2 AND version = ?7";
            let values = params![hostname, tenant, claim.version, state, padding, item, expected];
            // Most writes leave the state as it is, and SQLite rewrites the indexes of whatever is set.
            match writing.db.prepare_cached(same_state)?.execute(values)? {
                0 => writing.db.prepare_cached(other_state)?.execute(values)?,
                rows => rows,
            }
        }
    };
    written(rows)
}

fn put_owner(put: &Put<Owner>, db: &Connection) -> Result<(), Failure> {
    let Put { item: owner, expected } = put;
    let item = text(owner, &owner.hostname)?;
    let rows = match expected {
        None => db
            .prepare_cached("INSERT INTO owners (hostname, version, item) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
            .execute(params![owner.hostname.as_str(), owner.version, item])?,
        Some(expected) => db
            .prepare_cached("UPDATE owners SET version = ?2, item = ?3 WHERE hostname = ?1 AND version = ?4")?
            .execute(params![owner.hostname.as_str(), owner.version, item, expected])?,
    };
    written(rows)
}

fn put_history(entry: &HistoryEntry, db: &Connection) -> Result<(), Failure> {
    let item = text(entry, &entry.key)?;
    let mut insert =
        db.prepare_cached("INSERT INTO history (hostname, tenant, sequence, item) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING")?;
    let (hostname, tenant) = (entry.key.hostname.as_str(), entry.key.tenant.as_str());
    written(insert.execute(params![hostname, tenant, entry.sequence, item])?)?;
    db.prepare_cached("INSERT INTO events (hostname, tenant, sequence) VALUES (?1, ?2, ?3)")?.execute(params![
        hostname,
        tenant,
        entry.sequence
    ])?;
    Ok(())
}

fn put_certificate(certificate: &StoredCertificate, writing: &mut Writing<'_>) -> Result<(), Failure> {
    let item = text(certificate, &certificate.hostname)?;
    let mut upsert = writing.db.prepare_cached(
        "INSERT INTO certificates (hostname, version, padding, item) VALUES (?1, ?2, zeroblob(?3), ?4)
         ON CONFLICT DO UPDATE SET item = excluded.item",
    )?;
    upsert.execute(params![certificate.hostname.as_str(), certificate.version.0, KEYED_PADDING, item])?;
    Ok(())
}

/// Puts the claim's earliest step into the due-index; what was there is gone, or shown a little longer on purpose.
fn index(claim: &Claim, mischief: Option<&Mischief>, now: i64, db: &Connection) -> Result<(), Failure> {
    let (hostname, tenant) = (claim.key.hostname.as_str(), claim.key.tenant.as_str());
    if let Some(mischief) = mischief {
        db.prepare_cached("UPDATE due SET shown_until = ?3 WHERE hostname = ?1 AND tenant = ?2 AND shown_until IS NULL")?
            .execute(params![hostname, tenant, now])?;
        db.prepare_cached("DELETE FROM due WHERE hostname = ?1 AND tenant = ?2 AND shown_until < ?3")?.execute(params![
            hostname,
            tenant,
            now.saturating_sub(mischief.longest_index_age())
        ])?;
    } else {
        db.prepare_cached("DELETE FROM due WHERE hostname = ?1 AND tenant = ?2")?.execute(params![hostname, tenant])?;
    }
    if let Some((step, at)) = claim.next_step() {
        db.prepare_cached(
            "INSERT INTO due (next_look, hostname, tenant, version, step, shown_from, shown_until) VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL)
             ON CONFLICT DO UPDATE SET step = excluded.step, shown_until = NULL",
        )?
        .execute(params![micros(at), hostname, tenant, claim.version, step.as_str(), now])?;
    }
    Ok(())
}

pub(super) fn read_claim(db: &Connection, key: &ClaimKey) -> Result<Option<Claim>, Failure> {
    let mut statement = db.prepare_cached("SELECT item FROM claims WHERE hostname = ?1 AND tenant = ?2")?;
    let item: Option<String> = statement.query_row([key.hostname.as_str(), key.tenant.as_str()], |row| row.get(0)).optional()?;
    item.map(|item| parse_claim(&item, key.hostname.as_str(), key.tenant.as_str())).transpose()
}

/// Reads a claim's item, which must be the one its row is for.
pub(super) fn parse_claim(item: &str, hostname: &str, tenant: &str) -> Result<Claim, Failure> {
    let claim: Claim = parse(item, || format!("claim {hostname}|{tenant}"))?;
    match claim.key.hostname.as_str() == hostname && claim.key.tenant.as_str() == tenant {
        true => Ok(claim),
        false => Err(Failure::defect(format!("claim {hostname}|{tenant} holds the item of {}", claim.key))),
    }
}

/// Reads an item, or says which one does not read. Its content is not repeated: it may hold a sealed key.
pub(super) fn parse<T: DeserializeOwned>(item: &str, name: impl FnOnce() -> String) -> Result<T, Failure> {
    serde_json::from_str(item).map_err(|error| {
        let (line, column, class) = (error.line(), error.column(), error.classify());
        Failure::defect(format!("{} does not read: {class:?} error at line {line}, column {column}", name()))
    })
}

/// An item as the tables hold it.
pub(super) fn text(item: &impl Serialize, name: &impl Display) -> Result<String, Failure> {
    serde_json::to_string(item).map_err(|error| Failure::defect(format!("the item of {name} cannot be written: {error}")))
}

/// How much padding keeps the item's sealed key, if it has one, off the pages that rows share.
pub(super) fn padding_for(item: &str) -> u32 {
    if item.contains(SEALED) { ROWID_PADDING } else { 0 }
}

fn written(rows: usize) -> Result<(), Failure> {
    match rows {
        1 => Ok(()),
        _ => Err(Failure::Conflict),
    }
}
