//! What the edge counts.
//!
//! Arrives: events from every part. Leaves: numbers on the private port. Goes wrong: nothing; labels are fixed when compiling, so no
//! stranger can grow them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use telemetry::metrics::{self, Counter, Gauge, Histogram, Metrics};

use crate::{names::Expiry, tenants::Tenants};

/// Why a session ticket did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedTicket {
    /// It is none of ours.
    Malformed,
    /// Its key has ended, or was another process's.
    UnknownKey,
    /// It is of another site, of an earlier version of this one, or altered.
    OtherSite,
}

/// The edge's counters and gauges. The hot ones are looked up once.
#[derive(Clone, Debug)]
pub(crate) struct EdgeMetrics {
    pub(crate) registry: Arc<Metrics>,
    pub(crate) names_known: Gauge,
    pub(crate) bundles_cold: Gauge,
    pub(crate) certificate_cache_bytes: Gauge,
    pub(crate) certificate_memory: Counter,
    pub(crate) certificate_disk: Counter,
    pub(crate) certificate_source: Counter,
    pub(crate) open_https: Gauge,
    pub(crate) accepted_https: Counter,
    pub(crate) access_log_dropped: Counter,
    pub(crate) resumed: Counter,
    pub(crate) tickets_own: Counter,
    pub(crate) tickets_shared: Counter,
    tickets_refused: [Counter; 3],
    pub(crate) first_byte: Histogram,
    pub(crate) tenants: Arc<Tenants>,
    responses: [Counter; 5],
    began: Instant,
    /// When the whole index was last compared with the source, in seconds since `began`.
    index_read: Arc<AtomicU64>,
}

impl EdgeMetrics {
    /// With so many tenants shown by name.
    pub(crate) fn new(tenants: usize) -> Self {
        let registry = Arc::new(Metrics::default());
        let lookups =
            |place| registry.counter(metrics::CERTIFICATE_LOOKUPS_TOTAL, "Certified keys by where they were found.", Some(("from", place)));
        let responses =
            |class| registry.counter(metrics::REQUESTS_TOTAL, "Requests answered, by class of status.", Some(("status", class)));
        let tickets = |key| registry.counter(metrics::TICKETS_TOTAL, "Session tickets made, by whose key.", Some(("key", key)));
        let refused = |reason| {
            registry.counter(metrics::TICKETS_REFUSED_TOTAL, "Session tickets that did not open, by reason.", Some(("reason", reason)))
        };
        Self {
            names_known: registry.gauge(metrics::NAMES_KNOWN, "Names in the index that are not removed.", None),
            bundles_cold: registry.gauge(metrics::BUNDLES_COLD, "Names whose newest bundle is not on the local disk.", None),
            certificate_cache_bytes: registry.gauge(metrics::CERTIFICATE_CACHE_BYTES, "Bytes of parsed certified keys in memory.", None),
            certificate_memory: lookups("memory"),
            certificate_disk: lookups("disk"),
            certificate_source: lookups("source"),
            open_https: registry.gauge(metrics::CONNECTIONS_OPEN, "Connections open.", Some(("port", "https"))),
            accepted_https: registry.counter(metrics::CONNECTIONS_TOTAL, "Connections accepted.", Some(("port", "https"))),
            responses: [responses("1xx"), responses("2xx"), responses("3xx"), responses("4xx"), responses("5xx")],
            access_log_dropped: registry.counter(metrics::ACCESS_LOG_DROPPED_TOTAL, "Lines of the access log that were dropped.", None),
            resumed: registry.counter(metrics::HANDSHAKES_RESUMED_TOTAL, "Handshakes that resumed a session.", None),
            tickets_own: tickets("process"),
            tickets_shared: tickets("shared"),
            tickets_refused: [refused("malformed"), refused("unknown_key"), refused("other_site")],
            first_byte: registry.histogram(metrics::FIRST_BYTE_SECONDS, "From a request's header to that of its answer."),
            tenants: Arc::new(Tenants::new(tenants)),
            began: Instant::now(),
            index_read: Arc::default(),
            registry,
        }
    }

    /// The whole index was compared with the source.
    pub(crate) fn index_read(&self) {
        self.index_read.store(self.began.elapsed().as_secs(), Ordering::Relaxed);
    }

    /// Everything as Prometheus reads it, with what is only looked up when somebody asks.
    pub(crate) fn to_prometheus(&self, (known, served): (usize, usize), generation: u64, expiry: Expiry) -> String {
        let gauge = |name, help, value: u64| self.registry.gauge(name, help, None).set(usize::try_from(value).unwrap_or(usize::MAX));
        self.names_known.set(known);
        self.bundles_cold.set(known.saturating_sub(served));
        let age = self.began.elapsed().as_secs().saturating_sub(self.index_read.load(Ordering::Relaxed));
        gauge(metrics::INDEX_AGE_SECONDS, "Seconds since the whole index was last compared with the source, or since the start.", age);
        gauge(metrics::INDEX_GENERATION, "Sum of the generations of the index's shards.", generation);
        let earliest = u64::try_from(expiry.earliest.unwrap_or_default()).unwrap_or_default();
        gauge(metrics::CERTIFICATE_EARLIEST_EXPIRY, "Hour in which the first certificate in service ends, 0 when there is none.", earliest);
        gauge(metrics::CERTIFICATES_EXPIRING, "Certificates in service that end within 7 days or have ended.", expiry.within as u64);
        gauge(metrics::CERTIFICATES_EXPIRY_UNKNOWN, "Certificates in service whose end is not known.", expiry.unknown as u64);
        let version = Some(("version", env!("CARGO_PKG_VERSION")));
        self.registry.gauge(metrics::BUILD_INFO, "1, labelled with the version that runs.", version).set(1);
        self.registry.to_prometheus() + &self.tenants.to_prometheus()
    }

    /// A request was answered.
    pub(crate) fn answered(&self, status: http::StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.responses[class - 1].increment();
    }

    /// The edge itself refused a request.
    pub(crate) fn request_refused(&self, reason: &'static str) {
        self.registry
            .counter(metrics::REQUESTS_REFUSED_TOTAL, "Requests the edge refused, by reason.", Some(("reason", reason)))
            .increment();
    }

    /// A bundle, a shard or the settings were refused.
    pub(crate) fn object_refused(&self, reason: &'static str) {
        self.registry
            .counter(metrics::OBJECTS_REFUSED_TOTAL, "Objects of the source that were refused, by reason.", Some(("reason", reason)))
            .increment();
    }

    /// A handshake ended.
    pub(crate) fn handshake(&self, outcome: &'static str) {
        self.registry.counter(metrics::HANDSHAKES_TOTAL, "Handshakes, by outcome.", Some(("outcome", outcome))).increment();
    }

    /// A session ticket did not open. Strangers may send many, so this takes no lock.
    pub(crate) fn ticket_refused(&self, why: RefusedTicket) {
        self.tickets_refused[why as usize].increment();
    }

    /// The edge ended or refused a connection.
    pub(crate) fn connection_ended(&self, reason: &'static str) {
        self.registry
            .counter(metrics::CONNECTIONS_ENDED_TOTAL, "Connections the edge refused or ended, by reason.", Some(("reason", reason)))
            .increment();
    }

    /// The source was read.
    pub(crate) fn source_read(&self, kind: &'static str) {
        self.registry.counter(metrics::SOURCE_READS_TOTAL, "Reads of the source, by kind.", Some(("kind", kind))).increment();
    }

    /// A read of the source failed: it said so (`failed`), or said nothing in time (`timeout`).
    pub(crate) fn source_failed(&self, kind: &'static str) {
        self.registry.counter(metrics::SOURCE_ERRORS_TOTAL, "Reads of the source that failed, by kind.", Some(("kind", kind))).increment();
    }
}
