//! Each request becomes one line, without what is nobody's business.

use std::{path::Path, time::Duration};

use edge::config::{AccessLogPlace, Drain};
use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    client,
    never_backwards::SHOP,
    serving::websocket,
    setup::{Setup, eventually},
    visitors::Socket,
};

/// The lines written by now.
fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(!text.contains("secret"), "{text}");
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_request_is_one_line_without_query_or_whole_address() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let file = AccessLogPlace::File(path.clone());
    let setup = Setup::configured(&[SHOP], |config| config.access_log = Some(file)).await;
    let answered = client::text(client::fetch(setup.https(), SHOP, "/echo?token=secret").await).await;
    let misdirected = client::h2(setup.https(), SHOP).await.send_request(client::get_h2("other.brand.com", "/x")).await.unwrap();
    assert_eq!(misdirected.status(), StatusCode::MISDIRECTED_REQUEST);
    drop(misdirected);
    eventually("both lines are there", async || lines(&path).len() >= 2).await;
    let lines = lines(&path);
    let of = |status: u16| lines.iter().find(|line| line["status"] == status).unwrap_or_else(|| panic!("{lines:?}"));
    let line = of(200);
    for (key, value) in [
        ("tenant", "acme"),
        ("host", SHOP),
        ("method", "GET"),
        ("path", "/echo"),
        ("protocol", "HTTP/1"),
        ("tls", "1.3"),
        ("client", "127.0.0.0"),
    ] {
        assert_eq!(line[key], value, "{line}");
    }
    assert_eq!(line["bytes"], answered.len());
    assert!(line["duration_ms"].is_u64() && line.get("reason").is_none() && line.get("bytes_received").is_none(), "{line}");
    assert!(answered.contains(line["request_id"].as_str().unwrap()), "{line} {answered}");
    assert_eq!(of(421)["protocol"], "HTTP/2");
    assert_eq!(of(421)["reason"], "misdirected");
    assert_eq!(setup.metric("nameplate_edge_access_log_dropped_total"), 0);
}

#[tokio::test]
async fn a_websocket_is_one_line_once_it_has_ended_with_its_bytes_both_ways_and_its_whole_life() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let file = AccessLogPlace::File(path.clone());
    let mut setup = Setup::configured(&[SHOP], |config| {
        config.access_log = Some(file);
        config.drain = Drain { timeout: Duration::from_millis(400), grace: Duration::from_millis(300), ..config.drain };
    })
    .await;
    let mut closed = Socket::open(client::connect(setup.https(), SHOP).await.unwrap()).await.unwrap();
    let mut cut_off = websocket(&setup).await;
    let mut sender = client::h2(setup.https(), SHOP).await;
    client::text(sender.send_request(client::get_h2(SHOP, "/echo")).await.unwrap()).await;
    let mut ask = Request::connect(format!("https://{SHOP}/socket?token=secret")).header("sec-websocket-version", "13");
    ask = ask.extension(hyper::ext::Protocol::from_static("websocket"));
    let over_http2 = sender.send_request(ask.body(client::empty()).unwrap()).await.unwrap();
    let mut over_http2 = hyper_util::rt::TokioIo::new(hyper::upgrade::on(over_http2).await.unwrap());

    for words in [&b"hello"[..], b"again"] {
        closed.say(words).await.unwrap();
        over_http2.write_all(words).await.unwrap();
        over_http2.read_exact(&mut [0; 5]).await.unwrap();
    }
    eventually("the request beside them has its line", async || !lines(&path).is_empty()).await;
    assert_eq!(lines(&path).len(), 1, "what has not ended has no line");
    closed.close().await.unwrap();
    over_http2.shutdown().await.unwrap();
    assert_eq!(over_http2.read(&mut [0; 5]).await.unwrap(), 0);
    eventually("both have their line", async || lines(&path).len() == 3).await;
    let told = lines(&path);
    let of = |protocol: &str| told[1..].iter().find(|line| line["protocol"] == protocol).unwrap_or_else(|| panic!("{told:?}"));
    for (line, method, status) in [(of("HTTP/1"), "GET", 101), (of("HTTP/2"), "CONNECT", 200)] {
        assert_eq!(
            (line["method"].as_str(), line["status"].as_u64(), line["path"].as_str()),
            (Some(method), Some(status), Some("/socket"))
        );
        assert_eq!((line["bytes"].as_u64(), line["bytes_received"].as_u64()), (Some(10), Some(10)), "{line}");
        assert!(line["duration_ms"].is_u64() && line.get("reason").is_none(), "{line}");
    }

    cut_off.write_all(b"abc").await.unwrap();
    cut_off.read_exact(&mut [0; 3]).await.unwrap();
    drop((sender, over_http2));
    eventually("only that one is open", async || setup.metric("nameplate_edge_connections_open{port=\"https\"}") == 1).await;
    assert_eq!(setup.edge.take().unwrap().shutdown().await.cut_off, 1);
    // The last words are written before the edge has left: its program ends then.
    let told = lines(&path);
    let line = told.last().unwrap();
    assert_eq!((told.len(), line["reason"].as_str(), line["bytes_received"].as_u64()), (4, Some("leaving"), Some(3)), "{line}");
    assert!(line["duration_ms"].as_u64().unwrap() >= 300, "{line}");
}
