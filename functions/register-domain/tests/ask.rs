//! `ask`: owned names only, at the secret path only, and the store is not asked for every handshake.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

mod stand;

use std::{sync::Arc, sync::atomic::Ordering, time::Duration};

use domains::{Change, ClaimKey, DomainTable, Hostname, Owner, Proof, Put, RemovalReason, State, TenantId, Timestamp};
use http::Method;
use register_domain::{ask_made_at, forget_ask_secret};
use stand::{OPERATOR, STARTS_AT, Stand};

/// A claim that `brand` has proved, and the owner item that says so.
async fn own(stand: &Stand, hostname: &str) -> ClaimKey {
    let body = format!("{{\"hostname\":\"{hostname}\",\"tenant\":\"brand\"}}");
    assert_eq!(stand.ask(Method::POST, "/v1/domains", Some(OPERATOR), &body).await.0, 201);
    let key = ClaimKey { hostname: Hostname::parse_name(hostname).unwrap(), tenant: TenantId::parse("brand").unwrap() };
    let now: Timestamp = STARTS_AT.parse().unwrap();
    let owner = Owner::changed(None, &key.hostname, Some(key.tenant.clone()));
    rewrite(stand, &key, State::AwaitingRouting { proof: Proof::Txt, next_look: now }, Some(Put { item: owner, expected: None })).await;
    key
}

async fn rewrite(stand: &Stand, key: &ClaimKey, state: State, owner: Option<Put<Owner>>) {
    let mut claim = stand.home.claim(key).await.unwrap().unwrap();
    let expected = Some(claim.version);
    claim.version += 1;
    claim.state = state;
    stand.home.commit(&Change { claims: vec![Put { item: claim, expected }], owner, ..Change::default() }).await.unwrap();
}

async fn secret_path(stand: &Stand) -> String {
    let (status, view) = stand.ask(Method::GET, "/v1/ask", Some(OPERATOR), "").await;
    assert_eq!(status, 200, "{view}");
    view["path"].as_str().unwrap().to_owned()
}

async fn asked(stand: &Stand, path: &str, query: &str) -> u16 {
    stand.ask(Method::GET, &format!("{path}{query}"), None, "").await.0
}

#[tokio::test]
async fn only_an_owned_name_at_the_secret_path_is_a_yes() {
    let stand = Stand::new().await;
    let owned = own(&stand, "shop.client-brand.com").await;
    let body = "{\"hostname\":\"claimed.client-brand.com\",\"tenant\":\"brand\"}";
    assert_eq!(stand.ask(Method::POST, "/v1/domains", Some(OPERATOR), body).await.0, 201);
    let path = secret_path(&stand).await;
    assert_eq!(asked(&stand, &path, "?domain=shop.client-brand.com").await, 200);
    assert_eq!(asked(&stand, &path, "?domain=SHOP.client-brand.com.").await, 200, "a name is a name however it is spelled");
    for no in [
        "",
        "?domain=",
        "?domain=claimed.client-brand.com",
        "?domain=a.shop.client-brand.com",
        "?domain=192.0.2.1",
        "?domain=a..b",
        "?domain=%00",
        "?domain=%FF",
        "?domain=*.client-brand.com",
        "?other=shop.client-brand.com",
    ] {
        assert_eq!(asked(&stand, &path, no).await, 404, "{no}");
    }
    for wrong in ["/ask/guess".to_owned(), "/ask".to_owned(), format!("{path}x"), path[..path.len() - 1].to_owned(), format!("{path}/more")]
    {
        assert_ne!(asked(&stand, &wrong, "?domain=shop.client-brand.com").await, 200, "{wrong}");
    }
    rewrite(&stand, &owned, State::Removing { reason: RemovalReason::Requested, next_look: STARTS_AT.parse().unwrap() }, None).await;
    stand.clock.advance(Duration::from_secs(6));
    assert_eq!(asked(&stand, &path, "?domain=shop.client-brand.com").await, 404, "a removed name is refused once the answer is old");
}

#[tokio::test]
async fn a_name_below_an_owned_wildcard_is_a_yes() {
    let stand = Stand::with(|api| api.policy.tenant_wildcards = true).await;
    own(&stand, "*.client-brand.com").await;
    let path = secret_path(&stand).await;
    assert_eq!(asked(&stand, &path, "?domain=any.client-brand.com").await, 200);
    assert_eq!(asked(&stand, &path, "?domain=too.deep.client-brand.com").await, 404);
    assert_eq!(asked(&stand, &path, "?domain=client-brand.com").await, 404);
}

#[tokio::test]
async fn a_hundred_handshakes_at_once_ask_the_store_once_and_an_answer_serves_five_seconds() {
    let stand = Arc::new(Stand::new().await);
    own(&stand, "shop.client-brand.com").await;
    let path = secret_path(&stand).await;
    assert_eq!(asked(&stand, &path, "").await, 404, "the secret is known now");
    stand.reads.owners.store(0, Ordering::SeqCst);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (stand, path) = (Arc::clone(&stand), path.clone());
        asking.spawn(async move { asked(&stand, &path, "?domain=shop.client-brand.com").await });
    }
    assert!(asking.join_all().await.into_iter().all(|status| status == 200));
    assert_eq!(stand.reads.owners.load(Ordering::SeqCst), 1);
    stand.clock.advance(Duration::from_millis(4_900));
    asked(&stand, &path, "?domain=shop.client-brand.com").await;
    assert_eq!(stand.reads.owners.load(Ordering::SeqCst), 1);
    stand.clock.advance(Duration::from_millis(200));
    asked(&stand, &path, "?domain=shop.client-brand.com").await;
    assert_eq!(stand.reads.owners.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn while_the_store_is_away_known_names_keep_their_answer_and_new_ones_are_no_yes() {
    let stand = Stand::new().await;
    own(&stand, "shop.client-brand.com").await;
    own(&stand, "new.client-brand.com").await;
    let path = secret_path(&stand).await;
    assert_eq!(asked(&stand, &path, "?domain=shop.client-brand.com").await, 200);
    assert_eq!(asked(&stand, &path, "?domain=unknown.client-brand.com").await, 404);
    stand.reads.fail_owners.store(true, Ordering::SeqCst);
    for minutes in [1, 40] {
        stand.clock.advance(Duration::from_secs(60 * minutes));
        assert_eq!(asked(&stand, &path, "?domain=shop.client-brand.com").await, 200, "after {minutes} minutes");
        assert_eq!(asked(&stand, &path, "?domain=unknown.client-brand.com").await, 404);
        assert_eq!(asked(&stand, &path, "?domain=new.client-brand.com").await, 503);
        assert_eq!(asked(&stand, &path, "?domain=a..b").await, 404, "a bad name needs no store");
    }
    stand.reads.fail_owners.store(false, Ordering::SeqCst);
    assert_eq!(asked(&stand, &path, "?domain=new.client-brand.com").await, 200);
}

#[tokio::test]
async fn the_secret_is_made_once_and_a_new_one_ends_the_old() {
    let stand = Stand::new().await;
    own(&stand, "shop.client-brand.com").await;
    let first = stand.api.prepare().await.unwrap();
    assert_eq!(stand.api.prepare().await.unwrap(), first);
    assert_eq!(secret_path(&stand).await, first.path);
    let (status, second) = stand.ask(Method::POST, "/v1/ask/rotate", Some(OPERATOR), "").await;
    assert_eq!(status, 200);
    assert_ne!(second["path"], first.path);
    assert_eq!(asked(&stand, &first.path, "?domain=shop.client-brand.com").await, 404);
    assert_eq!(asked(&stand, second["path"].as_str().unwrap(), "?domain=shop.client-brand.com").await, 200);
    assert_eq!(secret_path(&stand).await, second["path"]);
    // Forgotten, as by a restore, it is nobody's, and the next one is another.
    forget_ask_secret(stand.home.as_ref()).await.unwrap();
    assert_eq!(ask_made_at(stand.home.as_ref()).await.unwrap(), None);
    let third = stand.api.prepare().await.unwrap();
    assert_ne!(second["path"], third.path);
    assert_eq!(ask_made_at(stand.home.as_ref()).await.unwrap(), Some(third.made_at));
}
