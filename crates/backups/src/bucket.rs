//! What the bucket still shows.
//!
//! Arrives: a home with its bucket. Leaves: each name that the bucket knows, as it shows it. Goes wrong: a folder or a shard that does not
//! read, which is never taken for an empty one; a site that does not read is told apart by its index entry.

use std::{collections::BTreeMap, fs, io::ErrorKind};

use bundles::{IndexShard, SealKeys, SiteObject, index_object};
use domains::{
    BundleBucket, Hostname,
    decide::{Shown, ShownSite},
};
use issuers::acme::read_issued;
use storage::local::LocalHome;

use crate::RestoreError;

/// Everything the bucket shows, object and index together: of two that differ the newer one counts.
pub(crate) async fn shown(home: &LocalHome, keys: &SealKeys, two_cas: bool) -> Result<BTreeMap<Hostname, Shown>, RestoreError> {
    let unreadable = |what: &str, error: &dyn std::fmt::Display| RestoreError::Bucket { what: what.to_owned(), why: error.to_string() };
    let mut shown = BTreeMap::new();
    let sites = home.bucket_folder().join("sites");
    let listed = match fs::read_dir(&sites) {
        Ok(listed) => listed.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable("the folder of sites", &error))?,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(unreadable("the folder of sites", &error)),
    };
    for file in listed {
        let bytes = fs::read(file.path()).map_err(|error| unreadable(&file.path().display().to_string(), &error))?;
        // One that does not read is told apart below by its index entry.
        if let Ok(object) = SiteObject::from_bytes(&bytes) {
            shown.insert(object.hostname().clone(), shown_by(object, keys, two_cas));
        }
    }
    for shard in 0..=u8::MAX {
        let name = index_object(shard);
        let Some((bytes, _)) = home.get(&name).await.map_err(|error| unreadable(&name, &error))? else { continue };
        let index = IndexShard::from_bytes(&bytes).map_err(|error| unreadable(&name, &error))?;
        for (hostname, entry) in index.entries {
            if shown.get(&hostname).is_none_or(|known: &Shown| known.version() < entry.version) {
                let version = entry.version;
                shown.insert(
                    hostname,
                    if entry.is_tombstone() { Shown::Gone { version, suspended: None } } else { Shown::Lost { version } },
                );
            }
        }
    }
    Ok(shown)
}

fn shown_by(object: SiteObject, keys: &SealKeys, two_cas: bool) -> Shown {
    let version = object.version();
    let bundle = match object {
        SiteObject::Present(bundle) => bundle,
        SiteObject::Removed(tombstone) => return Shown::Gone { version, suspended: tombstone.suspended },
    };
    let opens = bundle.open_in_service(keys).is_ok();
    let (Some(mut issued), Ok(sealed_key)) = (read_issued(&bundle.certificate_chain), serde_json::to_string(&bundle.sealed_key)) else {
        return Shown::Lost { version };
    };
    if !opens {
        return Shown::Lost { version };
    }
    if two_cas {
        // Which of them issued it is not written in it, and only that one knows its renewal window.
        issued.ari_id = None;
    }
    Shown::Site(Box::new(ShownSite {
        tenant: bundle.tenant,
        version,
        issued,
        sealed_key,
        spki_sha256: bundle.spki_sha256.iter().map(|byte| format!("{byte:02x}")).collect(),
        claim: bundle.claim.map(|claim| (claim.id, claim.token)),
        origin: bundle.origin,
    }))
}
