//! The homes of `domains`' traits, and the suite that every home must pass.
//!
//! Arrives: what the steps want remembered, sent or looked up, through the traits of `domains` and the [`consumers`] declared here. Leaves:
//! the same answers from every home. Goes wrong: a home that fails says so with a [`StoreError`](domains::StoreError), never with an
//! absence.
//!
//! - [`local`]: one SQLite file and a folder, for one machine.
//! - `aws`: DynamoDB, SQS and S3, behind the feature `aws`.
//! - [`consumers`]: the receiving side of the change feed and of the step queues, for whoever drives the steps.
//! - [`objects`]: which names an object of the bucket may have.
//! - [`conformance`]: each sentence of the contracts, as a check that runs against any home.

#[cfg(feature = "aws")]
pub mod aws;
mod checks;
pub mod conformance;
pub mod consumers;
mod cursor;
pub mod local;
pub mod objects;
