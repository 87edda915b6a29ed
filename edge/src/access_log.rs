//! One line of JSON for each request, for whoever keeps such lines.
//!
//! Arrives: a [`Record`] with each answer. Leaves: a line once the answer, or the tunnel it opened, has ended, however it ended. Goes wrong:
//! a reader that is too slow or a disk that is full; lines are dropped and counted then, and no request waits for either.
//!
//! A line never has the query, in which secrets travel, nor a header of the client; of its address, unless told otherwise, only the network.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    time::{Duration, Instant},
};

use http::{HeaderValue, Method};
use serde::Serialize;
use telemetry::metrics::Counter;

use crate::{
    config::{AccessLogPlace, LoggedAddress},
    proxy::Connection,
    tunnel::{self, Carried},
};

/// Lines that may wait for the writer: what a busy edge answers in about a tenth of a second.
const WAITING_LINES: usize = 8192;

/// How long an edge that leaves waits until its last lines are written.
const LAST_LINES: Duration = Duration::from_secs(5);

/// Where lines go.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Word>,
    dropped: Counter,
    address: LoggedAddress,
    /// Requests whose line is still to come.
    open: Arc<AtomicUsize>,
}

/// What the writer is sent.
#[derive(Debug)]
enum Word {
    Line(String),
    /// Everything before it is to be written; then this is dropped.
    Written(SyncSender<()>),
}

impl AccessLog {
    /// Opens the log; its writer is a thread of its own, which ends with the last sender.
    pub(crate) fn open(place: &AccessLogPlace, address: LoggedAddress, dropped: Counter) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match place {
            AccessLogPlace::Stdout => Box::new(io::stdout()),
            AccessLogPlace::File(path) => Box::new(OpenOptions::new().append(true).create(true).open(path)?),
        };
        let (lines, waiting) = mpsc::sync_channel(WAITING_LINES);
        let lost = dropped.clone();
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write_all(&waiting, out, &lost))?;
        Ok(Self { lines, dropped, address, open: Arc::default() })
    }

    /// Waits until every request has its line, and each is written, or that took too long. Blocks.
    pub(crate) fn write_last(&self) {
        let until = Instant::now() + LAST_LINES;
        while self.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (written, wait) = mpsc::sync_channel(0);
        let mut word = Word::Written(written);
        while let Err(TrySendError::Full(back)) = self.lines.try_send(word) {
            if Instant::now() >= until {
                return;
            }
            word = back;
            std::thread::sleep(Duration::from_millis(10));
        }
        // Ends when the writer drops its side.
        let _ = wait.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

fn write_all(waiting: &Receiver<Word>, out: impl Write, lost: &Counter) {
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    while let Ok(first) = waiting.recv() {
        // Told by being dropped, after the flush.
        let mut told = Vec::new();
        for word in std::iter::once(first).chain(waiting.try_iter()) {
            match word {
                Word::Line(line) if out.write_all(line.as_bytes()).is_err() => lost.increment(),
                Word::Line(_) => {}
                Word::Written(who) => told.push(who),
            }
        }
        // Failing, it keeps the lines and tries again with the next.
        let _ = out.flush();
    }
}

/// What is known of a request before it is answered.
#[derive(Debug)]
pub(crate) struct Request {
    method: Method,
    path: String,
    /// Ends after the line was sent: a record's fields are dropped last.
    _open: Open,
}

impl Request {
    pub(crate) fn of<B>(request: &http::Request<B>, log: &AccessLog) -> Self {
        log.open.fetch_add(1, Ordering::SeqCst);
        Self { method: request.method().clone(), path: request.uri().path().to_owned(), _open: Open(Arc::clone(&log.open)) }
    }
}

/// A request whose line is still to come.
#[derive(Debug)]
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A request that is being answered; its line is written when this is dropped.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) connection: Arc<Connection>,
    pub(crate) request: Request,
    pub(crate) request_id: HeaderValue,
    pub(crate) began: Instant,
    pub(crate) status: u16,
    pub(crate) reason: Option<&'static str>,
    pub(crate) bytes: u64,
    /// Bytes of the client, of a tunnel only.
    pub(crate) bytes_received: Option<u64>,
}

impl Record {
    /// The tunnel that the answer opened has ended.
    pub(crate) fn carried(&mut self, carried: Carried) {
        self.bytes = carried.to_client;
        self.bytes_received = Some(carried.from_client);
        self.reason = (carried.reason != tunnel::ENDED).then_some(carried.reason);
    }
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    tenant: &'a str,
    host: &'a str,
    method: &'a str,
    path: &'a str,
    status: u16,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    duration_ms: u64,
    protocol: &'static str,
    tls: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let connection = &self.connection;
        let Some(log) = &connection.shared.access_log else { return };
        let line = Line {
            time: connection.shared.clock.now().to_string(),
            request_id: self.request_id.to_str().unwrap_or_default(),
            tenant: connection.found.tenant.as_str(),
            host: connection.sni.as_str(),
            method: self.request.method.as_str(),
            path: &self.request.path,
            status: self.status,
            bytes: self.bytes,
            bytes_received: self.bytes_received,
            duration_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            protocol: if connection.is_http2 { "HTTP/2" } else { "HTTP/1" },
            tls: connection.tls,
            client: shown(connection.client, log.address),
            reason: self.reason,
        };
        let sent = serde_json::to_string(&line).is_ok_and(|line| log.lines.try_send(Word::Line(line + "\n")).is_ok());
        if !sent {
            log.dropped.increment();
        }
    }
}

/// What a line shows of an address.
fn shown(address: IpAddr, how: LoggedAddress) -> Option<IpAddr> {
    match (how, address) {
        (LoggedAddress::None, _) => None,
        (LoggedAddress::Full, address) => Some(address),
        (LoggedAddress::Truncated, IpAddr::V4(address)) => Some(Ipv4Addr::from_bits(address.to_bits() & (u32::MAX << 8)).into()),
        (LoggedAddress::Truncated, IpAddr::V6(address)) => Some(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_its_network_whole_or_not_at_all() {
        let of = |text: &str, how| shown(text.parse().unwrap(), how).map(|address| address.to_string());
        assert_eq!(of("203.0.113.77", LoggedAddress::Truncated).unwrap(), "203.0.113.0");
        assert_eq!(of("2001:db8:1:2:3::4", LoggedAddress::Truncated).unwrap(), "2001:db8:1::");
        assert_eq!(of("203.0.113.77", LoggedAddress::Full).unwrap(), "203.0.113.77");
        assert_eq!(of("203.0.113.77", LoggedAddress::None), None);
    }

    #[test]
    fn a_line_that_finds_no_room_on_the_disk_is_counted() {
        let (lines, waiting) = mpsc::sync_channel(1);
        lines.send(Word::Line("x".repeat(256 * 1024))).unwrap();
        drop(lines);
        let lost = Counter::default();
        write_all(&waiting, Full, &lost);
        assert_eq!(lost.value(), 1);
    }

    /// A disk without room.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
