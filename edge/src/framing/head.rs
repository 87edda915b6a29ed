//! The strict grammar of one HTTP/1 request header, read from its bytes.
//!
//! Arrives: a header as it came from the wire, up to and with its empty line. Leaves: what [`Framing`] its body has. Goes wrong: anything
//! the standard does not allow, or allows a recipient to read in two ways, each with a reason of its own.
//!
//! Source: RFC 9112, sections 2.2 (line ends), 3 (request line), 5 (fields) and 6 (lengths); RFC 9110, sections 5.5 and 5.6.2.

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By `Content-Length`, or there is none.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// Reads a whole header.
///
/// # Errors
/// Why it cannot be read in one way only; a stable label for metrics.
pub(super) fn read(head: &[u8]) -> Result<Framing, &'static str> {
    let mut lines = Lines(head);
    let is_http11 = request_line(lines.next().ok_or("request_line")??)?;
    let (mut length, mut chunked, mut hosts) = (None, false, 0_u32);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(content_length(value)?).is_some() {
                return Err("length_doubled");
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err("transfer_encoding");
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        }
    }
    match (length, chunked) {
        _ if hosts > 1 || (hosts == 0 && is_http11) => Err("host_absent_or_doubled"),
        (Some(_), true) => Err("two_lengths"),
        (None, true) if !is_http11 => Err("transfer_encoding"),
        (None, true) => Ok(Framing::Chunked),
        (length, false) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// Reads one field line without its line end: `name:` and a value, whose outer blanks do not count.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("folded_field");
    }
    let colon = line.iter().position(|&b| b == b':').ok_or("field_without_colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if !is_field_name(name) {
        return Err("field_name");
    }
    // Visible characters, blanks, and what is not ASCII, which the standard calls opaque.
    match value.iter().all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f)) {
        true => Ok((name, value.trim_ascii())),
        false => Err("field_value"),
    }
}

pub(super) fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&b| is_token(b))
}

/// Whether it is HTTP/1.1 and not 1.0.
fn request_line(line: &[u8]) -> Result<bool, &'static str> {
    let mut words = line.split(|&b| b == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err("request_line");
    };
    if method.is_empty() || !method.iter().all(|&b| is_token(b)) {
        return Err("method_name");
    }
    is_target(method, target).then_some(()).ok_or("target")?;
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err("version"),
    }
}

/// Whether a request target has one of the forms of RFC 9112, section 3.2, in visible ASCII and without a fragment.
fn is_target(method: &[u8], target: &[u8]) -> bool {
    let begins = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme));
    let formed = match method {
        // Refused later, as a method.
        b"CONNECT" => true,
        b"OPTIONS" if target == b"*" => true,
        _ => target.first() == Some(&b'/') || begins(b"http://") || begins(b"https://"),
    };
    formed && is_plain(target)
}

/// Whether a target is visible ASCII without a fragment: all that RFC 3986 leaves unescaped, and nothing that an origin could cut at.
pub(super) fn is_plain(target: &[u8]) -> bool {
    target.iter().all(|&b| b.is_ascii_graphic() && b != b'#')
}

/// Digits alone: no sign, no list, and a number that fits.
pub(super) fn content_length(value: &[u8]) -> Result<u64, &'static str> {
    let digits = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    digits.then(|| value.iter().fold(0, |sum, b| sum * 10 + u64::from(b - b'0'))).ok_or("length")
}

/// Source: RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Lines that end in CRLF, without it.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|&b| b == b'\n').map_or(self.0.len(), |end| end + 1);
        let (line, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(without_crlf(line))
    }
}

/// Takes a line's CRLF off; a bare LF or CR is an error.
pub(super) fn without_crlf(line: &[u8]) -> Result<&[u8], &'static str> {
    let line = line.strip_suffix(b"\r\n").ok_or("line_end")?;
    if line.contains(&b'\r') { Err("line_end") } else { Ok(line) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(head: &str) -> Result<Framing, &'static str> {
        read(head.as_bytes())
    }

    #[test]
    fn each_way_to_be_unclear_has_its_reason() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Framing::Length(0))),
            ("GET / HTTP/1.0\r\n\r\n", Ok(Framing::Length(0))),
            ("POST /?a=\"{}\" HTTP/1.1\r\nhOST:a\r\nCONTENT-LENGTH:\t12 \r\n\r\n", Ok(Framing::Length(12))),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n", Ok(Framing::Chunked)),
            ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", Ok(Framing::Length(0))),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Err("target")),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Err("target")),
            ("GET /#f HTTP/1.1\r\nHost: a\r\n\r\n", Err("target")),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Err("request_line")),
            ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Err("request_line")),
            ("GET /\r\n\r\n", Err("request_line")),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Err("version")),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Err("method_name")),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Err("line_end")),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Err("line_end")),
            ("GET / HTTP/1.1\r\nHost: a\rb: c\r\n\r\n", Err("line_end")),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Err("folded_field")),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err("field_name")),
            ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Err("field_name")),
            ("GET / HTTP/1.1\r\nHost: a\r\nb\r\n\r\n", Err("field_without_colon")),
            ("GET / HTTP/1.1\r\nHost: a\r\nb: \x01\r\n\r\n", Err("field_value")),
            ("GET / HTTP/1.1\r\n\r\n", Err("host_absent_or_doubled")),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", Err("length")),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Err("length_doubled")),
            ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Err("transfer_encoding")),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err("transfer_encoding")),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Err("two_lengths")),
        ] {
            assert_eq!(reads(head), expected, "{head:?}");
        }
    }
}
