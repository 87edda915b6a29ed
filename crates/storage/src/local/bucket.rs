//! The bucket as a folder: each object a file, written whole.
//!
//! Arrives: an object's name and bytes. Leaves: a file that is either the old one or the new one, on disk before the answer. Goes wrong: a
//! condition that does not hold; anything the file system says. Only a file that is not there is an absence.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use domains::{BundleBucket, CommitError, ObjectCondition, StoreError};
use sha2::{Digest, Sha256};

use super::{LocalHome, OpenError, locked};
use crate::objects::check_name;

/// How many writers may be inside a condition at once; two objects rarely share a door.
const DOORS: usize = 64;

/// How a file begins that is not an object yet. Object names never begin with a dot.
const UNFINISHED: &str = ".unfinished-";

/// The ETag of these bytes: a prefix of their SHA-256, in hex.
pub fn etag(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The folder and the doors to it.
#[derive(Debug)]
pub(crate) struct Bucket(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    doors: [Mutex<()>; DOORS],
    unfinished: AtomicU64,
}

impl Bucket {
    /// Makes the folder if it is not there, and clears away what a crash left unfinished.
    pub(crate) fn open(folder: PathBuf) -> Result<Self, OpenError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Folder { path, source }
        };
        fs::create_dir_all(&folder).map_err(failed(&folder))?;
        for place in [folder.clone(), folder.join("sites"), folder.join("index")] {
            clear_unfinished(&place).map_err(failed(&place))?;
        }
        Ok(Self(Arc::new(Shared { folder, doors: std::array::from_fn(|_| Mutex::default()), unfinished: AtomicU64::new(0) })))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }
}

fn clear_unfinished(place: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

impl Shared {
    fn read(&self, name: &str) -> io::Result<Option<(Vec<u8>, String)>> {
        match fs::read(self.folder.join(name)) {
            Ok(bytes) => {
                let etag = etag(&bytes);
                Ok(Some((bytes, etag)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, name: &str, bytes: &[u8], condition: &ObjectCondition) -> Result<(), CommitError> {
        let failed = |error: io::Error| CommitError::Store(unavailable(name, &error));
        let path = self.folder.join(name);
        let place = path.parent().unwrap_or(&self.folder);
        if !place.is_dir() {
            fs::create_dir_all(place).and_then(|()| sync_folder(&self.folder)).map_err(failed)?;
        }
        // Written before the door is taken: only the condition and the rename must be one.
        let unfinished = Unfinished(place.join(format!("{UNFINISHED}{}", self.unfinished.fetch_add(1, Ordering::Relaxed))));
        write_synced(&unfinished.0, bytes).map_err(failed)?;
        {
            let _door = locked(self.door(name));
            let there = self.read(name).map_err(failed)?;
            let holds = match (condition, &there) {
                (ObjectCondition::Absent, there) => there.is_none(),
                (ObjectCondition::Matches(expected), Some((_, etag))) => expected == etag,
                (ObjectCondition::Matches(_), None) => false,
            };
            if !holds {
                return Err(CommitError::Conflict);
            }
            fs::rename(&unfinished.0, &path).map_err(failed)?;
        }
        sync_folder(place).map_err(failed)
    }

    fn door(&self, name: &str) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        &self.doors[hasher.finish() as usize % DOORS]
    }
}

/// A file that becomes an object or goes.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Renamed away is the usual case; what is left over is cleared at the next start.
        let _ = fs::remove_file(&self.0);
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Puts a rename on disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn unavailable(name: &str, error: &io::Error) -> StoreError {
    let detail = format!("`{name}`: {error}");
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::IsADirectory | ErrorKind::NotADirectory | ErrorKind::ReadOnlyFilesystem => {
            StoreError::Defect { detail }
        }
        _ => StoreError::Unavailable { detail },
    }
}

impl LocalHome {
    /// Runs file work off the async threads, for as long as the home's patience lasts.
    async fn with_files<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> T + Send + 'static) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.0.bucket.0);
        let patience = self.0.patience;
        match tokio::time::timeout(patience, tokio::task::spawn_blocking(move || work(&shared))).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(panic)) => Err(StoreError::Defect { detail: format!("a panic in the bucket: {panic}") }),
            Err(_) => Err(StoreError::Unavailable { detail: format!("the bucket's folder did not answer within {patience:?}") }),
        }
    }
}

#[async_trait]
impl BundleBucket for LocalHome {
    async fn get(&self, name: &str) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        check_name(name)?;
        let name = name.to_owned();
        self.with_files(move |files| files.read(&name).map_err(|error| unavailable(&name, &error))).await?
    }

    async fn put(&self, name: &str, bytes: &[u8], condition: &ObjectCondition) -> Result<(), CommitError> {
        check_name(name)?;
        let (name, bytes, condition) = (name.to_owned(), bytes.to_vec(), condition.clone());
        self.with_files(move |files| files.write(&name, &bytes, &condition)).await?
    }

    async fn purge_older(&self, name: &str) -> Result<(), StoreError> {
        // A rename leaves no older version behind.
        check_name(name)
    }
}
