//! How an edge leaves: not ready at once, still accepting for a while, then closed.
//!
//! Arrives: the signal to leave. Leaves: a [`DrainReport`]. Goes wrong: connections that do not finish within the grace period; they
//! are closed, and it is said how many.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::config::Drain;

/// How far an edge has got in leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It is not leaving.
    Serving,
    /// It accepts connections, and asks each to go elsewhere after its request.
    Draining,
    /// It accepts nothing and closes each connection once it is quiet.
    Closing,
}

/// What every task of the edge listens to.
#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    pub(crate) phase: watch::Receiver<Phase>,
    /// Cancelled when nothing new is accepted any more.
    pub(crate) stop_accepting: CancellationToken,
    /// Cancelled when everything ends, finished or not.
    pub(crate) end: CancellationToken,
    /// Connections and tunnels.
    pub(crate) tasks: TaskTracker,
    /// How long a quiet HTTP/1 connection is left open at the end; never all of the grace period.
    pub(crate) linger: Duration,
}

impl Leaving {
    pub(crate) fn new(drain: Drain) -> (watch::Sender<Phase>, Self) {
        let (sender, phase) = watch::channel(Phase::Serving);
        let (stop_accepting, end) = (CancellationToken::new(), CancellationToken::new());
        let linger = drain.linger.min(drain.grace / 2);
        (sender, Self { phase, stop_accepting, end, tasks: TaskTracker::new(), linger })
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// How leaving went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that did not finish within the grace period and were closed.
    pub cut_off: usize,
}

/// Leaves: drains, closes, and cuts off what remains.
pub(crate) async fn leave(drain: Drain, phase: Arc<watch::Sender<Phase>>, leaving: Leaving) -> DrainReport {
    let polite = drain.timeout.saturating_sub(drain.grace);
    tracing::info!(connections = leaving.tasks.len(), seconds = polite.as_secs_f64(), "draining: not ready, still accepting");
    phase.send_replace(Phase::Draining);
    tokio::time::sleep(polite).await;
    leaving.stop_accepting.cancel();
    phase.send_replace(Phase::Closing);
    leaving.tasks.close();
    let finished = timeout(drain.grace, leaving.tasks.wait()).await.is_ok();
    let cut_off = if finished { 0 } else { leaving.tasks.len() };
    leaving.end.cancel();
    if cut_off > 0 {
        tracing::warn!(
            connections = cut_off,
            seconds = drain.grace.as_secs_f64(),
            "the grace period was exceeded; these connections were cut off"
        );
    } else {
        tracing::info!("drained");
    }
    DrainReport { cut_off }
}
