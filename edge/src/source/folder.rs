//! A folder as the source: one machine's bucket. Works where the folder is read-only.
//!
//! Arrives: object names. Leaves: file contents; an etag of modification time, length and inode, so that a file replaced within one
//! tick of the clock still changes it. Goes wrong: a missing *folder* is an error, because a file that is missing in it is an absence.

use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use async_trait::async_trait;

use super::{Etag, Fetched, Source, SourceError};

/// Reads objects from a folder.
#[derive(Clone, Debug)]
pub struct FolderSource {
    root: PathBuf,
}

impl FolderSource {
    /// Reads from `root`, which holds `index/`, `sites/` and `edge.json`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
}

#[async_trait]
impl Source for FolderSource {
    async fn list_index(&self) -> Result<Vec<(u8, Etag)>, SourceError> {
        let root = self.root.clone();
        blocking("index/", move || list_index(&root)).await
    }

    async fn get(&self, object: &str, limit: usize, unless: Option<&Etag>) -> Result<Fetched, SourceError> {
        let (root, name, unless) = (self.root.clone(), object.to_owned(), unless.cloned());
        blocking(object, move || get(&root, &name, limit, unless.as_ref())).await
    }
}

async fn blocking<T: Send + 'static>(object: &str, read: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, SourceError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read.map_err(|error| SourceError::new(object, error)),
        Err(failed) => Err(SourceError::new(object, failed)),
    }
}

fn list_index(root: &Path) -> io::Result<Vec<(u8, Etag)>> {
    let entries = match fs::read_dir(root.join("index")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return exists(root).map(|()| Vec::new()),
        entries => entries?,
    };
    let mut shards = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = format!("index/{}", entry.file_name().to_string_lossy());
        let Some(shard) = bundles::shard_of_object(&name) else { continue };
        match entry.metadata() {
            Ok(metadata) => shards.push((shard, etag(&metadata))),
            // Replaced between the two looks; the next listing sees the new one.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(shards)
}

fn get(root: &Path, object: &str, limit: usize, unless: Option<&Etag>) -> io::Result<Fetched> {
    let path = root.join(object);
    let metadata = match fs::metadata(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return exists(root).map(|()| Fetched::Absent),
        metadata => metadata?,
    };
    // Opening anything else, a pipe for one, could wait for ever.
    if !metadata.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
    }
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return exists(root).map(|()| Fetched::Absent),
        file => file?,
    };
    let etag = etag(&file.metadata()?);
    if unless == Some(&etag) {
        return Ok(Fetched::Unchanged);
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(Fetched::Object { bytes: bytes.into(), etag })
}

fn exists(root: &Path) -> io::Result<()> {
    fs::metadata(root).map(|_| ())
}

fn etag(metadata: &Metadata) -> Etag {
    Etag(format!("{}.{:09}-{}-{}", metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_object_is_an_absence_and_a_missing_folder_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let source = FolderSource::new(folder.path());
        assert_eq!(source.list_index().await.unwrap(), []);
        assert_eq!(source.get("sites/shop.brand.com.json", 10, None).await.unwrap(), Fetched::Absent);
        folder.close().unwrap();
        assert_eq!(source.list_index().await.unwrap_err().object, "index/");
        source.get("sites/shop.brand.com.json", 10, None).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_etag_stays_with_the_bytes_and_moves_when_the_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("index")).unwrap();
        fs::write(folder.path().join("index/0a.json"), "one").unwrap();
        fs::write(folder.path().join("index/0a.json.tmp"), "unfinished").unwrap();
        let source = FolderSource::new(folder.path());
        let listed = source.list_index().await.unwrap();
        let [(0x0a, etag)] = listed.as_slice() else { panic!("{listed:?}") };
        assert_eq!(source.get("index/0a.json", 10, Some(etag)).await.unwrap(), Fetched::Unchanged);

        fs::write(folder.path().join("new"), "two").unwrap();
        fs::rename(folder.path().join("new"), folder.path().join("index/0a.json")).unwrap();
        let Fetched::Object { bytes, etag: moved } = source.get("index/0a.json", 10, Some(etag)).await.unwrap() else { panic!() };
        assert_eq!(&bytes[..], b"two");
        assert_ne!(&moved, etag);
        assert_eq!(source.list_index().await.unwrap(), [(0x0a, moved)]);
    }

    #[tokio::test]
    async fn no_more_than_the_limit_and_one_byte_is_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("edge.json"), vec![b' '; 10 << 20]).unwrap();
        let Fetched::Object { bytes, .. } = FolderSource::new(folder.path()).get("edge.json", 100, None).await.unwrap() else { panic!() };
        assert_eq!(bytes.len(), 101);
    }
}
