//! How an origin verifies what the edge asserts: `verify_assertion <key set file> <host> <tenant>`, with the header's value on standard input.
//!
//! Arrives: the value of `x-nameplate-assertion`, and the key set fetched from the edge's `/.well-known/jwks.json`. Leaves: who asks for what.
//! Goes wrong: a [`Refusal`]; [`Refusal::UnknownKey`] is the one for which fetching the key set anew may help.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

/// How far the origin's clock may be from the edge's, in seconds.
const LEEWAY: i64 = 30;

/// Why an assertion is not believed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is no assertion.
    Malformed,
    /// No key of the set has its id: the set may be old.
    UnknownKey,
    /// It was not signed with that key.
    BadSignature,
    /// It is too old, or from a clock that is ahead.
    Expired,
    /// It is for another host than the request.
    OtherHost,
    /// It is another tenant's.
    OtherTenant,
}

/// What was asked for: the request's `Host`, the tenant whose data it is about to get, and the time.
#[derive(Clone, Copy)]
pub(crate) struct Expected<'a> {
    /// Without a port, in lower case.
    pub(crate) host: &'a str,
    /// As the origin knows it.
    pub(crate) tenant: &'a str,
    /// Seconds since 1970.
    pub(crate) now: i64,
}

/// Verifies an assertion and returns its claims.
///
/// # Errors
/// A [`Refusal`].
pub(crate) fn verify(key_set: &Value, assertion: &str, expected: &Expected<'_>) -> Result<Value, Refusal> {
    let (signed, signature) = assertion.rsplit_once('.').ok_or(Refusal::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
    let header: Value = serde_json::from_slice(&decode(header)?).map_err(|_| Refusal::Malformed)?;
    // Never the algorithm that the token would like.
    if header["alg"] != "ES256" || header["typ"] != "nameplate-assertion+jwt" {
        return Err(Refusal::Malformed);
    }
    let keys = key_set["keys"].as_array().ok_or(Refusal::UnknownKey)?;
    let key = keys.iter().find(|key| key["kid"] == header["kid"] && key["crv"] == "P-256").ok_or(Refusal::UnknownKey)?;
    let coordinate = |name: &str| decode(key[name].as_str().unwrap_or_default());
    let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
    let believed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &decode(signature)?);
    believed.map_err(|_| Refusal::BadSignature)?;

    let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|_| Refusal::Malformed)?;
    let time = |name: &str| claims[name].as_i64().ok_or(Refusal::Malformed);
    if expected.now >= time("exp")? + LEEWAY || expected.now < time("iat")? - LEEWAY {
        return Err(Refusal::Expired);
    }
    if claims["host"] != expected.host {
        return Err(Refusal::OtherHost);
    }
    if claims["tenant"] != expected.tenant {
        return Err(Refusal::OtherTenant);
    }
    Ok(claims)
}

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::Malformed)
}

#[allow(dead_code, reason = "the test that runs this file calls `verify` itself")]
#[allow(clippy::disallowed_methods, reason = "an origin has a clock of its own")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [key_set, host, tenant] = std::env::args().skip(1).collect::<Vec<_>>().try_into().map_err(|_| "key set file, host, tenant")?;
    let key_set = serde_json::from_slice(&std::fs::read(key_set)?)?;
    let mut assertion = String::new();
    std::io::stdin().read_line(&mut assertion)?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs().try_into()?;
    let claims = verify(&key_set, assertion.trim(), &Expected { host: &host, tenant: &tenant, now });
    println!("{}", claims.map_err(|refusal| format!("{refusal:?}"))?);
    Ok(())
}
