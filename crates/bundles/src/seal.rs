//! Sealing a private key so that only the edge can open it, and only for the name, tenant and public key it was made for.
//!
//! Arrives: a PKCS#8 private key at the issuer, a [`SealedKey`] at the edge. Leaves: the other one of the two. Goes wrong: a
//! sealed key for a seal key we do not hold, or one that was altered or moved to another name ([`BundleError::Unsealable`]).
//!
//! HPKE base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM; the additional data is
//! `hostname | tenant | SHA-256 of the SubjectPublicKeyInfo`.

use std::{collections::BTreeMap, fmt};

use domains::{Hostname, TenantId};
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    BundleError, Digest,
    encoding::{base64_bytes, secret_bytes},
};

/// Separates our sealed keys from anything else ever sealed to the same key pair.
const INFO: &[u8] = b"nameplate sealed private key v1";

/// A private key only the edge can open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedKey {
    /// Which seal key it is sealed to.
    pub seal_key_id: String,
    /// The encapsulated shared secret.
    #[serde(with = "base64_bytes")]
    pub enc: Vec<u8>,
    /// The key, encrypted and authenticated.
    #[serde(with = "base64_bytes")]
    pub ciphertext: Vec<u8>,
}

/// The half of a seal key that issuers hold: it can seal and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealPublicKey {
    /// Names the key pair in every sealed key.
    pub id: String,
    /// The X25519 public key.
    #[serde(with = "base64_bytes")]
    pub bytes: Vec<u8>,
}

impl SealPublicKey {
    /// Seals a PKCS#8 private key for one hostname of one tenant and one public key.
    ///
    /// # Errors
    /// [`BundleError::BadSealKey`] when these bytes are no X25519 public key.
    pub fn seal(
        &self,
        hostname: &Hostname,
        tenant: &TenantId,
        spki_sha256: &[u8; 32],
        private_key_pkcs8: &[u8],
    ) -> Result<SealedKey, BundleError> {
        self.seal_bytes(INFO, &additional_data(hostname, tenant, spki_sha256), private_key_pkcs8)
    }

    /// Seals a secret for one purpose (`info`) and bound to `aad`.
    pub(crate) fn seal_bytes(&self, info: &[u8], aad: &[u8], secret: &[u8]) -> Result<SealedKey, BundleError> {
        let to = HpkePublicKey(self.bytes.clone());
        let (enc, ciphertext) = suite()
            .seal(info, aad, secret, &to)
            .map_err(|_| BundleError::BadSealKey { seal_key_id: self.id.clone(), problem: "it is not an X25519 public key" })?;
        Ok(SealedKey { seal_key_id: self.id.clone(), enc: enc.0, ciphertext })
    }
}

/// A seal key with both halves. Its `Debug` says only which one it is.
pub struct SealKeyPair {
    public: SealPublicKey,
    private: HpkePrivateKey,
}

/// The file form of a [`SealKeyPair`]; the file must be readable by its owner only.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealKeyFile {
    seal_key_id: String,
    #[serde(with = "base64_bytes")]
    public: Vec<u8>,
    #[serde(with = "secret_bytes")]
    private: Zeroizing<Vec<u8>>,
}

impl SealKeyPair {
    /// Makes a new key pair; its id follows from its public key.
    ///
    /// # Errors
    /// [`BundleError::BadSealKey`] when the machine gives no randomness.
    pub fn generate() -> Result<Self, BundleError> {
        let (public, private) = suite()
            .generate_key_pair()
            .map_err(|_| BundleError::BadSealKey { seal_key_id: "new".to_owned(), problem: "the machine gave no randomness" })?;
        let mut id = Digest::of(&public.0).to_string();
        id.truncate(16);
        Ok(Self { public: SealPublicKey { id, bytes: public.0 }, private })
    }

    /// The half that issuers may have.
    pub fn public(&self) -> &SealPublicKey {
        &self.public
    }

    /// The id sealed keys name.
    pub fn id(&self) -> &str {
        &self.public.id
    }

    /// Writes the file form, private half included.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let file = SealKeyFile {
            seal_key_id: self.public.id.clone(),
            public: self.public.bytes.clone(),
            private: Zeroizing::new(self.private.secret_bytes().to_vec()),
        };
        Zeroizing::new(crate::encoding::write(&file))
    }

    /// Reads the file form and checks that the two halves belong together.
    ///
    /// # Errors
    /// [`BundleError::NotJson`] or [`BundleError::Truncated`] for other bytes, [`BundleError::BadSealKey`] when the halves differ.
    pub fn from_json(bytes: &[u8]) -> Result<Self, BundleError> {
        let file: SealKeyFile = serde_json::from_slice(bytes).map_err(|error| match error.is_eof() {
            true => BundleError::Truncated { bytes: bytes.len() },
            false => BundleError::NotJson(error),
        })?;
        let pair = Self {
            public: SealPublicKey { id: file.seal_key_id, bytes: file.public },
            private: HpkePrivateKey::from(file.private.to_vec()),
        };
        pair.check_halves()?;
        Ok(pair)
    }

    /// Opens a key sealed to this pair for exactly this hostname, tenant and public key.
    ///
    /// # Errors
    /// [`BundleError::UnknownSealKey`] when it is sealed to another pair, [`BundleError::Unsealable`] when it does not open.
    pub fn open(
        &self,
        sealed: &SealedKey,
        hostname: &Hostname,
        tenant: &TenantId,
        spki_sha256: &[u8; 32],
    ) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        self.open_bytes(sealed, INFO, &additional_data(hostname, tenant, spki_sha256))
    }

    fn open_bytes(&self, sealed: &SealedKey, info: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        if sealed.seal_key_id != self.public.id {
            return Err(BundleError::UnknownSealKey { seal_key_id: sealed.seal_key_id.clone() });
        }
        let enc = EncapsulatedSecret(sealed.enc.clone());
        suite()
            .open(&enc, info, aad, &sealed.ciphertext, &self.private)
            .map(Zeroizing::new)
            .map_err(|_| BundleError::Unsealable { seal_key_id: sealed.seal_key_id.clone() })
    }

    /// Seals and opens a probe: the only way to see with HPKE alone that two halves are a pair.
    fn check_halves(&self) -> Result<(), BundleError> {
        let bad = |problem| BundleError::BadSealKey { seal_key_id: self.public.id.clone(), problem };
        let to = HpkePublicKey(self.public.bytes.clone());
        let (enc, ciphertext) = suite().seal(INFO, b"probe", b"probe", &to).map_err(|_| bad("it is not an X25519 public key"))?;
        suite()
            .open(&enc, INFO, b"probe", &ciphertext, &self.private)
            .map(|_| ())
            .map_err(|_| bad("its public and private halves do not belong together"))
    }
}

impl fmt::Debug for SealKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKeyPair").field("id", &self.public.id).finish_non_exhaustive()
    }
}

/// The seal keys an edge holds: the current one and, while keys are being rotated, earlier ones.
#[derive(Debug, Default)]
pub struct SealKeys(BTreeMap<String, SealKeyPair>);

impl SealKeys {
    /// Adds a pair; one with the same id is replaced.
    pub fn insert(&mut self, pair: SealKeyPair) {
        self.0.insert(pair.public.id.clone(), pair);
    }

    /// Whether no key can be opened at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Opens a sealed key with the pair it names.
    ///
    /// # Errors
    /// Those of [`SealKeyPair::open`].
    pub fn open(
        &self,
        sealed: &SealedKey,
        hostname: &Hostname,
        tenant: &TenantId,
        spki_sha256: &[u8; 32],
    ) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        self.pair_of(sealed)?.open(sealed, hostname, tenant, spki_sha256)
    }

    /// Opens a secret sealed for one purpose (`info`) and bound to `aad`.
    pub(crate) fn open_bytes(&self, sealed: &SealedKey, info: &[u8], aad: &[u8]) -> Result<Zeroizing<Vec<u8>>, BundleError> {
        self.pair_of(sealed)?.open_bytes(sealed, info, aad)
    }

    fn pair_of(&self, sealed: &SealedKey) -> Result<&SealKeyPair, BundleError> {
        self.0.get(&sealed.seal_key_id).ok_or_else(|| BundleError::UnknownSealKey { seal_key_id: sealed.seal_key_id.clone() })
    }
}

impl FromIterator<SealKeyPair> for SealKeys {
    fn from_iter<I: IntoIterator<Item = SealKeyPair>>(pairs: I) -> Self {
        let mut keys = Self::default();
        pairs.into_iter().for_each(|pair| keys.insert(pair));
        keys
    }
}

fn suite() -> &'static dyn Hpke {
    DH_KEM_X25519_HKDF_SHA256_AES_256
}

/// `hostname | tenant | SPKI digest`: neither a hostname nor a tenant can contain `|`, so no two triples are written alike.
fn additional_data(hostname: &Hostname, tenant: &TenantId, spki_sha256: &[u8; 32]) -> Vec<u8> {
    [hostname.as_str().as_bytes(), b"|", tenant.as_str().as_bytes(), b"|", spki_sha256].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (Hostname, TenantId) {
        (Hostname::parse_name("shop.brand.com").unwrap(), TenantId::parse("acme").unwrap())
    }

    #[test]
    fn a_sealed_key_opens_for_its_own_name_tenant_and_public_key_only() {
        let pair = SealKeyPair::generate().unwrap();
        let (hostname, tenant) = names();
        let sealed = pair.public().seal(&hostname, &tenant, &[7; 32], b"the private key").unwrap();
        assert_eq!(pair.open(&sealed, &hostname, &tenant, &[7; 32]).unwrap().as_slice(), b"the private key");

        let other_name = Hostname::parse_name("shop.other.com").unwrap();
        let other_tenant = TenantId::parse("other").unwrap();
        for (what, opened) in [
            ("hostname", pair.open(&sealed, &other_name, &tenant, &[7; 32])),
            ("tenant", pair.open(&sealed, &hostname, &other_tenant, &[7; 32])),
            ("public key", pair.open(&sealed, &hostname, &tenant, &[8; 32])),
        ] {
            assert_eq!(opened.unwrap_err().reason(), "unsealable", "{what}");
        }
    }

    #[test]
    fn an_altered_sealed_key_does_not_open() {
        let pair = SealKeyPair::generate().unwrap();
        let (hostname, tenant) = names();
        let sealed = pair.public().seal(&hostname, &tenant, &[7; 32], b"the private key").unwrap();
        for position in 0..sealed.ciphertext.len() {
            let mut altered = sealed.clone();
            altered.ciphertext[position] ^= 1;
            assert_eq!(pair.open(&altered, &hostname, &tenant, &[7; 32]).unwrap_err().reason(), "unsealable");
        }
        for enc in [vec![], vec![0; 31], vec![0; 32], vec![9; 64]] {
            let altered = SealedKey { enc, ..sealed.clone() };
            assert_eq!(pair.open(&altered, &hostname, &tenant, &[7; 32]).unwrap_err().reason(), "unsealable");
        }
    }

    #[test]
    fn keys_sealed_before_a_rotation_still_open_and_foreign_ones_are_named() {
        let (old, new, foreign) = (SealKeyPair::generate().unwrap(), SealKeyPair::generate().unwrap(), SealKeyPair::generate().unwrap());
        let (hostname, tenant) = names();
        let [by_old, by_new, by_foreign] =
            [&old, &new, &foreign].map(|pair| pair.public().seal(&hostname, &tenant, &[7; 32], b"key").unwrap());
        let keys: SealKeys = [old, new].into_iter().collect();
        for sealed in [by_old, by_new] {
            assert_eq!(keys.open(&sealed, &hostname, &tenant, &[7; 32]).unwrap().as_slice(), b"key");
        }
        assert_eq!(keys.open(&by_foreign, &hostname, &tenant, &[7; 32]).unwrap_err().reason(), "unknown_seal_key");
    }

    #[test]
    fn the_file_form_reads_back_and_mixed_halves_are_refused() {
        let (pair, other) = (SealKeyPair::generate().unwrap(), SealKeyPair::generate().unwrap());
        let read = SealKeyPair::from_json(&pair.to_json()).unwrap();
        let (hostname, tenant) = names();
        let sealed = pair.public().seal(&hostname, &tenant, &[7; 32], b"key").unwrap();
        assert_eq!(read.open(&sealed, &hostname, &tenant, &[7; 32]).unwrap().as_slice(), b"key");

        let mixed = SealKeyPair { public: other.public.clone(), private: HpkePrivateKey::from(pair.private.secret_bytes().to_vec()) };
        assert_eq!(SealKeyPair::from_json(&mixed.to_json()).unwrap_err().reason(), "bad_seal_key");
        assert_eq!(SealKeyPair::from_json(b"{\"seal_key_id\":").unwrap_err().reason(), "truncated");
    }

    #[test]
    fn debug_output_never_shows_the_private_half() {
        let pair = SealKeyPair::generate().unwrap();
        let id = pair.id().to_owned();
        let keys: SealKeys = [pair].into_iter().collect();
        assert_eq!(format!("{keys:?}"), format!("SealKeys({{{id:?}: SealKeyPair {{ id: {id:?}, .. }}}})"));
    }
}
