//! Requests that strangers could make to be read in two ways, as data: each file of `vectors/` holds families of them, with the section of
//! the standard that says what must come of it. A [`StrictOrigin`] judges: a request is either refused and its connection closed, or it
//! arrives with one framing, one host, and nothing forged.

use std::{fmt::Write as _, net::SocketAddr, sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{
    client,
    raw_h2::{self, Answered},
    setup::Setup,
    strict_origin::{Request, Seen, StrictOrigin},
};

pub(crate) const HOST: &str = "shop.brand.com";
pub(crate) const OTHER: &str = "other.brand.com";
/// Longer than anything takes here, shorter than any of the edge's own deadlines, so that a wait is never taken for a refusal.
const WAIT: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    family: Vec<Family>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    about: String,
    rfc: String,
    #[serde(default)]
    protocol: Protocol,
    outcome: Outcome,
    /// HTTP/1: the bytes, with `{}` for the case.
    #[serde(default)]
    send: String,
    /// HTTP/2: the headers a case changes, and the body.
    #[serde(default)]
    headers: Vec<String>,
    data: Option<String>,
    #[serde(default)]
    place: Place,
    /// The request lines the origin must see, in order.
    #[serde(default)]
    sees: Vec<String>,
    /// The requests before the refused one, which the origin must see.
    #[serde(default)]
    before: Vec<String>,
    /// The first request's body at the origin.
    body: Option<String>,
    /// Header names the origin must not see.
    #[serde(default)]
    never: Vec<String>,
    /// The statuses a refusal may have.
    status: Option<Vec<u16>>,
    cases: Vec<Case>,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    #[default]
    H1,
    H2,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// The origin sees it, and the client the origin's answer.
    Forwarded,
    /// The origin sees no byte of it, and the connection or stream ends.
    Refused,
    /// The origin may see its beginning, never its end; the connection or stream ends.
    Cut,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Place {
    #[default]
    Headers,
    Trailers,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Case {
    H1(String),
    H2(Vec<String>),
}

/// What the client was told: the statuses of its answers, and whether the connection or stream was given up.
#[derive(Debug)]
struct Told {
    statuses: Vec<u16>,
    ended: bool,
}

pub(crate) const FILES: [(&str, &str); 5] = [
    ("lengths", include_str!("vectors/lengths.toml")),
    ("chunks", include_str!("vectors/chunks.toml")),
    ("lines", include_str!("vectors/lines.toml")),
    ("authority", include_str!("vectors/authority.toml")),
    ("downgrade", include_str!("vectors/downgrade.toml")),
];

/// The names that only the edge may set, in every spelling that an origin may read alike.
const FORGEABLE: [&str; 17] = [
    "forwarded",
    "x-real-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "x-client-ip",
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "proxy",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "x-nameplate-anything",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "expect",
    "http2-settings",
];

async fn judge(file: &str) {
    let origin = StrictOrigin::start().await;
    let setup = Setup::configured(&[HOST, OTHER], |config| config.origin = origin.address.to_string()).await;
    setup.until_warm().await;
    // The edge looks once whether the origin is there.
    tokio::time::sleep(Duration::from_millis(50)).await;
    origin.take();
    let File { family } = toml::from_str(FILES.iter().find(|(name, _)| *name == file).unwrap().1).unwrap();
    let (mut bad, mut judged) = (String::new(), 0);
    for family in &family {
        assert!(family.rfc.starts_with("RFC "), "{}", family.about);
        for case in &family.cases {
            judged += 1;
            let (name, told, sees) = match case {
                Case::H1(case) => (format!("{case:?}"), send_h1(setup.https(), WAIT, family, case).await, family.lines(case)),
                Case::H2(case) => (format!("{case:?}"), send_h2(setup.https(), WAIT, family, case).await, family.lines("")),
            };
            if let Err(verdict) = family.verdict(&told, &sees, &settled(&origin, sees.len()).await) {
                writeln!(bad, "- {} {name} ({})\n    {verdict}", family.about, family.rfc).unwrap();
            }
        }
    }
    assert!(bad.is_empty(), "bad, of {judged}:\n{bad}");
    println!("{file}: {judged} vectors, 0 bad");
}

/// What the origin saw, once it has seen as much as it should; what comes after that counts against the next vector.
async fn settled(origin: &StrictOrigin, expected: usize) -> Vec<Seen> {
    let mut seen = origin.take();
    for _ in 0..100 {
        if seen.iter().filter(|seen| matches!(seen, Seen::Request(_))).count() >= expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        seen.extend(origin.take());
    }
    seen
}

/// What a server let through of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// What the edge lets through as well, and nothing else.
    Same,
    /// Bytes that are no request in the narrowest grammar, or another body.
    Malformed,
    /// A request that the edge refuses, well formed now. It may be harmless.
    Refusable,
    /// Less than what is legal.
    Missing,
    /// What is legal, with another request line.
    Changed,
}

/// Sends a file's vectors to any server in front of the origin, and judges by what the origin sees alone.
pub(crate) async fn compare(file: &str, https: SocketAddr, origin: &StrictOrigin, wait: Duration) -> Vec<Passed> {
    let File { family } = toml::from_str(FILES.iter().find(|(name, _)| *name == file).unwrap().1).unwrap();
    let mut all = Vec::new();
    for family in &family {
        for case in &family.cases {
            origin.take();
            let expected = match case {
                Case::H1(case) => {
                    send_h1(https, wait, family, case).await;
                    family.lines(case)
                }
                Case::H2(case) => {
                    send_h2(https, wait, family, case).await;
                    family.lines("")
                }
            };
            tokio::time::sleep(Duration::from_millis(30)).await;
            all.push(family.passed(&expected, &origin.take()));
        }
    }
    all
}

impl Family {
    fn passed(&self, expected: &[String], seen: &[Seen]) -> Passed {
        let mut requests = Vec::new();
        for seen in seen {
            match seen {
                Seen::Request(request) => requests.push(request),
                Seen::Malformed(..) => return Passed::Malformed,
                Seen::Cut(_) => {}
            }
        }
        let lines: Vec<&str> = requests.iter().map(|request| request.line.as_str()).collect();
        let body_differs = self.body.as_ref().is_some_and(|body| requests.first().is_some_and(|first| first.body != body.as_bytes()));
        match self.outcome {
            Outcome::Forwarded if lines == expected && body_differs => Passed::Malformed,
            _ if lines == expected => Passed::Same,
            _ if lines.len() < expected.len() => Passed::Missing,
            Outcome::Forwarded if lines.len() == expected.len() => Passed::Changed,
            _ => Passed::Refusable,
        }
    }

    fn lines(&self, case: &str) -> Vec<String> {
        let lines = if self.outcome == Outcome::Forwarded { &self.sees } else { &self.before };
        lines.iter().map(|line| line.replace("{}", &fill(case))).collect()
    }

    fn verdict(&self, told: &Told, expected: &[String], seen: &[Seen]) -> Result<(), String> {
        let mut requests = Vec::new();
        for seen in seen {
            match seen {
                Seen::Request(request) => requests.push(request),
                Seen::Malformed(reason, bytes) => {
                    return Err(format!("malformed at the origin ({reason}): {:?}", String::from_utf8_lossy(bytes)));
                }
                // A vector before may end late.
                Seen::Cut(bytes) if self.outcome == Outcome::Forwarded => {
                    return Err(format!("cut off at the origin: {:?}", String::from_utf8_lossy(bytes)));
                }
                Seen::Cut(_) => {}
            }
        }
        let lines: Vec<&str> = requests.iter().map(|request| request.line.as_str()).collect();
        if lines != expected {
            return Err(format!("the origin saw {lines:?} and not {expected:?}; the client was told {told:?}"));
        }
        requests.iter().try_for_each(|request| self.is_clean(request))?;
        if let (Some(body), Some(first)) = (&self.body, requests.first())
            && first.body != body.as_bytes()
        {
            return Err(format!("the body became {:?}", String::from_utf8_lossy(&first.body)));
        }
        let (good, last) = (told.statuses.iter().filter(|&&status| status == 200).count(), told.statuses.last());
        match self.outcome {
            Outcome::Forwarded if good == expected.len() && told.statuses.len() == good => Ok(()),
            Outcome::Forwarded => Err(format!("the client was told {told:?}")),
            _ if good != expected.len() || !told.ended => Err(format!("not refused and ended: {told:?}")),
            _ => match (&self.status, last) {
                (Some(allowed), Some(status)) if !allowed.contains(status) => Err(format!("refused with {status} and not {allowed:?}")),
                (Some(_), None) => Err("ended without a word".to_owned()),
                (_, Some(500..)) => Err(format!("the edge failed: {told:?}")),
                _ => Ok(()),
            },
        }
    }

    /// What must hold of every request an origin sees, whoever made it.
    fn is_clean(&self, request: &Request) -> Result<(), String> {
        let exactly = |name: &str, is_right: &dyn Fn(&str) -> bool| match request.all(name)[..] {
            [value] if is_right(value) => Ok(()),
            ref values => Err(format!("{name} became {values:?}")),
        };
        let is_ours = |host: &str| host.to_ascii_lowercase().starts_with(HOST);
        exactly("host", &is_ours)?;
        exactly("x-forwarded-host", &is_ours)?;
        exactly("x-forwarded-for", &|address| address == "127.0.0.1")?;
        exactly("x-forwarded-proto", &|proto| proto == "https")?;
        exactly("x-forwarded-port", &|port| port.bytes().all(|b| b.is_ascii_digit()))?;
        exactly("x-nameplate-tenant", &|tenant| tenant == "acme")?;
        exactly("x-request-id", &|id| id.len() == 32)?;
        if !matches!(request.all("connection")[..], [] | ["te"]) {
            return Err(format!("connection became {:?}", request.all("connection")));
        }
        for (name, value) in request.fields.iter().chain(&request.trailers) {
            let dashed = name.replace('_', "-");
            let twin = name.contains('_') && request.fields.iter().any(|(other, _)| *other == dashed);
            if twin || FORGEABLE.contains(&dashed.as_str()) || self.never.contains(name) {
                return Err(format!("the origin saw {name}: {value}"));
            }
        }
        let trailer_of = |names: &[&str]| request.trailers.iter().find(|(name, _)| names.contains(&name.replace('_', "-").as_str()));
        match trailer_of(&[
            "host",
            "content-length",
            "transfer-encoding",
            "x-nameplate-tenant",
            "x-forwarded-for",
            "authorization",
            "cookie",
            "connection",
        ]) {
            Some(trailer) => Err(format!("the origin saw the trailer {trailer:?}")),
            None => Ok(()),
        }
    }
}

fn fill(text: &str) -> String {
    text.replace("{host}", HOST)
}

async fn send_h1(https: SocketAddr, wait: Duration, family: &Family, case: &str) -> Told {
    let bytes = fill(&family.send.replace("{}", case));
    let answers = if family.outcome == Outcome::Forwarded { family.sees.len() } else { usize::MAX };
    let mut stream = client::connect(https, HOST).await.unwrap();
    // An edge that has seen enough may close before all was written.
    let _ = stream.write_all(bytes.as_bytes()).await;
    let _ = stream.flush().await;
    let (mut came, mut buffer) = (Vec::new(), [0; 4096]);
    let reading = async {
        loop {
            let told = statuses(&came);
            if told.len() >= answers {
                return Told { statuses: told, ended: false };
            }
            match stream.read(&mut buffer).await {
                Ok(read @ 1..) => came.extend_from_slice(&buffer[..read]),
                _ => return Told { statuses: told, ended: true },
            }
        }
    };
    let in_time = timeout(wait, reading).await;
    in_time.unwrap_or_else(|_| Told { statuses: statuses(&came), ended: false })
}

/// The final statuses among whole answers.
fn statuses(mut bytes: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let Some(status) = head.strip_prefix("http/1.").and_then(|rest| rest.get(2..5)?.parse().ok()) else { break };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0_usize);
        if bytes.len() < end + 4 + length {
            break;
        }
        bytes = &bytes[end + 4 + length..];
        if status >= 200 {
            statuses.push(status);
        }
    }
    statuses
}

async fn send_h2(https: SocketAddr, wait: Duration, family: &Family, case: &[String]) -> Told {
    assert!(family.protocol == Protocol::H2);
    let (headers, trailers) = match family.place {
        Place::Headers => (changed(&family.headers, case), None),
        Place::Trailers => (changed(&family.headers, &[]), Some(changed(&[], case))),
    };
    let end = |last: bool| if last { raw_h2::END_STREAM } else { 0 };
    let mut bytes = raw_h2::PREFACE.to_vec();
    let flags = raw_h2::END_HEADERS | end(family.data.is_none() && trailers.is_none());
    bytes.extend(raw_h2::frame(raw_h2::HEADERS, flags, 1, &raw_h2::block(&headers)));
    if let Some(data) = &family.data {
        bytes.extend(raw_h2::frame(raw_h2::DATA, end(trailers.is_none()), 1, fill(data).as_bytes()));
    }
    if let Some(trailers) = trailers {
        bytes.extend(raw_h2::frame(raw_h2::HEADERS, raw_h2::END_HEADERS | raw_h2::END_STREAM, 1, &raw_h2::block(&trailers)));
    }
    let config = Arc::new(client::config(&["h2"]));
    let mut stream = client::connect_with(config, https, HOST).await.unwrap();
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    let Answered { status, ended, reset, gone } = raw_h2::heard(&mut stream, 1, wait).await.0;
    Told { statuses: status.into_iter().collect(), ended: ended || reset || gone }
}

/// The family's headers, as a case changes them.
fn changed(base: &[String], case: &[String]) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = base.iter().map(|header| split(header)).collect();
    for change in case {
        let of = |name: &str| headers.iter().position(|(other, _)| other == name);
        match change.as_bytes() {
            [b'=', ..] => {
                let (name, value) = split(&change[1..]);
                let at = of(&name).unwrap();
                headers[at].1 = value;
            }
            [b'-', ..] => drop(headers.remove(of(&change[1..]).unwrap())),
            [b'+', ..] => headers.insert(0, split(&change[1..])),
            _ => headers.push(split(change)),
        }
    }
    headers
}

fn split(header: &str) -> (String, String) {
    // A pseudo-header's name begins with a colon.
    let colon = header.char_indices().skip(1).find(|(_, c)| *c == ':').map(|(at, _)| at);
    let (name, value) = colon.map_or((header, ""), |at| (&header[..at], header[at + 1..].strip_prefix(' ').unwrap_or(&header[at + 1..])));
    (fill(name), fill(value))
}

#[test]
fn there_are_enough_vectors_and_each_family_says_what_it_expects() {
    let mut all = 0;
    for (name, text) in FILES {
        let file: File = toml::from_str(text).unwrap();
        for family in &file.family {
            all += family.cases.len();
            assert!((family.outcome == Outcome::Forwarded) != family.sees.is_empty(), "{name}: {}", family.about);
        }
    }
    assert!(all >= 700, "{all}");
}

#[tokio::test]
async fn no_length_is_read_in_two_ways() {
    judge("lengths").await;
}

#[tokio::test]
async fn no_chunked_body_is_read_in_two_ways() {
    judge("chunks").await;
}

#[tokio::test]
async fn no_line_field_or_target_is_read_in_two_ways() {
    judge("lines").await;
}

#[tokio::test]
async fn no_request_is_for_another_name_or_says_where_it_came_from() {
    judge("authority").await;
}

#[tokio::test]
async fn no_http2_request_becomes_another_in_http1() {
    judge("downgrade").await;
}
