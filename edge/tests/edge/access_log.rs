//! Each request becomes one line, without what is nobody's business.

use edge::config::AccessLogPlace;
use http::StatusCode;

use crate::{
    client,
    never_backwards::SHOP,
    setup::{Setup, eventually},
};

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
    let lines = || -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("secret"), "{text}");
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    eventually("both lines are there", async || lines().len() >= 2).await;
    let lines = lines();
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
    assert!(line["duration_ms"].is_u64() && line.get("reason").is_none(), "{line}");
    assert!(answered.contains(line["request_id"].as_str().unwrap()), "{line} {answered}");
    assert_eq!(of(421)["protocol"], "HTTP/2");
    assert_eq!(of(421)["reason"], "misdirected");
    assert_eq!(setup.metric("nameplate_edge_access_log_dropped_total"), 0);
}
