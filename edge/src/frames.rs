//! HTTP/2 connections that send much and ask for nothing are closed.
//!
//! Arrives: the bytes of an HTTP/2 connection on their way to hyper. Leaves: the same bytes. Goes wrong: floods of frames that cost us
//! something and the client next to nothing (pings, settings, priorities, resets, empty data): each kind has a budget that refills, and
//! a connection that exceeds one is closed with an error. Header blocks and frames that begin and do not end are marked, so that
//! [`watch`](crate::watch) gives them as long as any header.
//!
//! hyper and h2 bound what such frames may keep in memory; this bounds how often they may come (CVE-2019-9512, -9514, -9515, -9518,
//! CVE-2023-44487, CVE-2025-8671).
//!
//! Source: RFC 9113, sections 4.1, 6 and 10.5.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::{config::Limits, watch::Activity};

/// What every client sends first.
const PREFACE_BYTES: usize = 24;
const FRAME_HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A budget is refilled within this many seconds.
const REFILL_SECONDS: f64 = 10.0;

/// Frames that may still come: full at first, refilled as time passes.
#[derive(Debug)]
struct Budget {
    burst: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(burst: u32) -> Self {
        let burst = f64::from(burst);
        Self { burst, left: burst, at: Instant::now() }
    }

    fn take(&mut self) -> bool {
        if self.left < 1.0 {
            let now = Instant::now();
            self.left = (self.left + now.duration_since(self.at).as_secs_f64() * self.burst / REFILL_SECONDS).min(self.burst);
            self.at = now;
        }
        self.left -= 1.0;
        self.left >= 0.0
    }
}

/// Judges a reset by what its address has done elsewhere.
pub(crate) type MayReset = Box<dyn Fn() -> Result<(), &'static str> + Send + Sync>;

/// Looks at what is read from an HTTP/2 connection.
pub(crate) struct Frames<IO> {
    io: IO,
    counter: Counter,
}

impl<IO> Frames<IO> {
    /// Counts frames; `may_reset` is asked of each stream reset whether its client's address may, too.
    pub(crate) fn new(io: IO, activity: Arc<Activity>, limits: &Limits, may_reset: MayReset) -> Self {
        let counter = Counter {
            activity,
            skip: PREFACE_BYTES,
            header: [0; FRAME_HEADER_BYTES],
            header_bytes: 0,
            block_open: false,
            control: Budget::new(limits.max_control_frames),
            resets: Budget::new(limits.max_resets),
            may_reset,
            flooded: None,
        };
        Self { io, counter }
    }
}

struct Counter {
    activity: Arc<Activity>,
    /// Bytes until the next frame begins.
    skip: usize,
    header: [u8; FRAME_HEADER_BYTES],
    header_bytes: usize,
    /// A header block has begun and not ended.
    block_open: bool,
    control: Budget,
    resets: Budget,
    may_reset: MayReset,
    flooded: Option<&'static str>,
}

impl Counter {
    fn count(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.flooded.is_none() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let taken = (FRAME_HEADER_BYTES - self.header_bytes).min(bytes.len());
            self.header[self.header_bytes..self.header_bytes + taken].copy_from_slice(&bytes[..taken]);
            self.header_bytes += taken;
            bytes = &bytes[taken..];
            if self.header_bytes == FRAME_HEADER_BYTES {
                self.header_bytes = 0;
                self.frame();
            }
        }
        // While data is on its way its own deadlines count; anything else that has begun must end soon.
        let in_data = self.skip > 0 && self.header[3] == DATA;
        self.activity.header_open(self.block_open || self.header_bytes > 0 || (self.skip > 0 && !in_data));
    }

    fn frame(&mut self) {
        let [high, middle, low, kind, flags, ..] = self.header;
        let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        self.skip = length;
        if matches!(kind, HEADERS | CONTINUATION) {
            self.block_open = flags & END_HEADERS == 0;
        }
        if kind == RST_STREAM
            && let Err(flood) = (self.may_reset)()
        {
            self.flooded = Some(flood);
            return;
        }
        let within = match kind {
            RST_STREAM => self.resets.take(),
            DATA => length > 0 || flags & END_STREAM != 0 || self.control.take(),
            // Each is bounded elsewhere: by the number of streams, by the size of a header, by the windows we opened.
            HEADERS | CONTINUATION | WINDOW_UPDATE => true,
            _ => self.control.take(),
        };
        if !within {
            self.flooded = Some(match kind {
                RST_STREAM => "reset_flood",
                PING => "ping_flood",
                SETTINGS => "settings_flood",
                PRIORITY => "priority_flood",
                _ => "frame_flood",
            });
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Frames<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) {
            self.counter.count(&buf.filled()[before..]);
        }
        if let Some(flood) = self.counter.flooded {
            self.counter.activity.flooded(flood);
            buf.set_filled(before);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, flood)));
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Frames<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn counter(control: u32, resets: u32) -> Counter {
        let limits = Limits { max_control_frames: control, max_resets: resets, ..Limits::default() };
        let mut counter = Frames::new((), Activity::new(), &limits, Box::new(|| Ok(()))).counter;
        counter.count(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        counter
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_of_flood_exceeds_its_budget_and_time_refills_it() {
        for (kind, flags, expected) in [
            (PING, 0, Some("ping_flood")),
            (SETTINGS, 1, Some("settings_flood")),
            (PRIORITY, 0, Some("priority_flood")),
            (DATA, 0, Some("frame_flood")),
            (0x42, 0, Some("frame_flood")),
            (RST_STREAM, 0, Some("reset_flood")),
            (DATA, END_STREAM, None),
            (HEADERS, END_HEADERS, None),
            (WINDOW_UPDATE, 0, None),
        ] {
            let mut counter = counter(20, 20);
            (0..20).for_each(|_| counter.count(&frame(kind, flags, b"")));
            assert_eq!(counter.flooded, None, "{kind}");
            tokio::time::advance(Duration::from_secs(5)).await;
            (0..10).for_each(|_| counter.count(&frame(kind, flags, b"")));
            assert_eq!(counter.flooded, None, "{kind}");
            counter.count(&frame(kind, flags, b""));
            assert_eq!(counter.flooded, expected, "{kind}");
        }
    }

    #[test]
    fn frames_are_told_apart_however_their_bytes_arrive() {
        let stream = [frame(DATA, 0, &frame(PING, 0, &[0; 8])), frame(PING, 0, &[0; 8]), frame(HEADERS, END_HEADERS, &[0; 40])].concat();
        for pieces in [1, 2, 7, 64, 1000] {
            let mut counter = counter(100, 1);
            stream.chunks(pieces).for_each(|piece| counter.count(piece));
            assert_eq!((counter.control.left, counter.resets.left, counter.skip), (99.0, 1.0, 0), "{pieces}");
        }
    }

    #[test]
    fn a_header_block_or_frame_that_does_not_end_is_marked() {
        let mut counter = counter(100, 1);
        for (bytes, open) in [
            (frame(HEADERS, 0, b"abc"), true),
            (frame(CONTINUATION, 0, b"abc"), true),
            (frame(CONTINUATION, END_HEADERS, b"abc"), false),
            (frame(HEADERS, END_HEADERS, b"abc")[..10].to_vec(), true),
            (b"bc".to_vec(), false),
            (frame(PING, 0, &[0; 8])[..4].to_vec(), true),
            (frame(PING, 0, &[0; 8])[4..].to_vec(), false),
            (frame(DATA, 0, b"abc")[..10].to_vec(), false),
        ] {
            counter.count(&bytes);
            assert_eq!(counter.activity.is_header_open(), open, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500), pieces in 1_usize..20) {
            let mut counter = counter(10, 10);
            bytes.chunks(pieces).for_each(|piece| counter.count(piece));
        }
    }
}
