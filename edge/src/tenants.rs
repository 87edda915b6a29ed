//! Requests by tenant, for the tenants that matter most now.
//!
//! Arrives: a tenant at each handshake, and its answers. Leaves: counters of a settable number of tenants, and one for all others. Goes
//! wrong: nothing; however many tenants there are, a fixed number of seats is kept, and who is not seated is counted with the others.
//!
//! A tenant takes a seat when it connects; when all are taken, the seat of whom was asked for least lately is given away, and its count
//! inherited, so that a newcomer is overrated at most by that much (Metwally, Agrawal, El Abbadi: "Efficient computation of frequent and
//! top-k elements in data streams", 2005). A request costs relaxed additions to a seat its connection already holds.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use domains::TenantId;
use http::StatusCode;
use telemetry::metrics::{TENANT_FAILURES_TOTAL, TENANT_REQUESTS_TOTAL};

/// Seats for each tenant that is shown: enough that a rising one is seen before it is large.
const SEATS_PER_SHOWN: usize = 5;

/// The label of all who are not shown. No tenant can have it: ids have no parentheses.
pub(crate) const OTHERS: &str = "(other)";

/// What is counted for one tenant.
#[derive(Debug, Default)]
pub(crate) struct Seat {
    /// What ranks it; halved with each reading, so that old traffic fades.
    recent: AtomicU64,
    is_shown: AtomicBool,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    failures: AtomicU64,
}

impl Counts {
    fn add(&self, status: StatusCode) {
        self.requests.fetch_add(1, Relaxed);
        if status.is_server_error() {
            self.failures.fetch_add(1, Relaxed);
        }
    }
}

/// Counts for the tenants shown, and the others.
#[derive(Debug)]
pub(crate) struct Tenants {
    shown: usize,
    seats: Mutex<HashMap<TenantId, Arc<Seat>>>,
    others: Counts,
}

impl Tenants {
    /// Shows so many tenants by name.
    pub(crate) fn new(shown: usize) -> Self {
        Self { shown, seats: Mutex::default(), others: Counts::default() }
    }

    /// The seat of a tenant, for a connection to hold.
    pub(crate) fn seat(&self, tenant: &TenantId) -> Arc<Seat> {
        if self.shown == 0 {
            return Arc::default();
        }
        let mut seats = self.seats();
        if let Some(seat) = seats.get(tenant) {
            return Arc::clone(seat);
        }
        let mut inherited = 0;
        if seats.len() >= self.shown * SEATS_PER_SHOWN {
            let hidden = seats.iter().filter(|(_, seat)| !seat.is_shown.load(Relaxed));
            let least = hidden.map(|(tenant, seat)| (seat.recent.load(Relaxed), tenant)).min_by_key(|(recent, _)| *recent);
            if let Some((recent, tenant)) = least.map(|(recent, tenant)| (recent, tenant.clone())) {
                inherited = recent;
                seats.remove(&tenant);
            }
        }
        let is_shown = seats.len() < self.shown;
        let seat = Seat { recent: AtomicU64::new(inherited), is_shown: AtomicBool::new(is_shown), counts: Counts::default() };
        let seat = Arc::new(seat);
        seats.insert(tenant.clone(), Arc::clone(&seat));
        seat
    }

    /// A request of the seat's tenant was answered.
    pub(crate) fn answered(&self, seat: &Seat, status: StatusCode) {
        seat.recent.fetch_add(1, Relaxed);
        match seat.is_shown.load(Relaxed) {
            true => seat.counts.add(status),
            false => self.others.add(status),
        }
    }

    /// Chooses anew who is shown, and writes the counters in Prometheus' text format.
    pub(crate) fn to_prometheus(&self) -> String {
        let seats = self.seats();
        choose(&seats);
        let mut shown: Vec<_> = seats.iter().filter(|(_, seat)| seat.is_shown.load(Relaxed)).collect();
        shown.sort_by(|(a, _), (b, _)| a.as_str().cmp(b.as_str()));
        let mut text = String::new();
        for (name, help, of) in [
            (TENANT_REQUESTS_TOTAL, "Requests answered, for the tenants with the most of them.", (|counts| &counts.requests) as Of),
            (TENANT_FAILURES_TOTAL, "Requests answered with a status of 5xx, for the same tenants.", |counts| &counts.failures),
        ] {
            // Writing to a String cannot fail; ids have no character that a label would have to escape (TenantId::PATTERN).
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter");
            for (tenant, seat) in &shown {
                let _ = writeln!(text, "{name}{{tenant=\"{}\"}} {}", tenant.as_str(), of(&seat.counts).load(Relaxed));
            }
            let _ = writeln!(text, "{name}{{tenant=\"{OTHERS}\"}} {}", of(&self.others).load(Relaxed));
        }
        text
    }

    fn seats(&self) -> MutexGuard<'_, HashMap<TenantId, Arc<Seat>>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Of = fn(&Counts) -> &AtomicU64;

/// Shows whoever had more than twice the requests of the least of those shown, in its place: less would make series come and go.
fn choose(seats: &HashMap<TenantId, Arc<Seat>>) {
    let (mut shown, mut hidden): (Vec<_>, Vec<_>) =
        seats.values().map(|seat| (seat.recent.load(Relaxed), seat)).partition(|(_, seat)| seat.is_shown.load(Relaxed));
    shown.sort_by_key(|(recent, _)| *recent);
    hidden.sort_by_key(|(recent, _)| std::cmp::Reverse(*recent));
    for ((least, out), (most, into)) in shown.iter().zip(&hidden) {
        if *most / 2 <= *least {
            break;
        }
        out.is_shown.store(false, Relaxed);
        // Shown again one day, it begins again, as a counter of a restarted process does.
        out.counts.requests.store(0, Relaxed);
        out.counts.failures.store(0, Relaxed);
        into.is_shown.store(true, Relaxed);
    }
    for (recent, seat) in shown.iter().chain(&hidden) {
        seat.recent.fetch_sub(recent - recent / 2, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u32) -> TenantId {
        TenantId::parse(&format!("t{number}")).unwrap()
    }

    fn ask(tenants: &Tenants, number: u32, times: u32) {
        let seat = tenants.seat(&tenant(number));
        (0..times).for_each(|_| tenants.answered(&seat, StatusCode::OK));
    }

    #[test]
    fn a_million_tenants_take_no_more_seats_than_a_few() {
        let tenants = Tenants::new(3);
        (0..1_000_000).for_each(|number| ask(&tenants, number, 1));
        assert_eq!(tenants.seats().len(), 3 * SEATS_PER_SHOWN);
        let text = tenants.to_prometheus();
        assert_eq!(text.lines().filter(|line| line.starts_with(TENANT_REQUESTS_TOTAL)).count(), 4);
        assert!(text.contains(&format!("{TENANT_REQUESTS_TOTAL}{{tenant=\"(other)\"}} 999997\n")), "{text}");
    }

    #[test]
    fn a_tenant_that_grows_large_late_is_shown_and_counted_from_then_on() {
        let tenants = Tenants::new(2);
        (0..1000).for_each(|number| ask(&tenants, number, 1));
        ask(&tenants, 5000, 500);
        let _ = tenants.to_prometheus();
        ask(&tenants, 5000, 7);
        let text = tenants.to_prometheus();
        assert!(text.contains(&format!("{TENANT_REQUESTS_TOTAL}{{tenant=\"t5000\"}} 7\n")), "{text}");
    }

    #[test]
    fn none_is_shown_where_none_is_wanted() {
        let tenants = Tenants::new(0);
        let seat = tenants.seat(&tenant(1));
        tenants.answered(&seat, StatusCode::BAD_GATEWAY);
        assert!(tenants.to_prometheus().contains(&format!("{TENANT_FAILURES_TOTAL}{{tenant=\"(other)\"}} 1\n")));
        assert!(!tenants.to_prometheus().contains("t1"));
    }
}
