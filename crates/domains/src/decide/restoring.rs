//! What a restored backup makes of a name, beside what the bucket still shows of it.
//!
//! Arrives: a hostname's items as they were when the backup was taken, and what the bucket shows now, if it survived. Leaves: the items that
//! are true today. Goes wrong: nothing; what cannot be known is not served until it is seen in DNS again.
//!
//! Two promises decide it. **Nothing is issued again**: a certificate that the bucket shows and the backup does not know is taken over with
//! its sealed key, and an order under way keeps its URL, so that the CA is asked what became of it. **Nothing comes back**: a name that the
//! bucket shows as gone stays gone, one that it shows as suspended stays so, and one of which no trace is left is suspended until a look finds its records once more.

use jiff::Timestamp;

use super::rewrite;
use crate::{
    CLAIM_SCHEMA, CaChoice, CertificateFacts, Change, Claim, ClaimId, ClaimKey, Hostname, Issuance, Issued, Judgement, OriginName, Owner,
    OwnershipToken, Proof, Publication, Put, RemovalReason, Renewal, SiteVersion, State, Step, StoredCertificate, Suspension, TenantId,
    renewal,
};

/// What the bucket shows of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// It is served.
    Site(Box<ShownSite>),
    /// It is gone, or out of service.
    Gone {
        /// Since this version.
        version: SiteVersion,
        /// Whose it is, where it is only suspended.
        suspended: Option<TenantId>,
    },
    /// It was served, but its certificate does not read any more.
    Lost {
        /// As this version.
        version: SiteVersion,
    },
}

/// A site as the bucket has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSite {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its version.
    pub version: SiteVersion,
    /// Its certificate.
    pub issued: Issued,
    /// The key of it, sealed.
    pub sealed_key: String,
    /// SHA-256 of its public key, hex.
    pub spki_sha256: String,
    /// The claim that proved the name; `None` where an older version published it.
    pub claim: Option<(ClaimId, OwnershipToken)>,
    /// The origin its requests go to.
    pub origin: Option<OriginName>,
}

impl Shown {
    /// The version shown.
    pub fn version(&self) -> SiteVersion {
        match self {
            Self::Site(site) => site.version,
            Self::Gone { version, .. } | Self::Lost { version } => *version,
        }
    }
}

/// Brings a hostname of a backup, `taken_at` then, up to what is known now; `None` when the backup says all there is to say.
///
/// A site that the bucket shows for a claim that neither the backup nor the bucket describes stays as it is shown, and only its version is
/// taken over.
pub fn restore(
    hostname: &Hostname,
    owner: Option<&Owner>,
    claims: &[Claim],
    shown: Option<&Shown>,
    taken_at: Timestamp,
    now: Timestamp,
) -> Option<Change> {
    let known = owner.map_or(SiteVersion(0), |owner| owner.site_version);
    let mut change = match shown {
        Some(Shown::Site(site)) if site.version > known => adopt(hostname, owner, claims, site, now),
        Some(Shown::Gone { version, suspended }) if *version > known => {
            let kept = suspended.as_ref().and_then(|tenant| keep_suspended(owner, claims, tenant, *version, taken_at, now));
            kept.unwrap_or_else(|| end_all(hostname, owner, claims, *version, now))
        }
        Some(Shown::Lost { version }) => {
            let mut change = withhold(owner, claims, taken_at, now).unwrap_or_default();
            if *version > known {
                let tenant = owner.and_then(|owner| owner.tenant.clone());
                change.owner = Some(owner_at(owner, hostname, tenant, *version));
            } else if *version < known && change == Change::default() {
                change = take_down_again(claims, now)?;
            }
            change
        }
        Some(shown) if shown.version() < known => publish_again(owner, claims, shown, now)?,
        Some(_) => return None,
        None => withhold(owner, claims, taken_at, now)?,
    };
    change.dropped_certificates.dedup();
    (change != Change::default()).then_some(change)
}

/// Whether a look found what a claim restored from a backup waits for.
pub fn is_seen_again(claim: &Claim, judgement: &Judgement) -> bool {
    let waits = claim.suspension.as_ref().is_some_and(|suspension| suspension.ends_when_seen);
    let stands = matches!(super::standing(claim, judgement), super::Standing::Here | super::Standing::Delegated);
    waits && stands && matches!(claim.state, State::Active { .. })
}

fn owner_at(before: Option<&Owner>, hostname: &Hostname, tenant: Option<TenantId>, site_version: SiteVersion) -> Put<Owner> {
    let version = before.map_or(0, |owner| owner.version);
    let item = Owner { hostname: hostname.clone(), tenant, site_version, version: version + 1 };
    Put { item, expected: before.map(|owner| owner.version) }
}

fn is_over(claim: &Claim) -> bool {
    matches!(claim.state, State::Removing { .. } | State::Removed { .. })
}

fn take(change: &mut Change, other: Change) {
    change.claims.extend(other.claims);
    change.history.extend(other.history);
    change.dropped_certificates.extend(other.dropped_certificates);
}

/// The bucket has a newer certificate than the backup: issued, renewed or moved to another tenant meanwhile.
fn adopt(hostname: &Hostname, owner: Option<&Owner>, claims: &[Claim], site: &ShownSite, now: Timestamp) -> Change {
    let mut change = Change::default();
    let before = claims.iter().find(|claim| claim.key.tenant == site.tenant);
    // What the site shows is served, so the operator's suspension was lifted, and whatever was under way has ended.
    match (before, &site.claim) {
        (Some(before), identity) => {
            let mut adopted =
                rewrite(before, adopted_state(hostname, before.proof(), site, now), None, None, now, Some("certificate_restored"));
            let item = &mut adopted.claims[0].item;
            item.suspension = None;
            item.origin.clone_from(&site.origin);
            if let Some((claim_id, token)) = identity {
                (item.claim_id, item.token) = (claim_id.clone(), token.clone());
            }
            take(&mut change, adopted);
            change.dropped_certificates.extend(certificate_of(before));
        }
        (None, Some((claim_id, token))) => take(&mut change, made_again(hostname, site, claim_id, token, now)),
        (None, None) => {
            change.owner = Some(owner_at(owner, hostname, None, site.version));
            return change;
        }
    }
    for rival in claims.iter().filter(|claim| claim.key.tenant != site.tenant && !is_over(claim)) {
        if owner.and_then(|owner| owner.tenant.as_ref()) == Some(&rival.key.tenant) {
            take(&mut change, ended(rival, RemovalReason::Transferred, now));
        }
    }
    change.dropped_certificates.retain(|(_, version)| *version != site.version);
    change.owner = Some(owner_at(owner, hostname, Some(site.tenant.clone()), site.version));
    change.certificate = Some(StoredCertificate {
        hostname: hostname.clone(),
        tenant: site.tenant.clone(),
        version: site.version,
        chain: site.issued.chain.clone(),
        sealed_key: site.sealed_key.clone(),
        spki_sha256: site.spki_sha256.clone(),
    });
    change
}

fn adopted_state(hostname: &Hostname, proof: Option<Proof>, site: &ShownSite, now: Timestamp) -> State {
    let certificate = CertificateFacts {
        version: site.version,
        serial: site.issued.serial.clone(),
        spki_sha256: site.spki_sha256.clone(),
        not_before: site.issued.not_before,
        not_after: site.issued.not_after,
        ari_id: site.issued.ari_id.clone(),
        ca: CaChoice::First,
    };
    let due_at = renewal::due_without_window(hostname, &certificate);
    State::Active {
        // How it was proved meanwhile is found out by the look that is due now; until then a wildcard is known to have one way only.
        proof: proof.unwrap_or(if hostname.is_wildcard() { Proof::Delegation } else { Proof::RoutingRecord }),
        renewal: Renewal {
            due_at,
            window: None,
            window_poll: certificate.ari_id.as_ref().map(|_| renewal::first_window_poll(&certificate, now)),
            issuance: Issuance::new(due_at),
        },
        publication: Publication::Done { version: site.version, at: now },
        certificate,
        renewed: false,
        health_look: now,
    }
}

/// A claim that was made after the backup, from what its site says of it.
fn made_again(hostname: &Hostname, site: &ShownSite, claim_id: &ClaimId, token: &OwnershipToken, now: Timestamp) -> Change {
    let claim = Claim {
        schema: CLAIM_SCHEMA,
        key: ClaimKey { hostname: hostname.clone(), tenant: site.tenant.clone() },
        claim_id: claim_id.clone(),
        token: token.clone(),
        version: 1,
        sequence: 1,
        created_at: now,
        since: now,
        written_at: now,
        state: adopted_state(hostname, None, site, now),
        problem: None,
        last_look: None,
        suspension: None,
        stale_site: None,
        origin: site.origin.clone(),
    };
    let history = vec![super::entry(&claim, "certificate_restored", None, now)];
    Change { claims: vec![Put { item: claim, expected: None }], history, ..Change::default() }
}

/// The bucket shows that the name went after the backup.
fn end_all(hostname: &Hostname, owner: Option<&Owner>, claims: &[Claim], version: SiteVersion, now: Timestamp) -> Change {
    let mut change = Change::default();
    let owns = owner.and_then(|owner| owner.tenant.as_ref());
    // Without an owner in the backup, whoever claimed the name then may be the one that proved it and left.
    for claim in claims.iter().filter(|claim| !is_removed(claim) && owns.is_none_or(|tenant| *tenant == claim.key.tenant)) {
        take(&mut change, ended(claim, RemovalReason::Requested, now));
    }
    change.owner = Some(owner_at(owner, hostname, None, version));
    change
}

/// The bucket shows that the name was suspended after the backup: it stays so, with the certificate that the backup has. `None` where the
/// backup has none, or has another's: then there is nothing that could come back into service.
fn keep_suspended(
    owner: Option<&Owner>,
    claims: &[Claim],
    tenant: &TenantId,
    version: SiteVersion,
    taken_at: Timestamp,
    now: Timestamp,
) -> Option<Change> {
    let claim = owned(owner, claims).filter(|claim| claim.key.tenant == *tenant)?;
    let mut state = claim.state.clone();
    let State::Active { publication, .. } = &mut state else { return None };
    *publication = Publication::Done { version, at: now };
    let known = claim.suspension.clone().filter(|known| !known.ends_when_seen);
    let suspension = known.unwrap_or_else(|| Suspension {
        since: now,
        reason: format!("suspended after the backup of {taken_at}, which does not say why"),
        site_version: None,
        ends_when_seen: false,
    });
    let mut change = rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, Some("suspended"));
    change.claims[0].item.suspension = Some(Suspension { site_version: Some(version), ..suspension });
    change.owner = Some(owner_at(owner, &claim.key.hostname, Some(tenant.clone()), version));
    Some(change)
}

fn is_removed(claim: &Claim) -> bool {
    matches!(claim.state, State::Removed { .. })
}

fn ended(claim: &Claim, reason: RemovalReason, now: Timestamp) -> Change {
    let mut change = rewrite(claim, State::Removed { reason }, None, claim.last_look.clone(), now, Some("gone_after_backup"));
    change.dropped_certificates.extend(certificate_of(claim));
    change
}

fn certificate_of(claim: &Claim) -> Option<(Hostname, SiteVersion)> {
    match &claim.state {
        State::Active { certificate, .. } => Some((claim.key.hostname.clone(), certificate.version)),
        _ => None,
    }
}

/// The bucket is behind the backup: what it should show is published again, be it that the name is gone.
fn publish_again(owner: Option<&Owner>, claims: &[Claim], shown: &Shown, now: Timestamp) -> Option<Change> {
    let Some((claim, State::Active { publication, .. })) = owned(owner, claims).map(|claim| (claim, &claim.state)) else {
        // An older tombstone serves nothing.
        return if matches!(shown, Shown::Gone { .. }) { None } else { take_down_again(claims, now) };
    };
    if !matches!(publication, Publication::Done { version, .. } if *version > shown.version()) {
        return None;
    }
    let mut state = claim.state.clone();
    if let State::Active { publication, .. } = &mut state {
        *publication = Publication::Due { next_look: now };
    }
    Some(rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, None))
}

/// Nobody's site is to be shown, and the bucket shows one from before: the name's tombstone is due again, with whichever claim can carry it.
fn take_down_again(claims: &[Claim], now: Timestamp) -> Option<Change> {
    if claims.iter().any(|claim| claim.is_due(Step::PublishSite, now)) {
        return None;
    }
    let claim = claims.iter().find(|claim| !is_over(claim)).or_else(|| claims.first())?;
    let state = match &claim.state {
        State::Removing { reason, .. } | State::Removed { reason } => State::Removing { reason: *reason, next_look: now },
        going_on => going_on.clone(),
    };
    let is_going_on = !matches!(state, State::Removing { .. });
    let mut change = rewrite(claim, state, claim.problem.clone(), claim.last_look.clone(), now, None);
    change.claims[0].item.stale_site = is_going_on.then_some(now);
    Some(change)
}

fn owned<'c>(owner: Option<&Owner>, claims: &'c [Claim]) -> Option<&'c Claim> {
    let tenant = owner?.tenant.as_ref()?;
    claims.iter().find(|claim| claim.key.tenant == *tenant)
}

/// Nothing tells whether the name was removed after the backup: it is served once a look has found it again.
fn withhold(owner: Option<&Owner>, claims: &[Claim], taken_at: Timestamp, now: Timestamp) -> Option<Change> {
    let claim = owned(owner, claims)?;
    let mut state = claim.state.clone();
    match &mut state {
        State::Active { health_look, .. } => *health_look = now,
        // An order under way is asked after; without one, a fresh look comes before it.
        State::Issuing { .. } => {}
        State::AwaitingProof { .. } | State::AwaitingRouting { .. } | State::Removing { .. } | State::Removed { .. } => return None,
    }
    let suspension = claim.suspension.clone().unwrap_or_else(|| Suspension {
        since: now,
        reason: format!("restored from the backup of {taken_at}; served again once its records are seen in DNS"),
        site_version: None,
        ends_when_seen: true,
    });
    let mut change = rewrite(claim, state, claim.problem.clone(), None, now, Some("restored"));
    change.claims[0].item.suspension = Some(suspension);
    Some(change)
}
