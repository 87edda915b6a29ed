//! How every part of Nameplate is seen from outside: one subscriber, one set of field names, one set of metric names.
//!
//! Arrives: spans and events of any crate. Leaves: one line each on stderr, as text for people or JSON for machines. Goes wrong:
//! a `RUST_LOG` that cannot be read, which is told and replaced by the default, because losing logs over a typing error helps nobody.

pub mod fields;
mod logs;
pub mod metrics;

pub use logs::{LogFormat, UnknownLogFormat, error_chain, init};
