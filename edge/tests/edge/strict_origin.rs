//! An origin that is the judge: it keeps every byte it received, and reads it by the narrowest grammar there is.
//!
//! It repairs nothing. Whatever is not one request after another in that grammar is [`Seen::Malformed`], with its bytes.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What came over one connection, in order.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// A request, whole.
    Request(Request),
    /// The beginning of a request, and then the connection's end.
    Cut(Vec<u8>),
    /// Bytes that are no request.
    Malformed(&'static str, Vec<u8>),
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    /// In lower case, as `name`, `value`.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect()
    }
}

pub(crate) struct StrictOrigin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for StrictOrigin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StrictOrigin {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&log)));
            }
        });
        Self { address, seen, task }
    }

    /// What was seen since this was last asked.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn serve(mut socket: TcpStream, log: Arc<Mutex<Vec<Seen>>>) {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(read @ 1..) = socket.read(&mut buffer).await {
        bytes.extend_from_slice(&buffer[..read]);
        loop {
            match request(&bytes) {
                Ok(Some((request, used))) => {
                    bytes.drain(..used);
                    log.lock().unwrap().push(Seen::Request(request));
                    if socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(reason) => return log.lock().unwrap().push(Seen::Malformed(reason, bytes)),
            }
        }
    }
    if !bytes.is_empty() {
        log.lock().unwrap().push(Seen::Cut(bytes));
    }
}

/// The first request in the bytes and its size, `None` while it is not whole.
fn request(bytes: &[u8]) -> Result<Option<(Request, usize)>, &'static str> {
    let Some((line, mut rest)) = line(bytes)? else { return Ok(None) };
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some("HTTP/1.1"), None) if !method.is_empty() && !target.is_empty() => {
            if !method.bytes().all(token) {
                return Err("method");
            }
            if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
                return Err("target");
            }
        }
        _ => return Err("request line"),
    }
    let Some((fields, after)) = fields(rest)? else { return Ok(None) };
    rest = after;
    let of = |name: &str| fields.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect::<Vec<_>>();
    let (body, trailers) = match (&of("content-length")[..], &of("transfer-encoding")[..]) {
        ([], []) => (Vec::new(), Vec::new()),
        ([length], []) if (1..=9).contains(&length.len()) && length.bytes().all(|b| b.is_ascii_digit()) => {
            let length = length.parse().unwrap();
            if rest.len() < length {
                return Ok(None);
            }
            let (body, after) = rest.split_at(length);
            rest = after;
            (body.to_vec(), Vec::new())
        }
        ([], [coding]) if *coding == "chunked" => {
            let Some((body, trailers, after)) = chunks(rest)? else { return Ok(None) };
            rest = after;
            (body, trailers)
        }
        _ => return Err("length"),
    };
    Ok(Some((Request { line: line.rsplit_once(' ').unwrap().0.to_owned(), fields, body, trailers }, bytes.len() - rest.len())))
}

/// A line, without its CRLF, and what follows.
fn line(bytes: &[u8]) -> Result<Option<(&str, &[u8])>, &'static str> {
    let Some(end) = bytes.iter().position(|&b| b == b'\n') else {
        let harmless = bytes.iter().rev().skip(1).all(|&b| b != b'\r');
        return if harmless { Ok(None) } else { Err("bare CR") };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or("bare LF")?;
    if line.contains(&b'\r') {
        return Err("bare CR");
    }
    // What is not ASCII may be in a value; whoever cares about more looks at the bytes.
    let line = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
    Ok(Some((line, &bytes[end + 1..])))
}

type Fields = Vec<(String, String)>;

fn fields(mut rest: &[u8]) -> Result<Option<(Fields, &[u8])>, &'static str> {
    let mut fields = Vec::new();
    loop {
        let Some((field, after)) = line(rest)? else { return Ok(None) };
        rest = after;
        if field.is_empty() {
            return Ok(Some((fields, rest)));
        }
        let (name, value) = field.split_once(':').ok_or("no colon")?;
        if name.is_empty() || !name.bytes().all(token) {
            return Err("field name");
        }
        if value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
            return Err("field value");
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

#[allow(clippy::type_complexity, reason = "read in one place")]
fn chunks(mut rest: &[u8]) -> Result<Option<(Vec<u8>, Fields, &[u8])>, &'static str> {
    let mut body = Vec::new();
    loop {
        let Some((size, after)) = line(rest)? else { return Ok(None) };
        if !(1..=8).contains(&size.len()) || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("chunk size");
        }
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return Ok(fields(after)?.map(|(trailers, after)| (body, trailers, after)));
        }
        if after.len() < size + 2 {
            return Ok(None);
        }
        body.extend_from_slice(&after[..size]);
        if &after[size..size + 2] != b"\r\n" {
            return Err("chunk end");
        }
        rest = &after[size + 2..];
    }
}

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The judge is judged: a judge that takes everything would find nothing.
#[test]
fn the_strict_origin_takes_one_framing_and_no_other() {
    let whole = |bytes: &str| request(bytes.as_bytes()).map(|found| found.map(|(request, used)| (request.line, request.body, used)));
    let head = "POST /v HTTP/1.1\r\nhost: a\r\n";
    let good = format!("{head}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx: y\r\n\r\nrest");
    assert_eq!(whole(&good), Ok(Some(("POST /v".to_owned(), b"abc".to_vec(), good.len() - 4))));
    assert_eq!(whole(&good[..good.len() - 8]), Ok(None));
    for wrong in [
        "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        "transfer-encoding: Chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        "x: a\nb: c\r\n\r\n",
        "x: a\rb\r\n\r\n",
        " x: y\r\n\r\n",
        "x : y\r\n\r\n",
        "x: \u{1}\r\n\r\n",
    ] {
        assert!(whole(&format!("{head}{wrong}")).is_err(), "{wrong:?}");
    }
}
