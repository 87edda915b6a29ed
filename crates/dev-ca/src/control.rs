//! What a test may do to the CA while it runs: faults, settings, renewal windows, counters.
//!
//! Arrives: calls on a [`Control`] handle, or the same as JSON through the control listener. Leaves: a CA that misbehaves as told, and
//! numbers about what it did. Goes wrong: nothing here; unreadable JSON is refused by the listener.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ca::Ca;
use crate::durations::as_words;
use crate::limits::Limits;
use crate::lock;
use crate::orders::{Counters, Profile, Window};

/// The places where a fault can be set, named as the directory names them where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "each is the ACME resource of that name")]
pub enum Endpoint {
    /// Every one of the others.
    Any,
    Directory,
    NewNonce,
    NewAccount,
    Account,
    NewOrder,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
    RevokeCert,
    RenewalInfo,
}

/// What a client gets instead of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// A problem document; nothing is done.
    Problem {
        /// An ACME error type such as `rateLimited`, or a whole URN.
        #[serde(rename = "type")]
        kind: String,
        /// The HTTP status.
        status: u16,
        /// The sentence for people.
        #[serde(default)]
        detail: String,
    },
    /// A page as a load balancer would send it; nothing is done.
    Page {
        /// The HTTP status.
        status: u16,
        /// The media type of `body`.
        #[serde(default = "html")]
        content_type: String,
        /// The page.
        body: String,
    },
    /// The request is *done*, but the connection closes without an answer.
    Lost,
    /// The connection closes and the request is not even looked at.
    Unheard,
    /// The usual answer; makes sense with a delay.
    Usual,
}

fn html() -> String {
    "text/html; charset=utf-8".into()
}

fn once() -> u32 {
    1
}

/// A scripted fault: the next `times` requests of an endpoint get `answer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests.
    pub endpoint: Endpoint,
    /// Only those about this hostname; requests that name none (nonces, accounts) never match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many of them.
    #[serde(default = "once")]
    pub times: u32,
    /// What they get.
    pub answer: Answer,
    /// The `Retry-After` header of that answer, seconds or a date, sent as written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
    /// How long they wait for it.
    #[serde(default, with = "as_words")]
    pub delay: Duration,
}

impl Fault {
    /// A fault that answers the next request with `answer`.
    pub fn new(endpoint: Endpoint, answer: Answer) -> Self {
        Self { endpoint, name: None, times: 1, answer, retry_after: None, delay: Duration::ZERO }
    }

    /// A problem document of ACME type `kind`.
    pub fn problem(endpoint: Endpoint, kind: &str, status: u16) -> Self {
        let detail = format!("{kind}, as scripted");
        Self::new(endpoint, Answer::Problem { kind: kind.into(), status, detail })
    }

    /// An HTML page such as a load balancer sends.
    pub fn page(endpoint: Endpoint, status: u16, body: &str) -> Self {
        Self::new(endpoint, Answer::Page { status, content_type: html(), body: body.into() })
    }

    /// For the next `times` requests instead of one.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }

    /// With a `Retry-After` header.
    #[must_use]
    pub fn retry_after(mut self, value: &str) -> Self {
        self.retry_after = Some(value.into());
        self
    }

    /// Only for requests about `hostname`.
    #[must_use]
    pub fn for_name(mut self, hostname: &str) -> Self {
        self.name = Some(hostname.into());
        self
    }

    /// After a delay.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    fn matches(&self, endpoint: Endpoint, names: &[String]) -> bool {
        let here = self.endpoint == Endpoint::Any || self.endpoint == endpoint;
        here && self.name.as_ref().is_none_or(|name| names.contains(name))
    }
}

/// The faults still to come, in the order they were set.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    waiting: VecDeque<Fault>,
}

impl Faults {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes one turn of the first fault that matches.
    pub(crate) fn next(&mut self, endpoint: Endpoint, names: &[String]) -> Option<Fault> {
        let index = self.waiting.iter().position(|fault| fault.matches(endpoint, names))?;
        let fault = self.waiting.get_mut(index)?;
        fault.times = fault.times.saturating_sub(1);
        let taken = fault.clone();
        if fault.times == 0 {
            self.waiting.remove(index);
        }
        Some(taken)
    }
}

/// What can be changed while the CA runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// Of 100 good nonces, how many are refused.
    pub bad_nonce_percent: u8,
    /// How long a certificate lives, from now on.
    #[serde(with = "as_words")]
    pub lifetime: Duration,
    /// How long an order stays `processing`; zero issues at once.
    #[serde(with = "as_words")]
    pub finalize_delay: Duration,
    /// How long a proof is good for further orders; zero asks for a new one each time.
    #[serde(with = "as_words")]
    pub authorization_reuse: Duration,
    /// The `Retry-After` of renewal information.
    #[serde(with = "as_words")]
    pub ari_retry_after: Duration,
    /// Whether requests wait for [`Control::resume`].
    pub paused: bool,
}

/// The settings to change; what is `None` stays.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SettingsChange {
    pub(crate) bad_nonce_percent: Option<u8>,
    #[serde(deserialize_with = "as_words::optional::deserialize")]
    pub(crate) lifetime: Option<Duration>,
    #[serde(deserialize_with = "as_words::optional::deserialize")]
    pub(crate) finalize_delay: Option<Duration>,
    #[serde(deserialize_with = "as_words::optional::deserialize")]
    pub(crate) authorization_reuse: Option<Duration>,
    #[serde(deserialize_with = "as_words::optional::deserialize")]
    pub(crate) ari_retry_after: Option<Duration>,
    pub(crate) paused: Option<bool>,
}

/// Which certificates a renewal window is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// Every certificate issued since the start.
    All,
    /// Every certificate for this hostname.
    Name(String),
    /// The one with this ARI identifier.
    Certificate(String),
}

/// One issued certificate, as the control interface shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// Its ARI identifier: key identifier, a dot, serial number.
    pub certificate: String,
    /// The names in it.
    pub names: Vec<String>,
    /// The profile it was ordered with.
    pub profile: Profile,
    /// Its first second.
    pub not_before: Timestamp,
    /// Its last second.
    pub not_after: Timestamp,
    /// The renewal window told to clients now.
    pub window: Window,
    /// Whether it is revoked.
    pub revoked: bool,
}

/// A handle for tests and `nameplate dev`; clones act on the same CA.
#[derive(Debug, Clone)]
pub struct Control {
    ca: Arc<Ca>,
}

impl Control {
    pub(crate) fn new(ca: Arc<Ca>) -> Self {
        Self { ca }
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        lock(&self.ca.book).counters.clone()
    }

    /// Every certificate issued since the start, oldest first.
    pub fn certificates(&self) -> Vec<CertificateRecord> {
        let now = self.ca.now();
        let book = lock(&self.ca.book);
        let mut records: Vec<_> = book
            .certificates()
            .map(|certificate| CertificateRecord {
                certificate: self.ca.ari_identifier(&certificate.issued.serial),
                names: certificate.names.clone(),
                profile: certificate.profile,
                not_before: certificate.issued.not_before,
                not_after: certificate.issued.not_after,
                window: certificate.window(now),
                revoked: certificate.revoked,
            })
            .collect();
        records.sort_by(|a, b| (a.not_before, &a.certificate).cmp(&(b.not_before, &b.certificate)));
        records
    }

    /// Sets a fault behind those already set; one of zero times is ignored.
    pub fn fault(&self, fault: Fault) {
        if fault.times > 0 {
            lock(&self.ca.faults).waiting.push_back(fault);
        }
    }

    /// The faults still to come.
    pub fn faults(&self) -> Vec<Fault> {
        lock(&self.ca.faults).waiting.iter().cloned().collect()
    }

    /// Forgets all faults still to come.
    pub fn clear_faults(&self) {
        lock(&self.ca.faults).waiting.clear();
    }

    /// The settings in force.
    pub fn settings(&self) -> Settings {
        self.ca.settings()
    }

    /// Refuses this many of 100 good nonces from now on; 100 or more refuses all.
    pub fn set_bad_nonce_percent(&self, percent: u8) {
        self.change(&SettingsChange { bad_nonce_percent: Some(percent), ..SettingsChange::default() });
    }

    /// Changes how long certificates live that are issued from now on.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.change(&SettingsChange { lifetime: Some(lifetime), ..SettingsChange::default() });
    }

    /// Changes how long orders stay `processing`.
    pub fn set_finalize_delay(&self, delay: Duration) {
        self.change(&SettingsChange { finalize_delay: Some(delay), ..SettingsChange::default() });
    }

    /// Changes how long a proof is good for further orders.
    pub fn set_authorization_reuse(&self, period: Duration) {
        self.change(&SettingsChange { authorization_reuse: Some(period), ..SettingsChange::default() });
    }

    /// Changes the `Retry-After` of renewal information.
    pub fn set_ari_retry_after(&self, wait: Duration) {
        self.change(&SettingsChange { ari_retry_after: Some(wait), ..SettingsChange::default() });
    }

    /// Lets every ACME request wait until [`Self::resume`].
    pub fn pause(&self) {
        self.change(&SettingsChange { paused: Some(true), ..SettingsChange::default() });
    }

    /// Answers what waited, and everything from now on.
    pub fn resume(&self) {
        self.change(&SettingsChange { paused: Some(false), ..SettingsChange::default() });
    }

    pub(crate) fn change(&self, change: &SettingsChange) {
        self.ca.change_settings(change);
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        lock(&self.ca.book).limits.clone()
    }

    /// Holds orders to these limits from now on; what was used before counts.
    pub fn set_limits(&self, limits: Limits) {
        lock(&self.ca.book).limits = limits;
    }

    /// Ends the pause of a name; returns for how many accounts it was counted.
    pub fn unpause(&self, name: &str) -> usize {
        lock(&self.ca.book).used.unpause(name)
    }

    /// Tells clients to renew the chosen certificates within `window`; returns how many those are.
    pub fn set_window(&self, chosen: &Chosen, window: Window) -> usize {
        self.windows(chosen, Some(window))
    }

    /// Tells clients to renew the chosen certificates at once, as after an incident; returns how many those are.
    pub fn renew_now(&self, chosen: &Chosen) -> usize {
        self.windows(chosen, Some(Window::in_the_past(self.ca.now())))
    }

    /// Goes back to the window that follows from the lifetime; returns for how many certificates.
    pub fn reset_window(&self, chosen: &Chosen) -> usize {
        self.windows(chosen, None)
    }

    fn windows(&self, chosen: &Chosen, window: Option<Window>) -> usize {
        lock(&self.ca.book).set_windows(window, |certificate| match chosen {
            Chosen::All => true,
            Chosen::Name(name) => certificate.names.contains(name),
            Chosen::Certificate(identifier) => *identifier == self.ca.ari_identifier(&certificate.issued.serial),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_used_up_in_order_and_only_by_requests_they_are_for() {
        let mut faults = Faults::default();
        faults.waiting.push_back(Fault::problem(Endpoint::NewOrder, "rateLimited", 429).for_name("a.test"));
        faults.waiting.push_back(Fault::page(Endpoint::NewOrder, 503, "busy").times(2));
        let a = ["a.test".to_owned()];
        assert!(faults.next(Endpoint::Order, &a).is_none(), "another endpoint");
        assert!(matches!(faults.next(Endpoint::NewOrder, &[]).expect("the page").answer, Answer::Page { .. }), "no name, so not the first");
        assert!(matches!(faults.next(Endpoint::NewOrder, &a).expect("the problem").answer, Answer::Problem { .. }));
        assert!(matches!(faults.next(Endpoint::NewOrder, &a).expect("the page again").answer, Answer::Page { .. }));
        assert!(faults.next(Endpoint::NewOrder, &a).is_none());
    }

    #[test]
    fn a_fault_is_written_in_json_as_the_documentation_shows_it() {
        let text = r#"{"endpoint":"newOrder","times":2,"retry_after":"120","answer":{"problem":{"type":"rateLimited","status":429}}}"#;
        let fault: Fault = serde_json::from_str(text).expect("parses");
        let Answer::Problem { kind, status, detail } = &fault.answer else { panic!("{fault:?}") };
        assert_eq!((kind.as_str(), *status, detail.as_str(), fault.times), ("rateLimited", 429, "", 2));
        let again: Fault = serde_json::from_value(serde_json::to_value(&fault).expect("writes")).expect("reads back");
        assert_eq!(again, fault);
        let lost: Fault = serde_json::from_str(r#"{"endpoint":"finalize","answer":"lost","delay":"250ms"}"#).expect("parses");
        assert_eq!((lost.answer, lost.times, lost.delay), (Answer::Lost, 1, Duration::from_millis(250)));
        assert!(serde_json::from_str::<Fault>(r#"{"endpoint":"finalise","answer":"lost"}"#).is_err());
    }
}
