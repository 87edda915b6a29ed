//! The last looks of a domain, as its owner is shown them.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

mod stand;

use domains::{
    ClaimKey, Documents, DomainTable, Hostname, LOOKS_KIND, Look, LookSchedule, LookSubject, StoredLooks, TenantId, Timestamp, decide,
    judge,
};
use http::Method;
use serde_json::Value;
use stand::{OPERATOR, STARTS_AT, Stand, TENANT};

/// A look at a zone whose CAA records name another CA, as real DNS showed it.
const RECORDED: &str = include_str!("../../../crates/domains/tests/looks/caa_forbids.json");

#[tokio::test]
async fn looks_are_shown_with_the_judgement_made_again_and_go_with_the_domain() {
    let stand = Stand::new().await;
    let body = "{\"hostname\":\"shop.client-brand.com\",\"tenant\":\"brand\"}";
    assert_eq!(stand.ask(Method::POST, "/v1/domains", Some(OPERATOR), body).await.0, 201);
    let path = "/v1/domains/shop.client-brand.com/looks";
    let (status, before) = stand.ask(Method::GET, path, Some(TENANT), "").await;
    assert_eq!((status, before["items"].as_array().unwrap().len()), (200, 0), "{before}");

    let key = ClaimKey { hostname: Hostname::parse_name("shop.client-brand.com").unwrap(), tenant: TenantId::parse("brand").unwrap() };
    let id = stand.home.claim(&key).await.unwrap().unwrap().claim_id;
    let recorded: Value = serde_json::from_str(RECORDED).unwrap();
    let (subject, look) = (
        serde_json::from_value::<LookSubject>(recorded["subject"].clone()).unwrap(),
        serde_json::from_value::<Look>(recorded["look"].clone()).unwrap(),
    );
    let kept = StoredLooks::default().with(&subject, &look, STARTS_AT.parse::<Timestamp>().unwrap()).unwrap();
    stand.home.put_document(LOOKS_KIND, id.as_str(), &serde_json::to_string(&kept).unwrap(), None).await.unwrap();

    let (status, shown) = stand.ask(Method::GET, path, Some(TENANT), "").await;
    assert_eq!(status, 200, "{shown}");
    let item = &shown["items"][0];
    assert_eq!(item["judgement"]["finding"]["code"], "caa.forbids", "{item}");
    assert_eq!(item["look"]["further"]["caa"], recorded["look"]["further"]["caa"]);
    assert_eq!((item["first"].as_str(), item["last"].as_str()), (Some(STARTS_AT), Some(STARTS_AT)));

    // The next look finds the same. Only the claim is written then, and still the answer says until when it was so.
    let claim = stand.home.claim(&key).await.unwrap().unwrap();
    let again = STARTS_AT.parse::<Timestamp>().unwrap() + std::time::Duration::from_secs(86_400);
    let unchanged = decide::after_look(&claim, None, None, &judge(&look, &subject), &LookSchedule::default(), again, again).unwrap();
    stand.home.commit(&unchanged).await.unwrap();
    let (_, shown) = stand.ask(Method::GET, path, Some(TENANT), "").await;
    let item = &shown["items"][0];
    assert_eq!((item["first"].as_str().unwrap(), item["last"].as_str().unwrap()), (STARTS_AT, again.to_string().as_str()));

    assert_eq!(stand.ask(Method::GET, path, None, "").await.0, 401);
    assert_eq!(stand.ask(Method::DELETE, "/v1/domains/shop.client-brand.com", Some(TENANT), "").await.0, 202);
    assert_eq!(stand.home.document(LOOKS_KIND, id.as_str()).await.unwrap(), None);
}
