//! What a scanner says of the edge's TLS.

use std::{path::Path, process::Command};

use bundles::{SiteObject, site_object};
use domains::Clock;

use crate::{
    bucket::{leaf, name},
    client,
    setup::{Setup, eventually},
};

const SHOP: &str = "shop.brand.com";
/// A version above the one that is there.
const NEWER: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_edge_complies_with_mozillas_intermediate_profile() {
    let setup = Setup::with(&[SHOP]).await;
    // The profile also bounds how long a certificate may be valid.
    let year: i32 = domains::SystemClock.now().to_string()[..4].parse().unwrap();
    let (pem, key) = leaf(&[SHOP], (year, year + 1));
    let fingerprint = crate::bucket::fingerprint(&pem);
    let bytes = SiteObject::Present(setup.bucket.sealed(SHOP, "acme", NEWER, pem, &key)).to_bytes().unwrap();
    setup.bucket.write(&site_object(&name(SHOP)), &bytes);
    setup.bucket.enter(SHOP, Some("acme"), NEWER, &bytes);
    eventually("the certificate of a year is served", async || {
        client::served(setup.https(), SHOP).await.is_ok_and(|found| found == fingerprint)
    })
    .await;

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let target = setup.https().to_string();
    let scanned = tokio::task::spawn_blocking(move || {
        let installed = Command::new(root.join("scripts/install-sslyze")).status().unwrap();
        assert!(installed.success(), "scripts/install-sslyze failed");
        let python = root.join("target/tools/sslyze/bin/python");
        Command::new(python).args(["-m", "sslyze", "--mozilla_config", "intermediate", "--sni", SHOP, &target]).output().unwrap()
    });
    let scanned = scanned.await.unwrap();
    let said = String::from_utf8_lossy(&scanned.stdout);
    let (_, verdict) = said.split_once("COMPLIANCE AGAINST TLS CONFIGURATION").unwrap_or_else(|| panic!("{said}"));
    assert!(verdict.contains(&setup.https().to_string()), "{said}");
    // A scanner knows public CAs alone, and the test's own is none: that is all that may be wrong.
    let wrong: Vec<_> = verdict.lines().map(str::trim).filter(|line| line.starts_with("* ")).collect();
    assert!(wrong.iter().all(|line| line.starts_with("* certificate_path_validation: ")), "{wrong:#?}");
    assert!(said.contains("Supported curves:") && (verdict.contains("OK - Compliant") || wrong.len() == 1), "{said}");
}
