//! An edge that outlives everything it was fed by.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use rustls_pki_types::CertificateDer;
use system_tests::{
    origin::Origin, peers::LoneEdge, process::Folder, product::Product, published::published, sizes::size, visitor::Visitor, waiting::until,
};

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
