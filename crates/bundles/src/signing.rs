//! The keys that sign tenant assertions: made by the pipeline, opened only by the edge, published for whoever verifies.
//!
//! Arrives: a new P-256 key at the pipeline, a [`SigningKey`] of `edge.json` at the edge. Leaves: the sealed key, the opened key, or the JSON
//! Web Key Set (RFC 7517) that an origin verifies with. Goes wrong: a key for a seal key we do not hold, or one that was altered.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{BundleError, SealKeys, SealPublicKey, SealedKey, UnixSeconds, encoding::base64_bytes};

/// Separates these from site keys sealed to the same key pair.
const INFO: &[u8] = b"nameplate sealed signing key v1";

/// A coordinate of a point on P-256, in bytes; a point is `0x04`, x, y.
///
/// Source: SEC 1, section 2.3.3.
const COORDINATE_BYTES: usize = 32;

/// A key that signs tenant assertions from some time on, until a later one takes over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKey {
    /// Names the key in every assertion: the RFC 7638 thumbprint of its public half.
    pub kid: String,
    /// When the edge begins to sign with it.
    pub sign_from: UnixSeconds,
    /// The uncompressed point on P-256.
    #[serde(with = "base64_bytes")]
    pub public_key: Vec<u8>,
    /// The PKCS#8 private half.
    pub sealed_key: SealedKey,
}

impl SigningKey {
    /// Seals a new key.
    ///
    /// # Errors
    /// [`BundleError::BadSealKey`] when there is no X25519 public key to seal to, [`BundleError::BadKey`] when `public_key` is no uncompressed
    /// point of P-256.
    pub fn seal(to: &SealPublicKey, private_key_pkcs8: &[u8], public_key: &[u8], sign_from: UnixSeconds) -> Result<Self, BundleError> {
        let kid = thumbprint(public_key)
            .ok_or_else(|| BundleError::BadKey(rustls::Error::General("no uncompressed point of P-256".to_owned())))?;
        let sealed_key = to.seal_bytes(INFO, &additional_data(&kid, public_key), private_key_pkcs8)?;
        Ok(Self { kid, sign_from, public_key: public_key.to_vec(), sealed_key })
    }

    /// The PKCS#8 private half.
    ///
    /// # Errors
    /// [`BundleError::UnknownSealKey`] when it is sealed to another pair, [`BundleError::Unsealable`] when id or public half are not its own.
    pub fn open(&self, seal_keys: &SealKeys) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        seal_keys.open_bytes(&self.sealed_key, INFO, &additional_data(&self.kid, &self.public_key))
    }
}

/// The key that signs at this time: the latest whose time has come, or the first of all before that.
pub fn signing_at<T>(keys: &[T], now: UnixSeconds, sign_from: impl Fn(&T) -> UnixSeconds) -> Option<&T> {
    let begun = keys.iter().filter(|key| sign_from(key) <= now).max_by_key(|key| sign_from(key));
    begun.or_else(|| keys.iter().min_by_key(|key| sign_from(key)))
}

/// The public halves as a JSON Web Key Set.
///
/// Source: RFC 7517, section 5; RFC 7518, section 6.2.1.
pub fn jwks(keys: &[SigningKey]) -> String {
    let keys: Vec<_> = keys
        .iter()
        .filter_map(|key| {
            let (x, y) = coordinates(&key.public_key)?;
            Some(serde_json::json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": key.kid, "x": x, "y": y}))
        })
        .collect();
    serde_json::json!({ "keys": keys }).to_string()
}

/// `kid | public key`: a base64url id has no `|`.
fn additional_data(kid: &str, public_key: &[u8]) -> Vec<u8> {
    [kid.as_bytes(), b"|", public_key].concat()
}

/// Source: RFC 7638, section 3: the required members in lexical order, without spaces.
fn thumbprint(public_key: &[u8]) -> Option<String> {
    let (x, y) = coordinates(public_key)?;
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    Some(URL_SAFE_NO_PAD.encode(Sha256::digest(members)))
}

fn coordinates(public_key: &[u8]) -> Option<(String, String)> {
    let point = public_key.strip_prefix(&[4]).filter(|point| point.len() == 2 * COORDINATE_BYTES)?;
    let (x, y) = point.split_at(COORDINATE_BYTES);
    Some((URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EdgeSettings, SealKeyPair};

    fn point(byte: u8) -> Vec<u8> {
        [vec![4], vec![byte; 2 * COORDINATE_BYTES]].concat()
    }

    #[test]
    fn a_sealed_signing_key_opens_with_its_own_id_and_public_half_only() {
        let pair = SealKeyPair::generate().unwrap();
        let key = SigningKey::seal(pair.public(), b"secret", &point(1), 5).unwrap();
        let other = SigningKey::seal(pair.public(), b"secret", &point(2), 5).unwrap();
        let keys: SealKeys = [pair].into_iter().collect();
        assert_eq!(key.open(&keys).unwrap().as_slice(), b"secret");
        for moved in [SigningKey { kid: other.kid.clone(), ..key.clone() }, SigningKey { public_key: other.public_key, ..key.clone() }] {
            assert_eq!(moved.open(&keys).unwrap_err().reason(), "unsealable");
        }
        let foreign: SealKeys = [SealKeyPair::generate().unwrap()].into_iter().collect();
        assert_eq!(key.open(&foreign).unwrap_err().reason(), "unknown_seal_key");
    }

    #[test]
    fn the_key_set_shows_every_public_half_and_nothing_sealed() {
        let pair = SealKeyPair::generate().unwrap();
        let keys = [1, 2].map(|byte| SigningKey::seal(pair.public(), b"secret", &point(byte), 5).unwrap());
        let shown = jwks(&keys);
        let set: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(set["keys"].as_array().unwrap().len(), 2);
        assert_eq!(set["keys"][1]["kid"], keys[1].kid.as_str());
        assert!(!shown.contains("sealed") && !shown.contains("\"d\""));
    }

    #[test]
    fn a_key_signs_from_its_time_until_the_next_ones() {
        let at = |now| signing_at(&[10, 20], now, |&from| from).copied();
        assert_eq!([5, 10, 19, 20, 90].map(at), [10, 10, 10, 20, 20].map(Some));
        assert_eq!(signing_at(&[], 1, |&from| from), None);
    }

    #[test]
    fn settings_written_before_there_were_signing_keys_still_read() {
        let read = EdgeSettings::from_bytes(br#"{"format":1,"generation":3,"challenge_thumbprints":["a"]}"#).unwrap();
        assert!(read.signing_keys.is_empty());
    }
}
