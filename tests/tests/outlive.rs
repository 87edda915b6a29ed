//! An edge that outlives everything it was fed by.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use bundles::{
    Bundle, Digest, EdgeSettings, IndexEntry, IndexShard, LeafFacts, SealKeyPair, SiteObject, index_object, shard_of, site_object,
};
use domains::{Hostname, SiteVersion, TenantId};
use futures_util::{StreamExt, stream};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls_pki_types::CertificateDer;
use system_tests::{origin::Origin, peers::LoneEdge, process::Folder, product::Product, sizes::size, visitor::Visitor, waiting::until};

async fn warm(edge: &mut LoneEdge, count: usize) {
    until("the edge has every bundle on its disk", Duration::from_secs(120), async || {
        edge.assert_alive();
        (edge.names().await? == (count as u64, 0)).then_some(())
    })
    .await;
}

/// Visits every name once, and gives the failures.
async fn failures(visitor: &Visitor, names: &[String]) -> Vec<String> {
    let visits = stream::iter(names).map(|name| async move {
        match visitor.get(name, "/").await {
            Ok(visit) if visit.answer.status == 200 => None,
            Ok(visit) => Some(format!("{name}: {}", visit.answer.status)),
            Err(error) => Some(format!("{name}: {error}")),
        }
    });
    visits.buffer_unordered(8).filter_map(async |failure| failure).collect().await
}

/// Takes the source away, visits everything, and does so again with an edge that starts without it.
async fn outlives(folder: &Path, source: &Path, seal_key: &Path, names: &[String], root: CertificateDer<'static>) {
    let origin = Origin::start().await;
    let cache = folder.join("lone-edge-cache");
    let mut edge = LoneEdge::start(folder, source, &cache, seal_key, origin.address).await;
    warm(&mut edge, names.len()).await;
    fs::remove_dir_all(source).expect("the source goes");

    let began = Instant::now();
    let visitor = Visitor::trusting(edge.https, root.clone());
    assert_eq!(failures(&visitor, names).await, Vec::<String>::new(), "without its source");
    println!("{} names nobody had visited served without the source in {:?}", names.len(), began.elapsed());
    assert!(edge.is_ready().await, "an edge that serves is not taken out because its source is gone");
    edge.kill().await;

    let began = Instant::now();
    let mut edge = LoneEdge::start(folder, source, &cache, seal_key, origin.address).await;
    until("the restarted edge is ready from its disk", Duration::from_secs(30), async || {
        edge.assert_alive();
        edge.is_ready().await.then_some(())
    })
    .await;
    println!("ready again from its disk after {:?}", began.elapsed());
    let visitor = Visitor::trusting(edge.https, root);
    assert_eq!(failures(&visitor, names).await, Vec::<String>::new(), "restarted without its source");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_serves_names_nobody_visited_when_api_ca_dns_and_source_are_gone() {
    use rustls_pki_types::pem::PemObject;
    let names: Vec<String> = (0..50).map(|n| format!("shop{n}.brand.test")).collect();
    let mut product = Product::start(&[]).await;
    let records = stream::iter(&names).map(|name| product.register(name, "outlive")).buffer_unordered(8).concat().await;
    product.set_dns(&records).await;
    product.all_ready(names.len(), Duration::from_secs(60)).await;
    product.kill().await;
    let root = CertificateDer::from_pem_file(product.data().join("ca/root.pem")).unwrap();
    outlives(product.folder(), &product.bucket(), &product.data().join("keys/seal.json"), &names, root).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_with_many_names_serves_each_when_its_source_is_gone() {
    let count = size(500, 10_000);
    let folder = Folder::new();
    let (source, seal_key) = (folder.path().join("bucket"), folder.path().join("seal.json"));
    let names: Vec<String> = (0..count).map(|n| format!("shop{n}.brand.com")).collect();
    let root = published(&source, &seal_key, &names);
    outlives(folder.path(), &source, &seal_key, &names, root).await;
}

/// A seal key that others may read is refused.
fn write_secret(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

/// Writes what a publisher would have written: a bundle for each name, the index, the settings; gives the root that signed.
fn published(source: &Path, seal_key: &Path, names: &[String]) -> CertificateDer<'static> {
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
