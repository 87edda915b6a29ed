//! A folder as the publisher leaves it, without a pipeline: for tests that are about the edge alone.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use bundles::{
    Bundle, Digest, EdgeSettings, IndexEntry, IndexShard, LeafFacts, SealKeyPair, SiteObject, index_object, shard_of, site_object,
};
use domains::{Hostname, SiteVersion, TenantId};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;

/// Writes what a publisher would have written: a bundle for each name, the index, the settings; gives the root that signed.
pub fn published(source: &Path, seal_key: &Path, names: &[String]) -> CertificateDer<'static> {
    for part in ["sites", "index"] {
        fs::create_dir_all(source.join(part)).unwrap();
    }
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Outlive Test Root");
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let pair = SealKeyPair::generate().unwrap();
    write_secret(seal_key, &pair.to_json());
    fs::write(source.join("edge.json"), EdgeSettings::new(1, vec!["thumbprint".to_owned()]).to_bytes()).unwrap();

    let tenant = TenantId::parse("outlive").unwrap();
    let mut shards: BTreeMap<u8, IndexShard> = BTreeMap::new();
    for name in names {
        let hostname = Hostname::parse_name(name).unwrap();
        let mut params = CertificateParams::new(vec![name.clone()]).unwrap();
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2025, 1, 1), rcgen::date_time_ymd(2045, 1, 1));
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &root).unwrap().pem();
        let facts = LeafFacts::of_chain(&chain).unwrap();
        let sealed = pair.public().seal(&hostname, &tenant, &facts.spki_sha256, &key.serialize_der()).unwrap();
        let bundle = Bundle::new(hostname.clone(), tenant.clone(), SiteVersion(1), chain, sealed).unwrap();
        let bytes = SiteObject::Present(bundle).to_bytes().unwrap();
        fs::write(source.join(site_object(&hostname)), &bytes).unwrap();
        let entry = IndexEntry { version: SiteVersion(1), tenant: Some(tenant.clone()), removed_at: None, digest: Digest::of(&bytes) };
        let number = shard_of(&hostname);
        shards.entry(number).or_insert_with(|| IndexShard::empty(number)).merge(&hostname, entry).unwrap();
    }
    for (number, shard) in shards {
        fs::write(source.join(index_object(number)), shard.to_bytes()).unwrap();
    }
    root.der().clone()
}

/// Writes what only its owner may read: a seal key that others may read is refused.
pub fn write_secret(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}
