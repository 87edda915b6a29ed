//! Keeps what a look found, for people who ask why.
//!
//! Arrives: a look just made. Leaves: the claim's document of looks, if there is anything new. Goes wrong: nothing that matters to the step; a
//! look that could not be kept is logged, and the next one is kept instead.

use domains::{Claim, ClaimId, CommitError, Documents, LOOKS_KIND, Look, LookSubject, StoreError, StoredLooks, Timestamp};

/// Keeps a look.
pub async fn keep_look(documents: &dyn Documents, claim: &Claim, subject: &LookSubject, look: &Look, now: Timestamp) {
    match kept(documents, &claim.claim_id, subject, look, now).await {
        // Another look was kept at the same moment; it will do.
        Ok(()) | Err(CommitError::Conflict) => {}
        Err(CommitError::Store(error)) => tracing::warn!(%error, "a look was not kept"),
    }
}

async fn kept(documents: &dyn Documents, claim: &ClaimId, subject: &LookSubject, look: &Look, now: Timestamp) -> Result<(), CommitError> {
    let stored = documents.document(LOOKS_KIND, claim.as_str()).await?;
    // One that does not read is written over: it explains nothing.
    let looks: StoredLooks = stored.as_ref().and_then(|stored| serde_json::from_str(&stored.body).ok()).unwrap_or_default();
    let Some(looks) = looks.with(subject, look, now) else { return Ok(()) };
    let body = serde_json::to_string(&looks).map_err(|error| StoreError::Defect { detail: format!("looks cannot be written: {error}") })?;
    documents.put_document(LOOKS_KIND, claim.as_str(), &body, stored.map(|stored| stored.version)).await?;
    Ok(())
}
