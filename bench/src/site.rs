//! What is served: a CA, a certificate for each name, and the same in each server's form.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use bundles::{
    Bundle, Digest, EdgeSettings, IndexEntry, IndexShard, LeafFacts, SealKeyPair, SiteObject, index_object, shard_of, site_object,
};
use domains::{Hostname, SiteVersion, TenantId};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;

use crate::Failure;

/// The name all load is for.
pub(crate) const NAME: &str = "shop.brand.com";
/// Says how many names were made, once all were.
const MADE: &str = "made";
/// The CA's certificate.
const ROOT: &str = "root.der";
/// A name nobody has.
pub(crate) const UNKNOWN: &str = "unknown.brand.com";

/// Certificates and keys, on disk in each server's form.
#[derive(Debug)]
pub(crate) struct Site {
    folder: PathBuf,
    /// Removes the folder in the end, unless it was asked for.
    _passing: Option<tempfile::TempDir>,
    pub(crate) root: CertificateDer<'static>,
}

impl Site {
    /// Makes a CA, and a leaf for [`NAME`] and for as many others as the edge is to have. All keys are P-256.
    pub(crate) fn make(names: usize) -> Result<Self, Failure> {
        let passing = tempfile::tempdir()?;
        let ca = authority()?;
        let site = Self { folder: passing.path().to_owned(), _passing: Some(passing), root: ca.der().clone() };
        site.fill(names, &ca)?;
        Ok(site)
    }

    /// The same in a folder that stays, and is used as it is when it has these names already: a million take minutes.
    pub(crate) fn make_in(folder: &Path, names: usize) -> Result<Self, Failure> {
        let of = |root| Self { folder: folder.to_owned(), _passing: None, root };
        let said = names.to_string();
        if fs::read_to_string(folder.join(MADE)).is_ok_and(|made| made == said) {
            let site = of(CertificateDer::from(fs::read(folder.join(ROOT))?));
            // What an edge has kept is not part of it.
            fs::remove_dir_all(site.path("cache"))?;
            fs::create_dir(site.path("cache"))?;
            return Ok(site);
        }
        if folder.exists() && fs::read_dir(folder)?.next().is_some() {
            return Err(format!("{} is not empty, and has not {names} names; name another folder", folder.display()).into());
        }
        fs::create_dir_all(folder)?;
        let ca = authority()?;
        let site = of(ca.der().clone());
        site.fill(names, &ca)?;
        site.write(ROOT, &site.root)?;
        site.write(MADE, said.as_bytes())?;
        Ok(site)
    }

    fn fill(&self, names: usize, ca: &CertifiedIssuer<'static, KeyPair>) -> Result<(), Failure> {
        let seal = SealKeyPair::generate()?;
        self.write("seal.json", &seal.to_json())?;
        for part in ["bucket/index", "bucket/sites", "cache", "cache-before", "tmp"] {
            fs::create_dir_all(self.path(part))?;
        }
        self.write("bucket/edge.json", &EdgeSettings::new(1, vec!["thumbprint".to_owned()]).to_bytes())?;
        let shards: Vec<_> = (0..=255).map(|shard| Mutex::new(IndexShard::empty(shard))).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= names.max(1) {
                    return Ok::<(), Failure>(());
                }
                self.publish(&Self::name(number), ca, &seal, &shards)?;
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        for shard in shards {
            let shard = shard.into_inner().unwrap_or_else(PoisonError::into_inner);
            self.write(&format!("bucket/{}", index_object(shard.shard)), &shard.to_bytes())?;
        }
        Ok(())
    }

    /// One of its names by number; the first is [`NAME`].
    pub(crate) fn name(number: usize) -> String {
        if number == 0 { NAME.to_owned() } else { format!("shop-{number}.brand-{}.com", number % 997) }
    }

    fn publish(
        &self,
        name: &str,
        ca: &CertifiedIssuer<'static, KeyPair>,
        seal: &SealKeyPair,
        shards: &[Mutex<IndexShard>],
    ) -> Result<(), Failure> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(2045, 1, 1);
        // Leaf and CA are sent, as with a public CA.
        let chain = params.signed_by(&key, ca)?.pem() + &ca.pem();
        if name == NAME {
            self.write("chain.pem", chain.as_bytes())?;
            self.write("key.pem", key.serialize_pem().as_bytes())?;
            self.write("both.pem", (chain.clone() + &key.serialize_pem()).as_bytes())?;
        }
        let (hostname, tenant) = (Hostname::parse_name(name)?, TenantId::parse("bench")?);
        let facts = LeafFacts::of_chain(&chain)?;
        let sealed_key = seal.public().seal(&hostname, &tenant, &facts.spki_sha256, &key.serialize_der())?;
        let LeafFacts { spki_sha256, not_before, not_after, .. } = facts;
        let version = SiteVersion(1);
        let bundle = Bundle {
            hostname: hostname.clone(),
            tenant: tenant.clone(),
            claim: None,
            origin: None,
            version,
            certificate_chain: chain,
            sealed_key,
            spki_sha256,
            not_before,
            not_after,
        };
        let bytes = SiteObject::Present(bundle).to_bytes()?;
        self.write(&format!("bucket/{}", site_object(&hostname)), &bytes)?;
        let entry = IndexEntry { version, tenant: Some(tenant), removed_at: None, digest: Digest::of(&bytes) };
        let shard = &shards[usize::from(shard_of(&hostname))];
        shard.lock().unwrap_or_else(PoisonError::into_inner).merge(&hostname, entry)?;
        Ok(())
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Writes a file only we may read, since some of them are keys.
    pub(crate) fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Failure> {
        use std::os::unix::fs::PermissionsExt;
        let path: &Path = &self.path(file);
        fs::write(path, bytes)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
    }
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>, Failure> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Bench CA");
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}
