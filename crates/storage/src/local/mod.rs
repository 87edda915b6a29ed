//! The home on one machine: one SQLite file and a folder.
//!
//! Arrives: a folder that is ours alone. Leaves: a [`LocalHome`], which is every trait of `domains::Home` and every consumer of
//! [`crate::consumers`], and keeps to the contracts of the harder home. Goes wrong: [`OpenError`] at the start, with what to do about it;
//! afterwards each call for itself.
//!
//! ```text
//! <folder>/home.lock      held while the product runs
//! <folder>/home.sqlite3   claims, owners, certificates, history, events, feed, queues, limits, keys' hashes, marks, documents, answers
//! <folder>/bucket/        what the edge reads: sites/…, index/…, edge.json
//! ```

mod answers;
mod backup;
mod bucket;
mod chaos;
mod database;
mod documents;
mod events;
mod failure;
mod feed;
mod listings;
mod lock;
mod queues;
mod schema;
mod second_table;
mod sweep;
mod table;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use domains::{Clock, StoreError};
use jiff::Timestamp;
use rusqlite::Connection;

pub use answers::AnswerBook;
pub use backup::{BackupError, BackupFacts, CarriedFile, Vitals, back_up, is_under_way, place, read_backup, restored, vitals};
pub use bucket::etag;
pub use chaos::Chaos;

use bucket::Bucket;
use chaos::Mischief;
use database::{Database, Wakeups, Writing};
use lock::FolderLock;

/// Where the home is and how it behaves.
#[derive(Clone)]
pub struct LocalConfig {
    /// The folder; made if it is not there.
    pub folder: PathBuf,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// What the feed, the queues and the due-index do on purpose, in tests.
    pub chaos: Option<Chaos>,
    /// How long a request waits for its answer, disk included.
    pub patience: Duration,
    /// How often a message is received before it goes to the dead letters.
    pub max_receives: u32,
}

impl LocalConfig {
    /// The usual behaviour, in this folder.
    pub fn new(folder: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self { folder: folder.into(), clock, chaos: None, patience: Duration::from_secs(10), max_receives: 5 }
    }
}

impl std::fmt::Debug for LocalConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { folder, clock: _, chaos, patience, max_receives } = self;
        f.debug_struct("LocalConfig")
            .field("folder", folder)
            .field("chaos", chaos)
            .field("patience", patience)
            .field("max_receives", max_receives)
            .finish_non_exhaustive()
    }
}

/// Why the home did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or something in it is not ours to use.
    #[error("`{}` cannot be used", path.display())]
    Folder {
        /// What was touched.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has the folder open.
    #[error("`{}` is in use by {}; stop it first, or choose another folder", folder.display(), process(*holder))]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// The process that holds it, as far as it said.
        holder: Option<u32>,
    },
    /// A newer Nameplate wrote the file.
    #[error("the store has schema {found}, and this version of Nameplate knows {known}; start a version at least as new as the last one")]
    NewerSchema {
        /// What the file has.
        found: usize,
        /// What we know.
        known: usize,
    },
    /// The file is a database of something else.
    #[error("`home.sqlite3` is another program's database; choose another folder")]
    NotAHome,
    /// The folder's file system cannot hold the log that makes commits safe, as most network file systems cannot.
    #[error("`{}` lies on a file system that does not support SQLite's write-ahead log (it offers `{mode}`); use a local disk", path.display())]
    NoLog {
        /// The file.
        path: PathBuf,
        /// What SQLite fell back to.
        mode: String,
    },
    /// The system gave us no threads.
    #[error("the store's threads cannot be started")]
    Threads(#[source] io::Error),
    /// SQLite's own words.
    #[error("the store's file cannot be opened")]
    Sqlite(#[from] rusqlite::Error),
}

fn process(holder: Option<u32>) -> String {
    holder.map_or_else(|| "another process".to_owned(), |id| format!("process {id}"))
}

/// The home on one machine. Clones share it; it closes when the last is gone.
#[derive(Clone)]
pub struct LocalHome(Arc<Inner>);

struct Inner {
    database: Database,
    bucket: Bucket,
    clock: Arc<dyn Clock>,
    wakeups: Arc<Wakeups>,
    mischief: Option<Mischief>,
    patience: Duration,
    max_receives: u32,
    answers: AnswerBook,
}

impl LocalHome {
    /// Opens the home, making it if it is not there. Blocks for a moment, so it belongs to the start of a program.
    ///
    /// # Errors
    /// [`OpenError`]; nothing was changed.
    pub fn open(config: LocalConfig) -> Result<Self, OpenError> {
        let LocalConfig { folder, clock, chaos, patience, max_receives } = config;
        make_folder(&folder)?;
        let lock = FolderLock::take(&folder)?;
        let bucket = Bucket::open(folder.join("bucket"))?;
        let wakeups = Arc::new(Wakeups::default());
        let database = Database::open(&folder.join("home.sqlite3"), lock, Arc::clone(&clock), Arc::clone(&wakeups), patience)?;
        if let Some(chaos) = &chaos {
            tracing::warn!(seed = chaos.seed, "the store duplicates, reorders and delays on purpose");
        }
        let mischief = chaos.map(Mischief::new);
        let answers = AnswerBook::load(&folder.join("home.sqlite3"))?;
        Ok(Self(Arc::new(Inner { database, bucket, clock, wakeups, mischief, patience, max_receives, answers })))
    }

    /// The folder the edge reads.
    pub fn bucket_folder(&self) -> &Path {
        self.0.bucket.folder()
    }

    /// Empties SQLite's log into its file, so that nothing overwritten or deleted is left in either.
    ///
    /// Happens by itself within seconds of such a change; this is for whoever wants to know that it has.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] while someone else reads the file.
    pub async fn scrub(&self) -> Result<(), StoreError> {
        Ok(self.0.database.scrub().await?)
    }

    /// Deletes what is too old to keep: unread feed records, messages nobody took. Happens by itself every minute.
    ///
    /// # Errors
    /// As any write.
    pub async fn sweep(&self) -> Result<(), StoreError> {
        let now = self.0.clock.now();
        let some = move |writing: &mut Writing<'_>| {
            let swept = sweep::sweep(writing.db, now)?;
            writing.effects.erased |= swept.rows > 0;
            Ok(swept.is_done)
        };
        while !self.0.database.write(some).await? {}
        Ok(())
    }

    /// When the next feed record or message is or was visible; `None` when all is quiet. For whoever moves a clock by hand.
    ///
    /// # Errors
    /// As any read.
    pub async fn next_delivery(&self) -> Result<Option<Timestamp>, StoreError> {
        let read = |db: &Connection| {
            let mut first = db.prepare_cached(
                "SELECT min(at) FROM (SELECT min(visible_at) AS at FROM feed UNION ALL SELECT min(visible_at) FROM messages)",
            )?;
            Ok(first.query_row([], |row| row.get::<_, Option<i64>>(0))?.map(timestamp))
        };
        Ok(self.0.database.read(read).await?)
    }

    /// Wakes every waiting consumer, for a clock that is moved by hand.
    pub fn time_has_moved(&self) {
        self.0.wakeups.all();
    }

    /// Answers what was asked so far, refuses what comes after, and lets go of the folder.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it takes too long.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.0.wakeups.all();
        self.0.database.close().await
    }
}

impl std::fmt::Debug for LocalHome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalHome").field("bucket", &self.0.bucket.folder()).finish_non_exhaustive()
    }
}

/// Makes the folder, readable by its owner only: it will hold sealed keys and the hashes of API keys.
fn make_folder(folder: &Path) -> Result<(), OpenError> {
    let mut maker = fs::DirBuilder::new();
    maker.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut maker, 0o700);
    maker.create(folder).map_err(|source| OpenError::Folder { path: folder.to_owned(), source })
}

/// A time as the tables hold it: microseconds, rounded up, so that nothing is ever due early.
fn micros(at: Timestamp) -> i64 {
    let micros = at.as_microsecond();
    match at.subsec_nanosecond() % 1_000 {
        rest if rest > 0 => micros.saturating_add(1),
        _ => micros,
    }
}

/// The time a table holds.
fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or(if micros < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// A duration as the tables add it.
fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The guarded value, whatever happened to another thread: nothing here is ever left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
