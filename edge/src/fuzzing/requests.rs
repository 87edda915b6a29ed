//! Requests: what is passed on is what a strict reader finds in the bytes, and its headers are clean.
//!
//! The bytes of a connection go the edge's own way: [`Scanned`], hyper, the checks of a request, and [`forwarding`]. Beside it they are read
//! once more by the narrowest grammar there is. Whatever the edge lets through must be there, from its first byte to the end of its body.

use std::{
    cell::RefCell,
    convert::Infallible,
    io,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake},
};

use bytes::Bytes;
use domains::{Hostname, TenantId};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    authority,
    config::Limits,
    forwarding::{self, Known},
    framing::{self, Heads, Scanned},
    listener::http1_builder,
};

const SNI: &str = "shop.brand.com";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// What only the edge may say, or belongs to one hop, as `-` spells it.
const NEVER: [&str; 22] = [
    "cf-connecting-ip",
    "client-ip",
    "connection",
    "expect",
    "fastly-client-ip",
    "forwarded",
    "keep-alive",
    "proxy",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "true-client-ip",
    "upgrade",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
];
/// What the edge says itself.
const SAID: [(&str, &str); 8] = [
    ("host", SNI),
    ("x-forwarded-for", "192.0.2.7"),
    ("x-forwarded-host", SNI),
    ("x-forwarded-port", "443"),
    ("x-forwarded-proto", "https"),
    ("x-nameplate-assertion", "signed"),
    ("x-nameplate-tenant", "acme"),
    ("x-request-id", "42"),
];

/// Reads a connection of HTTP/1, in one piece and in many, ended and left open.
pub(super) fn judge(bytes: &[u8]) {
    let whole = served(bytes, bytes.len(), false);
    for (pieces, ends) in [(1, false), (11, false), (bytes.len(), true)] {
        let passed = served(bytes, pieces, ends);
        agrees_with(bytes, &passed);
        assert!(ends || complete(&passed).eq(complete(&whole)), "in pieces of {pieces}: {passed:?} and not {whole:?}");
    }
    agrees_with(bytes, &whole);
}

fn complete(passed: &[Passed]) -> impl Iterator<Item = &Passed> {
    passed.iter().filter(|request| request.body.is_some())
}

/// A request that the edge would pass on.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    method: Method,
    target: String,
    before: HeaderMap,
    /// `None` if it does not come to its end.
    body: Option<Vec<u8>>,
}

/// What the edge would pass on of a connection.
fn served(bytes: &[u8], pieces: usize, ends: bool) -> Vec<Passed> {
    let limits = Limits::default();
    let (io, heads) = Scanned::new(Said { bytes: bytes.to_vec(), at: 0, pieces: pieces.max(1), ends }, limits.max_header_bytes + 1024);
    let passed = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request| answer(request, heads.clone(), Rc::clone(&passed)));
    run(http1_builder(&limits).serve_connection(TokioIo::new(io), service));
    passed.take()
}

async fn answer(request: Request<Incoming>, heads: Heads, passed: Rc<RefCell<Vec<Passed>>>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut answer = Response::new(Empty::new());
    if !is_clear(&request, &heads) {
        // As the edge does, whose refusals are the last word on a connection.
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Ok(answer);
    }
    let (parts, mut body) = request.into_parts();
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let place = passed.borrow().len();
    passed.borrow_mut().push(Passed { method: parts.method, target, before: parts.headers, body: None });
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Ok(answer) };
        read.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
    }
    passed.borrow_mut()[place].body = Some(read);
    Ok(answer)
}

fn is_clear(request: &Request<Incoming>, heads: &Heads) -> bool {
    let sni = Hostname::parse_name(SNI).expect("a hostname");
    let authority = || authority::of_request(request.version(), request.uri(), request.headers());
    heads.next().and_then(|()| framing::check(request)).is_ok()
        && !matches!(*request.method(), Method::CONNECT | Method::TRACE)
        && authority().and_then(|authority| authority::check(authority, &sni)).is_ok()
}

/// What was passed on stands in the bytes, one request after the other; and its headers go to the origin clean.
fn agrees_with(mut bytes: &[u8], passed: &[Passed]) {
    for request in passed {
        let head = head(bytes).unwrap_or_else(|| panic!("{request:?} was passed on of {:?}", String::from_utf8_lossy(bytes)));
        assert_eq!(head.method, request.method.as_str().as_bytes());
        match head.target.first() {
            Some(b'/' | b'*') => assert_eq!(head.target, request.target.as_bytes()),
            _ => assert!(head.target.ends_with(request.target.as_bytes()) || request.target.starts_with("/?") || request.target == "/"),
        }
        let fields = request.before.iter().map(|(name, value)| (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec()));
        assert!(same(fields.collect(), head.fields.clone()), "{:?} became {:?}", head.fields, request.before);
        let after = normalised(&request.before);
        let Some(body) = &request.body else { return };
        let (read, rest) =
            head.body().unwrap_or_else(|| panic!("a body of {body:?} was passed on of {:?}", String::from_utf8_lossy(bytes)));
        assert_eq!(&read, body);
        bytes = rest;
        at_the_origin(request, &after, body);
    }
}

/// Written as HTTP/1.1, the request is read as itself and nothing is left over.
fn at_the_origin(request: &Passed, headers: &HeaderMap, body: &[u8]) {
    let mut wire = format!("{} {} HTTP/1.1\r\n", request.method, request.target).into_bytes();
    for (name, value) in headers {
        wire.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    let chunked = !headers.contains_key(header::CONTENT_LENGTH) && !body.is_empty();
    match chunked {
        true => {
            wire.extend([format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat())
        }
        false => wire.extend([b"\r\n", body].concat()),
    }
    let read = head(&wire).expect("the origin can read it");
    assert_eq!((read.method, read.target), (request.method.as_str().as_bytes(), request.target.as_bytes()));
    assert_eq!(read.fields.len(), headers.len() + usize::from(chunked));
    assert_eq!(read.body(), Some((body.to_vec(), &[][..])));
}

/// Takes lines as headers, as HTTP/2 could bring them, and judges what the origin and the client would get of them.
pub(super) fn judge_headers(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|&b| b == b'\n').take(Limits::default().max_header_count) {
        let (name, value) = line.split_at(line.iter().position(|&b| b == b':').unwrap_or(line.len()));
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii()))
        {
            headers.append(name, value);
        }
    }
    normalised(&headers);
    let named = named_by_connection(&headers);
    let mut to_client = headers.clone();
    forwarding::to_client(&mut to_client);
    let one_hop = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];
    assert!(to_client.keys().all(|name| !one_hop.contains(&name.as_str()) && !named.contains(name)), "{headers:?} became {to_client:?}");
    let mut trailers = headers.clone();
    forwarding::clean_trailers(&mut trailers);
    let framing = ["content-length", "transfer-encoding", "host", "authorization", "cookie", "trailer"];
    for name in trailers.keys() {
        assert!(!is_never(name) && !framing[..5].contains(&dashed(name).as_str()), "{name} was passed on as a trailer");
        assert!(headers.contains_key(name));
    }
}

/// A client's headers as the origin gets them, judged.
fn normalised(before: &HeaderMap) -> HeaderMap {
    let (tenant, one) = (TenantId::parse("acme").expect("a tenant"), HeaderValue::from_static);
    let (id, assertion) = (one("42"), one("signed"));
    let (client, authority, port) = (forwarding::address(CLIENT), one(SNI), one("443"));
    let (request_id, assertion) = (&id, Some(&assertion));
    let known = Known { client: &client, authority: &authority, public_port: &port, tenant: &tenant, request_id, assertion };
    let mut after = before.clone();
    forwarding::to_origin(&mut after, known);
    for (name, value) in SAID {
        assert_eq!(after.get_all(name).iter().collect::<Vec<_>>(), [value], "{name}");
    }
    let named = named_by_connection(before);
    let is_said = |name: &HeaderName| SAID.iter().any(|(said, _)| *said == name.as_str());
    let trailers_wanted = before.get_all(header::TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in after.keys() {
        let asks_for_trailers = trailers_wanted && ["te", "connection"].contains(&name.as_str());
        assert!(is_said(name) || asks_for_trailers || !(is_never(name) || named.contains(name)), "{name} was passed on of {before:?}");
        assert!(is_said(name) || before.contains_key(name) || asks_for_trailers, "{name} came from nowhere");
    }
    for name in before.keys().filter(|name| !is_said(name) && !is_never(name) && !named.contains(name)) {
        let values = |headers: &HeaderMap| headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
        let (had, has) = (values(before), values(&after));
        let joined = *name == header::COOKIE && has == [had.join(&b"; "[..])];
        assert!(had == has || joined, "{name}: {had:?} became {has:?}");
    }
    let mut again = after.clone();
    forwarding::to_origin(&mut again, known);
    assert_eq!(again, after, "what is clean stays as it is");
    after
}

/// Whether an origin must never see a header of this name in any spelling, unless the edge says it.
fn is_never(name: &HeaderName) -> bool {
    let dashed = dashed(name);
    let twin = dashed != name.as_str() && ["content-length", "content-type", "transfer-encoding"].contains(&dashed.as_str());
    // `te` and such have no twin that anybody reads.
    let exact = NEVER.contains(&name.as_str());
    let spelled = NEVER.contains(&dashed.as_str()) && dashed.contains('-');
    twin || exact || spelled || ["x-forwarded-", "x-nameplate-"].iter().any(|ours| dashed.starts_with(ours)) || dashed == "x-request-id"
}

fn dashed(name: &HeaderName) -> String {
    name.as_str().replace('_', "-")
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// The same names, each with the same values in the same order.
fn same(mut one: Vec<(Vec<u8>, Vec<u8>)>, mut other: Vec<(Vec<u8>, Vec<u8>)>) -> bool {
    one.sort_by(|a, b| a.0.cmp(&b.0));
    other.sort_by(|a, b| a.0.cmp(&b.0));
    one == other
}

/// A request's header by the strict reading.
struct Head<'a> {
    method: &'a [u8],
    target: &'a [u8],
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    rest: &'a [u8],
}

/// Reads the header at the beginning of the bytes, after empty lines.
///
/// Source: RFC 9112, sections 2.2, 3 and 5.
fn head(mut bytes: &[u8]) -> Option<Head<'_>> {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    let (first, mut rest) = line(bytes)?;
    let words: Vec<_> = first.split(|&b| b == b' ').collect();
    let [method, target, b"HTTP/1.1" | b"HTTP/1.0"] = words[..] else { return None };
    let is_plain = !target.is_empty() && target.iter().all(|b| b.is_ascii_graphic() && *b != b'#');
    if !is_token(method) || !is_plain {
        return None;
    }
    let mut fields = Vec::new();
    loop {
        let (field, after) = line(rest)?;
        rest = after;
        if field.is_empty() {
            return Some(Head { method, target, fields, rest });
        }
        let colon = field.iter().position(|&b| b == b':')?;
        let (name, value) = (&field[..colon], &field[colon + 1..]);
        if !is_token(name) || value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return None;
        }
        fields.push((name.to_ascii_lowercase(), value.trim_ascii().to_vec()));
    }
}

impl<'a> Head<'a> {
    /// The whole body and what follows it.
    ///
    /// Source: RFC 9112, sections 6.3 and 7.1.
    fn body(&self) -> Option<(Vec<u8>, &'a [u8])> {
        let of = |wanted: &[u8]| self.fields.iter().filter(|(name, _)| name == wanted).map(|(_, value)| &value[..]).collect::<Vec<_>>();
        match (&of(b"content-length")[..], &of(b"transfer-encoding")[..]) {
            ([], []) => Some((Vec::new(), self.rest)),
            ([length], []) if length.iter().all(u8::is_ascii_digit) => {
                let length = std::str::from_utf8(length).ok()?.parse().ok()?;
                self.rest.split_at_checked(length).map(|(body, rest)| (body.to_vec(), rest))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => self.chunks(),
            _ => None,
        }
    }

    fn chunks(&self) -> Option<(Vec<u8>, &'a [u8])> {
        let (mut body, mut rest) = (Vec::new(), self.rest);
        loop {
            let (size, after) = line(rest)?;
            // An extension is behind a semicolon; blanks before it are bad, and harmless.
            let size = size.split(|&b| b == b';').next()?.trim_ascii_end();
            let is_size = !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit);
            let size = usize::from_str_radix(std::str::from_utf8(size).ok().filter(|_| is_size)?, 16).ok()?;
            rest = after;
            if size == 0 {
                break;
            }
            let (chunk, after) = rest.split_at_checked(size)?;
            body.extend_from_slice(chunk);
            rest = after.strip_prefix(b"\r\n")?;
        }
        loop {
            let (trailer, after) = line(rest)?;
            rest = after;
            match trailer.iter().position(|&b| b == b':') {
                _ if trailer.is_empty() => return Some((body, rest)),
                Some(colon) if is_token(&trailer[..colon]) => {}
                _ => return None,
            }
        }
    }
}

/// A line that ends in CRLF, without it, and what follows.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&b| b == b'\n')?;
    let line = bytes[..end].strip_suffix(b"\r")?;
    (!line.contains(&b'\r')).then_some((line, &bytes[end + 1..]))
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// A client that has said all this, and then hangs up or waits.
struct Said {
    bytes: Vec<u8>,
    at: usize,
    pieces: usize,
    ends: bool,
}

impl AsyncRead for Said {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = &self.bytes[self.at..];
        if left.is_empty() && !self.ends {
            return Poll::Pending;
        }
        let piece = left.len().min(self.pieces).min(buf.remaining());
        buf.put_slice(&left[..piece]);
        self.at += piece;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Said {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a connection until it ends, or waits for a client that says no more.
fn run<C: Future>(connection: C) {
    struct Woken(AtomicBool);
    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let woken = Arc::new(Woken(AtomicBool::new(true)));
    let waker = Arc::clone(&woken).into();
    let (mut connection, mut turns) = (std::pin::pin!(connection), 0_u32);
    while woken.0.swap(false, Ordering::Relaxed) {
        if connection.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
        turns += 1;
        assert!(turns < 1_000_000, "the connection turns in a circle");
    }
}
