//! What an edge serves, from the bucket alone: the judge of whether a name was ever without a valid certificate.
//!
//! Arrives: each object as it was accepted by the bucket, and the time. Leaves: the names whose certificate ended in service. Goes wrong: an
//! object that does not read is a panic.

use std::collections::{BTreeSet, HashMap};

use bundles::{LeafFacts, SiteObject};
use domains::{Hostname, Timestamp};

/// The certificates in service.
#[derive(Debug, Default)]
pub(super) struct Served {
    ends: HashMap<Hostname, Timestamp>,
    by_end: BTreeSet<(Timestamp, Hostname)>,
    ended: Vec<String>,
}

impl Served {
    /// An object was put into the bucket. The certificate itself is asked, not what stands beside it.
    pub(super) fn see(&mut self, name: &str, bytes: &[u8]) {
        if !name.starts_with("sites/") {
            return;
        }
        let object = SiteObject::from_bytes(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(end) = self.ends.remove(object.hostname()) {
            self.by_end.remove(&(end, object.hostname().clone()));
        }
        if let SiteObject::Present(bundle) = &object {
            let leaf = LeafFacts::of_chain(&bundle.certificate_chain).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(leaf.covers(&bundle.hostname), "{name} holds a certificate for {:?}", leaf.dns_names);
            let end = Timestamp::from_second(leaf.not_after).expect("a date of a certificate");
            self.ends.insert(bundle.hostname.clone(), end);
            self.by_end.insert((end, bundle.hostname.clone()));
        }
    }

    /// The time is now: whatever ended until then ended in service.
    pub(super) fn at(&mut self, now: Timestamp) {
        while let Some((end, hostname)) = self.by_end.first().filter(|(end, _)| *end <= now).cloned() {
            self.by_end.remove(&(end, hostname.clone()));
            self.ended.push(format!("{hostname} at {end}"));
        }
    }

    /// Every certificate of now is worth nothing from `when` on.
    pub(super) fn revoke(&mut self, when: Timestamp) {
        for end in self.ends.values_mut() {
            *end = when.min(*end);
        }
        self.by_end = self.ends.iter().map(|(hostname, end)| (*end, hostname.clone())).collect();
    }

    /// The names that were served with a certificate that had ended, or was revoked.
    pub(super) fn ended(&self) -> Vec<String> {
        self.ended.clone()
    }

    /// How many names are served.
    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }

    /// When a name's certificate ends, or was revoked.
    pub(super) fn end(&self, hostname: &Hostname) -> Option<Timestamp> {
        self.ends.get(hostname).copied()
    }
}
