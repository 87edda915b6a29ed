//! The edge with real TLS clients, a real folder as its source and a real origin, all on loopback.

mod bucket;
mod client;
mod leaving;
mod limits;
mod names;
mod never_backwards;
mod origin;
mod serving;
mod setup;
