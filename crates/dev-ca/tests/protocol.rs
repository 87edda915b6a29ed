//! The rules of RFC 8555 on the wire, with a client that breaks them one at a time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use http::Method;
use serde_json::json;
use support::{World, dns, issue, ready_order};

#[tokio::test]
async fn a_nonce_is_good_once() {
    let world = World::start().await;
    let mut wire = world.wire();
    wire.register().await;
    let url = wire.resource("newOrder").await;
    let jws = wire.sign(&wire.header(&url).await, &json!({"identifiers": [{"type": "dns", "value": "a.example.com"}]}).to_string());
    assert_eq!(wire.post_signed(&url, jws.clone()).await.status, 201);
    let replayed = wire.post_signed(&url, jws).await;
    assert_eq!(replayed.problem(), (400, "badNonce".into()));

    // The refusal brings a nonce that works.
    let mut header = wire.header(&url).await;
    header["nonce"] = replayed.header("replay-nonce").into();
    let jws = wire.sign(&header, &json!({"identifiers": [{"type": "dns", "value": "a.example.com"}]}).to_string());
    assert_eq!(wire.post_signed(&url, jws).await.status, 201);
    assert_eq!(world.ca.counters().new_orders, 1);

    header["nonce"] = "never-given-out".into();
    assert_eq!(wire.post_signed(&url, wire.sign(&header, "{}")).await.problem(), (400, "badNonce".into()));
}

#[tokio::test]
async fn each_broken_rule_of_a_request_has_its_status_and_type() {
    let world = World::start().await;
    let mut wire = world.wire();
    let account = wire.register().await;
    assert_eq!(account.status, 201);
    let url = wire.resource("newOrder").await;
    let payload = json!({"identifiers": [{"type": "dns", "value": "a.example.com"}]}).to_string();

    let header = wire.header(&url).await;
    let answer = wire.send(Method::POST, &url, "application/json", wire.sign(&header, &payload)).await.unwrap();
    assert_eq!(answer.problem(), (415, "malformed".into()));

    let mut elsewhere = wire.header(&url).await;
    elsewhere["url"] = wire.resource("revokeCert").await.into();
    assert_eq!(wire.post_signed(&url, wire.sign(&elsewhere, &payload)).await.problem(), (403, "unauthorized".into()));

    let mut rsa = wire.header(&url).await;
    rsa["alg"] = "RS256".into();
    let answer = wire.post_signed(&url, wire.sign(&rsa, &payload)).await;
    assert_eq!(answer.problem(), (400, "badSignatureAlgorithm".into()));
    assert_eq!(answer.json()["algorithms"], json!(["ES256"]));

    let mut unknown = wire.header(&url).await;
    unknown["kid"] = format!("{}x", wire.kid.clone().unwrap()).into();
    assert_eq!(wire.post_signed(&url, wire.sign(&unknown, &payload)).await.problem(), (400, "accountDoesNotExist".into()));

    let mut bare_key = wire.header(&url).await;
    bare_key.as_object_mut().unwrap().remove("kid");
    bare_key["jwk"] = wire.jwk();
    assert_eq!(wire.post_signed(&url, wire.sign(&bare_key, &payload)).await.problem(), (400, "malformed".into()));

    let mut stranger = world.wire();
    stranger.kid = wire.kid.clone();
    assert_eq!(stranger.post(&url, &payload).await.problem(), (400, "malformed".into()), "signed by another key");

    let big = "x".repeat(65 * 1024);
    assert_eq!(wire.send(Method::POST, &url, "application/jose+json", big).await.unwrap().problem(), (413, "malformed".into()));
    for (payload, kind) in [
        ("", "malformed"),
        ("{", "malformed"),
        (r#"{"identifiers":[]}"#, "malformed"),
        (r#"{"identifiers":[{"type":"ip","value":"192.0.2.1"}]}"#, "unsupportedIdentifier"),
        (r#"{"identifiers":[{"type":"dns","value":"localhost"}]}"#, "rejectedIdentifier"),
        (r#"{"identifiers":[{"type":"dns","value":"a.example.com"}],"notAfter":"2030-01-01T00:00:00Z"}"#, "malformed"),
        (r#"{"identifiers":[{"type":"dns","value":"a.example.com"}],"replaces":"nonsense"}"#, "malformed"),
    ] {
        assert_eq!(wire.post(&url, payload).await.problem(), (400, kind.into()), "{payload}");
    }
    assert_eq!(wire.get(&url).await.problem(), (405, "malformed".into()));
    let nowhere = url.replace("new-order", "nowhere");
    assert_eq!(wire.get(&nowhere).await.problem(), (404, "malformed".into()));
    assert_eq!(world.ca.counters().new_orders, 0);
}

#[tokio::test]
async fn directory_and_nonces_answer_as_the_rfc_says() {
    let world = World::start().await;
    let mut wire = world.wire();
    let directory = wire.get(&world.ca.directory_url()).await.json();
    assert!(directory["keyChange"].is_null(), "not offered, so not advertised");
    assert!(directory["renewalInfo"].as_str().unwrap().starts_with("https://localhost:"));
    let url = wire.resource("newNonce").await;
    let (head, get) = (wire.send(Method::HEAD, &url, "text/plain", "").await.unwrap(), wire.get(&url).await);
    assert_eq!((head.status, get.status), (200, 204));
    assert_ne!(head.header("replay-nonce"), get.header("replay-nonce"));
    assert_eq!(get.header("cache-control"), "no-store");
    assert!(get.header("link").contains("rel=\"index\""));
    wire.register().await;
    assert_eq!(wire.post(&world.ca.directory_url(), "").await.json()["newOrder"], directory["newOrder"]);
}

#[tokio::test]
async fn an_account_is_found_by_its_key_changed_and_closed() {
    let world = World::start().await;
    let mut wire = world.wire();
    let new_account = wire.resource("newAccount").await;
    let missing = wire.post(&new_account, r#"{"onlyReturnExisting":true}"#).await;
    assert_eq!(missing.problem(), (400, "accountDoesNotExist".into()));
    assert_eq!(wire.post(&new_account, r#"{"contact":["tel:1"]}"#).await.problem(), (400, "unsupportedContact".into()));

    wire.register().await;
    let url = wire.kid.take().unwrap();
    let found = wire.post(&new_account, r#"{"onlyReturnExisting":true}"#).await;
    assert_eq!((found.status, found.header("location")), (200, url.as_str()));
    wire.kid = Some(url.clone());

    let changed = wire.post(&url, r#"{"contact":["mailto:ops@example.com"]}"#).await.json();
    assert_eq!(changed["contact"], json!(["mailto:ops@example.com"]));
    assert_eq!(wire.post(&url, "").await.json()["status"], "valid");
    assert_eq!(wire.post(&url, r#"{"status":"revoked"}"#).await.problem(), (400, "malformed".into()));

    wire.new_order(&json!({"identifiers": [{"type": "dns", "value": "a.example.com"}]})).await;
    let orders = wire.post(&format!("{url}/orders"), "").await.json();
    assert_eq!(orders["orders"].as_array().unwrap().len(), 1);

    assert_eq!(wire.post(&url, r#"{"status":"deactivated"}"#).await.json()["status"], "deactivated");
    assert_eq!(wire.post(&url, "").await.problem(), (403, "unauthorized".into()));
    wire.kid = None;
    assert_eq!(wire.post(&new_account, "{}").await.problem(), (403, "unauthorized".into()));
}

#[tokio::test]
async fn what_belongs_to_another_account_is_not_shown_or_used() {
    let world = World::start().await;
    world.host("shop.example.com");
    let owner = world.account().await;
    let mut order = ready_order(&owner, &["shop.example.com"]).await;
    support::finish(&mut order, &["shop.example.com"]).await;
    let (url, state) = order.into_parts();

    let mut thief = world.wire();
    thief.register().await;
    for (url, payload) in [
        (url, ""),
        (state.authorizations[0].url.clone(), ""),
        (state.authorizations[0].url.clone(), r#"{"status":"deactivated"}"#),
        (state.authorizations[0].url.replace("authorization", "challenge") + "/http-01", "{}"),
        (state.finalize.clone(), r#"{"csr":"AAAA"}"#),
        (state.certificate.unwrap(), ""),
        (owner.id().to_owned(), ""),
    ] {
        assert_eq!(thief.post(&url, payload).await.problem(), (403, "unauthorized".into()), "{url}");
    }
}

#[tokio::test]
async fn a_certificate_is_revoked_by_its_own_key_or_by_who_controls_its_names_and_nobody_else() {
    use base64::Engine;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    let world = World::start().await;
    world.host("shop.example.com");
    let owner = world.account().await;
    let chain = support::ders(&issue(&owner, &["shop.example.com"]).await);
    let payload = json!({"certificate": BASE64_URL_SAFE_NO_PAD.encode(&chain[0]), "reason": 4}).to_string();

    let mut stranger = world.wire();
    let url = stranger.resource("revokeCert").await;
    assert_eq!(stranger.post(&url, &payload).await.problem(), (403, "unauthorized".into()), "a bare foreign key");
    stranger.register().await;
    assert_eq!(stranger.post(&url, &payload).await.problem(), (403, "unauthorized".into()), "a foreign account");
    let intermediate = json!({"certificate": BASE64_URL_SAFE_NO_PAD.encode(&chain[1])}).to_string();
    assert_eq!(stranger.post(&url, &intermediate).await.problem(), (404, "malformed".into()), "not one of ours");

    let heir = world.account().await;
    issue(&heir, &["shop.example.com"]).await;
    heir.revoke(&instant_acme::RevocationRequest { certificate: &chain[0], reason: None }).await.expect("controls the name now");

    // And by its own key: the raw client's key becomes that of a certificate ordered by someone else.
    let mut holder = world.wire();
    let pkcs8 = holder.key.to_pkcs8v1().unwrap();
    let key = rcgen::KeyPair::try_from(pkcs8.as_ref()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["shop.example.com".to_owned()]).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    world.web.answer_for(owner.key_thumbprint());
    let mut order = ready_order(&owner, &["shop.example.com"]).await;
    order.finalize_csr(params.serialize_request(&key).unwrap().der()).await.unwrap();
    let chain = support::ders(&order.poll_certificate(&support::QUICKLY).await.unwrap());
    holder.kid = None;
    let payload = json!({"certificate": BASE64_URL_SAFE_NO_PAD.encode(&chain[0])}).to_string();
    assert_eq!(holder.post(&url, &payload).await.status, 200);
    assert_eq!(world.ca.counters().revocations, 2);
}

#[tokio::test]
async fn answers_carry_the_headers_clients_navigate_by() {
    let world = World::start().await;
    let mut wire = world.wire();
    wire.register().await;
    let order = wire.new_order(&json!({"identifiers": [{"type": "dns", "value": "a.example.com"}], "profile": "tlsserver"})).await;
    assert_eq!(order.status, 201);
    let object = order.json();
    assert_eq!((&object["status"], &object["profile"]), (&json!("pending"), &json!("tlsserver")));
    assert_eq!(wire.post(order.header("location"), "").await.json(), object, "Location is the order's URL");
    let authorization = wire.post(object["authorizations"][0].as_str().unwrap(), "").await.json();
    assert_eq!(authorization["identifier"], json!({"type": "dns", "value": "a.example.com"}));
    let kinds: Vec<_> = authorization["challenges"].as_array().unwrap().iter().map(|challenge| &challenge["type"]).collect();
    assert_eq!(kinds, ["http-01", "dns-01"]);
    let challenge = &authorization["challenges"][0];
    assert_eq!(challenge["token"].as_str().unwrap().len(), 22, "128 bits in base64url");
    let shown = wire.post(challenge["url"].as_str().unwrap(), "").await;
    assert_eq!(shown.json(), *challenge, "reading is not answering");
    let links: Vec<_> = shown.headers.get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
    assert!(links.contains(&format!("<{}>;rel=\"up\"", object["authorizations"][0].as_str().unwrap()).as_str()), "{links:?}");
    assert_eq!(world.ca.counters().validations, 0);

    let renewal_info = wire.resource("renewalInfo").await;
    for (identifier, status) in [("AAAA.AAAA", 404), ("nonsense", 400), ("a.b.c", 400), ("*.*", 400)] {
        assert_eq!(wire.get(&format!("{renewal_info}/{identifier}")).await.problem(), (status, "malformed".into()), "{identifier}");
    }
}

#[tokio::test]
async fn an_order_for_many_names_lists_what_is_wrong_with_each() {
    let world = World::start().await;
    let account = world.account().await;
    let identifiers = [dns("good.example.com"), dns("bad_.example.com"), dns("single")];
    let error = account.new_order(&instant_acme::NewOrder::new(&identifiers)).await.err().expect("two are bad");
    let instant_acme::Error::Api(problem) = error else { panic!("{error:?}") };
    let refused: Vec<_> = problem.subproblems.into_iter().map(|one| one.identifier.unwrap()).collect();
    assert_eq!(refused, [dns("bad_.example.com"), dns("single")]);
}
