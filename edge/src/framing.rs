//! Requests that could be read in two ways are refused: the beginning of every request smuggling.
//!
//! Arrives: the bytes of an HTTP/1 connection on their way to hyper. Leaves: the same bytes, and for each request header whether it is
//! clear. hyper follows the standard's letter where that lets a server repair a request; we read every byte before it, by the strict
//! grammar, and repair nothing. Goes wrong: a header that is not clear is answered with 400 by whoever asks [`Heads`]; a body that is not
//! clear ends before the first byte that is wrong, with an error.
//!
//! Source: RFC 9112, sections 2.2, 6 and 7.1 (a server may reject all of this; we do).

mod head;

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http::{Method, Request, header::CONTENT_LENGTH};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::head::Framing;

/// Bytes of one line of a chunk's size with its extensions, which nobody uses.
const MAX_CHUNK_LINE_BYTES: usize = 256;
/// Hexadecimal digits of a chunk's size.
const MAX_CHUNK_DIGITS: usize = 15;

/// Checks what must hold of a request over either protocol before it can become one of HTTP/1.1.
///
/// # Errors
/// Why it could be read in another way there; a stable label for metrics.
///
/// Source: RFC 9113, section 8.2 and 10.3; RFC 9112, section 3.2.
pub(crate) fn check<B>(request: &Request<B>) -> Result<(), &'static str> {
    let uri = request.uri();
    if !matches!(uri.scheme_str(), None | Some("http" | "https")) {
        return Err("scheme");
    }
    let target = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let formed = match *request.method() {
        // Without a path it is refused later, as a method.
        Method::CONNECT if target.is_empty() => true,
        Method::OPTIONS if target == "*" => true,
        // An absolute target without a path means `/`.
        _ => target.is_empty() || target.starts_with(['/', '?']),
    };
    if !formed || !head::is_plain(target.as_bytes()) {
        return Err("target");
    }
    // The `http` crate lets a quotation mark into names.
    if !request.headers().keys().all(|name| head::is_field_name(name.as_str().as_bytes())) {
        return Err("field_name");
    }
    let mut lengths = request.headers().get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(()),
        (Some(length), None) => head::content_length(length.as_bytes()).map(drop),
        (Some(_), Some(_)) => Err("length_doubled"),
    }
}

/// What was seen of each request header, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heads(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    heads: Mutex<VecDeque<Result<(), &'static str>>>,
    /// The connection speaks no HTTP any more.
    switched: AtomicBool,
}

impl Heads {
    /// Judges the next request: `Err` says why it cannot be read in one way only.
    pub(crate) fn next(&self) -> Result<(), &'static str> {
        let next = self.0.heads.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        // A request that we did not see begin follows something that was not understood.
        next.unwrap_or(Err("after_unclear_bytes"))
    }

    /// The connection becomes a tunnel: its bytes mean nothing here from now on.
    pub(crate) fn switch_protocols(&self) {
        self.0.switched.store(true, Ordering::Relaxed);
    }

    fn push(&self, judged: Result<(), &'static str>) {
        self.0.heads.lock().unwrap_or_else(PoisonError::into_inner).push_back(judged);
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
        (Self { io, scanner: Scanner { state: State::Head, line: Vec::new(), max_head, heads: heads.clone() } }, heads)
    }
}

#[derive(Debug)]
struct Scanner {
    state: State,
    /// The header, the chunk's size or the trailer so far.
    line: Vec<u8>,
    max_head: usize,
    heads: Heads,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    /// The CRLF after a chunk's data; one byte of it may have been seen.
    ChunkEnd,
    /// Lines after the last chunk; so many bytes so far.
    Trailers(usize),
    /// A header was not clear: its request is refused, and nothing after it counts.
    Unclear,
    /// A body was not clear: nothing more is read.
    Broken(&'static str),
}

impl Scanner {
    /// Looks at bytes, and says how many of them may be passed on.
    fn scan(&mut self, bytes: &[u8]) -> usize {
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = rest;
            rest = match self.state {
                State::Head => self.head(rest),
                State::Body(left) => {
                    let (rest, left) = skip(rest, left);
                    self.state = if left == 0 { State::Head } else { State::Body(left) };
                    rest
                }
                State::ChunkData(left) => {
                    let (rest, left) = skip(rest, left);
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    rest
                }
                State::ChunkSize | State::ChunkEnd | State::Trailers(_) => self.framing_line(rest),
                State::Unclear => &[],
                State::Broken(_) => break,
            };
            if matches!(self.state, State::Broken(_)) {
                rest = at;
                break;
            }
        }
        bytes.len() - rest.len()
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (line, rest) = first_line(bytes);
        let line_begins = self.line.last().is_none_or(|&last| last == b'\n');
        self.line.extend_from_slice(line);
        if self.line == b"\r\n" {
            // An empty line before a request is skipped (RFC 9112, section 2.2).
            self.line.clear();
        } else if self.line.len() > self.max_head {
            // hyper refuses it for its size.
            self.refuse("header_too_large");
        } else if line_begins && matches!(line, b"\n" | b"\r\n") || self.line.ends_with(b"\n\r\n") {
            match head::read(&self.line) {
                Ok(framing) => {
                    self.heads.push(Ok(()));
                    self.state = State::after(framing);
                    self.line.clear();
                }
                Err(reason) => self.refuse(reason),
            }
        }
        rest
    }

    fn refuse(&mut self, reason: &'static str) {
        self.heads.push(Err(reason));
        (self.state, self.line) = (State::Unclear, Vec::new());
    }

    /// Gathers a line of a chunked body's framing, and goes on once it is whole.
    fn framing_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (line, rest) = first_line(bytes);
        self.line.extend_from_slice(line);
        let limit = if matches!(self.state, State::Trailers(_)) { self.max_head } else { MAX_CHUNK_LINE_BYTES };
        if self.line.len() > limit {
            self.state = State::Broken("chunk_line_too_long");
        } else if self.line.ends_with(b"\n") {
            self.state = self.after_line().unwrap_or_else(State::Broken);
            self.line.clear();
        }
        rest
    }

    fn after_line(&self) -> Result<State, &'static str> {
        let line = head::without_crlf(&self.line)?;
        match self.state {
            State::ChunkEnd if line.is_empty() => Ok(State::ChunkSize),
            State::ChunkEnd => Err("chunk_longer_than_said"),
            State::Trailers(_) if line.is_empty() => Ok(State::Head),
            State::Trailers(before) => match head::field(line) {
                Ok(_) if before + self.line.len() <= self.max_head => Ok(State::Trailers(before + self.line.len())),
                Ok(_) => Err("trailers_too_large"),
                Err(reason) => Err(reason),
            },
            _ => chunk_size(line).map(|size| if size == 0 { State::Trailers(0) } else { State::ChunkData(size) }),
        }
    }
}

impl State {
    fn after(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self::Head,
            Framing::Length(length) => Self::Body(length),
            Framing::Chunked => Self::ChunkSize,
        }
    }
}

/// A chunk's size: digits, then nothing or an extension of visible characters.
fn chunk_size(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.iter().position(|b| !b.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, extension) = line.split_at(digits);
    let visible = extension.iter().all(|&b| b == b'\t' || b == b' ' || b.is_ascii_graphic());
    if !(1..=MAX_CHUNK_DIGITS).contains(&digits.len()) || !visible || !matches!(extension.trim_ascii_start().first(), None | Some(b';')) {
        return Err("chunk_size");
    }
    let value = |sum: u64, digit: &u8| sum << 4 | u64::from((*digit as char).to_digit(16).unwrap_or(0));
    Ok(digits.iter().fold(0, value))
}

/// The bytes up to and with the first LF, and those after it.
fn first_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|&b| b == b'\n').map_or(bytes.len(), |end| end + 1);
    bytes.split_at(end)
}

fn skip(bytes: &[u8], left: u64) -> (&[u8], u64) {
    let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (&bytes[skipped..], left - skipped as u64)
}

impl<IO: AsyncRead + Unpin> AsyncRead for Scanned<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let State::Broken(reason) = self.scanner.state {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        if matches!(read, Poll::Ready(Ok(()))) && !self.scanner.heads.0.switched.load(Ordering::Relaxed) {
            let passed = self.scanner.scan(&buf.filled()[before..]);
            let all = buf.filled().len() - before;
            // The end of a connection is nothing read, so an error must say that this is not one.
            if let (State::Broken(reason), true) = (self.scanner.state, passed < all && passed == 0) {
                buf.set_filled(before);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
            }
            buf.set_filled(before + passed);
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

    /// What was judged of each header, and how many bytes passed.
    fn seen(bytes: &[u8], pieces: usize) -> (Vec<Result<(), &'static str>>, usize) {
        let (mut scanned, heads) = Scanned::new((), 8192);
        let mut passed = 0;
        for piece in bytes.chunks(pieces.max(1)) {
            let these = scanned.scanner.scan(piece);
            passed += these;
            if these < piece.len() {
                break;
            }
        }
        (heads.0.heads.lock().unwrap().iter().copied().collect(), passed)
    }

    const LENGTH: &str = "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 45\r\n\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: chunked\r\n\r\n1c;x=y\r\ncontent-length: 3\r\n\r\n1234567\r\n0\r\nx: content-length: 1\r\n\r\n";
    const PLAIN: &str = "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n";
    const AMBIGUOUS: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    #[test]
    fn each_header_is_judged_by_itself_however_the_bytes_arrive() {
        let stream = [PLAIN, LENGTH, CHUNKED, PLAIN, CHUNKED, LENGTH, AMBIGUOUS, PLAIN].concat();
        for pieces in [1, 2, 3, 7, 64, 10_000] {
            let (heads, passed) = seen(stream.as_bytes(), pieces);
            assert_eq!(heads, [Ok(()), Ok(()), Ok(()), Ok(()), Ok(()), Ok(()), Err("two_lengths")], "{pieces}");
            assert_eq!(passed, stream.len());
        }
    }

    #[test]
    fn nothing_counts_after_a_header_that_is_not_clear() {
        let heads = Heads::default();
        heads.push(Err("two_lengths"));
        assert_eq!([heads.next(), heads.next()], [Err("two_lengths"), Err("after_unclear_bytes")]);
        assert_eq!(seen(&[b'x'; 10_000], 100).0, [Err("header_too_large")]);
    }

    #[test]
    fn a_body_ends_before_the_first_wrong_line_of_its_framing() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (good, wrong) in [
            ("", "\n"),
            ("", "3\nabc\r\n"),
            ("", "0x3\r\nabc\r\n"),
            ("", "-1\r\n"),
            ("", " 3\r\nabc\r\n"),
            ("", "3 x\r\nabc\r\n"),
            ("", "3;a\x01\r\nabc\r\n"),
            ("", "1000000000000000\r\n"),
            ("3\r\nabc", "d\r\n"),
            ("3\r\nabc", "\n"),
            ("3\r\nabc\r\n0\r\n", "\n"),
            ("3\r\nabc\r\n0\r\n", "x : y\r\n\r\n"),
            ("3\r\nabc\r\n0\r\nx: y\r\n", " z\r\n\r\n"),
        ] {
            let stream = [head, good, wrong].concat();
            let (heads, passed) = seen(stream.as_bytes(), 10_000);
            assert_eq!((heads, passed), (vec![Ok(())], head.len() + good.len()), "{wrong:?}");
            // Byte by byte, the beginning of a wrong line may have passed, but never its end.
            assert!(seen(stream.as_bytes(), 1).1 < stream.len(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_pieces_change_no_judgement(bytes in proptest::collection::vec(any::<u8>(), 0..500), pieces in 1_usize..20) {
            prop_assert_eq!(seen(&bytes, pieces).0, seen(&bytes, 10_000).0);
        }

        #[test]
        fn pieces_change_no_judgement_of_what_looks_like_http(parts in proptest::collection::vec(0_usize..8, 0..12), pieces in 1_usize..40) {
            let parts: Vec<u8> = parts.iter().flat_map(|&part| [PLAIN, LENGTH, CHUNKED, AMBIGUOUS, "0\r\n", "\r\n", "\n", "a: b\r\n"][part].bytes()).collect();
            prop_assert_eq!(seen(&parts, pieces).0, seen(&parts, 10_000).0);
        }
    }
}
