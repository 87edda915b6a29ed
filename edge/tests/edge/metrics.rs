//! What the private port tells is what Prometheus reads, and what the page for operators says.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;

use crate::{
    client,
    never_backwards::SHOP,
    setup::{Setup, eventually},
};

const PAGE: &str = include_str!("../../METRICS.md");

#[derive(Debug, Default)]
struct Family {
    kind: String,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

/// Reads the text format strictly: help, then type, then samples, each family once, no sample twice, counters and buckets as they must be.
fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line must end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let (mut current, mut seen) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap_or_else(|| panic!("help without words: {line}"));
            assert!(!words.contains('\\') && is_name(name), "{line}");
            assert!(families.insert(name.to_owned(), Family::default()).is_none(), "twice: {name}");
            current = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(name == current && ["counter", "gauge", "histogram"].contains(&kind), "{line}");
            let family = families.get_mut(name).unwrap();
            assert!(family.kind.is_empty() && family.samples.is_empty(), "{line}");
            kind.clone_into(&mut family.kind);
        } else {
            assert!(seen.insert(line.rsplit_once(' ').unwrap().0), "twice: {line}");
            let family = families.get_mut(&current).unwrap_or_else(|| panic!("a sample before its family: {line}"));
            let (name, labels, value) = sample(line);
            let suffix = name.strip_prefix(current.as_str()).unwrap_or_else(|| panic!("in another's family: {line}"));
            match family.kind.as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                "counter" => assert!(suffix.is_empty() && current.ends_with("_total") && value >= 0.0, "{line}"),
                kind => assert!(suffix.is_empty() && kind == "gauge", "{line}"),
            }
            family.samples.push((name, labels, value));
        }
    }
    families.values().filter(|family| family.kind == "histogram").for_each(check_histogram);
    families
}

fn check_histogram(family: &Family) {
    let buckets: Vec<_> = family.samples.iter().filter(|(name, ..)| name.ends_with("_bucket")).collect();
    let ends: Vec<f64> = buckets.iter().map(|(_, labels, _)| labels["le"].replace("+Inf", "inf").parse().unwrap()).collect();
    assert!(ends.is_sorted_by(|a, b| a < b) && ends.last() == Some(&f64::INFINITY), "{ends:?}");
    assert!(buckets.is_sorted_by(|(.., a), (.., b)| a <= b), "{buckets:?}");
    let count = family.samples.iter().find(|(name, ..)| name.ends_with("_count")).unwrap().2;
    assert!((buckets.last().unwrap().2 - count).abs() < f64::EPSILON);
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit()) && !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("unclosed: {line}"))),
        None => (series, ""),
    };
    assert!(is_name(name), "{line}");
    let mut read = BTreeMap::new();
    // No value may hold what would have to be escaped.
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or_else(|| panic!("unquoted: {line}"));
        assert!(is_name(key) && !value.contains(['"', '\\']), "{line}");
        assert!(read.insert(key.to_owned(), value.to_owned()).is_none(), "{line}");
    }
    (name.to_owned(), read, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

async fn scrape(setup: &Setup) -> BTreeMap<String, Family> {
    let request = "GET /metrics HTTP/1.1\r\nhost: edge\r\nconnection: close\r\n\r\n";
    let answer = client::plain(setup.edge().private_addr, request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    parse(body)
}

fn value(families: &BTreeMap<String, Family>, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let is_it = |has: &BTreeMap<String, String>| labels.iter().all(|(key, value)| has.get(*key).is_some_and(|has| has == value));
    let family = families.values().find(|family| family.samples.iter().any(|(found, ..)| found == name))?;
    family.samples.iter().find(|(found, has, _)| found == name && is_it(has)).map(|(.., value)| *value)
}

/// An edge to which each thing that is counted has happened at least once.
async fn eventful() -> Setup {
    let setup = Setup::configured(&[SHOP], |config| config.metrics_tenants = 1).await;
    setup.until_warm().await;
    setup.bucket.put("b.brand.com", "beta", 1);
    eventually("the second name is known", async || setup.edge().names() == (2, 2)).await;
    for (hostname, path, status) in [(SHOP, "/echo", StatusCode::OK), ("b.brand.com", "/echo", StatusCode::OK)] {
        assert_eq!(client::fetch(setup.https(), hostname, path).await.status(), status);
    }
    let misdirected = client::h1(setup.https(), SHOP).await.send_request(client::get("b.brand.com", "/")).await.unwrap();
    assert_eq!(misdirected.status(), StatusCode::MISDIRECTED_REQUEST);
    client::connect(setup.https(), "unknown.example").await.unwrap_err();
    eventually("the refusal is counted", async || setup.handshakes("unknown_name") > 0).await;
    setup.bucket.write("edge.json", b"{");
    eventually("broken settings are refused", async || setup.refused("truncated") > 0).await;
    setup.source.dead.store(true, std::sync::atomic::Ordering::SeqCst);
    eventually("the source is seen to fail", async || setup.metric("nameplate_edge_source_errors_total{kind=\"failed\"}") > 0).await;
    setup
}

#[tokio::test]
async fn the_page_for_operators_lists_what_the_edge_tells_and_nothing_else() {
    let setup = eventful().await;
    let told = scrape(&setup).await;
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `nameplate_")).map(|row| format!("nameplate_{row}"));
    let listed: BTreeMap<String, Vec<String>> = rows
        .map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect::<Vec<_>>())
        .map(|cells| (cells[0].clone(), cells[1..].to_vec()))
        .collect();
    for (name, family) in &told {
        let cells = listed.get(name).unwrap_or_else(|| panic!("{name} is not on the page"));
        assert_eq!(cells[0], family.kind, "{name}");
        let labels: BTreeSet<_> = family.samples.iter().flat_map(|(_, labels, _)| labels.keys().cloned()).collect();
        assert_eq!(cells[1], labels.into_iter().collect::<Vec<_>>().join(", "), "{name}");
    }
    // A counter whose event has not happened yet is not told; every gauge and histogram is.
    for (name, cells) in &listed {
        assert!(told.contains_key(name) || name == "nameplate_edge_connections_ended_total", "{name} is on the page and not told");
        assert!(cells[2].len() > 10, "{name} is not explained");
    }
    let words = PAGE.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| word.starts_with("nameplate_edge_"));
    for word in words {
        assert!(listed.contains_key(word.strip_suffix("_bucket").unwrap_or(word)), "the page speaks of {word}");
    }
}

#[tokio::test]
async fn an_operator_sees_what_is_about_to_end_how_old_the_index_is_and_who_asks() {
    let setup = eventful().await;
    let told = scrape(&setup).await;
    let of = |name: &str, labels: &[(&str, &str)]| value(&told, &format!("nameplate_edge_{name}"), labels);
    // The test's certificates end with 2044.
    assert_eq!(of("certificate_earliest_expiry_timestamp_seconds", &[]), Some(2_366_841_600.0));
    assert_eq!(of("certificates_expiring_within_7d", &[]), Some(0.0));
    assert_eq!(of("certificates_expiry_unknown", &[]), Some(0.0));
    assert_eq!(of("bundles_cold", &[]), Some(0.0));
    assert_eq!(of("index_generation", &[]), Some(2.0));
    assert_eq!(of("build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    assert_eq!(of("requests_total", &[("status", "2xx")]), Some(2.0));
    assert_eq!(of("requests_total", &[("status", "4xx")]), Some(1.0));
    assert_eq!(of("first_byte_seconds_count", &[]), Some(3.0));
    assert_eq!(of("handshakes_total", &[("outcome", "done")]), Some(3.0));
    assert_eq!(of("handshakes_total", &[("outcome", "unknown_name")]), Some(1.0));
    assert_eq!(of("tenant_requests_total", &[("tenant", "acme")]), Some(2.0));
    assert_eq!(of("tenant_requests_total", &[("tenant", "(other)")]), Some(1.0));
    assert_eq!(of("tenant_requests_total", &[("tenant", "beta")]), None);
}
