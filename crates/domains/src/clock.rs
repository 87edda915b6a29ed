//! Where time comes from.

use jiff::Timestamp;

/// Tells the time; injected, so that tests own it.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place where the machine's time comes in")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// A clock that tests move by hand.
#[derive(Debug)]
pub struct HandClock(std::sync::atomic::AtomicI64);

impl HandClock {
    /// Starts at a time of the test's choice.
    pub fn starting_at(now: Timestamp) -> Self {
        Self(now.as_millisecond().into())
    }

    /// Moves time forward.
    pub fn advance(&self, by: std::time::Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.0.fetch_add(by, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(std::sync::atomic::Ordering::SeqCst)).unwrap_or(Timestamp::MAX)
    }
}
