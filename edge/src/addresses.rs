//! What one client address may take, so that one stranger cannot take it all.
//!
//! Arrives: the address of each connection, and of each of its requests. Leaves: a [`Guest`] while the connection is open. Goes wrong: too
//! many connections open, too many new ones or too many requests in a short time; each is refused with a reason of its own.
//!
//! An IPv6 client owns at least a /64, so that is what counts as its address (RFC 6177). What is remembered is bounded: addresses without
//! a connection are forgotten once their budgets are full again, or when there are too many of them.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::Instant;

use crate::config::AddressLimits;

/// Addresses remembered before those without a connection are looked through.
const SWEEP_AT: usize = 16 * 1024;

/// A refused request or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMuch {
    /// As many connections are open from there as may be.
    Open,
    /// New connections come too fast from there.
    Connections,
    /// Requests come too fast from there.
    Requests,
    /// HTTP/2 streams are opened and reset too fast from there.
    Resets,
}

impl TooMuch {
    /// A stable label for metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Open => "address_open",
            Self::Connections => "address_rate",
            Self::Requests => "address_requests",
            Self::Resets => "address_resets",
        }
    }
}

/// All addresses with a connection, or with one lately.
#[derive(Debug)]
pub(crate) struct Addresses {
    limits: AddressLimits,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    addresses: HashMap<[u8; 16], Arc<Address>>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Address {
    open: AtomicUsize,
    budgets: Mutex<Budgets>,
}

#[derive(Debug)]
struct Budgets {
    at: Instant,
    connections: f64,
    requests: f64,
    resets: f64,
}

impl Addresses {
    pub(crate) fn new(limits: AddressLimits) -> Self {
        Self { limits, known: Mutex::new(Known { sweep_at: SWEEP_AT, ..Known::default() }) }
    }

    /// Takes a connection in.
    ///
    /// # Errors
    /// [`TooMuch`] when the address has taken what it may.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<Guest, TooMuch> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.addresses.len() >= known.sweep_at {
            self.sweep(&mut known);
        }
        let address = Arc::clone(known.addresses.entry(key(client)).or_insert_with(|| Arc::new(Address::new(&self.limits))));
        drop(known);
        if !address.budget(&self.limits, |budgets| &mut budgets.connections) {
            return Err(TooMuch::Connections);
        }
        let guest = Guest(address);
        // Counted before it is judged, so that two at once cannot both take the last place.
        match guest.0.open.fetch_add(1, Ordering::Relaxed) < self.limits.max_open {
            true => Ok(guest),
            false => Err(TooMuch::Open),
        }
    }

    /// Judges a request of a connection.
    ///
    /// # Errors
    /// [`TooMuch::Requests`].
    pub(crate) fn request(&self, guest: &Guest) -> Result<(), TooMuch> {
        if self.limits.requests_per_second == u32::MAX {
            return Ok(());
        }
        guest.0.budget(&self.limits, |budgets| &mut budgets.requests).then_some(()).ok_or(TooMuch::Requests)
    }

    /// Judges a stream that a connection's client reset. Each may have cost the origin a request that nobody waits for.
    ///
    /// # Errors
    /// [`TooMuch::Resets`].
    pub(crate) fn reset(&self, guest: &Guest) -> Result<(), TooMuch> {
        guest.0.budget(&self.limits, |budgets| &mut budgets.resets).then_some(()).ok_or(TooMuch::Resets)
    }

    /// Forgets addresses that would be judged no differently if they were new; and, if those are few, all without a connection.
    fn sweep(&self, known: &mut Known) {
        known.addresses.retain(|_, address| address.is_open() || !address.is_rested(&self.limits));
        if known.addresses.len() > SWEEP_AT / 2 {
            known.addresses.retain(|_, address| address.is_open());
        }
        known.sweep_at = SWEEP_AT.max(known.addresses.len() * 2);
    }
}

/// Ten seconds' worth may come at once.
const BURST_SECONDS: f64 = 10.0;

impl Address {
    fn new(limits: &AddressLimits) -> Self {
        let [connections, requests, resets] = rates(limits).map(full);
        let budgets = Budgets { at: Instant::now(), connections, requests, resets };
        Self { open: AtomicUsize::new(0), budgets: Mutex::new(budgets) }
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    fn is_rested(&self, limits: &AddressLimits) -> bool {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.refill(limits);
        let left = [budgets.connections, budgets.requests, budgets.resets];
        left.into_iter().zip(rates(limits).map(full)).all(|(left, full)| left >= full)
    }

    fn budget(&self, limits: &AddressLimits, which: impl Fn(&mut Budgets) -> &mut f64) -> bool {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.refill(limits);
        let left = which(&mut budgets);
        let enough = *left >= 1.0;
        if enough {
            *left -= 1.0;
        }
        enough
    }
}

impl Budgets {
    fn refill(&mut self, limits: &AddressLimits) {
        let now = Instant::now();
        let passed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        let refilled = |left: f64, rate: u32| (left + passed * f64::from(rate)).min(full(rate));
        self.connections = refilled(self.connections, limits.connections_per_second);
        self.requests = refilled(self.requests, limits.requests_per_second);
        self.resets = refilled(self.resets, limits.resets_per_second);
    }
}

fn rates(limits: &AddressLimits) -> [u32; 3] {
    [limits.connections_per_second, limits.requests_per_second, limits.resets_per_second]
}

fn full(per_second: u32) -> f64 {
    f64::from(per_second) * BURST_SECONDS
}

fn key(client: IpAddr) -> [u8; 16] {
    match client.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            octets
        }
    }
}

/// One connection's place among those of its address; it is given back when dropped.
#[derive(Debug)]
pub(crate) struct Guest(Arc<Address>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn addresses(max_open: usize, connections_per_second: u32) -> Addresses {
        Addresses::new(AddressLimits { max_open, connections_per_second, requests_per_second: 1, resets_per_second: 1 })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_its_share_and_others_have_theirs() {
        let addresses = addresses(2, 100);
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let first = addresses.admit(a).unwrap();
        let _second = addresses.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert_eq!(addresses.admit(a).unwrap_err(), TooMuch::Open);
        let _other = addresses.admit(b).unwrap();
        drop(first);
        addresses.admit(a).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn new_connections_and_requests_have_a_rate_and_a_burst_of_ten_seconds() {
        let addresses = addresses(100, 2);
        let client = ip("2001:db8::1");
        (0..20).for_each(|_| drop(addresses.admit(client).unwrap()));
        assert_eq!(addresses.admit(ip("2001:db8::ffff")).unwrap_err(), TooMuch::Connections);
        addresses.admit(ip("2001:db8:0:1::1")).unwrap();
        tokio::time::advance(Duration::from_millis(500)).await;
        let guest = addresses.admit(client).unwrap();
        assert_eq!(addresses.admit(client).unwrap_err(), TooMuch::Connections);
        (0..10).for_each(|_| addresses.request(&guest).unwrap());
        assert_eq!(addresses.request(&guest), Err(TooMuch::Requests));
        (0..10).for_each(|_| addresses.reset(&guest).unwrap());
        assert_eq!(addresses.reset(&guest), Err(TooMuch::Resets));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_of_strangers_is_bounded() {
        let addresses = addresses(10, 1);
        let of = |number: u32| IpAddr::V4(number.into());
        let kept = addresses.admit(of(0)).unwrap();
        (1..200_000).for_each(|number| drop(addresses.admit(of(number))));
        let known = addresses.known.lock().unwrap();
        assert!(known.addresses.len() <= SWEEP_AT, "{}", known.addresses.len());
        assert!(known.addresses.contains_key(&key(of(0))));
        drop((known, kept));
    }
}
