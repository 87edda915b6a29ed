//! Signed requests: the flattened JWS of RFC 8555, section 6.
//!
//! Arrives: a POST body from a stranger. Leaves: an [`Envelope`] whose parts are decoded, and after [`Envelope::verify`] the certainty that
//! the holder of a key wrote it. Goes wrong: a [`Problem`] for each rule broken. Nonces, URLs and accounts are judged by the caller,
//! who knows them.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::problem::{Kind, Problem};

/// The one signature algorithm every ACME server must know. Source: RFC 8555, section 6.2.
const ALGORITHMS: &[&str] = &["ES256"];

/// A public account key (or certificate key) as it travels: P-256 coordinates in base64url.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

impl Jwk {
    /// Returns the point in its uncompressed form, as certificates carry it.
    pub(crate) fn point(&self) -> Result<[u8; 65], Problem> {
        let bad = |what: &str| Problem::new(Kind::BadPublicKey, format!("the key {what}; use an EC key on P-256"));
        if self.kty != "EC" || self.crv != "P-256" {
            return Err(bad(&format!("is of type {:?} on curve {:?}", self.kty, self.crv)));
        }
        let mut point = [4_u8; 65];
        for (coordinate, range) in [(&self.x, 1..33), (&self.y, 33..65)] {
            let bytes = BASE64_URL_SAFE_NO_PAD.decode(coordinate).map_err(|_| bad("has a coordinate that is not base64url"))?;
            if bytes.len() != range.len() {
                return Err(bad(&format!("has a coordinate of {} bytes", bytes.len())));
            }
            point[range].copy_from_slice(&bytes);
        }
        Ok(point)
    }

    /// Returns the key ready to verify with, once it is known to lie on the curve.
    pub(crate) fn parse(&self) -> Result<ParsedPublicKey, Problem> {
        ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.point()?)
            .map_err(|_| Problem::new(Kind::BadPublicKey, "the key is not a point on P-256"))
    }

    /// Returns the key's thumbprint: base64url of the SHA-256 of its canonical form. Source: RFC 7638, section 3.
    pub(crate) fn thumbprint(&self) -> String {
        let canonical = format!(r#"{{"crv":"{}","kty":"{}","x":"{}","y":"{}"}}"#, self.crv, self.kty, self.x, self.y);
        BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
    }
}

/// Who says they signed.
#[derive(Debug, Clone)]
pub(crate) enum Signer {
    /// The key itself: for new accounts, and for revoking with a certificate's key.
    Key(Jwk),
    /// An account's URL: for everything else.
    Account(String),
}

/// A request body, decoded but not yet believed.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) signer: Signer,
    pub(crate) nonce: String,
    pub(crate) url: String,
    /// The decoded payload; empty for a POST-as-GET.
    pub(crate) payload: Vec<u8>,
    signed: String,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
    header: Option<serde_json::Value>,
    signatures: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Protected {
    alg: Option<String>,
    nonce: Option<String>,
    url: Option<String>,
    jwk: Option<Jwk>,
    kid: Option<String>,
    crit: Option<serde_json::Value>,
}

impl Envelope {
    /// Parses a flattened JWS and its protected header.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let outer: Flattened = serde_json::from_slice(body)
            .map_err(|error| Problem::malformed(format!("the body is not a flattened JWS in JSON: {error}")))?;
        if outer.header.is_some() || outer.signatures.is_some() {
            return Err(Problem::malformed("a JWS here has one signature and no unprotected header"));
        }
        let decode = |what: &str, text: &str| {
            BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| Problem::malformed(format!("the JWS {what} is not base64url without padding")))
        };
        let header: Protected = serde_json::from_slice(&decode("protected header", &outer.protected)?)
            .map_err(|error| Problem::malformed(format!("the JWS protected header is not understood: {error}")))?;
        if header.crit.is_some() {
            return Err(Problem::malformed("the JWS names critical extensions, and none is known here"));
        }
        match header.alg.as_deref() {
            Some(alg) if ALGORITHMS.contains(&alg) => {}
            Some(alg) => {
                return Err(Problem::new(Kind::BadSignatureAlgorithm, format!("{alg:?} is not supported")).supporting(ALGORITHMS));
            }
            None => return Err(Problem::malformed("the JWS protected header has no `alg`")),
        }
        let signer = match (header.jwk, header.kid) {
            (Some(key), None) => Signer::Key(key),
            (None, Some(account)) => Signer::Account(account),
            _ => return Err(Problem::malformed("the JWS protected header must have either `jwk` or `kid`")),
        };
        Ok(Self {
            signer,
            nonce: header.nonce.ok_or_else(|| Problem::new(Kind::BadNonce, "the JWS has no nonce"))?,
            url: header.url.ok_or_else(|| Problem::malformed("the JWS protected header has no `url`"))?,
            payload: decode("payload", &outer.payload)?,
            signature: decode("signature", &outer.signature)?,
            signed: format!("{}.{}", outer.protected, outer.payload),
        })
    }

    /// Checks that the holder of `key` signed this request.
    pub(crate) fn verify(&self, key: &ParsedPublicKey) -> Result<(), Problem> {
        key.verify_sig(self.signed.as_bytes(), &self.signature).map_err(|_| Problem::malformed("the JWS signature does not verify"))
    }
}

/// Reads the JSON payload of a request without believing it, to match scripted faults by name.
pub(crate) fn unverified_payload(body: &[u8]) -> Option<serde_json::Value> {
    let outer: Flattened = serde_json::from_slice(body).ok()?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(outer.payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
    use serde_json::{Value, json};

    use super::*;

    fn key() -> (EcdsaKeyPair, Jwk) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let point = pair.public_key().as_ref();
        let jwk = Jwk {
            kty: "EC".into(),
            crv: "P-256".into(),
            x: BASE64_URL_SAFE_NO_PAD.encode(&point[1..33]),
            y: BASE64_URL_SAFE_NO_PAD.encode(&point[33..65]),
        };
        (pair, jwk)
    }

    fn sign(pair: &EcdsaKeyPair, header: &Value, payload: &str) -> Value {
        let protected = BASE64_URL_SAFE_NO_PAD.encode(header.to_string());
        let payload = BASE64_URL_SAFE_NO_PAD.encode(payload);
        let signature = pair.sign(&SystemRandom::new(), format!("{protected}.{payload}").as_bytes()).expect("a signature");
        json!({"protected": protected, "payload": payload, "signature": BASE64_URL_SAFE_NO_PAD.encode(signature)})
    }

    fn header(jwk: &Jwk) -> Value {
        json!({"alg": "ES256", "jwk": jwk, "nonce": "n", "url": "https://ca.test/new"})
    }

    #[test]
    fn a_signed_request_is_believed_and_a_changed_one_is_not() {
        let (pair, jwk) = key();
        let mut body = sign(&pair, &header(&jwk), r#"{"a":1}"#);
        let envelope = Envelope::parse(body.to_string().as_bytes()).expect("parses");
        envelope.verify(&jwk.parse().expect("a point")).expect("verifies");
        assert_eq!(envelope.payload, br#"{"a":1}"#);

        body["payload"] = BASE64_URL_SAFE_NO_PAD.encode(r#"{"a":2}"#).into();
        let changed = Envelope::parse(body.to_string().as_bytes()).expect("still parses");
        assert_eq!(changed.verify(&jwk.parse().expect("a point")).expect_err("changed").short_type(), "malformed");
        let (_, stranger) = key();
        assert!(envelope.verify(&stranger.parse().expect("a point")).is_err());
    }

    #[test]
    fn each_broken_rule_has_its_own_problem_type() {
        let (pair, jwk) = key();
        let with = |field: &str, value: Value| {
            let mut header = header(&jwk);
            header[field] = value;
            header
        };
        let without = |field: &str| {
            let mut header = header(&jwk);
            header.as_object_mut().expect("an object").remove(field);
            header
        };
        for (header, kind) in [
            (with("alg", "RS256".into()), "badSignatureAlgorithm"),
            (with("alg", "none".into()), "badSignatureAlgorithm"),
            (without("alg"), "malformed"),
            (without("nonce"), "badNonce"),
            (without("url"), "malformed"),
            (without("jwk"), "malformed"),
            (with("kid", "https://ca.test/account/1".into()), "malformed"),
            (with("crit", json!(["x"])), "malformed"),
        ] {
            let problem = Envelope::parse(sign(&pair, &header, "{}").to_string().as_bytes()).expect_err(kind);
            assert_eq!(problem.short_type(), kind, "{header}");
        }
        let mut general = sign(&pair, &header(&jwk), "{}");
        general["signatures"] = json!([]);
        for body in [general.to_string(), String::new(), "[]".into(), "{".into(), r#"{"protected":"=","payload":"","signature":""}"#.into()]
        {
            assert_eq!(Envelope::parse(body.as_bytes()).expect_err(&body).short_type(), "malformed", "{body}");
        }
    }

    #[test]
    fn a_key_that_is_no_p256_point_is_a_bad_public_key() {
        let (_, good) = key();
        for bad in [
            Jwk { kty: "RSA".into(), ..good.clone() },
            Jwk { crv: "P-384".into(), ..good.clone() },
            Jwk { x: "AA".into(), ..good.clone() },
            Jwk { x: "*".into(), ..good.clone() },
            Jwk { x: good.y.clone(), y: good.y.clone(), ..good.clone() },
        ] {
            assert_eq!(bad.parse().expect_err("refused").short_type(), "badPublicKey", "{bad:?}");
        }
    }

    #[test]
    fn the_thumbprint_is_the_one_of_rfc_7638() {
        // Computed independently: printf '{"crv":"P-256","kty":"EC","x":"…","y":"…"}' | openssl dgst -sha256 -binary | basenc --base64url
        let jwk = Jwk {
            kty: "EC".into(),
            crv: "P-256".into(),
            x: "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4".into(),
            y: "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM".into(),
        };
        assert_eq!(jwk.thumbprint(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
    }
}
