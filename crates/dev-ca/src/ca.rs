//! The running CA: what all its requests share.
//!
//! Arrives: the parts, made by [`DevCa::start`](crate::DevCa::start). Leaves: one place to ask for the time, a fresh id, a URL, a nonce, or
//! who signed a request. Goes wrong: a [`Problem`] when a signer is not who they should be.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Clock;
use crate::accounts::{Account, Accounts, Status};
use crate::authority::{Authority, random_bytes};
use crate::control::{Faults, Settings, SettingsChange};
use crate::jws::{Envelope, Jwk, Signer};
use crate::lock;
use crate::nonces::Nonces;
use crate::orders::Book;
use crate::problem::{Kind, Problem};
use crate::validation::Validator;

/// The shortest certificate worth signing; a zero lifetime would end before it began.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);
/// The longest: a leaf must not outlive the intermediate by accident of a typing error.
const LONGEST_LIFETIME: Duration = Duration::from_hours(10 * 365 * 24);
/// How long a request may wait for the end of a pause before it is answered anyway.
const LONGEST_PAUSE: Duration = Duration::from_mins(10);
/// Where account URLs begin.
pub(crate) const ACCOUNT_PATH: &str = "/acme/account/";

/// Everything that requests share.
pub(crate) struct Ca {
    pub(crate) authority: Authority,
    pub(crate) accounts: Accounts,
    pub(crate) validator: Validator,
    pub(crate) book: Mutex<Book>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) nonces: Mutex<Nonces>,
    pub(crate) settings: Mutex<Settings>,
    pub(crate) paused: watch::Sender<bool>,
    pub(crate) background: Mutex<JoinSet<()>>,
    pub(crate) random: SystemRandom,
    pub(crate) clock: Clock,
    /// `https://host:port`, which every URL starts with.
    pub(crate) origin: String,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Who signed a request.
#[derive(Debug)]
pub(crate) enum SignedBy {
    Account(Account),
    Key(Jwk),
}

impl SignedBy {
    /// The account, for resources that need one.
    pub(crate) fn account(self) -> Result<Account, Problem> {
        match self {
            Self::Account(account) => Ok(account),
            Self::Key(_) => Err(Problem::malformed("this resource needs an account's URL in `kid`, not a `jwk`")),
        }
    }

    /// The bare key, for resources that need one.
    pub(crate) fn key(self) -> Result<Jwk, Problem> {
        match self {
            Self::Key(key) => Ok(key),
            Self::Account(_) => Err(Problem::malformed("this resource needs a `jwk`, not an account's URL in `kid`")),
        }
    }
}

impl Ca {
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// An id or token that nobody can guess: 128 bits in base64url, as RFC 8555, section 8.3 wants tokens.
    pub(crate) fn fresh_id(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(random_bytes::<16>(&self.random))
    }

    pub(crate) fn fresh_nonce(&self) -> String {
        let nonce = self.fresh_id();
        lock(&self.nonces).remember(nonce.clone());
        nonce
    }

    pub(crate) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    pub(crate) fn change_settings(&self, change: &SettingsChange) {
        let mut settings = lock(&self.settings);
        if let Some(percent) = change.bad_nonce_percent {
            settings.bad_nonce_percent = percent.min(100);
        }
        if let Some(lifetime) = change.lifetime {
            settings.lifetime = sensible_lifetime(lifetime);
        }
        settings.finalize_delay = change.finalize_delay.unwrap_or(settings.finalize_delay);
        settings.authorization_reuse = change.authorization_reuse.unwrap_or(settings.authorization_reuse);
        settings.ari_retry_after = change.ari_retry_after.unwrap_or(settings.ari_retry_after);
        settings.paused = change.paused.unwrap_or(settings.paused);
        self.paused.send_replace(settings.paused);
    }

    /// Waits out a pause, if there is one.
    pub(crate) async fn wait_while_paused(&self) {
        let mut paused = self.paused.subscribe();
        // Both ways out are fine: the pause is over, or it lasted longer than anyone should wait.
        let _ = tokio::time::timeout(LONGEST_PAUSE, paused.wait_for(|paused| !paused)).await;
    }

    pub(crate) fn ari_identifier(&self, serial: &str) -> String {
        format!("{}.{serial}", self.authority.key_identifier())
    }

    /// Takes an ARI identifier apart; a foreign issuer's or unknown one is "not found".
    pub(crate) fn serial_of_ari_identifier(&self, identifier: &str) -> Result<String, Problem> {
        let Some((issuer, serial)) = identifier.split_once('.').filter(|(_, serial)| !serial.contains('.')) else {
            return Err(Problem::malformed("a certificate identifier is a key identifier, a dot, and a serial number"));
        };
        if BASE64_URL_SAFE_NO_PAD.decode(issuer).is_err() || BASE64_URL_SAFE_NO_PAD.decode(serial).is_err() {
            return Err(Problem::malformed("the parts of a certificate identifier are base64url without padding"));
        }
        if issuer != self.authority.key_identifier() {
            return Err(Problem::not_found("the certificate was not issued here"));
        }
        Ok(serial.to_owned())
    }

    /// Believes a request, or says why not. The nonce is only used up by a request whose signature is good.
    pub(crate) fn authenticate(&self, url: &str, body: &[u8]) -> Result<(SignedBy, Vec<u8>), Problem> {
        let envelope = Envelope::parse(body)?;
        let signed_by = match &envelope.signer {
            Signer::Key(jwk) => {
                envelope.verify(&jwk.parse()?)?;
                SignedBy::Key(jwk.clone())
            }
            Signer::Account(kid) => {
                let unknown = || Problem::new(Kind::AccountDoesNotExist, format!("there is no account {kid}"));
                let (account, key) = self.accounts.by_id(account_id(kid).ok_or_else(unknown)?).ok_or_else(unknown)?;
                envelope.verify(&key)?;
                SignedBy::Account(account)
            }
        };
        self.spend_nonce(&envelope.nonce)?;
        if envelope.url != url {
            // RFC 8555, section 6.4.
            return Err(Problem::unauthorized(format!("the JWS is for {}, but was sent to {url}", envelope.url)));
        }
        if let SignedBy::Account(account) = &signed_by
            && account.status != Status::Valid
        {
            return Err(Problem::unauthorized("the account is deactivated"));
        }
        Ok((signed_by, envelope.payload))
    }

    fn spend_nonce(&self, nonce: &str) -> Result<(), Problem> {
        let refuse = |detail: &str| Err(Problem::new(Kind::BadNonce, detail));
        if !lock(&self.nonces).spend(nonce) {
            return refuse("the nonce is unknown or was used before");
        }
        let percent = lock(&self.settings).bad_nonce_percent;
        if u32::from_be_bytes(random_bytes(&self.random)) % 100 < u32::from(percent) {
            return refuse("the nonce was good, but is refused as configured");
        }
        Ok(())
    }

    /// Runs work that outlives its request; it ends with the CA.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut background = lock(&self.background);
        while let Some(ended) = background.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "background work panicked");
            }
        }
        background.spawn(work);
    }
}

/// The account id in a `kid`. Its host and port are not compared, so that accounts survive a restart on another port.
fn account_id(kid: &str) -> Option<&str> {
    let (_host, path) = kid.strip_prefix("https://")?.split_once('/')?;
    path.strip_prefix(ACCOUNT_PATH.trim_start_matches('/'))
}

pub(crate) fn sensible_lifetime(lifetime: Duration) -> Duration {
    lifetime.clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME)
}
