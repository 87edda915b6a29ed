//! The ACME resources of RFC 8555 and RFC 9773.
//!
//! Arrives: one HTTP request with its body read. Leaves: the answer, with a fresh nonce on every POST, or a closed connection when a
//! test scripted that. Goes wrong: every refusal is a problem document.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LINK, LOCATION, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::accounts::Account;
use crate::authority::Request as SigningRequest;
use crate::authority::{Issued, public_key_of, serial_of};
use crate::ca::{Ca, SignedBy};
use crate::control::{Answer, Fault};
use crate::jws;
use crate::lock;
use crate::names::{Identifier, parse_names};
use crate::orders::{Authorization, Challenge, ChallengeKind, ChallengeState, NewOrder, Order, OrderStatus, Profile, Replaced, Validation};
use crate::problem::{Kind, Problem};
use crate::routes::Route;
use crate::server::{ConnectionLost, Handler};

const REPLAY_NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// Revocation reasons that a subscriber may give. Source: Boulder, `revocation.UserAllowedReasons` (read 2026-11).
const REVOCATION_REASONS: [u64; 5] = [0, 1, 3, 4, 5];

/// The ACME side of the CA, as a handler of requests.
pub(crate) struct Acme(pub(crate) Arc<Ca>);

impl Handler for Acme {
    async fn handle(&self, request: Request<Bytes>) -> Result<Response<Full<Bytes>>, ConnectionLost> {
        let ca = &self.0;
        ca.wait_while_paused().await;
        let Some(route) = Route::parse(request.uri().path()) else {
            return Ok(refusal(ca, &Problem::not_found(format!("there is no {}", request.uri().path())), false));
        };
        let Some(fault) = next_fault(ca, &route, request.body()) else {
            return Ok(answer(ca, &route, &request).await);
        };
        tracing::info!(endpoint = ?fault.endpoint, answer = ?fault.answer, "scripted fault");
        tokio::time::sleep(fault.delay).await;
        let mut response = match fault.answer {
            Answer::Usual => answer(ca, &route, &request).await,
            Answer::Unheard => return Err(ConnectionLost),
            Answer::Lost => {
                answer(ca, &route, &request).await;
                return Err(ConnectionLost);
            }
            Answer::Problem { kind, status, detail } => {
                refusal(ca, &Problem::scripted(&kind, detail, status), request.method() == Method::POST)
            }
            Answer::Page { status, content_type, body } => page(status, &content_type, body),
        };
        if let Some(wait) = fault.retry_after {
            set(&mut response, RETRY_AFTER, &wait);
        }
        Ok(response)
    }
}

fn next_fault(ca: &Ca, route: &Route, body: &[u8]) -> Option<Fault> {
    if lock(&ca.faults).is_empty() {
        return None;
    }
    let names = route.names(ca, body);
    lock(&ca.faults).next(route.endpoint(), &names)
}

/// Answers one request in full.
async fn answer(ca: &Arc<Ca>, route: &Route, request: &Request<Bytes>) -> Response<Full<Bytes>> {
    if request.method() == Method::POST {
        let answered = post(ca, route, request).await;
        if let Err(problem) = &answered {
            tracing::debug!(?route, kind = problem.short_type(), detail = problem.detail(), "refused");
        }
        let mut response = answered.unwrap_or_else(|problem| refusal(ca, &problem, false));
        set(&mut response, REPLAY_NONCE, &ca.fresh_nonce());
        set(&mut response, CACHE_CONTROL, "no-store");
        return response;
    }
    match (route, request.method()) {
        (Route::Directory, &Method::GET) => directory(ca),
        (Route::NewNonce, method @ (&Method::GET | &Method::HEAD)) => new_nonce(ca, method == Method::HEAD),
        (Route::RenewalInfo(identifier), &Method::GET) => {
            renewal_info(ca, identifier).unwrap_or_else(|problem| refusal(ca, &problem, false))
        }
        (_, method) => {
            let detail = format!("{method} is not understood here; most ACME resources take POST only");
            refusal(ca, &Problem::new(Kind::MethodNotAllowed, detail), false)
        }
    }
}

async fn post(ca: &Arc<Ca>, route: &Route, request: &Request<Bytes>) -> Result<Response<Full<Bytes>>, Problem> {
    let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.split(';').next().is_none_or(|essence| !essence.trim().eq_ignore_ascii_case("application/jose+json")) {
        return Err(Problem::new(Kind::UnsupportedMediaType, "ACME requests are of type application/jose+json"));
    }
    let (signed_by, payload) = ca.authenticate(&ca.url(&route.path()), request.body())?;
    match route {
        Route::NewAccount => new_account(ca, signed_by.key()?, &payload).await,
        Route::RevokeCert => revoke_cert(ca, signed_by, &payload),
        Route::RenewalInfo(_) => Err(Problem::new(Kind::MethodNotAllowed, "renewal information is a plain GET")),
        _ => {
            let account = signed_by.account()?;
            match route {
                Route::Account(id) => change_account(ca, &account, id, &payload).await,
                Route::Orders(id) => orders(ca, &account, id, &payload),
                Route::NewOrder => new_order(ca, &account, &payload),
                Route::Order(id) => order(ca, &account, id, &payload),
                Route::Finalize(id) => finalize(ca, &account, id, &payload),
                Route::Authorization(id) => authorization(ca, &account, id, &payload),
                Route::Challenge(id, kind) => challenge(ca, &account, id, *kind, &payload),
                Route::Certificate(serial) => certificate(ca, &account, serial, &payload),
                // RFC 8555, section 6.3 wants these two as POST-as-GET as well.
                Route::Directory => expect_empty(&payload).map(|()| directory(ca)),
                Route::NewNonce => expect_empty(&payload).map(|()| new_nonce(ca, false)),
                Route::NewAccount | Route::RevokeCert | Route::RenewalInfo(_) => Err(Problem::not_found("no such resource")),
            }
        }
    }
}

fn directory(ca: &Ca) -> Response<Full<Bytes>> {
    let url = |route: &Route| ca.url(&route.path());
    let descriptions: Map<String, Value> = Profile::ALL
        .into_iter()
        .map(|profile| {
            let description = match profile {
                Profile::TlsServer => "for servers; the usual lifetime",
                Profile::ShortLived => "for servers; at most 160 hours",
            };
            (profile.name().to_owned(), description.into())
        })
        .collect();
    json_reply(
        StatusCode::OK,
        &json!({
            "newNonce": url(&Route::NewNonce),
            "newAccount": url(&Route::NewAccount),
            "newOrder": url(&Route::NewOrder),
            "revokeCert": url(&Route::RevokeCert),
            "renewalInfo": ca.url("/acme/renewal-info"),
            "meta": { "externalAccountRequired": false, "profiles": descriptions },
        }),
    )
}

fn new_nonce(ca: &Ca, head: bool) -> Response<Full<Bytes>> {
    let status = if head { StatusCode::OK } else { StatusCode::NO_CONTENT };
    let mut response = empty_reply(status);
    set(&mut response, REPLAY_NONCE, &ca.fresh_nonce());
    set(&mut response, CACHE_CONTROL, "no-store");
    with_index(ca, response)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewAccountPayload {
    #[serde(default)]
    contact: Vec<String>,
    #[serde(default)]
    only_return_existing: bool,
}

async fn new_account(ca: &Ca, key: jws::Jwk, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    let payload: NewAccountPayload = parse(payload)?;
    let (account, is_new) = match ca.accounts.by_key(&key) {
        Some(account) => (account, false),
        None if payload.only_return_existing => {
            return Err(Problem::new(Kind::AccountDoesNotExist, "no account has this key"));
        }
        None => ca.accounts.create(ca.fresh_id(), key, payload.contact, ca.now())?,
    };
    if account.status != crate::accounts::Status::Valid {
        return Err(Problem::unauthorized("the account with this key is deactivated"));
    }
    // Also for an existing one: the request that made it may have failed to save it.
    ca.accounts.save().await?;
    if is_new {
        tracing::info!(account = account.id, "account created");
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = with_index(ca, json_reply(status, &account_object(ca, &account)));
    set(&mut response, LOCATION, &ca.url(&Route::Account(account.id).path()));
    Ok(response)
}

#[derive(Deserialize)]
struct ChangeAccountPayload {
    contact: Option<Vec<String>>,
    status: Option<String>,
}

async fn change_account(ca: &Ca, account: &Account, id: &str, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    expect_own(account, id, "account")?;
    if payload.is_empty() {
        return Ok(with_index(ca, json_reply(StatusCode::OK, &account_object(ca, account))));
    }
    let change: ChangeAccountPayload = parse(payload)?;
    let deactivate = expect_deactivation(change.status.as_deref())?;
    let account = ca.accounts.change(id, change.contact, deactivate)?;
    ca.accounts.save().await?;
    Ok(with_index(ca, json_reply(StatusCode::OK, &account_object(ca, &account))))
}

fn account_object(ca: &Ca, account: &Account) -> Value {
    json!({
        "status": account.status,
        "contact": account.contact,
        "createdAt": account.created_at,
        "orders": ca.url(&Route::Orders(account.id.clone()).path()),
    })
}

fn orders(ca: &Ca, account: &Account, id: &str, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    expect_own(account, id, "list of orders")?;
    expect_empty(payload)?;
    let (now, book) = (ca.now(), lock(&ca.book));
    let open = book.orders_of(id).iter().filter(|id| {
        // RFC 8555, section 7.1.2.1: invalid orders need not be listed.
        book.order(id).is_some_and(|order| book.status(order, now) != OrderStatus::Invalid)
    });
    let urls: Vec<String> = open.map(|id| ca.url(&Route::Order(id.clone()).path())).collect();
    Ok(with_index(ca, json_reply(StatusCode::OK, &json!({ "orders": urls }))))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewOrderPayload {
    identifiers: Vec<Identifier>,
    profile: Option<String>,
    replaces: Option<String>,
    not_before: Option<Value>,
    not_after: Option<Value>,
}

fn new_order(ca: &Ca, account: &Account, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    let payload: NewOrderPayload = parse(payload)?;
    if payload.not_before.is_some() || payload.not_after.is_some() {
        return Err(Problem::malformed("notBefore and notAfter are not supported; choose a profile"));
    }
    let names = parse_names(&payload.identifiers)?;
    let profile = payload.profile.as_deref().map(Profile::parse).transpose()?;
    let replaces = payload
        .replaces
        .map(|identifier| Ok::<_, Problem>(Replaced { serial: ca.serial_of_ari_identifier(&identifier)?, identifier }))
        .transpose()?;
    let wish = NewOrder { account: account.id.clone(), names, profile, replaces };
    let (now, reuse) = (ca.now(), ca.settings().authorization_reuse);
    let mut book = lock(&ca.book);
    let id = book.new_order(wish, now, reuse, || ca.fresh_id())?;
    let order = book.order(&id).ok_or_else(|| Problem::not_found("no such order"))?;
    tracing::info!(order = id, names = ?order.names, status = book.status(order, now).name(), "order");
    Ok(order_reply(ca, StatusCode::CREATED, order, book.status(order, now)))
}

fn order(ca: &Ca, account: &Account, id: &str, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    expect_empty(payload)?;
    let (now, book) = (ca.now(), lock(&ca.book));
    let order = book.order(id).ok_or_else(|| Problem::not_found("no such order"))?;
    expect_own(account, &order.account, "order")?;
    Ok(order_reply(ca, StatusCode::OK, order, book.status(order, now)))
}

fn order_reply(ca: &Ca, code: StatusCode, order: &Order, status: OrderStatus) -> Response<Full<Bytes>> {
    let identifiers: Vec<Value> = order.names.iter().map(|name| json!({ "type": "dns", "value": name })).collect();
    let authorizations: Vec<String> = order.authorizations.iter().map(|id| ca.url(&Route::Authorization(id.clone()).path())).collect();
    let mut object = json!({
        "status": status.name(),
        "expires": order.expires,
        "identifiers": identifiers,
        "authorizations": authorizations,
        "finalize": ca.url(&Route::Finalize(order.id.clone()).path()),
    });
    if let Some(profile) = order.requested_profile {
        object["profile"] = profile.name().into();
    }
    if let Some(replaces) = &order.replaces {
        object["replaces"] = replaces.as_str().into();
    }
    if let Some(serial) = order.certificate() {
        object["certificate"] = ca.url(&Route::Certificate(serial.to_owned()).path()).into();
    }
    if let Some(error) = order.error() {
        object["error"] = json!(error);
    }
    let mut response = with_index(ca, json_reply(code, &object));
    set(&mut response, LOCATION, &ca.url(&Route::Order(order.id.clone()).path()));
    let wait = ca.settings().finalize_delay.as_secs();
    if status == OrderStatus::Processing && wait > 0 {
        set(&mut response, RETRY_AFTER, &wait.to_string());
    }
    response
}

#[derive(Deserialize)]
struct FinalizePayload {
    csr: String,
}

fn finalize(ca: &Arc<Ca>, account: &Account, id: &str, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    let payload: FinalizePayload = parse(payload)?;
    let names = {
        let (now, book) = (ca.now(), lock(&ca.book));
        let order = book.order(id).ok_or_else(|| Problem::not_found("no such order"))?;
        expect_own(account, &order.account, "order")?;
        book.expect_ready(id, now)?.names.clone()
    };
    // Outside the lock: checking a signature is the dearest thing here.
    let csr = BASE64_URL_SAFE_NO_PAD.decode(&payload.csr).map_err(|_| Problem::new(Kind::BadCsr, "the CSR is not base64url"))?;
    let request = SigningRequest::parse(&csr, &account.jwk.point()?)?;
    request.expect_names(&names)?;

    lock(&ca.book).begin_finalize(id, ca.now())?;
    let delay = ca.settings().finalize_delay;
    if delay.is_zero() {
        issue(ca, id, &request);
    } else {
        let (worker, id) = (Arc::clone(ca), id.to_owned());
        ca.spawn(async move {
            tokio::time::sleep(delay).await;
            issue(&worker, &id, &request);
        });
    }
    let (now, book) = (ca.now(), lock(&ca.book));
    let order = book.order(id).ok_or_else(|| Problem::not_found("no such order"))?;
    Ok(order_reply(ca, StatusCode::OK, order, book.status(order, now)))
}

/// Signs the certificate of an order in `processing`.
fn issue(ca: &Ca, id: &str, request: &SigningRequest) {
    let profile = lock(&ca.book).order(id).map(Order::profile).unwrap_or_default();
    let signed = ca.authority.issue(request, ca.now(), profile.lifetime(ca.settings().lifetime));
    let result: Result<Issued, Problem> = signed.map_err(|error| {
        tracing::error!(order = id, %error, "signing failed");
        Problem::new(Kind::ServerInternal, format!("signing failed: {error}"))
    });
    if let Ok(issued) = &result {
        tracing::info!(order = id, serial = issued.serial, not_after = %issued.not_after, "certificate issued");
    }
    lock(&ca.book).finish_finalize(id, result);
}

#[derive(Deserialize)]
struct StatusPayload {
    status: Option<String>,
}

fn authorization(ca: &Ca, account: &Account, id: &str, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    let (now, mut book) = (ca.now(), lock(&ca.book));
    let owner = book.authorization(id).map(|one| one.account.clone()).ok_or_else(|| Problem::not_found("no such authorization"))?;
    expect_own(account, &owner, "authorization")?;
    if !payload.is_empty() {
        let change: StatusPayload = parse(payload)?;
        if !expect_deactivation(change.status.as_deref())? {
            return Err(Problem::malformed("the only change to an authorization is status \"deactivated\""));
        }
        book.deactivate_authorization(id, now)?;
    }
    let authorization = book.authorization(id).ok_or_else(|| Problem::not_found("no such authorization"))?;
    let challenges: Vec<Value> = authorization.shown_challenges().map(|challenge| challenge_object(ca, authorization, challenge)).collect();
    let mut object = json!({
        "status": authorization.status(now).name(),
        "expires": authorization.expires,
        "identifier": { "type": "dns", "value": authorization.name },
        "challenges": challenges,
    });
    if authorization.wildcard {
        object["wildcard"] = true.into();
    }
    Ok(with_index(ca, json_reply(StatusCode::OK, &object)))
}

fn challenge_object(ca: &Ca, authorization: &Authorization, challenge: &Challenge) -> Value {
    let mut object = json!({
        "type": challenge.kind.name(),
        "url": ca.url(&Route::Challenge(authorization.id.clone(), challenge.kind).path()),
        "token": authorization.token,
    });
    object["status"] = match &challenge.state {
        ChallengeState::Pending => "pending",
        ChallengeState::Processing => "processing",
        ChallengeState::Valid { at } => {
            object["validated"] = json!(at);
            "valid"
        }
        ChallengeState::Invalid { at, error } => {
            object["validated"] = json!(at);
            object["error"] = json!(error);
            "invalid"
        }
    }
    .into();
    object
}

fn challenge(ca: &Arc<Ca>, account: &Account, id: &str, kind: ChallengeKind, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    let wants_validation = !payload.is_empty();
    if wants_validation {
        parse::<Map<String, Value>>(payload)?;
    }
    let mut book = lock(&ca.book);
    let owner = book.authorization(id).map(|one| one.account.clone()).ok_or_else(|| Problem::not_found("no such challenge"))?;
    expect_own(account, &owner, "challenge")?;
    // A decided authorization, or one being tried, is shown as it is, as Boulder does.
    if wants_validation && let Some(validation) = book.begin_validation(id, kind, ca.now()) {
        ca.spawn(validate(Arc::clone(ca), validation, account.jwk.thumbprint()));
    }
    let authorization = book.authorization(id).ok_or_else(|| Problem::not_found("no such challenge"))?;
    let challenge = authorization
        .challenges
        .iter()
        .find(|challenge| challenge.kind == kind)
        .ok_or_else(|| Problem::not_found("this authorization has no such challenge"))?;
    let mut response = with_index(ca, json_reply(StatusCode::OK, &challenge_object(ca, authorization, challenge)));
    append(&mut response, LINK, &format!("<{}>;rel=\"up\"", ca.url(&Route::Authorization(id.to_owned()).path())));
    Ok(response)
}

async fn validate(ca: Arc<Ca>, validation: Validation, thumbprint: String) {
    let result = ca.validator.validate(&validation, &thumbprint).await;
    match &result {
        Ok(()) => tracing::info!(hostname = validation.name, challenge = validation.kind.name(), "validated"),
        Err(problem) => {
            let (kind, detail) = (problem.short_type(), problem.detail());
            tracing::warn!(hostname = validation.name, challenge = validation.kind.name(), kind, detail, "validation failed");
        }
    }
    let reuse = ca.settings().authorization_reuse;
    lock(&ca.book).finish_validation(&validation, result, ca.now(), reuse);
}

fn certificate(ca: &Ca, account: &Account, serial: &str, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    expect_empty(payload)?;
    let book = lock(&ca.book);
    let certificate = book.certificate(serial).ok_or_else(|| Problem::not_found("no such certificate"))?;
    expect_own(account, &certificate.account, "certificate")?;
    Ok(with_index(ca, page(200, "application/pem-certificate-chain", certificate.issued.chain_pem.clone())))
}

#[derive(Deserialize)]
struct RevokePayload {
    certificate: String,
    #[serde(default)]
    reason: u64,
}

fn revoke_cert(ca: &Ca, signed_by: SignedBy, payload: &[u8]) -> Result<Response<Full<Bytes>>, Problem> {
    let payload: RevokePayload = parse(payload)?;
    if !REVOCATION_REASONS.contains(&payload.reason) {
        let detail = format!("reason {} cannot be given by subscribers; use one of {REVOCATION_REASONS:?}", payload.reason);
        return Err(Problem::new(Kind::BadRevocationReason, detail));
    }
    let der = BASE64_URL_SAFE_NO_PAD.decode(&payload.certificate).map_err(|_| Problem::malformed("the certificate is not base64url"))?;
    let serial = serial_of(&der).ok_or_else(|| Problem::malformed("the certificate does not parse"))?;
    let (now, mut book) = (ca.now(), lock(&ca.book));
    let certificate = book
        .certificate(&serial)
        .filter(|certificate| certificate.issued.der == der)
        .ok_or_else(|| Problem::not_found("the certificate was not issued here"))?;
    let allowed = match &signed_by {
        SignedBy::Account(account) => account.id == certificate.account || book.controls(&account.id, &certificate.names, now),
        SignedBy::Key(key) => public_key_of(&der).is_some_and(|spki| key.point().is_ok_and(|point| spki.ends_with(&point))),
    };
    if !allowed {
        return Err(Problem::unauthorized("neither the account that ordered the certificate, nor in control of its names, nor its key"));
    }
    book.revoke(&serial)?;
    tracing::info!(serial, reason = payload.reason, "certificate revoked");
    Ok(with_index(ca, empty_reply(StatusCode::OK)))
}

/// RFC 9773, section 4.
fn renewal_info(ca: &Ca, identifier: &str) -> Result<Response<Full<Bytes>>, Problem> {
    let serial = ca.serial_of_ari_identifier(identifier)?;
    let window = {
        let (now, book) = (ca.now(), lock(&ca.book));
        book.certificate(&serial).ok_or_else(|| Problem::not_found("no such certificate"))?.window(now)
    };
    let mut response = json_reply(StatusCode::OK, &json!({ "suggestedWindow": window }));
    set(&mut response, RETRY_AFTER, &ca.settings().ari_retry_after.as_secs().to_string());
    Ok(response)
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(payload).map_err(|error| Problem::malformed(format!("the payload is not understood: {error}")))
}

fn expect_empty(payload: &[u8]) -> Result<(), Problem> {
    if payload.is_empty() { Ok(()) } else { Err(Problem::malformed("this resource is read with POST-as-GET: the payload must be empty")) }
}

fn expect_own(account: &Account, owner: &str, what: &str) -> Result<(), Problem> {
    if account.id == owner { Ok(()) } else { Err(Problem::unauthorized(format!("the {what} belongs to another account"))) }
}

/// Whether a requested status means deactivation; no other can be asked for.
fn expect_deactivation(status: Option<&str>) -> Result<bool, Problem> {
    match status {
        None | Some("valid") => Ok(false),
        Some("deactivated") => Ok(true),
        Some(other) => Err(Problem::malformed(format!("the status cannot be changed to {other:?}, only to \"deactivated\""))),
    }
}

fn refusal(ca: &Ca, problem: &Problem, with_nonce: bool) -> Response<Full<Bytes>> {
    let mut response = with_index(ca, problem.response());
    if with_nonce {
        set(&mut response, REPLAY_NONCE, &ca.fresh_nonce());
    }
    response
}

fn json_reply(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    page(status.as_u16(), "application/json", value.to_string())
}

fn page(status: u16, content_type: &str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(&mut response, CONTENT_TYPE, content_type);
    response
}

fn empty_reply(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// Adds the link that RFC 8555, section 7.1 wants on everything but the directory.
fn with_index(ca: &Ca, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    append(&mut response, LINK, &format!("<{}>;rel=\"index\"", ca.url(&Route::Directory.path())));
    response
}

/// Sets a header; a scripted value that no header can carry is left out.
fn set(response: &mut Response<Full<Bytes>>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn append(response: &mut Response<Full<Bytes>>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().append(name, value);
    }
}
