//! What becomes of a connection after `101 Switching Protocols`: bytes both ways, nothing understood.
//!
//! Arrives: both sides' upgrades. Leaves: bytes, until one side ends, both are silent for too long, or the name's connections are told
//! to finish. Goes wrong: an upgrade that never completes is given up.

use std::{io, time::Duration};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long both sides may take to complete their upgrade once 101 was sent.
const UPGRADE_WAIT: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 16 * 1024;

/// What ends a tunnel from outside.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// The name was removed or changed hands.
    pub(crate) finish: CancellationToken,
    /// The edge is leaving.
    pub(crate) leave: CancellationToken,
    pub(crate) idle: Duration,
    pub(crate) write_stall: Duration,
}

/// Carries bytes between a client and the origin, and says why that ended.
pub(crate) async fn carry(client: OnUpgrade, origin: OnUpgrade, ends: Ends) -> &'static str {
    let both = timeout(UPGRADE_WAIT, async { tokio::join!(client, origin) });
    let (client, origin) = match both.await {
        Ok((Ok(client), Ok(origin))) => (TokioIo::new(client), TokioIo::new(origin)),
        _ => return "upgrade_failed",
    };
    let (from_client, to_client) = tokio::io::split(client);
    let (from_origin, to_origin) = tokio::io::split(origin);
    let moved = Moved::default();
    let carry = async {
        // One side's end is passed on; the other side may still have something to say.
        tokio::try_join!(pump(from_client, to_origin, &moved, ends.write_stall), pump(from_origin, to_client, &moved, ends.write_stall))
    };
    tokio::select! {
        carried = carry => match carried {
            Ok(_) => "ended",
            Err(error) if error.kind() == io::ErrorKind::TimedOut => "tunnel_unread",
            Err(_) => "broken",
        },
        () = ends.finish.cancelled() => "removed",
        () = ends.leave.cancelled() => "leaving",
        () = moved.silent_for(ends.idle) => "tunnel_idle",
    }
}

/// When bytes last moved, either way.
struct Moved(std::sync::Mutex<Instant>);

impl Default for Moved {
    fn default() -> Self {
        Self(std::sync::Mutex::new(Instant::now()))
    }
}

impl Moved {
    fn mark(&self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn silent_for(&self, idle: Duration) {
        loop {
            let until = self.last() + idle;
            tokio::time::sleep_until(until).await;
            if self.last() + idle <= Instant::now() {
                return;
            }
        }
    }
}

async fn pump<R: AsyncRead, W: AsyncWrite>(mut from: ReadHalf<R>, mut to: WriteHalf<W>, moved: &Moved, stall: Duration) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        moved.mark();
        if read == 0 {
            return timeout(stall, to.shutdown()).await?;
        }
        timeout(stall, async {
            to.write_all(&buffer[..read]).await?;
            to.flush().await
        })
        .await??;
        moved.mark();
    }
}
