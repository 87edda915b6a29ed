//! From a ClientHello to the hostname it asks for.
//!
//! Arrives: the SNI, as rustls read it. Leaves: a [`Hostname`]. Goes wrong: no SNI, or one that cannot be in any index; both end the
//! handshake with the alert `unrecognized_name` before anything else is looked at.

use domains::Hostname;

/// A fatal `unrecognized_name` alert in its record, as both TLS 1.2 and 1.3 write it before keys exist.
///
/// Source: RFC 8446, sections 5.1 and 6; RFC 6066, section 3.
pub(crate) const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 112];

/// Why a ClientHello names nothing we could know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unnamed {
    /// It has no SNI.
    NoSni,
    /// Its SNI is no hostname of ours: a single label, an address, an underscore.
    NotAHostname,
}

impl Unnamed {
    /// A stable label for metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NoSni => "no_sni",
            Self::NotAHostname => "sni_not_a_hostname",
        }
    }
}

/// Reads the hostname from an SNI: case does not matter, nor does one trailing dot.
pub(crate) fn hostname(sni: Option<&str>) -> Result<Hostname, Unnamed> {
    let sni = sni.ok_or(Unnamed::NoSni)?;
    let sni = sni.strip_suffix('.').unwrap_or(sni);
    let hostname = Hostname::try_from(sni.to_ascii_lowercase()).map_err(|_| Unnamed::NotAHostname)?;
    // `*` is no letter of a real name.
    if hostname.is_wildcard() { Err(Unnamed::NotAHostname) } else { Ok(hostname) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn case_and_one_trailing_dot_do_not_matter_and_everything_else_does() {
        for sni in ["shop.brand.com", "SHOP.Brand.com", "shop.brand.com."] {
            assert_eq!(hostname(Some(sni)).unwrap().as_str(), "shop.brand.com");
        }
        for sni in ["", ".", "shop.brand.com..", "localhost", "10.0.0.1", "*.brand.com", "a_b.brand.com", "shop.brand.com:443"] {
            assert_eq!(hostname(Some(sni)), Err(Unnamed::NotAHostname), "{sni}");
        }
        assert_eq!(hostname(None), Err(Unnamed::NoSni));
    }

    proptest! {
        #[test]
        fn no_sni_panics(sni in "\\PC{0,300}") {
            let _ = hostname(Some(&sni));
        }
    }
}
