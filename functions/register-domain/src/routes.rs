//! Which request does what.

use bytes::Bytes;
use domains::{BucketShape, Caller, Claim, ClaimKey, Hostname, Role, Taken};
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde::Serialize;

use crate::{
    Api, Code, Refusal,
    access::caller,
    ask, claims, feed, imports, limits,
    operations::{Access, Found, Operation, find},
    parameters::{Parameter, Query},
    webhooks,
};

/// How often a write is decided anew after other writers were first.
pub(crate) const RACES: usize = 4;

/// One request, told apart.
pub(crate) struct Asked<'a> {
    /// Who asks; for an operation that anybody may use, nobody in particular.
    pub(crate) caller: &'a Caller,
    /// The variable part of the path, decoded.
    pub(crate) variable: &'a str,
    /// The query.
    pub(crate) query: Query,
    /// The body.
    pub(crate) body: &'a Bytes,
}

pub(crate) async fn route(api: &Api, request: Request<Bytes>) -> Result<Response<Bytes>, Refusal> {
    let path = match request.uri().path().trim_end_matches('/') {
        "" => "/",
        path => path,
    };
    let found = find(request.method(), path);
    let access = match &found {
        Found::Operation(operation, _) => operation.description().access,
        Found::OtherMethod(_, access) => *access,
        Found::Nothing => Access::Key,
    };
    let caller = match access {
        Access::Public => Caller { role: Role::Tenant, tenant: None },
        // A stranger learns nothing of what exists before the key is checked.
        Access::Key | Access::Operator => caller(api.callers.as_ref(), request.headers()).await?,
    };
    let (operation, variable) = match found {
        Found::Operation(operation, variable) => (operation, variable),
        Found::OtherMethod(allow, _) => return Err(Refusal::method(allow)),
        Found::Nothing => return Err(Refusal::no_such_path(path)),
    };
    if access == Access::Operator && caller.role != Role::Operator {
        return Err(Refusal::forbidden("this needs an operator's API key"));
    }
    let query = Query::read(request.uri().query(), operation.description().parameters)?;
    let decoded = percent_encoding::percent_decode_str(variable);
    let variable = match operation.description().parameters.contains(&Parameter::Hostname) {
        true => decoded.decode_utf8().map_err(|_| Refusal::new(Code::HostnameInvalid, "the path is not UTF-8"))?,
        // What is none of our names is nobody's.
        false => decoded.decode_utf8_lossy(),
    };
    let asked = Asked { caller: &caller, variable: &variable, query, body: request.body() };
    match operation {
        Operation::DescribeApi => Ok(with_type(StatusCode::OK, api.memory.document(&api.pace))),
        Operation::RegisterDomain => claims::register(api, &asked).await,
        Operation::ListDomains => claims::list(api, &asked).await,
        Operation::ShowDomain => claims::show(api, &asked).await,
        Operation::RemoveDomain => claims::remove(api, &asked).await,
        Operation::CheckDomain => claims::check(api, &asked).await,
        Operation::SuspendDomain => claims::suspend(api, &asked).await,
        Operation::ResumeDomain => claims::resume(api, &asked).await,
        Operation::SetOrigin => claims::set_origin(api, &asked).await,
        Operation::ListLooks => feed::looks(api, &asked).await,
        Operation::ListHistory => feed::history(api, &asked).await,
        Operation::ListEvents => feed::events(api, &asked).await,
        Operation::CreateImport => imports::create(api, &asked).await,
        Operation::ListImports => imports::list(api, &asked).await,
        Operation::ShowImport => imports::show(api, &asked).await,
        Operation::CreateWebhook => webhooks::create(api, &asked).await,
        Operation::ListWebhooks => webhooks::list(api).await,
        Operation::ShowWebhook => webhooks::show(api, &asked).await,
        Operation::RemoveWebhook => webhooks::remove(api, &asked).await,
        Operation::RotateWebhook => webhooks::rotate(api, &asked).await,
        Operation::TestWebhook => webhooks::test(api, &asked).await,
        Operation::RedeliverWebhook => webhooks::redeliver(api, &asked).await,
        Operation::ShowLimits => limits::limits(api, &asked).await,
        Operation::ShowAsk => ask::show(api).await,
        Operation::RotateAsk => ask::rotate(api).await,
        Operation::Ask => ask::ask(api, &asked).await,
    }
}

/// The claim a request is about. An operator may leave the tenant out where only one has a claim to the name.
pub(crate) async fn find_claim(api: &Api, asked: &Asked<'_>) -> Result<Claim, Refusal> {
    let hostname = Hostname::parse_name(asked.variable)?;
    match asked.query.tenant(asked.caller)? {
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
                    Err(Refusal::new(Code::TenantMissing, detail))
                }
            }
        }
    }
}

pub(crate) async fn take(api: &Api, bucket: &str, shape: BucketShape, code: Code, detail: &str) -> Result<(), Refusal> {
    match api.limits.take(bucket, shape, api.clock.now()).await? {
        Taken::Granted => Ok(()),
        Taken::Wait(wait) => Err(Refusal::slow_down(code, format!("{detail}; wait as Retry-After says"), wait)),
    }
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Result<Response<Bytes>, Refusal> {
    let bytes = serde_json::to_vec(value).map_err(|error| Refusal::unavailable(&error.to_string()))?;
    Ok(with_type(status, bytes.into()))
}

fn with_type(status: StatusCode, bytes: Bytes) -> Response<Bytes> {
    let mut response = Response::new(bytes);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
