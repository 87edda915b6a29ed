//! What one has to say to use a CA.
//!
//! Arrives: an [`AcmeConfig`]. Leaves: a client that trusts the right roots. Goes wrong: an [`AcmeSetupError`], before anything is asked.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bundles::SealPublicKey;
use domains::{AnswerZone, Clock, IssueError};
use http::Uri;
use instant_acme::ExternalAccountKey;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use zeroize::Zeroizing;

use super::check::anchors_of;
use super::client::CaClient;

/// The profile that is ordered unless configured otherwise: smaller certificates, and a lifetime that does not change under us.
/// Source: docs/profiles of Let's Encrypt (read 2026-11).
const USUAL_PROFILE: &str = "tlsserver";
/// How long a CA may take for one answer. Our choice: a silent CA must leave most of the budget to the requests after it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one operation may take; with the request under way it stays below the lease of an order, `IssuancePolicy::lease`.
const STEP_BUDGET: Duration = Duration::from_secs(25);
/// The first wait between two looks at an order; a CA that needs longer says so.
const POLL_INITIAL: Duration = Duration::from_millis(100);

/// What one has to say to use a CA.
#[derive(Clone)]
pub struct AcmeConfig {
    /// The CA's directory, `https://` only.
    pub directory_url: String,
    /// Roots in PEM, one or more, trusted *instead of* the machine's: for the CA's own HTTPS, and a chain it issues must lead to one of them.
    /// For CAs on one's own machine.
    pub extra_root_pem: Option<String>,
    /// Who the CA may write to, an e-mail address or a URI; may be empty.
    pub contact: Option<String>,
    /// What private keys are sealed to.
    pub seal_key: SealPublicKey,
    /// The certificate profile to order, where the directory lists it; the CA's usual one otherwise.
    pub profile: Option<String>,
    /// What the CA knows its customer by, where it wants to (RFC 8555, section 7.3.4); used once, when the account is made.
    pub external_account: Option<ExternalAccount>,
    /// Where dns-01 challenges are answered; without it names that need one are not ordered.
    pub answers: Option<Arc<dyn AnswerZone>>,
    /// How long each request may take, connecting included.
    pub request_timeout: Duration,
    /// How long one operation may go on asking; it returns within this and one more `request_timeout`.
    pub step_budget: Duration,
    /// The first wait between two looks at an order; later ones are longer.
    pub poll_initial: Duration,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

/// A customer's account at a CA that asks for one, as the CA's own pages show it.
#[derive(Clone)]
pub struct ExternalAccount {
    /// The key's identifier.
    pub key_id: String,
    /// The HMAC key.
    hmac: Zeroizing<Vec<u8>>,
}

impl ExternalAccount {
    /// Reads the HMAC key as CAs print it: base64url, padded or not.
    ///
    /// # Errors
    /// [`AcmeSetupError::ExternalAccount`] when it is not that. The text never repeats the key.
    pub fn parse(key_id: &str, hmac: &str) -> Result<Self, AcmeSetupError> {
        let bad = |what| AcmeSetupError::ExternalAccount(what);
        if key_id.trim().is_empty() {
            return Err(bad("its key identifier is empty"));
        }
        let text = hmac.trim().trim_end_matches('=');
        let hmac = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| bad("its HMAC key is not base64url"))?;
        if hmac.is_empty() {
            return Err(bad("its HMAC key is empty"));
        }
        Ok(Self { key_id: key_id.trim().to_owned(), hmac: Zeroizing::new(hmac) })
    }

    pub(super) fn key(&self) -> ExternalAccountKey {
        ExternalAccountKey::new(self.key_id.clone(), &self.hmac)
    }
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExternalAccount({})", self.key_id)
    }
}

impl AcmeConfig {
    /// A configuration with the usual times and profile, the machine's roots, no contact and no answer zone.
    pub fn new(directory_url: impl Into<String>, seal_key: SealPublicKey, clock: Arc<dyn Clock>) -> Self {
        Self {
            directory_url: directory_url.into(),
            extra_root_pem: None,
            contact: None,
            seal_key,
            profile: Some(USUAL_PROFILE.to_owned()),
            external_account: None,
            answers: None,
            request_timeout: REQUEST_TIMEOUT,
            step_budget: STEP_BUDGET,
            poll_initial: POLL_INITIAL,
            clock,
        }
    }

    /// The client for this CA.
    pub(super) fn client(&self) -> Result<CaClient, AcmeSetupError> {
        host_of(&self.directory_url)?;
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(AcmeSetupError::Tls)?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        Ok(CaClient::new(tls, self.request_timeout, Arc::clone(&self.clock)))
    }

    /// Where a chain must lead; empty when any will do that holds together, as with public CAs, whose roots our clients judge.
    pub(super) fn anchors(&self) -> Result<Vec<TrustAnchor<'static>>, AcmeSetupError> {
        anchors_of(&self.own_roots()?).map_err(|error| AcmeSetupError::BadRoot(error.to_string()))
    }

    fn roots(&self) -> Result<RootCertStore, AcmeSetupError> {
        let mut store = RootCertStore::empty();
        for root in self.own_roots()? {
            store.add(root).map_err(|error| AcmeSetupError::BadRoot(error.to_string()))?;
        }
        if self.extra_root_pem.is_some() {
            return Ok(store);
        }
        let found = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let reason = found.errors.first().map_or_else(|| "its trust store is empty".to_owned(), ToString::to_string);
            return Err(AcmeSetupError::NoRoots(reason));
        }
        Ok(store)
    }

    fn own_roots(&self) -> Result<Vec<CertificateDer<'static>>, AcmeSetupError> {
        let Some(pem) = &self.extra_root_pem else { return Ok(Vec::new()) };
        let roots: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|error| AcmeSetupError::BadRoot(error.to_string()))?;
        if roots.is_empty() {
            return Err(AcmeSetupError::BadRoot("there is no certificate in it".into()));
        }
        Ok(roots)
    }
}

/// Why a CA cannot be used as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcmeSetupError {
    /// The configured root is none.
    #[error("the CA's root is not a PEM certificate: {0}")]
    BadRoot(String),
    /// The machine trusts nobody.
    #[error("this machine has no root certificates to know the CA by: {0}. Install the ca-certificates package, or set SSL_CERT_FILE")]
    NoRoots(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The directory's URL is not usable.
    #[error("`{0}` is not the URL of an ACME directory; it begins with https://")]
    BadDirectory(String),
    /// The external account cannot be used.
    #[error("the external account for the CA cannot be used: {0}")]
    ExternalAccount(&'static str),
    /// The stored account cannot be read.
    #[error("the stored ACME account cannot be read: {0}")]
    Credentials(String),
    /// The stored account is at another CA.
    #[error("the stored ACME account is at {stored}, but the configured CA is {configured}; create an account there")]
    OtherCa {
        /// The directory of the account's CA.
        stored: String,
        /// The configured directory.
        configured: String,
    },
    /// The CA refused, or could not be reached.
    #[error("the CA did not do what was asked")]
    Ca(#[source] IssueError),
}

/// The host of a directory's URL.
pub(super) fn host_of(directory_url: &str) -> Result<String, AcmeSetupError> {
    let bad = || AcmeSetupError::BadDirectory(directory_url.to_owned());
    let uri: Uri = directory_url.parse().map_err(|_| bad())?;
    match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(host)) => Ok(host.to_ascii_lowercase()),
        _ => Err(bad()),
    }
}
