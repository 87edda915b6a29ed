//! Waiting for the world: looks again until something is so, or a deadline passes.

use std::time::{Duration, Instant};

/// The pause between two looks.
pub const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `look` gives something; fails with `what` after `within`.
pub async fn until<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// What share of sorted durations lies at or below the result.
pub fn percentile(sorted: &[Duration], share: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * share / 100).min(last)).copied().unwrap_or_default()
}
