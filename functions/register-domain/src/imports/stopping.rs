//! Stopping open imports, once the store was restored from a backup.
//!
//! Arrives: the documents of a store that nobody works on. Leaves: every open import finished, the lines it had left refused with
//! [`IMPORT_STOPPED`]. Goes wrong: a document that does not read.
//!
//! An import that was open then has most likely ended since, and some of its names were removed since: going on would register those again.
//! Who means it sends the same list again, which tries one anew that ended with refusals; what is there stays.

use domains::{CommitError, Documents, StoreError, Timestamp};
use serde::Serialize;

use super::{KEPT_DETAIL_BYTES, MAX_OPEN_IMPORTS, OPEN, Open, Progress, RefusedLine, cut, progress_kind, stored, text};

/// The code of a line that was not taken because its import was stopped.
pub const IMPORT_STOPPED: &str = "import.stopped";

/// An import that was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoppedImport {
    /// Its name.
    pub id: String,
    /// The tenant whose API key made it; `None` for an operator's.
    pub tenant: Option<String>,
    /// How many lines it has.
    pub lines: usize,
    /// How many of them were not taken.
    pub left: usize,
}

/// Stops every open import, and says why at each line that it had left.
///
/// # Errors
/// [`StoreError`] when the home cannot be asked, or somebody else works on the imports.
pub async fn stop_imports(documents: &dyn Documents, why: &str, now: Timestamp) -> Result<Vec<StoppedImport>, StoreError> {
    let mut stopped = Vec::new();
    loop {
        let open = documents.documents(OPEN, None, MAX_OPEN_IMPORTS).await?;
        for entry in &open {
            let named: Open = stored("an open import", &entry.body)?;
            stopped.extend(stop(documents, &named, why, now).await?);
            documents.delete_document(OPEN, &entry.id, entry.version).await.map_err(alone)?;
        }
        if open.is_empty() {
            return Ok(stopped);
        }
    }
}

async fn stop(documents: &dyn Documents, open: &Open, why: &str, now: Timestamp) -> Result<Option<StoppedImport>, StoreError> {
    let kind = progress_kind(open.tenant.as_ref());
    let Some(known) = documents.document(&kind, &open.id).await? else { return Ok(None) };
    let mut progress: Progress = stored("an import", &known.body)?;
    if progress.finished_at.is_some() {
        return Ok(None);
    }
    let (next, lines) = (progress.next.min(progress.lines), progress.lines);
    let refused = |index: usize| RefusedLine {
        line: index + 1,
        // Shown from the line itself.
        hostname: String::new(),
        code: IMPORT_STOPPED.to_owned(),
        detail: cut(why, KEPT_DETAIL_BYTES),
    };
    progress.refusals.extend((next..lines).map(refused));
    (progress.next, progress.finished_at, progress.waits) = (lines, Some(now), None);
    documents.put_document(&kind, &open.id, &text(&progress)?, Some(known.version)).await.map_err(alone)?;
    let tenant = open.tenant.as_ref().map(ToString::to_string);
    Ok(Some(StoppedImport { id: open.id.clone(), tenant, lines, left: lines - next }))
}

/// Nobody else is at a store that is being restored.
fn alone(error: CommitError) -> StoreError {
    match error {
        CommitError::Conflict => StoreError::Defect { detail: "another worker was at the imports that were being stopped".into() },
        CommitError::Store(error) => error,
    }
}
