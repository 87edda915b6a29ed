//! What is served: a CA, a certificate for each name, and the same in each server's form.

use std::{
    fs,
    path::{Path, PathBuf},
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
/// A name nobody has.
pub(crate) const UNKNOWN: &str = "unknown.brand.com";

/// Certificates and keys, on disk in each server's form.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) root: CertificateDer<'static>,
}

impl Site {
    /// Makes a CA, and a leaf for [`NAME`] and for as many others as the edge is to have. All keys are P-256.
    pub(crate) fn make(names: usize) -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Bench CA");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let site = Self { root: ca.der().clone(), folder };
        let seal = SealKeyPair::generate()?;
        site.write("seal.json", &seal.to_json())?;
        for part in ["bucket/index", "bucket/sites", "cache", "tmp"] {
            fs::create_dir_all(site.path(part))?;
        }
        site.write("bucket/edge.json", &EdgeSettings::new(1, vec!["thumbprint".to_owned()]).to_bytes())?;
        let mut shards: Vec<IndexShard> = (0..=255).map(IndexShard::empty).collect();
        for name in (0..names.max(1)).map(Self::name) {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![name.clone()])?;
            params.not_before = rcgen::date_time_ymd(2025, 1, 1);
            params.not_after = rcgen::date_time_ymd(2045, 1, 1);
            // Leaf and CA are sent, as with a public CA.
            let chain = params.signed_by(&key, &ca)?.pem() + &ca.pem();
            if name == NAME {
                site.write("chain.pem", chain.as_bytes())?;
                site.write("key.pem", key.serialize_pem().as_bytes())?;
                site.write("both.pem", (chain.clone() + &key.serialize_pem()).as_bytes())?;
            }
            site.publish(&name, chain, &key, &seal, &mut shards)?;
        }
        for shard in shards {
            site.write(&format!("bucket/{}", index_object(shard.shard)), &shard.to_bytes())?;
        }
        Ok(site)
    }

    /// One of its names by number; the first is [`NAME`].
    pub(crate) fn name(number: usize) -> String {
        if number == 0 { NAME.to_owned() } else { format!("shop-{number}.brand-{}.com", number % 997) }
    }

    fn publish(&self, name: &str, chain: String, key: &KeyPair, seal: &SealKeyPair, shards: &mut [IndexShard]) -> Result<(), Failure> {
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
        shards[usize::from(shard_of(&hostname))].merge(&hostname, entry)?;
        Ok(())
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Writes a file only we may read, since some of them are keys.
    pub(crate) fn write(&self, file: &str, bytes: &[u8]) -> Result<(), Failure> {
        use std::os::unix::fs::PermissionsExt;
        let path: &Path = &self.path(file);
        fs::write(path, bytes)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
    }
}
