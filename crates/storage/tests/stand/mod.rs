//! Local homes in folders of their own, with a clock that is moved by hand.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use domains::{Clock, HandClock};
use jiff::Timestamp;
use storage::{
    conformance::Stand,
    local::{Chaos, LocalConfig, LocalHome},
};
use tempfile::TempDir;

pub const MAX_RECEIVES: u32 = 4;

/// Keeps the folders until the test ends.
pub struct LocalStand {
    pub clock: Arc<HandClock>,
    chaos: Option<Chaos>,
    folders: std::sync::Mutex<Vec<TempDir>>,
}

impl LocalStand {
    pub fn new(chaos: Option<Chaos>) -> Self {
        let clock = Arc::new(HandClock::starting_at("2026-11-23T12:00:00Z".parse().unwrap()));
        Self { clock, chaos, folders: std::sync::Mutex::default() }
    }

    pub fn config(&self, folder: &Path) -> LocalConfig {
        let clock: Arc<dyn Clock> = self.clock.clone();
        LocalConfig { chaos: self.chaos.clone(), max_receives: MAX_RECEIVES, ..LocalConfig::new(folder, clock) }
    }

    pub fn open(&self, folder: &Path) -> LocalHome {
        LocalHome::open(self.config(folder)).unwrap()
    }
}

#[async_trait]
impl Stand for LocalStand {
    type Home = LocalHome;

    async fn fresh(&self) -> LocalHome {
        let folder = TempDir::new().unwrap();
        let home = self.open(folder.path());
        self.folders.lock().unwrap().push(folder);
        home
    }

    /// The suite has one home open at a time in its newest folder; dropped without closing, as a crash in this process would.
    async fn reopened(&self, home: LocalHome) -> LocalHome {
        drop(home);
        let folder = self.folders.lock().unwrap().last().unwrap().path().to_owned();
        self.open(&folder)
    }

    async fn pass(&self, home: &LocalHome, time: Duration) {
        self.clock.advance(time);
        home.time_has_moved();
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn max_receives(&self) -> u32 {
        MAX_RECEIVES
    }
}
