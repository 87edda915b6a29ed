//! The bucket: conditional writes of whole objects, versions deleted by id.
//!
//! Arrives: an object's name, bytes and a condition. Leaves: the object, or its newest version alone. Goes wrong: 412 and 409 are conflicts,
//! as is 404 for a condition on an object that is not there; 404 for a read is an absence only when S3 says that the *key* is missing; 403 is
//! a defect.

use async_trait::async_trait;
use aws_sdk_s3::{
    Client,
    primitives::ByteStream,
    types::{Delete, ObjectIdentifier},
};
use domains::{BundleBucket, CommitError, ObjectCondition, StoreError};

use super::{AwsHome, failure};
use crate::objects::check_name;

/// The most versions one call deletes.
///
/// Source: S3 `DeleteObjects`, docs.aws.amazon.com/AmazonS3 (read 2026-11).
const AT_ONCE: usize = 1_000;

#[async_trait]
impl BundleBucket for AwsHome {
    async fn get(&self, name: &str) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        check_name(name)?;
        let object = match self.0.s3.get_object().bucket(&self.0.places.bucket).key(name).send().await {
            Ok(object) => object,
            Err(error) if failure::code(&error) == Some("NoSuchKey") => return Ok(None),
            Err(error) => return Err(failure::classify(&format!("reading {name}"), &error)),
        };
        let etag = object.e_tag.ok_or_else(|| StoreError::Defect { detail: format!("reading {name}: an object without an ETag") })?;
        let cut = |error| StoreError::Unavailable { detail: format!("reading {name}: the answer ended early: {error}") };
        let bytes = tokio::time::timeout(super::clients::ATTEMPT, object.body.collect()).await;
        let bytes = bytes.map_err(|_| StoreError::Unavailable { detail: format!("reading {name}: the answer did not end in time") })?;
        Ok(Some((bytes.map_err(cut)?.to_vec(), etag)))
    }

    async fn put(&self, name: &str, bytes: &[u8], condition: &ObjectCondition) -> Result<(), CommitError> {
        check_name(name)?;
        let put = self.0.s3.put_object().bucket(&self.0.places.bucket).key(name).body(ByteStream::from(bytes.to_vec()));
        let put = match condition {
            ObjectCondition::Absent => put.if_none_match("*"),
            // An empty header is no header to some servers on the way, and the write would have no condition left.
            ObjectCondition::Matches(etag) if etag.trim().is_empty() => return Err(CommitError::Conflict),
            ObjectCondition::Matches(etag) => put.if_match(etag),
        };
        let Err(error) = put.send().await else { return Ok(()) };
        let is_conflict = match failure::status(&error) {
            Some(409 | 412) => true,
            Some(404) => failure::code(&error) == Some("NoSuchKey"),
            _ => false,
        };
        match is_conflict {
            true => Err(CommitError::Conflict),
            false => Err(failure::classify(&format!("writing {name}"), &error).into()),
        }
    }

    async fn purge_older(&self, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        let versions = versions(&self.0.s3, &self.0.places.bucket, name, |key, is_latest| key == name && !is_latest).await?;
        delete(&self.0.s3, &self.0.places.bucket, versions).await
    }
}

/// Versions and delete markers under a prefix, those that `wanted` says.
pub(super) async fn versions(
    s3: &Client,
    bucket: &str,
    prefix: &str,
    wanted: impl Fn(&str, bool) -> bool + Send,
) -> Result<Vec<(String, String)>, StoreError> {
    let mut found = Vec::new();
    let (mut key, mut version) = (None, None);
    loop {
        let asked = s3.list_object_versions().bucket(bucket).prefix(prefix).set_key_marker(key).set_version_id_marker(version);
        let answer = asked.send().await.map_err(|error| failure::classify(&format!("listing the versions of {prefix}"), &error))?;
        let versions = answer.versions.unwrap_or_default().into_iter().map(|v| (v.key, v.version_id, v.is_latest));
        let markers = answer.delete_markers.unwrap_or_default().into_iter().map(|m| (m.key, m.version_id, m.is_latest));
        for (key, version, is_latest) in versions.chain(markers) {
            if let (Some(key), Some(version)) = (key, version)
                && wanted(&key, is_latest.unwrap_or(true))
            {
                found.push((key, version));
            }
        }
        if answer.is_truncated != Some(true) {
            return Ok(found);
        }
        (key, version) = (answer.next_key_marker, answer.next_version_id_marker);
        if key.is_none() {
            return Err(StoreError::Defect {
                detail: format!("listing the versions of {prefix}: a list that does not say where it goes on"),
            });
        }
    }
}

async fn delete(s3: &Client, bucket: &str, versions: Vec<(String, String)>) -> Result<(), StoreError> {
    let unbuildable = |error| StoreError::Defect { detail: format!("a deletion cannot be put together: {error}") };
    for some in versions.chunks(AT_ONCE) {
        let objects = some.iter().map(|(key, version)| ObjectIdentifier::builder().key(key).version_id(version).build());
        let objects = objects.collect::<Result<Vec<_>, _>>().map_err(unbuildable)?;
        let delete = Delete::builder().set_objects(Some(objects)).quiet(true).build().map_err(unbuildable)?;
        let asked = s3.delete_objects().bucket(bucket).delete(delete).send().await;
        let answer = asked.map_err(|error| failure::classify("deleting versions", &error))?;
        // Each version is answered for by itself; one that stays may hold a key.
        if let Some(refused) = answer.errors.unwrap_or_default().first() {
            let (code, message) = (refused.code().unwrap_or("?"), refused.message().unwrap_or_default());
            let detail = format!("deleting a version of {}: {code} {message}", refused.key().unwrap_or("?"));
            let is_refusal = matches!(code, "AccessDenied" | "InvalidRequest" | "MalformedXML");
            return Err(if is_refusal { StoreError::Defect { detail } } else { StoreError::Unavailable { detail } });
        }
    }
    Ok(())
}

/// Deletes every version of every object.
pub(super) async fn empty(s3: &Client, bucket: &str) -> Result<(), StoreError> {
    let all = versions(s3, bucket, "", |_, _| true).await?;
    delete(s3, bucket, all).await
}
