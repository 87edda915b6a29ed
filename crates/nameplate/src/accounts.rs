//! The accounts at the CAs, and the issuers that use them.
//!
//! Arrives: the configuration, the data folder, and where the first CA is. Leaves: accounts in files that only their owner reads, and
//! [`Issuers`] with them. Goes wrong: an account that is missing, cannot be made or does not read, a root or an external account's key that
//! does not read; each named.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bundles::SealPublicKey;
use domains::{AnswerZone, Clock, ZoneSettings};
use issuers::acme::{AcmeAccount, AcmeConfig, AcmeIssuer, ExternalAccount};

use crate::{
    config::{AcmeSettings, Config},
    files,
    product::{StartError, start_failed},
};

/// Where the accounts at the CAs are kept, below the data folder.
const ACCOUNT: &str = "keys/acme-account.json";
const SECOND_ACCOUNT: &str = "keys/acme-account-second.json";

/// How long making an account may take.
const ACCOUNT_PATIENCE: Duration = Duration::from_secs(30);

/// Where a CA is, and whom to trust for it instead of the machine's roots.
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

/// A CA as it is configured, and where its account is kept.
pub(crate) struct Ca {
    pub(crate) acme: AcmeConfig,
    pub(crate) file: PathBuf,
}

/// The CAs of an installation.
pub(crate) struct Cas {
    pub(crate) first: Ca,
    pub(crate) second: Option<Ca>,
}

/// The issuers at these CAs.
pub(crate) struct Issuers {
    pub(crate) first: AcmeIssuer,
    pub(crate) second: Option<AcmeIssuer>,
}

impl Cas {
    /// Reads what the configuration names; asks nobody.
    pub(crate) fn configured(
        config: &Config,
        first: CaPlace,
        seal_key: &SealPublicKey,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let ca = |settings: &AcmeSettings, place: CaPlace, file: &str| -> Result<Ca, StartError> {
            Ok(Ca { acme: acme_config(settings, place, seal_key, clock)?, file: config.data.join(file) })
        };
        let second = config.second_ca.as_ref().map(|settings| ca(settings, CaPlace::of(settings)?, SECOND_ACCOUNT)).transpose()?;
        Ok(Self { first: ca(&config.acme, first, ACCOUNT)?, second })
    }

    /// Makes the accounts that are not there. The second CA has one of its own from the beginning: in an outage of the first there may be no
    /// time for it.
    pub(crate) async fn make_missing_accounts(&self) -> Result<(), StartError> {
        let first = match self.first.account()? {
            Some(account) => account,
            None => self.first.make_account(None).await?,
        };
        match &self.second {
            Some(second) if second.account()?.is_none() => {
                // Without an external account it has the first one's key, so that the edge's answers fit both CAs.
                let shared = second.acme.external_account.is_none().then_some(&first);
                second.make_account(shared).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Opens the issuers with the accounts that are there; `answers` is where dns-01 challenges are answered.
    pub(crate) fn open(self, answers: Option<&Arc<dyn AnswerZone>>) -> Result<Issuers, StartError> {
        let second = self.second.map(|second| second.open(answers)).transpose()?;
        Ok(Issuers { first: self.first.open(answers)?, second })
    }

    /// Both, or the one.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Ca> {
        std::iter::once(&self.first).chain(&self.second)
    }
}

impl Ca {
    /// The account that was made before, if one was.
    pub(crate) fn account(&self) -> Result<Option<AcmeAccount>, StartError> {
        let Some(json) = files::read(&self.file)? else { return Ok(None) };
        AcmeAccount::from_json(&json).map(Some).map_err(|error| start_failed("the ACME account")(&error))
    }

    async fn make_account(&self, shares_key_with: Option<&AcmeAccount>) -> Result<AcmeAccount, StartError> {
        let creating = async {
            match shares_key_with {
                Some(other) => AcmeAccount::create_sharing_key(&self.acme, other).await,
                None => AcmeAccount::create(&self.acme).await,
            }
        };
        let account = tokio::time::timeout(ACCOUNT_PATIENCE, creating)
            .await
            .map_err(|_| StartError::Start { what: "making an ACME account", detail: "the CA did not answer in time".into() })?
            .map_err(|error| start_failed("making an ACME account")(&error))?;
        files::write_secret(&self.file, account.to_json().as_bytes())?;
        Ok(account)
    }

    fn open(mut self, answers: Option<&Arc<dyn AnswerZone>>) -> Result<AcmeIssuer, StartError> {
        let Some(json) = files::read(&self.file)? else {
            let detail = format!("there is no account in {}; `nameplate setup` makes one", self.file.display());
            return Err(StartError::Start { what: "the ACME issuer", detail });
        };
        self.acme.answers = answers.cloned();
        AcmeIssuer::open(self.acme, &json).map_err(|error| start_failed("the ACME issuer")(&error))
    }
}

impl Issuers {
    /// What the edge must know to answer the challenges of all of them.
    pub(crate) fn thumbprints(&self) -> Vec<String> {
        let mut thumbprints: Vec<String> =
            std::iter::once(&self.first).chain(&self.second).map(|issuer| issuer.thumbprint().to_owned()).collect();
        thumbprints.dedup();
        thumbprints
    }
}

impl Issuers {
    /// The zone with the CAs as CAA records would name them, our account at each.
    pub(crate) fn named_in(&self, zone: &ZoneSettings) -> ZoneSettings {
        issuers::acme::named_in(&self.first, self.second.as_ref(), zone)
    }
}

fn acme_config(
    settings: &AcmeSettings,
    place: CaPlace,
    seal_key: &SealPublicKey,
    clock: &Arc<dyn Clock>,
) -> Result<AcmeConfig, StartError> {
    let mut acme = AcmeConfig::new(place.directory, seal_key.clone(), clock.clone());
    acme.extra_root_pem = place.root_pem;
    acme.profile = settings.profile.clone();
    acme.contact = settings.contact.clone();
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
