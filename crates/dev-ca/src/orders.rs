//! The CA's book: orders, authorizations, challenges and certificates, and the rules by which they change.
//!
//! Arrives: requests whose signer is known, and the outcomes of validations and signings. Leaves: the next state, as Boulder would have
//! it. Goes wrong: a [`Problem`] for what the rules forbid. No I/O and no clock of its own: `now` is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::authority::Issued;
use crate::limits::{LimitBook, Limits};
use crate::names::without_wildcard;
use crate::problem::{Kind, Problem};

/// How long an order may take. Source: Let's Encrypt's profile `tlsserver` (read 2026-11).
const ORDER_LIFETIME: Duration = Duration::from_hours(8);
/// How long a challenge waits to be answered. Source: as above.
const PENDING_AUTHORIZATION_LIFETIME: Duration = Duration::from_hours(1);
/// The longest life of a `shortlived` certificate. Source: as above.
const SHORT_LIFETIME: Duration = Duration::from_hours(160);
/// The window of a certificate that must be replaced at once ends this long ago. Source: Boulder, `core.RenewalInfoImmediate`.
const PAST_WINDOW: (Duration, Duration) = (Duration::from_hours(1), Duration::from_mins(30));

/// The certificate profiles on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The CA's usual lifetime; what an order gets that names none.
    #[default]
    TlsServer,
    /// At most 160 hours.
    ShortLived,
}

impl Profile {
    pub(crate) const ALL: [Self; 2] = [Self::TlsServer, Self::ShortLived];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TlsServer => "tlsserver",
            Self::ShortLived => "shortlived",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, Problem> {
        Self::ALL.into_iter().find(|profile| profile.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|profile| profile.name()).collect();
            Problem::new(Kind::InvalidProfile, format!("there is no profile {name:?}; choose one of {}", known.join(", ")))
        })
    }

    /// How long a certificate of this profile lives when the CA's usual lifetime is `usual`.
    pub(crate) fn lifetime(self, usual: Duration) -> Duration {
        match self {
            Self::TlsServer => usual,
            Self::ShortLived => usual.min(SHORT_LIFETIME),
        }
    }
}

/// How control of a name is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChallengeKind {
    Http01,
    Dns01,
}

impl ChallengeKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::Dns01 => "dns-01",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Http01, Self::Dns01].into_iter().find(|kind| kind.name() == name)
    }
}

/// What became of a challenge.
#[derive(Debug, Clone)]
pub(crate) enum ChallengeState {
    Pending,
    Processing,
    Valid { at: Timestamp },
    Invalid { at: Timestamp, error: Problem },
}

/// One way to satisfy an authorization.
#[derive(Debug, Clone)]
pub(crate) struct Challenge {
    pub(crate) kind: ChallengeKind,
    pub(crate) state: ChallengeState,
}

/// Whether an account may have certificates for a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthorizationStatus {
    Pending,
    Valid,
    Invalid,
    Deactivated,
    Expired,
}

/// The proof that an account controls one name.
#[derive(Debug, Clone)]
pub(crate) struct Authorization {
    pub(crate) id: String,
    pub(crate) account: String,
    /// The name without its wildcard.
    pub(crate) name: String,
    pub(crate) wildcard: bool,
    profile: Profile,
    pub(crate) expires: Timestamp,
    /// One token for all challenges, as Boulder has it.
    pub(crate) token: String,
    pub(crate) challenges: Vec<Challenge>,
    deactivated: bool,
}

impl Authorization {
    pub(crate) fn status(&self, now: Timestamp) -> AuthorizationStatus {
        let any = |wanted: fn(&ChallengeState) -> bool| self.challenges.iter().any(|challenge| wanted(&challenge.state));
        if self.deactivated {
            AuthorizationStatus::Deactivated
        } else if any(|state| matches!(state, ChallengeState::Invalid { .. })) {
            AuthorizationStatus::Invalid
        } else if self.expires <= now {
            AuthorizationStatus::Expired
        } else if any(|state| matches!(state, ChallengeState::Valid { .. })) {
            AuthorizationStatus::Valid
        } else {
            AuthorizationStatus::Pending
        }
    }

    /// The challenges to show: all of them while the choice is open, then the one that decided. Source: RFC 8555, section 7.1.4.
    pub(crate) fn shown_challenges(&self) -> impl Iterator<Item = &Challenge> {
        let decided = |challenge: &Challenge| matches!(challenge.state, ChallengeState::Valid { .. } | ChallengeState::Invalid { .. });
        let any_decided = self.challenges.iter().any(decided);
        self.challenges.iter().filter(move |challenge| !any_decided || decided(challenge))
    }

    fn validated_at(&self) -> Option<Timestamp> {
        self.challenges.iter().find_map(|challenge| match challenge.state {
            ChallengeState::Valid { at } => Some(at),
            _ => None,
        })
    }
}

/// How far an order's own work has come; `pending`, `ready` and mostly `invalid` follow from its authorizations.
#[derive(Debug, Clone)]
enum Progress {
    Open,
    Processing,
    Issued { serial: String },
    Failed { error: Problem },
}

/// An order's status as RFC 8555, section 7.1.6 names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrderStatus {
    Pending,
    Ready,
    Processing,
    Valid,
    Invalid,
}

/// A wish for one certificate.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) names: Vec<String>,
    /// The profile the client named, if it named one.
    pub(crate) requested_profile: Option<Profile>,
    pub(crate) replaces: Option<String>,
    pub(crate) authorizations: Vec<String>,
    pub(crate) expires: Timestamp,
    /// Whether it replaces a certificate inside its window, which no limit counts.
    is_exempt: bool,
    progress: Progress,
}

impl Order {
    pub(crate) fn profile(&self) -> Profile {
        self.requested_profile.unwrap_or_default()
    }

    /// The certificate's serial, once issued.
    pub(crate) fn certificate(&self) -> Option<&str> {
        match &self.progress {
            Progress::Issued { serial } => Some(serial),
            _ => None,
        }
    }

    /// Why signing failed. A failed authorization leaves this empty, as Boulder does: the challenge has the reason.
    pub(crate) fn error(&self) -> Option<&Problem> {
        match &self.progress {
            Progress::Failed { error } => Some(error),
            _ => None,
        }
    }
}

/// One certificate and what became of it.
#[derive(Debug, Clone)]
pub(crate) struct Certificate {
    pub(crate) account: String,
    pub(crate) names: Vec<String>,
    pub(crate) profile: Profile,
    pub(crate) issued: Issued,
    pub(crate) revoked: bool,
    window: Option<Window>,
    replaced_by: Option<String>,
}

/// When a certificate should be renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The first moment at which to renew.
    pub start: Timestamp,
    /// The last.
    pub end: Timestamp,
}

impl Window {
    /// The window that means "at once".
    pub(crate) fn in_the_past(now: Timestamp) -> Self {
        let ago = |duration| now.checked_sub(duration).unwrap_or(Timestamp::MIN);
        Self { start: ago(PAST_WINDOW.0), end: ago(PAST_WINDOW.1) }
    }
}

impl Certificate {
    /// The window told to clients: a set one, the past when revoked, otherwise two thirds of the lifetime, one per cent either way.
    pub(crate) fn window(&self, now: Timestamp) -> Window {
        if let Some(window) = self.window {
            return window;
        }
        if self.revoked {
            return Window::in_the_past(now);
        }
        let lifetime = self.issued.not_after.duration_since(self.issued.not_before).unsigned_abs();
        let after = |fraction: Duration| self.issued.not_before.checked_add(fraction).unwrap_or(Timestamp::MAX);
        let (ideal, spread) = (lifetime * 2 / 3, lifetime / 100);
        Window { start: after(ideal.saturating_sub(spread)), end: after(ideal.saturating_add(spread)) }
    }
}

/// A wish as it came in, its names already checked.
#[derive(Debug)]
pub(crate) struct NewOrder {
    pub(crate) account: String,
    pub(crate) names: Vec<String>,
    pub(crate) profile: Option<Profile>,
    /// The serial of the certificate to replace, with the identifier it came in.
    pub(crate) replaces: Option<Replaced>,
}

/// The certificate that an order replaces.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) identifier: String,
    pub(crate) serial: String,
}

/// A challenge that is to be tried.
#[derive(Debug, Clone)]
pub(crate) struct Validation {
    pub(crate) authorization: String,
    pub(crate) kind: ChallengeKind,
    pub(crate) name: String,
    pub(crate) token: String,
}

/// What happened so far, for tests and the curious.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Orders made; an order given out again counts once.
    pub new_orders: u64,
    /// How often an open order was given out again instead of a new one.
    pub reused_orders: u64,
    /// Certificates actually issued.
    pub finalized_orders: u64,
    /// Orders made, by each name in them.
    pub orders_by_name: BTreeMap<String, u64>,
    /// Certificates issued, by each name in them.
    pub finalizes_by_name: BTreeMap<String, u64>,
    /// Challenges tried.
    pub validations: u64,
    /// Challenges tried that failed.
    pub validation_failures: u64,
    /// Certificates revoked.
    pub revocations: u64,
    /// How often a limit refused an order; faults that were set on purpose do not count.
    #[serde(default)]
    pub rate_limited: u64,
}

type OrderKey = (String, Vec<String>, Profile);

/// Everything the CA remembers between two requests, accounts and nonces aside.
#[derive(Debug, Default)]
pub(crate) struct Book {
    orders: HashMap<String, Order>,
    authorizations: HashMap<String, Authorization>,
    certificates: HashMap<String, Certificate>,
    /// The newest order of each account, names and profile: the only one that can be given out again.
    newest: HashMap<OrderKey, String>,
    /// The newest authorization of each account and ordered name (with its wildcard) that became valid.
    proved: HashMap<(String, String), String>,
    orders_of: HashMap<String, Vec<String>>,
    /// The limits in force, none unless they were asked for.
    pub(crate) limits: Limits,
    pub(crate) used: LimitBook,
    pub(crate) counters: Counters,
}

impl Book {
    /// An empty book whose orders are held to these limits.
    pub(crate) fn held_to(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(crate) fn order(&self, id: &str) -> Option<&Order> {
        self.orders.get(id)
    }

    pub(crate) fn orders_of(&self, account: &str) -> &[String] {
        self.orders_of.get(account).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn authorization(&self, id: &str) -> Option<&Authorization> {
        self.authorizations.get(id)
    }

    pub(crate) fn certificate(&self, serial: &str) -> Option<&Certificate> {
        self.certificates.get(serial)
    }

    pub(crate) fn certificates(&self) -> impl Iterator<Item = &Certificate> {
        self.certificates.values()
    }

    /// Judges an order's status as Boulder does: its own progress first, then its authorizations.
    pub(crate) fn status(&self, order: &Order, now: Timestamp) -> OrderStatus {
        match order.progress {
            Progress::Processing => return OrderStatus::Processing,
            Progress::Issued { .. } => return OrderStatus::Valid,
            Progress::Failed { .. } => return OrderStatus::Invalid,
            Progress::Open if order.expires <= now => return OrderStatus::Invalid,
            Progress::Open => {}
        }
        let statuses = || order.authorizations.iter().filter_map(|id| self.authorizations.get(id)).map(|one| one.status(now));
        if statuses().all(|status| status == AuthorizationStatus::Valid) {
            OrderStatus::Ready
        } else if statuses().all(|status| matches!(status, AuthorizationStatus::Valid | AuthorizationStatus::Pending)) {
            OrderStatus::Pending
        } else {
            OrderStatus::Invalid
        }
    }

    /// Makes an order, or gives out an identical open one again; `fresh` makes ids and tokens.
    pub(crate) fn new_order(
        &mut self,
        wish: NewOrder,
        now: Timestamp,
        reuse_authorizations_for: Duration,
        fresh: impl Fn() -> String,
    ) -> Result<String, Problem> {
        // Before any reuse, as in Boulder: a pending replacement order already makes a second one fail.
        if let Some(replaced) = &wish.replaces {
            self.check_replacement(&wish, replaced, now)?;
        }
        // Inside the window only, as in Boulder; a renewal outside of it counts as one without ARI.
        let is_exempt = wish.replaces.as_ref().and_then(|replaced| self.certificates.get(&replaced.serial)).is_some_and(|certificate| {
            let window = certificate.window(now);
            (window.start..=window.end).contains(&now) || certificate.revoked
        });
        let granted = self.used.order(&self.limits, &wish.account, &wish.names, is_exempt, now);
        self.counters.rate_limited += u64::from(granted.is_err());
        granted?;
        let key: OrderKey = (wish.account.clone(), wish.names.clone(), wish.profile.unwrap_or_default());
        if wish.replaces.is_none()
            && let Some(order) = self.newest.get(&key).and_then(|id| self.orders.get(id))
            && matches!(self.status(order, now), OrderStatus::Pending | OrderStatus::Ready)
        {
            self.counters.reused_orders += 1;
            return Ok(order.id.clone());
        }

        let profile = wish.profile.unwrap_or_default();
        let authorizations: Vec<String> = wish
            .names
            .iter()
            .map(|name| {
                let proved = self.proved_before(&wish.account, name, now, reuse_authorizations_for);
                // Only within one profile, as in Boulder.
                match proved.filter(|authorization| authorization.profile == profile) {
                    Some(authorization) => authorization.id.clone(),
                    None => self.new_authorization(&wish.account, name, profile, now, &fresh),
                }
            })
            .collect();
        let first_to_expire = authorizations.iter().filter_map(|id| Some(self.authorizations.get(id)?.expires)).min();
        let id = fresh();
        let order = Order {
            id: id.clone(),
            account: wish.account.clone(),
            names: wish.names,
            requested_profile: wish.profile,
            replaces: wish.replaces.as_ref().map(|replaced| replaced.identifier.clone()),
            authorizations,
            expires: first_to_expire.unwrap_or(Timestamp::MAX).min(later(now, ORDER_LIFETIME)),
            is_exempt,
            progress: Progress::Open,
        };
        if let Some(certificate) = wish.replaces.and_then(|replaced| self.certificates.get_mut(&replaced.serial)) {
            certificate.replaced_by = Some(id.clone());
        }
        self.counters.new_orders += 1;
        count(&mut self.counters.orders_by_name, &order.names);
        self.newest.insert(key, id.clone());
        self.orders_of.entry(wish.account).or_default().push(id.clone());
        self.orders.insert(id.clone(), order);
        Ok(id)
    }

    /// The checks of RFC 9773, section 5, with Boulder's error types.
    fn check_replacement(&self, wish: &NewOrder, replaced: &Replaced, now: Timestamp) -> Result<(), Problem> {
        let Some(certificate) = self.certificates.get(&replaced.serial) else {
            return Err(Problem::not_found("the certificate to replace is not known here"));
        };
        if certificate.account != wish.account {
            return Err(Problem::unauthorized("the certificate to replace belongs to another account"));
        }
        if !wish.names.iter().any(|name| certificate.names.contains(name)) {
            return Err(Problem::malformed("the certificate to replace has no name in common with this order"));
        }
        let successor = certificate.replaced_by.as_ref().and_then(|id| self.orders.get(id));
        if successor.is_some_and(|order| self.status(order, now) != OrderStatus::Invalid) {
            return Err(Problem::new(Kind::AlreadyReplaced, "the certificate is already replaced by another order"));
        }
        Ok(())
    }

    /// The authorization by which `account` proved `name` within the last `reuse_for`, if it still holds.
    fn proved_before(&self, account: &str, name: &str, now: Timestamp, reuse_for: Duration) -> Option<&Authorization> {
        let authorization = self.authorizations.get(self.proved.get(&(account.to_owned(), name.to_owned()))?)?;
        let fresh_enough = later(authorization.validated_at()?, reuse_for) > now;
        (fresh_enough && authorization.status(now) == AuthorizationStatus::Valid).then_some(authorization)
    }

    fn new_authorization(&mut self, account: &str, name: &str, profile: Profile, now: Timestamp, fresh: &impl Fn() -> String) -> String {
        let (base, wildcard) = without_wildcard(name);
        // A web server can show that it is one host, not that it is all of them: RFC 8555, section 7.1.3 with 8.4.
        let kinds: &[ChallengeKind] = if wildcard { &[ChallengeKind::Dns01] } else { &[ChallengeKind::Http01, ChallengeKind::Dns01] };
        let authorization = Authorization {
            id: fresh(),
            account: account.to_owned(),
            name: base.to_owned(),
            wildcard,
            profile,
            expires: later(now, PENDING_AUTHORIZATION_LIFETIME),
            token: fresh(),
            challenges: kinds.iter().map(|kind| Challenge { kind: *kind, state: ChallengeState::Pending }).collect(),
            deactivated: false,
        };
        let id = authorization.id.clone();
        self.authorizations.insert(id.clone(), authorization);
        id
    }

    /// Marks a challenge as being tried; `None` when there is nothing to try: the authorization is decided, or a try is under way.
    pub(crate) fn begin_validation(&mut self, authorization: &str, kind: ChallengeKind, now: Timestamp) -> Option<Validation> {
        let authorization = self.authorizations.get_mut(authorization)?;
        let idle = authorization.challenges.iter().all(|challenge| matches!(challenge.state, ChallengeState::Pending));
        if authorization.status(now) != AuthorizationStatus::Pending || !idle {
            return None;
        }
        let challenge = authorization.challenges.iter_mut().find(|challenge| challenge.kind == kind)?;
        challenge.state = ChallengeState::Processing;
        self.counters.validations += 1;
        Some(Validation {
            authorization: authorization.id.clone(),
            kind,
            name: authorization.name.clone(),
            token: authorization.token.clone(),
        })
    }

    /// Records how a try ended; a proof then lives as long as the order it was made for, or as it may be reused.
    pub(crate) fn finish_validation(&mut self, tried: &Validation, result: Result<(), Problem>, now: Timestamp, reuse_for: Duration) {
        if result.is_err() {
            self.counters.validation_failures += 1;
        }
        let Some(authorization) = self.authorizations.get_mut(&tried.authorization) else {
            return;
        };
        let Some(challenge) = authorization.challenges.iter_mut().find(|challenge| challenge.kind == tried.kind) else {
            return;
        };
        self.used.proved(&self.limits, &authorization.account, &authorization.name, result.is_ok(), now);
        match result {
            Ok(()) => {
                challenge.state = ChallengeState::Valid { at: now };
                authorization.expires = later(now, reuse_for.max(ORDER_LIFETIME));
                let ordered = if authorization.wildcard { format!("*.{}", authorization.name) } else { authorization.name.clone() };
                self.proved.insert((authorization.account.clone(), ordered), authorization.id.clone());
            }
            Err(error) => challenge.state = ChallengeState::Invalid { at: now, error },
        }
    }

    /// Gives up an authorization that is pending or valid.
    pub(crate) fn deactivate_authorization(&mut self, id: &str, now: Timestamp) -> Result<(), Problem> {
        let authorization = self.authorizations.get_mut(id).ok_or_else(|| Problem::not_found("no such authorization"))?;
        match authorization.status(now) {
            AuthorizationStatus::Pending | AuthorizationStatus::Valid => {
                authorization.deactivated = true;
                Ok(())
            }
            AuthorizationStatus::Deactivated => Ok(()),
            AuthorizationStatus::Invalid | AuthorizationStatus::Expired => {
                Err(Problem::malformed("only a pending or valid authorization can be deactivated"))
            }
        }
    }

    /// Checks that an order can be finalized now.
    pub(crate) fn expect_ready(&self, id: &str, now: Timestamp) -> Result<&Order, Problem> {
        let order = self.orders.get(id).ok_or_else(|| Problem::not_found("no such order"))?;
        match self.status(order, now) {
            OrderStatus::Ready => Ok(order),
            status => Err(Problem::new(Kind::OrderNotReady, format!("the order is {}, not ready", status.name()))),
        }
    }

    /// Takes a ready order into processing; exactly one caller gets through.
    pub(crate) fn begin_finalize(&mut self, id: &str, now: Timestamp) -> Result<(), Problem> {
        self.expect_ready(id, now)?;
        if let Some(order) = self.orders.get_mut(id) {
            order.progress = Progress::Processing;
        }
        Ok(())
    }

    /// Records the certificate of an order, or why there is none.
    pub(crate) fn finish_finalize(&mut self, id: &str, result: Result<Issued, Problem>) {
        let Some(order) = self.orders.get_mut(id) else {
            return;
        };
        match result {
            Ok(issued) => {
                self.counters.finalized_orders += 1;
                count(&mut self.counters.finalizes_by_name, &order.names);
                self.used.issued(&self.limits, &order.names, order.is_exempt, issued.not_before);
                order.progress = Progress::Issued { serial: issued.serial.clone() };
                let certificate = Certificate {
                    account: order.account.clone(),
                    names: order.names.clone(),
                    profile: order.profile(),
                    revoked: false,
                    window: None,
                    replaced_by: None,
                    issued,
                };
                self.certificates.insert(certificate.issued.serial.clone(), certificate);
            }
            Err(error) => order.progress = Progress::Failed { error },
        }
    }

    /// Marks a certificate as revoked.
    pub(crate) fn revoke(&mut self, serial: &str) -> Result<(), Problem> {
        let certificate = self.certificates.get_mut(serial).ok_or_else(|| Problem::not_found("no such certificate"))?;
        if certificate.revoked {
            return Err(Problem::new(Kind::AlreadyRevoked, "the certificate is already revoked"));
        }
        certificate.revoked = true;
        self.counters.revocations += 1;
        Ok(())
    }

    /// Whether `account` holds a valid authorization for every name, which lets it revoke what another account ordered.
    pub(crate) fn controls(&self, account: &str, names: &[String], now: Timestamp) -> bool {
        names.iter().all(|name| self.proved_before(account, name, now, ORDER_LIFETIME).is_some())
    }

    /// Sets (or with `None` resets) the renewal window of every certificate that `chosen` picks; returns how many those are.
    pub(crate) fn set_windows(&mut self, window: Option<Window>, chosen: impl Fn(&Certificate) -> bool) -> usize {
        let mut picked = 0;
        for certificate in self.certificates.values_mut().filter(|certificate| chosen(certificate)) {
            certificate.window = window;
            picked += 1;
        }
        picked
    }
}

impl OrderStatus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Processing => "processing",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
        }
    }
}

impl AuthorizationStatus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Deactivated => "deactivated",
            Self::Expired => "expired",
        }
    }
}

fn later(time: Timestamp, duration: Duration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

fn count(by_name: &mut BTreeMap<String, u64>, names: &[String]) {
    for name in names {
        *by_name.entry(name.clone()).or_default() += 1;
    }
}
