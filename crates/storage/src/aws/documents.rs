//! Small versioned documents, in the second table: a partition for each kind.
//!
//! Writes are transactions of one item, for the reason that `table` gives: a lost answer is not a conflict.

use std::collections::HashMap;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::{Delete, TransactWriteItem};
use domains::{CommitError, Document, Documents, MAX_DOCUMENT_BYTES, StoreError};

use super::{
    AwsHome, failure,
    items::{Item, attribute, number, text},
    table::{condition, put, unbuildable},
};

fn partition(kind: &str) -> String {
    format!("document#{kind}")
}

fn key(kind: &str, id: &str) -> Item {
    HashMap::from([("pk".to_owned(), text(partition(kind))), ("sk".to_owned(), text(id))])
}

fn read(kind: &str, item: &Item) -> Result<Document, StoreError> {
    let found = || {
        let version = item.get("version")?.as_n().ok()?.parse().ok()?;
        Some(Document { id: attribute(item, "sk")?.to_owned(), version, body: attribute(item, "body")?.to_owned() })
    };
    found().ok_or_else(|| StoreError::Defect { detail: format!("the {kind} {:?} does not read", attribute(item, "sk")) })
}

#[async_trait]
impl Documents for AwsHome {
    async fn document(&self, kind: &str, id: &str) -> Result<Option<Document>, StoreError> {
        let ask = self.0.dynamo.get_item().table_name(&self.0.places.second_table).set_key(Some(key(kind, id))).consistent_read(true);
        let answer = ask.send().await.map_err(|error| failure::classify("reading a document", &error))?;
        answer.item.map(|item| read(kind, &item)).transpose()
    }

    async fn put_document(&self, kind: &str, id: &str, body: &str, expected: Option<u64>) -> Result<u64, CommitError> {
        if body.len() > MAX_DOCUMENT_BYTES {
            let detail = format!("the {kind} {id} has {} bytes; at most {MAX_DOCUMENT_BYTES} fit", body.len());
            return Err(StoreError::Defect { detail }.into());
        }
        let version = expected.map_or(1, |expected| expected.saturating_add(1));
        let mut item = key(kind, id);
        item.insert("version".to_owned(), number(version));
        item.insert("body".to_owned(), text(body));
        self.write(vec![put(&self.0.places.second_table, item, condition(expected))?]).await?;
        Ok(version)
    }

    async fn delete_document(&self, kind: &str, id: &str, expected: u64) -> Result<(), CommitError> {
        let delete = Delete::builder()
            .table_name(&self.0.places.second_table)
            .set_key(Some(key(kind, id)))
            .condition_expression("#version = :expected")
            .expression_attribute_names("#version", "version")
            .expression_attribute_values(":expected", number(expected));
        let delete = delete.build().map_err(unbuildable)?;
        self.write(vec![TransactWriteItem::builder().delete(delete).build()]).await
    }

    async fn documents(&self, kind: &str, after: Option<&str>, limit: usize) -> Result<Vec<Document>, StoreError> {
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let left = limit.max(1) - found.len();
            let query = self
                .0
                .dynamo
                .query()
                .table_name(&self.0.places.second_table)
                .consistent_read(true)
                .expression_attribute_values(":kind", text(partition(kind)))
                .limit(i32::try_from(left).unwrap_or(i32::MAX))
                .set_exclusive_start_key(next);
            let query = match after {
                None => query.key_condition_expression("pk = :kind"),
                Some(after) => {
                    query.key_condition_expression("pk = :kind AND sk > :after").expression_attribute_values(":after", text(after))
                }
            };
            let answer = query.send().await.map_err(|error| failure::classify("listing documents", &error))?;
            for item in answer.items.unwrap_or_default() {
                found.push(read(kind, &item)?);
            }
            next = answer.last_evaluated_key.filter(|key| !key.is_empty());
            if next.is_none() || found.len() >= limit.max(1) {
                return Ok(found);
            }
        }
    }
}
