//! The admin API over real HTTP.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use hickory_proto::{op::ResponseCode, rr::RecordType as WireType};
use serde_json::{Value, json};
use support::{config, http, http_raw, question, start, udp};

#[tokio::test]
async fn a_record_put_over_http_is_answered_and_listed_until_it_is_deleted() {
    let server = start().await;
    let admin = server.admin_addr().unwrap();
    let body = json!({ "name": "Shop.Brand.test.", "type": "cname", "data": ["x.t.edge.np.test."] }).to_string();
    let stored = json!({ "name": "shop.brand.test", "type": "CNAME", "ttl": 5, "data": ["x.t.edge.np.test"] });

    assert_eq!(http(admin, "PUT", "/records", &body).await, (200, "application/json".into(), stored.clone()));
    let asked = question("shop.brand.test.", WireType::CNAME, false);
    assert_eq!(udp(server.dns_addr(), &asked).await.answers.len(), 1);
    assert_eq!(http(admin, "GET", "/records", "").await.2, json!([stored]));
    assert_eq!(http(admin, "GET", "/records?name=SHOP.brand.test.", "").await.2, json!([stored]));
    assert_eq!(http(admin, "GET", "/records?name=other.brand.test", "").await.2, json!([]));

    assert_eq!(http(admin, "DELETE", "/records?name=shop.brand.test&type=CNAME", "").await.2, json!([stored]));
    assert_eq!(udp(server.dns_addr(), &asked).await.metadata.response_code, ResponseCode::Refused);
    let (status, _, problem) = http(admin, "DELETE", "/records?name=shop.brand.test&type=CNAME", "").await;
    assert_eq!((status, &problem["detail"]), (404, &json!("shop.brand.test has no CNAME records, so there is nothing to delete")));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn put_replaces_and_post_adds() {
    let server = start().await;
    let admin = server.admin_addr().unwrap();
    let text = |data: &str| json!({ "name": "_p.brand.test", "type": "TXT", "ttl": 9, "data": [data] }).to_string();
    let data = |answer: (u16, String, Value)| answer.2["data"].clone();
    http(admin, "PUT", "/records", &text("one")).await;
    assert_eq!(data(http(admin, "POST", "/records", &text("two")).await), json!(["\"one\"", "\"two\""]));
    assert_eq!(data(http(admin, "PUT", "/records", &text("three")).await), json!(["\"three\""]));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_list_is_taken_whole_or_not_at_all() {
    let server = start().await;
    let admin = server.admin_addr().unwrap();
    let good: Vec<Value> = (0..3000).map(|n| json!({ "name": format!("h{n}.brand.test"), "type": "A", "data": ["127.0.0.1"] })).collect();
    let (status, _, stored) = http(admin, "PUT", "/records", &json!(good).to_string()).await;
    assert_eq!((status, stored.as_array().unwrap().len()), (200, 3000));

    let mut bad = good;
    bad[0]["data"] = json!(["127.0.0.2"]);
    bad[7]["data"] = json!(["no address"]);
    let (status, content_type, problem) = http(admin, "PUT", "/records", &json!(bad).to_string()).await;
    assert_eq!((status, content_type.as_str()), (400, "application/problem+json"));
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("record 7 of the list") && detail.contains("h7.brand.test A: `no address`"), "{detail}");
    assert_eq!(http(admin, "GET", "/records?name=h0.brand.test", "").await.2[0]["data"], json!(["127.0.0.1"]));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn each_mistake_gets_its_status_and_a_sentence_that_helps() {
    let server = start().await;
    let admin = server.admin_addr().unwrap();
    let put = |record: Value| ("PUT", "/records", record.to_string());
    http(admin, "PUT", "/records", &json!({ "name": "a.brand.test", "type": "A", "data": ["127.0.0.1"] }).to_string()).await;
    for ((method, target, body), status, helps) in [
        (put(json!({ "name": "a.brand.test", "type": "CNAME", "data": ["x.test"] })), 409, "delete the A first"),
        (put(json!({ "name": "brand.test", "type": "CNAME", "data": ["x.test"] })), 409, "is a zone's apex"),
        (put(json!({ "name": "b.brand.test", "type": "CNAME", "data": ["x.test", "y.test"] })), 409, "one CNAME record at most"),
        (put(json!({ "name": "a.brand.test", "type": "A", "data": ["::1"] })), 400, "an IPv4 address such as"),
        (put(json!({ "name": "a.brand.test", "type": "A", "data": [] })), 400, "at least one value"),
        (put(json!({ "name": format!("{}.test", "a.".repeat(130)), "type": "A", "data": ["127.0.0.1"] })), 400, "at most 253"),
        (put(json!({ "name": "a.brand.test", "type": "SRV", "data": ["x"] })), 400, "is not a record type"),
        (put(json!({ "name": "a.brand.test", "type": "A", "data": ["127.0.0.1"], "tll": 5 })), 400, "unknown field `tll`"),
        (put(json!({ "name": "a.brand.test", "type": "A", "data": ["127.0.0.1"], "ttl": 4_000_000_000_u32 })), 400, "over the limit"),
        (("PUT", "/records", "{".into()), 400, "EOF"),
        (("PUT", "/records", String::new()), 400, "EOF"),
        (("GET", "/records?nmae=a.brand.test", String::new()), 400, "`nmae` is not a parameter"),
        (("GET", "/records?name=a..test", String::new()), 400, "empty label"),
        (("DELETE", "/records", String::new()), 400, "say which records"),
        (("DELETE", "/records?name=a.brand.test&type=PTR", String::new()), 400, "is not a record type"),
        (("PATCH", "/records", String::new()), 405, "GET, PUT, POST, DELETE"),
        (("POST", "/queries", String::new()), 405, "GET"),
        (("GET", "/zones", String::new()), 404, "there are /records, /quirks and /queries"),
        (("PUT", "/quirks", json!({ "name": "a.brand.test" }).to_string()), 400, "does nothing"),
        (("PUT", "/quirks", json!({ "name": "a.brand.test", "rcode": "FINE" }).to_string()), 400, "SERVFAIL or REFUSED"),
        (("PUT", "/quirks", json!({ "name": "a.brand.test", "delay_ms": 600_000 }).to_string()), 400, "too long"),
    ] {
        let (got, content_type, problem) = http(admin, method, target, &body).await;
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert_eq!((got, content_type.as_str()), (status, "application/problem+json"), "{method} {target} {body}: {detail}");
        assert!(detail.contains(helps) && problem["title"].is_string(), "{method} {target} {body}: {detail}");
    }
    assert_eq!(http(admin, "GET", "/records", "").await.2.as_array().unwrap().len(), 1, "nothing was changed");
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let server = start().await;
    let (status, _, problem) = http(server.admin_addr().unwrap(), "PUT", "/records", &" ".repeat((8 << 20) + 1)).await;
    assert_eq!((status, &problem["title"]), (413, &json!("The body is too large")));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_web_page_cannot_edit_the_zone() {
    let server = start().await;
    let admin = server.admin_addr().unwrap();
    for headers in [
        format!("Host: {admin}\r\nOrigin: https://evil.example"),
        "Host: evil.example".to_owned(),
        "Host: 192.0.2.1".to_owned(),
        "X-No-Host: 1".to_owned(),
    ] {
        let request = format!("GET /records HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n");
        assert_eq!(http_raw(admin, &request).await.0, 403, "{headers}");
    }
    let local = format!("GET /records HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\r\n", admin.port());
    assert_eq!(http_raw(admin, &local).await.0, 200);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_admin_listener_is_for_this_machine_only() {
    let refused = dev_dns::DevDns::start(dev_dns::Config { admin: Some(([0, 0, 0, 0], 0).into()), ..config() }).await.unwrap_err();
    assert!(matches!(refused, dev_dns::Error::AdminNotLoopback(_)));
}

#[tokio::test]
async fn quirks_and_questions_are_reached_over_http() {
    let server = start().await;
    let admin = server.admin_addr().unwrap();
    let quirk = json!({ "name": "Shop.brand.test", "type": "CAA", "rcode": "SERVFAIL" }).to_string();
    assert_eq!(http(admin, "PUT", "/quirks", &quirk).await.0, 200);
    let caa = question("shop.brand.test.", WireType::CAA, true);
    assert_eq!(udp(server.dns_addr(), &caa).await.metadata.response_code, ResponseCode::ServFail);
    let listed = json!([{ "name": "shop.brand.test", "type": "CAA", "rcode": "SERVFAIL", "drop": false, "truncate_udp": false }]);
    assert_eq!(http(admin, "GET", "/quirks", "").await.2, listed);
    assert_eq!(http(admin, "DELETE", "/quirks?name=shop.brand.test", "").await.2, json!({ "cleared": 1 }));
    assert_eq!(udp(server.dns_addr(), &caa).await.metadata.response_code, ResponseCode::NXDomain);

    let seen = http(admin, "GET", "/queries?name=shop.brand.test", "").await.2;
    let first = json!({
        "number": 1, "name": "shop.brand.test", "type": "CAA", "transport": "udp",
        "recursion_desired": true, "rcode": "SERVFAIL", "dropped": false
    });
    assert_eq!((&seen["total"], &seen["udp"], &seen["queries"][0]), (&json!(2), &json!(2), &first));
    server.shutdown().await.unwrap();
}
