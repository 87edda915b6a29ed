//! Domains: registered, listed, shown, checked, removed.

use bytes::Bytes;
use domains::{
    Change, Claim, ClaimId, ClaimKey, CommitError, Hostname, LOOKS_KIND, OriginName, Role, State, StateName, StoredCertificate, TenantId,
    decide,
};
use http::{HeaderValue, Response, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Api, Code, DomainView, MAX_SMALL_BODY_BYTES, Refusal,
    access::tenant_of,
    entropy::{new_claim_id, new_token},
    parameters::Parameter,
    routes::{Asked, RACES, find_claim, json, take},
};

/// A page of domains.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DomainPage {
    /// The domains, in hostname order.
    pub items: Vec<DomainView>,
    /// Hand it back for the next page; `null` when this was the last.
    pub cursor: Option<String>,
}

/// A domain to register.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewDomain {
    /// The hostname, in A-labels or as its people write it.
    hostname: String,
    /// Whose it is. An operator must say; a tenant's API key speaks for its own tenant.
    #[schemars(extend("pattern" = TenantId::PATTERN))]
    tenant: Option<String>,
}

/// A suspension.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSuspension {
    /// Why; shown with the domain and in its history.
    #[schemars(length(min = 1, max = MAX_REASON))]
    reason: String,
}

/// Where a domain's requests go.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["origin"]))]
pub(crate) struct NewOrigin {
    /// One of the origins named in the settings; `null` is the usual one.
    #[schemars(extend("pattern" = OriginName::PATTERN))]
    #[serde(deserialize_with = "named_or_null")]
    origin: Option<String>,
}

/// A field that must stand there, if only as `null`.
fn named_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

/// The longest reason, in characters.
const MAX_REASON: usize = 500;

/// What came of registering a hostname.
pub(crate) enum Registered {
    /// A claim was made.
    New(Claim),
    /// The claim was there.
    Known(Claim),
}

pub(crate) async fn register(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    if asked.body.len() > MAX_SMALL_BODY_BYTES {
        let detail = format!("the body has more than {MAX_SMALL_BODY_BYTES} bytes; one domain needs a hostname and a tenant");
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    let new: NewDomain = serde_json::from_slice(asked.body)
        .map_err(|error| Refusal::new(Code::InvalidBody, format!("send JSON like {{\"hostname\": \"…\", \"tenant\": \"…\"}}: {error}")))?;
    match register_one(api, asked.caller, &new.hostname, new.tenant.as_deref()).await? {
        Registered::Known(claim) => json(StatusCode::OK, &DomainView::of(&claim, &api.zone, &api.looks)),
        Registered::New(claim) => {
            let mut response = json(StatusCode::CREATED, &DomainView::of(&claim, &api.zone, &api.looks))?;
            if let Ok(location) = HeaderValue::from_str(&format!("/v1/domains/{}?tenant={}", claim.key.hostname, claim.key.tenant)) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            Ok(response)
        }
    }
}

/// Registers one hostname, or finds it registered.
pub(crate) async fn register_one(api: &Api, caller: &domains::Caller, hostname: &str, tenant: Option<&str>) -> Result<Registered, Refusal> {
    let tenant = tenant_of(caller, tenant)?
        .ok_or_else(|| Refusal::new(Code::TenantNeeded, "an operator's request must name the `tenant` the domain is for"))?;
    let hostname = match caller.role {
        Role::Operator => Hostname::parse_for_operator(hostname, &api.policy)?,
        Role::Tenant => Hostname::parse(hostname, &api.policy)?,
    };
    let key = ClaimKey { hostname, tenant };
    for _ in 0..RACES {
        let known = api.table.claim(&key).await?;
        match &known {
            Some(claim) if claim.is_removed() => {}
            Some(Claim { state: State::Removing { .. }, .. }) => {
                let detail = format!("{} is being removed; register it again when that is done, in a few seconds", key.hostname);
                return Err(Refusal::new(Code::DomainBeingRemoved, detail));
            }
            Some(claim) => return Ok(Registered::Known(claim.clone())),
            None => {}
        }
        if caller.role == Role::Tenant {
            let bucket = format!("claims|{}", key.tenant);
            take(api, &bucket, api.pace.claims, Code::TooManyClaims, "this tenant registers domains faster than it may").await?;
        }
        let entropy = api.entropy.as_ref();
        let unguessable = |error: String| Refusal::unavailable(&error);
        let (claim_id, token) = (new_claim_id(entropy).map_err(unguessable)?, new_token(entropy).map_err(unguessable)?);
        let change = decide::register(key.clone(), claim_id, token, known.as_ref(), &api.looks, api.clock.now());
        match api.table.commit(&change).await {
            Ok(()) => return Ok(Registered::New(change.claims[0].item.clone())),
            Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}

pub(crate) async fn show(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let claim = find_claim(api, asked).await?;
    json(StatusCode::OK, &DomainView::of(&claim, &api.zone, &api.looks))
}

pub(crate) async fn check(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let mut claim = find_claim(api, asked).await?;
    let bucket = format!("check|{}", claim.key);
    take(api, &bucket, api.pace.checks, Code::TooManyChecks, "this domain was checked very often just now").await?;
    for _ in 0..RACES {
        let Some(change) = decide::look_now(&claim, api.clock.now()) else { break };
        match api.table.commit(&change).await {
            Ok(()) => {
                claim = change.claims.into_iter().next().map_or(claim, |put| put.item);
                break;
            }
            Err(CommitError::Conflict) => claim = find_claim(api, asked).await?,
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    json(StatusCode::ACCEPTED, &DomainView::of(&claim, &api.zone, &api.looks))
}

pub(crate) async fn remove(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    for _ in 0..RACES {
        let claim = find_claim(api, asked).await?;
        if matches!(claim.state, State::Removing { .. } | State::Removed { .. }) {
            return json(StatusCode::ACCEPTED, &DomainView::of(&claim, &api.zone, &api.looks));
        }
        let owner = api.table.owner(&claim.key.hostname).await?;
        let change = decide::request_removal(&claim, owner.as_ref(), api.clock.now());
        match api.table.commit(&change).await {
            Ok(()) => {
                forget_looks(api, &claim.claim_id).await;
                return json(StatusCode::ACCEPTED, &DomainView::of(&change.claims[0].item, &api.zone, &api.looks));
            }
            Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}

/// What was seen of a domain goes with it. Nothing depends on it, so what fails here is only logged.
async fn forget_looks(api: &Api, claim: &ClaimId) {
    let forgotten = async {
        if let Some(stored) = api.documents.document(LOOKS_KIND, claim.as_str()).await? {
            api.documents.delete_document(LOOKS_KIND, claim.as_str(), stored.version).await?;
        }
        Ok::<_, CommitError>(())
    };
    if let Err(error) = forgotten.await {
        tracing::warn!(%error, "the looks of a removed domain were not deleted");
    }
}

pub(crate) async fn list(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let tenant = asked.query.tenant(asked.caller)?;
    let state = match asked.query.text(Parameter::State) {
        Some(name) => Some(StateName::parse(&name).ok_or_else(|| {
            let names: Vec<_> = StateName::ALL.iter().map(|state| state.as_str()).collect();
            Refusal::new(Code::InvalidState, format!("`state` is one of {}", names.join(", ")))
        })?),
        None => None,
    };
    let limit = asked.query.limit()?;
    let page = api.listings.claims(tenant.as_ref(), state, asked.query.text(Parameter::Cursor).as_deref(), limit).await?;
    let items = page.items.iter().map(|claim| DomainView::of(claim, &api.zone, &api.looks)).collect();
    json(StatusCode::OK, &DomainPage { items, cursor: page.cursor })
}

fn is_over(claim: &Claim) -> bool {
    matches!(claim.state, State::Removing { .. } | State::Removed { .. })
}

fn over(claim: &Claim) -> Refusal {
    let detail = format!("{} is removed, or is being removed; POST /v1/domains registers it anew", claim.key.hostname);
    Refusal::new(Code::DomainRemoved, detail)
}

pub(crate) async fn suspend(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    if asked.body.len() > MAX_SMALL_BODY_BYTES {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("the body has more than {MAX_SMALL_BODY_BYTES} bytes; a suspension needs a reason"),
        ));
    }
    let new: NewSuspension = serde_json::from_slice(asked.body)
        .map_err(|error| Refusal::new(Code::InvalidBody, format!("send JSON like {{\"reason\": \"…\"}}: {error}")))?;
    if !(1..=MAX_REASON).contains(&new.reason.chars().count()) {
        return Err(Refusal::new(Code::InvalidReason, format!("`reason` must have 1 to {MAX_REASON} characters")));
    }
    for _ in 0..RACES {
        let claim = find_claim(api, asked).await?;
        if is_over(&claim) {
            return Err(over(&claim));
        }
        if claim.suspension.as_ref().is_some_and(|suspension| suspension.reason == new.reason) {
            return json(StatusCode::ACCEPTED, &DomainView::of(&claim, &api.zone, &api.looks));
        }
        let owner = api.table.owner(&claim.key.hostname).await?;
        // None: claim and owner item were read on both sides of someone else's write.
        let Some(change) = decide::suspend(&claim, owner.as_ref(), &new.reason, api.clock.now()) else { continue };
        if let Some(view) = commit_first(api, &change).await? {
            return json(StatusCode::ACCEPTED, &view);
        }
    }
    Err(CommitError::Conflict.into())
}

pub(crate) async fn resume(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    for _ in 0..RACES {
        let claim = find_claim(api, asked).await?;
        if is_over(&claim) {
            return Err(over(&claim));
        }
        if claim.suspension.is_none() {
            return json(StatusCode::ACCEPTED, &DomainView::of(&claim, &api.zone, &api.looks));
        }
        let owner = api.table.owner(&claim.key.hostname).await?;
        let stored = stored_certificate(api, &claim).await?;
        // None: what was read belongs to both sides of someone else's write.
        let Some(change) = decide::resume(&claim, owner.as_ref(), stored.as_ref(), api.clock.now()) else { continue };
        if let Some(view) = commit_first(api, &change).await? {
            return json(StatusCode::ACCEPTED, &view);
        }
    }
    Err(CommitError::Conflict.into())
}

pub(crate) async fn set_origin(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    if asked.body.len() > MAX_SMALL_BODY_BYTES {
        let detail = format!("the body has more than {MAX_SMALL_BODY_BYTES} bytes; it needs no more than an origin's name");
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    let new: NewOrigin = serde_json::from_slice(asked.body).map_err(|error| {
        Refusal::new(Code::InvalidBody, format!("send JSON like {{\"origin\": \"eu\"}}, or null for the usual one: {error}"))
    })?;
    let origin = new.origin.map(|name| known_origin(api, &name)).transpose()?;
    for _ in 0..RACES {
        let claim = find_claim(api, asked).await?;
        if is_over(&claim) {
            return Err(over(&claim));
        }
        if claim.origin == origin {
            return json(StatusCode::ACCEPTED, &DomainView::of(&claim, &api.zone, &api.looks));
        }
        let owner = api.table.owner(&claim.key.hostname).await?;
        let stored = stored_certificate(api, &claim).await?;
        // None: what was read belongs to both sides of someone else's write.
        let Some(change) = decide::set_origin(&claim, owner.as_ref(), stored.as_ref(), origin.as_ref(), api.clock.now()) else { continue };
        if let Some(view) = commit_first(api, &change).await? {
            return json(StatusCode::ACCEPTED, &view);
        }
    }
    Err(CommitError::Conflict.into())
}

fn known_origin(api: &Api, name: &str) -> Result<OriginName, Refusal> {
    let known = OriginName::parse(name).ok().filter(|name| api.origins.contains(name));
    known.ok_or_else(|| {
        let names: Vec<_> = api.origins.iter().map(OriginName::as_str).collect();
        let detail = match names.is_empty() {
            true => "no origins are named in the settings; `null` is the usual one".to_owned(),
            false => format!("`origin` is one of {}, or null for the usual one", names.join(", ")),
        };
        Refusal::new(Code::UnknownOrigin, detail)
    })
}

/// The certificate of a domain that is served, or could be.
async fn stored_certificate(api: &Api, claim: &Claim) -> Result<Option<StoredCertificate>, Refusal> {
    Ok(match &claim.state {
        State::Active { certificate, .. } => api.table.certificate(&claim.key.hostname, certificate.version).await?,
        _ => None,
    })
}

/// Commits, and shows the claim as written; `None` when someone else wrote first.
async fn commit_first(api: &Api, change: &Change) -> Result<Option<DomainView>, Refusal> {
    match api.table.commit(change).await {
        Ok(()) => Ok(change.claims.first().map(|put| DomainView::of(&put.item, &api.zone, &api.looks))),
        Err(CommitError::Conflict) => Ok(None),
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}
