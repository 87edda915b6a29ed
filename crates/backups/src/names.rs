//! What follows for each name, and for the CA's limits.
//!
//! Arrives: the items of the backup, what the bucket shows. Leaves: the items that are true today, and a ledger that takes no turn that may
//! have been taken. Goes wrong: a store that does not read or write.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use domains::{
    Change, Claim, DomainTable, Hostname, LedgerMove, Limits, Listings, SiteVersion, State, Timestamp,
    decide::{self, Shown},
    ledger::CaLimits,
};
use storage::local::LocalHome;

use crate::{Restore, RestoreError, Restored};

/// How many claims are read at once.
const PAGE: usize = 500;

async fn claims(home: &LocalHome) -> Result<BTreeMap<Hostname, Vec<Claim>>, RestoreError> {
    let mut claims: BTreeMap<Hostname, Vec<Claim>> = BTreeMap::new();
    let mut cursor = None;
    loop {
        let page = home.claims(None, None, cursor.as_deref(), PAGE).await?;
        for claim in page.items {
            claims.entry(claim.key.hostname.clone()).or_default().push(claim);
        }
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(claims);
        }
    }
}

pub(crate) async fn reconcile(
    home: &LocalHome,
    shown: &BTreeMap<Hostname, Shown>,
    asked: &Restore<'_>,
    now: Timestamp,
    made: &mut Restored,
) -> Result<(), RestoreError> {
    let claims = claims(home).await?;
    let hostnames: BTreeSet<&Hostname> = claims.keys().chain(shown.keys()).collect();
    made.names = hostnames.len();
    for hostname in hostnames {
        let owner = home.owner(hostname).await?;
        let known = claims.get(hostname).map(Vec::as_slice).unwrap_or_default();
        let version = owner.as_ref().map_or(SiteVersion(0), |owner| owner.site_version);
        // The operator's word, where the bucket says nothing.
        let is_removed = asked.removed.contains(hostname);
        let suspended = owner.as_ref().and_then(|owner| owner.tenant.clone()).filter(|_| !is_removed);
        let told = Shown::Gone { version: version.next(), suspended };
        let is_told = is_removed || asked.suspended.contains(hostname);
        let seen = shown.get(hostname).or_else(|| is_told.then_some(&told));
        let Some(change) = decide::restore(hostname, owner.as_ref(), known, seen, made.taken_at, now) else { continue };
        home.commit(&change).await?;
        count(home, asked.limits, known, &change, now).await?;
        let newer = seen.is_some_and(|seen| seen.version() > version);
        made.changed += 1;
        let list = match seen {
            Some(Shown::Site(_)) if newer && change.certificate.is_some() => &mut made.taken_over,
            Some(Shown::Site(_)) if newer => &mut made.unknown,
            Some(Shown::Gone { .. }) if newer && stays_suspended(&change) => &mut made.suspended,
            Some(Shown::Gone { .. }) if newer => &mut made.gone,
            Some(Shown::Lost { .. }) | None => &mut made.withheld,
            Some(_) => continue,
        };
        list.push(hostname.to_string());
    }
    Ok(())
}

fn stays_suspended(change: &Change) -> bool {
    change.claims.iter().any(|put| put.item.suspension.is_some() && matches!(put.item.state, State::Active { .. }))
}

/// A certificate that was issued after the backup counts at the CA; the ledger hears of it.
async fn count(home: &LocalHome, limits: &[CaLimits], known: &[Claim], change: &Change, now: Timestamp) -> Result<(), RestoreError> {
    let active = |claim: &Claim| match &claim.state {
        State::Active { certificate, .. } => Some(certificate.clone()),
        _ => None,
    };
    let Some(taken_over) = &change.certificate else { return Ok(()) };
    let Some(put) = change.claims.iter().find(|put| put.item.key.tenant == taken_over.tenant) else { return Ok(()) };
    let before: Vec<_> = known.iter().filter_map(active).collect();
    // One that is only shown anew, with another origin say, was counted before.
    if before.iter().any(|before| before.spki_sha256 == taken_over.spki_sha256) {
        return Ok(());
    }
    // Which of two CAs issued it is not known: both ledgers are told, which costs a wait and never a refusal.
    for limits in limits {
        let reservation = limits.issued_elsewhere(&put.item.key, &taken_over.spki_sha256, !before.is_empty());
        if !reservation.needs.is_empty() {
            home.apply(&LedgerMove::Reserve(reservation), now).await?;
        }
    }
    Ok(())
}

/// What was ordered after the backup counts at the CA and is not in our ledger: new names wait as long as the CA's limit takes to forget it.
/// Renewals that name what they replace wait for nothing.
pub(crate) async fn hold_orders(home: &LocalHome, limits: &[CaLimits], taken_at: Timestamp, now: Timestamp) -> Result<(), RestoreError> {
    for limits in limits {
        let Some(shape) = limits.orders else { continue };
        let window: Duration = shape.refill.saturating_mul(shape.capacity);
        let until = now.checked_add(window).unwrap_or(Timestamp::MAX);
        let why = format!("restored from the backup of {taken_at}; what was ordered since then is not known");
        home.apply(&LedgerMove::Pause { bucket: limits.orders_bucket(), until, why }, now).await?;
    }
    Ok(())
}
