//! Tenant assertions: what the edge knows about a connection, signed for the origin.
//!
//! Arrives: the signing keys of `edge.json`, and a connection's tenant, host, client and TLS facts. Leaves: a compact JWS (RFC 7515, ES256) that
//! lives for a minute or two. Goes wrong: a key that does not open is told and left alone; without any key there is no assertion, and the
//! origin that asks for one refuses.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bundles::{EdgeSettings, SealKeys, SigningKey, UnixSeconds, signing_at};
use domains::{Clock, Hostname, TenantId};
use http::HeaderValue;
use serde::Serialize;

/// How long an assertion is good for.
const LIFE_SECONDS: UnixSeconds = 120;
/// How much of that is left at least when the origin gets it.
const LEAST_LEFT_SECONDS: UnixSeconds = 60;
/// The header's `typ`, so that no other token signed with these keys could ever be taken for one.
///
/// Source: RFC 8725, section 3.11.
const TYPE: &str = "nameplate-assertion+jwt";

/// What an assertion says. The names are part of what origins rely on.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Facts<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) host: &'a Hostname,
    pub(crate) client: IpAddr,
    pub(crate) tls: &'a str,
    pub(crate) alpn: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    #[serde(flatten)]
    facts: Facts<'a>,
    iat: UnixSeconds,
    exp: UnixSeconds,
}

/// Signs with the key whose turn it is.
pub(crate) struct Signer {
    keys: RwLock<Arc<Vec<Opened>>>,
    random: SystemRandom,
    clock: Arc<dyn Clock>,
}

struct Opened {
    kid: String,
    sign_from: UnixSeconds,
    /// The JWS header, encoded.
    header: String,
    pair: EcdsaKeyPair,
}

impl Signer {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { keys: RwLock::default(), random: SystemRandom::new(), clock }
    }

    /// Takes the keys of new settings; those that do not open are left out and told. Settings without one that opens change nothing, so that
    /// whoever cannot write a good key cannot end signing either.
    pub(crate) fn take(&self, settings: &EdgeSettings, seal_keys: &SealKeys) {
        let opened: Vec<_> = settings.signing_keys.iter().filter_map(|key| open(key, seal_keys)).collect();
        if !opened.is_empty() {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(opened);
        }
    }

    fn sign(&self, facts: Facts<'_>, now: UnixSeconds) -> Option<Signed> {
        let keys = Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner));
        let key = signing_at(&keys, now, |key| key.sign_from)?;
        let claims = serde_json::to_vec(&Claims { facts, iat: now, exp: now + LIFE_SECONDS }).ok()?;
        let mut jws = format!("{}.{}", key.header, URL_SAFE_NO_PAD.encode(claims));
        let signature = key.pair.sign(&self.random, jws.as_bytes()).ok()?;
        jws.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut jws);
        Some(Signed { made: now, value: HeaderValue::try_from(jws).ok()? })
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(keys.iter().map(|key| &key.kid)).finish()
    }
}

#[derive(Clone, Debug)]
struct Signed {
    made: UnixSeconds,
    value: HeaderValue,
}

/// A connection's assertion: signed once, and again when it ages, because a signature costs more than everything else about a request.
#[derive(Debug, Default)]
pub(crate) struct Assertion(Mutex<Option<Signed>>);

impl Assertion {
    /// The assertion for a request now; `None` without a key.
    pub(crate) fn current(&self, signer: &Signer, facts: Facts<'_>) -> Option<HeaderValue> {
        let now = signer.clock.now().as_second();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One from the future is as bad as an old one: the clock was set back.
        let fresh = |signed: &&Signed| (signed.made..=signed.made + LIFE_SECONDS - LEAST_LEFT_SECONDS).contains(&now);
        if let Some(signed) = kept.as_ref().filter(fresh) {
            return Some(signed.value.clone());
        }
        *kept = signer.sign(facts, now);
        kept.as_ref().map(|signed| signed.value.clone())
    }
}

fn open(key: &SigningKey, seal_keys: &SealKeys) -> Option<Opened> {
    let refused = |problem: &str| tracing::error!(kid = key.kid, problem, "a signing key of the edge settings cannot be used");
    let pkcs8 = key.open(seal_keys).map_err(|error| refused(&telemetry::error_chain(&error))).ok()?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).map_err(|_| refused("it is no P-256 key")).ok()?;
    if pair.public_key().as_ref() != key.public_key {
        refused("its halves do not belong together");
        return None;
    }
    let header = serde_json::json!({"alg": "ES256", "typ": TYPE, "kid": key.kid}).to_string();
    Some(Opened { kid: key.kid.clone(), sign_from: key.sign_from, header: URL_SAFE_NO_PAD.encode(header), pair })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::SealKeyPair;
    use domains::HandClock;
    use std::time::Duration;

    fn key(seal: &SealKeyPair, sign_from: UnixSeconds) -> SigningKey {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        SigningKey::seal(seal.public(), pkcs8.as_ref(), pair.public_key().as_ref(), sign_from).unwrap()
    }

    fn part(value: &HeaderValue, index: usize) -> serde_json::Value {
        let text = value.to_str().unwrap().split('.').nth(index).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    #[test]
    fn an_assertion_is_signed_once_until_it_ages_and_by_the_key_whose_turn_it_is() {
        let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
        let begin = clock.now().as_second();
        let seal = SealKeyPair::generate().unwrap();
        let (first, second) = (key(&seal, begin), key(&seal, begin + 100));
        let (kids, settings) =
            ([first.kid.clone(), second.kid.clone()], EdgeSettings::new(1, Vec::new()).with_signing_keys(vec![first, second]));
        let signer = Signer::new(clock.clone());
        let (tenant, host) = (TenantId::parse("acme").unwrap(), Hostname::parse_name("shop.brand.com").unwrap());
        let facts = Facts { tenant: &tenant, host: &host, client: [192, 0, 2, 7].into(), tls: "1.3", alpn: "h2" };
        let kept = Assertion::default();
        assert_eq!(kept.current(&signer, facts), None, "without a key nothing is asserted");

        signer.take(&settings, &[seal].into_iter().collect());
        let made = kept.current(&signer, facts).unwrap();
        assert_eq!(part(&made, 0)["kid"], kids[0].as_str());
        clock.advance(Duration::from_secs(60));
        assert_eq!(kept.current(&signer, facts).unwrap(), made, "half of its life is left");
        clock.advance(Duration::from_secs(1));
        let renewed = kept.current(&signer, facts).unwrap();
        assert_eq!(part(&renewed, 1)["exp"], begin + 61 + LIFE_SECONDS);
        clock.advance(Duration::from_secs(61));
        assert_eq!(part(&kept.current(&signer, facts).unwrap(), 0)["kid"], kids[1].as_str(), "its time has come");

        signer.take(&EdgeSettings::new(2, Vec::new()), &SealKeys::default());
        assert!(Assertion::default().current(&signer, facts).is_some(), "settings without keys do not end signing");
    }
}
