//! Reads an index that is spread over partitions as one sorted list.
//!
//! Arrives: the partitions and the bounds. Leaves: the first so many entries of all of them together, in the order of the sort key. Goes
//! wrong: a partition that cannot be read fails the whole, because a list with a gap would be taken for the truth.

use std::collections::VecDeque;

use domains::StoreError;
use futures_util::future::try_join_all;

use super::{
    AwsHome,
    definitions::IndexDefinition,
    failure,
    items::{Item, attribute, text},
};

/// The most entries that one query is asked for.
const MOST: usize = 1_000;

/// What to read.
pub(super) struct Reading {
    pub(super) index: IndexDefinition,
    pub(super) partitions: Vec<String>,
    /// The first sort key, if it exists.
    pub(super) from: String,
    /// The last sort key, if it exists.
    pub(super) until: String,
    /// Only entries whose attribute begins so.
    pub(super) only: Option<(&'static str, String)>,
}

/// One partition on its way through its entries.
struct Lane {
    partition: String,
    read: VecDeque<Item>,
    /// Where the next query goes on.
    next: Option<Item>,
    is_done: bool,
}

impl Lane {
    fn is_hungry(&self) -> bool {
        self.read.is_empty() && !self.is_done
    }
}

impl AwsHome {
    /// The first `size` entries; fewer only when there are no more.
    pub(super) async fn sorted(&self, reading: &Reading, size: usize) -> Result<Vec<Item>, StoreError> {
        // DynamoDB refuses a range that ends before it begins.
        if reading.from > reading.until {
            return Ok(Vec::new());
        }
        let mut lanes: Vec<Lane> = reading
            .partitions
            .iter()
            .map(|partition| Lane { partition: partition.clone(), read: VecDeque::new(), next: None, is_done: false })
            .collect();
        // Enough that lanes of equal length are read once.
        let chunk = (size / lanes.len().max(1) + 1).min(MOST);
        let mut sorted = Vec::new();
        while sorted.len() < size {
            try_join_all(lanes.iter_mut().filter(|lane| lane.is_hungry()).map(|lane| self.feed_lane(reading, lane, chunk))).await?;
            // A filter may leave a lane hungry after a query; nothing may be taken before each has shown its first.
            while sorted.len() < size && !lanes.iter().any(Lane::is_hungry) {
                let head = |lane: &Lane| lane.read.front().and_then(|item| attribute(item, reading.index.sort)).map(str::to_owned);
                let first = lanes.iter_mut().filter(|lane| !lane.read.is_empty()).min_by_key(|lane| head(lane));
                match first.and_then(|lane| lane.read.pop_front()) {
                    Some(item) => sorted.push(item),
                    None => return Ok(sorted),
                }
            }
        }
        Ok(sorted)
    }

    async fn feed_lane(&self, reading: &Reading, lane: &mut Lane, chunk: usize) -> Result<(), StoreError> {
        let Reading { index, from, until, only, .. } = reading;
        let mut query = self
            .0
            .dynamo
            .query()
            .table_name(&self.0.places.table)
            .index_name(index.name)
            .key_condition_expression("#partition = :partition AND #sort BETWEEN :from AND :until")
            .expression_attribute_names("#partition", index.partition)
            .expression_attribute_names("#sort", index.sort)
            .expression_attribute_values(":partition", text(&lane.partition))
            .expression_attribute_values(":from", text(from))
            .expression_attribute_values(":until", text(until))
            .set_exclusive_start_key(lane.next.take())
            .limit(i32::try_from(chunk).unwrap_or(i32::MAX));
        if let Some((name, beginning)) = only {
            query = query
                .filter_expression("begins_with(#only, :only)")
                .expression_attribute_names("#only", *name)
                .expression_attribute_values(":only", text(beginning));
        }
        let answer = query.send().await.map_err(|error| failure::classify("reading an index", &error))?;
        lane.next = answer.last_evaluated_key.filter(|key| !key.is_empty());
        lane.is_done = lane.next.is_none();
        lane.read.extend(answer.items.unwrap_or_default());
        Ok(())
    }
}
