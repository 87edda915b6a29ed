//! Strangers who ask for names that nobody has.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{ops::Range, time::Duration};

use futures_util::{StreamExt, stream};
use system_tests::{origin::Origin, peers::LoneEdge, process::Folder, published::published, visitor::Visitor, waiting::until};

/// How many names strangers ask for.
const STRANGERS: usize = 3_000;
/// How much memory may be told from noise, in KiB.
const FLAT_KIB: u64 = 1_024;

/// Asks for as many names, and counts the alerts.
async fn refused(visitor: &Visitor, numbers: Range<usize>) -> usize {
    let refusals = stream::iter(numbers).map(|n| async move {
        let error = visitor.connect(&format!("n{n}.stranger{}.com", n % 97)).await.expect_err("nobody has this name");
        usize::from(error.contains("UnrecognisedName"))
    });
    refusals.buffer_unordered(8).fold(0, async |all, one| all + one).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_nobody_has_get_the_alert_cost_no_read_and_leave_no_memory_behind() {
    let folder = Folder::new();
    let (source, seal_key, cache) = (folder.path().join("bucket"), folder.path().join("seal.json"), folder.path().join("cache"));
    let names = ["shop.brand.com".to_owned()];
    let root = published(&source, &seal_key, &names);
    let origin = Origin::start().await;
    let mut edge = LoneEdge::start(folder.path(), &source, &cache, &seal_key, origin.address).await;
    until("the edge is warm", Duration::from_secs(30), async || {
        edge.assert_alive();
        (edge.names().await? == (1, 0)).then_some(())
    })
    .await;
    let visitor = Visitor::trusting(edge.https, root);
    // What a first crowd makes the allocator keep is not what is looked for.
    assert_eq!(refused(&visitor, 0..STRANGERS).await, STRANGERS);
    let bundles = "nameplate_edge_source_reads_total{kind=\"bundle\"}";
    let (memory, reads) = (edge.memory_kib(), edge.metric(bundles).await.expect("reads are counted"));

    assert_eq!(refused(&visitor, STRANGERS..2 * STRANGERS).await, STRANGERS);

    assert_eq!(edge.metric(bundles).await, Some(reads), "a name nobody has was looked for in the source");
    let grown = edge.memory_kib().saturating_sub(memory);
    println!("{STRANGERS} unknown names: {memory} KiB, {grown} KiB more afterwards");
    assert!(grown < FLAT_KIB, "{grown} KiB are kept for {STRANGERS} names nobody has");
}
