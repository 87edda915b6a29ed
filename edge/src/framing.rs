//! Requests whose length could be read in two ways are refused: the beginning of every request smuggling.
//!
//! Arrives: the bytes of an HTTP/1 connection on their way to hyper. Leaves: the same bytes; and for each request header, whether it
//! carries both `Content-Length` and `Transfer-Encoding`. hyper follows the standard's letter and drops the length silently; we refuse.
//! Goes wrong: bytes that are not HTTP/1; hyper answers those, and from there on every chunked request is refused.
//!
//! Source: RFC 9112, sections 6.1 and 6.3 (a server MAY reject such a request; we do).

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{HeaderMap, header::TRANSFER_ENCODING};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was seen of each request header, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heads(Arc<Mutex<VecDeque<bool>>>);

impl Heads {
    /// Says whether the next request's length can be read in one way only.
    pub(crate) fn next_is_clear(&self, headers: &HeaderMap) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        match (codings.next(), codings.next()) {
            (None, _) => seen != Some(true),
            (Some(coding), None) => seen == Some(false) && coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
            (Some(_), Some(_)) => false,
        }
    }

    fn push(&self, ambiguous: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(ambiguous);
    }
}

/// Looks at what is read from a connection.
#[derive(Debug)]
pub(crate) struct Scanned<IO> {
    io: IO,
    scanner: Scanner,
}

impl<IO> Scanned<IO> {
    /// Looks for request headers of at most `max_head` bytes.
    pub(crate) fn new(io: IO, max_head: usize) -> (Self, Heads) {
        let heads = Heads::default();
        (Self { io, scanner: Scanner { state: State::Head, head: Vec::new(), max_head, heads: heads.clone() } }, heads)
    }
}

#[derive(Debug)]
struct Scanner {
    state: State,
    /// The header so far.
    head: Vec<u8>,
    max_head: usize,
    heads: Heads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    ChunkSize {
        size: u64,
        extension: bool,
    },
    ChunkData(u64),
    ChunkEnd,
    Trailers {
        line_is_empty: bool,
    },
    /// Not HTTP/1 that we understand, or no HTTP any more.
    Lost,
}

impl Scanner {
    fn scan(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.state {
                State::Head => self.scan_head(bytes),
                State::Body(left) => {
                    let (rest, left) = skip(bytes, left);
                    self.state = if left == 0 { State::Head } else { State::Body(left) };
                    rest
                }
                State::ChunkData(left) => {
                    let (rest, left) = skip(bytes, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    rest
                }
                State::Lost => return,
                _ => {
                    self.state = self.state.after(bytes[0]);
                    &bytes[1..]
                }
            };
        }
    }

    fn scan_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let line = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |end| end + 1);
        let (line, rest) = bytes.split_at(line);
        self.head.extend_from_slice(line);
        if self.head.len() > self.max_head {
            (self.state, self.head) = (State::Lost, Vec::new());
            return &[];
        }
        if self.head == b"\n" || self.head == b"\r\n" {
            // Empty lines before a request are skipped (RFC 9112, section 2.2).
            self.head.clear();
        } else if self.head.ends_with(b"\n\n") || self.head.ends_with(b"\n\r\n") {
            self.state = self.read_head();
            self.head.clear();
        }
        rest
    }

    /// Judges a whole header, and says what follows it.
    fn read_head(&self) -> State {
        let (mut lengths, mut codings, mut upgrade) = (Vec::new(), 0, false);
        for line in self.head.split(|&b| b == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                lengths.push(value);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                codings += 1;
            } else if name.eq_ignore_ascii_case(b"upgrade") {
                upgrade = true;
            }
        }
        self.heads.push(codings > 0 && !lengths.is_empty());
        let length = lengths.first().map(|digits| std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok()));
        match (codings, length) {
            (_, Some(None)) => State::Lost,
            (0, _) if upgrade => State::Lost,
            (0, Some(Some(length @ 1..))) => State::Body(length),
            (0, _) => State::Head,
            _ => State::ChunkSize { size: 0, extension: false },
        }
    }
}

impl State {
    /// The state after one byte of a chunked body's framing.
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::ChunkSize { size: 0, .. }, b'\n') => Self::Trailers { line_is_empty: true },
            (Self::ChunkSize { size, .. }, b'\n') => Self::ChunkData(size),
            (Self::ChunkSize { size, .. }, b';' | b'\r' | b' ' | b'\t') => Self::ChunkSize { size, extension: true },
            (Self::ChunkSize { extension: true, .. }, _) => self,
            (Self::ChunkSize { size, .. }, digit) => match (digit as char).to_digit(16) {
                Some(digit) if size < 1 << 56 => Self::ChunkSize { size: size << 4 | u64::from(digit), extension: false },
                _ => Self::Lost,
            },
            (Self::ChunkEnd, b'\r') => Self::ChunkEnd,
            (Self::ChunkEnd, b'\n') => Self::ChunkSize { size: 0, extension: false },
            (Self::Trailers { line_is_empty: true }, b'\n') => Self::Head,
            (Self::Trailers { .. }, b'\n') => Self::Trailers { line_is_empty: true },
            (Self::Trailers { .. }, b'\r') => self,
            (Self::Trailers { .. }, _) => Self::Trailers { line_is_empty: false },
            _ => Self::Lost,
        }
    }
}

fn skip(bytes: &[u8], left: u64) -> (&[u8], u64) {
    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (&bytes[skipped..], left - skipped as u64)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Scanned<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            self.scanner.scan(&buf.filled()[before..]);
        }
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Scanned<IO> {
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

    fn seen(bytes: &[u8], pieces: usize) -> Vec<bool> {
        let (mut scanned, heads) = Scanned::new((), 8192);
        bytes.chunks(pieces.max(1)).for_each(|piece| scanned.scanner.scan(piece));
        heads.0.lock().unwrap().iter().copied().collect()
    }

    const AMBIGUOUS: &str = "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    const LENGTH: &str = "POST / HTTP/1.1\r\ncontent-length: 45\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nTRANSFER-ENCODING: chunked\r\n\r\n1c;x=y\r\ncontent-length: 3\r\n\r\n1234567\r\n0\r\nx: content-length: 1\r\n\r\n";
    const PLAIN: &str = "\r\nGET / HTTP/1.1\nhost: a\n\n";

    #[test]
    fn each_header_is_judged_by_itself_however_the_bytes_arrive() {
        let stream = [PLAIN, LENGTH, CHUNKED, AMBIGUOUS, PLAIN, CHUNKED, LENGTH, AMBIGUOUS].concat();
        for pieces in [1, 2, 3, 7, 64, 10_000] {
            assert_eq!(seen(stream.as_bytes(), pieces), [false, false, false, true, false, false, false, true], "{pieces}");
        }
    }

    #[test]
    fn a_chunked_request_after_something_not_understood_is_refused() {
        let (mut scanned, heads) = Scanned::new((), 64);
        scanned.scanner.scan(&[b'x'; 100]);
        let mut headers = HeaderMap::new();
        assert!(heads.next_is_clear(&headers));
        headers.insert(TRANSFER_ENCODING, http::HeaderValue::from_static("chunked"));
        assert!(!heads.next_is_clear(&headers));
    }

    #[test]
    fn only_the_one_word_chunked_is_a_clear_coding() {
        for (codings, clear) in [
            (&["chunked"][..], true),
            (&["Chunked"], true),
            (&["chunked", "chunked"], false),
            (&[",chunked"], false),
            (&["gzip, chunked"], false),
        ] {
            let heads = Heads::default();
            heads.push(false);
            let mut headers = HeaderMap::new();
            codings.iter().for_each(|coding| {
                headers.append(TRANSFER_ENCODING, http::HeaderValue::from_static(coding));
            });
            assert_eq!(heads.next_is_clear(&headers), clear, "{codings:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..500), pieces in 1_usize..20) {
            seen(&bytes, pieces);
        }
    }
}
