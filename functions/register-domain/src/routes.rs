//! Which request does what.

use std::borrow::Cow;

use bytes::Bytes;
use domains::{Caller, Claim, ClaimKey, CommitError, Hostname, Role, State, StateName, Taken, decide};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use serde::{Deserialize, Serialize};

use crate::{
    Api, DomainView, MAX_BODY_BYTES, Refusal,
    access::{caller, tenant_of},
    entropy::{new_claim_id, new_token},
};

/// How many results one page holds at most.
const MAX_PAGE: usize = 200;

/// How often a write is decided anew after other writers were first.
const RACES: usize = 4;

pub(crate) async fn route(api: &Api, request: Request<Bytes>) -> Result<Response<Bytes>, Refusal> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let query = Query::read(request.uri().query());
    // A stranger learns nothing of what exists before the key is checked.
    let caller = caller(api.callers.as_ref(), request.headers()).await?;
    let (parts, body) = request.into_parts();
    match (segments.as_slice(), &parts.method) {
        (["v1", "domains"], &Method::POST) => create(api, &caller, &body).await,
        (["v1", "domains"], &Method::GET) => list(api, &caller, &query).await,
        (["v1", "domains"], _) => Err(Refusal::method("GET, POST")),
        (["v1", "domains", hostname], &Method::GET) => show(api, &caller, hostname, &query).await,
        (["v1", "domains", hostname], &Method::DELETE) => remove(api, &caller, hostname, &query).await,
        (["v1", "domains", _], _) => Err(Refusal::method("GET, DELETE")),
        (["v1", "domains", hostname, "check"], &Method::POST) => check(api, &caller, hostname, &query).await,
        (["v1", "domains", _, "check"], _) => Err(Refusal::method("POST")),
        (["v1", "domains", hostname, "history"], &Method::GET) => history(api, &caller, hostname, &query).await,
        (["v1", "domains", _, "history"], _) => Err(Refusal::method("GET")),
        _ => Err(Refusal::no_such_path(&path)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewDomain {
    hostname: String,
    tenant: Option<String>,
}

async fn create(api: &Api, caller: &Caller, body: &Bytes) -> Result<Response<Bytes>, Refusal> {
    if body.len() > MAX_BODY_BYTES {
        let detail = format!("the body has more than {MAX_BODY_BYTES} bytes; one domain needs a hostname and a tenant");
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "request.too_large", detail));
    }
    let new: NewDomain = serde_json::from_slice(body).map_err(|error| {
        Refusal::bad_request("request.invalid_body", format!("send JSON like {{\"hostname\": \"…\", \"tenant\": \"…\"}}: {error}"))
    })?;
    let tenant = tenant_of(caller, new.tenant.as_deref())?
        .ok_or_else(|| Refusal::bad_request("request.tenant_missing", "an operator's request must name the `tenant` the domain is for"))?;
    let hostname = Hostname::parse(&new.hostname, &api.policy)?;
    let key = ClaimKey { hostname, tenant };
    for _ in 0..RACES {
        let known = api.table.claim(&key).await?;
        match &known {
            Some(claim) if claim.is_removed() => {}
            Some(Claim { state: State::Removing { .. }, .. }) => {
                let detail = format!("{} is being removed; register it again when that is done, in a few seconds", key.hostname);
                return Err(Refusal::new(StatusCode::CONFLICT, "domain.being_removed", detail));
            }
            Some(claim) => return json(StatusCode::OK, &DomainView::of(claim, &api.zone)),
            None => {}
        }
        if caller.role == Role::Tenant {
            let bucket = format!("claims|{}", key.tenant);
            take(api, &bucket, api.pace.claims, "limits.too_many_claims", "this tenant registers domains faster than it may").await?;
        }
        let entropy = api.entropy.as_ref();
        let unguessable = |error: String| Refusal::unavailable(&error);
        let (claim_id, token) = (new_claim_id(entropy).map_err(unguessable)?, new_token(entropy).map_err(unguessable)?);
        let change = decide::register(key.clone(), claim_id, token, known.as_ref(), &api.looks, api.clock.now());
        match api.table.commit(&change).await {
            Ok(()) => {
                let mut response = json(StatusCode::CREATED, &DomainView::of(&change.claims[0].item, &api.zone))?;
                if let Ok(location) = HeaderValue::from_str(&format!("/v1/domains/{}?tenant={}", key.hostname, key.tenant)) {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                return Ok(response);
            }
            Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}

async fn show(api: &Api, caller: &Caller, hostname: &str, query: &Query) -> Result<Response<Bytes>, Refusal> {
    let claim = find(api, caller, hostname, query).await?;
    json(StatusCode::OK, &DomainView::of(&claim, &api.zone))
}

async fn check(api: &Api, caller: &Caller, hostname: &str, query: &Query) -> Result<Response<Bytes>, Refusal> {
    let mut claim = find(api, caller, hostname, query).await?;
    take(api, &format!("check|{}", claim.key), api.pace.checks, "limits.too_many_checks", "this domain was checked very often just now")
        .await?;
    for _ in 0..RACES {
        let Some(change) = decide::look_now(&claim, api.clock.now()) else { break };
        match api.table.commit(&change).await {
            Ok(()) => {
                claim = change.claims.into_iter().next().map_or(claim, |put| put.item);
                break;
            }
            Err(CommitError::Conflict) => claim = find(api, caller, hostname, query).await?,
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    json(StatusCode::ACCEPTED, &DomainView::of(&claim, &api.zone))
}

async fn remove(api: &Api, caller: &Caller, hostname: &str, query: &Query) -> Result<Response<Bytes>, Refusal> {
    for _ in 0..RACES {
        let claim = find(api, caller, hostname, query).await?;
        if matches!(claim.state, State::Removing { .. } | State::Removed { .. }) {
            return json(StatusCode::ACCEPTED, &DomainView::of(&claim, &api.zone));
        }
        let owner = api.table.owner(&claim.key.hostname).await?;
        let change = decide::request_removal(&claim, owner.as_ref(), api.clock.now());
        match api.table.commit(&change).await {
            Ok(()) => return json(StatusCode::ACCEPTED, &DomainView::of(&change.claims[0].item, &api.zone)),
            Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}

async fn history(api: &Api, caller: &Caller, hostname: &str, query: &Query) -> Result<Response<Bytes>, Refusal> {
    let claim = find(api, caller, hostname, query).await?;
    let after = query.number("after", 0)?;
    let limit = query.limit()?;
    let entries = api.listings.history(&claim.key, after, limit).await?;
    let next = (entries.len() == limit).then(|| entries.last().map(|entry| entry.sequence)).flatten();
    json(StatusCode::OK, &serde_json::json!({ "items": entries, "after": next }))
}

async fn list(api: &Api, caller: &Caller, query: &Query) -> Result<Response<Bytes>, Refusal> {
    let tenant = tenant_of(caller, query.text("tenant").as_deref())?;
    let state = match query.text("state") {
        Some(name) => Some(StateName::parse(&name).ok_or_else(|| {
            let names: Vec<_> = StateName::ALL.iter().map(|state| state.as_str()).collect();
            Refusal::bad_request("request.invalid_state", format!("`state` is one of {}", names.join(", ")))
        })?),
        None => None,
    };
    let limit = query.limit()?;
    let page = api.listings.claims(tenant.as_ref(), state, query.text("cursor").as_deref(), limit).await?;
    let items: Vec<_> = page.items.iter().map(|claim| DomainView::of(claim, &api.zone)).collect();
    json(StatusCode::OK, &serde_json::json!({ "items": items, "cursor": page.cursor }))
}

/// The claim a request is about. An operator may leave the tenant out where only one has a claim to the name.
async fn find(api: &Api, caller: &Caller, segment: &str, query: &Query) -> Result<Claim, Refusal> {
    let text = percent_encoding::percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Refusal::bad_request("hostname.invalid", "the hostname in the path is not UTF-8"))?;
    let hostname = Hostname::parse_name(&text)?;
    match tenant_of(caller, query.text("tenant").as_deref())? {
        Some(tenant) => {
            let key = ClaimKey { hostname, tenant };
            api.table.claim(&key).await?.ok_or_else(|| Refusal::no_such_domain(key.hostname.as_str()))
        }
        None => {
            let mut claims = api.listings.claims_to(&hostname).await?;
            if claims.iter().any(|claim| !claim.is_removed()) {
                claims.retain(|claim| !claim.is_removed());
            }
            match <[Claim; 1]>::try_from(claims) {
                Ok([claim]) => Ok(claim),
                Err(claims) if claims.is_empty() => Err(Refusal::no_such_domain(hostname.as_str())),
                Err(claims) => {
                    let tenants: Vec<_> = claims.iter().map(|claim| claim.key.tenant.as_str()).take(10).collect();
                    let detail = format!("several tenants claim {hostname} ({}); add ?tenant=…", tenants.join(", "));
                    Err(Refusal::new(StatusCode::CONFLICT, "request.tenant_missing", detail))
                }
            }
        }
    }
}

async fn take(api: &Api, bucket: &str, shape: domains::BucketShape, code: &'static str, detail: &str) -> Result<(), Refusal> {
    match api.limits.take(bucket, shape, api.clock.now()).await? {
        Taken::Granted => Ok(()),
        Taken::Wait(wait) => Err(Refusal::slow_down(code, format!("{detail}; wait as Retry-After says"), wait)),
    }
}

struct Query(Vec<(String, String)>);

impl Query {
    fn read(query: Option<&str>) -> Self {
        Self(
            form_urlencoded::parse(query.unwrap_or_default().as_bytes())
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| Cow::Borrowed(value.as_str()))
    }

    fn number(&self, name: &'static str, default: u64) -> Result<u64, Refusal> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().map_err(|_| Refusal::bad_request("request.invalid_number", format!("`{name}` must be a whole number, 0 or more")))
    }

    fn limit(&self) -> Result<usize, Refusal> {
        let limit = self.number("limit", 50)?;
        Ok(usize::try_from(limit).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE))
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Result<Response<Bytes>, Refusal> {
    let bytes = serde_json::to_vec(value).map_err(|error| Refusal::unavailable(&error.to_string()))?;
    let mut response = Response::new(Bytes::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
