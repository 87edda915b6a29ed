//! Parsed certified keys in memory, bounded by bytes; the least recently used go first.
//!
//! Arrives: a name's TLS configuration. Leaves: the same, while it is fresh enough. Goes wrong: nothing.

use std::sync::Arc;

use domains::{Hostname, SiteVersion};
use lru::LruCache;
use rustls::{ServerConfig, sign::CertifiedKey};
use telemetry::metrics::Gauge;

/// What a certified key costs beside its chain: the parsed key, a TLS configuration, the entry itself. Measured at about 3.6 KiB.
const OVERHEAD_BYTES: usize = 4096;

/// A name's configuration, ready for handshakes.
#[derive(Clone)]
pub(super) struct Parsed {
    pub(super) version: SiteVersion,
    pub(super) config: Arc<ServerConfig>,
    pub(super) bytes: usize,
}

/// The configurations, least recently used last.
pub(super) struct Memory {
    entries: LruCache<Hostname, Parsed>,
    bytes: usize,
    limit: usize,
    gauge: Gauge,
}

impl Memory {
    pub(super) fn new(limit: usize, gauge: Gauge) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, limit, gauge }
    }

    /// The configuration, if it is of this version or a newer one.
    pub(super) fn find(&mut self, hostname: &Hostname, at_least: SiteVersion) -> Option<Arc<ServerConfig>> {
        let parsed = self.entries.get(hostname)?;
        (parsed.version >= at_least).then(|| Arc::clone(&parsed.config))
    }

    /// Whether the name has a configuration of whatever version here.
    pub(super) fn knows(&self, hostname: &Hostname) -> bool {
        self.entries.contains(hostname)
    }

    /// Remembers a configuration, unless a newer one is there.
    pub(super) fn insert(&mut self, hostname: &Hostname, parsed: Parsed) {
        if self.entries.peek(hostname).is_some_and(|known| known.version > parsed.version) {
            return;
        }
        self.bytes += parsed.bytes;
        if let Some((_, replaced)) = self.entries.push(hostname.clone(), parsed) {
            self.bytes -= replaced.bytes;
        }
        while self.bytes > self.limit {
            let Some((_, oldest)) = self.entries.pop_lru() else { break };
            self.bytes -= oldest.bytes;
        }
        self.gauge.set(self.bytes);
    }

    pub(super) fn remove(&mut self, hostname: &Hostname) {
        if let Some(removed) = self.entries.pop(hostname) {
            self.bytes -= removed.bytes;
            self.gauge.set(self.bytes);
        }
    }
}

/// What a certified key costs in memory.
pub(super) fn weight(key: &CertifiedKey) -> usize {
    key.cert.iter().map(|certificate| certificate.len()).sum::<usize>() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Hostname {
        Hostname::parse_name(&format!("shop-{number}.brand.com")).unwrap()
    }

    fn parsed(version: u64, bytes: usize) -> Parsed {
        Parsed { version: SiteVersion(version), config: Arc::new(super::super::base_config().unwrap()), bytes }
    }

    #[test]
    fn the_least_recently_used_go_when_the_bytes_run_out() {
        let gauge = Gauge::default();
        let mut memory = Memory::new(300, gauge.clone());
        (0..3).for_each(|number| memory.insert(&name(number), parsed(1, 100)));
        assert!(memory.find(&name(0), SiteVersion(1)).is_some());
        memory.insert(&name(3), parsed(1, 100));
        let here: Vec<_> = (0..4).filter(|&number| memory.find(&name(number), SiteVersion(1)).is_some()).collect();
        assert_eq!(here, [0, 2, 3]);
        memory.remove(&name(0));
        assert_eq!(gauge.value(), 200);
    }

    #[test]
    fn an_older_version_neither_replaces_nor_answers() {
        let mut memory = Memory::new(1000, Gauge::default());
        memory.insert(&name(0), parsed(2, 100));
        memory.insert(&name(0), parsed(1, 100));
        assert!(memory.find(&name(0), SiteVersion(2)).is_some());
        assert!(memory.find(&name(0), SiteVersion(3)).is_none());
        memory.insert(&name(0), parsed(3, 50));
        assert_eq!(memory.bytes, 50);
    }
}
