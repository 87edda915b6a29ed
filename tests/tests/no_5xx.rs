//! Whatever strangers and customers send to the API, it is they who are told what is wrong.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::Method;
use system_tests::{chance::Chance, product::Product, sizes::size};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long the product may take to answer or to hang up.
const PATIENCE: Duration = Duration::from_secs(15);

const HOSTNAMES: &[&str] = &[
    "shop.brand.test",
    "a.b.c.test",
    "",
    ".",
    "..",
    "*",
    "*.brand.test",
    "brand",
    "com",
    "co.uk",
    "github.io",
    "xn--",
    "xn--a",
    "münchen.test",
    "ﬁ.test",
    "日本語.test",
    "a_b.test",
    "-a.test",
    "a-.test",
    "1.2.3.4",
    "[::1]",
    "::1",
    "https://x.test/",
    "x.test:443",
    "x@y.test",
    "edge.nameplate.test",
    "x.t.edge.nameplate.test",
    "localhost",
    "a..b.test",
    "\u{202e}test",
    "a\u{0}b.test",
    "%00",
    "%",
    "%zz",
    "%ff%fe",
    "..%2f..%2fetc%2fpasswd",
    "'; DROP TABLE claims;--",
    "{{7*7}}",
    "\u{1F4A9}.test",
    "ß.test",
    "İ.test",
];
const TENANTS: &[&str] = &["brand", "", "BRAND", "a b", "ä", "../x", "x|y", "null", "\u{0}", "'--"];
const PATHS: &[&str] = &[
    "/v1/domains",
    "/v1/domains/",
    "/v1",
    "/",
    "/v2/domains",
    "//v1//domains",
    "/v1/domains/x/y/z",
    "/v1/../v1/domains",
    "/v1/imports",
    "/v1/imports/0123456789abcdef0123456789abcdef",
    "/v1/imports/%ff",
    "/v1/webhooks",
    "/v1/webhooks/%00/test",
    "/v1/webhooks/x/redeliver",
    "/v1/webhooks/x/rotate",
    "/v1/events",
    "/v1/limits",
];
const VALUES: &[&str] = &[
    "0",
    "1",
    "-1",
    "200",
    "201",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775808",
    "1e9",
    "NaN",
    "",
    "%00",
    "%ff",
    "active",
    "removed",
    "ACTIVE",
];
const PARAMETERS: &[&str] = &["limit", "cursor", "state", "tenant", "after", "x"];
const METHODS: &[&str] = &["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"];

fn junk(chance: &mut Chance, most: usize) -> Vec<u8> {
    (0..chance.below(most)).map(|_| chance.bits() as u8).collect()
}

/// Percent-encodes some of what a path may not hold, so that the strangest characters arrive too.
fn encoded(chance: &mut Chance, text: &str) -> String {
    let all = chance.below(2) == 0;
    text.bytes().map(|byte| if byte.is_ascii_graphic() && !all { char::from(byte).to_string() } else { format!("%{byte:02x}") }).collect()
}

fn hostname(chance: &mut Chance) -> String {
    match chance.below(10) {
        0 => String::from_utf8_lossy(&junk(chance, 80)).into_owned(),
        1 => format!("{}.test", "a".repeat(chance.below(300))),
        2 => format!("{}test", "a.".repeat(chance.below(200))),
        3 | 4 => format!("shop{}.fuzz.test", chance.below(40)),
        _ => (*chance.pick(HOSTNAMES)).to_owned(),
    }
}

fn cursor(chance: &mut Chance) -> String {
    const ALPHABET: &[u8] = b"ABCDEFabcdef0123456789-_=+/%{}\":,";
    (0..chance.below(120)).map(|_| char::from(*chance.pick(ALPHABET))).collect()
}

fn query(chance: &mut Chance) -> String {
    let mut query = String::new();
    for turn in 0..chance.below(4) {
        let value = if chance.below(3) == 0 { cursor(chance) } else { (*chance.pick(VALUES)).to_owned() };
        query.push_str(&format!("{}{}={value}", if turn == 0 { "?" } else { "&" }, chance.pick(PARAMETERS)));
    }
    query
}

fn body(chance: &mut Chance) -> Vec<u8> {
    let tenant = if chance.below(2) == 0 { "brand" } else { *chance.pick(TENANTS) };
    let valid = match chance.below(8) {
        0 => serde_json::json!({ "key": hostname(chance), "domains": [{ "hostname": hostname(chance), "tenant": tenant }] }),
        1 => serde_json::json!({ "url": format!("https://{}", hostname(chance)), "events": [hostname(chance)], "tenant": tenant }),
        2 => serde_json::json!({ "url": "https://hooks.brand.test/" }),
        _ => serde_json::json!({ "hostname": hostname(chance), "tenant": tenant }),
    };
    let valid = valid.to_string().into_bytes();
    match chance.below(12) {
        0 => Vec::new(),
        1 => junk(chance, 400),
        2 => vec![b'['; chance.below(20_000)],
        3 => vec![b'x'; 16 * 1024 + chance.below(3) - 1],
        4 => vec![b' '; 200_000],
        5 => br#"{"hostname":"a.test","tenant":"brand","hostname":"b.test"}"#.to_vec(),
        6 => br#"{"hostname":{"a":[null,1e999]},"tenant":7}"#.to_vec(),
        7 => valid[..chance.below(valid.len())].to_vec(),
        8 => {
            let mut changed = valid;
            let at = chance.below(changed.len());
            changed[at] ^= 1 << chance.below(8);
            changed
        }
        _ => valid,
    }
}

/// One request as bytes, most of them nearly right, and whether the product can tell where it ends.
fn request(chance: &mut Chance, key: &str) -> (Vec<u8>, bool) {
    if chance.below(40) == 0 {
        return (junk(chance, 600), false);
    }
    let mut path = match chance.below(6) {
        0 => (*chance.pick(PATHS)).to_owned(),
        1 | 2 => "/v1/domains".to_owned(),
        _ => {
            let name = hostname(chance);
            let rest = *chance.pick(&["", "", "", "/check", "/history", "/nothing", "/"]);
            format!("/v1/domains/{}{rest}", encoded(chance, &name))
        }
    };
    path.push_str(&query(chance));
    let method = if chance.below(3) == 0 { *chance.pick(METHODS) } else { *chance.pick(&["GET", "POST", "DELETE"]) };
    let body = body(chance);
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n").into_bytes();
    match chance.below(12) {
        0 => {}
        1 => bytes.extend_from_slice(b"authorization: Bearer wrong\r\n"),
        2 => bytes.extend_from_slice(b"authorization: Basic x\r\nauthorization: Bearer y\r\n"),
        3 => {
            bytes.extend_from_slice(b"authorization: ");
            bytes.extend(junk(chance, 60).into_iter().filter(|byte| !matches!(byte, b'\r' | b'\n')));
            bytes.extend_from_slice(b"\r\n");
        }
        _ => bytes.extend_from_slice(format!("authorization: Bearer {key}\r\n").as_bytes()),
    }
    let framing = chance.below(12);
    match framing {
        0 => bytes.extend_from_slice(b"content-length: 99999999999999999999999\r\n"),
        1 => bytes.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        2 => bytes.extend_from_slice(format!("x-filler: {}\r\n", "f".repeat(chance.below(12_000))).as_bytes()),
        _ => bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes()),
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    (bytes, framing != 1)
}

/// Sends bytes, hangs up where the product would wait for more, and reads the status of the answer; 0 when the product hung up without one.
async fn status(api: SocketAddr, bytes: &[u8], is_whole: bool) -> u16 {
    let mut stream = TcpStream::connect(api).await.expect("the API accepts connections");
    // It may refuse before it has read everything.
    let _ = stream.write_all(bytes).await;
    if !is_whole {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer or an end in time");
    let head = String::from_utf8_lossy(&answer[..answer.len().min(16)]).into_owned();
    head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok()).unwrap_or(0)
}

async fn fuzz(api: SocketAddr, key: String, mut chance: Chance, until: Instant) -> BTreeMap<u16, usize> {
    let mut seen = BTreeMap::new();
    while Instant::now() < until {
        let (bytes, is_whole) = request(&mut chance, &key);
        let status = status(api, &bytes, is_whole).await;
        assert!(status < 500, "{status} for {:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]));
        *seen.entry(status).or_default() += 1;
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_gets_a_5xx_or_ends_the_product() {
    // Whatever URLs it thinks of, nothing is sent there.
    let mut product = Product::start(&[("NAMEPLATE_WEBHOOKS_INTERVAL", "")]).await;
    let mut chance = Chance::seeded("no_5xx");
    let until = Instant::now() + size(Duration::from_secs(6), Duration::from_secs(90));
    let lanes = (0..4).map(|_| {
        let own = chance.bits();
        tokio::spawn(fuzz(product.api_address(), product.key().to_owned(), Chance::from_seed(own), until))
    });
    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for lane in lanes.collect::<Vec<_>>() {
        for (status, count) in lane.await.unwrap_or_else(|panic| panic!("{panic}; logs in {}", product.folder().display())) {
            *seen.entry(status).or_default() += count;
        }
    }
    println!("answers by status: {seen:?}");
    assert!(product.is_alive(), "the product ended");
    for status in [200, 201, 400, 401, 404, 405, 413, 422] {
        assert!(seen.contains_key(&status), "no request got {status}: the requests are not as varied as they should be; {seen:?}");
    }
    assert_eq!(product.api(Method::GET, "/v1/domains?limit=1", None).await.status, 200);
    let log = std::fs::read_to_string(product.log()).unwrap();
    assert!(!log.contains("panicked at"), "something panicked; the log is {}", product.log().display());
}
