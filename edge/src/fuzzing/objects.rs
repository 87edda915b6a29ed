//! Objects of the source, as whoever can write to the bucket could write them.

use bundles::{BundleError, EdgeSettings, IndexShard, LeafFacts, MAX_INDEX_BYTES, MAX_SITE_BYTES, SealKeys, SiteObject, shard_of};

/// The same bytes are offered to every reader of objects.
pub(super) fn judge(bytes: &[u8]) {
    site(bytes);
    index(bytes);
    settings(bytes);
}

/// A site's object that is read is within its bound, is written as it was read, and opens with no key but its own.
fn site(bytes: &[u8]) {
    let read = match SiteObject::from_bytes(bytes) {
        Ok(read) => read,
        Err(error) => return told(&error),
    };
    assert!(bytes.len() <= MAX_SITE_BYTES);
    let written = read.to_bytes().expect("what was read can be written");
    assert_eq!(SiteObject::from_bytes(&written).as_ref().ok(), Some(&read));
    assert!(written.len() <= MAX_SITE_BYTES);
    let SiteObject::Present(bundle) = read else { return };
    // Judged in its first second, so that only its dates' order can be wrong.
    if let Err(error) = bundle.check(bundle.not_before) {
        return told(&error);
    }
    let leaf = LeafFacts::of_chain(&bundle.certificate_chain).expect("a chain that was checked can be read");
    assert!(leaf.covers(&bundle.hostname) && leaf.spki_sha256 == bundle.spki_sha256);
    assert_eq!((leaf.not_before, leaf.not_after), (bundle.not_before, bundle.not_after));
    let opened = bundle.open(&SealKeys::from_iter([]), bundle.not_before).map(drop);
    assert_eq!(opened.map_err(|error| error.reason()), Err("unknown_seal_key"));
}

/// A shard that is read is within its bound, has its own names alone, each as it was read, and loses none of them by sweeping but old tombstones.
fn index(bytes: &[u8]) {
    let read = match IndexShard::from_bytes(bytes) {
        Ok(read) => read,
        Err(error) => return told(&error),
    };
    assert!(bytes.len() <= MAX_INDEX_BYTES);
    assert!(read.entries.keys().all(|hostname| shard_of(hostname) == read.shard));
    let written = read.to_bytes();
    assert_eq!(IndexShard::from_bytes(&written).as_ref().ok(), Some(&read));
    let mut again = IndexShard::empty(read.shard);
    for (hostname, entry) in &read.entries {
        assert!(again.merge(hostname, entry.clone()).expect("a name of the shard"));
        assert!(!again.merge(hostname, entry.clone()).expect("a name of the shard"), "the same entry changes nothing");
    }
    assert_eq!(again.entries, read.entries);
    let newest = read.entries.values().filter_map(|entry| entry.removed_at).max().unwrap_or(0);
    let swept = again.sweep(newest);
    assert_eq!(again.entries.len() + swept, read.entries.len());
    assert!(read.entries.iter().all(|(hostname, entry)| entry.is_tombstone() || again.entries.contains_key(hostname)));
}

/// Settings that are read are written as they were read.
fn settings(bytes: &[u8]) {
    match EdgeSettings::from_bytes(bytes) {
        Ok(read) => assert_eq!(EdgeSettings::from_bytes(&read.to_bytes()).as_ref().ok(), Some(&read)),
        Err(error) => told(&error),
    }
}

/// A refusal has a label for metrics, and words for whoever looks into it.
fn told(error: &BundleError) {
    assert!(!error.reason().is_empty() && !telemetry::error_chain(error).to_string().is_empty());
}
