//! What a CA allows, as data, and which of it an order needs.
//!
//! Arrives: a hostname and why it is ordered. Leaves: the [`Need`]s of its reservation. Goes wrong: nothing; a limit we do not know of is told
//! by the CA's own refusal, which [`CaLimits::pause`] turns into a pause for everybody.

use std::time::Duration;

use jiff::Timestamp;

use super::{BucketShape, Lane, LedgerMove, Need, Reservation};
use crate::{Claim, ClaimKey, Hostname, OrderPlan, State, claim::after, renewal};

/// The share of a CA's limit that we use, in parts of 100: what the CA counts and what we count is never quite the same moment.
const SAFETY_PERCENT: u32 = 80;

/// The pace of orders, all lanes together: at nine requests an order, well below the CA's load balancer.
///
/// Source: Let's Encrypt allows 20 new-nonce requests a second and 250 of the other requests per IP (letsencrypt.org/docs/rate-limits, read 2026-11).
const PACE: BucketShape = BucketShape { capacity: 40, refill: Duration::from_millis(100) };

/// Of the pace and of the new orders, in parts of 100, what new names leave to renewals.
const RENEWAL_SHARE_PERCENT: u32 = 20;

/// Of the same, what renewals leave to urgent renewals.
const URGENT_SHARE_PERCENT: u32 = 10;

/// Of the same, what larger backlogs leave to tenants with small ones.
const RESERVE_PERCENT: u32 = 10;

/// How long an attempt is remembered: as long as the slowest bucket that counts it at the CA, and a day more.
pub(super) const REMEMBERED: Duration = Duration::from_secs(8 * 86_400);

/// Below this share of its lifetime a certificate's renewal is urgent: one part of this many.
const URGENT_BELOW: u32 = 6;

/// The wait after a refusal that names none.
const UNNAMED_WAIT: Duration = Duration::from_secs(60);

const fn per(count: u32, period: Duration) -> BucketShape {
    BucketShape { capacity: count, refill: Duration::from_micros((period.as_micros() / count as u128) as u64) }
}

const HOUR: Duration = Duration::from_secs(3600);
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// Why a certificate is ordered, as far as limits care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderKind {
    /// A set of names that had no certificate lately.
    New,
    /// The same set of names again, without telling the CA what it replaces.
    Renewal,
    /// A renewal that names the certificate it replaces, inside the CA's window.
    AriRenewal,
}

/// The limits of one CA, as it publishes or granted them. `None`: it has no such limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaLimits {
    /// Names the CA in buckets; two CAs never share one.
    pub ca: String,
    /// New orders, per account.
    pub orders: Option<BucketShape>,
    /// Certificates per registered domain, all accounts together.
    pub domain: Option<BucketShape>,
    /// Certificates for one set of names.
    pub exact_set: Option<BucketShape>,
    /// Failed authorizations per name and account.
    pub failures: Option<BucketShape>,
    /// Orders of ours, whatever they are for.
    pub pace: BucketShape,
    /// Whether a renewal of the same set counts neither as new order nor for its registered domain.
    pub are_renewals_exempt: bool,
    /// The share that we use, in parts of 100.
    pub safety_percent: u32,
}

impl CaLimits {
    /// Let's Encrypt's limits.
    ///
    /// Source: letsencrypt.org/docs/rate-limits, last changed 2026-08-05 (read 2026-11); renewals of the same set: Boulder, wfe2 (read 2026-11).
    pub fn lets_encrypt(ca: &str) -> Self {
        Self {
            ca: ca.to_owned(),
            orders: Some(per(300, Duration::from_secs(3 * 3600))),
            domain: Some(per(50, WEEK)),
            exact_set: Some(per(5, WEEK)),
            failures: Some(per(5, HOUR)),
            pace: PACE,
            are_renewals_exempt: true,
            safety_percent: SAFETY_PERCENT,
        }
    }

    /// Let's Encrypt's staging limits.
    ///
    /// Source: letsencrypt.org/docs/staging-environment (read 2026-11).
    pub fn lets_encrypt_staging(ca: &str) -> Self {
        Self {
            orders: Some(per(1500, Duration::from_secs(3 * 3600))),
            domain: None,
            exact_set: Some(per(30_000, WEEK)),
            failures: Some(per(200, HOUR)),
            ..Self::lets_encrypt(ca)
        }
    }

    /// A CA without known limits: only our own pace, and whatever it refuses.
    pub fn unknown(ca: &str) -> Self {
        Self { orders: None, domain: None, exact_set: None, failures: None, ..Self::lets_encrypt(ca) }
    }

    /// A CA of one's own without limits: the pace is so fast that nothing waits for it.
    pub fn none(ca: &str) -> Self {
        Self { pace: BucketShape { capacity: 10_000, refill: Duration::from_millis(1) }, ..Self::unknown(ca) }
    }

    /// The limits that belong to a directory's URL.
    pub fn of_directory(url: &str) -> Self {
        let ca = url.strip_prefix("https://").unwrap_or(url).trim_end_matches('/');
        match ca.split('/').next().unwrap_or(ca) {
            "acme-v02.api.letsencrypt.org" => Self::lets_encrypt(ca),
            "acme-staging-v02.api.letsencrypt.org" => Self::lets_encrypt_staging(ca),
            _ => Self::unknown(ca),
        }
    }

    /// The same limits with time running faster, for a CA that enforces them so in a test; the pace stays.
    pub fn scaled(mut self, times: u32) -> Self {
        let faster = |shape: BucketShape| BucketShape { refill: shape.refill / times.max(1), ..shape };
        for shape in [&mut self.orders, &mut self.domain, &mut self.exact_set, &mut self.failures] {
            *shape = shape.map(faster);
        }
        self
    }

    /// What we use of a limit.
    fn ours(&self, shape: BucketShape) -> BucketShape {
        let percent = self.safety_percent.clamp(1, 100);
        BucketShape { capacity: (shape.capacity.saturating_mul(percent) / 100).max(1), refill: shape.refill * 100 / percent }
    }

    /// The bucket of new orders.
    pub fn orders_bucket(&self) -> String {
        format!("{}|orders", self.ca)
    }

    /// The bucket of our own pace.
    pub fn pace_bucket(&self) -> String {
        format!("{}|pace", self.ca)
    }

    /// The bucket of the hostname's registered domain.
    pub fn domain_bucket(&self, hostname: &Hostname) -> String {
        format!("{}|domain|{}", self.ca, hostname.registered_domain().unwrap_or(hostname.base()))
    }

    fn set_bucket(&self, hostname: &Hostname) -> String {
        format!("{}|set|{hostname}", self.ca)
    }

    fn failures_bucket(&self, hostname: &Hostname) -> String {
        format!("{}|failures|{}", self.ca, hostname.base())
    }

    /// Every bucket that people are shown, with its shape as we use it; the domain's only for a hostname.
    pub fn shown(&self, hostname: Option<&Hostname>) -> Vec<(String, BucketShape)> {
        let mut shown = vec![(self.pace_bucket(), self.pace)];
        shown.extend(self.orders.map(|shape| (self.orders_bucket(), self.ours(shape))));
        if let Some(hostname) = hostname {
            shown.extend(self.domain.map(|shape| (self.domain_bucket(hostname), self.ours(shape))));
        }
        shown
    }

    /// Everything an order needs.
    pub fn needs(&self, hostname: &Hostname, kind: OrderKind, lane: Lane) -> Vec<Need> {
        let shared = |bucket: String, shape: BucketShape| Need {
            bucket,
            shape,
            keeps: share(shape, keeps_percent(lane)),
            reserve: match lane {
                Lane::New => share(shape, RESERVE_PERCENT),
                Lane::Renewal | Lane::Urgent => 0,
            },
            is_returned: false,
        };
        let own = |bucket: String, shape: BucketShape, is_returned: bool| Need {
            bucket,
            shape: self.ours(shape),
            keeps: 0,
            reserve: 0,
            is_returned,
        };
        let mut needs = vec![shared(self.pace_bucket(), self.pace)];
        if kind == OrderKind::AriRenewal {
            return needs;
        }
        if kind == OrderKind::New || !self.are_renewals_exempt {
            // Where renewals do not count, nothing of the new orders needs to be kept for them.
            needs.extend(self.orders.map(|shape| {
                let need = shared(self.orders_bucket(), self.ours(shape));
                if self.are_renewals_exempt { Need { keeps: 0, ..need } } else { need }
            }));
            needs.extend(self.domain.map(|shape| own(self.domain_bucket(hostname), shape, true)));
        }
        // The CA counts certificates, so an order that ended without one gives these back; a failure it keeps.
        needs.extend(self.exact_set.map(|shape| own(self.set_bucket(hostname), shape, true)));
        needs.extend(self.failures.map(|shape| own(self.failures_bucket(hostname), shape, false)));
        needs
    }

    /// The reservation of a claim's attempt; `None` when the claim has none.
    pub fn reservation(&self, claim: &Claim, now: Timestamp) -> Option<Reservation> {
        let attempt = claim.issuance()?.attempt.as_ref()?;
        Some(self.reservation_of(claim, &attempt.spki_sha256, &attempt.plan, now))
    }

    /// What a certificate takes that was issued behind the ledger's back, for whoever finds it: of the limits that the CA remembers for
    /// days. `is_renewal`: the name had one before.
    pub fn issued_elsewhere(&self, key: &ClaimKey, spki_sha256: &str, is_renewal: bool) -> Reservation {
        let kind = if is_renewal { OrderKind::Renewal } else { OrderKind::New };
        let days = [self.domain_bucket(&key.hostname), self.set_bucket(&key.hostname)];
        let mut needs = self.needs(&key.hostname, kind, Lane::Urgent);
        needs.retain(|need| days.contains(&need.bucket));
        Reservation {
            attempt: format!("{}|elsewhere|{spki_sha256}", self.ca),
            tenant: key.tenant.clone(),
            lane: Lane::Urgent,
            needs,
            remembered: REMEMBERED,
        }
    }

    /// What an attempt with this plan would have to reserve, for asking the ledger before there is a key: to be decided on, never to be applied.
    pub fn foreseen(&self, claim: &Claim, plan: &OrderPlan, now: Timestamp) -> Reservation {
        self.reservation_of(claim, "foreseen", plan, now)
    }

    fn reservation_of(&self, claim: &Claim, key: &str, plan: &OrderPlan, now: Timestamp) -> Reservation {
        let kind = order_kind(claim, plan, now);
        let lane = lane(claim, now);
        Reservation {
            attempt: format!("{}|{key}", self.ca),
            tenant: claim.key.tenant.clone(),
            lane,
            needs: self.needs(&claim.key.hostname, kind, lane),
            remembered: REMEMBERED,
        }
    }

    /// The pause that a refusal of the CA asks for: of the bucket whose limit its words name, of the whole CA otherwise.
    pub fn pause(&self, hostname: &Hostname, retry_after: Option<Duration>, detail: &str, now: Timestamp) -> LedgerMove {
        let words = detail.to_ascii_lowercase();
        let bucket = if words.contains("exact set") {
            self.set_bucket(hostname)
        } else if words.contains("failed authorizations") {
            self.failures_bucket(hostname)
        } else if words.contains("already issued for") {
            self.domain_bucket(hostname)
        } else if words.contains("new orders") && self.orders.is_some() {
            self.orders_bucket()
        } else {
            self.pace_bucket()
        };
        let told = retry_after.map(|wait| after(now, wait)).or_else(|| retry_time(detail));
        let until = told.unwrap_or_else(|| after(now, UNNAMED_WAIT)).max(after(now, Duration::from_secs(1)));
        LedgerMove::Pause { bucket, until, why: detail.chars().take(300).collect() }
    }

    /// What a bucket's name means to people, with its registered domain or name.
    pub fn told(&self, bucket: &str) -> String {
        let own = bucket.strip_prefix(&self.ca).and_then(|rest| rest.strip_prefix('|')).unwrap_or(bucket);
        match own.split_once('|').unwrap_or((own, "")) {
            ("orders", _) => "new orders of this account".to_owned(),
            ("domain", domain) => format!("certificates for {domain}"),
            ("set", name) => format!("certificates for exactly {name}"),
            ("failures", name) => format!("failed authorizations of {name}"),
            ("pace", _) => "orders a second".to_owned(),
            _ => own.to_owned(),
        }
    }
}

/// How the CA will count an order of this claim.
///
/// A renewal counts as one only at the CA that issued before, and as one that it asked for itself only while its window lasts and the order
/// says what it replaces. Source: Boulder, wfe2 (read 2026-11).
fn order_kind(claim: &Claim, plan: &OrderPlan, now: Timestamp) -> OrderKind {
    let State::Active { certificate, renewal, .. } = &claim.state else { return OrderKind::New };
    let is_in_window = renewal.window.is_some_and(|(start, end)| start <= now && now < end);
    match (certificate.ca == plan.ca, plan.replaces.is_some() && is_in_window) {
        (false, _) => OrderKind::New,
        (true, true) => OrderKind::AriRenewal,
        (true, false) => OrderKind::Renewal,
    }
}

/// The lane of a claim's next order.
pub fn lane(claim: &Claim, now: Timestamp) -> Lane {
    let State::Active { certificate, renewal, .. } = &claim.state else { return Lane::New };
    let left = Duration::try_from(certificate.not_after.duration_since(now)).unwrap_or_default();
    let lifetime = Duration::try_from(certificate.not_after.duration_since(certificate.not_before)).unwrap_or_default();
    // A window long before the usual moment is the CA's way to say that the certificate is or will be revoked.
    let usual = renewal::due_without_window(&claim.key.hostname, certificate);
    let is_pulled_forward = after(renewal.due_at, lifetime / 10) < usual;
    if left < lifetime / URGENT_BELOW || is_pulled_forward { Lane::Urgent } else { Lane::Renewal }
}

fn keeps_percent(lane: Lane) -> u32 {
    match lane {
        Lane::Urgent => 0,
        Lane::Renewal => URGENT_SHARE_PERCENT,
        Lane::New => URGENT_SHARE_PERCENT + RENEWAL_SHARE_PERCENT,
    }
}

fn share(shape: BucketShape, percent: u32) -> u32 {
    if percent == 0 { 0 } else { (shape.capacity.saturating_mul(percent) / 100).max(1) }
}

/// The moment at the end of Boulder's words: `retry after 2026-11-25 10:00:00 UTC`.
fn retry_time(detail: &str) -> Option<Timestamp> {
    let (_, rest) = detail.rsplit_once("retry after ")?;
    let date = rest.get(..10)?;
    let time = rest.get(11..19)?;
    format!("{date}T{time}Z").parse().ok()
}
