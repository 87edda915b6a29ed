//! Every claim's history as one feed, ordered by when it happened and read behind the newest by a lag.

use async_trait::async_trait;
use domains::{EVENTS_LAG, EventFeed, EventPage, StoreError, TenantId, Timestamp};

use super::{
    AwsHome,
    definitions::{EVENTS, TENANT_EVENTS},
    indexes::Reading,
    items::{self, LAST, NEXT, attribute},
};
use crate::cursor::{self, Start};

#[async_trait]
impl EventFeed for AwsHome {
    async fn events(&self, tenant: Option<&TenantId>, after: Option<&str>, limit: usize) -> Result<Option<EventPage>, StoreError> {
        let list = ("events".to_owned(), tenant.map(|tenant| tenant.as_str().to_owned()));
        let after = match cursor::decode::<_, String>(&list, after) {
            Start::First => String::new(),
            Start::After(key) if key.len() <= items::MAX_KEY => key,
            Start::After(_) | Start::Nowhere => return Ok(None),
        };
        let settled = self.0.clock.now().checked_sub(EVENTS_LAG).unwrap_or(Timestamp::MIN);
        let (from, until) = (format!("{after}{NEXT}"), format!("{}{LAST}", items::time_down(settled)));
        let reading = match tenant {
            None => Reading { index: EVENTS, partitions: items::event_partitions(), from, until, only: None },
            Some(tenant) => Reading { index: TENANT_EVENTS, partitions: vec![tenant.as_str().to_owned()], from, until, only: None },
        };
        let size = cursor::page_size(limit);
        let mut found = self.sorted(&reading, size + 1).await?;
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().and_then(|item| attribute(item, EVENTS.sort)).map_or(after, str::to_owned);
        let cursor = cursor::encode(&list, last).ok_or_else(|| StoreError::Defect { detail: "a cursor cannot be written".to_owned() })?;
        let items = found.into_iter().map(items::read).collect::<Result<_, _>>()?;
        Ok(Some(EventPage { items, cursor, more }))
    }
}
