//! What the bucket should show for a hostname, from the record alone.
//!
//! Arrives: a claim to the hostname. Leaves: a [`Projection`] of the hostname's present owner, whoever that is. Goes wrong: a record whose
//! certificate is missing or does not read, which is a defect; it is never taken for a removal.

use bundles::{Bundle, ClaimIdentity, SealedKey, SiteObject, Tombstone};
use domains::{Claim, ClaimKey, DomainTable, Hostname, Owner, SiteVersion, State, TenantId, Timestamp};
use steps::StepFailure;

/// What the bucket should show for one hostname. A suspended one is shown as removed: edges then close its connections and refuse its name.
pub(crate) enum Projection {
    /// This object, as these bytes.
    Site(Box<SiteObject>, Vec<u8>),
    /// Nothing was ever published for the name.
    Nothing,
}

impl Projection {
    pub(crate) fn is_present(&self) -> bool {
        matches!(self, Self::Site(object, _) if matches!(**object, SiteObject::Present(_)))
    }

    pub(crate) fn site(&self) -> Option<(&SiteObject, &[u8])> {
        match self {
            Self::Site(object, bytes) => Some((object, bytes)),
            Self::Nothing => None,
        }
    }

    pub(crate) fn version(&self) -> Option<SiteVersion> {
        self.site().map(|(object, _)| object.version())
    }

    /// Whose site it shows; `None` for a tombstone or nothing.
    pub(crate) fn tenant(&self) -> Option<&TenantId> {
        match self.site() {
            Some((SiteObject::Present(bundle), _)) => Some(&bundle.tenant),
            _ => None,
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Site(..) if self.is_present() => "published",
            Self::Site(..) => "taken down",
            Self::Nothing => "nothing published",
        }
    }
}

pub(crate) async fn project(table: &dyn DomainTable, claim: &Claim, now: Timestamp) -> Result<Projection, StepFailure> {
    let hostname = &claim.key.hostname;
    let Some(owner) = table.owner(hostname).await? else { return Ok(Projection::Nothing) };
    let owners_claim = match &owner.tenant {
        Some(tenant) if *tenant == claim.key.tenant => Some(claim.clone()),
        Some(tenant) => table.claim(&ClaimKey { hostname: hostname.clone(), tenant: tenant.clone() }).await?,
        None => None,
    };
    if let Some(version) = owners_claim.as_ref().and_then(Claim::taken_down_at) {
        let tombstone = Tombstone { hostname: hostname.clone(), version, removed_at: now.as_second(), suspended: owner.tenant };
        return site(SiteObject::Removed(tombstone));
    }
    let object = match owners_claim {
        Some(Claim { state: State::Active { certificate, .. }, claim_id: id, token, origin, .. }) => {
            let bundle = bundle(table, hostname, certificate.version).await?;
            SiteObject::Present(Bundle { claim: Some(ClaimIdentity { id, token }), origin, ..bundle })
        }
        _ => SiteObject::Removed(tombstone(&owner, now)),
    };
    site(object)
}

fn site(object: SiteObject) -> Result<Projection, StepFailure> {
    let bytes = object.to_bytes().map_err(|error| StepFailure::Defect(format!("{}: {error}", object.hostname())))?;
    Ok(Projection::Site(Box::new(object), bytes))
}

fn tombstone(owner: &Owner, now: Timestamp) -> Tombstone {
    Tombstone { hostname: owner.hostname.clone(), version: owner.site_version, removed_at: now.as_second(), suspended: None }
}

async fn bundle(table: &dyn DomainTable, hostname: &Hostname, version: SiteVersion) -> Result<Bundle, StepFailure> {
    let Some(stored) = table.certificate(hostname, version).await? else {
        // Owner, claim and certificate were read one after the other; a renewal in between drops the older certificate.
        return Err(StepFailure::Retry(format!("the certificate of {hostname}, version {version}, is no longer stored")));
    };
    let sealed_key: SealedKey = serde_json::from_str(&stored.sealed_key)
        .map_err(|error| StepFailure::Defect(format!("the sealed key of {hostname} does not read: {error}")))?;
    let bundle = Bundle::new(hostname.clone(), stored.tenant, version, stored.chain, sealed_key)
        .map_err(|error| StepFailure::Defect(format!("the certificate of {hostname} cannot be published: {error}")))?;
    // The leaf must carry the key that the CSR asked for; a bundle that cannot be opened would only be refused by every edge.
    let spki: String = bundle.spki_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    if spki != stored.spki_sha256 {
        return Err(StepFailure::Defect(format!("the certificate of {hostname} is for another key than its CSR")));
    }
    Ok(bundle)
}
