//! Whether a request is for the name its connection was opened for.
//!
//! Arrives: a request's authority and Host header. Leaves: nothing, when they are the SNI's name. Goes wrong: 400 when they are absent,
//! doubled or unreadable; 421 when they name another site, so that no tenant is reached through another's connection.

use domains::Hostname;
use http::{HeaderMap, StatusCode, Uri, Version, header::HOST};

/// Why a request's authority is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is none, or more than one.
    Ambiguous,
    /// It is not `host` or `host:port`.
    Unreadable,
    /// It names another site than the SNI.
    Misdirected,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Ambiguous | Self::Unreadable => StatusCode::BAD_REQUEST,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        }
    }

    /// A stable label for metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Ambiguous => "host_absent_or_doubled",
            Self::Unreadable => "host_unreadable",
            Self::Misdirected => "misdirected",
        }
    }
}

/// The one authority of a request, as it was written.
///
/// Source: RFC 9112, section 3.2 (exactly one Host, and an absolute target must agree with it); RFC 9113, section 8.3.1.
pub(crate) fn of_request<'a>(version: Version, uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(|host| host.to_str().map_err(|_| Refusal::Unreadable)).transpose()?;
    if hosts.next().is_some() {
        return Err(Refusal::Ambiguous);
    }
    let target = uri.authority().map(http::uri::Authority::as_str);
    match (target, host) {
        (None, None) => Err(Refusal::Ambiguous),
        // HTTP/1.1 asks for Host even beside an absolute target.
        (Some(_), None) if version < Version::HTTP_2 => Err(Refusal::Ambiguous),
        (Some(target), None) => Ok(target),
        (None, Some(host)) => Ok(host),
        (Some(target), Some(host)) => match (name_of(target), name_of(host)) {
            (Some(target), Some(other)) if target == other => Ok(host),
            (Some(_), Some(_)) => Err(Refusal::Misdirected),
            _ => Err(Refusal::Unreadable),
        },
    }
}

/// Checks that an authority is the SNI's name: case, one trailing dot and the port do not matter.
pub(crate) fn check(authority: &str, sni: &Hostname) -> Result<(), Refusal> {
    match name_of(authority) {
        Some(name) if name == sni.as_str() => Ok(()),
        Some(_) => Err(Refusal::Misdirected),
        None => Err(Refusal::Unreadable),
    }
}

/// The name in `name`, `name.` or `name:port`, in lower case.
pub(crate) fn name_of(authority: &str) -> Option<String> {
    let (name, port) = match authority.rsplit_once(':') {
        // An IPv6 address: no name, but readable.
        _ if authority.starts_with('[') && authority.contains(']') => (authority, None),
        Some((name, port)) => (name, Some(port)),
        None => (authority, None),
    };
    if port.is_some_and(|port| port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let readable =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'[' | b']' | b':'));
    readable.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn judged(version: Version, uri: &str, hosts: &[&str]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        let uri: Uri = uri.parse().unwrap();
        check(of_request(version, &uri, &headers)?, &Hostname::parse_name("shop.brand.com").unwrap())
    }

    #[test]
    fn only_the_names_own_authority_passes() {
        use Refusal::*;
        for (host, expected) in [
            ("shop.brand.com", Ok(())),
            ("SHOP.brand.com", Ok(())),
            ("shop.brand.com.", Ok(())),
            ("shop.brand.com:443", Ok(())),
            ("shop.brand.com:8443", Ok(())),
            ("shop.brand.com.:443", Ok(())),
            ("other.brand.com", Err(Misdirected)),
            ("brand.com", Err(Misdirected)),
            ("shop.brand.com.evil.com", Err(Misdirected)),
            ("shop.brand.com..", Err(Misdirected)),
            ("[::1]:443", Err(Misdirected)),
            ("10.0.0.1", Err(Misdirected)),
            ("", Err(Unreadable)),
            (":443", Err(Unreadable)),
            ("shop.brand.com:", Ok(())),
            ("shop.brand.com:https", Err(Unreadable)),
            ("shop.brand.com:443443", Err(Unreadable)),
            ("user@shop.brand.com", Err(Unreadable)),
            ("shop.brand.com, other.brand.com", Err(Unreadable)),
            ("shop.brand.com/path", Err(Unreadable)),
        ] {
            assert_eq!(judged(Version::HTTP_11, "/", &[host]), expected, "{host:?}");
        }
    }

    #[test]
    fn absent_doubled_and_disagreeing_authorities_are_refused() {
        use Refusal::*;
        let (h1, h2) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(judged(h1, "/", &[]), Err(Ambiguous));
        assert_eq!(judged(h1, "/", &["shop.brand.com", "shop.brand.com"]), Err(Ambiguous));
        assert_eq!(judged(h1, "https://shop.brand.com/", &[]), Err(Ambiguous));
        assert_eq!(judged(h1, "https://shop.brand.com/", &["shop.brand.com"]), Ok(()));
        assert_eq!(judged(h1, "https://other.brand.com/", &["shop.brand.com"]), Err(Misdirected));
        assert_eq!(judged(h2, "https://shop.brand.com/", &[]), Ok(()));
        assert_eq!(judged(h2, "https://shop.brand.com/", &["other.brand.com"]), Err(Misdirected));
        assert_eq!(judged(h2, "https://other.brand.com/", &[]), Err(Misdirected));
    }
}
