//! Keeps a copy of everything that passes between the functions, and can deliver it all again.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use domains::{Dispatch, StepQueue, StoreError};
use storage::consumers::{FeedConsumer, FeedRecord};

use super::{front::Front, locked};
use crate::chance::Chance;

/// Stands between the functions and their feed and queues, keeps a copy of everything that passes, and can deliver it all again.
pub struct Recorder {
    home: Arc<Front>,
    passed: Mutex<Passed>,
}

#[derive(Default)]
struct Passed {
    is_kept: bool,
    records: Vec<FeedRecord>,
    nudges: Vec<Dispatch>,
    again: VecDeque<FeedRecord>,
}

impl Recorder {
    pub(super) fn over(home: Arc<Front>) -> Self {
        Self { home, passed: Mutex::default() }
    }

    /// Keeps everything from now on.
    pub fn keep(&self) {
        locked(&self.passed).is_kept = true;
    }

    /// Delivers every change and every nudge that ever passed once more, in an order of chance, beginning now.
    pub async fn replay(&self, chance: &mut Chance) -> usize {
        let (mut records, mut nudges) = {
            let passed = locked(&self.passed);
            (passed.records.clone(), passed.nudges.clone())
        };
        chance.shuffle(&mut records);
        chance.shuffle(&mut nudges);
        let count = records.len() + nudges.len();
        nudges.iter_mut().for_each(|dispatch| dispatch.delay = Duration::ZERO);
        self.home.send(&nudges).await.unwrap();
        let mut passed = locked(&self.passed);
        passed.is_kept = false;
        passed.again.extend(records);
        count
    }
}

#[async_trait]
impl StepQueue for Recorder {
    async fn send(&self, dispatches: &[Dispatch]) -> Result<(), StoreError> {
        {
            let mut passed = locked(&self.passed);
            if passed.is_kept {
                passed.nudges.extend_from_slice(dispatches);
            }
        }
        self.home.send(dispatches).await
    }
}

#[async_trait]
impl FeedConsumer for Recorder {
    async fn next_batch(&self, max: usize, wait: Duration) -> Result<Vec<FeedRecord>, StoreError> {
        {
            let mut passed = locked(&self.passed);
            if !passed.again.is_empty() {
                let some = max.min(passed.again.len());
                return Ok(passed.again.drain(..some).collect());
            }
        }
        let batch = self.home.next_batch(max, wait).await?;
        let mut passed = locked(&self.passed);
        if passed.is_kept {
            passed.records.extend_from_slice(&batch);
        }
        Ok(batch)
    }

    async fn acknowledge(&self, sequences: &[u64]) -> Result<(), StoreError> {
        self.home.acknowledge(sequences).await
    }
}
