//! What the edge keeps on its own disk: every sealed bundle, the index and the settings, so that a restarted edge needs nobody.
//!
//! Arrives: bundles that were accepted, shards that were merged. Leaves: the same after a restart. Goes wrong: a full disk (the caller
//! keeps what is in service), a torn write (that record is forgotten and read again from the source).
//!
//! Bundles lie in one append-only file, because ten thousand small files are slow to start from and wasteful to keep. A record is
//! `magic, header length, body length, header digest` and then a JSON header and the bundle's bytes. A record that is replaced or
//! removed is overwritten with zeros in place, so that a removed key's bytes are gone and not merely unlinked; when dead records
//! outweigh the living, the file is rewritten.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use bundles::{BundleError, Digest, EDGE_SETTINGS_OBJECT, IndexShard, UnixSeconds, index_object};
use domains::{Hostname, OriginName, SiteVersion, TenantId};
use serde::{Deserialize, Serialize};

use crate::names::Served;

const LIVE: [u8; 4] = *b"NPB1";
const DEAD: [u8; 4] = *b"NPX1";
/// Magic, header length, body length and the first eight bytes of the header's digest.
const PREFIX_BYTES: usize = 20;
/// No honest header or body is larger; anything else is a torn or foreign record.
const MAX_PART_BYTES: u32 = 128 * 1024;
/// Below this much waste the file is never rewritten.
const MIN_WASTE_BYTES: u64 = 4 * 1024 * 1024;

/// Lies there from before the first shard is kept until all are.
const UNFINISHED: &str = "index/unfinished";
/// Threads that read the index at the start; more only wait for the disk.
const MAX_READERS: usize = 8;

/// The local disk could not be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file operation failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// Another edge works in the folder.
    #[error("{0} is in use by another edge; give each edge a cache folder of its own")]
    InUse(PathBuf),
}

/// A bundle to be kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) hostname: Hostname,
    pub(crate) served: Served,
    pub(crate) bytes: Vec<u8>,
}

/// The edge's own folder.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    pack: Mutex<Pack>,
    whole: AtomicBool,
    /// Held for as long as the edge lives.
    lock: File,
}

impl Drop for Disk {
    /// Lets go by saying so: closing alone leaves the lock with any child process that was forked meanwhile and has not yet replaced itself.
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

#[derive(Debug)]
struct Pack {
    file: Arc<File>,
    end: u64,
    dead: u64,
    records: HashMap<Hostname, Place>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    at: u64,
    header: u32,
    body: u32,
}

#[derive(Serialize, Deserialize)]
struct Header {
    hostname: Hostname,
    version: SiteVersion,
    tenant: TenantId,
    digest: Digest,
    #[serde(default)]
    not_after: UnixSeconds,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<OriginName>,
}

impl Place {
    fn size(&self) -> u64 {
        PREFIX_BYTES as u64 + u64::from(self.header) + u64::from(self.body)
    }
}

/// The folder, held by this edge alone; nothing of it was read yet.
#[derive(Debug)]
pub(crate) struct Locked {
    folder: PathBuf,
    lock: File,
}

impl Locked {
    /// The index as it was kept, a shard at a time on all cores; a shard that cannot be read is told and left out.
    pub(crate) fn shards(&self, each: impl Fn(Result<IndexShard, BundleError>) + Sync) {
        let next = AtomicU32::new(0);
        let read = || {
            while let Ok(shard) = u8::try_from(next.fetch_add(1, Ordering::Relaxed)) {
                let Ok(bytes) = fs::read(self.folder.join(index_object(shard))) else { continue };
                each(IndexShard::from_bytes(&bytes));
            }
        };
        let others = std::thread::available_parallelism().map_or(0, |cores| cores.get().min(MAX_READERS) - 1);
        std::thread::scope(|scope| {
            (0..others).for_each(|_| drop(scope.spawn(read)));
            read();
        });
    }

    /// Goes through the bundles. Each is offered to `take`, which gives the name back to keep it by, or `None` to have it wiped: because the
    /// name is gone, or because a newer one was there before.
    ///
    /// # Errors
    /// [`DiskError::Io`] when the bundles cannot be read or wiped.
    pub(crate) fn open(self, take: impl FnMut(Hostname, Served) -> Option<Hostname>) -> Result<Disk, DiskError> {
        let path = self.folder.join("bundles.pack");
        let file = private().open(&path).map_err(failed("open", &path))?;
        let pack = Pack::read(file, take).map_err(failed("read", &path))?;
        let mark = self.folder.join(UNFINISHED);
        let known = !pack.records.is_empty() || (0..=u8::MAX).any(|shard| self.folder.join(index_object(shard)).exists());
        let whole = known && !mark.exists();
        if !whole {
            // Before anything is kept: an edge that ends in between must not take a part of the index for all of it.
            private().open(&mark).map_err(failed("open", &mark))?;
        }
        Ok(Disk { folder: self.folder, pack: Mutex::new(pack), whole: AtomicBool::new(whole), lock: self.lock })
    }
}

impl Disk {
    /// Takes the folder for this edge.
    ///
    /// # Errors
    /// [`DiskError::InUse`] when another edge has it, [`DiskError::Io`] when it cannot be made or read.
    pub(crate) fn lock(folder: &Path) -> Result<Locked, DiskError> {
        for part in [folder.to_owned(), folder.join("index")] {
            DirBuilder::new().recursive(true).mode(0o700).create(&part).map_err(failed("make", &part))?;
        }
        let lock_path = folder.join("lock");
        let lock = private().open(&lock_path).map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Locked { folder: folder.to_owned(), lock }),
            Err(fs::TryLockError::WouldBlock) => Err(DiskError::InUse(folder.to_owned())),
            Err(fs::TryLockError::Error(cause)) => Err(failed("lock", &lock_path)(cause)),
        }
    }

    /// Whether a whole index was kept, at one time or another; what is there may be served either way.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Relaxed)
    }

    /// Notes that every shard there is was kept.
    pub(crate) fn whole(&self) -> Result<(), DiskError> {
        if self.whole.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let mark = self.folder.join(UNFINISHED);
        let gone = fs::remove_file(&mark).and_then(|()| File::open(self.folder.join("index"))?.sync_all());
        gone.map_err(failed("remove", &mark))
    }

    /// The bytes kept for a name, `None` when there are none or they are not what was written.
    pub(crate) fn bundle(&self, hostname: &Hostname) -> Result<Option<Vec<u8>>, DiskError> {
        let (file, place) = {
            let pack = self.pack();
            let Some(place) = pack.records.get(hostname).copied() else { return Ok(None) };
            (Arc::clone(&pack.file), place)
        };
        let mut record = vec![0; place.size() as usize];
        file.read_exact_at(&mut record, place.at).map_err(failed("read", &self.pack_path()))?;
        let body = record.split_off(PREFIX_BYTES + place.header as usize);
        let (prefix, header) = record.split_at(PREFIX_BYTES);
        let header = read_header(prefix, header).filter(|header| header.hostname == *hostname);
        Ok(header.is_some_and(|header| Digest::of(&body) == header.digest).then_some(body))
    }

    /// Keeps bundles, and wipes the ones they replace. They are on the disk when this returns.
    pub(crate) fn keep(&self, bundles: &[Kept]) -> Result<(), DiskError> {
        let mut pack = self.pack();
        pack.append(bundles).map_err(failed("write", &self.pack_path()))?;
        self.rewrite_if_wasteful(&mut pack)
    }

    /// Wipes what is kept for names.
    pub(crate) fn wipe(&self, hostnames: &[Hostname]) -> Result<(), DiskError> {
        let mut pack = self.pack();
        let places: Vec<_> = hostnames.iter().filter_map(|hostname| pack.records.remove(hostname)).collect();
        pack.overwrite(&places).map_err(failed("write", &self.pack_path()))?;
        self.rewrite_if_wasteful(&mut pack)
    }

    /// Keeps a shard of the index.
    pub(crate) fn keep_shard(&self, shard: &IndexShard) -> Result<(), DiskError> {
        self.replace(&index_object(shard.shard), &shard.to_bytes())
    }

    /// The settings as they were kept.
    pub(crate) fn settings(&self) -> Option<Vec<u8>> {
        fs::read(self.folder.join(EDGE_SETTINGS_OBJECT)).ok()
    }

    /// Keeps the settings.
    pub(crate) fn keep_settings(&self, bytes: &[u8]) -> Result<(), DiskError> {
        self.replace(EDGE_SETTINGS_OBJECT, bytes)
    }

    /// Replaces a file as a whole: a reader after a crash sees the old or the new one.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let (path, new) = (self.folder.join(name), self.folder.join(format!("{name}.new")));
        let written = private().truncate(true).open(&new).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        });
        written.and_then(|()| fs::rename(&new, &path)).map_err(failed("write", &path))
    }

    fn rewrite_if_wasteful(&self, pack: &mut Pack) -> Result<(), DiskError> {
        if pack.dead < MIN_WASTE_BYTES || pack.dead < pack.end / 2 {
            return Ok(());
        }
        let (path, new) = (self.pack_path(), self.folder.join("bundles.pack.new"));
        let rewritten = pack.rewrite_to(&new).and_then(|rewritten| {
            fs::rename(&new, &path)?;
            File::open(&self.folder)?.sync_all()?;
            Ok(rewritten)
        });
        *pack = rewritten.map_err(failed("rewrite", &path))?;
        Ok(())
    }

    fn pack_path(&self) -> PathBuf {
        self.folder.join("bundles.pack")
    }

    fn pack(&self) -> MutexGuard<'_, Pack> {
        self.pack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pack {
    /// Reads every header; bodies are looked at when they are used.
    fn read(file: File, mut take: impl FnMut(Hostname, Served) -> Option<Hostname>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let mut pack = Self { file: Arc::new(file), end: 0, dead: 0, records: HashMap::new() };
        // Replaced or removed, and not wiped before a crash.
        let mut late = Vec::new();
        let file = Arc::clone(&pack.file);
        let mut reader = io::BufReader::with_capacity(256 * 1024, &*file);
        while let Some((place, header)) = read_record(&mut reader, pack.end, length)? {
            pack.end += place.size();
            let Some(header) = header else {
                pack.dead += place.size();
                continue;
            };
            let Header { hostname, version, tenant, digest, not_after, origin } = header;
            match take(hostname, Served { version, tenant, digest, not_after, origin }) {
                Some(hostname) => late.extend(pack.records.insert(hostname, place)),
                None => late.push(place),
            }
        }
        // What follows the last whole record is a write that a crash cut off.
        pack.file.set_len(pack.end)?;
        pack.overwrite(&late)?;
        Ok(pack)
    }

    fn append(&mut self, bundles: &[Kept]) -> io::Result<()> {
        let (mut written, mut places) = (Vec::new(), Vec::new());
        for bundle in bundles {
            let place = write_record(&mut written, self.end, bundle)?;
            places.push((bundle.hostname.clone(), place));
        }
        let done = self.file.write_all_at(&written, self.end).and_then(|()| self.file.sync_data());
        if let Err(error) = done {
            // Half a write would hide every record after it.
            self.file.set_len(self.end)?;
            return Err(error);
        }
        self.end += written.len() as u64;
        let replaced: Vec<_> = places.into_iter().filter_map(|(hostname, place)| self.records.insert(hostname, place)).collect();
        self.overwrite(&replaced)
    }

    /// Marks records dead and overwrites them with zeros.
    fn overwrite(&mut self, places: &[Place]) -> io::Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        for place in places {
            self.file.write_all_at(&DEAD, place.at)?;
            // The lengths stay, so that what follows is still found.
            let zeros = vec![0; (place.size() - 12) as usize];
            self.file.write_all_at(&zeros, place.at + 12)?;
            self.dead += place.size();
        }
        self.file.sync_data()
    }

    fn rewrite_to(&self, path: &Path) -> io::Result<Self> {
        let file = private().truncate(true).open(path)?;
        let mut writer = io::BufWriter::with_capacity(256 * 1024, file);
        let (mut end, mut records) = (0, HashMap::with_capacity(self.records.len()));
        for (hostname, place) in &self.records {
            let mut record = vec![0; place.size() as usize];
            self.file.read_exact_at(&mut record, place.at)?;
            writer.write_all(&record)?;
            records.insert(hostname.clone(), Place { at: end, ..*place });
            end += place.size();
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(Self { file: Arc::new(file), end, dead: 0, records })
    }
}

/// Appends a record to `written`, which will lie at `end`.
fn write_record(written: &mut Vec<u8>, end: u64, bundle: &Kept) -> io::Result<Place> {
    let Served { version, tenant, digest, not_after, origin } = bundle.served.clone();
    let header = serde_json::to_vec(&Header { hostname: bundle.hostname.clone(), version, tenant, digest, not_after, origin })?;
    let part = |length: usize| u32::try_from(length).ok().filter(|&length| length <= MAX_PART_BYTES).ok_or(ErrorKind::FileTooLarge);
    let place = Place { at: end + written.len() as u64, header: part(header.len())?, body: part(bundle.bytes.len())? };
    written.extend_from_slice(&LIVE);
    written.extend_from_slice(&place.header.to_le_bytes());
    written.extend_from_slice(&place.body.to_le_bytes());
    written.extend_from_slice(&Digest::of(&header).as_bytes()[..8]);
    written.extend_from_slice(&header);
    written.extend_from_slice(&bundle.bytes);
    Ok(place)
}

/// Reads one record: its place, and its header unless it is dead. `None` at the end, or where no whole record lies.
fn read_record(reader: &mut io::BufReader<&File>, at: u64, length: u64) -> io::Result<Option<(Place, Option<Header>)>> {
    if length.saturating_sub(at) < PREFIX_BYTES as u64 {
        return Ok(None);
    }
    let mut prefix = [0; PREFIX_BYTES];
    reader.read_exact(&mut prefix)?;
    let number = |from: usize| u32::from_le_bytes([prefix[from], prefix[from + 1], prefix[from + 2], prefix[from + 3]]);
    let place = Place { at, header: number(4), body: number(8) };
    let known = prefix[..4] == LIVE || prefix[..4] == DEAD;
    if !known || place.header > MAX_PART_BYTES || place.body > MAX_PART_BYTES || length - at < place.size() {
        return Ok(None);
    }
    if prefix[..4] == DEAD {
        reader.seek_relative(i64::from(place.header) + i64::from(place.body))?;
        return Ok(Some((place, None)));
    }
    let mut header = vec![0; place.header as usize];
    reader.read_exact(&mut header)?;
    reader.seek_relative(i64::from(place.body))?;
    Ok(Some((place, read_header(&prefix, &header))))
}

/// A header that is what was written.
fn read_header(prefix: &[u8], header: &[u8]) -> Option<Header> {
    (Digest::of(header).as_bytes()[..8] == prefix[12..]).then(|| serde_json::from_slice(header).ok())?
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DiskError {
    move |cause| DiskError::Io { action, path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, version: u64, bytes: &[u8]) -> Kept {
        let served = Served {
            version: SiteVersion(version),
            tenant: TenantId::parse("acme").unwrap(),
            digest: Digest::of(bytes),
            not_after: 0,
            origin: None,
        };
        Kept { hostname: Hostname::parse_name(name).unwrap(), served, bytes: bytes.to_vec() }
    }

    /// What an edge does that keeps each name's newest bundle.
    fn opened(folder: &Path) -> (Disk, HashMap<Hostname, Served>) {
        let mut found: HashMap<Hostname, Served> = HashMap::new();
        let take = |hostname: Hostname, served: Served| {
            let newer = found.get(&hostname).is_none_or(|known| known.version < served.version);
            newer.then(|| found.insert(hostname.clone(), served)).map(|_| hostname)
        };
        let disk = Disk::lock(folder).unwrap().open(take).unwrap();
        (disk, found)
    }

    fn contains(folder: &Path, needle: &[u8]) -> bool {
        let pack = fs::read(folder.join("bundles.pack")).unwrap();
        pack.windows(needle.len()).any(|window| window == needle)
    }

    #[test]
    fn bundles_are_there_after_a_restart_and_wiped_ones_are_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let all =
            [kept("a.brand.com", 1, b"first secret"), kept("b.brand.com", 1, b"other secret"), kept("c.brand.com", 1, b"third secret")];
        let (disk, found) = opened(folder.path());
        assert!(found.is_empty());
        disk.keep(&all).unwrap();
        disk.keep(&[kept("a.brand.com", 2, b"newer secret")]).unwrap();
        disk.wipe(&[all[1].hostname.clone()]).unwrap();
        for gone in [&b"first secret"[..], b"other secret"] {
            assert!(!contains(folder.path(), gone));
        }
        drop(disk);

        let (disk, found) = opened(folder.path());
        assert_eq!(found.len(), 2);
        assert_eq!(disk.bundle(&all[0].hostname).unwrap().unwrap(), b"newer secret");
        assert_eq!(disk.bundle(&all[1].hostname).unwrap(), None);
        assert_eq!(disk.bundle(&all[2].hostname).unwrap().unwrap(), b"third secret");
    }

    #[test]
    fn a_write_that_was_cut_off_costs_only_itself() {
        let whole = tempfile::tempdir().unwrap();
        let (disk, _) = opened(whole.path());
        disk.keep(&[kept("a.brand.com", 1, b"kept")]).unwrap();
        let first = fs::metadata(whole.path().join("bundles.pack")).unwrap().len();
        disk.keep(&[kept("b.brand.com", 1, b"cut off")]).unwrap();
        let bytes = fs::read(whole.path().join("bundles.pack")).unwrap();
        for length in first as usize..bytes.len() {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("bundles.pack"), &bytes[..length]).unwrap();
            let (disk, found) = opened(folder.path());
            assert_eq!(found.len(), 1, "{length}");
            disk.keep(&[kept("c.brand.com", 1, b"after")]).unwrap();
            drop(disk);
            assert_eq!(opened(folder.path()).1.len(), 2, "{length}");
        }
    }

    #[test]
    fn bytes_that_rotted_on_the_disk_are_not_handed_out() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = kept("a.brand.com", 1, b"sound bytes");
        let (disk, _) = opened(folder.path());
        disk.keep(std::slice::from_ref(&bundle)).unwrap();
        let file = OpenOptions::new().write(true).open(folder.path().join("bundles.pack")).unwrap();
        let end = file.metadata().unwrap().len();
        file.write_all_at(b"X", end - 1).unwrap();
        assert_eq!(disk.bundle(&bundle.hostname).unwrap(), None);
    }

    #[test]
    fn a_file_of_mostly_dead_records_is_rewritten_with_the_living_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, _) = opened(folder.path());
        disk.keep(&[kept("b.brand.com", 1, b"bystander")]).unwrap();
        for version in 0..100 {
            disk.keep(&[kept("a.brand.com", version, &vec![version as u8; 100_000])]).unwrap();
        }
        assert!(fs::metadata(folder.path().join("bundles.pack")).unwrap().len() < 6_000_000);
        let hostname = kept("a.brand.com", 0, b"").hostname;
        assert_eq!(disk.bundle(&hostname).unwrap().unwrap(), vec![99; 100_000]);
        drop(disk);
        let (disk, found) = opened(folder.path());
        assert_eq!(found.len(), 2);
        assert_eq!(disk.bundle(&kept("b.brand.com", 1, b"").hostname).unwrap().unwrap(), b"bystander");
    }

    #[test]
    fn a_folder_serves_one_edge_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = opened(folder.path());
        assert!(matches!(Disk::lock(folder.path()), Err(DiskError::InUse(_))));
        drop(first);
        opened(folder.path());
    }

    #[test]
    fn a_removed_bundle_that_a_crash_left_behind_is_wiped_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, _) = opened(folder.path());
        disk.keep(&[kept("a.brand.com", 1, b"removed secret"), kept("b.brand.com", 1, b"kept")]).unwrap();
        drop(disk);
        let disk = Disk::lock(folder.path()).unwrap().open(|hostname, _| (hostname.as_str() != "a.brand.com").then_some(hostname)).unwrap();
        assert!(!contains(folder.path(), b"removed secret"));
        assert_eq!(disk.bundle(&kept("b.brand.com", 1, b"").hostname).unwrap().unwrap(), b"kept");
    }

    #[test]
    fn an_index_counts_as_whole_only_once_all_of_it_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, _) = opened(folder.path());
        assert!(!disk.is_whole());
        disk.keep_shard(&IndexShard::empty(0)).unwrap();
        disk.keep(&[kept("a.brand.com", 1, b"kept")]).unwrap();
        drop(disk);
        let (disk, found) = opened(folder.path());
        assert_eq!((found.len(), disk.is_whole()), (1, false));
        disk.whole().unwrap();
        drop(disk);
        assert!(opened(folder.path()).0.is_whole());
    }

    #[test]
    fn a_folder_from_before_that_was_noted_counts_as_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, _) = opened(folder.path());
        disk.keep_shard(&IndexShard::empty(0)).unwrap();
        drop(disk);
        fs::remove_file(folder.path().join(UNFINISHED)).unwrap();
        assert!(opened(folder.path()).0.is_whole());
    }
}
