//! The CA failing on purpose, as clients see it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::net::Ipv4Addr;
use std::time::Duration;

use dev_ca::{Answer, Config, DevCa, Endpoint, Error, Fault};
use http::Method;
use instant_acme::{NewOrder, OrderStatus};
use serde_json::{Value, json};
use support::{World, csr, dns, issue, kind, ready_order};

#[tokio::test]
async fn a_bad_nonce_is_retried_by_the_client_once_and_given_up_when_it_never_ends() {
    let world = World::start().await;
    let account = world.account().await;
    let control = world.ca.control();
    let identifiers = [dns("a.example.com")];
    control.fault(Fault::problem(Endpoint::NewOrder, "badNonce", 400));
    account.new_order(&NewOrder::new(&identifiers)).await.expect("the second try brings the fresh nonce");

    control.set_bad_nonce_percent(100);
    let error = account.new_order(&NewOrder::new(&identifiers)).await.err().expect("every try is refused");
    assert_eq!(kind(&error), "badNonce");
    control.set_bad_nonce_percent(0);
    account.new_order(&NewOrder::new(&identifiers)).await.expect("and good again");
}

#[tokio::test]
async fn a_share_of_bad_nonces_is_about_as_large_as_asked() {
    let world = World::with(|config| config.bad_nonce_percent = 30).await;
    let wire = world.wire();
    let url = wire.resource("newAccount").await;
    let mut refused = 0;
    for _ in 0..200 {
        let answer = wire.post(&url, "{}").await;
        refused += i32::from(answer.status == 400 && answer.problem().1 == "badNonce");
    }
    // Six standard deviations either way: never by chance.
    assert!((22..=98).contains(&refused), "{refused} of 200");
}

#[tokio::test]
async fn a_scripted_rate_limit_has_its_retry_after_on_the_wire() {
    let world = World::start().await;
    let mut wire = world.wire();
    wire.register().await;
    let order = json!({"identifiers": [{"type": "dns", "value": "a.example.com"}]});
    world.ca.control().fault(Fault::problem(Endpoint::NewOrder, "rateLimited", 429).retry_after("120").times(2));
    for _ in 0..2 {
        let answer = wire.new_order(&order).await;
        assert_eq!(answer.problem(), (429, "rateLimited".into()));
        assert_eq!(answer.header("retry-after"), "120");
        assert!(!answer.header("replay-nonce").is_empty());
    }
    assert_eq!(wire.new_order(&order).await.status, 201);

    let account = world.account().await;
    world.ca.control().fault(Fault::problem(Endpoint::NewOrder, "rateLimited", 429));
    let error = account.new_order(&NewOrder::new(&[dns("a.example.com")])).await.err().expect("limited");
    assert_eq!(kind(&error), "rateLimited");
}

#[tokio::test]
async fn a_load_balancers_page_is_sent_as_it_is() {
    let world = World::start().await;
    let mut wire = world.wire();
    wire.register().await;
    let date = "Fri, 31 Dec 2027 23:59:59 GMT";
    world.ca.control().fault(Fault::page(Endpoint::Any, 503, "<html>busy</html>").retry_after(date));
    let answer = wire.get(&world.ca.directory_url()).await;
    assert_eq!((answer.status, &answer.body[..]), (503, &b"<html>busy</html>"[..]));
    assert_eq!((answer.header("content-type"), answer.header("retry-after")), ("text/html; charset=utf-8", date));
    assert!(answer.headers.get("replay-nonce").is_none(), "a load balancer has no nonces");
    assert_eq!(wire.get(&world.ca.directory_url()).await.status, 200);
}

#[tokio::test]
async fn a_lost_answer_has_done_its_work_and_an_unheard_request_has_not() {
    let world = World::start().await;
    let account = world.account().await;
    world.host("shop.example.com");
    let control = world.ca.control();
    let mut order = ready_order(&account, &["shop.example.com"]).await;
    let (request, _) = csr(&["shop.example.com"]);

    control.fault(Fault::new(Endpoint::Finalize, Answer::Unheard));
    order.finalize_csr(&request).await.expect_err("no answer");
    let url = order.url().to_owned();
    let mut order = account.order(url.clone()).await.unwrap();
    assert_eq!(order.state().status, OrderStatus::Ready);

    control.fault(Fault::new(Endpoint::Finalize, Answer::Lost));
    order.finalize_csr(&request).await.expect_err("no answer");
    let mut order = account.order(url).await.unwrap();
    assert_eq!(order.state().status, OrderStatus::Valid);
    assert!(order.certificate().await.unwrap().is_some());
    assert_eq!(world.ca.counters().finalized_orders, 1);

    // An order that was made, and whose URL nobody learned, is given out again.
    control.fault(Fault::new(Endpoint::NewOrder, Answer::Lost));
    let identifiers = [dns("shop.example.com")];
    account.new_order(&NewOrder::new(&identifiers)).await.err().expect("no answer");
    account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    let counters = world.ca.counters();
    assert_eq!((counters.new_orders, counters.reused_orders), (2, 1));
}

#[tokio::test]
async fn a_fault_for_one_name_leaves_the_others_alone() {
    let world = World::start().await;
    let account = world.account().await;
    for name in ["good.example.com", "bad.example.com"] {
        world.host(name);
    }
    let control = world.ca.control();
    control.fault(Fault::problem(Endpoint::NewOrder, "rejectedIdentifier", 400).for_name("bad.example.com"));
    control.fault(Fault::problem(Endpoint::Finalize, "serverInternal", 500).for_name("bad.example.com"));
    issue(&account, &["good.example.com"]).await;
    let identifiers = [dns("bad.example.com")];
    assert_eq!(kind(&account.new_order(&NewOrder::new(&identifiers)).await.err().expect("scripted")), "rejectedIdentifier");
    let mut order = ready_order(&account, &["bad.example.com"]).await;
    let (request, _) = csr(&["bad.example.com"]);
    assert_eq!(kind(&order.finalize_csr(&request).await.unwrap_err()), "serverInternal");
    order.finalize_csr(&request).await.unwrap();
    assert!(control.faults().is_empty());
}

#[tokio::test]
async fn a_paused_ca_answers_once_it_is_resumed() {
    let world = World::start().await;
    let wire = world.wire();
    let control = world.ca.control();
    control.pause();
    let directory = world.ca.directory_url();
    let mut asking = std::pin::pin!(wire.get(&directory));
    let waited = tokio::time::timeout(Duration::from_millis(100), asking.as_mut()).await;
    assert!(waited.is_err(), "answered while paused");
    control.resume();
    assert_eq!(tokio::time::timeout(Duration::from_secs(10), asking).await.expect("resumed").status, 200);
}

#[tokio::test]
async fn a_late_answer_comes_after_its_delay() {
    let world = World::start().await;
    let wire = world.wire();
    world.ca.control().fault(Fault::new(Endpoint::Directory, Answer::Usual).after(Duration::from_millis(120)));
    let begun = std::time::Instant::now();
    assert_eq!(wire.get(&world.ca.directory_url()).await.status, 200);
    assert!(begun.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn everything_can_be_controlled_over_http() {
    let world = World::with(|config| config.control = Some((Ipv4Addr::LOCALHOST, 0).into())).await;
    world.host("shop.example.com");
    let (wire, control) = (world.wire(), world.ca.control_url().unwrap());
    let send = async |method: Method, path: &str, body: Value| {
        let answer = wire.send(method, &format!("{control}{path}"), "application/json", body.to_string()).await.unwrap();
        (answer.status, answer.json())
    };
    let account = world.account().await;

    let fault = json!({"endpoint": "newOrder", "retry_after": "7", "answer": {"problem": {"type": "rateLimited", "status": 429}}});
    let (status, faults) = send(Method::POST, "/faults", json!([fault, fault])).await;
    assert_eq!((status, faults.as_array().unwrap().len()), (200, 2));
    assert_eq!(send(Method::GET, "/faults", json!(null)).await.1[0]["times"], 1);
    let error = account.new_order(&NewOrder::new(&[dns("shop.example.com")])).await.err().expect("scripted");
    assert_eq!(kind(&error), "rateLimited");
    assert_eq!(send(Method::DELETE, "/faults", json!(null)).await.1, json!([]));

    let (_, settings) =
        send(Method::PUT, "/settings", json!({"lifetime": "3m", "finalize_delay": "10ms", "authorization_reuse": 60})).await;
    assert_eq!(
        (&settings["lifetime"], &settings["finalize_delay"], &settings["authorization_reuse"]),
        (&json!("3m"), &json!("10ms"), &json!("1m"))
    );
    assert_eq!(send(Method::GET, "/settings", json!(null)).await.1, settings);

    issue(&account, &["shop.example.com"]).await;
    let (_, counters) = send(Method::GET, "/counters", json!(null)).await;
    assert_eq!(counters["finalized_orders"], 1);
    assert_eq!(counters["finalizes_by_name"], json!({"shop.example.com": 1}));
    assert_eq!((&counters["new_orders"], &counters["validations"], &counters["validation_failures"]), (&json!(1), &json!(1), &json!(0)));

    let (_, certificates) = send(Method::GET, "/certificates", json!(null)).await;
    let certificate = certificates[0]["certificate"].as_str().unwrap();
    let window = json!({"start": "2030-01-01T00:00:00Z", "end": "2030-01-02T00:00:00Z"});
    let change = json!({"chosen": {"certificate": certificate}, "window": window});
    assert_eq!(send(Method::PUT, "/renewal-windows", change).await, (200, json!({"certificates": 1})));
    let shown = wire.get(&format!("{}/{certificate}", wire.resource("renewalInfo").await)).await;
    assert_eq!(shown.json()["suggestedWindow"], window);
    assert_eq!(shown.header("retry-after"), "21600");
    assert_eq!(send(Method::PUT, "/renewal-windows", json!({"chosen": "all", "now": true})).await.1, json!({"certificates": 1}));
    assert_eq!(send(Method::PUT, "/renewal-windows", json!({"chosen": {"name": "x"}, "now": true})).await.1, json!({"certificates": 0}));
    assert_eq!(send(Method::DELETE, "/renewal-windows", json!(null)).await.1, json!({"certificates": 1}));

    for (method, path, body, status) in [
        (Method::POST, "/faults", json!({"endpoint": "nowhere", "answer": "lost"}), 400),
        (Method::POST, "/faults", json!("lost"), 400),
        (Method::PUT, "/settings", json!({"lifetime": "soon"}), 400),
        (Method::PUT, "/settings", json!({"lifetyme": "3m"}), 400),
        (Method::PUT, "/renewal-windows", json!({"chosen": "all"}), 400),
        (Method::DELETE, "/counters", json!(null), 405),
        (Method::GET, "/nowhere", json!(null), 404),
    ] {
        let (seen, problem) = send(method, path, body).await;
        assert_eq!(seen, status, "{path}: {problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty());
    }
    world.ca.shutdown().await;
}

#[tokio::test]
async fn a_control_listener_that_others_could_reach_is_refused() {
    let config = Config { control: Some((Ipv4Addr::UNSPECIFIED, 0).into()), ..Config::default() };
    assert!(matches!(DevCa::start(config).await, Err(Error::ControlNotLoopback { .. })));
}
