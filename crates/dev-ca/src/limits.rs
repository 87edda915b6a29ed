//! The limits that this CA enforces when it is told to, as Let's Encrypt does.
//!
//! Arrives: a wish for an order, certificates issued, proofs failed or shown. Leaves: nothing, or a refusal in Boulder's words with the moment
//! from which on the same wish is granted. Goes wrong: nothing. The buckets are counted here on purpose in another way than clients may count
//! them: this is who they are judged by.
//!
//! Source: letsencrypt.org/docs/rate-limits (2026-08-05); Boulder, ratelimits/transaction, wfe2 and probs (read 2026-11).

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::durations::as_words;
use crate::names::without_wildcard;

/// How long a set of names counts as seen before, which makes its next order a renewal. Source: Boulder, 120 days (read 2026-11).
const SEEN_FOR: Duration = Duration::from_hours(120 * 24);

/// So many, and all of them again after so long: a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How many at once.
    pub count: u32,
    /// In which time as many come back.
    #[serde(with = "as_words")]
    pub per: Duration,
}

/// What is limited; what is left out is not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// New orders, per account; renewals are free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub orders: Option<Limit>,
    /// Certificates per registered domain, all accounts together; renewals are free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Limit>,
    /// Certificates for the same set of names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact_set: Option<Limit>,
    /// Failed authorizations per name and account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<Limit>,
    /// After so many failures in a row a name is paused for the account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause_after: Option<u32>,
}

impl Limits {
    /// Let's Encrypt's, with time running `times` as fast.
    pub fn lets_encrypt(times: u32) -> Self {
        let limit = |count, hours| Some(Limit { count, per: Duration::from_hours(hours) / times.max(1) });
        Self {
            orders: limit(300, 3),
            domain: limit(50, 7 * 24),
            exact_set: limit(5, 7 * 24),
            failures: limit(5, 1),
            pause_after: Some(1152),
        }
    }
}

/// What was used of the limits: also without the rest of the CA, for a simulation of one.
#[derive(Debug, Default)]
pub struct LimitBook {
    buckets: HashMap<String, Bucket>,
    seen: HashMap<Vec<String>, Timestamp>,
    failed_in_a_row: HashMap<(String, String), u32>,
}

/// A limit's refusal: type `rateLimited`, status 429.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refused {
    /// Boulder's words.
    pub detail: String,
    /// When the same wish is granted; `None` for a name that is paused.
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Timestamp,
}

impl Limit {
    fn seconds_per_token(self) -> f64 {
        self.per.as_secs_f64() / f64::from(self.count.max(1))
    }
}

impl LimitBook {
    fn tokens(&self, key: &str, limit: Limit, now: Timestamp) -> f64 {
        let Some(bucket) = self.buckets.get(key) else { return f64::from(limit.count) };
        let gained = now.duration_since(bucket.at).as_secs_f64().max(0.0) / limit.seconds_per_token();
        (bucket.tokens + gained).min(f64::from(limit.count))
    }

    fn spend(&mut self, key: String, limit: Option<Limit>, now: Timestamp) {
        let Some(limit) = limit else { return };
        let tokens = (self.tokens(&key, limit, now) - 1.0).max(0.0);
        self.buckets.insert(key, Bucket { tokens, at: now });
    }

    fn check(&self, key: &str, limit: Option<Limit>, now: Timestamp, words: impl FnOnce(&Limit) -> String) -> Result<(), Refused> {
        let Some(limit) = limit else { return Ok(()) };
        let missing = 1.0 - self.tokens(key, limit, now);
        // A token that is there but for the last digits of a floating-point number is there.
        if missing <= 1e-9 {
            return Ok(());
        }
        let wait = Duration::from_secs_f64(missing * limit.seconds_per_token());
        let until = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        let detail = format!(
            "{} in the last {:?}, retry after {}: see https://letsencrypt.org/docs/rate-limits/",
            words(&limit),
            limit.per,
            until.strftime("%Y-%m-%d %H:%M:%S UTC")
        );
        Err(Refused { detail, retry_after: Some(wait) })
    }

    /// Judges a new order, and counts it when it is granted. `is_exempt`: it replaces a certificate inside its window.
    ///
    /// # Errors
    /// [`Refused`] by the first limit that is used up.
    pub fn order(&mut self, limits: &Limits, account: &str, names: &[String], is_exempt: bool, now: Timestamp) -> Result<(), Refused> {
        for name in names {
            let name = without_wildcard(name).0;
            let failed = self.failed_in_a_row.get(&(account.to_owned(), name.to_owned())).copied().unwrap_or(0);
            if limits.pause_after.is_some_and(|most| failed >= most) {
                let detail = format!(
                    "Your account is temporarily prevented from requesting certificates for {name} and possibly others. \
                     Please visit: https://portal.dev-ca.invalid/sfe/v1/unpause?jwt={name}"
                );
                return Err(Refused { detail, retry_after: None });
            }
        }
        if is_exempt {
            return Ok(());
        }
        let is_renewal = self.seen.get(&sorted(names)).is_some_and(|at| now.duration_since(*at).unsigned_abs() < SEEN_FOR);
        for name in names {
            let name = without_wildcard(name).0;
            self.check(&failures_key(account, name), limits.failures, now, |limit| {
                format!("too many failed authorizations ({}) for {name:?}", limit.count)
            })?;
        }
        self.check(&set_key(names), limits.exact_set, now, |limit| {
            format!("too many certificates ({}) already issued for this exact set of identifiers", limit.count)
        })?;
        if is_renewal {
            return Ok(());
        }
        for domain in registered_domains(names) {
            self.check(&domain_key(&domain), limits.domain, now, |limit| {
                format!("too many certificates ({}) already issued for {domain:?}", limit.count)
            })?;
        }
        self.check(&orders_key(account), limits.orders, now, |limit| format!("too many new orders ({}) from this account", limit.count))?;
        self.spend(orders_key(account), limits.orders, now);
        Ok(())
    }

    /// Counts a certificate. `is_exempt`: its order replaced one inside its window.
    pub fn issued(&mut self, limits: &Limits, names: &[String], is_exempt: bool, now: Timestamp) {
        let is_renewal = self.seen.insert(sorted(names), now).is_some_and(|at| now.duration_since(at).unsigned_abs() < SEEN_FOR);
        if is_exempt {
            return;
        }
        self.spend(set_key(names), limits.exact_set, now);
        if !is_renewal {
            for domain in registered_domains(names) {
                self.spend(domain_key(&domain), limits.domain, now);
            }
        }
    }

    /// Counts how a proof ended.
    pub fn proved(&mut self, limits: &Limits, account: &str, name: &str, is_shown: bool, now: Timestamp) {
        let key = (account.to_owned(), name.to_owned());
        if is_shown {
            self.failed_in_a_row.remove(&key);
            return;
        }
        *self.failed_in_a_row.entry(key).or_default() += 1;
        self.spend(failures_key(account, name), limits.failures, now);
    }

    /// Ends the pause of a name for every account, as its owner's visit of the page would.
    pub fn unpause(&mut self, name: &str) -> usize {
        let before = self.failed_in_a_row.len();
        self.failed_in_a_row.retain(|(_, known), _| known != name);
        before - self.failed_in_a_row.len()
    }
}

fn sorted(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names
}

fn registered_domains(names: &[String]) -> Vec<String> {
    let mut domains: Vec<String> =
        names.iter().map(|name| without_wildcard(name).0).map(|name| psl::domain_str(name).unwrap_or(name).to_owned()).collect();
    domains.sort();
    domains.dedup();
    domains
}

fn orders_key(account: &str) -> String {
    format!("orders|{account}")
}

fn domain_key(domain: &str) -> String {
    format!("domain|{domain}")
}

fn set_key(names: &[String]) -> String {
    format!("set|{}", sorted(names).join(","))
}

fn failures_key(account: &str, name: &str) -> String {
    format!("failures|{account}|{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).expect("a time")
    }

    fn names(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    #[test]
    fn an_account_gets_three_hundred_new_orders_and_then_one_each_thirty_six_seconds() {
        let (limits, mut used) = (Limits::lets_encrypt(1), LimitBook::default());
        for n in 0..300 {
            used.order(&limits, "a", &names(&format!("shop{n}.brand{n}.com")), false, at(0)).expect("within the limit");
        }
        let refused = used.order(&limits, "a", &names("one.more.com"), false, at(1)).expect_err("one more");
        assert!(
            refused.detail.starts_with("too many new orders (300) from this account in the last 10800s, retry after 20"),
            "{}",
            refused.detail
        );
        assert_eq!(refused.retry_after, Some(Duration::from_secs(35)));
        used.order(&limits, "b", &names("one.more.com"), false, at(1)).expect("another account's own");
        used.order(&limits, "a", &names("one.more.com"), false, at(36)).expect("a token came back");
        used.order(&limits, "a", &names("two.more.com"), false, at(36)).expect_err("only one");
    }

    #[test]
    fn a_registered_domain_counts_certificates_of_all_accounts_and_renewals_are_free() {
        let (limits, mut used) = (Limits::lets_encrypt(100), LimitBook::default());
        for n in 0..50 {
            let names = names(&format!("shop{n}.brand.co.uk"));
            used.order(&limits, &format!("account{n}"), &names, false, at(0)).expect("within the limit");
            used.issued(&limits, &names, false, at(0));
        }
        let refused = used.order(&limits, "a", &names("shop50.brand.co.uk"), false, at(0)).expect_err("the 51st");
        assert!(refused.detail.contains("(50) already issued for \"brand.co.uk\""), "{}", refused.detail);
        used.order(&limits, "a", &names("shop.other.co.uk"), false, at(0)).expect("another registered domain");
        used.order(&limits, "a", &names("shop7.brand.co.uk"), false, at(1)).expect("a renewal of the same set");
    }

    #[test]
    fn one_set_gets_five_certificates_a_week_but_for_renewals_in_their_window() {
        let (limits, mut used) = (Limits::lets_encrypt(1), LimitBook::default());
        for _ in 0..5 {
            used.order(&limits, "a", &names("shop.brand.com"), false, at(0)).expect("within the limit");
            used.issued(&limits, &names("shop.brand.com"), false, at(0));
        }
        let refused = used.order(&limits, "a", &names("shop.brand.com"), false, at(9)).expect_err("the sixth");
        assert!(refused.detail.contains("exact set of identifiers"));
        used.order(&limits, "a", &names("shop.brand.com"), true, at(9)).expect("inside the window of what it replaces");
    }

    #[test]
    fn failures_close_a_name_for_an_hour_and_very_many_in_a_row_until_somebody_comes() {
        let limits = Limits { pause_after: Some(7), ..Limits::lets_encrypt(1) };
        let mut used = LimitBook::default();
        for _ in 0..5 {
            used.proved(&limits, "a", "shop.brand.com", false, at(0));
        }
        let refused = used.order(&limits, "a", &names("shop.brand.com"), false, at(0)).expect_err("five failures");
        assert_eq!(refused.retry_after, Some(Duration::from_secs(720)));
        used.order(&limits, "a", &names("shop.brand.com"), false, at(720)).expect("one came back");
        for _ in 0..2 {
            used.proved(&limits, "a", "shop.brand.com", false, at(720));
        }
        let paused = used.order(&limits, "a", &names("shop.brand.com"), true, at(9_000)).expect_err("paused");
        assert!(paused.detail.contains("temporarily prevented") && paused.retry_after.is_none());
        assert_eq!(used.unpause("shop.brand.com"), 1);
        used.order(&limits, "a", &names("shop.brand.com"), false, at(9_000)).expect("unpaused");
    }
}
