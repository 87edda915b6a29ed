//! Imports: many hostnames in one request, worked off afterwards.
//!
//! Arrives: a list of hostnames, and ticks. Leaves: an import whose progress can be asked for; every line registered exactly as
//! `POST /v1/domains` registers one. Goes wrong: a line is refused, which is kept with its number and what to do; a tenant that registers
//! faster than it may, whose import waits; a crash, after which the lines whose outcome was not kept are taken again, which changes nothing.
//!
//! An import is three documents: its lines, which never change; its progress; and, until it is finished, an entry in the list of open
//! imports, so that a worker finds what is left without looking at what is done. The progress is written before that entry is, and both
//! before the request is answered; who got no answer repeats the request.

mod stopping;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use domains::{
    Caller, Claim, ClaimKey, CommitError, Hostname, Role, State, StoreError, TenantId, Timestamp,
    ledger::{Level, MAX_ITEMS, MemoryLedger, forecast},
};
use futures_util::{StreamExt, stream};
use http::{Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    Api, Code, MAX_BODY_BYTES, Refusal,
    access::tenant_of,
    claims::{Registered, register_one},
    parameters::Parameter,
    routes::{Asked, RACES, json},
};

pub use stopping::{IMPORT_STOPPED, StoppedImport, stop_imports};

/// The most lines of one import: their claims are looked up, one by one, whenever somebody asks how far it is.
pub const MAX_IMPORT_LINES: usize = 500;

/// The most open imports of one tenant, or of the operator: 25,000 names that are still to be taken. Who has more to register sends it when
/// these are done. Requests made at the same moment may go beyond it by a few.
pub const MAX_OPEN_IMPORTS: usize = 50;

/// When whoever has too many open imports may come back.
const COME_BACK: Duration = Duration::from_secs(10);

/// The longest key of an import, in characters.
const MAX_KEY: usize = 100;
/// How many characters of a digest name an import: 130 bits.
const ID_CHARS: usize = 32;
/// How much of a refused line's hostname is shown.
const SHOWN_BYTES: usize = 100;
/// How much of what is said about a refused line is kept: with all lines refused they must fit into one document.
const KEPT_DETAIL_BYTES: usize = 280;
/// How many lines are taken before what came of them is kept; a crash repeats no more.
const CHUNK: usize = 20;
/// How many lines of one import are registered at once, so that others find the store free.
const LINES_AT_ONCE: usize = 4;
/// How many claims are read at once for whoever asks.
const READS_AT_ONCE: usize = 16;
/// How long an import waits after the store could not be asked.
const PAUSE: Duration = Duration::from_secs(2);

/// The kind of the entries that name open imports: `<tenant>/<id>`, so that each tenant's are together.
const OPEN: &str = "import-open";
/// The document that says at whom the last tick ended.
const TURN: &str = "import-turn";

/// Hostnames to register.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewImport {
    /// Names this import: repeating a key repeats nothing. Without one, the same list is the same import.
    #[schemars(length(min = 1, max = MAX_KEY))]
    key: Option<String>,
    /// The hostnames, each as for `POST /v1/domains`.
    #[schemars(length(min = 1, max = MAX_IMPORT_LINES))]
    domains: Vec<Line>,
}

/// One hostname to register.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// The hostname, in A-labels or as its people write it.
    pub hostname: String,
    /// Whose it is. An operator must say; a tenant's API key speaks for its own tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
}

/// A line that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefusedLine {
    /// Its number; the first line is 1.
    pub line: usize,
    /// The hostname, cut where it is long.
    pub hostname: String,
    /// The code, as `POST /v1/domains` refuses with; `import.stopped` for a line that was not taken before the import was stopped.
    pub code: String,
    /// What happened and what to do.
    pub detail: String,
}

/// An import, without what became of its domains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImportSummary {
    /// Its name.
    pub id: String,
    /// The tenant whose API key made it; `null` for an operator's.
    pub tenant: Option<String>,
    /// When it was asked for.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: Timestamp,
    /// When the last line was taken; `null` until then.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub finished_at: Option<Timestamp>,
    /// How many lines it has.
    pub lines: usize,
    /// How many lines were not taken yet.
    pub left: usize,
    /// How many lines registered a hostname.
    pub accepted: usize,
    /// How many lines named what was registered already.
    pub already_there: usize,
    /// How many lines were refused.
    pub refused: usize,
    /// Why it waits, when it does.
    pub waits_for: Option<String>,
}

/// An import, with its refused lines and what became of its domains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImportView {
    /// The import.
    #[serde(flatten)]
    pub import: ImportSummary,
    /// The refused lines.
    pub refusals: Vec<RefusedLine>,
    /// Domains of it that are served, or about to be.
    pub active: usize,
    /// Domains of it that wait: for a DNS record, or for their turn at the CA.
    pub waiting: usize,
    /// Domains of it that were removed since.
    pub removed: usize,
    /// When the last of those that wait would be ordered under the CA's limits if every record stood now; `null` when none waits.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub ordered_by: Option<Timestamp>,
    /// The limit that the last of them would wait for.
    pub bottleneck: Option<String>,
}

/// A page of imports.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ImportPage {
    /// The imports, in the order of their names.
    pub items: Vec<ImportSummary>,
    /// Hand it back for the next page; `null` when this was the last.
    pub cursor: Option<String>,
}

/// How far an import is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Progress {
    caller: Caller,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
    lines: usize,
    next: usize,
    accepted: usize,
    already_there: usize,
    refusals: Vec<RefusedLine>,
    #[serde(default)]
    waits: Option<Waits>,
}

/// Why and until when an import waits.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Waits {
    until: Timestamp,
    why: String,
}

/// Which import an open entry names.
#[derive(Serialize, Deserialize)]
struct Open {
    tenant: Option<TenantId>,
    id: String,
}

/// What one tick did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Worked {
    /// Lines whose outcome was kept.
    pub lines: usize,
    /// Whether lines are left that could be taken at once.
    pub more: bool,
}

impl Progress {
    fn beginning(caller: &Caller, lines: usize, now: Timestamp) -> Self {
        Self {
            caller: caller.clone(),
            created_at: now,
            finished_at: None,
            lines,
            next: 0,
            accepted: 0,
            already_there: 0,
            refusals: Vec::new(),
            waits: None,
        }
    }

    fn summary(&self, id: &str) -> ImportSummary {
        ImportSummary {
            id: id.to_owned(),
            tenant: self.caller.tenant.as_ref().map(ToString::to_string),
            created_at: self.created_at,
            finished_at: self.finished_at,
            lines: self.lines,
            left: self.lines.saturating_sub(self.next),
            accepted: self.accepted,
            already_there: self.already_there,
            refused: self.refusals.len(),
            waits_for: self.waits.as_ref().map(|waits| waits.why.clone()),
        }
    }
}

/// The kinds of documents of one tenant's imports, or of the operator's.
fn progress_kind(tenant: Option<&TenantId>) -> String {
    tenant.map_or_else(|| "import".to_owned(), |tenant| format!("import-of-{tenant}"))
}

fn lines_kind(tenant: Option<&TenantId>) -> String {
    tenant.map_or_else(|| "import-lines".to_owned(), |tenant| format!("import-lines-of-{tenant}"))
}

fn open_id(tenant: Option<&TenantId>, id: &str) -> String {
    format!("{}/{id}", tenant.map_or("", TenantId::as_str))
}

/// Behind the last entry of the tenant whose entry this is, and before the next tenant's: `0` follows `/`, and no tenant's name has either that
/// or what is between them. What was written before tenants came first stands alone.
fn group_end(entry: &str) -> String {
    entry.split_once('/').map_or_else(|| entry.to_owned(), |(tenant, _)| format!("{tenant}0"))
}

fn stored<T: DeserializeOwned>(what: &str, body: &str) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|error| StoreError::Defect { detail: format!("{what} does not read: {error}") })
}

fn text(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Defect { detail: format!("an import does not serialise: {error}") })
}

/// The beginning of a text, at most so many bytes, without what would spoil a terminal.
fn cut(text: &str, most: usize) -> String {
    let mut kept = String::new();
    for character in text.chars().filter(|character| !character.is_control()) {
        if kept.len() + character.len_utf8() + '…'.len_utf8() > most {
            kept.push('…');
            break;
        }
        kept.push(character);
    }
    kept
}

fn read_body(body: &Bytes) -> Result<NewImport, Refusal> {
    if body.len() > MAX_BODY_BYTES {
        let detail = format!("the body has more than {MAX_BODY_BYTES} bytes; send the list in several requests");
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    let example = "send JSON like {\"domains\": [{\"hostname\": \"…\", \"tenant\": \"…\"}]}";
    let new: NewImport = serde_json::from_slice(body).map_err(|error| Refusal::new(Code::InvalidBody, format!("{example}: {error}")))?;
    if new.domains.is_empty() || new.domains.len() > MAX_IMPORT_LINES {
        let detail = format!("`domains` must have 1 to {MAX_IMPORT_LINES} entries; send a longer list in several requests");
        return Err(Refusal::new(Code::InvalidImport, detail));
    }
    if new.key.as_ref().is_some_and(|key| key.is_empty() || key.chars().count() > MAX_KEY) {
        return Err(Refusal::new(Code::InvalidImport, format!("`key` must have 1 to {MAX_KEY} characters")));
    }
    Ok(new)
}

/// The import's name follows from its key or its lines, so that who repeats a request after a lost answer finds the same import.
fn id_of(new: &NewImport) -> Result<String, StoreError> {
    let named = match &new.key {
        Some(key) => format!("key\n{key}"),
        None => format!("lines\n{}", text(&new.domains)?),
    };
    let digest: String = Sha256::digest(named).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digest[..ID_CHARS].to_owned())
}

pub(crate) async fn create(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let new = read_body(asked.body)?;
    let tenant = asked.caller.tenant.as_ref();
    let id = id_of(&new)?;
    let lines = text(&new.domains)?;
    refuse_one_too_many(api, tenant, &id).await?;
    match api.documents.document(&lines_kind(tenant), &id).await? {
        Some(known) if known.body == lines => {}
        Some(_) => {
            let detail = "this key belongs to an import of another list; send the same list, or another key";
            return Err(Refusal::new(Code::ImportKeyUsed, detail));
        }
        None => match api.documents.put_document(&lines_kind(tenant), &id, &lines, None).await {
            Ok(_) => {}
            // Two requests at once, most likely the same one sent twice.
            Err(CommitError::Conflict) => return Err(CommitError::Conflict.into()),
            Err(CommitError::Store(error)) => return Err(error.into()),
        },
    }
    for _ in 0..RACES {
        let known = api.documents.document(&progress_kind(tenant), &id).await?;
        let before: Option<Progress> = known.as_ref().map(|known| stored("an import", &known.body)).transpose()?;
        let progress = match before {
            Some(before) if before.finished_at.is_none() || before.refusals.is_empty() => before,
            // Finished, with refusals: whatever was mended since may be accepted now.
            _ => {
                let fresh = Progress::beginning(asked.caller, new.domains.len(), api.clock.now());
                let expected = known.map(|known| known.version);
                match api.documents.put_document(&progress_kind(tenant), &id, &text(&fresh)?, expected).await {
                    Ok(_) => fresh,
                    Err(CommitError::Conflict) => continue,
                    Err(CommitError::Store(error)) => return Err(error.into()),
                }
            }
        };
        if progress.finished_at.is_none() {
            let (entry, open) = (open_id(tenant, &id), text(&Open { tenant: tenant.cloned(), id: id.clone() })?);
            // An entry that is there is written anew: a worker about to close what was finished before leaves it.
            let there = api.documents.document(OPEN, &entry).await?.map(|there| there.version);
            match api.documents.put_document(OPEN, &entry, &open, there).await {
                Ok(_) => {}
                Err(CommitError::Conflict) => continue,
                Err(CommitError::Store(error)) => return Err(error.into()),
            }
        }
        return json(StatusCode::ACCEPTED, &progress.summary(&id));
    }
    Err(CommitError::Conflict.into())
}

/// Refuses to open one more import than a tenant may have open; one that is open already may be asked for again.
async fn refuse_one_too_many(api: &Api, tenant: Option<&TenantId>, id: &str) -> Result<(), Refusal> {
    let own = open_id(tenant, "");
    let open = api.documents.documents(OPEN, Some(&own), MAX_OPEN_IMPORTS).await?;
    if open.len() < MAX_OPEN_IMPORTS
        || !open.iter().all(|entry| entry.id.starts_with(&own))
        || open.iter().any(|entry| entry.id.ends_with(id))
    {
        return Ok(());
    }
    let known = api.documents.document(&progress_kind(tenant), id).await?;
    let known: Option<Progress> = known.map(|known| stored("an import", &known.body)).transpose()?;
    if known.is_some_and(|known| known.finished_at.is_some() && known.refusals.is_empty()) {
        return Ok(());
    }
    let detail =
        format!("{MAX_OPEN_IMPORTS} imports are open already; GET /v1/imports shows how far they are, come back when one is finished");
    Err(Refusal::slow_down(Code::TooManyImports, detail, COME_BACK))
}

pub(crate) async fn list(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let tenant = tenant_of(asked.caller, asked.query.text(Parameter::Tenant).as_deref())?;
    let limit = asked.query.limit()?;
    let after = asked.query.text(Parameter::Cursor).filter(|cursor| is_id(cursor));
    let found = api.documents.documents(&progress_kind(tenant.as_ref()), after.as_deref(), limit).await?;
    let cursor = (found.len() == limit).then(|| found.last().map(|last| last.id.clone())).flatten();
    let items = found
        .iter()
        .map(|known| stored::<Progress>("an import", &known.body).map(|progress| progress.summary(&known.id)))
        .collect::<Result<_, _>>()?;
    json(StatusCode::OK, &ImportPage { items, cursor })
}

pub(crate) async fn show(api: &Api, asked: &Asked<'_>) -> Result<Response<Bytes>, Refusal> {
    let tenant = tenant_of(asked.caller, asked.query.text(Parameter::Tenant).as_deref())?;
    let id = asked.variable;
    let nothing = || Refusal::new(Code::ImportNotFound, "there is no such import; GET /v1/imports lists them");
    if !is_id(id) {
        return Err(nothing());
    }
    let known = api.documents.document(&progress_kind(tenant.as_ref()), id).await?.ok_or_else(nothing)?;
    let mut progress: Progress = stored("an import", &known.body)?;
    let lines = lines_of(api, tenant.as_ref(), id).await?.ok_or_else(nothing)?;
    for refusal in &mut progress.refusals {
        let line = refusal.line.checked_sub(1).and_then(|index| lines.get(index));
        refusal.hostname = line.map(|line| cut(&line.hostname, SHOWN_BYTES)).unwrap_or_default();
    }
    let claims = claims_of(api, &progress, &lines).await?;
    let waiting: Vec<_> = claims.iter().filter(|claim| is_waiting(claim)).map(|claim| (&claim.key.hostname, &claim.key.tenant)).collect();
    let told = told(api, &waiting).await?;
    let count = |is: fn(&Claim) -> bool| claims.iter().filter(|claim| is(claim)).count();
    json(
        StatusCode::OK,
        &ImportView {
            active: count(|claim| matches!(claim.state, State::Active { .. })),
            waiting: waiting.len(),
            removed: count(|claim| matches!(claim.state, State::Removing { .. } | State::Removed { .. })),
            ordered_by: told.as_ref().map(|(done_at, _)| *done_at),
            bottleneck: told.and_then(|(_, bottleneck)| bottleneck),
            import: progress.summary(id),
            refusals: progress.refusals,
        },
    )
}

/// Whether a text can be the name of an import at all; a home need not be asked about others.
fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_waiting(claim: &Claim) -> bool {
    !matches!(claim.state, State::Active { .. } | State::Removing { .. } | State::Removed { .. })
}

async fn lines_of(api: &Api, tenant: Option<&TenantId>, id: &str) -> Result<Option<Vec<Line>>, StoreError> {
    let found = api.documents.document(&lines_kind(tenant), id).await?;
    found.map(|found| stored("the lines of an import", &found.body)).transpose()
}

/// The key that a line would be registered under; `None` for a line that is refused.
fn key_of(api: &Api, caller: &Caller, line: &Line) -> Option<ClaimKey> {
    let tenant = tenant_of(caller, line.tenant.as_deref()).ok()??;
    let hostname = match caller.role {
        Role::Operator => Hostname::parse_for_operator(&line.hostname, &api.policy),
        Role::Tenant => Hostname::parse(&line.hostname, &api.policy),
    };
    Some(ClaimKey { hostname: hostname.ok()?, tenant })
}

/// The claims of the lines taken so far, each once.
async fn claims_of(api: &Api, progress: &Progress, lines: &[Line]) -> Result<Vec<Claim>, StoreError> {
    let keys: BTreeMap<String, ClaimKey> =
        lines.iter().take(progress.next).filter_map(|line| key_of(api, &progress.caller, line)).map(|key| (key.to_string(), key)).collect();
    let reading: Vec<_> = keys.values().map(|key| api.table.claim(key)).collect();
    let found: Vec<Result<Option<Claim>, StoreError>> = stream::iter(reading).buffered(READS_AT_ONCE).collect().await;
    Ok(found.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// When the last of these names would be ordered, and what holds it up; from the first CA's limits as they stand.
async fn told(api: &Api, names: &[(&Hostname, &TenantId)]) -> Result<Option<(Timestamp, Option<String>)>, StoreError> {
    let (Some(ca), false) = (api.ca_limits.first(), names.is_empty()) else { return Ok(None) };
    let now = api.clock.now();
    let mut shown: BTreeMap<_, _> = ca.shown(None).into_iter().collect();
    shown.extend(names.iter().flat_map(|(hostname, _)| ca.shown(Some(hostname))));
    let buckets: Vec<String> = shown.keys().cloned().collect();
    let mut items = Vec::new();
    for part in buckets.chunks(MAX_ITEMS) {
        for (bucket, item) in part.iter().zip(api.limits.ledger_items(part).await?) {
            if let Some(shape) = shown.get(bucket) {
                items.push((bucket.clone(), Level::of(bucket, item.as_deref(), *shape, now)?.as_item(now)));
            }
        }
    }
    let names: Vec<_> = names.iter().map(|(hostname, tenant)| ((*hostname).clone(), (*tenant).clone())).collect();
    let told = forecast(ca, MemoryLedger::standing_at(items), &names, now)?;
    Ok(Some((told.done_at, told.bottleneck)))
}

/// What came of one line.
enum Outcome {
    Accepted,
    AlreadyThere,
    Refused(Refusal),
    /// Not now: nothing is kept of it, and the import waits.
    Later(Refusal),
}

impl Api {
    /// Works on the open imports until nothing can be done now or the time is over: a chunk of each tenant's in turn, however many it has open.
    /// A tick begins after the tenant at whom the one before ended, so that none waits for those who always come first.
    ///
    /// # Errors
    /// [`StoreError`] when the home cannot be asked; what was done so far is kept, or is done again without effect.
    pub async fn work_imports(&self, budget: Duration) -> Result<Worked, StoreError> {
        let until = Instant::now() + budget;
        let turn = self.documents.document(TURN, TURN).await?;
        let mut last = turn.as_ref().map_or_else(String::new, |turn| turn.body.clone());
        let worked = self.take_turns(until, &mut last).await?;
        if turn.as_ref().is_none_or(|turn| turn.body != last) {
            match self.documents.put_document(TURN, TURN, &last, turn.map(|turn| turn.version)).await {
                // Another worker's turn is as good.
                Ok(_) | Err(CommitError::Conflict) => {}
                Err(CommitError::Store(error)) => return Err(error),
            }
        }
        Ok(worked)
    }

    async fn take_turns(&self, until: Instant, last: &mut String) -> Result<Worked, StoreError> {
        let (mut worked, mut is_begun) = (Worked::default(), false);
        // In this tick: what could not go on, and each tenant's import that had its turn last.
        let (mut resting, mut latest) = (BTreeSet::new(), BTreeMap::<String, String>::new());
        loop {
            let (before, begin) = (worked.lines, last.clone());
            let (mut after, mut is_wrapped) = (begin.clone(), begin.is_empty());
            loop {
                let named = Some(after.as_str()).filter(|after| !after.is_empty());
                let open = self.documents.documents(OPEN, named, MAX_OPEN_IMPORTS).await?;
                let group = match open.first().map(|first| group_end(&first.id)) {
                    None if is_wrapped => break,
                    None => {
                        (after, is_wrapped) = (String::new(), true);
                        continue;
                    }
                    Some(group) if is_wrapped && !begin.is_empty() && group > begin => break,
                    Some(group) => group,
                };
                let mut own: Vec<_> =
                    open.iter().take_while(|entry| group_end(&entry.id) == group).filter(|entry| !resting.contains(&entry.id)).collect();
                let had_turn = own.iter().take_while(|entry| latest.get(&group).is_some_and(|latest| entry.id <= *latest)).count();
                let from = had_turn % own.len().max(1);
                own.rotate_left(from);
                for entry in own {
                    // Every tick gets a little further, however late it is.
                    if is_begun && Instant::now() >= until {
                        return Ok(Worked { more: true, ..worked });
                    }
                    is_begun = true;
                    let lines = self.work_one(&entry.id, &stored("an open import", &entry.body)?, entry.version).await?;
                    worked.lines += lines;
                    if lines > 0 {
                        latest.insert(group.clone(), entry.id.clone());
                        break;
                    }
                    resting.insert(entry.id.clone());
                }
                last.clone_from(&group);
                after = group;
            }
            if worked.lines == before {
                return Ok(worked);
            }
        }
    }

    /// Takes one chunk of an import and keeps what came of it; says how many lines that were.
    async fn work_one(&self, entry: &str, open: &Open, version: u64) -> Result<usize, StoreError> {
        let tenant = open.tenant.as_ref();
        let kind = progress_kind(tenant);
        let nowhere = || StoreError::Defect { detail: format!("the open import {} is nowhere", open.id) };
        let known = self.documents.document(&kind, &open.id).await?.ok_or_else(nowhere)?;
        let mut progress: Progress = stored("an import", &known.body)?;
        if progress.finished_at.is_some() {
            // It was kept that all is done, and a crash came before this entry went.
            self.close(entry, version).await?;
            return Ok(0);
        }
        let now = self.clock.now();
        if progress.waits.as_ref().is_some_and(|waits| waits.until > now) {
            return Ok(0);
        }
        // Not before: of the many that wait, each would be read at every tick.
        let lines = lines_of(self, tenant, &open.id).await?.ok_or_else(nowhere)?;
        let taken = self.take_chunk(&mut progress, &lines).await;
        if progress.next >= lines.len() {
            progress.finished_at = Some(self.clock.now());
        }
        match self.documents.put_document(&kind, &open.id, &text(&progress)?, Some(known.version)).await {
            Ok(_) => {}
            // Another worker has these lines, too; what it kept is as good.
            Err(CommitError::Conflict) => return Ok(0),
            Err(CommitError::Store(error)) => return Err(error),
        }
        if progress.finished_at.is_some() {
            tracing::info!(import = open.id, lines = progress.lines, refused = progress.refusals.len(), "an import is finished");
            self.close(entry, version).await?;
        }
        Ok(taken)
    }

    async fn take_chunk(&self, progress: &mut Progress, lines: &[Line]) -> usize {
        let first = progress.next.min(lines.len());
        let chunk = &lines[first..lines.len().min(first + CHUNK)];
        let seen: BTreeSet<&Line> = lines[..first].iter().collect();
        progress.waits = None;
        let (caller, since) = (progress.caller.clone(), progress.created_at);
        let registering: Vec<_> = chunk.iter().map(|line| self.take_line(&caller, since, line)).collect();
        let outcomes: Vec<Outcome> = stream::iter(registering).buffered(LINES_AT_ONCE).collect().await;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let line = &chunk[index];
            match outcome {
                Outcome::Accepted if seen.contains(line) || chunk[..index].contains(line) => progress.already_there += 1,
                Outcome::Accepted => progress.accepted += 1,
                Outcome::AlreadyThere => progress.already_there += 1,
                Outcome::Refused(refusal) => progress.refusals.push(RefusedLine {
                    line: first + index + 1,
                    // Shown from the line itself.
                    hostname: String::new(),
                    code: refusal.code.as_str().to_owned(),
                    detail: cut(&refusal.detail, KEPT_DETAIL_BYTES),
                }),
                Outcome::Later(refusal) => {
                    let until = self.clock.now().checked_add(refusal.retry_after.unwrap_or(PAUSE)).unwrap_or(Timestamp::MAX);
                    progress.waits = Some(Waits { until, why: cut(&refusal.detail, KEPT_DETAIL_BYTES) });
                    return index;
                }
            }
            progress.next = first + index + 1;
        }
        chunk.len()
    }

    async fn take_line(&self, caller: &Caller, since: Timestamp, line: &Line) -> Outcome {
        match register_one(self, caller, &line.hostname, line.tenant.as_deref()).await {
            Ok(Registered::New(_)) => Outcome::Accepted,
            // Made by this import before a crash, whose outcome was not kept.
            Ok(Registered::Known(claim)) if claim.created_at >= since => Outcome::Accepted,
            Ok(Registered::Known(_)) => Outcome::AlreadyThere,
            Err(refusal) if matches!(refusal.code, Code::Unavailable | Code::TooManyClaims) => Outcome::Later(refusal),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    async fn close(&self, entry: &str, version: u64) -> Result<(), StoreError> {
        match self.documents.delete_document(OPEN, entry, version).await {
            // Someone else closed it.
            Ok(()) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}
