//! The steps of the walk, and the message that asks for one.
//!
//! Arrives: a claim that waits for a step. Leaves: a [`Nudge`], which carries no state: whoever gets it loads the claim. Goes wrong: a
//! message that does not read back, which the receiving step reports as a defect.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{ClaimKey, Hostname, TenantId};

/// The longest delay a queue holds a message; later looks exist only as `next_look`.
///
/// Source: SQS message timers, docs.aws.amazon.com/AWSSimpleQueueService (read 2026-11).
pub const MAX_DELAY: Duration = Duration::from_secs(900);

/// A step that a queue feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Looks at DNS.
    VerifyOwnership,
    /// Orders a certificate.
    IssueCertificate,
    /// Projects the record into the bucket.
    PublishSite,
}

impl Step {
    /// Every step, in the order of the walk.
    pub const ALL: &[Self] = &[Self::VerifyOwnership, Self::IssueCertificate, Self::PublishSite];

    /// The step's name, which is also its queue's.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VerifyOwnership => "verify-ownership",
            Self::IssueCertificate => "issue-certificate",
            Self::PublishSite => "publish-site",
        }
    }
}

/// "Look at this claim": an identity and the version that gave rise to it, never state.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Nudge {
    /// The claim's hostname.
    pub hostname: Hostname,
    /// The claim's tenant.
    pub tenant: TenantId,
    /// The claim's version when this was sent; for logs only.
    pub version: u64,
}

impl Nudge {
    /// The claim it is about.
    pub fn key(&self) -> ClaimKey {
        ClaimKey { hostname: self.hostname.clone(), tenant: self.tenant.clone() }
    }
}

/// A nudge on its way to a step's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// Where to.
    pub step: Step,
    /// What.
    pub nudge: Nudge,
    /// How long the queue holds it, at most [`MAX_DELAY`].
    pub delay: Duration,
}
