//! A folder as the publisher leaves it, and a CA whose certificates clients trust.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock},
};

use bundles::{
    Bundle, Digest, EdgeSettings, IndexEntry, IndexShard, LeafFacts, SealKeyPair, SealKeys, SealPublicKey, SiteObject, Tombstone,
    index_object, shard_of, site_object,
};
use domains::{Hostname, SiteVersion, TenantId};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};

use crate::s3::S3;

pub(crate) fn name(text: &str) -> Hostname {
    Hostname::parse_name(text).unwrap()
}

pub(crate) fn tenant(text: &str) -> TenantId {
    TenantId::parse(text).unwrap()
}

fn ca() -> &'static CertifiedIssuer<'static, KeyPair> {
    static CA: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    CA.get_or_init(|| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Edge Test Root");
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    })
}

pub(crate) fn root() -> rustls::pki_types::CertificateDer<'static> {
    ca().der().clone()
}

/// A leaf's PEM and its PKCS#8 key, valid within the years given.
pub(crate) fn leaf(names: &[&str], years: (i32, i32)) -> (String, Vec<u8>) {
    let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca()).unwrap().pem(), key.serialize_der())
}

pub(crate) const VALID: (i32, i32) = (2025, 2045);

/// The serial of a leaf: how tests tell one certificate from the next.
pub(crate) fn fingerprint(pem: &str) -> Digest {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    Digest::of(&CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
}

pub(crate) struct Bucket {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) seal_key: SealPublicKey,
    seal_key_json: Vec<u8>,
    written: Mutex<BTreeMap<PathBuf, Digest>>,
    /// The same objects in S3, when the edge reads them from there.
    s3: Option<S3>,
}

/// At the end of every test: the edge only reads. Permissions alone would not show it, since tests may run as root.
impl Drop for Bucket {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let written = self.written.lock().unwrap();
        for path in files(self.path()) {
            let known = written.get(&path).unwrap_or_else(|| panic!("{} was put into the source, and not by the test", path.display()));
            assert_eq!(Digest::of(&fs::read(&path).unwrap()), *known, "{} was changed, and not by the test", path.display());
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

impl Bucket {
    pub(crate) fn new() -> Self {
        Self::beside(None)
    }

    /// A folder whose every change is made in S3, too.
    pub(crate) fn beside(s3: Option<S3>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for part in ["index", "sites"] {
            fs::create_dir(folder.path().join(part)).unwrap();
        }
        let pair = SealKeyPair::generate().unwrap();
        let (seal_key, seal_key_json) = (pair.public().clone(), pair.to_json().to_vec());
        let bucket = Self { folder, seal_key, seal_key_json, written: Mutex::default(), s3 };
        bucket.write("edge.json", &EdgeSettings::new(1, vec!["thumbprint".to_owned()]).to_bytes());
        bucket
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn seal_keys(&self) -> SealKeys {
        [SealKeyPair::from_json(&self.seal_key_json).unwrap()].into_iter().collect()
    }

    /// The seal key's file form.
    pub(crate) fn seal_key_json(&self) -> &[u8] {
        &self.seal_key_json
    }

    /// A good bundle, and its leaf's fingerprint.
    pub(crate) fn bundle(&self, hostname: &str, owner: &str, version: u64) -> (Bundle, Digest) {
        let (pem, key) = leaf(&[hostname], VALID);
        let fingerprint = fingerprint(&pem);
        (self.sealed(hostname, owner, version, pem, &key), fingerprint)
    }

    pub(crate) fn sealed(&self, hostname: &str, owner: &str, version: u64, pem: String, key: &[u8]) -> Bundle {
        let facts = LeafFacts::of_chain(&pem).unwrap();
        let (hostname, tenant) = (name(hostname), tenant(owner));
        let sealed_key = self.seal_key.seal(&hostname, &tenant, &facts.spki_sha256, key).unwrap();
        let LeafFacts { spki_sha256, not_before, not_after, .. } = facts;
        Bundle {
            hostname,
            tenant,
            version: SiteVersion(version),
            certificate_chain: pem,
            sealed_key,
            spki_sha256,
            not_before,
            not_after,
            claim: None,
            origin: None,
        }
    }

    /// Publishes a good bundle, bundle first, then index; gives the leaf's fingerprint.
    pub(crate) fn put(&self, hostname: &str, owner: &str, version: u64) -> Digest {
        let (bundle, fingerprint) = self.bundle(hostname, owner, version);
        self.put_bundle(bundle);
        fingerprint
    }

    /// Publishes a bundle, bundle first, then index.
    pub(crate) fn put_bundle(&self, bundle: Bundle) {
        let (hostname, owner, version) = (bundle.hostname.clone(), bundle.tenant.clone(), bundle.version.0);
        let bytes = SiteObject::Present(bundle).to_bytes().unwrap();
        self.write(&site_object(&hostname), &bytes);
        self.enter(hostname.as_str(), Some(owner.as_str()), version, &bytes);
    }

    /// Publishes many good bundles, each shard written once.
    pub(crate) fn put_many(&self, hostnames: &[String], owner: &str) {
        let mut shards = BTreeMap::new();
        for hostname in hostnames {
            let (bundle, _) = self.bundle(hostname, owner, 1);
            let bytes = SiteObject::Present(bundle).to_bytes().unwrap();
            self.write(&site_object(&name(hostname)), &bytes);
            let shard = shard_of(&name(hostname));
            shards.entry(shard).or_insert_with(|| IndexShard::empty(shard)).merge(&name(hostname), entry(Some(owner), 1, &bytes)).unwrap();
        }
        for (number, shard) in shards {
            self.write(&index_object(number), &shard.to_bytes());
        }
    }

    /// Removes a name as the publisher does: index, then bundle.
    pub(crate) fn remove(&self, hostname: &str, version: u64) {
        let tombstone = Tombstone { hostname: name(hostname), version: SiteVersion(version), removed_at: now(), suspended: None };
        let bytes = SiteObject::Removed(tombstone).to_bytes().unwrap();
        self.enter(hostname, None, version, &bytes);
        self.write(&site_object(&name(hostname)), &bytes);
    }

    /// Writes an index entry, whatever the bundle is.
    pub(crate) fn enter(&self, hostname: &str, owner: Option<&str>, version: u64, bytes: &[u8]) {
        let hostname = name(hostname);
        let mut shard = self.shard(&hostname);
        shard.merge(&hostname, entry(owner, version, bytes)).unwrap();
        self.write(&index_object(shard.shard), &shard.to_bytes());
    }

    pub(crate) fn shard(&self, hostname: &Hostname) -> IndexShard {
        let path = self.path().join(index_object(shard_of(hostname)));
        fs::read(path).map_or_else(|_| IndexShard::empty(shard_of(hostname)), |bytes| IndexShard::from_bytes(&bytes).unwrap())
    }

    pub(crate) fn write(&self, object: &str, bytes: &[u8]) {
        let (new, path) = (self.path().join("new"), self.path().join(object));
        fs::write(&new, bytes).unwrap();
        fs::rename(new, &path).unwrap();
        self.written.lock().unwrap().insert(path, Digest::of(bytes));
        if let Some(s3) = &self.s3 {
            s3.put(object, bytes);
        }
    }

    /// Ends the stand-in for S3.
    pub(crate) fn end_s3(&mut self) {
        self.s3 = None;
    }

    /// Takes one object away, as no publisher does.
    pub(crate) fn lose(&self, object: &str) {
        fs::remove_file(self.path().join(object)).unwrap();
        if let Some(s3) = &self.s3 {
            s3.delete(object);
        }
    }

    /// Takes the whole index away.
    pub(crate) fn lose_index(&self) {
        for path in files(&self.path().join("index")) {
            self.lose(&format!("index/{}", path.file_name().unwrap().to_string_lossy()));
        }
        fs::remove_dir(self.path().join("index")).unwrap();
    }
}

pub(crate) fn entry(owner: Option<&str>, version: u64, bytes: &[u8]) -> IndexEntry {
    IndexEntry {
        version: SiteVersion(version),
        tenant: owner.map(tenant),
        removed_at: owner.is_none().then(now),
        digest: Digest::of(bytes),
    }
}

fn now() -> i64 {
    use domains::Clock;
    domains::SystemClock.now().as_second()
}
