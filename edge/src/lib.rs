//! The TLS-terminating proxy: what runs all day. It can neither issue nor write, because the code for either is not linked in.
//!
//! Arrives: connections of strangers, and the index with its bundles from a [`Source`] that can only be read. Leaves: requests to
//! the origin with the tenant they belong to. Goes wrong: all that strangers, networks and faulty objects can do; a name once served
//! stays served until a tombstone of a higher version says otherwise, whatever else is down.
//!
//! In the order a connection meets them: `listener` (accept, limits; `load_balancer`, `addresses`) → `hello` (ClientHello to hostname) →
//! `names` (the index in memory) → `certificates` (parsed keys, session tickets, the local disk, one read of the source) → `connections` (who is open, for
//! whom) → `framing` or `frames` (every byte, by HTTP's version) → `proxy` (`authority`, `forwarding`, `origin`, `websocket`, `tunnel`, `pages`). Beside them:
//! `refresh` (the index polled, bundles filled in), `tenants` (who asks most), `access_log`, `port80`, `private`, `drain`, `descriptors`.

mod access_log;
mod addresses;
mod assertion;
mod authority;
mod body;
mod certificates;
pub mod config;
mod connections;
mod descriptors;
mod drain;
mod edge;
mod forwarding;
mod frames;
mod framing;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod hello;
mod listener;
mod load_balancer;
mod metrics;
mod names;
mod origin;
mod origins;
mod pages;
mod plain;
mod port80;
mod private;
mod proxy;
mod refresh;
pub mod source;
mod supervisor;
mod tenants;
mod tunnel;
mod watch;
mod websocket;

pub use certificates::DiskError;
pub use config::Config;
pub use drain::DrainReport;
pub use edge::{Edge, Inherited, Parts, StartError, run};
#[cfg(feature = "s3")]
pub use source::{BucketPlace, BucketSource};
pub use source::{Etag, Fetched, FolderSource, Source, SourceError};
pub use supervisor::inherited;
