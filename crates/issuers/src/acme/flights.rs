//! One move at a time for each hostname of this process.
//!
//! Arrives: a hostname. Leaves: a [`Turn`], held while the CA is asked about it. Goes wrong: [`Crowded`], when more hostnames are under way
//! than one process should ask for. The record's lease does the same between processes; this keeps two messages that one process took
//! at once from ordering twice.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domains::Hostname;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// How many hostnames one process has under way; far more than a CA's limits let through.
const MOST_HOSTNAMES: usize = 1_024;

/// Too many hostnames are under way.
#[derive(Debug, thiserror::Error)]
#[error("{MOST_HOSTNAMES} hostnames are under way in this process")]
pub(crate) struct Crowded;

type Lanes = HashMap<Hostname, Arc<AsyncMutex<()>>>;

/// The hostnames under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights(Arc<Mutex<Lanes>>);

/// The right to ask the CA about one hostname; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    // Dropped in this order: the lane is let go, then forgotten unless somebody waits for it.
    _held: OwnedMutexGuard<()>,
    _leave: Leave,
}

/// Forgets a lane that nobody holds or waits for, when dropped.
#[derive(Debug)]
struct Leave {
    flights: Flights,
    hostname: Hostname,
}

impl Flights {
    /// Waits for the hostname's turn; the caller bounds the wait.
    ///
    /// # Cancel safety
    /// A wait that is dropped leaves nothing behind.
    pub(crate) async fn turn(&self, hostname: &Hostname) -> Result<Turn, Crowded> {
        let lane = self.lane(hostname)?;
        let leave = Leave { flights: self.clone(), hostname: hostname.clone() };
        let held = lane.lock_owned().await;
        Ok(Turn { _held: held, _leave: leave })
    }

    fn lane(&self, hostname: &Hostname) -> Result<Arc<AsyncMutex<()>>, Crowded> {
        let mut lanes = self.lanes();
        if let Some(lane) = lanes.get(hostname) {
            return Ok(Arc::clone(lane));
        }
        if lanes.len() >= MOST_HOSTNAMES {
            return Err(Crowded);
        }
        Ok(Arc::clone(lanes.entry(hostname.clone()).or_default()))
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // No code panics while it holds this lock, and a map of names is whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut lanes = self.flights.lanes();
        if lanes.get(&self.hostname).is_some_and(|lane| Arc::strong_count(lane) == 1) {
            lanes.remove(&self.hostname);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn name(label: usize) -> Hostname {
        Hostname::parse_name(&format!("shop{label}.brand.com")).unwrap()
    }

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_second_move_on_one_hostname_waits_for_the_first_and_others_do_not() {
        let flights = Flights::default();
        let first = flights.turn(&name(1)).await.unwrap();
        assert!(timeout(SOON, flights.turn(&name(1))).await.is_err(), "the second waits");
        assert!(timeout(SOON, flights.turn(&name(2))).await.is_ok(), "another hostname does not");
        let hostname = name(1);
        let (second, ()) = tokio::join!(flights.turn(&hostname), async { drop(first) });
        drop(second.unwrap());
        assert!(flights.lanes().is_empty(), "nothing is remembered of what is done");
    }

    #[tokio::test]
    async fn a_cancelled_wait_leaves_nothing_behind() {
        let flights = Flights::default();
        let first = flights.turn(&name(1)).await.unwrap();
        assert!(timeout(SOON, flights.turn(&name(1))).await.is_err());
        drop(first);
        assert!(flights.lanes().is_empty());
    }

    #[tokio::test]
    async fn more_hostnames_than_fit_are_turned_away_and_let_in_once_there_is_room() {
        let flights = Flights::default();
        let mut turns = Vec::new();
        for label in 0..MOST_HOSTNAMES {
            turns.push(flights.turn(&name(label)).await.unwrap());
        }
        assert!(flights.turn(&name(MOST_HOSTNAMES)).await.is_err());
        turns.pop();
        assert!(flights.turn(&name(MOST_HOSTNAMES)).await.is_ok());
    }
}
