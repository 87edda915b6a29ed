//! Webhooks: who is told what happened, how far each was told, and what follows from an answer.
//!
//! Arrives: stored documents, an answer of an endpoint, the time. Leaves: what to send next and when. Goes wrong: nothing; deciding is pure.
//!
//! One endpoint is told one event after the other, in the order of the feed, each with the next number of its own sequence. What it has not
//! taken holds up what comes after, for [`GIVE_UP`] at most: then the event is kept as a dead letter and the next is tried. The feed is the
//! backlog: nothing is copied, so an endpoint that sleeps costs its cursor.

use std::{net::Ipv6Addr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{EVENTS_LAG, HistoryEntry, TenantId};

/// The kind of the documents that hold a [`Webhook`].
pub const WEBHOOKS_KIND: &str = "webhook";
/// The kind of the documents that hold a [`Progress`].
pub const PROGRESS_KIND: &str = "webhook-progress";
/// The kind of the documents that hold a [`Wish`].
pub const WISHES_KIND: &str = "webhook-wish";

/// What a secret begins with, so that scanners of leaked secrets know it. Source: standard-webhooks/spec (read 2026-11).
pub const SECRET_PREFIX: &str = "whsec_";

/// The most endpoints: each is asked for at every tick.
pub const MAX_WEBHOOKS: usize = 50;

/// The longest URL of an endpoint, in bytes.
const MAX_URL_BYTES: usize = 2_000;

/// The wait after a first failed delivery; each further one triples it.
pub const FIRST_RETRY: Duration = Duration::from_secs(5);
/// The longest wait between deliveries.
pub const RETRY_CAP: Duration = Duration::from_hours(1);
/// How long an endpoint may fail, and an event wait for it, before the event becomes a dead letter. Standard Webhooks asks for a schedule
/// that spans several days (standard-webhooks/spec, "Retry schedule", read 2026-11).
pub const GIVE_UP: Duration = Duration::from_hours(72);
/// How many dead letters in a row are kept before the endpoint is disabled; its cursor stays, so nothing is lost by it.
pub const MAX_DEAD_LETTERS: u64 = 1_000;
/// How long an old secret signs beside the new one.
pub const ROTATION_OVERLAP: Duration = Duration::from_hours(24);

/// An endpoint, as the operator registered it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its name.
    pub id: String,
    /// Where events are sent.
    pub url: String,
    /// Which events; empty: all.
    pub events: Vec<String>,
    /// Whose; `None`: everybody's.
    pub tenant: Option<TenantId>,
    /// What signs, the newest first.
    pub secrets: Vec<Secret>,
    /// Since when; what happened before is not sent.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Webhook({} to {})", self.id, self.url)
    }
}

/// Where an endpoint is: `https`, a host, no user, no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The host, a name in A-labels or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Host and port as they stand in the URL.
    pub authority: String,
    /// Path and query.
    pub path: String,
}

impl Endpoint {
    /// Reads an endpoint's URL.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url.len() > MAX_URL_BYTES || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("the URL must be visible ASCII of at most {MAX_URL_BYTES} bytes"));
        }
        let rest = url.strip_prefix("https://").ok_or("the URL must begin with https://")?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("the URL must carry no user and no password; deliveries are signed".into());
        }
        if path.contains(['#', '\\', '"', '<', '>', '`', '{', '}', '|', '^']) {
            return Err("the URL's path and query must be percent-encoded, without a fragment".into());
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((address, after)) => (address, after),
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let is_label =
            |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_host = match authority.starts_with('[') {
            true => host.parse::<Ipv6Addr>().is_ok(),
            false => host.len() <= 253 && host.split('.').all(is_label),
        };
        if !is_host {
            return Err("the URL needs a host: a name in A-labels, or an IP address".into());
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => 443,
            None => return Err("after the URL's host comes a port or a path".into()),
            Some(digits) => digits.parse().ok().filter(|port| *port != 0).ok_or("the URL's port must be from 1 to 65535")?,
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { host: host.to_owned(), port, authority: authority.to_owned(), path })
    }
}

/// What signs deliveries, and until when.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// `whsec_` and base64, as the receiver has it.
    pub key: String,
    /// When it no longer signs; `None` for the newest.
    pub until: Option<Timestamp>,
}

/// How far an endpoint was told. Only the deliverer writes it, once the operator's registration made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where the feed is read on.
    pub cursor: Option<String>,
    /// How many events after the cursor are done with.
    pub passed: usize,
    /// The number of the last event done with.
    pub sequence: u64,
    /// How often the next event was tried.
    pub attempts: u32,
    /// When it is tried again; `None`: at once.
    pub next_attempt: Option<Timestamp>,
    /// Since when nothing is taken.
    pub failing_since: Option<Timestamp>,
    /// Dead letters since the last event that was taken.
    pub dead_in_a_row: u64,
    /// When an event was taken last.
    pub last_success: Option<Timestamp>,
    /// What went wrong last, and when.
    pub last_failure: Option<Failed>,
    /// Why nothing is sent, and since when.
    pub disabled: Option<Failed>,
    /// What came of the last test message.
    pub last_test: Option<Tested>,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Failed {
    /// When.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
    /// What.
    pub why: String,
}

/// What came of a test message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Tested {
    /// When it was sent.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub at: Timestamp,
    /// What went wrong; `null` when it was taken.
    pub failure: Option<String>,
}

/// What the operator asked the deliverer to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Send a test message.
    pub test: bool,
    /// Enable the endpoint, try the next event now, and send the dead letters again.
    pub redeliver: bool,
}

/// An event that an endpoint did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number.
    pub sequence: u64,
    /// What happened.
    pub event: HistoryEntry,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong last.
    pub failure: Failed,
}

/// The kind of the documents that hold an endpoint's dead letters.
pub fn dead_letters_kind(webhook: &str) -> String {
    format!("webhook-dead-{webhook}")
}

/// A dead letter's id: in the order of the numbers.
pub fn dead_letter_id(sequence: u64) -> String {
    format!("{sequence:020}")
}

/// The message's id, the same at every attempt, so that a receiver knows what it has.
pub fn message_id(webhook: &str, sequence: u64) -> String {
    format!("msg_{webhook}_{sequence}")
}

/// The text that is sent about an event.
pub fn payload(sequence: u64, event: &HistoryEntry) -> serde_json::Value {
    serde_json::json!({ "type": event.event, "timestamp": event.at, "sequence": sequence, "data": event })
}

/// What an endpoint answered, when it was not 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// 410: it wants no more.
    Gone,
    /// Anything else, with the wait that it asked for.
    Other {
        /// What happened.
        why: String,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
}

impl Refused {
    /// What happened, in words.
    pub fn why(&self) -> &str {
        match self {
            Self::Gone => "410: the endpoint wants no more events",
            Self::Other { why, .. } => why,
        }
    }
}

/// What follows from a failed delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The event is tried again.
    Retry,
    /// The event becomes a dead letter.
    DeadLetter,
}

impl Webhook {
    /// Whether the endpoint is told of this event.
    pub fn wants(&self, event: &HistoryEntry) -> bool {
        let is_new = event.at.checked_add(EVENTS_LAG).is_ok_and(|at| at >= self.created_at);
        is_new && (self.events.is_empty() || self.events.contains(&event.event))
    }

    /// The secrets that sign at this time, the newest first.
    pub fn signing(&self, now: Timestamp) -> impl Iterator<Item = &Secret> {
        self.secrets.iter().filter(move |secret| secret.until.is_none_or(|until| until > now))
    }
}

impl Progress {
    /// The event was taken.
    pub fn take(&mut self, now: Timestamp) {
        self.sequence += 1;
        self.passed += 1;
        self.recover(now);
        self.dead_in_a_row = 0;
    }

    /// Something was taken: the endpoint works.
    pub fn recover(&mut self, now: Timestamp) {
        self.attempts = 0;
        self.next_attempt = None;
        self.failing_since = None;
        self.last_success = Some(now);
    }

    /// Nothing is sent until a redelivery is asked for; nothing is lost by it. Who was paused before stays so, for the reason it was.
    pub fn pause(&mut self, why: &str, now: Timestamp) {
        self.disabled.get_or_insert_with(|| Failed { at: now, why: why.to_owned() });
    }

    /// The event was not taken: when it is tried again, or that it is given up. The caller keeps the dead letter before it keeps this.
    pub fn fail(&mut self, webhook: &str, event: &HistoryEntry, refused: &Refused, now: Timestamp) -> After {
        let failed = Failed { at: now, why: refused.why().to_owned() };
        let failing_since = *self.failing_since.get_or_insert(now);
        self.last_failure = Some(failed.clone());
        let Refused::Other { retry_after, .. } = refused else {
            self.attempts = self.attempts.saturating_add(1);
            self.disabled = Some(failed);
            return After::Retry;
        };
        let is_past = |since: Timestamp| Duration::try_from(now.duration_since(since)).is_ok_and(|span| span >= GIVE_UP);
        if is_past(failing_since) && is_past(event.at) {
            self.sequence += 1;
            self.passed += 1;
            self.attempts = 0;
            self.next_attempt = None;
            self.dead_in_a_row += 1;
            if self.dead_in_a_row >= MAX_DEAD_LETTERS {
                self.disabled = Some(Failed { at: now, why: format!("{MAX_DEAD_LETTERS} events in a row were not taken") });
            }
            return After::DeadLetter;
        }
        let wait = wait(webhook, self.sequence, self.attempts).max(retry_after.unwrap_or_default().min(RETRY_CAP));
        self.attempts = self.attempts.saturating_add(1);
        self.next_attempt = now.checked_add(wait).ok();
        After::Retry
    }
}

/// The wait before the next attempt: three times the one before, and up to a fifth more, so that endpoints that failed together are not
/// asked together again. The fifth follows from what is tried, so that nothing random needs to be injected.
fn wait(webhook: &str, sequence: u64, attempts: u32) -> Duration {
    let plain = FIRST_RETRY.saturating_mul(3u32.saturating_pow(attempts.min(12))).min(RETRY_CAP);
    let digest = Sha256::digest(format!("{webhook}|{sequence}|{attempts}"));
    plain + plain.mul_f64(f64::from(digest[0]) / 255.0 / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClaimKey, Hostname};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn event(at: Timestamp) -> HistoryEntry {
        let key = ClaimKey { hostname: Hostname::parse_name("shop.brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
        HistoryEntry { key, sequence: 1, at, event: "ownership_proved".into(), state: "issuing".into(), code: None, detail: None }
    }

    fn away() -> Refused {
        Refused::Other { why: "503".into(), retry_after: None }
    }

    #[test]
    fn an_endpoint_that_is_away_is_asked_ever_more_rarely_for_three_days_and_then_the_event_is_kept_as_a_dead_letter() {
        let began = at("2026-11-24T10:00:00Z");
        let (mut progress, mut now, mut attempts) = (Progress::default(), began, 0);
        let mut waits = Vec::new();
        while progress.fail("w", &event(began), &away(), now) == After::Retry {
            attempts += 1;
            let next = progress.next_attempt.unwrap();
            waits.push(Duration::try_from(next.duration_since(now)).unwrap());
            now = next;
        }
        assert!(waits[0] >= FIRST_RETRY && waits[0] <= FIRST_RETRY * 6 / 5, "{waits:?}");
        assert!(waits[..6].windows(2).all(|pair| pair[1] > pair[0] * 2), "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= RETRY_CAP * 6 / 5), "{waits:?}");
        let waited = Duration::try_from(now.duration_since(began)).unwrap();
        assert!(waited >= GIVE_UP && waited < GIVE_UP + RETRY_CAP * 2, "{waited:?}");
        assert!((60..100).contains(&attempts), "{attempts}");
        assert_eq!((progress.sequence, progress.passed, progress.attempts), (1, 1, 0), "the next event is tried");
    }

    #[test]
    fn an_old_event_is_not_given_up_because_of_one_failure() {
        let mut progress = Progress::default();
        let after = progress.fail("w", &event(at("2026-11-01T10:00:00Z")), &away(), at("2026-11-24T10:00:00Z"));
        assert_eq!((after, progress.sequence), (After::Retry, 0));
    }

    #[test]
    fn gone_disables_and_a_wait_that_the_endpoint_asks_for_is_kept() {
        let now = at("2026-11-24T10:00:00Z");
        let mut progress = Progress::default();
        assert_eq!(progress.fail("w", &event(now), &Refused::Gone, now), After::Retry);
        assert!(progress.disabled.is_some() && progress.sequence == 0, "the event stays the next one");
        let mut progress = Progress::default();
        let busy = Refused::Other { why: "429".into(), retry_after: Some(Duration::from_secs(600)) };
        progress.fail("w", &event(now), &busy, now);
        assert_eq!(progress.next_attempt, Some(at("2026-11-24T10:10:00Z")));
    }

    #[test]
    fn a_paused_endpoint_keeps_its_place_and_one_that_wants_no_more_keeps_its_reason() {
        let now = at("2026-11-24T10:00:00Z");
        let mut progress = Progress { sequence: 7, ..Progress::default() };
        progress.pause("restored", now);
        assert_eq!((progress.sequence, progress.disabled.as_ref().map(|failed| failed.why.as_str())), (7, Some("restored")));
        let mut gone = Progress::default();
        gone.fail("w", &event(now), &Refused::Gone, now);
        gone.pause("restored", now);
        assert!(gone.disabled.is_some_and(|failed| failed.why.contains("410")));
    }

    #[test]
    fn only_https_without_credentials_is_an_endpoint() {
        for bad in [
            "http://a.net/",
            "https://",
            "a.net",
            "https://u:p@a.net/",
            "ftp://a.net",
            "https://a.net:0/",
            "https://a.net:99999/",
            "https://a.net:/",
            "https://a.net\\@b.net/",
            "https://a.net/#x",
            "https://a b.net/",
            "https://[::1/",
            "https://[x]/",
            "https://[::1]x/",
            "https://a..net/",
            "/x",
        ] {
            assert!(Endpoint::parse(bad).is_err(), "{bad}");
        }
        let endpoint = Endpoint::parse("https://[2001:db8::1]:8443/hooks?a=b").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.path.as_str()), ("2001:db8::1", 8443, "/hooks?a=b"));
        assert_eq!(endpoint.authority, "[2001:db8::1]:8443");
        assert_eq!(Endpoint::parse("https://hooks.saas.net").unwrap().path, "/");
        assert_eq!(Endpoint::parse("https://hooks.saas.net?a").unwrap().path, "/?a");
    }

    #[test]
    fn an_endpoint_hears_what_it_asked_for_since_it_was_registered() {
        let mut webhook = Webhook {
            id: "w".into(),
            url: "https://hooks.saas.net/".into(),
            events: Vec::new(),
            tenant: None,
            secrets: vec![Secret { key: "new".into(), until: None }, Secret { key: "old".into(), until: Some(at("2026-11-25T10:00:00Z")) }],
            created_at: at("2026-11-24T10:00:00Z"),
        };
        assert!(webhook.wants(&event(at("2026-11-24T09:59:45Z"))), "clocks differ a little");
        assert!(!webhook.wants(&event(at("2026-11-24T09:50:00Z"))));
        webhook.events = vec!["certificate_recorded".into()];
        assert!(!webhook.wants(&event(at("2026-11-24T10:00:01Z"))));
        let keys = |now| webhook.signing(at(now)).map(|secret| secret.key.clone()).collect::<Vec<_>>();
        assert_eq!(keys("2026-11-25T09:00:00Z"), ["new", "old"]);
        assert_eq!(keys("2026-11-25T10:00:00Z"), ["new"]);
    }
}
