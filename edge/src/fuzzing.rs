//! What strangers send, and what must hold of it whatever it is.
//!
//! Arrives: bytes, made up by `scripts/fuzz` or kept in `fuzz/corpus`. Leaves: nothing. Goes wrong: with a panic that says which sentence
//! stopped being true. No part of the program: tests and the fuzzer alone are built with this module.

use std::{net::IpAddr, pin::pin};

use domains::Hostname;
use rustls::server::Acceptor;

use crate::{hello, load_balancer};

mod objects;
mod requests;

/// Judges one input; panics when something that must hold does not.
pub type Judge = fn(&[u8]);

/// What is fuzzed, each with the folder of its corpus.
pub const TARGETS: [(&str, Judge); 5] = [
    ("client_hello", client_hello),
    ("proxy_header", proxy_header),
    ("objects", objects::judge),
    ("requests", requests::judge),
    ("headers", requests::judge_headers),
];

/// A ClientHello's name is the one in its bytes, however they arrive, and one that the index could have.
fn client_hello(bytes: &[u8]) {
    let told = hello_in(bytes, bytes.len());
    for pieces in [1, 7, 300] {
        assert_eq!(hello_in(bytes, pieces), told, "in pieces of {pieces}");
    }
    let Hello::Whole(sni) = told else { return };
    let Ok(hostname) = hello::hostname(sni.as_deref()) else { return };
    let names = names_in(bytes).expect("a ClientHello that rustls takes can be read");
    let [name] = &names[..] else { panic!("{hostname} is one of {names:?}") };
    let name = name.to_ascii_lowercase();
    assert_eq!(name.strip_suffix(b".").unwrap_or(&name), hostname.as_str().as_bytes());
    assert_eq!(Hostname::try_from(hostname.to_string()).as_ref(), Ok(&hostname));
    assert!(!hostname.is_wildcard());
}

#[derive(Debug, PartialEq, Eq)]
enum Hello {
    Whole(Option<String>),
    Refused,
    Unfinished,
}

/// What rustls makes of a connection's first bytes.
fn hello_in(bytes: &[u8], pieces: usize) -> Hello {
    let mut acceptor = Acceptor::default();
    for mut piece in bytes.chunks(pieces.max(1)) {
        while !piece.is_empty() {
            match acceptor.read_tls(&mut piece) {
                Ok(1..) => {}
                _ => return Hello::Refused,
            }
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Hello::Whole(accepted.client_hello().server_name().map(str::to_owned)),
                Err(_) => return Hello::Refused,
            }
        }
    }
    Hello::Unfinished
}

/// The names in a ClientHello's SNI by a reading of our own, `None` when it cannot be read.
///
/// Source: RFC 8446, sections 4, 4.1.2 and 5.1; RFC 6066, section 3.
fn names_in(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (mut records, mut message) = (Fields(bytes), Vec::new());
    while message.len() < 4
        || message.len() < 4 + usize::from(message[1]) * 0x1_0000 + usize::from(message[2]) * 0x100 + usize::from(message[3])
    {
        let [22, _, _] = records.take(3)? else { return None };
        message.extend_from_slice(records.counted(2)?);
    }
    let mut hello = Fields(&message);
    let [1] = hello.take(1)? else { return None };
    let mut hello = Fields(hello.counted(3)?);
    hello.take(2 + 32)?;
    for digits in [1, 2, 1] {
        hello.counted(digits)?;
    }
    let mut extensions = Fields(hello.counted(2)?);
    let mut names = Vec::new();
    while !extensions.0.is_empty() {
        let (kind, content) = (extensions.take(2)?, extensions.counted(2)?);
        if kind == [0, 0] {
            let mut list = Fields(Fields(content).counted(2)?);
            // How long a name of another kind is, nobody can know.
            while let Some([0]) = list.take(1) {
                names.push(list.counted(2)?.to_vec());
            }
        }
    }
    Some(names)
}

/// Fields as TLS writes them.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(field)
    }

    /// A field behind its size, which has so many bytes.
    fn counted(&mut self, digits: usize) -> Option<&'a [u8]> {
        let size = self.take(digits)?.iter().fold(0, |size, &digit| size << 8 | usize::from(digit));
        self.take(size)
    }
}

/// A PROXY header that is taken says what is in it, and exactly its own bytes are used up.
fn proxy_header(bytes: &[u8]) {
    let mut left = bytes;
    let Ok(client) = now(load_balancer::read_client(&mut left)) else { return };
    let used = bytes.len() - left.len();
    let header = &bytes[..used];
    assert!(load_balancer::may_begin_with(header[0]) && header.starts_with(b"\r\n\r\n\0\r\nQUIT\n"));
    assert_eq!(used, 16 + usize::from(u16::from_be_bytes([header[14], header[15]])), "the length said is the length used");
    let expected = match (header[12], header[13] >> 4, &header[16..]) {
        (0x21, 1, [a, b, c, d, ..]) => Some(IpAddr::from([*a, *b, *c, *d])),
        (0x21, 2, addresses) => Some(IpAddr::from(*addresses.first_chunk::<16>().expect("an address")).to_canonical()),
        (0x20 | 0x21, ..) => None,
        (version, ..) => panic!("{version:#x} is no command of version 2"),
    };
    assert_eq!(client, expected);
    for short in [1, used / 2, used - 1] {
        assert_eq!(now(load_balancer::read_client(&mut &header[..short])), Err(load_balancer::NoHeader::Gone), "{short} of {used} bytes");
    }
}

/// The outcome of something that waits for nothing.
fn now<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => output,
        std::task::Poll::Pending => panic!("bytes that are there are waited for"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    /// Inputs that once reached something new, made up by the fuzzer or taken from elsewhere.
    #[test]
    fn every_kept_input_is_still_judged_well() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, judge) in TARGETS {
            let kept: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(kept.len() >= 10, "{name}: {}", kept.len());
            for path in kept {
                // Shown only if it fails.
                println!("{}", path.display());
                judge(&fs::read(path).unwrap());
            }
        }
    }
}
