//! Metrics: their names, and counters and gauges that Prometheus can read.
//!
//! Arrives: additions from any thread. Leaves: the text a scraper reads. Goes wrong: nothing a caller must handle; labels are fixed
//! when compiling or come from closed sets, so that no stranger can grow the registry.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Connections accepted, by port.
pub const CONNECTIONS_TOTAL: &str = "nameplate_edge_connections_total";
/// Connections open now, by port.
pub const CONNECTIONS_OPEN: &str = "nameplate_edge_connections_open";
/// Connections refused or ended by the edge, by reason.
pub const CONNECTIONS_ENDED_TOTAL: &str = "nameplate_edge_connections_ended_total";
/// Handshakes, by outcome.
pub const HANDSHAKES_TOTAL: &str = "nameplate_edge_handshakes_total";
/// Handshakes that resumed a session.
pub const HANDSHAKES_RESUMED_TOTAL: &str = "nameplate_edge_handshakes_resumed_total";
/// Session tickets made, by whose key.
pub const TICKETS_TOTAL: &str = "nameplate_edge_tickets_total";
/// Session tickets that did not open, by reason.
pub const TICKETS_REFUSED_TOTAL: &str = "nameplate_edge_tickets_refused_total";
/// Requests answered, by class of status.
pub const REQUESTS_TOTAL: &str = "nameplate_edge_requests_total";
/// Requests the edge itself refused, by reason.
pub const REQUESTS_REFUSED_TOTAL: &str = "nameplate_edge_requests_refused_total";
/// Bundles, shards and settings refused, by reason.
pub const OBJECTS_REFUSED_TOTAL: &str = "nameplate_edge_objects_refused_total";
/// Reads of the source, by kind.
pub const SOURCE_READS_TOTAL: &str = "nameplate_edge_source_reads_total";
/// Reads of the source that failed, by kind.
pub const SOURCE_ERRORS_TOTAL: &str = "nameplate_edge_source_errors_total";
/// Names served.
pub const NAMES_KNOWN: &str = "nameplate_edge_names_known";
/// Names whose newest bundle is not on the local disk yet.
pub const BUNDLES_COLD: &str = "nameplate_edge_bundles_cold";
/// Bytes of parsed certified keys in memory.
pub const CERTIFICATE_CACHE_BYTES: &str = "nameplate_edge_certificate_cache_bytes";
/// Look-ups of parsed certified keys, by where they were found.
pub const CERTIFICATE_LOOKUPS_TOTAL: &str = "nameplate_edge_certificate_lookups_total";

/// Answers begun, by how long they took to begin.
pub const FIRST_BYTE_SECONDS: &str = "nameplate_edge_first_byte_seconds";
/// Requests of the tenants with the most of them.
pub const TENANT_REQUESTS_TOTAL: &str = "nameplate_edge_tenant_requests_total";
/// Requests of the same tenants answered with 5xx.
pub const TENANT_FAILURES_TOTAL: &str = "nameplate_edge_tenant_failures_total";
/// Seconds since the whole index was last compared with the source.
pub const INDEX_AGE_SECONDS: &str = "nameplate_edge_index_age_seconds";
/// How far the index is: the sum of its shards' generations.
pub const INDEX_GENERATION: &str = "nameplate_edge_index_generation";
/// When the first certificate in service ends.
pub const CERTIFICATE_EARLIEST_EXPIRY: &str = "nameplate_edge_certificate_earliest_expiry_timestamp_seconds";
/// Certificates in service that end within a week, or have ended.
pub const CERTIFICATES_EXPIRING: &str = "nameplate_edge_certificates_expiring_within_7d";
/// Certificates in service whose end is not known.
pub const CERTIFICATES_EXPIRY_UNKNOWN: &str = "nameplate_edge_certificates_expiry_unknown";
/// Lines of the access log that nobody could take in time.
pub const ACCESS_LOG_DROPPED_TOTAL: &str = "nameplate_edge_access_log_dropped_total";
/// Which version runs.
pub const BUILD_INFO: &str = "nameplate_edge_build_info";

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds some.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes both ways.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Sets the number.
    pub fn set(&self, value: usize) {
        self.0.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Adds one until the guard is dropped.
    pub fn hold(&self) -> GaugeHold {
        self.0.fetch_add(1, Ordering::Relaxed);
        GaugeHold(self.clone())
    }

    /// The number now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One unit of a [`Gauge`], given back when dropped.
#[derive(Debug)]
pub struct GaugeHold(Gauge);

impl Drop for GaugeHold {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The upper ends of a [`Histogram`]'s buckets, in milliseconds: from an origin on the same machine to one that gives up.
const BUCKET_MILLIS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 5000, 30_000];

/// How long things took: a count for each bucket of time.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    /// Each without those before it; the last is for what is longer than all.
    counts: [AtomicU64; BUCKET_MILLIS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKET_MILLIS.partition_point(|end| end * 1000 < micros);
        self.0.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn write(&self, text: &mut String, name: &str) {
        let mut sum = 0;
        for (bucket, count) in self.0.counts.iter().enumerate() {
            sum += count.load(Ordering::Relaxed);
            let end = BUCKET_MILLIS.get(bucket).map_or_else(|| "+Inf".to_owned(), |&millis| seconds(millis * 1000));
            let _ = writeln!(text, "{name}_bucket{{le=\"{end}\"}} {sum}");
        }
        let _ = writeln!(text, "{name}_sum {}\n{name}_count {sum}", seconds(self.0.sum_micros.load(Ordering::Relaxed)));
    }
}

/// Microseconds as seconds, exactly.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// All counters, gauges and histograms of one program.
#[derive(Debug, Default)]
pub struct Metrics {
    series: RwLock<BTreeMap<&'static str, Family>>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    values: BTreeMap<Option<(&'static str, &'static str)>, Value>,
}

#[derive(Clone, Debug)]
enum Value {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl Metrics {
    /// The counter of this name and label; made when it is first asked for.
    ///
    /// Labels are `&'static str` on purpose: a series a stranger can name is memory a stranger can take.
    pub fn counter(&self, name: &'static str, help: &'static str, label: Option<(&'static str, &'static str)>) -> Counter {
        match self.value(name, help, label, || Value::Counter(Counter::default())) {
            Value::Counter(counter) => counter,
            // A name used for two kinds is a mistake of ours: what is counted then goes nowhere, and nothing else suffers.
            _ => Counter::default(),
        }
    }

    /// The gauge of this name and label; made when it is first asked for.
    pub fn gauge(&self, name: &'static str, help: &'static str, label: Option<(&'static str, &'static str)>) -> Gauge {
        match self.value(name, help, label, || Value::Gauge(Gauge::default())) {
            Value::Gauge(gauge) => gauge,
            _ => Gauge::default(),
        }
    }

    /// The histogram of this name; made when it is first asked for.
    pub fn histogram(&self, name: &'static str, help: &'static str) -> Histogram {
        match self.value(name, help, None, || Value::Histogram(Histogram::default())) {
            Value::Histogram(histogram) => histogram,
            _ => Histogram::default(),
        }
    }

    /// Writes every series in Prometheus' text format.
    ///
    /// Source: Prometheus, "Exposition formats", version 0.0.4.
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        for (name, family) in self.series.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let kind = match family.values.values().next() {
                Some(Value::Gauge(_)) => "gauge",
                Some(Value::Histogram(_)) => "histogram",
                _ => "counter",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (label, value) in &family.values {
                let label = label.map_or_else(String::new, |(key, value)| format!("{{{key}=\"{value}\"}}"));
                let _ = match value {
                    Value::Counter(counter) => writeln!(text, "{name}{label} {}", counter.value()),
                    Value::Gauge(gauge) => writeln!(text, "{name}{label} {}", gauge.value()),
                    Value::Histogram(histogram) => {
                        histogram.write(&mut text, name);
                        Ok(())
                    }
                };
            }
        }
        text
    }

    fn value(
        &self,
        name: &'static str,
        help: &'static str,
        label: Option<(&'static str, &'static str)>,
        make: impl FnOnce() -> Value,
    ) -> Value {
        let known = |series: &BTreeMap<&'static str, Family>| series.get(name).and_then(|family| family.values.get(&label)).cloned();
        if let Some(value) = known(&self.series.read().unwrap_or_else(PoisonError::into_inner)) {
            return value;
        }
        let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let family = series.entry(name).or_insert_with(|| Family { help, values: BTreeMap::new() });
        family.values.entry(label).or_insert_with(make).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_written_as_prometheus_reads_them() {
        let metrics = Metrics::default();
        metrics.counter(HANDSHAKES_TOTAL, "Handshakes, by outcome.", Some(("outcome", "done"))).add(2);
        metrics.counter(HANDSHAKES_TOTAL, "Handshakes, by outcome.", Some(("outcome", "done"))).increment();
        let gauge = metrics.gauge(NAMES_KNOWN, "Names served.", None);
        gauge.set(7);
        let hold = gauge.hold();
        assert_eq!(
            metrics.to_prometheus(),
            "# HELP nameplate_edge_handshakes_total Handshakes, by outcome.\n\
             # TYPE nameplate_edge_handshakes_total counter\n\
             nameplate_edge_handshakes_total{outcome=\"done\"} 3\n\
             # HELP nameplate_edge_names_known Names served.\n\
             # TYPE nameplate_edge_names_known gauge\n\
             nameplate_edge_names_known 8\n"
        );
        drop(hold);
        assert_eq!(gauge.value(), 7);
    }

    #[test]
    fn a_histogram_counts_each_time_in_every_bucket_that_reaches_it() {
        let metrics = Metrics::default();
        let took = metrics.histogram(FIRST_BYTE_SECONDS, "Answers begun.");
        for micros in [1000, 1001, 40_000, 60_000_000] {
            took.observe(Duration::from_micros(micros));
        }
        let text = metrics.to_prometheus();
        for line in [
            "_bucket{le=\"0.001\"} 1",
            "_bucket{le=\"0.002\"} 2",
            "_bucket{le=\"0.05\"} 3",
            "_bucket{le=\"30\"} 3",
            "_bucket{le=\"+Inf\"} 4",
            "_sum 60.042001",
            "_count 4",
        ] {
            assert!(text.contains(&format!("{FIRST_BYTE_SECONDS}{line}\n")), "{line}: {text}");
        }
    }
}
