//! The ACME issuer against a real CA over real HTTPS, with real DNS questions and challenge fetches on loopback.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

mod delegated;
mod issuing;
mod refusals;
mod renewing;
mod resuming;
mod world;
