//! Webhooks: registered, shown, rotated, removed. deliver-events does the sending.
//!
//! Arrives: an endpoint's URL and what it wants to hear. Leaves: the endpoint with its secret, which is shown this once; later how far it
//! was told. Goes wrong: a URL that is none, more endpoints than are served, one that is not there.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use domains::{
    CommitError, StoreError, TenantId, Timestamp,
    webhooks::{
        DeadLetter, Endpoint, Failed, MAX_WEBHOOKS, PROGRESS_KIND, Progress, ROTATION_OVERLAP, SECRET_PREFIX, Secret, Tested,
        WEBHOOKS_KIND, WISHES_KIND, Webhook, Wish, dead_letters_kind, message_id,
    },
};
use http::{HeaderValue, Response, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Api, Code, MAX_SMALL_BODY_BYTES, Refusal,
    access::tenant_of,
    entropy::new_secret,
    routes::{Asked, RACES, json},
};

/// The random bytes of a secret; Standard Webhooks wants 24 to 64 (standard-webhooks/spec, read 2026-11).
const SECRET_BYTES: usize = 32;
/// How many kinds of events one endpoint may name, and how long each may be.
const MAX_EVENTS: usize = 50;
const MAX_EVENT_CHARS: usize = 64;
/// How many waiting events are counted, and how many dead letters are shown.
const COUNTED: usize = 200;
const SHOWN: usize = 50;
/// How many documents are deleted at once.
const SWEPT: usize = 100;

/// An endpoint to tell what happens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewWebhook {
    /// Where events are sent: `https`, a host on the public internet, no user and no password.
    #[schemars(extend("format" = "uri", "pattern" = "^https://[A-Za-z0-9]"))]
    url: String,
    /// Which events, as the feed names them; all of them without.
    #[serde(default)]
    #[schemars(length(max = MAX_EVENTS), inner(pattern("^[a-z_]{1,64}$")))]
    events: Vec<String>,
    /// Only this tenant's.
    #[schemars(extend("pattern" = TenantId::PATTERN))]
    tenant: Option<String>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookView {
    /// Its name.
    pub id: String,
    /// Where events are sent.
    pub url: String,
    /// Which events; empty: all.
    pub events: Vec<String>,
    /// Whose; `null`: everybody's.
    pub tenant: Option<String>,
    /// Since when.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: Timestamp,
}

/// An endpoint with its secret, which is not shown again.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct WebhookSecretView {
    /// The endpoint.
    #[serde(flatten)]
    pub webhook: WebhookView,
    /// What signs, `whsec_…`; keep it where the receiver is.
    pub secret: String,
}

impl std::fmt::Debug for WebhookSecretView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WebhookSecretView({})", self.webhook.id)
    }
}

/// A page of endpoints; there is one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct WebhookPage {
    /// The endpoints.
    pub items: Vec<WebhookView>,
}

/// An event that was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterView {
    /// Its number.
    pub sequence: u64,
    /// The message's id.
    pub message: String,
    /// What happened.
    pub event: String,
    /// To which hostname.
    pub hostname: String,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong last.
    pub failure: Failed,
}

/// An endpoint, and how far it was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookStatus {
    /// The endpoint.
    #[serde(flatten)]
    pub webhook: WebhookView,
    /// The number of the last event that is done with.
    pub sequence: u64,
    /// Events that wait, as far as they were counted.
    pub backlog: usize,
    /// Whether more wait than were counted.
    pub backlog_more: bool,
    /// How often the next event was tried.
    pub attempts: u32,
    /// When it is tried again; `null`: as soon as there is one.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub next_attempt: Option<Timestamp>,
    /// When an event was taken last.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub last_success: Option<Timestamp>,
    /// What went wrong last.
    pub last_failure: Option<Failed>,
    /// Why nothing is sent; a redelivery asked for enables it.
    pub disabled: Option<Failed>,
    /// What came of the last test message.
    pub last_test: Option<Tested>,
    /// Events that were not taken in days, the oldest first.
    pub dead_letters: Vec<DeadLetterView>,
    /// Whether there are more than are shown.
    pub dead_letters_more: bool,
}

impl WebhookView {
    fn of(webhook: &Webhook) -> Self {
        Self {
            id: webhook.id.clone(),
            url: webhook.url.clone(),
            events: webhook.events.clone(),
            tenant: webhook.tenant.as_ref().map(ToString::to_string),
            created_at: webhook.created_at,
        }
    }
}

fn stored<T: DeserializeOwned>(kind: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|error| StoreError::Defect { detail: format!("a {kind} does not read: {error}") })
}

fn text(value: &impl Serialize) -> Result<String, Refusal> {
    serde_json::to_string(value).map_err(|error| Refusal::unavailable(&error.to_string()))
}

fn nothing() -> Refusal {
    Refusal::new(Code::WebhookNotFound, "there is no such webhook; GET /v1/webhooks lists them")
}

fn new_key(api: &Api) -> Result<Secret, Refusal> {
    let mut bytes = [0u8; SECRET_BYTES];
    api.entropy.fill(&mut bytes).map_err(|error| Refusal::unavailable(&error))?;
    Ok(Secret { key: format!("{SECRET_PREFIX}{}", STANDARD.encode(bytes)), until: None })
}

async fn find(api: &Api, asked: &Asked<'_>) -> Result<(Webhook, u64), Refusal> {
    let is_id = (1..=64).contains(&asked.variable.len()) && asked.variable.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let found = if is_id { api.documents.document(WEBHOOKS_KIND, asked.variable).await? } else { None };
    let found = found.ok_or_else(nothing)?;
    Ok((stored(WEBHOOKS_KIND, &found.body)?, found.version))
}

fn read_body(asked: &Asked<'_>) -> Result<NewWebhook, Refusal> {
    if asked.body.len() > MAX_SMALL_BODY_BYTES {
        let detail = format!("the body has more than {MAX_SMALL_BODY_BYTES} bytes; a webhook needs a url");
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    let new: NewWebhook = serde_json::from_slice(asked.body)
        .map_err(|error| Refusal::new(Code::InvalidBody, format!("send JSON like {{\"url\": \"https://…\"}}: {error}")))?;
    Endpoint::parse(&new.url).map_err(|why| Refusal::new(Code::InvalidWebhook, why))?;
    let is_event = |event: &String| {
        (1..=MAX_EVENT_CHARS).contains(&event.len()) && event.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    if new.events.len() > MAX_EVENTS || !new.events.iter().all(is_event) {
        let detail = format!("`events` must be at most {MAX_EVENTS} names of events, such as certificate_recorded");
        return Err(Refusal::new(Code::InvalidWebhook, detail));
    }
    Ok(new)
}

pub(crate) async fn create(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let new = read_body(asked)?;
    let tenant = tenant_of(asked.caller, new.tenant.as_deref())?;
    if api.documents.documents(WEBHOOKS_KIND, None, MAX_WEBHOOKS).await?.len() >= MAX_WEBHOOKS {
        let detail = format!("there are {MAX_WEBHOOKS} webhooks already; DELETE /v1/webhooks/{{id}} removes one");
        return Err(Refusal::new(Code::TooManyWebhooks, detail));
    }
    let secret = new_key(api)?;
    let id = new_secret(api.entropy.as_ref()).map_err(|error| Refusal::unavailable(&error))?;
    let webhook =
        Webhook { id: id.clone(), url: new.url, events: new.events, tenant, secrets: vec![secret.clone()], created_at: api.clock.now() };
    // The place first: an endpoint without one is not served, and a place without an endpoint is not looked at.
    api.documents.put_document(PROGRESS_KIND, &id, &text(&Progress::default())?, None).await?;
    api.documents.put_document(WEBHOOKS_KIND, &id, &text(&webhook)?, None).await?;
    let mut response = json(StatusCode::CREATED, &WebhookSecretView { webhook: WebhookView::of(&webhook), secret: secret.key })?;
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/webhooks/{id}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(crate) async fn list(api: &Api) -> Result<Response<Bytes>, Refusal> {
    let found = api.documents.documents(WEBHOOKS_KIND, None, MAX_WEBHOOKS).await?;
    let items = found
        .iter()
        .map(|found| stored::<Webhook>(WEBHOOKS_KIND, &found.body).map(|webhook| WebhookView::of(&webhook)))
        .collect::<Result<_, _>>()?;
    json(StatusCode::OK, &WebhookPage { items })
}

pub(crate) async fn show(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let (webhook, _) = find(api, asked).await?;
    json(StatusCode::OK, &status_of(api, &webhook).await?)
}

async fn status_of(api: &Api, webhook: &Webhook) -> Result<WebhookStatus, Refusal> {
    let progress = api.documents.document(PROGRESS_KIND, &webhook.id).await?.ok_or_else(nothing)?;
    let progress: Progress = stored(PROGRESS_KIND, &progress.body)?;
    let page = api.events.events(webhook.tenant.as_ref(), progress.cursor.as_deref(), COUNTED).await?.ok_or_else(|| {
        Refusal::from(StoreError::Defect { detail: format!("the cursor of webhook {} is none of this feed", webhook.id) })
    })?;
    let letters = api.documents.documents(&dead_letters_kind(&webhook.id), None, SHOWN + 1).await?;
    let dead_letters_more = letters.len() > SHOWN;
    let dead_letters = letters
        .iter()
        .take(SHOWN)
        .map(|found| {
            let letter: DeadLetter = stored("dead letter", &found.body)?;
            Ok(DeadLetterView {
                sequence: letter.sequence,
                message: message_id(&webhook.id, letter.sequence),
                hostname: letter.event.key.hostname.to_string(),
                event: letter.event.event,
                attempts: letter.attempts,
                failure: letter.failure,
            })
        })
        .collect::<Result<_, StoreError>>()?;
    Ok(WebhookStatus {
        webhook: WebhookView::of(webhook),
        sequence: progress.sequence,
        backlog: page.items.iter().skip(progress.passed).filter(|event| webhook.wants(event)).count(),
        backlog_more: page.more,
        attempts: progress.attempts,
        next_attempt: progress.next_attempt,
        last_success: progress.last_success,
        last_failure: progress.last_failure,
        disabled: progress.disabled,
        last_test: progress.last_test,
        dead_letters,
        dead_letters_more,
    })
}

/// How many secrets of one webhook sign at once, at most: each adds a signature to every message.
const MAX_SECRETS: usize = 8;

pub(crate) async fn rotate(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    for _ in 0..RACES {
        let (mut webhook, version) = find(api, asked).await?;
        let (secret, now) = (new_key(api)?, api.clock.now());
        // A receiver may still have any secret whose overlap is not over: who did not get an answer asks again.
        webhook.secrets.retain(|known| known.until.is_none_or(|until| until > now));
        for known in webhook.secrets.iter_mut().filter(|known| known.until.is_none()) {
            known.until = now.checked_add(ROTATION_OVERLAP).ok();
        }
        webhook.secrets.insert(0, secret.clone());
        webhook.secrets.truncate(MAX_SECRETS);
        match api.documents.put_document(WEBHOOKS_KIND, &webhook.id, &text(&webhook)?, Some(version)).await {
            Ok(_) => return json(StatusCode::OK, &WebhookSecretView { webhook: WebhookView::of(&webhook), secret: secret.key }),
            Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}

pub(crate) async fn test(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    wish(api, asked, Wish { test: true, redeliver: false }).await
}

pub(crate) async fn redeliver(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    wish(api, asked, Wish { test: false, redeliver: true }).await
}

/// Leaves word for the deliverer: nothing is sent while somebody waits for an answer.
async fn wish(api: &Api, asked: &Asked<'_>, more: Wish) -> Result<Response<Bytes>, Refusal> {
    let (webhook, _) = find(api, asked).await?;
    for _ in 0..RACES {
        let known = api.documents.document(WISHES_KIND, &webhook.id).await?;
        let before: Wish = known.as_ref().map(|known| stored(WISHES_KIND, &known.body)).transpose()?.unwrap_or_default();
        let wish = Wish { test: before.test || more.test, redeliver: before.redeliver || more.redeliver };
        let expected = known.map(|known| known.version);
        match api.documents.put_document(WISHES_KIND, &webhook.id, &text(&wish)?, expected).await {
            Ok(_) => return json(StatusCode::ACCEPTED, &status_of(api, &webhook).await?),
            Err(CommitError::Conflict) => {}
            Err(CommitError::Store(error)) => return Err(error.into()),
        }
    }
    Err(CommitError::Conflict.into())
}

pub(crate) async fn remove(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let (webhook, version) = find(api, asked).await?;
    // The endpoint first: from then on nothing is sent to it. A repeat after a failure in between is answered with 404, and what is left
    // belongs to an endpoint that will never be again.
    api.documents.delete_document(WEBHOOKS_KIND, &webhook.id, version).await?;
    for kind in [PROGRESS_KIND, WISHES_KIND] {
        if let Some(found) = api.documents.document(kind, &webhook.id).await? {
            swept(api.documents.delete_document(kind, &webhook.id, found.version).await)?;
        }
    }
    let kind = dead_letters_kind(&webhook.id);
    loop {
        let letters = api.documents.documents(&kind, None, SWEPT).await?;
        for letter in &letters {
            swept(api.documents.delete_document(&kind, &letter.id, letter.version).await)?;
        }
        if letters.len() < SWEPT {
            break;
        }
    }
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// What somebody else deleted or wrote meanwhile is no failure.
fn swept(result: Result<(), CommitError>) -> Result<(), StoreError> {
    match result {
        Ok(()) | Err(CommitError::Conflict) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}
