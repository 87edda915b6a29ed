//! DNS questions, answered as facts: what one claim's hostname looks like from its zone's own servers and from one public resolver.
//!
//! Arrives: a [`domains::LookSubject`]. Leaves: a [`domains::Look`], which [`domains::judge`] reads. Goes wrong: nothing as a whole.
//! Every question that brought no answer is a [`domains::Failure`] where its answer would stand, and never reads as an absence.
//!
//! Nothing is cached: neither the records under judgement, nor the delegations that lead to them, because a customer who moves a zone to
//! another provider changes just those. Nothing but DNS is spoken, and only to addresses on the public internet.
//!
//! ```no_run
//! use domains::OwnershipLookup;
//! use lookups::{LookupConfig, Lookups};
//!
//! # async fn look(subject: &domains::LookSubject) {
//! let lookups = Lookups::new(LookupConfig::asking("192.0.2.53:53".parse().expect("an address")));
//! let judgement = domains::judge(&lookups.look(subject).await, subject);
//! println!("{:?}", judgement.finding);
//! # }
//! ```

mod budget;
mod config;
mod dnssec;
mod exchange;
mod further;
mod global;
mod look;
mod question;
mod reading;
mod zone;

pub use config::LookupConfig;
pub use global::is_global;
pub use look::Lookups;
pub use question::{Asking, Wanted, ask, validates};
