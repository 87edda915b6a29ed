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
};

/// Connections accepted, by port.
pub const CONNECTIONS_TOTAL: &str = "nameplate_edge_connections_total";
/// Connections open now, by port.
pub const CONNECTIONS_OPEN: &str = "nameplate_edge_connections_open";
/// Connections refused or ended by the edge, by reason.
pub const CONNECTIONS_ENDED_TOTAL: &str = "nameplate_edge_connections_ended_total";
/// Handshakes, by outcome.
pub const HANDSHAKES_TOTAL: &str = "nameplate_edge_handshakes_total";
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

/// All counters and gauges of one program.
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
}

impl Metrics {
    /// The counter of this name and label; made when it is first asked for.
    ///
    /// Labels are `&'static str` on purpose: a series a stranger can name is memory a stranger can take.
    pub fn counter(&self, name: &'static str, help: &'static str, label: Option<(&'static str, &'static str)>) -> Counter {
        match self.value(name, help, label, || Value::Counter(Counter::default())) {
            Value::Counter(counter) => counter,
            // A name used for both kinds is a mistake of ours: what is counted then goes nowhere, and nothing else suffers.
            Value::Gauge(_) => Counter::default(),
        }
    }

    /// The gauge of this name and label; made when it is first asked for.
    pub fn gauge(&self, name: &'static str, help: &'static str, label: Option<(&'static str, &'static str)>) -> Gauge {
        match self.value(name, help, label, || Value::Gauge(Gauge::default())) {
            Value::Gauge(gauge) => gauge,
            Value::Counter(_) => Gauge::default(),
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
                _ => "counter",
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", family.help);
            for (label, value) in &family.values {
                let label = label.map_or_else(String::new, |(key, value)| format!("{{{key}=\"{value}\"}}"));
                let _ = match value {
                    Value::Counter(counter) => writeln!(text, "{name}{label} {}", counter.value()),
                    Value::Gauge(gauge) => writeln!(text, "{name}{label} {}", gauge.value()),
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
}
