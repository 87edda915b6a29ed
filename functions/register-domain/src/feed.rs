//! What happened: to one domain, and to all of them as one feed.

use bytes::Bytes;
use domains::{HistoryEntry, Judgement, LOOKS_KIND, LastLook, StoreError, StoredLook, StoredLooks};
use http::{Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Api, Code, Refusal,
    parameters::Parameter,
    routes::{Asked, find_claim, json},
};

/// A page of one domain's history.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct HistoryPage {
    /// What happened, oldest first.
    pub items: Vec<HistoryEntry>,
    /// The number to go on after; `null` when this was the last page.
    pub after: Option<u64>,
}

/// A page of the feed of events.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct EventPageView {
    /// What happened, in the feed's order.
    pub items: Vec<HistoryEntry>,
    /// Hand it back as `after` for what comes after this page, at once or later.
    pub cursor: String,
    /// Whether the next page may have something already.
    pub more: bool,
}

/// The last looks at a domain, newest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LooksPage {
    /// At most a handful.
    pub items: Vec<ExplainedLook>,
}

/// One look, and what it means.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainedLook {
    /// The look as it was made.
    #[serde(flatten)]
    pub stored: StoredLook,
    /// What it means, judged again.
    pub judgement: Judgement,
}

pub(crate) async fn looks(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let claim = find_claim(api, asked).await?;
    let stored = match api.documents.document(LOOKS_KIND, claim.claim_id.as_str()).await? {
        Some(document) => serde_json::from_str(&document.body)
            .map_err(|error| StoreError::Defect { detail: format!("the looks of {} do not read: {error}", claim.key) })?,
        None => StoredLooks::default(),
    };
    let mut items: Vec<_> = stored.looks.into_iter().map(|stored| ExplainedLook { judgement: stored.judge(), stored }).collect();
    // An unchanged look is dated by the claim alone.
    if let (Some(newest), Some(seen)) = (items.first_mut(), &claim.last_look)
        && *seen == LastLook::of(&newest.judgement, seen.at)
    {
        newest.stored.last = newest.stored.last.max(seen.at);
    }
    json(StatusCode::OK, &LooksPage { items })
}

pub(crate) async fn history(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let (after, limit) = (asked.query.after()?, asked.query.limit()?);
    let claim = find_claim(api, asked).await?;
    let items = api.listings.history(&claim.key, after, limit).await?;
    let after = (items.len() == limit).then(|| items.last().map(|entry| entry.sequence)).flatten();
    json(StatusCode::OK, &HistoryPage { items, after })
}

pub(crate) async fn events(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let tenant = asked.query.tenant(asked.caller)?;
    let after = asked.query.text(Parameter::AfterEvent);
    let limit = asked.query.limit()?;
    let page = api.events.events(tenant.as_ref(), after.as_deref(), limit).await?.ok_or_else(|| {
        let detail = "`after` must be the `cursor` of an earlier page of the same feed; leave it out to begin at the beginning";
        Refusal::new(Code::InvalidCursor, detail)
    })?;
    json(StatusCode::OK, &EventPageView { items: page.items, cursor: page.cursor, more: page.more })
}
