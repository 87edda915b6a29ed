//! The home on AWS: two DynamoDB tables with a stream, three SQS queues with their dead letters, one versioned S3 bucket.
//!
//! Arrives: [`Places`], which say what everything is called, and [`Access`]. Leaves: an [`AwsHome`], which is every trait of `domains::Home`
//! and every consumer of [`crate::consumers`]. Goes wrong: each call for itself, judged by the provider's code in `failure`: what is refused
//! is a defect, what is busy, late or lost is unavailable, and neither is ever an absence.
//!
//! Beside it stand what only some installations use: a [`Route53Zone`] for the answers of dns-01 challenges, and [`Secrets`].
//!
//! What a template must declare, and how items are laid out, is in [`definitions`].

mod answers;
mod bucket;
mod clients;
pub mod definitions;
mod documents;
mod due;
mod events;
mod failure;
mod feed;
mod indexes;
mod items;
mod ledger;
mod listings;
mod places;
mod queues;
mod second_table;
mod secrets;
mod table;

use std::sync::Arc;

use domains::Clock;

pub use answers::Route53Zone;
pub use clients::Access;
pub use places::Places;
pub use secrets::{Secret, Secrets};

use feed::Feed;

/// The home on AWS. Clones share their connections.
#[derive(Clone)]
pub struct AwsHome(Arc<Inner>);

struct Inner {
    places: Places,
    clock: Arc<dyn Clock>,
    dynamo: aws_sdk_dynamodb::Client,
    sqs: aws_sdk_sqs::Client,
    s3: aws_sdk_s3::Client,
    feed: Feed,
}

impl AwsHome {
    /// Prepares to ask; nothing is asked yet, and nothing is made.
    pub async fn open(access: &Access, places: Places, clock: Arc<dyn Clock>) -> Self {
        let sdk = clients::sdk_config(access).await;
        Self(Arc::new(Inner {
            places,
            clock,
            dynamo: aws_sdk_dynamodb::Client::new(&sdk),
            sqs: aws_sdk_sqs::Client::new(&sdk),
            s3: aws_sdk_s3::Client::new(&sdk),
            feed: Feed::new(aws_sdk_dynamodbstreams::Client::new(&sdk)),
        }))
    }
}

impl std::fmt::Debug for AwsHome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsHome").field("places", &self.0.places).finish_non_exhaustive()
    }
}
