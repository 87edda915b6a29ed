//! The ledger of a CA's limits: what an attempt needs, who waits, and until when. Pure: homes store its items and nothing else.
//!
//! Arrives: a [`LedgerMove`] and the items it names, as the home read them. Leaves: an answer and the items to write, which the home writes
//! in one conditional write with what was read. Goes wrong: an item that does not read is a defect, never an empty bucket that gives freely.
//!
//! **Reserving.** An attempt at an order needs a token of several buckets (account, registered domain, exact set, failures, pace). All are taken
//! in one write or none is, and the attempt's own item in the same write remembers it: a repeat takes none, so a crash between reserving and
//! ordering costs nothing. What an order that ended without a certificate did not use up at the CA is given back, once.
//!
//! **Lanes.** A bucket lets new names take only what leaves a share for renewals, and renewals only what leaves one for urgent renewals
//! ([`Need::keeps`]). This is trunk reservation, as telephone exchanges do it: an inequality in the one write, no queue, no lock. A lane that
//! is not used costs the others nothing but that many tokens once; the refill is all theirs.
//!
//! **Waiting.** Who is refused books a slot: the moment at which its token will be there. The slot is the claim's next look, so waiting
//! costs one message, not a message a tick. A bucket's queue is sixteen numbers, the end of the backlog of each of sixteen [levels](queue): a
//! booking at level l comes after everybody at levels up to l and pushes the ends of the levels above it back by one refill. Time drains the
//! backlog, so nobody has to sign off and a claim that is removed while it waits leaves one unused token, not a stuck queue. Who wakes
//! at its slot and finds that others were let in before it slots again at the front of its level, behind what was let in.
//!
//! **Fairness.** Urgent renewals have level 0, renewals level 1, a new name the level 2 + log2(1 + its tenant's debt), where the debt counts the
//! tokens that the tenant took or booked and that the bucket would not have refilled yet if the tenant were alone. So of two tenants with
//! backlogs the one that asked for less is served first, and the other has no more than twice its share before it (each level holds twice the
//! level below); a tenant's first three names (levels 2 and 3) may also use a reserve that larger backlogs must leave ([`Need::reserve`]): they
//! do not wait at all while it lasts. Nobody starves: debts drain with time, and who slots again takes the level of its tenant's debt then, so
//! that once the time has passed in which the tenant alone would have been done, what it still waits for ranks with first names.
//!
//! **Bounds.** A claim looks once for each bucket that it must wait for, usually one, once at its slot, and once more for each time that others
//! were let in before it. Slots of one level are a refill apart, and an early look changes nothing and is told the same slot. Every move reads
//! and writes at most [`MAX_ITEMS`] items, and no move looks at more than its own.

mod bucket;
mod forecast;
mod levels;
mod moves;
pub mod queue;
mod rules;

pub use bucket::BucketShape;
pub use forecast::{DomainForecast, Forecast, MemoryLedger, forecast};
pub use levels::{Level, Waiting};
pub use moves::{LedgerMove, LedgerWrite, MAX_ITEMS, Need, Reservation, Reserved, Wait};
pub use rules::{CaLimits, OrderKind, lane};

use serde::{Deserialize, Serialize};

/// Whose turn comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// A renewal whose certificate ends soon, or was revoked.
    Urgent,
    /// A renewal in its time.
    Renewal,
    /// A first certificate.
    New,
}

impl Lane {
    /// Every lane, the first first.
    pub const ALL: &[Self] = &[Self::Urgent, Self::Renewal, Self::New];

    /// The lane as the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Urgent => "urgent",
            Self::Renewal => "renewal",
            Self::New => "new",
        }
    }
}
