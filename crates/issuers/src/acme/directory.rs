//! What a CA says of itself, and of our account there: for whoever sets an installation up or looks after it.
//!
//! Arrives: an [`AcmeConfig`]. Leaves: a [`CaDirectory`]; whether an account is good. Goes wrong: an [`AcmeSetupError`]; nothing is changed at
//! the CA.

use http::header::DATE;
use http::{Method, Request};
use instant_acme::{Account, BodyWrapper, HttpClient, Key};
use jiff::Timestamp;
use rustls_pki_types::PrivateKeyDer;
use serde::Deserialize;

use super::account::AcmeAccount;
use super::client::noting_waits;
use super::config::{AcmeConfig, AcmeSetupError};
use super::problems::Said;
use super::{FRESH_NONCES, past_bad_nonces, problems::is_bad_nonce};

/// A CA's directory, as far as people need to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaDirectory {
    /// Where its terms of service stand.
    pub terms_of_service: Option<String>,
    /// The names by which CAA records allow it.
    pub caa_identities: Vec<String>,
    /// What its clock said when it answered; `None` when it did not say.
    pub date: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    terms_of_service: Option<String>,
    #[serde(default)]
    caa_identities: Vec<String>,
}

impl CaDirectory {
    /// Asks the CA for its directory.
    ///
    /// # Errors
    /// [`AcmeSetupError::Ca`] when it cannot be reached or answers something else, the other variants when the configuration is at fault.
    pub async fn ask(config: &AcmeConfig) -> Result<Self, AcmeSetupError> {
        let client = config.client()?;
        let judge = |error| AcmeSetupError::Ca(Said::ToRequest.failure()(error).judge(config.clock.now()));
        let request = Request::builder().method(Method::GET).uri(&config.directory_url).body(BodyWrapper::default());
        let request = request.map_err(|_| AcmeSetupError::BadDirectory(config.directory_url.clone()))?;
        let mut answer = noting_waits(client.request(request)).await.map_err(judge)?;
        let date = answer.parts.headers.get(DATE).and_then(|date| date.to_str().ok()).and_then(|date| httpdate::parse_http_date(date).ok());
        let body = answer.body.into_bytes().await.map_err(|error| judge(instant_acme::Error::Other(error)))?;
        let Listed { meta } = serde_json::from_slice(&body).map_err(|error| judge(error.into()))?;
        let Meta { terms_of_service, caa_identities } = meta;
        Ok(Self { terms_of_service, caa_identities, date: date.and_then(|date| Timestamp::try_from(date).ok()) })
    }
}

impl AcmeAccount {
    /// Asks the CA whether it still knows this account, by its key.
    ///
    /// # Errors
    /// [`AcmeSetupError::Ca`] when it does not, or when it cannot be asked.
    pub async fn check(&self, config: &AcmeConfig) -> Result<(), AcmeSetupError> {
        let refused = |_| AcmeSetupError::Credentials("its key does not sign".to_owned());
        let asked = noting_waits(async {
            past_bad_nonces!(async {
                let key = Key::from_pkcs8_der(self.key())?;
                let client = config.client().map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
                let pkcs8 = PrivateKeyDer::Pkcs8(self.key().clone_key());
                Account::builder_with_http(Box::new(client)).from_key((key, pkcs8), config.directory_url.clone()).await
            })
        });
        Key::from_pkcs8_der(self.key()).map_err(refused)?;
        match tokio::time::timeout(config.step_budget, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(AcmeSetupError::Ca(Said::ToRequest.failure()(error).judge(config.clock.now()))),
            Err(_) => Err(AcmeSetupError::Ca(super::too_slow("asking for the account", config.step_budget))),
        }
    }
}
