//! A stand-in for AWS as a process of its own, with everything made that the home on AWS consists of.

use std::{path::Path, sync::Arc};

use domains::SystemClock;
use http::Method;
use serde_json::Value;
use storage::aws::{Access, AwsHome, Places, definitions};

use crate::{client, ministack::Ministack};

/// The region that a stand-in plays, whatever it is called.
const REGION: &str = "eu-central-1";

/// A running stand-in; ends when dropped.
pub struct Aws {
    /// What its tables, queues and bucket are called.
    pub places: Places,
    access: Access,
    stand_in: Ministack,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aws").field("places", &self.places).finish_non_exhaustive()
    }
}

impl Aws {
    /// Starts one and makes everything in it.
    pub async fn start(folder: &Path) -> Self {
        let stand_in = Ministack::start(&folder.join("ministack.log"));
        let access = Access::StandIn { endpoint: stand_in.endpoint.clone() };
        let places = definitions::create(&access, "nameplate", definitions::MAX_RECEIVES).await.expect("tables, queues and a bucket");
        Self { places, access, stand_in }
    }

    /// What a program must be told to use it: where AWS is and who asks, and what everything is called.
    pub fn environment(&self) -> Vec<(String, String)> {
        let access = [
            ("AWS_ENDPOINT_URL", self.stand_in.endpoint.as_str()),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
        ];
        let all = access.into_iter().chain(self.places.variables());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// The home in it.
    pub async fn home(&self) -> AwsHome {
        AwsHome::open(&self.access, self.places.clone(), Arc::new(SystemClock)).await
    }

    /// Keeps a secret.
    pub async fn keep_secret(&self, name: &str, text: &str) {
        self.call("secretsmanager.CreateSecret", &serde_json::json!({ "Name": name, "SecretString": text })).await;
    }

    /// Everything that the table's stream holds, as DynamoDB tells it, which is how Lambda shows it to a function.
    pub async fn stream_records(&self) -> Vec<Value> {
        let call = async |operation: &str, body: Value| self.call(&format!("DynamoDBStreams_20120810.{operation}"), &body).await;
        let streams = call("ListStreams", serde_json::json!({ "TableName": self.places.table })).await;
        let stream = &streams["Streams"][0]["StreamArn"];
        let described = call("DescribeStream", serde_json::json!({ "StreamArn": stream })).await;
        let mut records = Vec::new();
        for shard in described["StreamDescription"]["Shards"].as_array().expect("shards") {
            let from = serde_json::json!({ "StreamArn": stream, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON" });
            let mut iterator = call("GetShardIterator", from).await["ShardIterator"].clone();
            loop {
                let answer = call("GetRecords", serde_json::json!({ "ShardIterator": iterator })).await;
                let some = answer["Records"].as_array().expect("records");
                records.extend(some.iter().cloned());
                iterator = answer["NextShardIterator"].clone();
                if some.is_empty() || iterator.is_null() {
                    break;
                }
            }
        }
        records
    }

    async fn call(&self, target: &str, body: &Value) -> Value {
        let service = match target.split('.').next() {
            Some("secretsmanager") => "secretsmanager",
            _ => "dynamodb",
        };
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential=test/20261126/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=none");
        let headers = [("x-amz-target", target), ("content-type", "application/x-amz-json-1.1"), ("authorization", authorization.as_str())];
        let answer = client::ask_with(Method::POST, &format!("{}/", self.stand_in.endpoint), &headers, Some(body)).await;
        answer.expect("the stand-in answers").granted()
    }
}
