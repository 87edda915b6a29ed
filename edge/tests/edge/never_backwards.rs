//! A certificate in service is replaced only by a newer good one, whatever lies in the bucket and in whatever order it came there.

use std::time::Duration;

use bundles::{Bundle, Digest, SealKeyPair, SiteObject, site_object};
use domains::SiteVersion;
use proptest::prelude::*;

use crate::{
    bucket::{VALID, fingerprint, leaf, name, tenant},
    client,
    setup::{Setup, eventually},
};

pub(crate) const SHOP: &str = "shop.brand.com";

/// All that can be wrong with what a bucket holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    Older,
    Expired,
    NotYetValid,
    WrongKey,
    OtherName,
    OtherCertificate,
    OtherTenantInside,
    ForeignSealKey,
    SameVersionOtherBytes,
    Truncated,
    TooLarge,
    TenMegabytes,
    Garbage,
}

pub(crate) use Kind::*;

pub(crate) const ALL_BAD: [(Kind, &str); 13] = [
    (Older, "not_newer"),
    (Expired, "expired"),
    (NotYetValid, "not_yet_valid"),
    (WrongKey, "key_mismatch"),
    (OtherName, "wrong_hostname"),
    (OtherCertificate, "wrong_hostname"),
    (OtherTenantInside, "wrong_tenant"),
    (ForeignSealKey, "unknown_seal_key"),
    (SameVersionOtherBytes, "same_version_other_bytes"),
    (Truncated, "truncated"),
    (TooLarge, "too_large"),
    (TenMegabytes, "too_large"),
    (Garbage, "not_json"),
];

impl Kind {
    /// Writes such an object as `version` and enters it in the index; gives the fingerprint when it is good.
    pub(crate) fn publish(self, setup: &Setup, version: u64) -> Option<Digest> {
        let bucket = &setup.bucket;
        let (bundle, good) = bucket.bundle(SHOP, "acme", version);
        let dated = |years| {
            let (pem, key) = leaf(&[SHOP], years);
            bucket.sealed(SHOP, "acme", version, pem, &key)
        };
        let bytes = |bundle: Bundle| SiteObject::Present(bundle).to_bytes().unwrap();
        let object = match self {
            Good => bytes(bundle),
            Older => bytes(Bundle { version: SiteVersion(version - 1), ..bundle }),
            Expired => bytes(dated((2020, 2021))),
            NotYetValid => bytes(dated((2044, 2045))),
            WrongKey => {
                let (_, other) = leaf(&[SHOP], VALID);
                let sealed_key = bucket.seal_key.seal(&bundle.hostname, &bundle.tenant, &bundle.spki_sha256, &other).unwrap();
                bytes(Bundle { sealed_key, ..bundle })
            }
            OtherName => bytes(bucket.bundle("other.brand.com", "acme", version).0),
            OtherCertificate => {
                let (pem, key) = leaf(&["other.brand.com"], VALID);
                bytes(bucket.sealed(SHOP, "acme", version, pem, &key))
            }
            OtherTenantInside => bytes(bucket.bundle(SHOP, "other", version).0),
            ForeignSealKey => {
                let (pem, key) = leaf(&[SHOP], VALID);
                let foreign = SealKeyPair::generate().unwrap();
                let sealed_key = foreign.public().seal(&name(SHOP), &tenant("acme"), &bundle.spki_sha256, &key).unwrap();
                assert_ne!(fingerprint(&pem), good);
                bytes(Bundle { sealed_key, ..bundle })
            }
            SameVersionOtherBytes => bytes(bundle.clone()),
            Truncated => bytes(bundle)[..700].to_vec(),
            TooLarge => vec![b' '; 64 * 1024 + 1],
            TenMegabytes => vec![b'{'; 10 << 20],
            Garbage => b"-----BEGIN CERTIFICATE-----".to_vec(),
        };
        bucket.write(&site_object(&name(SHOP)), &object);
        // The index tells the digest of what was published, except where the two are to differ.
        let entered = if self == SameVersionOtherBytes { b"other bytes".to_vec() } else { object };
        bucket.enter(SHOP, Some("acme"), version, &entered);
        (self == Good).then_some(good)
    }
}

#[tokio::test]
async fn each_bad_bundle_is_counted_by_its_reason_and_the_last_good_one_stays() {
    bad_bundles(Setup::with(&[SHOP]).await).await;
}

pub(crate) async fn bad_bundles(setup: Setup) {
    let mut good = client::served(setup.https(), SHOP).await.unwrap();
    let mut version = 1;
    for (kind, reason) in ALL_BAD {
        version += 1;
        let before = setup.refused(reason);
        kind.publish(&setup, version);
        eventually(&format!("{kind:?} is counted as {reason}"), async || setup.refused(reason) > before).await;
        assert_eq!(client::served(setup.https(), SHOP).await.unwrap(), good, "{kind:?}");
        version += 1;
        good = Good.publish(&setup, version).unwrap();
        eventually("the next good one is served", async || client::served(setup.https(), SHOP).await.unwrap() == good).await;
    }
}

#[tokio::test]
async fn an_index_of_a_lower_generation_is_refused_with_an_alarm() {
    lower_generation(Setup::with(&[SHOP]).await).await;
}

pub(crate) async fn lower_generation(setup: Setup) {
    // With nothing in service yet, a first visitor would be served from the newer bundle before the newer index was seen.
    setup.until_warm().await;
    let old_index = std::fs::read(setup.bucket.path().join(bundles::index_object(bundles::shard_of(&name(SHOP))))).unwrap();
    let renewed = setup.bucket.put(SHOP, "acme", 2);
    eventually("the renewed one is served", async || client::served(setup.https(), SHOP).await.unwrap() == renewed).await;
    setup.bucket.write(&bundles::index_object(bundles::shard_of(&name(SHOP))), &old_index);
    eventually("the old index is counted", async || setup.refused("lower_generation") > 0).await;
    assert_eq!(client::served(setup.https(), SHOP).await.unwrap(), renewed);
}

#[tokio::test]
async fn a_name_that_vanishes_from_the_index_without_a_tombstone_is_still_served() {
    vanished_index(Setup::with(&[SHOP]).await).await;
}

pub(crate) async fn vanished_index(setup: Setup) {
    setup.until_warm().await;
    let shard = bundles::shard_of(&name(SHOP));
    let mut emptied = bundles::IndexShard::empty(shard);
    emptied.generation = 50;
    setup.bucket.write(&bundles::index_object(shard), &emptied.to_bytes());
    setup.bucket.lose(&site_object(&name(SHOP)));
    let reads = setup.metric("nameplate_edge_source_reads_total{kind=\"shard\"}");
    eventually("the emptied shard is read", async || setup.metric("nameplate_edge_source_reads_total{kind=\"shard\"}") > reads).await;
    client::served(setup.https(), SHOP).await.unwrap();
    setup.bucket.lose_index();
    let lists = setup.metric("nameplate_edge_source_reads_total{kind=\"list\"}");
    eventually("three more polls", async || setup.metric("nameplate_edge_source_reads_total{kind=\"list\"}") > lists + 3).await;
    client::served(setup.https(), SHOP).await.unwrap();
}

fn kinds() -> impl Strategy<Value = Vec<Kind>> {
    let bad: Vec<Kind> = ALL_BAD.iter().map(|(kind, _)| *kind).collect();
    proptest::collection::vec(prop_oneof![1 => Just(Good), 3 => proptest::sample::select(bad)], 1..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_published_in_any_order_the_last_good_one_is_served(sequence in kinds(), wait_between in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let setup = Setup::with(&[SHOP]).await;
            let mut allowed = vec![client::served(setup.https(), SHOP).await.unwrap()];
            for (position, kind) in sequence.iter().enumerate() {
                if let Some(good) = kind.publish(&setup, position as u64 * 2 + 3) {
                    allowed.push(good);
                }
                let served = client::served(setup.https(), SHOP).await.unwrap();
                let served = allowed.iter().position(|good| *good == served).expect("a good one is served");
                // Never back behind one that was seen in service.
                allowed.drain(..served);
                if wait_between {
                    tokio::time::sleep(Duration::from_millis(60)).await;
                }
            }
            if sequence.last() == Some(&Good) {
                let newest = *allowed.last().unwrap();
                eventually("the newest good one is served", async || client::served(setup.https(), SHOP).await.unwrap() == newest).await;
            }
        });
    }
}
