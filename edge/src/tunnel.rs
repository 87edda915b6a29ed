//! What becomes of a connection after `101 Switching Protocols`: bytes both ways, nothing understood.
//!
//! Arrives: both sides' upgrades. Leaves: bytes, until one side ends, both are silent for too long, or the name's connections are told
//! to finish; how many they were. Goes wrong: an upgrade that never completes is given up.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

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

/// How a tunnel ended that one side closed.
pub(crate) const ENDED: &str = "ended";

/// A tunnel that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Why.
    pub(crate) reason: &'static str,
    /// Bytes of the client that were passed on to the origin.
    pub(crate) from_client: u64,
    /// Bytes of the origin that were passed on to the client.
    pub(crate) to_client: u64,
}

/// Carries bytes between a client and the origin until that ends.
pub(crate) async fn carry(client: OnUpgrade, origin: OnUpgrade, ends: Ends) -> Carried {
    let both = timeout(UPGRADE_WAIT, async { tokio::join!(client, origin) });
    let (client, origin) = match both.await {
        Ok((Ok(client), Ok(origin))) => (TokioIo::new(client), TokioIo::new(origin)),
        _ => return Carried { reason: "upgrade_failed", from_client: 0, to_client: 0 },
    };
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    let reason = carry_counted(client, origin, &ends, &counts).await;
    let [from_client, to_client] = counts.map(AtomicU64::into_inner);
    Carried { reason, from_client, to_client }
}

async fn carry_counted<C, O>(client: C, origin: O, ends: &Ends, [up, down]: &[AtomicU64; 2]) -> &'static str
where
    C: AsyncRead + AsyncWrite,
    O: AsyncRead + AsyncWrite,
{
    let (from_client, to_client) = tokio::io::split(client);
    let (from_origin, to_origin) = tokio::io::split(origin);
    let moved = Moved::default();
    let carry = async {
        // One side's end is passed on; the other side may still have something to say.
        tokio::try_join!(
            pump(from_client, to_origin, &moved, up, ends.write_stall),
            pump(from_origin, to_client, &moved, down, ends.write_stall)
        )
    };
    tokio::select! {
        carried = carry => match carried {
            Ok(_) => ENDED,
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

async fn pump<R: AsyncRead, W: AsyncWrite>(
    mut from: ReadHalf<R>,
    mut to: WriteHalf<W>,
    moved: &Moved,
    count: &AtomicU64,
    stall: Duration,
) -> io::Result<()> {
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
        count.fetch_add(read as u64, Ordering::Relaxed);
        moved.mark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_way_is_counted_by_itself() {
        let ((mut client, edge), (mut origin, behind)) = (tokio::io::duplex(64), tokio::io::duplex(64));
        let wait = Duration::from_secs(60);
        let ends = Ends { finish: CancellationToken::new(), leave: CancellationToken::new(), idle: wait, write_stall: wait };
        let counts = [AtomicU64::new(0), AtomicU64::new(0)];
        client.write_all(b"abc").await.unwrap();
        client.shutdown().await.unwrap();
        origin.write_all(b"defgh").await.unwrap();
        origin.shutdown().await.unwrap();
        assert_eq!(carry_counted(edge, behind, &ends, &counts).await, ENDED);
        assert_eq!(counts.map(AtomicU64::into_inner), [3, 5]);
    }
}
