//! Tenant assertions, verified the way the example for origins verifies them.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use bundles::{EdgeSettings, SigningKey};
use domains::{Clock, SystemClock};
use http::Request;
use serde_json::Value;
use std::sync::atomic::Ordering;

use crate::{
    client,
    setup::{Setup, eventually},
};

#[path = "../../examples/verify_assertion.rs"]
mod verify_assertion;

use verify_assertion::{Expected, Refusal, verify};

const SHOP: &str = "shop.brand.com";

fn now() -> i64 {
    SystemClock.now().as_second()
}

fn key(setup: &Setup, sign_from: i64) -> SigningKey {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
    SigningKey::seal(&setup.bucket.seal_key, pkcs8.as_ref(), pair.public_key().as_ref(), sign_from).unwrap()
}

fn publish(setup: &Setup, generation: u64, keys: &[SigningKey]) {
    let settings = EdgeSettings::new(generation, vec!["thumbprint".to_owned()]).with_signing_keys(keys.to_vec());
    setup.bucket.write("edge.json", &settings.to_bytes());
}

/// The key set once it has so many keys.
async fn key_set(setup: &Setup, keys: usize) -> Value {
    let read = async || {
        let ask = "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = client::plain(setup.edge().private_addr, ask).await;
        answer.split_once("\r\n\r\n").and_then(|(_, body)| serde_json::from_str::<Value>(body).ok()).unwrap_or_default()
    };
    eventually("the key set is published", async || read().await["keys"].as_array().is_some_and(|set| set.len() == keys)).await;
    read().await
}

fn assertion(echoed: &str) -> String {
    let mut found = echoed.lines().filter_map(|line| line.strip_prefix("x-nameplate-assertion: "));
    let value = found.next().expect(echoed).to_owned();
    assert_eq!(found.next(), None, "{echoed}");
    value
}

async fn asserted(setup: &Setup) -> String {
    let mut sender = client::h1(setup.https(), SHOP).await;
    let forged =
        Request::get("/echo").header("host", SHOP).header("x-nameplate-assertion", "forged").header("x_nameplate_assertion", "forged");
    let echoed = client::text(sender.send_request(forged.body(client::empty()).unwrap()).await.unwrap()).await;
    assert!(!echoed.contains("forged"), "{echoed}");
    assertion(&echoed)
}

#[tokio::test]
async fn an_origin_believes_the_right_tenant_host_and_time_and_tells_the_wrong_ones_apart() {
    let setup = Setup::with(&[SHOP]).await;
    publish(&setup, 2, &[key(&setup, now())]);
    let set = key_set(&setup, 1).await;
    let value = asserted(&setup).await;
    let expected = Expected { host: SHOP, tenant: "acme", now: now() };
    let claims = verify(&set, &value, &expected).unwrap();
    assert_eq!((&claims["client"], &claims["tls"], &claims["alpn"]), (&"127.0.0.1".into(), &"1.3".into(), &"http/1.1".into()));

    let refused = |set: &Value, value: &str, expected: Expected<'_>| verify(set, value, &expected).unwrap_err();
    assert_eq!(refused(&set, &value, Expected { host: "other.brand.com", ..expected }), Refusal::OtherHost);
    assert_eq!(refused(&set, &value, Expected { tenant: "other", ..expected }), Refusal::OtherTenant);
    assert_eq!(refused(&set, &value, Expected { now: now() + 600, ..expected }), Refusal::Expired);
    assert_eq!(refused(&set, &value, Expected { now: now() - 600, ..expected }), Refusal::Expired);
    assert_eq!(refused(&serde_json::json!({"keys": []}), &value, expected), Refusal::UnknownKey);
    let (start, end) = (value.split_once('.').unwrap().0, value.rsplit_once('.').unwrap().1);
    assert_eq!(refused(&set, &format!("{start}.e30.{end}"), expected), Refusal::BadSignature);
    assert_eq!(refused(&set, "forged", expected), Refusal::Malformed);
}

#[tokio::test]
async fn a_verifier_with_the_key_set_from_before_a_rotation_refuses_nothing_after_it() {
    let setup = Setup::with(&[SHOP]).await;
    let (old, next) = (key(&setup, now() - 100), key(&setup, now() + 86_400));
    publish(&setup, 2, &[old.clone(), next.clone()]);
    let cached = key_set(&setup, 2).await;
    let expected = || Expected { host: SHOP, tenant: "acme", now: now() };
    let before = asserted(&setup).await;
    verify(&cached, &before, &expected()).unwrap();

    // The next one's time has come; what was cached is all that the verifier has.
    publish(&setup, 3, &[old, SigningKey { sign_from: now() - 1, ..next }]);
    let header = |value: &str| value.split('.').next().unwrap().to_owned();
    eventually("the next key signs", async || {
        let value = asserted(&setup).await;
        verify(&cached, &value, &expected()).unwrap();
        header(&value) != header(&before)
    })
    .await;
    verify(&key_set(&setup, 2).await, &before, &expected()).unwrap();
}

#[tokio::test]
async fn a_restarted_edge_signs_with_the_store_dead() {
    let mut setup = Setup::with(&[SHOP]).await;
    publish(&setup, 2, &[key(&setup, now())]);
    let set = key_set(&setup, 1).await;
    setup.until_warm().await;
    asserted(&setup).await;
    eventually("the settings are on the disk", async || {
        std::fs::read(setup.cache.path().join("edge.json")).is_ok_and(|kept| EdgeSettings::from_bytes(&kept).unwrap().generation == 2)
    })
    .await;
    drop(setup.edge.take());
    eventually("the cache folder is free", async || std::fs::File::open(setup.cache.path().join("lock")).unwrap().try_lock().is_ok()).await;
    setup.source.dead.store(true, Ordering::SeqCst);
    setup.start(|_| {}).await;
    verify(&set, &asserted(&setup).await, &Expected { host: SHOP, tenant: "acme", now: now() }).unwrap();
}
