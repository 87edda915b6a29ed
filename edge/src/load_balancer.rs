//! Who a client is, as the load balancer in front of the edge tells it: the PROXY protocol, version 2.
//!
//! Arrives: the first bytes of a connection. Leaves: the client's address, or `None` where the load balancer speaks for itself (its
//! health checks). Goes wrong: a connection that does not begin so, or does not end its header; where the header is asked for, such a
//! connection is closed, since anyone but the load balancer could claim to be anyone.
//!
//! Source: <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>, section 2.2 (read 2026-11).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What every header begins with; no HTTP request and no TLS record does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header read: addresses, and the few extensions that load balancers add.
const MAX_REST_BYTES: usize = 4096;

const VERSION_2_LOCAL: u8 = 0x20;
const VERSION_2_PROXY: u8 = 0x21;
const INET: u8 = 1;
const INET6: u8 = 2;

/// Why a header was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHeader {
    /// The connection begins otherwise.
    Absent,
    /// It begins so, and does not go on so.
    Malformed,
    /// The connection ended within it.
    Gone,
}

impl NoHeader {
    /// A stable label for metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Absent => "proxy_header_absent",
            Self::Malformed => "proxy_header_malformed",
            Self::Gone => "gone",
        }
    }
}

/// Whether a connection with this first byte may begin with a header.
pub(crate) fn may_begin_with(byte: u8) -> bool {
    byte == SIGNATURE[0]
}

/// Reads a header, and nothing after it.
///
/// # Errors
/// [`NoHeader`]. Cancel safety: bytes read so far are lost.
pub(crate) async fn read_client(io: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, NoHeader> {
    let mut fixed = [0; 16];
    io.read_exact(&mut fixed).await.map_err(|_| NoHeader::Gone)?;
    let [.., version_and_command, family, high, low] = fixed;
    if fixed[..12] != SIGNATURE {
        return Err(NoHeader::Absent);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_REST_BYTES {
        return Err(NoHeader::Malformed);
    }
    let mut rest = vec![0; length];
    io.read_exact(&mut rest).await.map_err(|_| NoHeader::Gone)?;
    match (version_and_command, family >> 4) {
        (VERSION_2_LOCAL, _) => Ok(None),
        (VERSION_2_PROXY, INET) => source(&rest, 12, |octets: [u8; 4]| Ipv4Addr::from(octets).into()),
        (VERSION_2_PROXY, INET6) => source(&rest, 36, |octets: [u8; 16]| Ipv6Addr::from(octets).to_canonical()),
        // A family without addresses: the load balancer does not say.
        (VERSION_2_PROXY, _) => Ok(None),
        _ => Err(NoHeader::Malformed),
    }
}

/// The source address, which comes first; `least` bytes hold both addresses and ports.
fn source<const N: usize>(rest: &[u8], least: usize, address: impl Fn([u8; N]) -> IpAddr) -> Result<Option<IpAddr>, NoHeader> {
    if rest.len() < least {
        return Err(NoHeader::Malformed);
    }
    rest.first_chunk::<N>().map(|octets| Some(address(*octets))).ok_or(NoHeader::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        [&SIGNATURE[..], &[version_and_command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
    }

    async fn read(bytes: &[u8]) -> Result<Option<IpAddr>, NoHeader> {
        read_client(&mut &bytes[..]).await
    }

    #[tokio::test]
    async fn addresses_of_both_families_are_read_and_what_follows_is_left() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0xc0, 0, 1, 0xbb];
        let v6: Vec<u8> = [&[0x20, 1, 0xd, 0xb8], &[0; 12][..], &[0; 16], &[0, 1, 1, 0xbb]].concat();
        let with_extension = [&v4[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        for (bytes, expected) in [
            (header(0x21, 0x11, &v4), Some("192.0.2.7")),
            (header(0x21, 0x11, &with_extension), Some("192.0.2.7")),
            (header(0x21, 0x21, &v6), Some("2001:db8::")),
            (header(0x20, 0, &[]), None),
            (header(0x20, 0x11, &v4), None),
            (header(0x21, 0x31, &[0; 216]), None),
        ] {
            let bytes = [&bytes[..], b"\x16\x03"].concat();
            let mut left = &bytes[..];
            assert_eq!(read_client(&mut left).await, Ok(expected.map(|address| address.parse().unwrap())));
            assert_eq!(left, b"\x16\x03");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_told_apart() {
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await, Err(NoHeader::Absent));
        assert_eq!(read(b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n").await, Err(NoHeader::Absent));
        assert_eq!(read(&header(0x21, 0x11, &[0; 11])).await, Err(NoHeader::Malformed));
        assert_eq!(read(&header(0x11, 0x11, &[0; 12])).await, Err(NoHeader::Malformed));
        assert_eq!(read(&header(0x21, 0x11, &[0; 5000])).await, Err(NoHeader::Malformed));
        assert_eq!(read(&header(0x21, 0x11, &[0; 12])[..20]).await, Err(NoHeader::Gone));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), signed in any::<bool>()) {
            let bytes = if signed { [&SIGNATURE[..], &bytes].concat() } else { bytes };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(read(&bytes));
        }
    }
}
