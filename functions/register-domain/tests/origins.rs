//! Which origin a domain's requests go to is the operator's to say.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

mod stand;

use http::Method;
use stand::{OPERATOR, Stand, TENANT};

const PATH: &str = "/v1/domains/shop.client-brand.com/origin";

#[tokio::test]
async fn an_operator_sends_a_domain_to_an_origin_of_the_settings_and_to_no_other() {
    let stand = Stand::new().await;
    let body = "{\"hostname\":\"shop.client-brand.com\",\"tenant\":\"brand\"}";
    let (_, domain) = stand.ask(Method::POST, "/v1/domains", Some(TENANT), body).await;
    assert!(domain["origin"].is_null(), "{domain}");

    for refused in ["{\"origin\":\"us\"}", "{\"origin\":\"http://169.254.169.254\"}", "{\"origin\":\"\"}"] {
        let (status, answer) = stand.ask(Method::PUT, PATH, Some(OPERATOR), refused).await;
        assert_eq!((status, answer["code"].as_str()), (422, Some("request.unknown_origin")), "{refused}");
        assert!(answer["detail"].as_str().unwrap().contains("eu"), "{answer}");
    }
    for refused in ["", "{}", "{\"origin\":7}", "{\"origin\":\"eu\",\"port\":1}"] {
        assert_eq!(stand.ask(Method::PUT, PATH, Some(OPERATOR), refused).await.0, 400, "{refused}");
    }
    let (status, answer) = stand.ask(Method::PUT, PATH, Some(TENANT), "{\"origin\":\"eu\"}").await;
    assert_eq!((status, answer["code"].as_str()), (403, Some("auth.forbidden")), "a tenant chose where requests go");

    for (body, origin) in [("{\"origin\":\"eu\"}", Some("eu")), ("{\"origin\":\"eu\"}", Some("eu")), ("{\"origin\":null}", None)] {
        let (status, domain) = stand.ask(Method::PUT, PATH, Some(OPERATOR), body).await;
        assert_eq!((status, domain["origin"].as_str()), (202, origin), "{domain}");
    }
    let (_, history) = stand.ask(Method::GET, "/v1/domains/shop.client-brand.com/history", Some(TENANT), "").await;
    let events: Vec<_> = history["items"].as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, ["claim_registered", "origin_changed", "origin_changed"], "what changes nothing is not told");

    assert_eq!(stand.ask(Method::DELETE, "/v1/domains/shop.client-brand.com", Some(TENANT), "").await.0, 202);
    let (status, answer) = stand.ask(Method::PUT, PATH, Some(OPERATOR), "{\"origin\":\"eu\"}").await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("domain.removed")));
    let unknown = stand.ask(Method::PUT, "/v1/domains/unknown.client-brand.com/origin", Some(OPERATOR), "{\"origin\":\"eu\"}").await;
    assert_eq!(unknown.0, 404);
}
