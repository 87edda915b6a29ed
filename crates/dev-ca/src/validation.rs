//! Validation: looking whether a name's owner answers as the account said.
//!
//! Arrives: a challenge, its name and its key authorization. Leaves: `Ok` when a real fetch (http-01) or lookup (dns-01) found it.
//! Goes wrong: a [`Problem`] of type `dns`, `connection` or `unauthorized` with what was expected and seen, as Boulder words it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::uri::{Scheme, Uri};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::orders::{ChallengeKind, Validation};
use crate::problem::{Kind, Problem};

/// How many validations run at once; more wait their turn.
const AT_ONCE: usize = 64;
/// How long one validation may take, its lookups and redirects included.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long an IPv6 address may keep us before IPv4 gets its turn; only silence does, a refusal is final.
/// Source: docs/ipv6 of Let's Encrypt (read 2026-11).
const IPV6_PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait for one DNS answer, and how often to ask again.
const DNS_TIMEOUT: Duration = Duration::from_millis(1_200);
const DNS_RETRIES: usize = 2;
/// How many DNS questions may be open at once: each validation asks two.
const DNS_IN_FLIGHT: usize = 4 * AT_ONCE;
/// As many redirects as are followed. Source: docs/challenge-types of Let's Encrypt (read 2026-11).
const MOST_REDIRECTS: usize = 10;
/// As much of an answer as is read: a key authorization is under 100 bytes, the rest is room for white space.
const MOST_BODY_BYTES: usize = 4_096;
/// As much of a wrong answer as is quoted.
const MOST_QUOTED_CHARACTERS: usize = 128;
/// The port of plain HTTP, which redirects may name although we were told to use another.
const USUAL_HTTP_PORT: u16 = 80;

/// Tries challenges.
pub(crate) struct Validator {
    resolver: TokioResolver,
    http_port: u16,
    turns: Semaphore,
}

impl Validator {
    /// Sets up validation through the DNS server at `dns`, fetching from `http_port`.
    pub(crate) fn new(dns: SocketAddr, http_port: u16) -> Result<Self, NetError> {
        let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
        (udp.port, tcp.port) = (dns.port(), dns.port());
        let server = NameServerConfig::new(dns.ip(), true, vec![udp, tcp]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        // What the zone says now is what counts, not what it or this machine said before.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = DNS_TIMEOUT;
        options.attempts = DNS_RETRIES;
        options.max_active_requests = DNS_IN_FLIGHT;
        Ok(Self { resolver: builder.build()?, http_port, turns: Semaphore::new(AT_ONCE) })
    }

    /// Tries one challenge; `thumbprint` is that of the account's key.
    pub(crate) async fn validate(&self, challenge: &Validation, thumbprint: &str) -> Result<(), Problem> {
        let Ok(_turn) = self.turns.acquire().await else {
            return Err(Problem::new(Kind::ServerInternal, "the CA is stopping"));
        };
        let deadline = Instant::now() + DEADLINE;
        let key_authorization = format!("{}.{thumbprint}", challenge.token);
        let tried = async {
            match challenge.kind {
                ChallengeKind::Http01 => self.http_01(&challenge.name, &challenge.token, &key_authorization, deadline).await,
                ChallengeKind::Dns01 => self.dns_01(&challenge.name, &key_authorization).await,
            }
        };
        timeout_at(deadline, tried).await.unwrap_or_else(|_| {
            let detail = format!("{} for {} took longer than {} s", challenge.kind.name(), challenge.name, DEADLINE.as_secs());
            Err(Problem::new(Kind::Connection, detail))
        })
    }

    /// RFC 8555, section 8.3.
    async fn http_01(&self, name: &str, token: &str, expected: &str, deadline: Instant) -> Result<(), Problem> {
        let mut target = Target { host: name.to_owned(), path: format!("/.well-known/acme-challenge/{token}") };
        for _ in 0..=MOST_REDIRECTS {
            let page = self.fetch(&target, deadline).await?;
            match page.location {
                Some(location) if page.status.is_redirection() => target = self.follow(&target, &location)?,
                _ => return page.expect(&target, expected),
            }
        }
        Err(Problem::new(Kind::Connection, format!("{name} redirected more than {MOST_REDIRECTS} times, last to {target}")))
    }

    /// Fetches once, from the first IPv6 address or else the first IPv4 address.
    async fn fetch(&self, target: &Target, deadline: Instant) -> Result<Page, Problem> {
        let (ipv6, ipv4) = self.addresses(&target.host).await?;
        let failed = |address: IpAddr, what: &str| Problem::new(Kind::Connection, format!("{address}: fetching {target}: {what}"));
        let connect = |address: IpAddr| TcpStream::connect(SocketAddr::new(address, self.http_port));
        let (address, connected) = match (ipv6, ipv4) {
            (Some(ipv6), Some(ipv4)) => match timeout(IPV6_PATIENCE, connect(ipv6)).await {
                Ok(connected) => (ipv6, connected),
                Err(_) => (ipv4, connect(ipv4).await),
            },
            (Some(address), None) | (None, Some(address)) => (address, connect(address).await),
            (None, None) => return Err(Problem::new(Kind::Dns, format!("no A or AAAA record found for {}", target.host))),
        };
        let stream = connected.map_err(|error| failed(address, &error.to_string()))?;
        match timeout_at(deadline, exchange(stream, target, address)).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(failed(address, &crate::error_chain(&error))),
            Err(_) => Err(failed(address, "timed out")),
        }
    }

    /// Where a redirect leads, if we go there: plain HTTP, on our port or the usual one, by name.
    fn follow(&self, from: &Target, location: &str) -> Result<Target, Problem> {
        let refused = |why: &str| Problem::new(Kind::Connection, format!("{from} redirects to {location:?}: {why}"));
        let uri: Uri = location.parse().map_err(|_| refused("that is not a URL"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            if location.starts_with('/') && uri.authority().is_none() {
                return Ok(Target { host: from.host.clone(), path });
            }
            return Err(refused("only absolute URLs and paths are followed"));
        };
        if *scheme != Scheme::HTTP {
            return Err(refused("only http is followed here"));
        }
        let port = authority.port_u16().unwrap_or(USUAL_HTTP_PORT);
        if port != USUAL_HTTP_PORT && port != self.http_port {
            return Err(refused(&format!("only ports {USUAL_HTTP_PORT} and {} are followed", self.http_port)));
        }
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        if host.starts_with('[') || host.parse::<IpAddr>().is_ok() || host.is_empty() {
            return Err(refused("only hostnames are followed"));
        }
        Ok(Target { host, path })
    }

    /// RFC 8555, section 8.4.
    async fn dns_01(&self, name: &str, key_authorization: &str) -> Result<(), Problem> {
        let record = format!("_acme-challenge.{name}");
        let expected = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(key_authorization));
        let answers = match self.lookup(&record, RecordType::TXT).await {
            Ok(answers) => answers,
            Err(error) => return Err(dns_problem(&record, RecordType::TXT, &error)),
        };
        // The strings of one record are one value: RFC 7208, section 3.3 says it for all who split long texts.
        let seen: Vec<String> = answers
            .iter()
            .filter_map(|data| match data {
                RData::TXT(txt) => Some(txt.txt_data.iter().map(|part| String::from_utf8_lossy(part)).collect()),
                _ => None,
            })
            .collect();
        if seen.contains(&expected) {
            return Ok(());
        }
        let detail = match seen.as_slice() {
            [] => format!("no TXT record found at {record}; expected {expected:?}"),
            several => {
                let quoted: Vec<_> = several.iter().map(|value| format!("{:?}", quote(value))).collect();
                format!("incorrect TXT record at {record}: expected {expected:?}, found {}", quoted.join(", "))
            }
        };
        Err(Problem::unauthorized(detail))
    }

    /// The first IPv6 and the first IPv4 address of a host; one family's failure does not matter if the other answers.
    async fn addresses(&self, host: &str) -> Result<(Option<IpAddr>, Option<IpAddr>), Problem> {
        let (ipv6, ipv4) = tokio::join!(self.lookup(host, RecordType::AAAA), self.lookup(host, RecordType::A));
        let first = |answers: &Result<Vec<RData>, NetError>| {
            answers.as_ref().ok()?.iter().find_map(|data| match data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            })
        };
        match (first(&ipv6), first(&ipv4)) {
            (None, None) => match (ipv4, ipv6) {
                (Err(error), _) => Err(dns_problem(host, RecordType::A, &error)),
                (Ok(_), Err(error)) => Err(dns_problem(host, RecordType::AAAA, &error)),
                (Ok(_), Ok(_)) => Ok((None, None)),
            },
            found => Ok(found),
        }
    }

    /// Asks for records, following CNAMEs; that there are none is an empty answer, that there is no such name is an error.
    async fn lookup(&self, host: &str, kind: RecordType) -> Result<Vec<RData>, NetError> {
        let name = Name::from_ascii(format!("{host}."))?;
        match self.resolver.lookup(name, kind).await {
            Ok(lookup) => Ok(lookup.answers().iter().map(|record| record.data.clone()).collect()),
            Err(error) if error.is_no_records_found() && !error.is_nx_domain() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// What to fetch.
#[derive(Debug)]
struct Target {
    host: String,
    path: String,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.host, self.path)
    }
}

impl Target {
    fn request(&self) -> Result<Request<Empty<Bytes>>, http::Error> {
        Request::get(self.path.as_str())
            .header(HOST, self.host.as_str())
            .header(USER_AGENT, concat!("dev-ca/", env!("CARGO_PKG_VERSION"), " (ACME validation)"))
            .header(ACCEPT, "*/*")
            .body(Empty::new())
    }
}

/// What was fetched.
#[derive(Debug)]
struct Page {
    address: IpAddr,
    status: StatusCode,
    location: Option<String>,
    /// `None` when it was longer than any key authorization.
    body: Option<Bytes>,
}

impl Page {
    /// Compares the page with the key authorization; white space may follow it. Source: RFC 8555, section 8.3.
    fn expect(&self, target: &Target, expected: &str) -> Result<(), Problem> {
        let address = self.address;
        if self.status != StatusCode::OK {
            return Err(Problem::unauthorized(format!("{address}: invalid response from {target}: status {}", self.status.as_u16())));
        }
        let Some(body) = &self.body else {
            let detail = format!("{address}: invalid response from {target}: more than {MOST_BODY_BYTES} bytes");
            return Err(Problem::unauthorized(detail));
        };
        let seen = String::from_utf8_lossy(body);
        if seen.trim_end() == expected {
            return Ok(());
        }
        let detail =
            format!("{address}: the answer of {target} is not the key authorization: expected {expected:?}, got {:?}", quote(&seen));
        Err(Problem::unauthorized(detail))
    }
}

/// One request and its whole answer on a connection of its own.
async fn exchange(stream: TcpStream, target: &Target, address: IpAddr) -> Result<Page, FetchError> {
    let request = target.request()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Dropping the set, when this fetch is over or given up, ends the connection.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let location = head.headers.get(LOCATION).map(|location| String::from_utf8_lossy(location.as_bytes()).into_owned());
    let body = match Limited::new(body, MOST_BODY_BYTES).collect().await {
        Ok(body) => Some(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => None,
        Err(error) => return Err(FetchError::Body(error)),
    };
    Ok(Page { address, status: head.status, location, body })
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the request cannot be built")]
    Request(#[from] http::Error),
    #[error("the exchange failed")]
    Exchange(#[from] hyper::Error),
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

fn dns_problem(host: &str, kind: RecordType, error: &NetError) -> Problem {
    let what = match error {
        error if error.is_nx_domain() => "NXDOMAIN".to_owned(),
        NetError::Timeout => "timeout".to_owned(),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)) => "SERVFAIL".to_owned(),
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => "REFUSED".to_owned(),
        other => crate::error_chain(other),
    };
    Problem::new(Kind::Dns, format!("DNS problem: {what} looking up {kind} for {host}"))
}

fn quote(text: &str) -> String {
    text.chars().take(MOST_QUOTED_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validator() -> Validator {
        Validator::new(SocketAddr::from(([127, 0, 0, 1], 53)), 5002).expect("a resolver")
    }

    #[tokio::test]
    async fn redirects_are_followed_only_to_plain_http_on_a_known_port_by_name() {
        let from = Target { host: "a.test".into(), path: "/x".into() };
        let validator = validator();
        for (location, target) in [
            ("/other?q=1", "http://a.test/other?q=1"),
            ("http://B.test./y", "http://b.test/y"),
            ("http://b.test:80/y", "http://b.test/y"),
            ("http://b.test:5002", "http://b.test/"),
        ] {
            assert_eq!(validator.follow(&from, location).expect(location).to_string(), target);
        }
        for location in
            ["https://b.test/y", "http://b.test:8080/y", "http://127.0.0.1/y", "http://[::1]/y", "relative", "", "http://", "\u{1}"]
        {
            let problem = validator.follow(&from, location).expect_err(location);
            assert_eq!(problem.short_type(), "connection", "{location}");
        }
    }

    #[test]
    fn only_the_exact_key_authorization_with_white_space_after_it_is_accepted() {
        let target = Target { host: "a.test".into(), path: "/x".into() };
        let page = |status: u16, body: &'static str| Page {
            address: IpAddr::from([127, 0, 0, 1]),
            status: StatusCode::from_u16(status).expect("a status"),
            location: None,
            body: Some(Bytes::from_static(body.as_bytes())),
        };
        page(200, "token.print").expect(&target, "token.print").expect("exact");
        page(200, "token.print \r\n").expect(&target, "token.print").expect("trailing white space");
        for wrong in
            [page(200, " token.print"), page(200, "token.print2"), page(200, ""), page(201, "token.print"), page(404, "token.print")]
        {
            assert_eq!(wrong.expect(&target, "token.print").expect_err("wrong").short_type(), "unauthorized");
        }
        let long = Page { body: None, ..page(200, "") };
        assert!(long.expect(&target, "token.print").is_err());
    }
}
