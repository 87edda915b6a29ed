//! The account at the CA: created once, kept by the caller, read again at every start.
//!
//! Arrives: a configuration, or the JSON of an account that was created before. Leaves: an [`AcmeAccount`]: its JSON for a file only its
//! owner reads, its thumbprint for the edge. Goes wrong: an [`AcmeSetupError`]; reading asks nobody, so a CA that is down stops no start.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bundles::Digest;
use instant_acme::{Account, AccountCredentials, Key, NewAccount};
use rcgen::KeyPair;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::client::noting_waits;
use super::config::{AcmeConfig, AcmeSetupError, ExternalAccount};
use super::problems::Said;

/// The size of a point on P-256 as keys carry it: a marker and two coordinates.
const POINT_BYTES: usize = 65;

/// An account at a CA with its private key. Its `Debug` says only which one it is.
#[derive(Clone)]
pub struct AcmeAccount {
    url: String,
    directory_url: String,
    key_pkcs8: Zeroizing<Vec<u8>>,
    thumbprint: String,
    json: Zeroizing<String>,
}

/// The JSON as `instant-acme` writes it.
#[derive(Deserialize)]
struct Stored {
    id: String,
    key_pkcs8: String,
    directory: Option<String>,
}

impl AcmeAccount {
    /// Creates an account at the CA and agrees to its terms; to be called once for an installation, and its [JSON](Self::to_json) kept.
    ///
    /// # Errors
    /// [`AcmeSetupError::Ca`] when the CA refuses or cannot be reached, the other variants when the configuration is at fault.
    pub async fn create(config: &AcmeConfig) -> Result<Self, AcmeSetupError> {
        let client = config.client()?;
        let contact: Vec<_> = config.contact.iter().map(|contact| contact_uri(contact)).collect();
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        let wish = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let external = config.external_account.as_ref().map(ExternalAccount::key);
        let creating = Account::builder_with_http(Box::new(client)).create(&wish, config.directory_url.clone(), external.as_ref());
        Self::created(config, creating).await
    }

    async fn created(
        config: &AcmeConfig,
        creating: impl Future<Output = Result<(Account, AccountCredentials), instant_acme::Error>>,
    ) -> Result<Self, AcmeSetupError> {
        let created = match tokio::time::timeout(config.step_budget, noting_waits(creating)).await {
            Ok(created) => created.map_err(|error| Said::ToRequest.failure()(error).judge(config.clock.now())),
            Err(_) => Err(super::too_slow("creating the account", config.step_budget)),
        };
        let (account, credentials) = created.map_err(AcmeSetupError::Ca)?;
        let json =
            serde_json::to_string(&credentials).map(Zeroizing::new).map_err(|error| AcmeSetupError::Credentials(error.to_string()))?;
        tracing::info!(account = account.id(), "account created");
        Self::from_json(&json)
    }

    /// Creates an account with the key of one at another CA, so that the edge's answers to http-01 challenges fit both: it knows nothing of who
    /// asks but the token. A signature names the URL that it is for, so neither CA can use what it gets at the other (RFC 8555, section 6.4).
    ///
    /// A CA that wants an external account gets a key of its own by [`Self::create`], since the library binds only those that it makes.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_sharing_key(config: &AcmeConfig, other: &Self) -> Result<Self, AcmeSetupError> {
        let refused = |_| AcmeSetupError::Credentials("its key does not sign".to_owned());
        let key = Key::from_pkcs8_der(other.key()).map_err(refused)?;
        let pkcs8 = PrivateKeyDer::Pkcs8(other.key().clone_key());
        let creating = Account::builder_with_http(Box::new(config.client()?)).create_from_key((key, pkcs8), config.directory_url.clone());
        Self::created(config, creating).await
    }

    /// Reads an account that was created before; asks nobody.
    ///
    /// # Errors
    /// [`AcmeSetupError::Credentials`] when it is not the JSON of an account. The text never repeats the key.
    pub fn from_json(json: &str) -> Result<Self, AcmeSetupError> {
        let bad = |what: &str| AcmeSetupError::Credentials(what.to_owned());
        // serde's own words could quote the key.
        let stored: Stored = serde_json::from_str(json).map_err(|error| {
            AcmeSetupError::Credentials(format!("it is not the JSON of an account, see line {} column {}", error.line(), error.column()))
        })?;
        let key_text = Zeroizing::new(stored.key_pkcs8);
        let directory_url = stored.directory.ok_or_else(|| bad("it does not name its CA's directory"))?;
        let key = BASE64_URL_SAFE_NO_PAD.decode(key_text.as_bytes()).map_err(|_| bad("its key is not base64url"))?;
        let key_pkcs8 = Zeroizing::new(key);
        let thumbprint = thumbprint_of(&key_pkcs8).ok_or_else(|| bad("its key is not a PKCS#8 key on P-256"))?;
        Ok(Self { url: stored.id, directory_url, key_pkcs8, thumbprint, json: Zeroizing::new(json.to_owned()) })
    }

    /// The account as JSON, private key included: for a file or secret that only its owner reads.
    pub fn to_json(&self) -> &str {
        &self.json
    }

    /// The account's URL, which CAA records may name.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The directory of the CA that the account is at.
    pub fn directory_url(&self) -> &str {
        &self.directory_url
    }

    /// The key's thumbprint: an edge that knows it answers any http-01 challenge of this account with `<token>.<thumbprint>`.
    ///
    /// Source: RFC 8555, section 8.1; RFC 7638, section 3.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// A copy of the key, which its new owner uses up.
    pub(super) fn key(&self) -> PrivatePkcs8KeyDer<'_> {
        PrivatePkcs8KeyDer::from(self.key_pkcs8.as_slice())
    }
}

impl fmt::Debug for AcmeAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeAccount").field("url", &self.url).field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

/// A contact as ACME wants it: a URI; a bare address is an e-mail's.
fn contact_uri(contact: &str) -> String {
    if contact.contains(':') { contact.to_owned() } else { format!("mailto:{contact}") }
}

fn thumbprint_of(key_pkcs8: &[u8]) -> Option<String> {
    let key = Zeroizing::new(KeyPair::try_from(key_pkcs8).ok()?);
    if *key.algorithm() != rcgen::PKCS_ECDSA_P256_SHA256 {
        return None;
    }
    let point: &[u8; POINT_BYTES] = key.public_key_raw().try_into().ok()?;
    let [x, y] = [&point[1..33], &point[33..]].map(|coordinate| BASE64_URL_SAFE_NO_PAD.encode(coordinate));
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    Some(BASE64_URL_SAFE_NO_PAD.encode(Digest::of(canonical.as_bytes()).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(key: &[u8]) -> String {
        let key = BASE64_URL_SAFE_NO_PAD.encode(key);
        format!(r#"{{"id":"https://ca.test/acct/1","key_pkcs8":"{key}","directory":"https://ca.test/directory"}}"#)
    }

    #[tokio::test]
    async fn the_thumbprint_is_the_one_that_the_acme_client_answers_challenges_with() {
        let key = KeyPair::generate().unwrap();
        let account = AcmeAccount::from_json(&stored(key.serialized_der())).unwrap();
        // With URLs instead of a directory, the client asks nobody.
        let json = serde_json::json!({
            "id": "x", "key_pkcs8": BASE64_URL_SAFE_NO_PAD.encode(key.serialized_der()),
            "urls": { "newNonce": "n", "newAccount": "a", "newOrder": "o" },
        });
        let credentials = serde_json::from_value(json).unwrap();
        let theirs = Account::builder().unwrap().from_credentials(credentials).await.unwrap();
        assert_eq!(account.thumbprint(), theirs.key_thumbprint());
    }

    #[test]
    fn what_is_read_is_given_back_unchanged_and_never_shown() {
        let key = KeyPair::generate().unwrap();
        let json = stored(key.serialized_der());
        let account = AcmeAccount::from_json(&json).unwrap();
        assert_eq!((account.to_json(), account.url()), (json.as_str(), "https://ca.test/acct/1"));
        let secret = BASE64_URL_SAFE_NO_PAD.encode(key.serialized_der());
        assert!(!format!("{account:?}").contains(&secret[60..]));
    }

    #[test]
    fn damaged_credentials_are_refused_without_repeating_the_key() {
        let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let whole = stored(KeyPair::generate().unwrap().serialized_der());
        for (json, reason) in [
            (String::new(), "not the JSON of an account"),
            (whole.replace("\"id\"", "\"name\""), "not the JSON of an account"),
            (whole[..whole.len() - 30].to_owned(), "not the JSON of an account"),
            (whole.replace("directory\":", "d\":"), "does not name its CA's directory"),
            (stored(b"no key"), "not a PKCS#8 key on P-256"),
            (stored(p384.serialized_der()), "not a PKCS#8 key on P-256"),
            (whole.replace("key_pkcs8\":\"", "key_pkcs8\":\"!"), "not base64url"),
        ] {
            let error = AcmeAccount::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("MIGHAgEA"), "{error}");
        }
    }

    #[test]
    fn a_bare_address_becomes_a_mail_uri() {
        assert_eq!(contact_uri("ops@saas.example"), "mailto:ops@saas.example");
        assert_eq!(contact_uri("mailto:ops@saas.example"), "mailto:ops@saas.example");
    }
}
