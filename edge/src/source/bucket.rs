//! An S3 bucket as the source. It asks for two things only, `ListObjectsV2` and `GetObject`, which is all its role needs to allow.
//!
//! Arrives: object names. Leaves: bytes and S3's own ETags. Goes wrong: whatever S3 refuses or does not answer is an error; an object is
//! absent only when S3 says that this key does not exist, which it says to those who may list the bucket.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use bytes::BytesMut;

use super::{Etag, Fetched, Source, SourceError};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);
/// How long S3 may take to begin its answer to one attempt.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How long it may take with all attempts. How long a read may take in all, the object's bytes included, is the edge's own configuration.
const CALL: Duration = Duration::from_secs(10);
/// How often a read is attempted.
const ATTEMPTS: u32 = 3;
/// The pause before the second attempt.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// The most pages of the index's listing: it has 256 objects, and a page holds a thousand.
const PAGES: usize = 4;

/// Where in S3 the source is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketPlace {
    bucket: String,
    prefix: String,
}

impl BucketPlace {
    /// Reads `s3://bucket` or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// A sentence about what it is not.
    pub fn parse(text: &str) -> Result<Self, String> {
        let place = text.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")));
        match place {
            Some((bucket, prefix)) if !bucket.is_empty() => {
                let prefix = prefix.trim_matches('/');
                let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
                Ok(Self { bucket: bucket.to_owned(), prefix })
            }
            _ => Err(format!("`{text}` is not s3://bucket or s3://bucket/prefix")),
        }
    }
}

/// Reads objects from a bucket.
#[derive(Clone, Debug)]
pub struct BucketSource {
    client: Client,
    place: BucketPlace,
}

impl BucketSource {
    /// Reads from `place`, with what the environment says of region, role and endpoint. Asks nothing yet.
    pub async fn open(place: BucketPlace) -> Self {
        Self::new(place, &aws_config::defaults(BehaviorVersion::latest()).load().await)
    }

    /// Reads from `place`, as whom and where `sdk` says.
    pub fn new(place: BucketPlace, sdk: &SdkConfig) -> Self {
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT).operation_timeout(CALL).build();
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_BACKOFF);
        let config = aws_sdk_s3::config::Builder::from(sdk).timeout_config(timeouts).retry_config(retries).build();
        Self { client: Client::from_conf(config), place }
    }
}

#[async_trait]
impl Source for BucketSource {
    async fn list_index(&self) -> Result<Vec<(u8, Etag)>, SourceError> {
        let BucketPlace { bucket, prefix } = &self.place;
        let (mut shards, mut next) = (Vec::new(), None);
        for _ in 0..PAGES {
            let ask = self.client.list_objects_v2().bucket(bucket).prefix(format!("{prefix}index/")).set_continuation_token(next);
            let page = ask.send().await.map_err(|error| SourceError::new("index/", error))?;
            for object in page.contents.unwrap_or_default() {
                let shard = object.key.as_deref().and_then(|key| bundles::shard_of_object(key.strip_prefix(prefix.as_str())?));
                if let (Some(shard), Some(etag)) = (shard, object.e_tag) {
                    shards.push((shard, read_etag(&etag)));
                }
            }
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(shards);
            }
        }
        Err(SourceError::new("index/", format!("the listing has more than {PAGES} pages; something else lies there")))
    }

    async fn get(&self, object: &str, limit: usize, unless: Option<&Etag>) -> Result<Fetched, SourceError> {
        let BucketPlace { bucket, prefix } = &self.place;
        let ask = self.client.get_object().bucket(bucket).key(format!("{prefix}{object}"));
        let ask = ask.set_if_none_match(unless.map(|etag| format!("\"{}\"", etag.0)));
        let mut answer = match ask.send().await {
            Ok(answer) => answer,
            Err(error) if status(&error) == Some(304) => return Ok(Fetched::Unchanged),
            Err(error) if error.code() == Some("NoSuchKey") => return Ok(Fetched::Absent),
            Err(error) => return Err(SourceError::new(object, error)),
        };
        let etag = answer.e_tag.as_deref().map(read_etag).ok_or_else(|| SourceError::new(object, "an object without an ETag"))?;
        let mut bytes = BytesMut::new();
        while bytes.len() <= limit {
            match answer.body.next().await {
                Some(chunk) => bytes.extend_from_slice(&chunk.map_err(|error| SourceError::new(object, error))?),
                None => break,
            }
        }
        bytes.truncate(limit.saturating_add(1));
        Ok(Fetched::Object { bytes: bytes.freeze(), etag })
    }
}

/// An ETag without its quotes, which listings and answers may or may not show.
fn read_etag(text: &str) -> Etag {
    Etag(text.trim_matches('"').to_owned())
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_bucket_and_perhaps_a_prefix() {
        let place = |bucket: &str, prefix: &str| Ok(BucketPlace { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        assert_eq!(BucketPlace::parse("s3://sites"), place("sites", ""));
        assert_eq!(BucketPlace::parse("s3://sites/"), place("sites", ""));
        assert_eq!(BucketPlace::parse("s3://sites/eu/one/"), place("sites", "eu/one/"));
        for wrong in ["", "s3://", "s3:///x", "sites", "https://sites"] {
            assert!(BucketPlace::parse(wrong).is_err(), "{wrong}");
        }
    }
}
