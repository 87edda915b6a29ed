//! A copy of the store in one file, and a store made from one.
//!
//! Arrives: the home's folder, in use or not; a file. Leaves: a file with everything as of one moment, or a store in a folder that had none.
//! Goes wrong: [`BackupError`], with nothing half made under its final name.
//!
//! `VACUUM INTO` copies inside one read transaction, which in write-ahead mode holds up no writer; SQLite's backup calls, made by another
//! process than the writer's, begin again with every write, and may never end. It also leaves out what deleted rows left behind. Source:
//! sqlite.org/lang_vacuum.html and sqlite.org/backup.html (read 2026-11).

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use domains::webhooks::PROGRESS_KIND;
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use super::{OpenError, lock::FolderLock, make_folder, timestamp};

/// How long SQLite waits for another connection's lock.
const BUSY: Duration = Duration::from_secs(10);

/// How far the numbers of a restored store jump ahead, so that none given out after the backup is given out again: more than a store that
/// works without pause for a year at a thousand a minute.
const NUMBERS_AHEAD: i64 = 1_000_000_000;

/// Under this name a store says that its restoring has not ended.
const UNDER_WAY: &str = "restore-under-way";

/// A backup or a restore did not come about.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file or folder cannot be used.
    #[error("`{}`: {source}", path.display())]
    File {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing may be overwritten.
    #[error("`{}` is there already", .0.display())]
    InTheWay(PathBuf),
    /// There is nothing to copy.
    #[error("there is no store in `{}`", .0.display())]
    NoStore(PathBuf),
    /// The file is something else.
    #[error("`{}` is no backup of this product", .0.display())]
    NotABackup(PathBuf),
    /// The folder is in use, or cannot be used.
    #[error(transparent)]
    Folder(#[from] OpenError),
    /// SQLite's own words.
    #[error("the store's file: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFacts {
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The version of the product that took it.
    pub product: String,
    /// The files of the data folder that it carries beside the store, by their paths there.
    pub files: Vec<String>,
}

/// A file that a backup carries: its path below the data folder, and its bytes.
pub type CarriedFile = (String, Vec<u8>);

fn at(path: &Path) -> impl Fn(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path: path.clone(), source }
}

fn store_of(folder: &Path) -> PathBuf {
    folder.join("home.sqlite3")
}

fn open(path: &Path) -> Result<Connection, BackupError> {
    // Read-write, since even a reader of a store in use writes into the memory that its connections share.
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY)?;
    Ok(db)
}

/// Copies the store in `folder`, which may be in use, to the file `to`, readable by its owner only, with `files` (path and bytes) beside it.
///
/// # Errors
/// [`BackupError`]; then there is no file `to`, unless it was there before.
pub fn back_up(folder: &Path, to: &Path, product: &str, files: &[CarriedFile], now: Timestamp) -> Result<BackupFacts, BackupError> {
    let store = store_of(folder);
    if !store.is_file() {
        return Err(BackupError::NoStore(folder.to_owned()));
    }
    if to.exists() {
        return Err(BackupError::InTheWay(to.to_owned()));
    }
    let beside = to.with_file_name(format!(".{}.unfinished", to.file_name().unwrap_or_default().to_string_lossy()));
    let written = copy(&store, &beside, product, files, now).and_then(|()| fs::rename(&beside, to).map_err(at(to)));
    if let Err(error) = written {
        // Told anyhow; what is left lies under a name that says what it is.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
    Ok(BackupFacts { taken_at: now, product: product.to_owned(), files: files.iter().map(|(path, _)| path.clone()).collect() })
}

fn copy(store: &Path, to: &Path, product: &str, files: &[CarriedFile], now: Timestamp) -> Result<(), BackupError> {
    // Made first, so that at no time anyone else may read it.
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to).map_err(at(to))?;
    let source = open(store)?;
    source.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    drop(source);
    let mut copy = open(to)?;
    let writing = copy.transaction()?;
    writing.execute_batch(
        "CREATE TABLE backup (taken_at INTEGER NOT NULL, product TEXT NOT NULL);
         CREATE TABLE backup_files (path TEXT PRIMARY KEY, bytes BLOB NOT NULL)",
    )?;
    writing.execute("INSERT INTO backup VALUES (?1, ?2)", params![now.as_microsecond(), product])?;
    for (path, bytes) in files {
        writing.execute("INSERT INTO backup_files VALUES (?1, ?2)", params![path, bytes])?;
    }
    writing.commit()?;
    drop(copy);
    fs::File::open(to).and_then(|file| file.sync_all()).map_err(at(to))
}

/// Reads what a backup says of itself, and the files it carries.
///
/// # Errors
/// [`BackupError::NotABackup`] for another file.
pub fn read_backup(from: &Path) -> Result<(BackupFacts, Vec<CarriedFile>), BackupError> {
    fs::File::open(from).map_err(at(from))?;
    let foreign = |_| BackupError::NotABackup(from.to_owned());
    let db = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(foreign)?;
    let facts = db.query_row("SELECT taken_at, product FROM backup", [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)));
    let (taken_at, product) = facts.map_err(foreign)?;
    let mut listed = db.prepare("SELECT path, bytes FROM backup_files ORDER BY path")?;
    let files = listed.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<Vec<CarriedFile>, _>>()?;
    let facts = BackupFacts { taken_at: timestamp(taken_at), product, files: files.iter().map(|(path, _)| path.clone()).collect() };
    Ok((facts, files))
}

/// Makes a store in `folder` from a backup. Until [`restored`] it says of itself that its restoring is under way, and a product refuses to
/// start with it; a store in that condition is replaced, any other is left alone.
///
/// # Errors
/// [`BackupError::InTheWay`] where there is a store; others as they come.
pub fn place(from: &Path, folder: &Path) -> Result<(), BackupError> {
    make_folder(folder)?;
    let _held = FolderLock::take(folder)?;
    let store = store_of(folder);
    if store.exists() && !is_under_way(folder)? {
        return Err(BackupError::InTheWay(store));
    }
    // Logs of another store would be played into this one: they go even where their store is gone, and before it where it is not.
    let beside = folder.join(".restoring.sqlite3");
    for of in [&store, &beside] {
        for ending in ["-wal", "-shm", "-journal", ""] {
            remove(&PathBuf::from(format!("{}{ending}", of.display())))?;
        }
    }
    // Not with the backup's own mode, which may be for reading alone, or for everybody.
    let mut copied = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(at(&beside))?;
    fs::File::open(from).and_then(|mut file| io::copy(&mut file, &mut copied)).map_err(at(from))?;
    drop(copied);
    let db = open(&beside)?;
    // The keys that it carries have a place of their own; none stays in the pages that they leave.
    db.pragma_update(None, "secure_delete", true)?;
    // Feed, queues and answers were for moments that are over; what is due is found in the claims. Numbers go on where nobody has been.
    db.execute_batch(
        "BEGIN; DROP TABLE backup; DROP TABLE backup_files;
         DELETE FROM feed; DELETE FROM messages; DELETE FROM answers; COMMIT",
    )?;
    // The product admits the operator's key that it finds as it starts: one that was replaced after the backup is not admitted again.
    db.execute("DELETE FROM callers WHERE json_extract(item, '$.role') = 'operator'", [])?;
    db.execute("UPDATE sqlite_sequence SET seq = seq + ?1", [NUMBERS_AHEAD])?;
    // Under a webhook's numbers after the backup, its receiver knows other events, and would drop new ones as seen.
    db.execute(
        "UPDATE documents SET version = version + 1, body = json_set(body, '$.sequence', json_extract(body, '$.sequence') + ?1)
         WHERE kind = ?2",
        params![NUMBERS_AHEAD, PROGRESS_KIND],
    )?;
    db.execute("INSERT INTO marks (name, value) VALUES (?1, '') ON CONFLICT DO NOTHING", [UNDER_WAY])?;
    drop(db);
    fs::File::open(&beside).and_then(|file| file.sync_all()).map_err(at(&beside))?;
    fs::rename(&beside, &store).map_err(at(&store))
}

fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

/// Says that the restoring of the store in `folder` has ended well.
///
/// # Errors
/// As any write.
pub fn restored(folder: &Path) -> Result<(), BackupError> {
    open(&store_of(folder))?.execute("DELETE FROM marks WHERE name = ?1", [UNDER_WAY])?;
    Ok(())
}

/// Whether the store in `folder` was being restored and that did not end.
///
/// # Errors
/// As any read; a folder without a store is no error.
pub fn is_under_way(folder: &Path) -> Result<bool, BackupError> {
    let store = store_of(folder);
    if !store.is_file() {
        return Ok(false);
    }
    let db = open(&store)?;
    let tables: u32 = db.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'marks'", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(false);
    }
    let mark = db.query_row("SELECT 1 FROM marks WHERE name = ?1", [UNDER_WAY], |_| Ok(())).optional()?;
    Ok(mark.is_some())
}

/// How a store is doing, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Claims that are served.
    pub active: u64,
    /// Messages that no step could take.
    pub dead_letters: u64,
    /// Since when the oldest message that may be taken waits.
    pub oldest_message: Option<Timestamp>,
    /// Certificates in service of which less than this share of their life is left, soonest first: name and end.
    pub ending: Vec<(String, Timestamp)>,
}

/// A certificate with less than one part of this many left of its life should long have been renewed.
const ENDING_BELOW: i64 = 10;

/// Looks at the store in `folder`, in use or not; `None` where there is none.
///
/// # Errors
/// As any read.
pub fn vitals(folder: &Path, now: Timestamp) -> Result<Option<Vitals>, BackupError> {
    let store = store_of(folder);
    if !store.is_file() {
        return Ok(None);
    }
    let db = open(&store)?;
    let micros = now.as_microsecond();
    let active = db.query_row("SELECT count(*) FROM claims WHERE state = 'active'", [], |row| row.get(0))?;
    let dead_letters = db.query_row("SELECT count(*) FROM dead_letters", [], |row| row.get(0))?;
    let oldest: Option<i64> = db.query_row("SELECT min(visible_at) FROM messages WHERE visible_at <= ?1", [micros], |row| row.get(0))?;
    let mut certificates = db.prepare(
        "SELECT hostname, json_extract(item, '$.state.certificate.not_before'), json_extract(item, '$.state.certificate.not_after')
         FROM claims WHERE state = 'active' AND json_extract(item, '$.suspension') IS NULL",
    )?;
    let dates = certificates.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))?;
    let mut ending = Vec::new();
    for dates in dates {
        let (hostname, not_before, not_after) = dates?;
        let (Ok(from), Ok(until)) = (not_before.parse::<Timestamp>(), not_after.parse::<Timestamp>()) else { continue };
        if (until.as_second() - now.as_second()) * ENDING_BELOW < until.as_second() - from.as_second() {
            ending.push((hostname, until));
        }
    }
    ending.sort_by_key(|(_, until)| *until);
    Ok(Some(Vitals { active, dead_letters, oldest_message: oldest.map(timestamp), ending }))
}
