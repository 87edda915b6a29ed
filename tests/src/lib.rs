//! The harness of the system tests: the whole product, started and asked from outside, as its operator and its visitors do.
//!
//! Arrives: the binaries that `scripts/test` built beside the tests. Leaves: a running product in a folder of its own, with clients for
//! its API, its edge, its DNS and its CA. Goes wrong: anything unexpected is a panic that names what was waited for and where the logs are.
//!
//! - [`process`]: one child, killed when dropped, its log kept when the test fails.
//! - [`product`]: `nameplate dev`, with its API.
//! - [`peers`]: `dev-dns` and `dev-ca` as processes of their own, which outlive a killed product; a standalone `edge`.
//! - [`pebble`]: another CA, for what a client must survive.
//! - [`aws`]: a stand-in for AWS; [`lambda`]: a function's program in an environment as Lambda makes it.
//! - [`client`]: plain HTTP; [`visitor`]: verified HTTPS.
//! - [`published`]: a bucket as the publisher leaves it, for a lone edge.
//! - [`serving`]: `nameplate serve` as its operator sets it up, with [`foreign_dns`], a name server that others made.
//! - [`origin`]: an origin of our own, which can also be spoken to by WebSocket.
//! - [`receiver`]: a receiver of webhooks.
//! - [`simulation`]: the functions alone, on virtual time.
//! - [`resolver`]: what DNS says now.
//! - [`sizes`]: how much of everything; [`chance`]: repeatable randomness.

#![allow(clippy::unwrap_used, reason = "a harness: what it did not expect fails the test that it serves")]

pub mod aws;
pub mod chance;
pub mod client;
pub mod foreign_dns;
pub mod lambda;
#[path = "../../crates/storage/tests/stand/ministack.rs"]
mod ministack;
pub mod origin;
pub mod pebble;
pub mod peers;
pub mod ports;
pub mod process;
pub mod product;
pub mod published;
pub mod receiver;
pub mod resolver;
pub mod serving;
pub mod simulation;
pub mod sizes;
pub mod tools;
pub mod visitor;
pub mod waiting;
