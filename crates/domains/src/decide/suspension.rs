//! Suspending a domain, and resuming it.
//!
//! Arrives: a claim, its owner item and, to resume, its certificate. Leaves: a suspension beside the state, and a site version that takes
//! the site down or brings it back. Goes wrong: nothing; what was removed is neither suspended nor resumed.
//!
//! The state, the proof and the certificate stay as they are, so that resuming needs no order. Versions only grow: down is one version
//! on, and up again another one, which the certificate takes.

use jiff::Timestamp;

use super::rewrite;
use crate::{Change, Claim, Hostname, Issuance, Owner, Publication, Put, SiteVersion, State, StoredCertificate, Suspension};

pub(super) fn is_over(claim: &Claim) -> bool {
    matches!(claim.state, State::Removing { .. } | State::Removed { .. })
}

/// The owner item one site version on, when the claim's tenant is the owner.
fn next_site(claim: &Claim, owner: Option<&Owner>) -> Option<Put<Owner>> {
    let owner = owner.filter(|owner| owner.tenant.as_ref() == Some(&claim.key.tenant))?;
    let item = Owner::changed(Some(owner), &claim.key.hostname, Some(claim.key.tenant.clone()));
    Some(Put { item, expected: Some(owner.version) })
}

/// Takes the name out of service until it is resumed. A certificate on its way comes all the same; none is renewed. `None` when the
/// claim is over, or suspended already for this reason.
pub fn suspend(claim: &Claim, owner: Option<&Owner>, reason: &str, now: Timestamp) -> Option<Change> {
    let before = claim.suspension.as_ref();
    if is_over(claim) || before.is_some_and(|suspension| suspension.reason == reason) {
        return None;
    }
    let mut state = claim.state.clone();
    let mut site = None;
    if let (State::Active { publication, .. }, None) = (&mut state, before) {
        *publication = Publication::Due { next_look: now };
        // Without it the claim would be active and not the owner's, which no decision makes.
        site = Some(next_site(claim, owner)?);
    }
    let since = before.map_or(now, |suspension| suspension.since);
    let site_version = site.as_ref().map(|site| site.item.site_version).or(before.and_then(|suspension| suspension.site_version));
    let mut change = rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, Some("suspended"));
    change.claims[0].item.suspension = Some(Suspension { since, reason: reason.to_owned(), site_version, ends_when_seen: false });
    change.history[0].detail = Some(reason.to_owned());
    change.owner = site;
    Some(change)
}

/// Brings the name back into service: at once with the certificate it had while that is valid, with a new one otherwise. `None` when the
/// claim is over or not suspended, or when `stored` is not the certificate that the claim names.
pub fn resume(claim: &Claim, owner: Option<&Owner>, stored: Option<&StoredCertificate>, now: Timestamp) -> Option<Change> {
    claim.suspension.as_ref()?;
    if is_over(claim) {
        return None;
    }
    let State::Active { proof, certificate, renewal, .. } = &claim.state else {
        return Some(lifted(claim, claim.state.clone(), now));
    };
    if certificate.not_after <= now {
        let issuance = Issuance { next_look: now, stopped: None, ..renewal.issuance.clone() };
        let mut change = lifted(claim, State::Issuing { proof: *proof, issuance }, now);
        change.dropped_certificates = vec![(claim.key.hostname.clone(), certificate.version)];
        return Some(change);
    }
    let (mut state, site) = shown_anew(claim, owner, stored, now)?;
    if let State::Active { renewed, .. } = &mut state {
        // Nothing is served until this is published.
        *renewed = false;
    }
    Some(site.written_with(lifted(claim, state, now)))
}

/// A site one version on, with the certificate it has.
pub(super) struct SameCertificate {
    owner: Put<Owner>,
    dropped: (Hostname, SiteVersion),
    certificate: StoredCertificate,
}

impl SameCertificate {
    pub(super) fn written_with(self, change: Change) -> Change {
        let Self { owner, dropped, certificate } = self;
        Change { owner: Some(owner), dropped_certificates: vec![dropped], certificate: Some(certificate), ..change }
    }
}

/// An active claim whose site is published anew with the certificate it has. `None` for another, or when `stored` is not that certificate.
pub(super) fn shown_anew(
    claim: &Claim,
    owner: Option<&Owner>,
    stored: Option<&StoredCertificate>,
    now: Timestamp,
) -> Option<(State, SameCertificate)> {
    let mut state = claim.state.clone();
    let State::Active { certificate, publication, .. } = &mut state else { return None };
    let stored = stored.filter(|stored| stored.version == certificate.version)?;
    let owner = next_site(claim, owner)?;
    let version = owner.item.site_version;
    certificate.version = version;
    *publication = Publication::Due { next_look: now };
    let dropped = (claim.key.hostname.clone(), stored.version);
    Some((state, SameCertificate { owner, dropped, certificate: StoredCertificate { version, ..stored.clone() } }))
}

fn lifted(claim: &Claim, state: State, now: Timestamp) -> Change {
    let mut change = rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, Some("resumed"));
    change.claims[0].item.suspension = None;
    change
}
