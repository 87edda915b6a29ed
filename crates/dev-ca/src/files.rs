//! Files that are whole or absent: what the CA keeps between two starts.
//!
//! Arrives: bytes and a path. Leaves: a file that survives a crash in full or not at all, with the permissions its contents deserve.
//! Goes wrong: the disk, as [`FileError`] with the path.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that could not be read, written or locked.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another CA is running on the same folder.
    #[error("{} is in use by another dev CA; stop it or give this one its own folder", folder.display())]
    InUse {
        /// The folder both want.
        folder: PathBuf,
    },
}

impl FileError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    Owner,
    Everyone,
}

/// A folder held by this process, until dropped.
#[derive(Debug)]
pub(crate) struct Claim(File);

impl Drop for Claim {
    fn drop(&mut self) {
        // Closing the file would not do: a child process that was just forked, and has not yet closed what it inherited, would keep the
        // lock for a moment. If this fails, that moment is all that is lost.
        let _ = self.0.unlock();
    }
}

/// Creates `folder` if needed and holds it for one process.
pub(crate) fn claim_folder(folder: &Path) -> Result<Claim, FileError> {
    std::fs::create_dir_all(folder).map_err(FileError::at(folder))?;
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(FileError::at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Claim(file)),
        Err(TryLockError::WouldBlock) => Err(FileError::InUse { folder: folder.to_owned() }),
        Err(TryLockError::Error(source)) => Err(FileError::Io { path, source }),
    }
}

/// Reads a text file; a missing one is `None`.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, FileError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::at(path)(error)),
    }
}

/// Writes a file so that a crash leaves the old contents or the new ones: temporary file, fsync, rename, fsync of the folder.
pub(crate) fn write_whole(path: &Path, contents: &[u8], readers: Readers) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let temporary = path.with_extension("new");
    let mut file = create_for(&temporary, readers).map_err(FileError::at(&temporary))?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(FileError::at(&temporary))?;
    std::fs::rename(&temporary, path).map_err(FileError::at(path))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(FileError::at(folder))
}

#[cfg(unix)]
fn create_for(path: &Path, readers: Readers) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Everyone => 0o644,
    };
    let file = OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(path)?;
    // The mode above only counts for a new file and is cut by the umask; a left-over temporary file keeps its own.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    Ok(file)
}

#[cfg(not(unix))]
fn create_for(path: &Path, _readers: Readers) -> io::Result<File> {
    File::create(path)
}
