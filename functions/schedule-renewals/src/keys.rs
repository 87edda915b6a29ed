//! The keys in `edge.json`: made before they are needed, kept for as long as they are.
//!
//! Arrives: a tick. Leaves: the object with the keys that the time asks for, in one conditional write; none where nothing is due. Goes
//! wrong: a bucket that cannot be asked; what edges have stays in use, and the next tick makes up for it.

use std::sync::Arc;

use bundles::{EDGE_SETTINGS_OBJECT, EdgeSettings, SealPublicKey};
use domains::{BundleBucket, CommitError, ObjectCondition, StoreError, Timestamp};

use crate::{signing, tickets};

/// Keeps the keys that edges read fresh: those of tenant assertions and, where edges share them, those of session tickets.
pub struct EdgeKeys {
    /// Where the edge reads them.
    pub bucket: Arc<dyn BundleBucket>,
    /// What secret halves are sealed to.
    pub seal_to: SealPublicKey,
    /// Whether edges share the keys of session tickets.
    pub shared_tickets: bool,
}

impl EdgeKeys {
    /// Makes and retires keys as their times come.
    ///
    /// Losing a race is no failure: whoever won did the same, or the next tick does.
    ///
    /// # Errors
    /// [`StoreError`] when the bucket cannot be asked or holds something unreadable.
    pub async fn rotate(&self, now: Timestamp) -> Result<(), StoreError> {
        let now = now.as_second();
        let present = self.bucket.get(EDGE_SETTINGS_OBJECT).await?;
        let (mut settings, condition) = match present {
            Some((bytes, etag)) => (EdgeSettings::from_bytes(&bytes).map_err(defect)?, ObjectCondition::Matches(etag)),
            None => (EdgeSettings::new(0, Vec::new()), ObjectCondition::Absent),
        };
        let signing = signing::plan(&settings.signing_keys, &self.seal_to.id, now);
        let tickets = tickets::plan(&settings.ticket_keys, &self.seal_to.id, self.shared_tickets, now);
        if signing == signing::Plan::default() && tickets == tickets::Plan::default() {
            return Ok(());
        }
        settings.generation += 1;
        signing.apply(&mut settings.signing_keys, &self.seal_to)?;
        tickets.apply(&mut settings.ticket_keys, &self.seal_to)?;
        match self.bucket.put(EDGE_SETTINGS_OBJECT, &settings.to_bytes(), &condition).await {
            Ok(()) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}

pub(crate) fn defect(error: impl std::fmt::Display) -> StoreError {
    StoreError::Defect { detail: format!("keys in the edge's settings: {error}") }
}
