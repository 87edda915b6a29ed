//! What a restore makes of a backup, and of what else survived.
//!
//! Arrives: a backup's file, a home's folder without a store, perhaps with its bucket, and what the operator knows. Leaves: a store that
//! carries on from it, with nothing issued again and nothing brought back, and a list of what became of what. Goes wrong: a store that is in
//! the way, a bucket that does not read ([`RestoreError`]); a restore that did not end is begun anew by the next one.
//!
//! - `bucket`: what it still shows of each name. `names`: what follows for each, as [`domains::decide::restore`] decides, and for the CA's
//!   limits. `beside`: webhooks, imports, and the path of `ask`.

mod beside;
mod bucket;
mod names;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
};

use bundles::SealKeys;
use domains::{Clock, CommitError, Hostname, StoreError, Timestamp, ledger::CaLimits};
use register_domain::StoppedImport;
use storage::local::{BackupError, LocalConfig, LocalHome, OpenError, place, read_backup, restored};

pub use beside::PausedWebhook;

/// A restore, as it was asked for.
pub struct Restore<'r> {
    /// The backup.
    pub from: &'r Path,
    /// The home's folder: no store in it, its bucket perhaps.
    pub home: &'r Path,
    /// Where the edge of this machine keeps what it has read: forgotten together with a lost bucket.
    pub edge_cache: Option<&'r Path>,
    /// The keys that open what is sealed in the bucket.
    pub seal_keys: &'r SealKeys,
    /// Names that were removed after the backup, for when the bucket is lost.
    pub removed: &'r BTreeSet<Hostname>,
    /// Names that were suspended after the backup, for the same.
    pub suspended: &'r BTreeSet<Hostname>,
    /// The limits of each CA that orders may go to.
    pub limits: &'r [CaLimits],
    /// Whether webhooks are told on without anybody saying so.
    pub keep_webhooks: bool,
    /// Whether `ask` gets a new secret path.
    pub new_ask_secret: bool,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// What a restore made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// When the backup was taken.
    pub taken_at: Timestamp,
    /// Whether the bucket was there.
    pub bucket_survived: bool,
    /// How many names there are.
    pub names: usize,
    /// For how many of them the backup was not the last word.
    pub changed: usize,
    /// Names with a newer certificate in the bucket, which was taken over.
    pub taken_over: Vec<String>,
    /// Names that went after the backup.
    pub gone: Vec<String>,
    /// Names that were suspended after the backup.
    pub suspended: Vec<String>,
    /// Names that wait to be seen in DNS.
    pub withheld: Vec<String>,
    /// Names that the bucket serves for nobody that is known.
    pub unknown: Vec<String>,
    /// Webhooks that are told nothing until somebody says so.
    pub webhooks: Vec<PausedWebhook>,
    /// Imports that were open.
    pub imports: Vec<StoppedImport>,
    /// When the secret path of `ask` was made, where there is one.
    pub ask_made_at: Option<Timestamp>,
}

/// A restore did not come about. Nothing is served from the folder until one has ended well.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file is no backup.
    #[error(transparent)]
    Backup(BackupError),
    /// The store was not made.
    #[error(transparent)]
    Place(BackupError),
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store does not read or write.
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    /// The bucket does not read.
    #[error("{what} in the bucket does not read: {why}")]
    Bucket {
        /// What of it.
        what: String,
        /// What went wrong.
        why: String,
    },
    /// The edge's folder cannot be removed.
    #[error("`{}`: {source}", path.display())]
    EdgeCache {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl From<CommitError> for RestoreError {
    fn from(error: CommitError) -> Self {
        match error {
            // The folder is locked: nobody else writes.
            CommitError::Conflict => Self::Store(StoreError::Defect { detail: "another writer was at a store under restoring".into() }),
            CommitError::Store(error) => Self::Store(error),
        }
    }
}

impl RestoreError {
    /// What the operator does about it.
    pub fn what_helps(&self) -> &'static str {
        match self {
            Self::Backup(_) => "name a file that `nameplate backup` wrote",
            Self::Place(_) => {
                "stop the product and move the store (home/home.sqlite3, -wal and -shm) away if it shall be replaced; leave bucket/ where it is"
            }
            Self::Open(_) | Self::Store(_) => "run `nameplate restore` again; nothing is served from this folder until it has ended well",
            Self::Bucket { .. } => "mend the disk, or move bucket/ away: then every name waits until it is seen in DNS",
            Self::EdgeCache { .. } => "remove that folder and run `nameplate restore` again",
        }
    }
}

/// Makes a store from a backup, and brings it up to what is known now.
///
/// # Errors
/// [`RestoreError`]; the product then refuses to start with that store, and the next restore replaces it.
pub async fn restore(asked: &Restore<'_>) -> Result<Restored, RestoreError> {
    let (facts, _) = read_backup(asked.from).map_err(RestoreError::Backup)?;
    place(asked.from, asked.home).map_err(RestoreError::Place)?;
    let home = LocalHome::open(LocalConfig::new(asked.home, asked.clock.clone()))?;
    let now = asked.clock.now();
    let shown = bucket::shown(&home, asked.seal_keys, asked.limits.len() > 1).await?;
    if shown.is_empty() {
        asked.edge_cache.map_or(Ok(()), forget)?;
    }
    let mut made = Restored { taken_at: facts.taken_at, bucket_survived: !shown.is_empty(), ..Restored::default() };
    names::reconcile(&home, &shown, asked, now, &mut made).await?;
    names::hold_orders(&home, asked.limits, made.taken_at, now).await?;
    beside::carry_on(&home, asked, now, &mut made).await?;
    home.close().await?;
    restored(asked.home).map_err(RestoreError::Place)?;
    Ok(made)
}

/// A bucket that begins anew counts from the beginning, and an edge that remembers more would take none of it, while it went on serving what
/// may have been removed.
fn forget(cache: &Path) -> Result<(), RestoreError> {
    match fs::remove_dir_all(cache) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(RestoreError::EdgeCache { path: cache.to_owned(), source }),
        _ => Ok(()),
    }
}
