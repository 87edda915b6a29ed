//! What is due when: an index of its own, spread over partitions by name.

use async_trait::async_trait;
use domains::{DueEntry, DueIndex, Page, Step, StoreError, Timestamp};

use super::{
    AwsHome,
    definitions::DUE,
    indexes::Reading,
    items::{self, Item, LAST, NEXT, attribute},
};
use crate::cursor::{self, Start};

#[async_trait]
impl DueIndex for AwsHome {
    async fn due(&self, from: Timestamp, until: Timestamp, cursor: Option<&str>, limit: usize) -> Result<Page<DueEntry>, StoreError> {
        // The window may move on between two pages: the key goes on from where it was.
        let list = "due".to_owned();
        let from = items::time_up(from);
        let from = match cursor::decode::<_, String>(&list, cursor) {
            Start::First => from,
            Start::After(key) if key.len() <= items::MAX_KEY => from.max(format!("{key}{NEXT}")),
            Start::After(_) | Start::Nowhere => return Ok(Page { items: Vec::new(), cursor: None }),
        };
        let until = format!("{}{LAST}", items::time_down(until));
        let reading = Reading { index: DUE, partitions: items::due_partitions(), from, until, only: None };
        let size = cursor::page_size(limit);
        let mut found = self.sorted(&reading, size + 1).await?;
        let is_last = found.len() <= size;
        found.truncate(size);
        let last = found.last().filter(|_| !is_last).and_then(|item| attribute(item, DUE.sort)).map(str::to_owned);
        let items = found.iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Page { items, cursor: last.and_then(|last| cursor::encode(&list, last)) })
    }
}

fn entry(item: &Item) -> Result<DueEntry, StoreError> {
    let key = items::claim_of(item)?;
    let read = || {
        let name = attribute(item, "due_step")?;
        let step = Step::ALL.iter().copied().find(|step| step.as_str() == name)?;
        let (at, _) = attribute(item, DUE.sort)?.split_once('#')?;
        let version = item.get("version")?.as_n().ok()?.parse().ok()?;
        Some((version, step, at.parse().ok()?))
    };
    let (version, step, next_look) =
        read().ok_or_else(|| StoreError::Defect { detail: format!("the due-index's entry for {key} does not read") })?;
    Ok(DueEntry { key, version, step, next_look })
}
