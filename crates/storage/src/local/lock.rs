//! One product to one folder.
//!
//! Arrives: the folder. Leaves: a lock that lasts as long as the value. Goes wrong: another process holds it, which is said with its
//! number.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::OpenError;

/// How long a home that this very process is just closing may take to let go.
const OWN_RELEASE: Duration = Duration::from_secs(2);

/// Held by every thread of the home; the folder is free once the last is gone.
#[derive(Debug)]
pub(crate) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join("home.lock");
        let failed = |source| OpenError::Folder { path: path.clone(), source };
        // Not truncated: until the lock is ours the words in it are the holder's.
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        let deadline = Instant::now() + OWN_RELEASE;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) => {
                    let holder = holder(&mut file);
                    if holder != Some(std::process::id()) || Instant::now() >= deadline {
                        return Err(OpenError::InUse { folder: folder.to_owned(), holder });
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

/// The process number the holder wrote down.
fn holder(file: &mut File) -> Option<u32> {
    let mut words = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut words).ok()?;
    words.trim().parse().ok()
}
