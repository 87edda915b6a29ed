//! The heart of Nameplate: hostnames, claims, states, problems, decisions, dispositions, and the traits of everything outside.
//! No I/O, no async runtime, no AWS.
mod claim;
mod clock;
/// Every decision of the walk, as pure functions.
pub mod decide;
mod dns;
mod hostname;
mod ids;
mod issuer;
mod judge;
pub mod ledger;
mod looks;
pub mod networks;
mod nudge;
mod problem;
pub mod providers;
mod renewal;
mod route;
mod store;
pub mod webhooks;

pub use claim::{
    Attempt, CLAIM_SCHEMA, CaChoice, CertificateFacts, CertificateWay, ChallengeKind, ChallengeWay, Claim, HistoryEntry, Issuance,
    LastLook, LookSchedule, OrderPlan, Owner, Proof, Publication, RemovalReason, Renewal, State, StateName, StoredCertificate, Suspension,
    ZoneSettings,
};
pub use clock::{Clock, HandClock, SystemClock};
pub use decide::{Failover, IssuancePolicy};
pub use dns::{
    Answer, Asked, CaaIssuer, ChainEnd, DelegationSubject, Dnssec, Failure, Further, Look, LookSubject, Observed, OwnershipLookup,
    ServerAnswer, SignedZone, ZoneCut,
};
pub use hostname::{Hostname, HostnameError, HostnamePolicy, MAX_HOSTNAME_BYTES};
pub use ids::{ClaimId, ClaimKey, IdError, OriginName, OwnershipToken, SiteVersion, TenantId};
pub use issuer::{Disposition, IssueError, Issued, Issuer, PreparedKey, RenewalWindow};
pub use jiff::Timestamp;
pub use judge::{Delegation, Judgement, Routing, judge};
pub use ledger::{BucketShape, Lane, LedgerMove, Reserved};
pub use looks::{LOOKS_KIND, StoredLook, StoredLooks};
pub use nudge::{Dispatch, MAX_DELAY, Nudge, Step};
pub use problem::{Actor, Finding, Problem, ProblemCode};
pub use route::{dispatches, is_nudged};
pub use store::{
    AnswerZone, BundleBucket, Caller, Callers, Change, CommitError, Document, Documents, DomainTable, DueEntry, DueIndex, EVENTS_LAG,
    EventFeed, EventPage, Home, Limits, Listings, MAX_DOCUMENT_BYTES, Marks, ObjectCondition, Page, Put, Role, StepQueue, StoreError,
    Taken,
};
