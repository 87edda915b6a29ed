//! Certificates by ACME (RFC 8555) with renewal information (RFC 9773), from one CA with one account.
//!
//! Arrives: a hostname that was proved and routes to the edge. Leaves: an order's URL, then a checked certificate; every move can be made
//! again after a crash, and an order is finalized once. Goes wrong: an [`IssueError`], judged in `problems`.
//!
//! http-01 challenges are answered by the edge alone, which knows the account's [thumbprint](AcmeIssuer::thumbprint): nothing is written
//! for them. dns-01 challenges are answered in the answer zone, where the hostname's `_acme-challenge` leads. In the order of a certificate's way: `config` → `account` → `walk` (the order, state by state) → `check`; `client` keeps what the
//! ACME library drops, `flights` lets one move at a time happen for a hostname.

mod account;
mod check;
mod client;
mod config;
mod directory;
mod flights;
mod pair;
mod problems;
mod walk;

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bundles::Digest;
use domains::{Attempt, CaChoice, ChallengeWay, ClaimKey, Hostname, IssueError, Issued, Issuer, OrderPlan, PreparedKey, RenewalWindow};
use http::Uri;
use instant_acme::{Account, CertificateIdentifier, Error, Identifier, NewOrder};
use jiff::Timestamp;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData, SanType};
use rustls_pki_types::TrustAnchor;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

pub use account::AcmeAccount;
pub use check::read_issued;
pub use config::{AcmeConfig, AcmeSetupError, ExternalAccount};
pub use directory::CaDirectory;
pub use pair::{CaPair, named_in};

use check::{Asked, check_chain, spki_sha256_of_csr};
use client::{CaClient, noting_waits};
use flights::Flights;
use problems::{Failure, Kind, Said, is_bad_nonce};

/// How often an operation is begun again after a refused nonce, on top of the library's own two repeats of the request. With one nonce in
/// five refused, one operation in ten thousand million fails. Source: RFC 8555, section 6.5.
const FRESH_NONCES: u32 = 4;
/// The least and the most time between two polls of renewal information; the RFC's own example for the least is a minute, which is long in
/// the life of a certificate that a demo makes for three. Source: RFC 9773, section 4.3.2.
const RENEWAL_POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_hours(24));

/// Runs an operation of the ACME library again while all that the CA says is that the nonce was not fresh; then it did nothing.
macro_rules! past_bad_nonces {
    ($operation:expr) => {{
        let mut left = FRESH_NONCES;
        loop {
            match $operation.await {
                Err(error) if left > 0 && is_bad_nonce(&error) => left -= 1,
                ended => break ended,
            }
        }
    }};
}
use past_bad_nonces;

/// One CA with one account.
pub struct AcmeIssuer {
    config: AcmeConfig,
    credentials: AcmeAccount,
    client: CaClient,
    anchors: Vec<TrustAnchor<'static>>,
    /// The account with the CA's directory, fetched by the first operation that needs it: a CA that is down stops no start.
    account: OnceCell<Account>,
    flights: Flights,
}

impl AcmeIssuer {
    /// Sets up a CA with the [JSON](AcmeAccount::to_json) of an account at it; asks nobody.
    ///
    /// # Errors
    /// [`AcmeSetupError`] for what is wrong in configuration or credentials.
    pub fn open(config: AcmeConfig, credentials: &str) -> Result<Self, AcmeSetupError> {
        let credentials = AcmeAccount::from_json(credentials)?;
        // By host: a CA on one's own machine may come back on another port.
        if config::host_of(credentials.directory_url())? != config::host_of(&config.directory_url)? {
            let stored = credentials.directory_url().to_owned();
            return Err(AcmeSetupError::OtherCa { stored, configured: config.directory_url });
        }
        let (client, anchors) = (config.client()?, config.anchors()?);
        Ok(Self { config, credentials, client, anchors, account: OnceCell::new(), flights: Flights::default() })
    }

    /// The account key's thumbprint, with which the edge answers every http-01 challenge.
    pub fn thumbprint(&self) -> &str {
        self.credentials.thumbprint()
    }

    /// The account's URL, which a CAA record may name.
    pub fn account_url(&self) -> &str {
        self.credentials.url()
    }

    fn now(&self) -> Timestamp {
        self.config.clock.now()
    }

    async fn account(&self) -> Result<&Account, Failure> {
        let open = || {
            Account::builder_with_http(Box::new(self.client.clone())).from_parts(
                self.credentials.url().to_owned(),
                self.credentials.key(),
                self.config.directory_url.clone(),
            )
        };
        self.account.get_or_try_init(open).await.map_err(Said::ToRequest.failure())
    }

    /// Runs one operation within its time; what it was said is judged here, once.
    async fn within_budget<T>(&self, what: &str, operation: impl Future<Output = Result<T, Stop>>) -> Result<T, IssueError> {
        // An operation watches its budget itself while it waits; this also ends one that waits for an answer.
        let limit = self.config.step_budget + self.config.request_timeout;
        match tokio::time::timeout(limit, noting_waits(operation)).await {
            Ok(ended) => ended.map_err(|stop| match stop {
                Stop::Failed(failure) => failure.judge(self.now()),
                Stop::Judged(error) => error,
            }),
            Err(_) => Err(too_slow(what, limit)),
        }
    }

    async fn new_order(&self, hostname: &Hostname, plan: &OrderPlan) -> Result<String, Stop> {
        let _turn = self.flights.turn(hostname).await.map_err(crowded)?;
        let account = self.account().await?;
        let mut profile = self.config.profile.as_deref().filter(|wanted| account.profiles().any(|offered| offered.name == *wanted));
        if profile.is_none()
            && let Some(wanted) = &self.config.profile
        {
            tracing::debug!(profile = %wanted, "the CA does not list the configured profile; its usual one is ordered");
        }
        let mut replaces = plan.replaces.as_deref();
        let identifiers = [Identifier::Dns(hostname.as_str().to_owned())];
        loop {
            let mut wish = NewOrder::new(&identifiers);
            if let Some(profile) = profile {
                wish = wish.profile(profile);
            }
            if let Some(id) = replaces.and_then(certificate_identifier) {
                wish = wish.replaces(id);
            }
            let failure = match past_bad_nonces!(account.new_order(&wish)) {
                Ok(order) => return Ok(order.url().to_owned()),
                Err(error) => Said::ToRequest.failure()(error),
            };
            if profile.is_some() && failure.kind() == Some(Kind::InvalidProfile) {
                // Our copy of the directory is as old as this process; profiles come and go.
                tracing::warn!(profile, "the CA no longer has the configured profile; its usual one is ordered");
                profile = None;
            } else if replaces.is_some() && failure.may_be_about_replacing() {
                // An order that names what it replaces comes first in the CA's queues and limits; one that does not is as good otherwise. And
                // when it is our own order of before a crash that stands in the way, the CA hands out that one.
                tracing::info!(%hostname, replaces, kind = ?failure.kind(), "the CA takes no order that replaces this certificate; ordered plainly");
                replaces = None;
            } else {
                return Err(failure.into());
            }
        }
    }

    async fn window(&self, ari_id: &str) -> Result<Option<RenewalWindow>, Stop> {
        let id = certificate_identifier(ari_id)
            .ok_or_else(|| IssueError::Refused { detail: format!("`{ari_id}` does not identify a certificate") })?;
        let account = self.account().await?;
        let (info, retry_after) = match account.renewal_info(&id).await {
            Ok(answer) => answer,
            Err(Error::Unsupported(_)) => return Ok(None),
            Err(error) => {
                let failure = Said::ToRequest.failure()(error);
                // A certificate of another CA, or of this one before it lost its memory.
                return if failure.status() == Some(404) && failure.kind().is_some() { Ok(None) } else { Err(failure.into()) };
            }
        };
        let window = &info.suggested_window;
        let time = |seconds, nanoseconds| Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or_default()).ok();
        let start = time(window.start.unix_timestamp(), window.start.nanosecond());
        let end = time(window.end.unix_timestamp(), window.end.nanosecond());
        match (start, end) {
            (Some(start), Some(end)) if start < end => {
                let retry_after = retry_after.clamp(RENEWAL_POLL.0, RENEWAL_POLL.1);
                Ok(Some(RenewalWindow { start, end, retry_after }))
            }
            // To be treated as no answer. Source: RFC 9773, section 4.2.
            _ => {
                Err(IssueError::Unavailable { retry_after: None, detail: "the CA's renewal window does not end after it starts".into() }
                    .into())
            }
        }
    }

    async fn certificate(&self, hostname: &Hostname, order_url: &str, attempt: &Attempt) -> Result<Issued, Stop> {
        let csr = csr_of(attempt)?;
        let _turn = self.flights.turn(hostname).await.map_err(crowded)?;
        let chain = self.walk(hostname, order_url, &csr, attempt).await?;
        let asked = Asked { hostname, spki_sha256: &attempt.spki_sha256, anchors: &self.anchors, now: self.now() };
        let wrong = |difference: check::Difference| IssueError::WrongCertificate { detail: difference.to_string() };
        Ok(check_chain(&chain, &asked).map_err(wrong)?)
    }

    /// Whether an order's URL is at another place than the CA, as after the CA was changed or moved.
    fn is_elsewhere(&self, order_url: &str) -> bool {
        let authority = |url: &str| url.parse::<Uri>().ok()?.into_parts().authority;
        authority(order_url) != authority(&self.config.directory_url)
    }
}

#[async_trait]
impl Issuer for AcmeIssuer {
    fn prepare(&self, key: &ClaimKey) -> Result<PreparedKey, IssueError> {
        let refused = |what: &str, error: &dyn std::error::Error| IssueError::Refused { detail: format!("{what}: {error}") };
        let pair = Zeroizing::new(KeyPair::generate().map_err(|error| refused("no key could be made", &error))?);
        let csr = csr_for(&key.hostname, &pair).map_err(|error| refused("no CSR could be made", &error))?;
        let spki = Digest::of(&pair.subject_public_key_info());
        let sealed = self
            .config
            .seal_key
            .seal(&key.hostname, &key.tenant, spki.as_bytes(), pair.serialized_der())
            .map_err(|error| refused("the key could not be sealed", &error))?;
        let sealed_key = serde_json::to_string(&sealed).map_err(|error| refused("the sealed key could not be written", &error))?;
        Ok(PreparedKey { csr: BASE64_STANDARD.encode(csr), sealed_key, spki_sha256: spki.to_string() })
    }

    async fn order(&self, hostname: &Hostname, plan: &OrderPlan) -> Result<String, IssueError> {
        // Before an order is burnt.
        let refused = |why: &str| Err(IssueError::Refused { detail: format!("{hostname} {why}") });
        match &plan.challenge {
            // Source: RFC 8555, section 7.1.3 with 8.3.
            ChallengeWay::Http01 if hostname.is_wildcard() => return refused("needs a dns-01 challenge, since it is a wildcard"),
            ChallengeWay::Dns01 { .. } if self.config.answers.is_none() => {
                return refused("needs a dns-01 challenge, and this installation has no answer zone");
            }
            ChallengeWay::Http01 | ChallengeWay::Dns01 { .. } => {}
        }
        self.within_budget("the order", self.new_order(hostname, plan)).await
    }

    async fn complete(&self, hostname: &Hostname, order_url: &str, attempt: &Attempt) -> Result<Issued, IssueError> {
        self.within_budget("the certificate", self.certificate(hostname, order_url, attempt)).await
    }

    async fn renewal_window(&self, _: CaChoice, ari_id: &str) -> Result<Option<RenewalWindow>, IssueError> {
        self.within_budget("renewal information", self.window(ari_id)).await
    }
}

/// Why an operation stopped: with a failure that is still to be judged, or with a verdict of our own.
#[derive(Debug)]
enum Stop {
    Failed(Failure),
    Judged(IssueError),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<IssueError> for Stop {
    fn from(error: IssueError) -> Self {
        Self::Judged(error)
    }
}

fn too_slow(what: &str, limit: Duration) -> IssueError {
    IssueError::Unavailable { retry_after: None, detail: format!("{what} took longer than {} s", limit.as_secs_f32()) }
}

fn crowded(crowded: flights::Crowded) -> IssueError {
    IssueError::Unavailable { retry_after: None, detail: crowded.to_string() }
}

/// The CSR of an attempt, once it is certain that it is for the attempt's key.
fn csr_of(attempt: &Attempt) -> Result<Vec<u8>, IssueError> {
    let refused = |detail: &str| IssueError::Refused { detail: detail.to_owned() };
    let csr = BASE64_STANDARD.decode(&attempt.csr).map_err(|_| refused("the stored CSR is not base64"))?;
    let spki = spki_sha256_of_csr(&csr).ok_or_else(|| refused("the stored CSR does not parse"))?;
    if spki == attempt.spki_sha256 { Ok(csr) } else { Err(refused("the stored CSR is for another key than the stored sealed key")) }
}

/// A CSR that names the hostname as its only subject alternative name, and nothing else.
fn csr_for(hostname: &Hostname, key: &KeyPair) -> Result<Vec<u8>, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::DnsName(hostname.as_str().try_into()?)];
    Ok(params.serialize_request(key)?.der().to_vec())
}

/// Reads `<key identifier>.<serial>`. Source: RFC 9773, section 4.1.
fn certificate_identifier(ari_id: &str) -> Option<CertificateIdentifier<'_>> {
    let base64url = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let (key_identifier, serial) = ari_id.split_once('.')?;
    (base64url(key_identifier) && base64url(serial))
        .then(|| CertificateIdentifier { authority_key_identifier: key_identifier.into(), serial: serial.into() })
}
