//! When it will be done, before it is begun: the ledger's own moves, played through in memory.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CaLimits, Lane, LedgerMove, OrderKind, Reservation, Reserved, rules::REMEMBERED};
use crate::{Hostname, StoreError, TenantId};

/// A ledger that is nowhere stored: for forecasts and for tests of the rules.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger {
    items: HashMap<String, String>,
}

impl MemoryLedger {
    /// A ledger that stands as these items say.
    pub fn standing_at(items: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { items: items.into_iter().collect() }
    }

    /// Makes a move.
    ///
    /// # Errors
    /// As [`LedgerMove::decide`].
    pub fn apply(&mut self, entry: &LedgerMove, now: Timestamp) -> Result<Reserved, StoreError> {
        let items: Vec<Option<String>> = entry.names().iter().map(|name| self.items.get(name).cloned()).collect();
        let (answer, writes) = entry.decide(&items, now)?;
        self.items.extend(writes.into_iter().map(|write| (write.name, write.item)));
        Ok(answer)
    }

    /// An item as it stands.
    pub fn item(&self, name: &str) -> Option<&str> {
        self.items.get(name).map(String::as_str)
    }
}

/// When a plan's names will be ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// How many names.
    pub names: usize,
    /// When the last order is made; a few seconds later its certificate is there.
    pub done_at: Timestamp,
    /// The limit that the last order waited for; `None` when none waited.
    pub bottleneck: Option<String>,
    /// By registered domain, the slowest first.
    pub domains: Vec<DomainForecast>,
    /// How often a name looked for its turn, all names together.
    pub looks: usize,
}

/// When the names of one registered domain will be ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainForecast {
    /// The registered domain.
    pub domain: String,
    /// How many of its names are in the plan.
    pub names: usize,
    /// When the last of them is ordered.
    pub done_at: Timestamp,
    /// The limit that the last of them waited for.
    pub bottleneck: Option<String>,
}

/// Plays the ledger's moves for new names that all come now, in this order, each looking again exactly when it was told to.
///
/// # Errors
/// [`StoreError::Defect`] when an item of `ledger` does not read.
pub fn forecast(
    limits: &CaLimits,
    mut ledger: MemoryLedger,
    names: &[(Hostname, TenantId)],
    now: Timestamp,
) -> Result<Forecast, StoreError> {
    let mut turns: BinaryHeap<Reverse<(Timestamp, usize)>> = (0..names.len()).map(|index| Reverse((now, index))).collect();
    let mut waited: Vec<Option<String>> = vec![None; names.len()];
    let mut domains: BTreeMap<String, DomainForecast> = BTreeMap::new();
    let mut done = Forecast { names: names.len(), done_at: now, bottleneck: None, domains: Vec::new(), looks: 0 };
    while let Some(Reverse((at, index))) = turns.pop() {
        let (hostname, tenant) = &names[index];
        let entry = LedgerMove::Reserve(Reservation {
            attempt: format!("plan|{index}"),
            tenant: tenant.clone(),
            lane: Lane::New,
            needs: limits.needs(hostname, OrderKind::New, Lane::New),
            remembered: REMEMBERED,
        });
        done.looks += 1;
        match ledger.apply(&entry, at)? {
            Reserved::Wait(wait) => {
                waited[index] = Some(limits.told(&wait.bucket));
                turns.push(Reverse((wait.until, index)));
            }
            Reserved::Granted => {
                let domain = hostname.registered_domain().unwrap_or(hostname.base()).to_owned();
                let bottleneck = waited[index].take();
                let told = domains.entry(domain.clone()).or_insert(DomainForecast { domain, names: 0, done_at: at, bottleneck: None });
                told.names += 1;
                (told.done_at, told.bottleneck) = (at, bottleneck.clone());
                (done.done_at, done.bottleneck) = (at, bottleneck);
            }
        }
    }
    done.domains = domains.into_values().collect();
    done.domains.sort_by(|one, other| other.done_at.cmp(&one.done_at).then_with(|| one.domain.cmp(&other.domain)));
    Ok(done)
}
