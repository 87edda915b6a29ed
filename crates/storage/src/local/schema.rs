//! The file's tables, version by version.
//!
//! Arrives: a connection to a new or an older file. Leaves: a file of the newest version. Goes wrong: a file that a newer Nameplate wrote,
//! or that is no home at all, is left untouched.
//!
//! **Where sealed keys may lie.** `secure_delete` overwrites what is deleted, but not the copies that SQLite leaves in the unused middle of
//! a page when it moves rows between pages. Only the first part of a row lies in such a page; the rest lies on overflow pages, which belong
//! to that row alone, never move, and are overwritten whole when it goes. So a row with a sealed key carries padding before it, as long as
//! that first part can be. Source: sqlite.org/fileformat2.html, section 1.6 (read 2026-11); the copies left behind were seen with SQLite 3.40 and
//! the bundled one, about one in a thousand removed rows.

use jiff::Timestamp;
use rusqlite::{Connection, params};

use super::OpenError;

/// The size of a page; the paddings below follow from it.
pub(crate) const PAGE_BYTES: u32 = 4096;

/// The most of a row that stays in the page of a rowid table: `U - 35`.
pub(crate) const ROWID_PADDING: u32 = PAGE_BYTES - 35;

/// The most of a row that stays in the page of a `WITHOUT ROWID` table: `((U - 12) * 64 / 255) - 23`.
pub(crate) const KEYED_PADDING: u32 = (PAGE_BYTES - 12) * 64 / 255 - 23;

/// Marks the file as a home of ours: `npl8`.
const APPLICATION_ID: i32 = 0x6e70_6c38;

/// One step each; never edited once released, only appended to.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE claims (
        hostname TEXT NOT NULL,
        tenant TEXT NOT NULL,
        version INTEGER NOT NULL,
        state TEXT NOT NULL,
        padding BLOB NOT NULL,
        item TEXT NOT NULL,
        PRIMARY KEY (hostname, tenant)
    );
    CREATE INDEX claims_by_tenant ON claims (tenant, hostname);
    CREATE INDEX claims_by_tenant_and_state ON claims (tenant, state, hostname);
    CREATE INDEX claims_by_state ON claims (state, hostname, tenant);

    CREATE TABLE owners (hostname TEXT PRIMARY KEY, version INTEGER NOT NULL, item TEXT NOT NULL) WITHOUT ROWID;

    CREATE TABLE certificates (
        hostname TEXT NOT NULL,
        version INTEGER NOT NULL,
        padding BLOB NOT NULL,
        item TEXT NOT NULL,
        PRIMARY KEY (hostname, version)
    ) WITHOUT ROWID;

    CREATE TABLE history (
        hostname TEXT NOT NULL,
        tenant TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        item TEXT NOT NULL,
        PRIMARY KEY (hostname, tenant, sequence)
    ) WITHOUT ROWID;

    -- The due-index, apart from the claims because it may be shown a little old.
    CREATE TABLE due (
        next_look INTEGER NOT NULL,
        hostname TEXT NOT NULL,
        tenant TEXT NOT NULL,
        version INTEGER NOT NULL,
        step TEXT NOT NULL,
        shown_from INTEGER NOT NULL,
        shown_until INTEGER,
        PRIMARY KEY (next_look, hostname, tenant, version)
    ) WITHOUT ROWID;
    CREATE INDEX due_by_claim ON due (hostname, tenant);
    CREATE INDEX due_superseded ON due (shown_until) WHERE shown_until IS NOT NULL;

    -- AUTOINCREMENT: a number is never used twice, so that a late acknowledgement takes nothing else off the feed.
    CREATE TABLE feed (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        visible_at INTEGER NOT NULL,
        committed_at INTEGER NOT NULL,
        padding BLOB NOT NULL,
        image TEXT NOT NULL
    );
    CREATE INDEX feed_by_visibility ON feed (visible_at, sequence);

    CREATE TABLE messages (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        step TEXT NOT NULL,
        visible_at INTEGER NOT NULL,
        sent_at INTEGER NOT NULL,
        receive_count INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX messages_by_visibility ON messages (step, visible_at, id);

    CREATE TABLE dead_letters (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        step TEXT NOT NULL,
        sent_at INTEGER NOT NULL,
        receive_count INTEGER NOT NULL,
        body TEXT NOT NULL
    );
    CREATE INDEX dead_letters_by_step ON dead_letters (step, id);

    CREATE TABLE limits (bucket TEXT PRIMARY KEY, full_at INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX limits_by_full ON limits (full_at);
    CREATE TABLE callers (key_sha256 TEXT PRIMARY KEY, item TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE marks (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
",
    "
    -- The history in the order it was committed. AUTOINCREMENT: a position is never used twice, so that no cursor ever skips anything.
    CREATE TABLE events (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        hostname TEXT NOT NULL,
        tenant TEXT NOT NULL,
        sequence INTEGER NOT NULL
    );
    CREATE INDEX events_by_tenant ON events (tenant, position);
    -- Whole seconds, then the claim's own numbers: a fraction of a second does not sort as text.
    INSERT INTO events (hostname, tenant, sequence)
        SELECT hostname, tenant, sequence FROM history ORDER BY substr(json_extract(item, '$.at'), 1, 19), hostname, tenant, sequence;

    CREATE TABLE documents (
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        version INTEGER NOT NULL,
        body TEXT NOT NULL,
        PRIMARY KEY (kind, id)
    ) WITHOUT ROWID;
",
    "
    -- What stands in the answer zone, for dns-01 challenges under way.
    CREATE TABLE answers (
        name TEXT NOT NULL,
        value TEXT NOT NULL,
        presented_at INTEGER NOT NULL,
        PRIMARY KEY (name, value)
    ) WITHOUT ROWID;
    CREATE INDEX answers_by_age ON answers (presented_at);
",
    "
    CREATE TABLE ledger (name TEXT PRIMARY KEY, expires_at INTEGER NOT NULL, item TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX ledger_by_expiry ON ledger (expires_at);
",
];

/// Brings the file to the newest version, each step in its own transaction.
pub(crate) fn migrate(db: &mut Connection, now: Timestamp) -> Result<(), OpenError> {
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: u32 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if application != APPLICATION_ID && tables > 0 {
        return Err(OpenError::NotAHome);
    }
    db.execute_batch("CREATE TABLE IF NOT EXISTS schema_versions (version INTEGER PRIMARY KEY, applied_at TEXT NOT NULL)")?;
    db.pragma_update(None, "application_id", APPLICATION_ID)?;
    let found: usize = db.query_row("SELECT coalesce(max(version), 0) FROM schema_versions", [], |row| row.get(0))?;
    if found > MIGRATIONS.len() {
        return Err(OpenError::NewerSchema { found, known: MIGRATIONS.len() });
    }
    for (version, statements) in MIGRATIONS.iter().enumerate().skip(found) {
        let step = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        step.execute_batch(statements)?;
        step.execute("INSERT INTO schema_versions VALUES (?1, ?2)", params![version + 1, now.to_string()])?;
        step.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tempfile::TempDir;

    use super::*;

    const MARKER: &[u8] = b"sealed-";

    /// The numbers behind each marker in the file.
    fn found(folder: &TempDir) -> Vec<u64> {
        let bytes = std::fs::read(folder.path().join("home.sqlite3")).unwrap();
        let number = |window: &[u8]| std::str::from_utf8(&window[MARKER.len()..]).ok()?.parse().ok();
        bytes.windows(MARKER.len() + 6).filter(|window| window.starts_with(MARKER)).filter_map(number).collect()
    }

    /// Writes, overwrites and deletes rows of all sizes at random; returns what is left in the file without being in a row.
    fn residue(seed: u64, insert: &str, delete: &str, padding: u32, longest: u64) -> Vec<u64> {
        let folder = TempDir::new().unwrap();
        let mut db = Connection::open(folder.path().join("home.sqlite3")).unwrap();
        db.execute_batch("PRAGMA page_size = 4096; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY; PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF")
            .unwrap();
        migrate(&mut db, Timestamp::UNIX_EPOCH).unwrap();
        let mut state = seed;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let mut live = HashMap::new();
        for number in 0..6_000u64 {
            let key = below(600);
            if live.contains_key(&key) && below(3) == 0 {
                db.prepare_cached(delete).unwrap().execute([key]).unwrap();
                live.remove(&key);
                continue;
            }
            let is_sealed = below(5) < 2;
            let tail = if is_sealed { format!("sealed-{number:06}|").repeat(1 + below(40) as usize) } else { String::new() };
            let item = "y".repeat(1 + below(longest) as usize) + &tail;
            db.prepare_cached(insert).unwrap().execute(params![key, if is_sealed { padding } else { 0 }, item]).unwrap();
            live.insert(key, is_sealed.then_some(number));
        }
        drop(db);
        let mut left = found(&folder);
        assert!(live.values().flatten().all(|number| left.contains(number)), "the search does not find what is there");
        left.retain(|number| !live.values().any(|live| *live == Some(*number)));
        left
    }

    #[test]
    fn what_is_removed_leaves_no_copy_when_rows_move_between_pages() {
        let claims = (
            "INSERT INTO claims VALUES ('shop' || ?1, 'acme', 1, 'issuing', zeroblob(?2), ?3)
             ON CONFLICT DO UPDATE SET padding = excluded.padding, item = excluded.item",
            "DELETE FROM claims WHERE hostname = 'shop' || ?1",
            ROWID_PADDING,
        );
        let feed = (
            "INSERT INTO feed VALUES (?1, 0, 0, zeroblob(?2), ?3) ON CONFLICT DO UPDATE SET padding = excluded.padding, image = excluded.image",
            "DELETE FROM feed WHERE sequence = ?1",
            ROWID_PADDING,
        );
        let certificates = (
            "INSERT INTO certificates VALUES ('shop' || ?1, 1, zeroblob(?2), ?3)
             ON CONFLICT DO UPDATE SET padding = excluded.padding, item = excluded.item",
            "DELETE FROM certificates WHERE hostname = 'shop' || ?1",
            KEYED_PADDING,
        );
        for (insert, delete, padding) in [claims, feed, certificates] {
            for (seed, longest) in [(1, 20), (2, 200), (3, 800), (4, 200)] {
                let left = residue(seed, insert, delete, padding, longest);
                assert!(left.is_empty(), "{left:?} left from seed {seed}: {insert}");
            }
        }
    }
}
