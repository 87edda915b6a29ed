//! When a certificate is renewed.
//!
//! Arrives: the certificate's dates and, where the CA has one, its renewal window. Leaves: one moment, the same after every restart,
//! spread so that what was issued together is not renewed together. Goes wrong: nothing; without a window the dates decide.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::{CertificateFacts, Hostname, RenewalWindow, claim::after};

/// Below this lifetime a certificate is renewed at half of its life, above at two thirds.
///
/// Source: Let's Encrypt integration guide (read 2026-11): a third of the lifetime left, half for lifetimes under ten days.
const SHORT_LIFETIME: Duration = Duration::from_secs(10 * 86_400);

/// The share of the lifetime, in parts of 100, over which renewals without a window are spread.
const SPREAD_PERCENT: u32 = 5;

/// The share of a certificate's life after which no renewal begins on purpose, whatever window its CA names: what is left is for failures.
const LATEST_SHARE: f64 = 5.0 / 6.0;

/// The longest time between two looks at a renewal window.
///
/// Source: RFC 9773, section 4.3.3 limits and Let's Encrypt's wish for at least two polls a day (read 2026-11).
const WINDOW_POLL_CAP: Duration = Duration::from_secs(12 * 3600);

/// When to renew if the CA offers no window: a share of the lifetime, less a spread that depends on name and serial only.
pub(crate) fn due_without_window(hostname: &Hostname, certificate: &CertificateFacts) -> Timestamp {
    let lifetime = lifetime(certificate);
    let share = if lifetime < SHORT_LIFETIME { lifetime / 2 } else { lifetime / 3 * 2 };
    let spread = (lifetime * SPREAD_PERCENT / 100).mul_f64(point(hostname, certificate));
    after(certificate.not_before, share.saturating_sub(spread))
}

/// A point of the CA's window that a restart does not move. What of the window would leave no time for a renewal does not count: a window may
/// be as wide as it likes, even wider than the certificate's life.
pub(crate) fn due_in_window(hostname: &Hostname, certificate: &CertificateFacts, window: &RenewalWindow) -> Timestamp {
    let last = after(certificate.not_before, lifetime(certificate).mul_f64(LATEST_SHARE));
    let width = Duration::try_from(window.end.min(last).duration_since(window.start)).unwrap_or_default();
    after(window.start, width.mul_f64(point(hostname, certificate))).min(last)
}

/// When the window is asked for first.
pub(crate) fn first_window_poll(certificate: &CertificateFacts, now: Timestamp) -> Timestamp {
    after(now, (lifetime(certificate) / 4).min(WINDOW_POLL_CAP))
}

/// When the window is asked for again: at the CA's pace, but never less often than [`WINDOW_POLL_CAP`], since a revocation moves it.
pub(crate) fn next_window_poll(certificate: &CertificateFacts, window: &RenewalWindow, now: Timestamp) -> Timestamp {
    let floor = Duration::from_secs(60).min(lifetime(certificate) / 4).max(Duration::from_secs(1));
    after(now, window.retry_after.clamp(floor, WINDOW_POLL_CAP))
}

/// When the window is asked for again after a failure for which the CA named no wait.
pub(crate) fn window_retry(certificate: &CertificateFacts) -> Duration {
    (lifetime(certificate) / 16).min(WINDOW_POLL_CAP / 2)
}

fn lifetime(certificate: &CertificateFacts) -> Duration {
    Duration::try_from(certificate.not_after.duration_since(certificate.not_before)).unwrap_or_default()
}

/// A number in [0, 1) that depends on name and serial only.
fn point(hostname: &Hostname, certificate: &CertificateFacts) -> f64 {
    let digest = Sha256::new().chain_update(hostname.as_str()).chain_update("|").chain_update(&certificate.serial).finalize();
    let high = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SiteVersion;

    fn certificate(days: i64, serial: &str) -> CertificateFacts {
        let not_before: Timestamp = "2026-11-23T00:00:00Z".parse().unwrap();
        CertificateFacts {
            version: SiteVersion(1),
            serial: serial.into(),
            spki_sha256: String::new(),
            not_before,
            not_after: after(not_before, Duration::from_secs(days.unsigned_abs() * 86_400)),
            ari_id: None,
            ca: crate::CaChoice::First,
        }
    }

    fn name(label: u32) -> Hostname {
        Hostname::parse_name(&format!("shop{label}.brand.com")).unwrap()
    }

    #[test]
    fn renewal_comes_before_the_last_third_and_before_the_last_half_of_a_short_life() {
        for (days, share) in [(90, 2.0 / 3.0), (45, 2.0 / 3.0), (6, 0.5)] {
            let certificate = certificate(days, "0a");
            let life = certificate.not_after.duration_since(certificate.not_before).as_secs_f64();
            for label in 0..200 {
                let due = due_without_window(&name(label), &certificate).duration_since(certificate.not_before).as_secs_f64();
                assert!(due <= life * share + 1.0 && due >= life * (share - 0.05) - 1.0, "{days} days: due after {due} s of {life}");
            }
        }
    }

    #[test]
    fn a_cohort_of_one_day_is_spread_and_each_name_keeps_its_moment() {
        let certificate = certificate(90, "0a");
        let mut moments: Vec<_> = (0..500).map(|label| due_without_window(&name(label), &certificate)).collect();
        assert_eq!(moments[7], due_without_window(&name(7), &certificate));
        moments.sort();
        moments.dedup();
        assert!(moments.len() > 480, "500 names share {} moments", moments.len());
        let width = moments[moments.len() - 1].duration_since(moments[0]).as_hours();
        assert!(width > 90, "spread over {width} hours only");
    }

    #[test]
    fn the_point_of_a_window_lies_inside_it_and_leaves_time_to_renew() {
        let certificate = certificate(90, "0b");
        let start = after(certificate.not_before, Duration::from_secs(60 * 86_400));
        let window = RenewalWindow { start, end: after(start, Duration::from_secs(43 * 3600)), retry_after: Duration::from_secs(21_600) };
        for label in 0..200 {
            let due = due_in_window(&name(label), &certificate, &window);
            assert!(due >= window.start && due <= window.end);
        }
        // Pebble's windows are two days wide, however short its certificates live (version 2.10).
        let day = Duration::from_secs(86_400);
        let latest = after(certificate.not_before, Duration::from_secs(75 * 86_400));
        for (start, end) in [(60, 120), (85, 88), (100, 101)] {
            let [start, end] = [start, end].map(|days| after(certificate.not_before, day * days));
            let window = RenewalWindow { start, end, retry_after: Duration::ZERO };
            for label in 0..200 {
                let due = due_in_window(&name(label), &certificate, &window);
                assert!(due <= latest && due >= start.min(latest), "{due} leaves no time");
            }
        }
        let past = RenewalWindow { start: certificate.not_before, end: certificate.not_before, retry_after: Duration::ZERO };
        assert_eq!(due_in_window(&name(1), &certificate, &past), certificate.not_before, "a revoked certificate is due at once");
    }
}
