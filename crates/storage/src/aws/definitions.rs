//! Every table, queue and bucket of the home, said once: what a template must declare and what the tests make.
//!
//! Arrives: a prefix. Leaves: [`Places`] that exist. Goes wrong: what AWS refuses.
//!
//! | resource | name | keys |
//! |---|---|---|
//! | table, stream on | `<prefix>-domains` | `pk` = hostname; `sk` = `claim\|<tenant>`, `owner`, `certificate\|<version>`, `history\|<tenant>\|<sequence>` |
//! | its index `due` | | `due_shard` = `due#<0..7>`; `due_at` = `<time>#<hostname>#<tenant>` |
//! | its index `by-state` | | `by_state` = `<state>#<0..3>`; `listed_as` = `<hostname>#<tenant>` |
//! | its index `by-tenant` | | `by_tenant`; `listed_as` |
//! | its index `events` | | `event_shard` = `event#<0..7>`; `event_sort` = `<time>#<hostname>#<tenant>#<sequence>` |
//! | its index `tenant-events` | | `event_tenant`; `event_sort` |
//! | second table, no stream | `<prefix>-limits` | `pk` = `limit#<bucket>`, `ledger#<item>`, `caller#<hash>`, `mark#<name>`, each with `sk` = `-`; `document#<kind>` with `sk` = its id; TTL on `expires_at` |
//! | three queues | `<prefix>-<step>` | each with its dead letters in `<name>-dead` |
//! | bucket, versioned | as given | `sites/…`, `index/…`, `edge.json` |
//!
//! A template adds what only an account has: point-in-time recovery and deletion protection for both tables, encryption keys, the bucket's
//! public access block and a lifecycle rule that ends noncurrent versions after a day. Readers of the bucket need `s3:ListBucket`, or S3 says
//! 403 where it means that an object does not exist, and 403 is never taken for an absence. Who moves the ledger needs
//! `dynamodb:BatchGetItem` and `dynamodb:ConditionCheckItem` on the second table, beside `GetItem` and `PutItem`.

use std::time::Duration;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType, ScalarAttributeType,
    StreamSpecification, StreamViewType, TableStatus, TimeToLiveSpecification,
};
use aws_sdk_s3::types::{BucketLocationConstraint, BucketVersioningStatus, CreateBucketConfiguration, VersioningConfiguration};
use aws_sdk_sqs::types::QueueAttributeName;
use domains::{Step, StoreError};

use super::{Access, Places, clients::sdk_config, failure};

/// A table's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexDefinition {
    /// Its name.
    pub name: &'static str,
    /// Its partition key; every key is a string.
    pub partition: &'static str,
    /// Its sort key.
    pub sort: &'static str,
    /// What it holds beside the keys of table and index.
    pub projected: Projected,
}

/// What an index holds beside the keys of table and index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projected {
    /// Nothing.
    Keys,
    /// These attributes.
    Some(&'static [&'static str]),
    /// The whole item.
    All,
}

/// A table, billed by request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDefinition {
    /// What follows the prefix in its name.
    pub suffix: &'static str,
    /// Its keys: the partition's, and the sort key if it has one.
    pub keys: &'static [&'static str],
    /// Its indexes. None of them holds a sealed key.
    pub indexes: &'static [IndexDefinition],
    /// Whether its stream shows new images.
    pub streams: bool,
    /// The attribute by which old items are swept.
    pub ttl: Option<&'static str>,
}

/// What is due when.
pub const DUE: IndexDefinition =
    IndexDefinition { name: "due", partition: "due_shard", sort: "due_at", projected: Projected::Some(&["version", "due_step"]) };
/// Claims of one state, in hostname order.
pub const BY_STATE: IndexDefinition =
    IndexDefinition { name: "by-state", partition: "by_state", sort: "listed_as", projected: Projected::Keys };
/// Claims of one tenant, in hostname order. Not by `tenant` itself: an owner item has one that may be null, which no index takes.
pub const BY_TENANT: IndexDefinition =
    IndexDefinition { name: "by-tenant", partition: "by_tenant", sort: "listed_as", projected: Projected::Some(&["by_state"]) };
/// History as one feed, spread over partitions by claim.
pub const EVENTS: IndexDefinition =
    IndexDefinition { name: "events", partition: "event_shard", sort: "event_sort", projected: Projected::All };
/// History as one feed a tenant.
pub const TENANT_EVENTS: IndexDefinition =
    IndexDefinition { name: "tenant-events", partition: "event_tenant", sort: "event_sort", projected: Projected::All };
/// Claims, owners, certificates and history.
pub const DOMAINS: TableDefinition = TableDefinition {
    suffix: "domains",
    keys: &["pk", "sk"],
    indexes: &[DUE, BY_STATE, BY_TENANT, EVENTS, TENANT_EVENTS],
    streams: true,
    ttl: None,
};
/// Token buckets, the ledger of the CAs' limits, callers, marks and documents.
pub const LIMITS: TableDefinition =
    TableDefinition { suffix: "limits", keys: &["pk", "sk"], indexes: &[], streams: false, ttl: Some("expires_at") };

/// How long a received message stays invisible unless its receiver says otherwise: longer than any step may take.
pub const VISIBILITY: Duration = Duration::from_secs(180);
/// How long a queue keeps a message, dead or not; the longest there is.
///
/// Source: SQS message retention, docs.aws.amazon.com/AWSSimpleQueueService (read 2026-11).
pub const RETENTION: Duration = Duration::from_secs(14 * 86_400);
/// How often a message is received before it is dead.
pub const MAX_RECEIVES: u32 = 5;
/// What follows a queue's name in the name of the queue with its dead letters.
pub const DEAD: &str = "-dead";

/// How often a new table is looked at, a second apart, before it is given up.
const LOOKS: usize = 120;

fn name(prefix: &str, table: &TableDefinition) -> String {
    format!("{prefix}-{}", table.suffix)
}

/// Makes everything, under names that begin with `prefix`; the bucket is named so whole.
///
/// # Errors
/// [`StoreError`] when AWS refuses or something of a name is there already; what was made until then stays.
pub async fn create(access: &Access, prefix: &str, max_receives: u32) -> Result<Places, StoreError> {
    let sdk = sdk_config(access).await;
    let dynamo = aws_sdk_dynamodb::Client::new(&sdk);
    for table in [&DOMAINS, &LIMITS] {
        create_table(&dynamo, &name(prefix, table), table).await?;
    }
    for table in [&DOMAINS, &LIMITS] {
        wait_for_table(&dynamo, &name(prefix, table), table).await?;
    }
    let sqs = aws_sdk_sqs::Client::new(&sdk);
    let mut queues = Vec::with_capacity(Step::ALL.len());
    for step in Step::ALL {
        queues.push(create_queue(&sqs, &format!("{prefix}-{}", step.as_str()), max_receives).await?);
    }
    create_bucket(&aws_sdk_s3::Client::new(&sdk), prefix, sdk.region().map(AsRef::as_ref)).await?;
    let [verify_ownership, issue_certificate, publish_site] =
        <[String; 3]>::try_from(queues).map_err(|_| StoreError::Defect { detail: "a step without a queue".to_owned() })?;
    Ok(Places {
        table: name(prefix, &DOMAINS),
        second_table: name(prefix, &LIMITS),
        verify_ownership,
        issue_certificate,
        publish_site,
        bucket: prefix.to_owned(),
        max_receives,
    })
}

async fn create_table(dynamo: &aws_sdk_dynamodb::Client, name: &str, table: &TableDefinition) -> Result<(), StoreError> {
    let unbuildable = |error: aws_sdk_dynamodb::error::BuildError| StoreError::Defect { detail: format!("table {name}: {error}") };
    let key = |attribute: &str, kind: KeyType| KeySchemaElement::builder().attribute_name(attribute).key_type(kind).build();
    let kinds = [KeyType::Hash, KeyType::Range];
    let mut attributes: Vec<&str> = table.keys.iter().copied().chain(table.indexes.iter().flat_map(|i| [i.partition, i.sort])).collect();
    attributes.sort_unstable();
    attributes.dedup();
    let mut request = dynamo.create_table().table_name(name).billing_mode(BillingMode::PayPerRequest);
    for attribute in attributes {
        let definition = AttributeDefinition::builder().attribute_name(attribute).attribute_type(ScalarAttributeType::S);
        request = request.attribute_definitions(definition.build().map_err(unbuildable)?);
    }
    for (attribute, kind) in table.keys.iter().zip(kinds) {
        request = request.key_schema(key(attribute, kind).map_err(unbuildable)?);
    }
    for index in table.indexes {
        let projection = match index.projected {
            Projected::Keys => Projection::builder().projection_type(ProjectionType::KeysOnly),
            Projected::All => Projection::builder().projection_type(ProjectionType::All),
            Projected::Some(some) => Projection::builder()
                .projection_type(ProjectionType::Include)
                .set_non_key_attributes(Some(some.iter().map(|name| (*name).to_owned()).collect())),
        };
        let index = GlobalSecondaryIndex::builder()
            .index_name(index.name)
            .key_schema(key(index.partition, KeyType::Hash).map_err(unbuildable)?)
            .key_schema(key(index.sort, KeyType::Range).map_err(unbuildable)?)
            .projection(projection.build());
        request = request.global_secondary_indexes(index.build().map_err(unbuildable)?);
    }
    if table.streams {
        let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewImage);
        request = request.stream_specification(stream.build().map_err(unbuildable)?);
    }
    request.send().await.map(|_| ()).map_err(|error| failure::classify("making a table", &error))
}

async fn wait_for_table(dynamo: &aws_sdk_dynamodb::Client, name: &str, table: &TableDefinition) -> Result<(), StoreError> {
    let mut looks = 0;
    loop {
        let described = dynamo.describe_table().table_name(name).send().await;
        let described = described.map_err(|error| failure::classify("looking at a table", &error))?;
        if described.table.and_then(|table| table.table_status) == Some(TableStatus::Active) {
            break;
        }
        looks += 1;
        if looks == LOOKS {
            return Err(StoreError::Unavailable { detail: format!("table {name} is not active after {LOOKS} looks") });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let Some(attribute) = table.ttl else { return Ok(()) };
    let ttl = TimeToLiveSpecification::builder().enabled(true).attribute_name(attribute).build();
    let ttl = ttl.map_err(|error| StoreError::Defect { detail: format!("table {name}: {error}") })?;
    let set = dynamo.update_time_to_live().table_name(name).time_to_live_specification(ttl).send().await;
    set.map(|_| ()).map_err(|error| failure::classify("setting a table's time to live", &error))
}

async fn create_queue(sqs: &aws_sdk_sqs::Client, name: &str, max_receives: u32) -> Result<String, StoreError> {
    let retention = RETENTION.as_secs().to_string();
    let visibility = VISIBILITY.as_secs().to_string();
    let dead = sqs.create_queue().queue_name(format!("{name}{DEAD}"));
    let dead = dead.attributes(QueueAttributeName::MessageRetentionPeriod, &retention).send().await;
    let dead = url(dead.map_err(|error| failure::classify("making a queue", &error))?.queue_url)?;
    let asked = sqs.get_queue_attributes().queue_url(&dead).attribute_names(QueueAttributeName::QueueArn).send().await;
    let asked = asked.map_err(|error| failure::classify("looking at a queue", &error))?;
    let arn = asked.attributes.and_then(|mut all| all.remove(&QueueAttributeName::QueueArn)).unwrap_or_default();
    let redrive = serde_json::json!({ "deadLetterTargetArn": arn, "maxReceiveCount": max_receives }).to_string();
    let made = sqs
        .create_queue()
        .queue_name(name)
        .attributes(QueueAttributeName::MessageRetentionPeriod, retention)
        .attributes(QueueAttributeName::VisibilityTimeout, visibility)
        .attributes(QueueAttributeName::RedrivePolicy, redrive)
        .send()
        .await;
    url(made.map_err(|error| failure::classify("making a queue", &error))?.queue_url)
}

fn url(url: Option<String>) -> Result<String, StoreError> {
    url.ok_or_else(|| StoreError::Defect { detail: "a queue was made without a URL".to_owned() })
}

async fn create_bucket(s3: &aws_sdk_s3::Client, bucket: &str, region: Option<&str>) -> Result<(), StoreError> {
    // The oldest region is the only one that must not be named.
    let elsewhere = region
        .filter(|region| *region != "us-east-1")
        .map(|region| CreateBucketConfiguration::builder().location_constraint(BucketLocationConstraint::from(region)).build());
    let made = s3.create_bucket().bucket(bucket).set_create_bucket_configuration(elsewhere).send().await;
    made.map_err(|error| failure::classify("making a bucket", &error))?;
    let versioned = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    let set = s3.put_bucket_versioning().bucket(bucket).versioning_configuration(versioned).send().await;
    set.map(|_| ()).map_err(|error| failure::classify("versioning a bucket", &error))
}

/// How many versions and delete markers the bucket stores of all objects whose names begin so.
///
/// # Errors
/// [`StoreError`] when the bucket cannot be asked.
pub async fn stored_versions(access: &Access, places: &Places, beginning: &str) -> Result<usize, StoreError> {
    let s3 = aws_sdk_s3::Client::new(&sdk_config(access).await);
    Ok(super::bucket::versions(&s3, &places.bucket, beginning, |_, _| true).await?.len())
}

/// Deletes everything that [`create`] made, with all that is in it.
///
/// # Errors
/// [`StoreError`] for the first thing that AWS refused to delete; the others are tried all the same.
pub async fn delete(access: &Access, places: &Places) -> Result<(), StoreError> {
    let sdk = sdk_config(access).await;
    let (dynamo, sqs, s3) = (aws_sdk_dynamodb::Client::new(&sdk), aws_sdk_sqs::Client::new(&sdk), aws_sdk_s3::Client::new(&sdk));
    let mut first = None;
    let mut keep = |result: Result<(), StoreError>| first = first.take().or(result.err());
    for table in [&places.table, &places.second_table] {
        let gone = dynamo.delete_table().table_name(table).send().await;
        keep(gone.map(|_| ()).map_err(|error| failure::classify("deleting a table", &error)));
    }
    for step in Step::ALL {
        for queue in [places.queue(*step).to_owned(), places.dead_queue(*step)] {
            let gone = sqs.delete_queue().queue_url(queue).send().await;
            keep(gone.map(|_| ()).map_err(|error| failure::classify("deleting a queue", &error)));
        }
    }
    keep(super::bucket::empty(&s3, &places.bucket).await);
    let gone = s3.delete_bucket().bucket(&places.bucket).send().await;
    keep(gone.map(|_| ()).map_err(|error| failure::classify("deleting a bucket", &error)));
    first.map_or(Ok(()), Err)
}
