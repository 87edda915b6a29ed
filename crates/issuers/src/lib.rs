//! Where certificates come from. Depends on no storage: issuing cannot publish by itself.
//!
//! Arrives: a hostname that was proved. Leaves: what [`domains::Issuer`] promises, a checked certificate whose key only the edge can open.
//! Goes wrong: a [`domains::IssueError`], which says whose move it is.

pub mod acme;
