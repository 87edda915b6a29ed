//! The few files of the data folder that are neither store nor bucket: keys, the account, and where things listen.
//!
//! Arrives: bytes. Leaves: files written whole, secrets readable by their owner only. Goes wrong: a folder that cannot be written, a file that
//! does not read; both named.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// A file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(crate) struct FileError {
    path: PathBuf,
    reason: String,
}

impl FileError {
    /// What is in the file cannot be used.
    pub(crate) fn unreadable(path: PathBuf, error: &dyn std::error::Error) -> Self {
        Self { path, reason: format!("does not read: {error}") }
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> FileError {
    let path = path.to_owned();
    move |error| FileError { path: path.clone(), reason: error.to_string() }
}

/// Reads a file; `None` only when it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Makes a folder that only its owner may enter.
pub(crate) fn make_private_folder(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

/// Writes a secret whole, readable by its owner only: beside it first, then in its place, on disk before this returns.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let beside = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    };
    written().map_err(failed(path))
}

/// Where a running product can be reached; written when it is ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) pid: u32,
    pub(crate) api: String,
    pub(crate) https: String,
    pub(crate) http: String,
    pub(crate) private: String,
    pub(crate) dns_admin: Option<String>,
    pub(crate) ca_root: Option<String>,
    pub(crate) ca_directory: String,
    pub(crate) ca_control: Option<String>,
}

impl Endpoints {
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("endpoints.json")
    }

    pub(crate) fn load(data: &Path) -> Result<Option<Self>, FileError> {
        let path = Self::path(data);
        let Some(text) = read(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| FileError::unreadable(path, &error))
    }

    pub(crate) fn store(&self, data: &Path) -> Result<(), FileError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_secret(&Self::path(data), &text)
    }
}

/// The operator's API key of a data folder.
pub(crate) fn operator_key_path(data: &Path) -> PathBuf {
    data.join("operator.key")
}
