//! The edge with real TLS clients, a real folder as its source and a real origin, all on loopback.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod access_log;
mod assertions;
mod bucket;
#[path = "../../../tests/src/chance.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests of the whole system")]
mod chance;
mod client;
mod deadlines;
mod first_index;
mod handover;
mod leaving;
mod limits;
mod lying_store;
mod metrics;
#[path = "../../../crates/storage/tests/stand/ministack.rs"]
mod ministack;
mod names;
mod never_backwards;
mod origin;
mod origins;
mod peers;
mod program;
mod protocols;
mod raw_h2;
mod refusals;
mod s3;
mod serving;
mod setup;
mod strangers;
mod strict_origin;
mod tickets;
mod tls_profile;
mod vectors;
mod visitors;
