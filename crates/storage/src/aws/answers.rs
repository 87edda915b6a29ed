//! The answer zone as a hosted zone of Route 53.
//!
//! Arrives: a name and a TXT value. Leaves: the value beside the others at that name, or without it. Goes wrong: a change that others were
//! first with is decided anew; what Route 53 has no time for is tried again with growing pauses; a change that its servers do not show in
//! time is unavailable, and whoever asks again goes on waiting for the same change.
//!
//! Route 53 has no conditional write, but a batch is applied whole or not at all, and a `DELETE` must name the record set exactly as it is:
//! `DELETE` of what was read with `CREATE` of what is to be says the same, and no value that another order put there meanwhile is lost.
//!
//! The role needs `route53:ListResourceRecordSets` and `route53:ChangeResourceRecordSets` on the hosted zone and `route53:GetChange`; the
//! policy may narrow the change to TXT (`route53:ChangeResourceRecordSetsRecordTypes`).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use aws_config::{retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_route53::{
    Client,
    error::BuildError,
    types::{Change, ChangeAction, ChangeBatch, ChangeStatus, ResourceRecord, ResourceRecordSet, RrType},
};
use domains::{AnswerZone, StoreError};

use super::{Access, clients, failure};

/// How long resolvers may keep an answer, in seconds: a CA asks the servers themselves, and the next order has another value.
const TTL: i64 = 10;
/// The most values at one name: one for each challenge under way, which are two for a name and its wildcard at each CA. What is older makes
/// room: it is left over from challenges that nobody finished.
const MOST_VALUES: usize = 32;
/// The longest value; an answer has 43 characters.
///
/// Source: one string of a TXT record, RFC 1035, section 3.3.
const MOST_VALUE_BYTES: usize = 255;
/// How often a change that others were first with is decided anew.
const RACES: usize = 12;
/// How often a call is attempted. Route 53 takes five requests a second of one account, and one change of a zone at a time.
///
/// Source: Route 53 quotas, docs.aws.amazon.com/Route53 (read 2026-11).
const ATTEMPTS: u32 = 8;
/// The pause before the second attempt; it doubles, with jitter, up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(300);
/// The longest pause between two attempts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// How long a call may take with all its attempts.
const CALL: Duration = Duration::from_secs(30);
/// How often a change is asked after.
const PACE: Duration = Duration::from_secs(2);
/// How long a change may take until every server shows it; changes generally do within 60 s.
///
/// Source: `GetChange`, docs.aws.amazon.com/Route53 (read 2026-11).
const PATIENCE: Duration = Duration::from_secs(60);
/// The most changes remembered that were not seen everywhere yet.
const MOST_CHANGES: usize = 1_024;

/// A hosted zone that holds the answers of dns-01 challenges.
#[derive(Debug)]
pub struct Route53Zone {
    client: Client,
    hosted_zone: String,
    pace: Duration,
    patience: Duration,
    /// The change that put a value there, until it was seen everywhere: who asks again waits for it and makes none.
    changes: Mutex<HashMap<(String, String), String>>,
}

impl Route53Zone {
    /// Prepares to ask; `hosted_zone` is the zone's id.
    pub async fn open(access: &Access, hosted_zone: impl Into<String>) -> Self {
        let sdk = clients::sdk_config(access).await;
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_BACKOFF);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(clients::CONNECT)
            .operation_attempt_timeout(clients::ATTEMPT)
            .operation_timeout(CALL)
            .build();
        let config = aws_sdk_route53::config::Builder::from(&sdk)
            .retry_config(retries.with_max_backoff(LONGEST_BACKOFF))
            .timeout_config(timeouts)
            .build();
        Self {
            client: Client::from_conf(config),
            hosted_zone: hosted_zone.into(),
            pace: PACE,
            patience: PATIENCE,
            changes: Mutex::default(),
        }
    }

    /// The same, asking after a change that often and that long.
    pub fn paced(self, pace: Duration, patience: Duration) -> Self {
        Self { pace, patience, ..self }
    }

    /// The values at a name, as Route 53 holds them, seen everywhere or not.
    ///
    /// # Errors
    /// [`StoreError`] when the zone cannot be asked.
    pub async fn values(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let held = self.record_set(&name.to_ascii_lowercase()).await?;
        Ok(texts(held.as_ref()).iter().map(|text| unquoted(text)).collect())
    }

    /// The TXT record set at a name; `None` when there is none.
    async fn record_set(&self, name: &str) -> Result<Option<ResourceRecordSet>, StoreError> {
        let ask = self.client.list_resource_record_sets().hosted_zone_id(&self.hosted_zone);
        let ask = ask.start_record_name(name).start_record_type(RrType::Txt).max_items(1);
        let listed = ask.send().await.map_err(|error| failure::classify(&format!("reading the answers at {name}"), &error))?;
        // The list begins with the name or, where it has nothing, behind it.
        let is_it = |set: &ResourceRecordSet| set.r#type == RrType::Txt && set.name.trim_end_matches('.').eq_ignore_ascii_case(name);
        Ok(listed.resource_record_sets.into_iter().find(is_it))
    }

    /// Makes the values at a name what `edit` says, unless it says `None`; gives the change's id.
    async fn edit(&self, name: &str, edit: impl Fn(&[String]) -> Option<Vec<String>> + Send) -> Result<Option<String>, StoreError> {
        let mut held = self.record_set(name).await?;
        for _ in 0..RACES {
            let Some(wanted) = edit(&texts(held.as_ref())) else { return Ok(None) };
            let ask = self.client.change_resource_record_sets().hosted_zone_id(&self.hosted_zone);
            let error = match ask.change_batch(batch(name, held.as_ref(), wanted)?).send().await {
                Ok(changed) => return Ok(changed.change_info.map(|change| change.id)),
                Err(error) => error,
            };
            let verdict = failure::classify(&format!("changing the answers at {name}"), &error);
            if failure::code(&error) != Some("InvalidChangeBatch") {
                return Err(verdict);
            }
            let now = self.record_set(name).await?;
            // Nobody was first: the batch itself is what Route 53 does not take, such as a name outside of the zone.
            if now == held {
                return Err(verdict);
            }
            held = now;
        }
        Err(StoreError::Unavailable { detail: format!("the answers at {name} changed under {RACES} attempts to change them") })
    }

    /// Waits until every server of the zone shows a change.
    async fn until_everywhere(&self, name: &str, change: &str) -> Result<(), StoreError> {
        let began = Instant::now();
        loop {
            let asked = self.client.get_change().id(change).send().await;
            let asked = asked.map_err(|error| failure::classify(&format!("asking after the answers at {name}"), &error))?;
            if asked.change_info.is_some_and(|change| change.status == ChangeStatus::Insync) {
                return Ok(());
            }
            if began.elapsed() + self.pace > self.patience {
                let waited = self.patience;
                return Err(StoreError::Unavailable { detail: format!("not every server shows the answers at {name} after {waited:?}") });
            }
            tokio::time::sleep(self.pace).await;
        }
    }

    fn remembered(&self, of: &(String, String)) -> Option<String> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).get(of).cloned()
    }

    fn remember(&self, of: &(String, String), change: String) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        // Forgetting costs a change that changes nothing.
        if changes.len() >= MOST_CHANGES {
            changes.clear();
        }
        changes.insert(of.clone(), change);
    }

    fn forget(&self, of: &(String, String)) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).remove(of);
    }
}

#[async_trait]
impl AnswerZone for Route53Zone {
    async fn present(&self, name: &str, value: &str) -> Result<(), StoreError> {
        if value.is_empty() || value.len() > MOST_VALUE_BYTES {
            let length = value.len();
            return Err(StoreError::Defect { detail: format!("an answer of {length} bytes for {name}; 1 to {MOST_VALUE_BYTES} fit") });
        }
        let (name, text) = (name.to_ascii_lowercase(), quoted(value));
        let of = (name.clone(), value.to_owned());
        let change = match self.remembered(&of) {
            Some(change) => change,
            // A value that is there already, put by a process that ended, is put again: only a change can be asked after.
            None => {
                let with_it = |held: &[String]| {
                    let others = held.iter().filter(|other| **other != text);
                    let most = others.clone().count().saturating_sub(MOST_VALUES - 1);
                    Some(others.skip(most).chain([&text]).cloned().collect())
                };
                let change = self.edit(&name, with_it).await?;
                change.ok_or_else(|| StoreError::Defect { detail: format!("changing the answers at {name}: a change without an id") })?
            }
        };
        self.remember(&of, change.clone());
        let everywhere = self.until_everywhere(&name, &change).await;
        // Seen everywhere, or not to be asked after: either way the next one makes a change of its own.
        if !matches!(everywhere, Err(StoreError::Unavailable { .. })) {
            self.forget(&of);
        }
        everywhere
    }

    async fn withdraw(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let (name, text) = (name.to_ascii_lowercase(), quoted(value));
        self.forget(&(name.clone(), value.to_owned()));
        let without_it =
            |held: &[String]| held.contains(&text).then(|| held.iter().filter(|other| **other != text).cloned().collect::<Vec<_>>());
        self.edit(&name, without_it).await.map(|_| ())
    }
}

/// The change from what is held to what is wanted.
fn batch(name: &str, held: Option<&ResourceRecordSet>, wanted: Vec<String>) -> Result<ChangeBatch, StoreError> {
    let unbuildable = |error: BuildError| StoreError::Defect { detail: format!("a change of the answers at {name}: {error}") };
    let change = |action, set| Change::builder().action(action).resource_record_set(set).build();
    let mut changes = Vec::with_capacity(2);
    if let Some(held) = held {
        changes.push(change(ChangeAction::Delete, held.clone()).map_err(unbuildable)?);
    }
    if !wanted.is_empty() {
        let records = wanted.into_iter().map(|text| ResourceRecord::builder().value(text).build());
        let records = records.collect::<Result<Vec<_>, _>>().map_err(unbuildable)?;
        let set = ResourceRecordSet::builder().name(name).r#type(RrType::Txt).ttl(TTL).set_resource_records(Some(records));
        changes.push(change(ChangeAction::Create, set.build().map_err(unbuildable)?).map_err(unbuildable)?);
    }
    ChangeBatch::builder().set_changes(Some(changes)).build().map_err(unbuildable)
}

/// The texts of a record set, each as Route 53 writes it.
fn texts(set: Option<&ResourceRecordSet>) -> Vec<String> {
    set.into_iter().flat_map(|set| set.resource_records()).map(|record| record.value.clone()).collect()
}

/// A value as Route 53 writes it: in quotes, with what is not plain ASCII as octal escapes.
///
/// Source: TXT record type, docs.aws.amazon.com/Route53 (read 2026-11).
fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => text.extend(['\\', byte.into()]),
            b' '..=b'~' => text.push(byte.into()),
            _ => text.push_str(&format!("\\{byte:03o}")),
        }
    }
    text.push('"');
    text
}

/// The value of a text that [`quoted`] wrote; what others wrote stays as it is.
fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return text.to_owned() };
    let (mut bytes, mut rest) = (Vec::with_capacity(inner.len()), inner.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let octal = rest.get(..3).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match (first, octal, rest.split_first()) {
            (b'\\', Some(byte), _) => {
                bytes.push(byte);
                rest = rest.get(3..).unwrap_or_default();
            }
            (b'\\', None, Some((escaped, after))) => {
                bytes.push(*escaped);
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_quoted_as_route_53_writes_it_and_read_back() {
        for (value, text) in [
            ("h5r2-t8_w6", r#""h5r2-t8_w6""#),
            (r#"say "so"\"#, r#""say \"so\"\\""#),
            ("gr\u{fc}n", r#""gr\303\274n""#),
            ("with space", r#""with space""#),
        ] {
            assert_eq!(quoted(value), text);
            assert_eq!(unquoted(text), value);
        }
        assert_eq!(unquoted("v=spf1"), "v=spf1", "what others wrote");
    }

    #[test]
    fn a_change_names_what_it_replaces_and_an_emptied_set_is_deleted() {
        let held = batch("c1.acme.edge.saas.net", None, vec!["\"a\"".into(), "\"b\"".into()]).unwrap();
        let [create] = held.changes() else { panic!("{held:?}") };
        assert_eq!(create.action, ChangeAction::Create);
        let held = create.resource_record_set.clone().unwrap();
        let emptied = batch("c1.acme.edge.saas.net", Some(&held), Vec::new()).unwrap();
        let [delete] = emptied.changes() else { panic!("{emptied:?}") };
        assert_eq!((&delete.action, delete.resource_record_set.as_ref()), (&ChangeAction::Delete, Some(&held)));
    }
}
