//! Where the names of one shard lie: rows in the order they came, and a table of their numbers.
//!
//! Arrives: names with what is known of them. Leaves: the row of a name. Goes wrong: nothing; a name that is gone keeps its row, because its
//! tombstone must be remembered.

use std::{collections::hash_map::RandomState, hash::BuildHasher, sync::LazyLock};

use bundles::{Digest, IndexEntry, UnixSeconds};
use domains::{Hostname, SiteVersion, TenantId};
use hashbrown::HashTable;

use super::Served;

/// Names are chosen by strangers, so where they lie is not theirs to know.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Rows, each found by its hostname.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<Row>,
    numbers: HashTable<u32>,
}

/// All that is known of a name.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) hostname: Hostname,
    pub(super) version: SiteVersion,
    pub(super) digest: Digest,
    pub(super) holder: Holder,
    pub(super) in_service: InService,
}

/// Whose a name is.
#[derive(Debug)]
pub(super) enum Holder {
    Tenant(TenantId),
    /// Nobody's, since then.
    Removed(UnixSeconds),
}

/// What is served for a name.
#[derive(Debug)]
pub(super) enum InService {
    Nothing,
    /// What the index says; its certificate ends then.
    AsIndexed(UnixSeconds),
    /// Something else: older, or with an origin of its own.
    Other(Box<Served>),
}

impl Table {
    pub(super) fn find(&self, hostname: &Hostname) -> Option<&Row> {
        self.number(hostname).map(|number| &self.rows[number])
    }

    pub(super) fn find_mut(&mut self, hostname: &Hostname) -> Option<&mut Row> {
        self.number(hostname).map(|number| &mut self.rows[number])
    }

    fn number(&self, hostname: &Hostname) -> Option<usize> {
        let number = self.numbers.find(hash(hostname), |&number| self.rows[number as usize].hostname == *hostname);
        number.map(|&number| number as usize)
    }

    /// Adds the row of a name that has none.
    pub(super) fn push(&mut self, row: Row) {
        let number = u32::try_from(self.rows.len()).expect("a shard's object has room for fewer names than that");
        let (hash, rows) = (hash(&row.hostname), &self.rows);
        self.numbers.insert_unique(hash, number, |&number| self::hash(&rows[number as usize].hostname));
        self.rows.push(row);
    }

    /// Makes room for so many names in all, so that none is wasted when a whole shard comes.
    pub(super) fn expect(&mut self, names: usize) {
        let more = names.saturating_sub(self.rows.len());
        let rows = &self.rows;
        self.numbers.reserve(more, |&number| hash(&rows[number as usize].hostname));
        self.rows.reserve_exact(more);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }
}

fn hash(hostname: &Hostname) -> u64 {
    HASHER.hash_one(hostname.as_str())
}

impl Row {
    pub(super) fn is_tombstone(&self) -> bool {
        matches!(self.holder, Holder::Removed(_))
    }

    pub(super) fn tenant(&self) -> Option<&TenantId> {
        match &self.holder {
            Holder::Tenant(tenant) => Some(tenant),
            Holder::Removed(_) => None,
        }
    }

    /// Whether what is served, if anything, is older than what the index says.
    pub(super) fn is_wanted(&self) -> bool {
        let behind = match &self.in_service {
            InService::Nothing => true,
            InService::AsIndexed(_) => false,
            InService::Other(served) => served.version < self.version,
        };
        behind && !self.is_tombstone()
    }

    /// As the index has it.
    pub(super) fn entry(&self) -> IndexEntry {
        let (tenant, removed_at) = match &self.holder {
            Holder::Tenant(tenant) => (Some(tenant.clone()), None),
            Holder::Removed(at) => (None, Some(*at)),
        };
        IndexEntry { version: self.version, tenant, removed_at, digest: self.digest }
    }

    pub(super) fn served(&self) -> Option<Served> {
        match (&self.in_service, &self.holder) {
            (InService::AsIndexed(not_after), Holder::Tenant(tenant)) => {
                Some(Served { version: self.version, tenant: tenant.clone(), digest: self.digest, not_after: *not_after, origin: None })
            }
            (InService::Other(served), _) => Some(Served::clone(served)),
            (InService::Nothing, _) | (InService::AsIndexed(_), Holder::Removed(_)) => None,
        }
    }

    /// Takes over what the index says now; what is served stays what it was.
    pub(super) fn replace(&mut self, version: SiteVersion, digest: Digest, holder: Holder) {
        let served = self.served();
        (self.version, self.digest, self.holder) = (version, digest, holder);
        self.in_service = served.map_or(InService::Nothing, |served| InService::Other(Box::new(served)));
    }

    /// Takes something into service, and gives back what it replaced.
    pub(super) fn serve(&mut self, accepted: Served) -> Option<Served> {
        let replaced = self.unserve();
        let told = accepted.version == self.version && accepted.digest == self.digest && self.tenant() == Some(&accepted.tenant);
        let as_indexed = told && accepted.origin.is_none();
        self.in_service = if as_indexed { InService::AsIndexed(accepted.not_after) } else { InService::Other(Box::new(accepted)) };
        replaced
    }

    pub(super) fn unserve(&mut self) -> Option<Served> {
        let served = self.served();
        self.in_service = InService::Nothing;
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_stays_small_because_there_may_be_millions() {
        assert!(size_of::<Row>() <= 88, "{}", size_of::<Row>());
    }

    #[test]
    fn every_name_is_found_again_and_no_other() {
        let name = |number: u32| Hostname::parse_name(&format!("shop-{number}.brand.com")).unwrap();
        let row = |number: u32| Row {
            hostname: name(number),
            version: SiteVersion(number.into()),
            digest: Digest::of(&[]),
            holder: Holder::Removed(0),
            in_service: InService::Nothing,
        };
        let mut table = Table::default();
        table.expect(10);
        (0..3000).for_each(|number| table.push(row(number)));
        assert!((0..3000).all(|number| table.find(&name(number)).unwrap().version.0 == u64::from(number)));
        assert!(table.find(&name(3000)).is_none());
        table.find_mut(&name(7)).unwrap().version = SiteVersion(9);
        assert_eq!(table.find(&name(7)).unwrap().version.0, 9);
    }
}
