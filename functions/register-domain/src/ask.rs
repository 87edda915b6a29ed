//! `ask` for Caddy: whether a name is owned here.
//!
//! Arrives: a name at a secret path, as Caddy sends it before it gets a certificate. Leaves: 200 or 404. Goes wrong: a store that cannot be
//! asked, for a name whose last answer is not known: 503, which Caddy takes as a no. A name that is none is a no, never an error.
//!
//! Handshakes come faster than a store should be asked, and strangers choose the names: answers are kept for [`FRESH`], at most
//! [`MAX_ANSWERS`] of them, and who asks for a name that is being asked about waits for that answer.
//!
//! Source: Caddy's `ask` contract, caddyserver/caddy modules/caddytls/ondemand.go (read 2026-11): GET with `?domain=`, any 2xx allows,
//! redirects are refused, ten seconds, nothing is cached there.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use domains::{Claim, ClaimKey, CommitError, Documents, DomainTable, Hostname, State, StoreError, Timestamp};
use http::{Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::{
    Api, Code, Pace, Refusal, document,
    entropy::new_secret,
    parameters::Parameter,
    routes::{Asked, RACES, json},
};

/// How long an answer, and the secret, may be repeated without asking the store.
const FRESH: Duration = Duration::from_secs(5);

/// How long an older answer is good enough while the store cannot be asked.
const GOOD_ENOUGH: Duration = Duration::from_secs(3600);

/// How many answers are kept: about a megabyte.
const MAX_ANSWERS: usize = 10_000;

/// Where the secret is kept.
const SECRET: (&str, &str) = ("secret", "ask");

/// The secret path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AskView {
    /// The path to give to Caddy, below the API's address; Caddy adds `?domain=`.
    pub path: String,
    /// Its secret part.
    pub secret: String,
    /// When it was made.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub made_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct StoredSecret {
    secret: String,
    made_at: Timestamp,
}

impl StoredSecret {
    fn view(self) -> AskView {
        AskView { path: format!("/ask/{}", self.secret), secret: self.secret, made_at: self.made_at }
    }
}

/// What one process remembers between requests; all of it can be forgotten.
#[derive(Default)]
pub struct Memory {
    document: OnceLock<Bytes>,
    answers: Mutex<HashMap<Hostname, Arc<Answer>>>,
    secret: Mutex<Option<KnownSecret>>,
}

#[derive(Clone, Copy)]
struct KnownSecret {
    read_at: Timestamp,
    sha256: Option<[u8; 32]>,
}

/// An answer, given or on its way.
struct Answer {
    asked_at: Timestamp,
    /// The answer before, and when it was given.
    before: Option<(bool, Timestamp)>,
    owned: OnceCell<bool>,
}

impl Memory {
    /// The API's document, made once.
    pub(crate) fn document(&self, pace: &Pace) -> Bytes {
        self.document.get_or_init(|| Bytes::from(document::document(pace).to_string())).clone()
    }

    /// The answer about a name that is fresh at this time, or one to be found out.
    fn answer(&self, hostname: &Hostname, now: Timestamp) -> Arc<Answer> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = answers.get(hostname);
        if let Some(known) = known.filter(|known| is_within(FRESH, known.asked_at, now)) {
            return Arc::clone(known);
        }
        let before = known.and_then(|known| known.owned.get().map(|owned| (*owned, known.asked_at)).or(known.before));
        if answers.len() >= MAX_ANSWERS && known.is_none() {
            answers.retain(|_, answer| is_within(FRESH, answer.asked_at, now));
            // A flood of fresh names: all are forgotten, which costs those who ask again one question each.
            if answers.len() >= MAX_ANSWERS {
                answers.clear();
            }
        }
        let answer = Arc::new(Answer { asked_at: now, before, owned: OnceCell::new() });
        answers.insert(hostname.clone(), Arc::clone(&answer));
        answer
    }

    fn known_secret(&self, now: Timestamp) -> Option<KnownSecret> {
        let known = *self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|known| is_within(FRESH, known.read_at, now))
    }

    fn learn_secret(&self, secret: Option<&str>, now: Timestamp) -> KnownSecret {
        let known = KnownSecret { read_at: now, sha256: secret.map(|secret| Sha256::digest(secret).into()) };
        *self.secret.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        known
    }
}

fn is_within(span: Duration, at: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(at)).is_ok_and(|age| age < span)
}

pub(crate) async fn ask(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let no = || Refusal::new(Code::AskNo, "no");
    if !is_secret(api, asked.variable).await? {
        return Err(no());
    }
    let name = asked.query.text(Parameter::AskDomain).ok_or_else(no)?;
    let hostname = Hostname::parse_name(&name).map_err(|_| no())?;
    match is_owned(api, &hostname).await? {
        true => Ok(Response::new(Bytes::new())),
        false => Err(no()),
    }
}

/// Whether this is the secret, told in the same time wherever they differ.
async fn is_secret(api: &Api, given: &str) -> Result<bool, StoreError> {
    let now = api.clock.now();
    let known = match api.memory.known_secret(now) {
        Some(known) => known,
        None => {
            let stored = load(api.documents.as_ref()).await?;
            api.memory.learn_secret(stored.as_ref().map(|(stored, _)| stored.secret.as_str()), now)
        }
    };
    let given: [u8; 32] = Sha256::digest(given).into();
    // Digests, so that neither length nor position of a difference can be measured; every byte is compared.
    Ok(known.sha256.is_some_and(|secret| secret.iter().zip(given).fold(0, |differing, (ours, theirs)| differing | (ours ^ theirs)) == 0))
}

async fn is_owned(api: &Api, hostname: &Hostname) -> Result<bool, StoreError> {
    let now = api.clock.now();
    let answer = api.memory.answer(hostname, now);
    match answer.owned.get_or_try_init(|| look_up(api.table.as_ref(), hostname)).await {
        Ok(owned) => Ok(*owned),
        Err(error) => match answer.before.filter(|(_, given_at)| is_within(GOOD_ENOUGH, *given_at, now)) {
            Some((owned, _)) => {
                tracing::warn!(%hostname, %error, "an older answer to `ask` is repeated");
                Ok(owned)
            }
            None => Err(error),
        },
    }
}

async fn look_up(table: &dyn DomainTable, hostname: &Hostname) -> Result<bool, StoreError> {
    for name in [Some(hostname.clone()), hostname.covering_wildcard()].into_iter().flatten() {
        let Some(tenant) = table.owner(&name).await?.and_then(|owner| owner.tenant) else { continue };
        let claim = table.claim(&ClaimKey { hostname: name, tenant }).await?;
        let is_in_service =
            |claim: Claim| claim.suspension.is_none() && !matches!(claim.state, State::Removing { .. } | State::Removed { .. });
        if claim.is_some_and(is_in_service) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn load(documents: &dyn Documents) -> Result<Option<(StoredSecret, u64)>, StoreError> {
    let Some(document) = documents.document(SECRET.0, SECRET.1).await? else { return Ok(None) };
    let stored = serde_json::from_str(&document.body)
        .map_err(|error| StoreError::Defect { detail: format!("the secret of `ask` does not read: {:?}", error.classify()) })?;
    Ok(Some((stored, document.version)))
}

/// When the secret was made; `None` where there is none.
///
/// # Errors
/// [`StoreError`] when the home cannot be asked.
pub async fn ask_made_at(documents: &dyn Documents) -> Result<Option<Timestamp>, StoreError> {
    Ok(load(documents).await?.map(|(stored, _)| stored.made_at))
}

/// Forgets the secret, for a store that nobody works on: another is made when it is next asked for, and the old path is nothing any more.
///
/// # Errors
/// [`StoreError`] when the home cannot be asked.
pub async fn forget_ask_secret(documents: &dyn Documents) -> Result<(), StoreError> {
    let Some((_, version)) = load(documents).await? else { return Ok(()) };
    match documents.delete_document(SECRET.0, SECRET.1, version).await {
        // Somebody made a new one meanwhile.
        Ok(()) | Err(CommitError::Conflict) => Ok(()),
        Err(CommitError::Store(error)) => Err(error),
    }
}

/// Makes the secret at the first start; later it is what it is.
pub(crate) async fn prepare(api: &Api) -> Result<AskView, Refusal> {
    for _ in 0..RACES {
        match load(api.documents.as_ref()).await? {
            Some((stored, _)) => return Ok(stored.view()),
            None => {
                if let Some(view) = store(api, None).await? {
                    return Ok(view);
                }
            }
        }
    }
    Err(CommitError::Conflict.into())
}

/// Stores a new secret; `None` when someone else did meanwhile.
async fn store(api: &Api, expected: Option<u64>) -> Result<Option<AskView>, Refusal> {
    let secret = new_secret(api.entropy.as_ref()).map_err(|error| Refusal::unavailable(&error))?;
    let stored = StoredSecret { secret, made_at: api.clock.now() };
    let body = serde_json::to_string(&stored).map_err(|error| Refusal::unavailable(&error.to_string()))?;
    match api.documents.put_document(SECRET.0, SECRET.1, &body, expected).await {
        Ok(_) => {
            api.memory.learn_secret(Some(&stored.secret), api.clock.now());
            Ok(Some(stored.view()))
        }
        Err(CommitError::Conflict) => Ok(None),
        Err(CommitError::Store(error)) => Err(error.into()),
    }
}

pub(crate) async fn show(api: &Api) -> Result<Response<Bytes>, Refusal> {
    json(StatusCode::OK, &prepare(api).await?)
}

pub(crate) async fn rotate(api: &Api) -> Result<Response<Bytes>, Refusal> {
    for _ in 0..RACES {
        let version = load(api.documents.as_ref()).await?.map(|(_, version)| version);
        if let Some(view) = store(api, version).await? {
            return json(StatusCode::OK, &view);
        }
    }
    Err(CommitError::Conflict.into())
}
