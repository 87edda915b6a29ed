//! The names of log fields, so that one search finds a hostname's whole walk.
//!
//! Arrives: nothing. Leaves: the names. Goes wrong: only by writing another name where one of these was meant.

/// The name a line is about, as A-labels.
pub const HOSTNAME: &str = "hostname";
/// The tenant the name belongs to.
pub const TENANT: &str = "tenant";
/// The step of the walk, such as `verify-ownership`.
pub const STEP: &str = "step";
/// The record's or the site's version.
pub const VERSION: &str = "version";
/// How often the work was tried, this time included.
pub const ATTEMPT: &str = "attempt";
/// How a unit of work ended.
pub const OUTCOME: &str = "outcome";
/// The stable code of a problem, or a refusal's reason.
pub const CODE: &str = "code";
/// An error with all of its causes, as [`error_chain`](crate::error_chain) writes it.
pub const ERROR: &str = "error";
