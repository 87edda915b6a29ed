//! What one look may still spend.
//!
//! Arrives: the limits, once a look. Leaves: leave to send one more query, until a point in time. Goes wrong:
//! [`Failure::BudgetSpent`], from when on nothing more is sent.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use domains::Failure;
use tokio::time::Instant;

/// The one deadline and the one count that all queries of a look share.
#[derive(Debug)]
pub(crate) struct Budget {
    deadline: Instant,
    left: AtomicU32,
    sent: AtomicU32,
}

impl Budget {
    pub(crate) fn new(time: Duration, queries: u32) -> Self {
        Self { deadline: Instant::now() + time, left: queries.into(), sent: 0.into() }
    }

    /// Takes one query from the budget.
    pub(crate) fn take(&self) -> Result<(), Failure> {
        let taken = Instant::now() < self.deadline
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        if !taken {
            return Err(Failure::BudgetSpent);
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// The end of the look.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The end of something that may take `time`, and never longer than the look.
    pub(crate) fn until(&self, time: Duration) -> Instant {
        self.deadline.min(Instant::now() + time)
    }

    /// How many queries were sent.
    pub(crate) fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }
}
