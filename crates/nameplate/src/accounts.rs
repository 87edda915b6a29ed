//! The accounts at the CAs, and the issuers that use them.
//!
//! Arrives: the configuration, the data folder, and where the first CA is. Leaves: [`Issuers`]. Goes wrong: an account that cannot be made or
//! read, a root or an external account's key that does not read; each named.

use std::{path::Path, sync::Arc, time::Duration};

use domains::{AnswerZone, CaChoice, ChallengeKind, Clock, ZoneSettings};
use issuers::acme::{AcmeAccount, AcmeConfig, AcmeIssuer, ExternalAccount};

use crate::{
    config::{AcmeSettings, Config},
    files,
    product::{StartError, start_failed},
};

/// Where the accounts at the CAs are kept, below the data folder.
const ACCOUNT: &str = "keys/acme-account.json";
const SECOND_ACCOUNT: &str = "keys/acme-account-second.json";

/// How long the first start waits for the CA to make an account.
const ACCOUNT_PATIENCE: Duration = Duration::from_secs(30);

/// Where a CA is, and whom to trust for it beside the machine's roots.
#[derive(Clone, Debug)]
pub(crate) struct CaPlace {
    pub(crate) directory: String,
    pub(crate) root_pem: Option<String>,
}

impl CaPlace {
    /// The place that the settings name.
    pub(crate) fn of(settings: &AcmeSettings) -> Result<Self, StartError> {
        let root_pem = settings.root.as_deref().map(|path| existing("reading the CA's root", path)).transpose()?;
        Ok(Self { directory: settings.directory.clone().unwrap_or_default(), root_pem })
    }
}

/// The issuers at the CAs of an installation.
pub(crate) struct Issuers {
    pub(crate) first: AcmeIssuer,
    pub(crate) second: Option<AcmeIssuer>,
}

/// What issuers work with, beside the configuration.
pub(crate) struct Tools {
    pub(crate) answers: Option<Arc<dyn AnswerZone>>,
    pub(crate) seal_key: bundles::SealPublicKey,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Issuers {
    /// Opens the issuers; accounts that are not there are made. The second CA has an account of its own, made at the first start: in an outage
    /// of the first there may be no time for it.
    pub(crate) async fn open(config: &Config, first_ca: CaPlace, tools: &Tools) -> Result<Self, StartError> {
        let acme = acme_config(&config.acme, first_ca, tools)?;
        let first = with_account(acme, &config.data.join(ACCOUNT), None).await?;
        let Some(settings) = &config.second_ca else { return Ok(Self { first, second: None }) };
        let acme = acme_config(settings, CaPlace::of(settings)?, tools)?;
        // Without an external account it has the first one's key, so that the edge's answers fit both CAs.
        let shared = match (&acme.external_account, files::read(&config.data.join(ACCOUNT))?) {
            (None, Some(json)) => Some(AcmeAccount::from_json(&json).map_err(|error| start_failed("the ACME account")(&error))?),
            _ => None,
        };
        let second = with_account(acme, &config.data.join(SECOND_ACCOUNT), shared.as_ref()).await?;
        Ok(Self { first, second: Some(second) })
    }

    /// What the edge must know to answer the challenges of all of them.
    pub(crate) fn thumbprints(&self) -> Vec<String> {
        let mut thumbprints: Vec<String> =
            std::iter::once(&self.first).chain(&self.second).map(|issuer| issuer.thumbprint().to_owned()).collect();
        thumbprints.dedup();
        thumbprints
    }
}

impl Issuers {
    /// The zone with the CAs as CAA records would name them, our account at each. A second CA whose account has a key of its own is shown no
    /// http-01 challenge, since the edge answers with the first one's.
    pub(crate) fn named_in(&self, zone: &ZoneSettings) -> ZoneSettings {
        let mut zone = zone.clone();
        for ca in &mut zone.issuers {
            let account = match ca.ca {
                CaChoice::First => Some(&self.first),
                CaChoice::Second => self.second.as_ref(),
            };
            ca.account_uri = account.map(|issuer| issuer.account_url().to_owned());
            if account.is_some_and(|issuer| issuer.thumbprint() != self.first.thumbprint()) {
                ca.methods.retain(|method| method != ChallengeKind::Http01.as_str());
            }
        }
        zone
    }
}

fn acme_config(settings: &AcmeSettings, place: CaPlace, tools: &Tools) -> Result<AcmeConfig, StartError> {
    let mut acme = AcmeConfig::new(place.directory, tools.seal_key.clone(), tools.clock.clone());
    acme.extra_root_pem = place.root_pem;
    acme.profile = settings.profile.clone();
    acme.contact = settings.contact.clone();
    acme.answers = tools.answers.clone();
    acme.external_account = match &settings.external_account {
        Some((key_id, path)) => {
            let hmac = existing("reading the external account's key", path)?;
            Some(ExternalAccount::parse(key_id, &hmac).map_err(|error| start_failed("the external account")(&error))?)
        }
        None => None,
    };
    Ok(acme)
}

fn existing(what: &'static str, path: &Path) -> Result<String, StartError> {
    files::read(path)?.ok_or_else(|| StartError::Start { what, detail: format!("{} does not exist", path.display()) })
}

/// Opens the issuer with the account in the file, which is made first where there is none.
async fn with_account(acme: AcmeConfig, path: &Path, shares_key_with: Option<&AcmeAccount>) -> Result<AcmeIssuer, StartError> {
    let credentials = match files::read(path)? {
        Some(json) => json,
        None => {
            let creating = async {
                match shares_key_with {
                    Some(other) => AcmeAccount::create_sharing_key(&acme, other).await,
                    None => AcmeAccount::create(&acme).await,
                }
            };
            let account = tokio::time::timeout(ACCOUNT_PATIENCE, creating).await;
            let account = account
                .map_err(|_| StartError::Start { what: "making an ACME account", detail: "the CA did not answer in time".into() })?
                .map_err(|error| start_failed("making an ACME account")(&error))?;
            files::write_secret(path, account.to_json().as_bytes())?;
            account.to_json().to_owned()
        }
    };
    AcmeIssuer::open(acme, &credentials).map_err(|error| start_failed("the ACME issuer")(&error))
}
