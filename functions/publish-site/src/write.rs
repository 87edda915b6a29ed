//! Conditional writes of site objects: a writer that is not newer does nothing.
//!
//! Arrives: an object with its bytes. Leaves: the bucket with the higher version of what was there and what came. Goes wrong: other writers
//! are first each time, or the bucket cannot be asked.

use bundles::{BundleError, SiteObject, site_object};
use domains::{BundleBucket, CommitError, ObjectCondition};
use steps::StepFailure;

use crate::RACES;

/// The condition under which what was read may be replaced.
pub(crate) fn condition(present: Option<&(Vec<u8>, String)>) -> ObjectCondition {
    match present {
        Some((_, etag)) => ObjectCondition::Matches(etag.clone()),
        None => ObjectCondition::Absent,
    }
}

/// Writes the object unless one of the same or a higher version is there.
pub(crate) async fn put_newer(bucket: &dyn BundleBucket, object: &SiteObject, bytes: &[u8]) -> Result<(), StepFailure> {
    let name = site_object(object.hostname());
    for _ in 0..RACES {
        let present = bucket.get(&name).await?;
        if let Some((known, _)) = &present {
            match SiteObject::from_bytes(known) {
                Ok(known) if known.version() >= object.version() => return Ok(()),
                Ok(_) => {}
                // The table is the truth: what no edge could read is replaced, and told.
                Err(error @ (BundleError::Truncated { .. } | BundleError::NotJson(_) | BundleError::TooLarge { .. })) => {
                    tracing::error!(object = name, %error, "replacing an unreadable object");
                }
                Err(error) => return Err(StepFailure::Defect(format!("{name}: {error}"))),
            }
        }
        match bucket.put(&name, bytes, &condition(present.as_ref())).await {
            Ok(()) => return Ok(()),
            Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}
