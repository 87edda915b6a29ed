//! The records' file: read once at the start, replaced as a whole whenever records changed.
//!
//! Arrives: the number of the newest change. Leaves: the number of the newest change that survives a crash. Goes wrong: [`FileError`] at
//! the start, [`SaveError`] later (tried again by itself). A reader of the file sees the old or the new contents, never a mix; many
//! changes at once share one write.

use std::{
    fs::{self, File, TryLockError},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    record::{Record, RecordSet},
    zone::{Contents, EditError},
};

/// The file format's number.
const FORMAT: u32 = 1;
/// The longest pause between two writes, so that a bulk of edits costs few of them.
const MAX_PAUSE: Duration = Duration::from_millis(50);
/// How many times longer than a write the pause after it is, until [`MAX_PAUSE`]: a small file is written at once, again and again, for
/// people and scripts that edit one record after the other.
const PAUSE_PER_WRITE: u32 = 4;
/// When a write that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long an edit waits to become durable.
const SAVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// Another server has it.
    #[error("{path} is in use by another server; stop that one, or give this one a file of its own")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The operating system says no.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// It is not what this server writes.
    #[error("{path} is not a file of this server's; move it away to start with an empty zone")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Where reading stopped.
        #[source]
        source: serde_json::Error,
    },
    /// It was written by a newer version.
    #[error("{path} has format {found}, and this version reads format {FORMAT}; use the newer version, or move the file away")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A record in it breaks the rules.
    #[error("{path} holds a record that this server refuses; correct it, or move the file away")]
    Record {
        /// The file.
        path: PathBuf,
        /// Which record, and why.
        #[source]
        source: EditError,
    },
}

/// Why a change may not survive a crash. It is in force all the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The last write failed; the next one tries again.
    #[error("the change is in force but not on disk, and will be tried again: {0}")]
    Failed(Arc<str>),
    /// The disk did not answer in time.
    #[error("the change is in force but was not on disk within {} s", SAVE_TIMEOUT.as_secs())]
    Late,
    /// The server has stopped, so nobody writes any more.
    #[error("the server has stopped; the change is lost")]
    Stopped,
}

/// What is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// The newest change that survives a crash.
    durable: u64,
    /// The newest change that a write failed to save, and why.
    failure: Option<(u64, Arc<str>)>,
}

impl Progress {
    /// Everything up to this change is on disk.
    pub(crate) fn at(durable: u64) -> Self {
        Self { durable, failure: None }
    }
}

/// What the file says.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    format: u32,
    /// How often the contents had changed, so that serial numbers never go back.
    pub(crate) changes: u64,
    pub(crate) records: Vec<Record>,
}

#[derive(Serialize)]
struct ToStore {
    format: u32,
    changes: u64,
    records: Vec<Record>,
}

/// The right to use the file, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Claimed {
    path: PathBuf,
    lock: File,
}

impl Drop for Claimed {
    /// Lets go by saying so: closing alone leaves the lock with any child process that was forked meanwhile and has not yet replaced itself.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

impl Claimed {
    /// Takes the file for this process; makes its folder when there is none.
    pub(crate) fn claim(path: &Path) -> Result<Self, FileError> {
        let failed = |doing| move |source| FileError::Io { doing, path: path.to_owned(), source };
        fs::create_dir_all(folder(path)).map_err(failed("make the folder of"))?;
        // The file itself is replaced by every write, so the lock needs one that stays.
        let lock = File::create(beside(path, ".lock")).map_err(failed("make the lock of"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(TryLockError::WouldBlock) => Err(FileError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed("lock")(source)),
        }
    }

    /// Reads what an earlier server left; nothing when it is the first.
    pub(crate) fn load(&self) -> Result<Option<Stored>, FileError> {
        let path = self.path.clone();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(FileError::Io { doing: "read", path, source }),
        };
        match serde_json::from_slice::<Stored>(&text) {
            Ok(stored) if stored.format == FORMAT => Ok(Some(stored)),
            Ok(stored) => Err(FileError::Format { path, found: stored.format }),
            Err(source) => Err(FileError::Unreadable { path, source }),
        }
    }

    /// Names the file in an error about one of its records.
    pub(crate) fn refused(&self, source: EditError) -> FileError {
        FileError::Record { path: self.path.clone(), source }
    }
}

/// Writes changes until it is stopped, the last ones after that.
pub(crate) struct Keeper {
    pub(crate) file: Claimed,
    pub(crate) contents: Arc<RwLock<Contents>>,
    /// The newest change.
    pub(crate) changed: watch::Receiver<u64>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Closes when it is time to stop.
    pub(crate) stop: watch::Receiver<()>,
}

impl Keeper {
    pub(crate) async fn run(mut self) {
        let mut durable = self.progress.borrow().durable;
        let mut not_before = Instant::now();
        loop {
            let stopping = self.stop.has_changed().is_err();
            if *self.changed.borrow_and_update() <= durable {
                if stopping {
                    return;
                }
                tokio::select! {
                    _ = self.changed.changed() => {}
                    _ = self.stop.changed() => {}
                }
                continue;
            }
            if !stopping && Instant::now() < not_before {
                tokio::select! {
                    () = sleep_until(not_before) => {}
                    _ = self.stop.changed() => {}
                }
            }
            let started = Instant::now();
            let (attempted, written) = self.write().await;
            match written {
                Ok(()) => {
                    durable = attempted;
                    self.progress.send_replace(Progress::at(durable));
                    not_before = Instant::now() + MAX_PAUSE.min(started.elapsed() * PAUSE_PER_WRITE);
                }
                Err(reason) => {
                    tracing::warn!(path = %self.file.path.display(), reason, "the zone could not be saved");
                    self.progress.send_replace(Progress { durable, failure: Some((attempted, reason.into())) });
                    not_before = Instant::now() + RETRY_AFTER;
                    if stopping {
                        return;
                    }
                }
            }
        }
    }

    /// Writes the contents as they are now; returns which change that is.
    async fn write(&self) -> (u64, Result<(), String>) {
        let (sets, changes) = {
            let contents = self.contents.read().unwrap_or_else(PoisonError::into_inner);
            (contents.sets(), contents.changes())
        };
        let path = self.file.path.clone();
        let written = tokio::task::spawn_blocking(move || write_file(&path, changes, &sets)).await;
        let written = match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panicked) => Err(panicked.to_string()),
        };
        (changes, written)
    }
}

/// Waits until a change survives a crash.
pub(crate) async fn saved(mut progress: watch::Receiver<Progress>, change: u64) -> Result<(), SaveError> {
    let settled = |progress: &Progress| {
        let failed = progress.failure.as_ref().filter(|(attempted, _)| *attempted >= change);
        match failed {
            _ if progress.durable >= change => Some(Ok(())),
            Some((_, reason)) => Some(Err(SaveError::Failed(reason.clone()))),
            None => None,
        }
    };
    let waited = timeout(SAVE_TIMEOUT, progress.wait_for(|progress| settled(progress).is_some())).await;
    match waited {
        Ok(Ok(progress)) => settled(&progress).unwrap_or(Err(SaveError::Stopped)),
        Ok(Err(_closed)) => Err(SaveError::Stopped),
        Err(_elapsed) => Err(SaveError::Late),
    }
}

/// Replaces the file: written beside it, forced to disk, and renamed over it, so that a crash at any moment leaves one whole file.
fn write_file(path: &Path, changes: u64, sets: &[(Arc<str>, Arc<RecordSet>)]) -> io::Result<()> {
    let records = sets.iter().map(|(name, set)| set.to_record(name)).collect();
    let fresh = beside(path, ".new");
    let mut writer = BufWriter::new(File::create(&fresh)?);
    serde_json::to_writer_pretty(&mut writer, &ToStore { format: FORMAT, changes, records })?;
    writer.write_all(b"\n")?;
    writer.into_inner()?.sync_all()?;
    fs::rename(&fresh, path)?;
    // The rename itself lives in the folder, which has to reach the disk too.
    File::open(folder(path))?.sync_all()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
