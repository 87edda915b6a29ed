//! The HTTP API: claims in, DNS records to create out; and whatever else people ask of the product.
//!
//! Arrives: HTTP requests with an API key. Leaves: JSON, and for every error a problem document (RFC 9457) with a stable code. Goes wrong:
//! bad input (4xx, with what to send instead), a home that cannot be asked (503, try again). Nothing here waits for DNS or a CA.

mod access;
mod ask;
mod claims;
mod document;
mod entropy;
mod feed;
mod imports;
mod lambda;
mod limits;
mod operations;
mod parameters;
mod records;
mod refusal;
mod routes;
mod views;
mod webhooks;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use domains::{
    BucketShape, Callers, Clock, Documents, DomainTable, EventFeed, Home, HostnamePolicy, Limits, Listings, LookSchedule, OriginName,
    ZoneSettings, ledger::CaLimits,
};
use http::{Request, Response};

pub use access::key_sha256;
pub use ask::{AskView, Memory, ask_made_at, forget_ask_secret};
pub use claims::DomainPage;
pub use entropy::{Entropy, SystemEntropy};
pub use feed::{EventPageView, ExplainedLook, HistoryPage, LooksPage};
pub use imports::{
    IMPORT_STOPPED, ImportPage, ImportSummary, ImportView, Line, MAX_IMPORT_LINES, MAX_OPEN_IMPORTS, RefusedLine, StoppedImport, Worked,
    stop_imports,
};
pub use lambda::answer;
pub use limits::{CaView, LimitView, LimitsView, WaitingView};
pub use records::{DnsRecord, Due, Path, Purpose, records};
pub use refusal::{Code, ProblemDocument, Refusal, refuse};
pub use views::{AtRiskView, CertificateView, DomainView, SuspensionView};
pub use webhooks::{DeadLetterView, WebhookPage, WebhookSecretView, WebhookStatus, WebhookView};

/// The largest request body read: an import's, whose lines are kept as one document.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// The largest body of a request about one thing.
pub(crate) const MAX_SMALL_BODY_BYTES: usize = 16 * 1024;

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// The API's parts.
pub struct Api {
    /// Claims and owners.
    pub table: Arc<dyn DomainTable>,
    /// Lists and history.
    pub listings: Arc<dyn Listings>,
    /// Everything that happened.
    pub events: Arc<dyn EventFeed>,
    /// Secrets and the like.
    pub documents: Arc<dyn Documents>,
    /// Who may call.
    pub callers: Arc<dyn Callers>,
    /// Token buckets, and the ledger of the CAs' limits.
    pub limits: Arc<dyn Limits>,
    /// What each CA in use allows.
    pub ca_limits: Vec<CaLimits>,
    /// Which hostnames are refused.
    pub policy: HostnamePolicy,
    /// Where targets and proofs are.
    pub zone: ZoneSettings,
    /// The origins that a domain's requests can be sent to, beside the usual one.
    pub origins: BTreeSet<OriginName>,
    /// When to look first.
    pub looks: LookSchedule,
    /// How fast callers may go.
    pub pace: Pace,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes targets and tokens that cannot be guessed.
    pub entropy: Arc<dyn Entropy>,
    /// What this process remembers; begin with none.
    pub memory: Memory,
}

impl Api {
    /// The API of a Lambda, over its home: with the usual pace, and names refused that are the operator's own.
    ///
    /// Whatever registers names is made by this, so that it refuses the same ones.
    pub fn over<H: Home + 'static>(
        home: Arc<H>,
        zone: ZoneSettings,
        hostnames: HostnamePolicy,
        ca_limits: Vec<CaLimits>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            table: home.clone(),
            listings: home.clone(),
            events: home.clone(),
            documents: home.clone(),
            callers: home.clone(),
            limits: home,
            ca_limits,
            policy: HostnamePolicy { operator_zones: vec![zone.zone.clone()], ..hostnames },
            zone,
            origins: BTreeSet::new(),
            looks: LookSchedule::default(),
            pace: Pace::default(),
            clock,
            entropy: Arc::new(SystemEntropy),
            memory: Memory::default(),
        }
    }
}

/// How fast callers may go.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// New claims, per tenant.
    pub claims: BucketShape,
    /// "Check now", per claim.
    pub checks: BucketShape,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            claims: BucketShape { capacity: 10_000, refill: Duration::from_secs(1) },
            checks: BucketShape { capacity: 5, refill: Duration::from_secs(10) },
        }
    }
}

impl Api {
    /// Makes what must be there before the first request: the secret path of `ask`.
    ///
    /// # Errors
    /// [`Refusal`] when the home or the machine's randomness cannot be asked.
    pub async fn prepare(&self) -> Result<AskView, Refusal> {
        ask::prepare(self).await
    }

    /// Answers one request; never fails, and never takes longer than its deadline.
    pub async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let started = std::time::Instant::now();
        let response = match tokio::time::timeout(DEADLINE, routes::route(self, request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(refusal)) => refuse(&refusal),
            Err(_) => refuse(&Refusal::unavailable("the request ran out of time")),
        };
        let status = response.status().as_u16();
        // What stands behind `/ask/` is a secret, or an attempt at it.
        let path = if path.starts_with("/ask/") { "/ask/…" } else { &path };
        let shown: String = path.chars().filter(|c| !c.is_control()).take(200).collect();
        tracing::info!(step = "register-domain", %method, path = shown, status, ms = started.elapsed().as_millis(), "answered");
        response
    }
}
