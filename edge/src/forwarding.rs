//! The headers an origin may believe.
//!
//! Arrives: a request's headers as a stranger wrote them. Leaves: the same without everything that says where the request came from or
//! belongs to one hop, plus what the edge itself knows. Goes wrong: nothing; what may not pass is dropped.

use std::net::IpAddr;

use domains::TenantId;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONNECTION, COOKIE, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};

/// Names the tenant to the origin.
pub(crate) const TENANT: HeaderName = HeaderName::from_static("x-nameplate-tenant");
/// What the edge knows about the connection, signed.
pub(crate) const ASSERTION: HeaderName = HeaderName::from_static("x-nameplate-assertion");
/// Names the request, here, in the log and at the origin.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that only the edge may set, as `-` spells them; their `_` spellings, which many origins read alike, go too.
const OURS: &[&str] = &[
    "cf-connecting-ip",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "proxy",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-request-id",
    "x-rewrite-url",
];

/// And every header that begins so.
const OUR_PREFIXES: &[&str] = &["x-forwarded-", "x-nameplate-"];

/// Headers of one hop, with or without `Connection` naming them.
///
/// Source: RFC 9110, section 7.6.1.
const ONE_HOP: &[&str] = &["keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"];

/// Headers that decide how a request is read: dropped when they are spelled with `_`, which many origins read alike.
const FRAMING_TWINS: &[&str] = &["content-length", "content-type", "transfer-encoding"];

/// What the edge knows about a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// Its address.
    pub(crate) client: &'a HeaderValue,
    pub(crate) authority: &'a HeaderValue,
    pub(crate) public_port: &'a HeaderValue,
    pub(crate) tenant: &'a TenantId,
    pub(crate) request_id: &'a HeaderValue,
    pub(crate) assertion: Option<&'a HeaderValue>,
}

/// A client's address as the origin gets it.
pub(crate) fn address(client: IpAddr) -> HeaderValue {
    // Digits, letters, dots and colons.
    HeaderValue::try_from(client.to_canonical().to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Makes a client's headers into the ones the origin gets.
pub(crate) fn to_origin(headers: &mut HeaderMap, known: Known<'_>) {
    let trailers_wanted = headers.get_all(TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    drop_one_hop_and(headers, |name| *name == EXPECT || is_ours(name.as_str()));
    join_cookies(headers);
    if trailers_wanted {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    headers.insert(HOST, known.authority.clone());
    headers.insert(FORWARDED_FOR, known.client.clone());
    headers.insert(FORWARDED_HOST, known.authority.clone());
    headers.insert(FORWARDED_PORT, known.public_port.clone());
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    // A tenant is made of visible ASCII; one that were not would be left out rather than take the request down.
    if let Ok(tenant) = HeaderValue::from_str(known.tenant.as_str()) {
        headers.insert(TENANT, tenant);
    }
    headers.insert(REQUEST_ID, known.request_id.clone());
    if let Some(assertion) = known.assertion {
        headers.insert(ASSERTION, assertion.clone());
    }
}

/// Makes an origin's headers into the ones the client gets.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    drop_one_hop(headers);
}

/// Takes from trailers what would not have passed as headers.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap) {
    drop_one_hop_and(trailers, |name| is_ours(name.as_str()));
    for name in [HOST, COOKIE, EXPECT, http::header::CONTENT_LENGTH, http::header::AUTHORIZATION] {
        trailers.remove(name);
    }
}

/// Drops `Connection`, everything it names, and what belongs to one hop anyway.
pub(crate) fn drop_one_hop(headers: &mut HeaderMap) {
    drop_one_hop_and(headers, |_| false);
}

/// The same, and what else `goes`; in one look at the names, because most headers have nothing that must go.
fn drop_one_hop_and(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let of_one_hop = |name: &HeaderName| {
        [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE].contains(name) || ONE_HOP.contains(&name.as_str()) || named.contains(name)
    };
    let dropped: Vec<HeaderName> = headers.keys().filter(|name| of_one_hop(name) || goes(name)).cloned().collect();
    dropped.iter().for_each(|name| {
        headers.remove(name);
    });
}

/// Whether only the edge may set a header of this name; names arrive in lower case.
fn is_ours(name: &str) -> bool {
    let dashed;
    let name = if name.contains('_') {
        dashed = name.replace('_', "-");
        if FRAMING_TWINS.contains(&dashed.as_str()) || ONE_HOP.contains(&dashed.as_str()) {
            return true;
        }
        &dashed
    } else {
        name
    };
    OURS.contains(&name) || OUR_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// HTTP/2 may send a cookie in pieces; HTTP/1.1 has one line.
///
/// Source: RFC 9113, section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn forwarded(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let (tenant, request_id) = (TenantId::parse("acme").unwrap(), HeaderValue::from_static("id"));
        let (client, authority, public_port) =
            (address(Ipv4Addr::new(192, 0, 2, 7).into()), HeaderValue::from_static("Shop.brand.com"), 443.into());
        let known = Known {
            client: &client,
            authority: &authority,
            public_port: &public_port,
            tenant: &tenant,
            request_id: &request_id,
            assertion: None,
        };
        to_origin(&mut headers, known);
        let mut lines: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
        lines.sort();
        lines
    }

    const SET: [(&str, &str); 7] = [
        ("host", "Shop.brand.com"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "Shop.brand.com"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
        ("x-nameplate-tenant", "acme"),
        ("x-request-id", "id"),
    ];

    #[test]
    fn nothing_a_client_says_about_its_origin_reaches_ours() {
        let spoofed: Vec<(String, &str)> = OURS
            .iter()
            .map(|&name| name.to_owned())
            .chain(
                ["x-forwarded-for", "x-forwarded-anything", "x-nameplate-tenant", "x-nameplate-assertion", "x-nameplate-admin"]
                    .map(String::from),
            )
            .flat_map(|name| [name.replace('-', "_"), name])
            .chain(["content_length", "transfer_encoding", "proxy_connection"].map(String::from))
            .chain(["x_forwarded-for".to_owned(), "keep-alive".to_owned(), "proxy-authorization".to_owned(), "upgrade".to_owned()])
            .map(|name| (name, "spoofed"))
            .collect();
        let lines: Vec<(&str, &str)> = spoofed.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let expected = SET.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(forwarded(&lines), expected);
    }

    #[test]
    fn connection_cannot_strip_what_the_edge_says_and_what_it_names_is_dropped() {
        let lines = forwarded(&[
            ("connection", "close, X-Forwarded-For, x-nameplate-tenant, host, x-secret"),
            ("x-secret", "1"),
            ("accept", "*/*"),
        ]);
        let mut expected: Vec<_> = SET.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        expected.insert(0, ("accept".to_owned(), "*/*".to_owned()));
        assert_eq!(lines, expected);
    }

    #[test]
    fn a_cookie_in_pieces_becomes_one_line_and_other_lines_stay_apart() {
        let lines = forwarded(&[("cookie", "a=1"), ("cookie", "b=2"), ("via", "x"), ("via", "y")]);
        let of = |wanted: &str| lines.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.clone()).collect::<Vec<_>>();
        assert_eq!(of("cookie"), ["a=1; b=2"]);
        assert_eq!(of("via"), ["x", "y"]);
    }

    #[test]
    fn a_client_is_told_as_it_is() {
        assert_eq!(address(Ipv6Addr::LOCALHOST.into()), "::1");
        assert_eq!(address(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into()), "192.0.2.7");
    }
}
