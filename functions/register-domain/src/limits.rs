//! `GET /v1/limits`: what is left of each CA's limits, who waits, and when they will be done.

use std::collections::BTreeMap;

use bytes::Bytes;
use domains::{
    Claim, Hostname, ProblemCode, Role, StateName, TenantId, Timestamp,
    ledger::{Level, MAX_ITEMS},
};
use http::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Api, Refusal,
    parameters::Parameter,
    routes::{Asked, json},
};

/// How many waiting names are shown.
const SHOWN: usize = 200;

/// How many names that are being issued are looked through for them, a page at a time.
const LOOKED_THROUGH: usize = 2_000;
const PAGE: usize = 200;

/// The limits of every CA in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitsView {
    /// One CA each.
    pub items: Vec<CaView>,
    /// New names that wait for their turn, at most 200 of the first 2,000 that are being issued, the earliest first; a tenant sees its own.
    pub waiting: Vec<WaitingView>,
    /// Whether there are more that may wait.
    pub more: bool,
}

/// The limits of one CA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CaView {
    /// The CA, as its buckets are named.
    pub ca: String,
    /// Its limits, as far as we use them.
    pub limits: Vec<LimitView>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitView {
    /// The bucket's name.
    pub bucket: String,
    /// What it limits, in words.
    pub limit: String,
    /// What is left, when more comes, who waits in each lane and when they will be done.
    #[serde(flatten)]
    pub level: Level,
}

/// A name that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingView {
    /// The name.
    pub hostname: String,
    /// Whose it is.
    pub tenant: String,
    /// `ca.queued` or `ca.rate_limited`.
    pub code: ProblemCode,
    /// The limit it waits for, in words.
    pub waits_for: String,
    /// Since when.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub since: Timestamp,
    /// When it is its turn.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub until: Timestamp,
}

/// An operator sees every limit and who waits, of one tenant if it names one; a tenant sees its own registered domains and its own names.
pub(crate) async fn limits(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let tenant = asked.query.tenant(asked.caller)?;
    let named = asked.query.text(Parameter::Hostnames).unwrap_or_default();
    let mut names: Vec<Hostname> =
        named.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Hostname::parse_name).collect::<Result<_, _>>()?;
    let (mut waiting, more) = waiting(api, tenant.as_ref()).await?;
    names.extend(waiting.iter().map(|(hostname, _)| hostname.clone()));
    waiting.sort_by(|(_, one), (_, other)| one.until.cmp(&other.until).then_with(|| one.hostname.cmp(&other.hostname)));
    let waiting = waiting.into_iter().map(|(_, view)| view).collect();
    let now = api.clock.now();
    let mut items = Vec::new();
    for ca in &api.ca_limits {
        let mut shown = BTreeMap::new();
        if asked.caller.role == Role::Operator {
            shown.extend(ca.shown(None));
        }
        // What the whole account has left is the operator's business; how full a tenant's own registered domain is, the tenant's, too.
        let account: BTreeMap<_, _> = ca.shown(None).into_iter().collect();
        let of_names = names.iter().flat_map(|hostname| ca.shown(Some(hostname))).filter(|(bucket, _)| !account.contains_key(bucket));
        shown.extend(of_names.take(MAX_ITEMS - account.len()));
        let buckets: Vec<String> = shown.keys().cloned().collect();
        let found = api.limits.ledger_items(&buckets).await?;
        let mut limits = Vec::new();
        for ((bucket, shape), item) in shown.into_iter().zip(found) {
            let level = Level::of(&bucket, item.as_deref(), shape, now)?;
            limits.push(LimitView { limit: ca.told(&bucket), bucket, level });
        }
        items.push(CaView { ca: ca.ca.clone(), limits });
    }
    json(http::StatusCode::OK, &LimitsView { items, waiting, more })
}

/// Who waits, in hostname order, and whether there are more that may.
async fn waiting(api: &Api, tenant: Option<&TenantId>) -> Result<(Vec<(Hostname, WaitingView)>, bool), Refusal> {
    let (mut found, mut cursor) = (Vec::new(), None);
    for _ in 0..LOOKED_THROUGH / PAGE {
        let page = api.listings.claims(tenant, Some(StateName::Issuing), cursor.as_deref(), PAGE).await?;
        found.extend(page.items.into_iter().filter_map(waits));
        cursor = page.cursor;
        if cursor.is_none() || found.len() >= SHOWN {
            break;
        }
    }
    let more = cursor.is_some() || found.len() > SHOWN;
    found.truncate(SHOWN);
    Ok((found, more))
}

fn waits(claim: Claim) -> Option<(Hostname, WaitingView)> {
    let turn = claim.issuance().and_then(|issuance| issuance.turn);
    let waits_since = claim.issuance().and_then(|issuance| issuance.waits_since);
    let problem = claim.problem.filter(|problem| matches!(problem.code, ProblemCode::CaQueued | ProblemCode::CaRateLimited))?;
    let view = WaitingView {
        hostname: claim.key.hostname.to_string(),
        tenant: claim.key.tenant.to_string(),
        code: problem.code,
        waits_for: problem.expected,
        since: waits_since.unwrap_or(problem.since),
        // A turn far away is looked at before it comes.
        until: turn.map_or(problem.next_look, |turn| turn.max(problem.next_look)),
    };
    Some((claim.key.hostname, view))
}
