//! The names this edge knows: the index in memory.
//!
//! Arrives: index shards, and bundles that were accepted. Leaves: for any name, whose it is and which version is served. Goes wrong: a
//! shard of a lower generation is refused. Nothing here ever goes backwards: versions only rise, and a name goes only by a tombstone.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use bundles::{BundleError, Digest, IndexEntry, IndexShard, UnixSeconds, check_replacement, shard_of};
use domains::{Hostname, OriginName, SiteVersion, TenantId};

/// What is served for a name: a bundle that was accepted and is on the local disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) version: SiteVersion,
    pub(crate) tenant: TenantId,
    pub(crate) digest: Digest,
    /// When its certificate ends; 0 where a disk written before this was noted did not say.
    pub(crate) not_after: UnixSeconds,
    /// The origin its requests go to; `None` is the usual one.
    pub(crate) origin: Option<OriginName>,
}

/// A name that is served, or will be once its bundle was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// The name in the index: the one asked for, or the wildcard that covers it.
    pub(crate) hostname: Hostname,
    pub(crate) tenant: TenantId,
    /// The version on the local disk, `None` while there is none.
    pub(crate) served: Option<SiteVersion>,
    /// The origin its requests go to, as far as what is served says.
    pub(crate) origin: Option<OriginName>,
}

/// A name that a shard changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A newer version than the one served should be read; `cold` when none is served.
    Wanted { hostname: Hostname, cold: bool },
    /// What was served for the name is gone; a newer version may be wanted all the same.
    Removed(Hostname),
}

/// A shard says less than we already know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index shard {shard:02x} has generation {offered}, but generation {have} was already seen")]
pub(crate) struct LowerGeneration {
    pub(crate) shard: u8,
    pub(crate) have: u64,
    pub(crate) offered: u64,
}

/// The names, under one lock that is only ever held for a look or a step.
#[derive(Debug)]
pub(crate) struct Names(RwLock<Tables>);

#[derive(Debug)]
struct Tables {
    /// Every entry ever seen, at its highest version.
    shards: Vec<IndexShard>,
    /// What may be handed out now.
    served: HashMap<Hostname, Served>,
    present: usize,
    /// How many of `served` end in each hour since 1970.
    ends: BTreeMap<i64, usize>,
}

/// When the certificates in service end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry {
    /// The beginning of the hour in which the first one does.
    pub(crate) earliest: Option<UnixSeconds>,
    /// How many do within a week, or did.
    pub(crate) within: usize,
    /// How many do not say.
    pub(crate) unknown: usize,
}

const HOUR_SECONDS: i64 = 3600;
const WEEK_SECONDS: i64 = 7 * 24 * HOUR_SECONDS;

impl Default for Names {
    fn default() -> Self {
        let shards = (0..=u8::MAX).map(IndexShard::empty).collect();
        Self(RwLock::new(Tables { shards, served: HashMap::new(), present: 0, ends: BTreeMap::new() }))
    }
}

impl Names {
    /// Finds a name: exactly, then by the wildcard that covers it.
    pub(crate) fn find(&self, hostname: &Hostname) -> Option<Match> {
        let tables = self.read();
        tables.find(hostname).or_else(|| tables.find(&hostname.covering_wildcard()?))
    }

    /// The entry of exactly this name, tombstones included.
    pub(crate) fn entry(&self, hostname: &Hostname) -> Option<IndexEntry> {
        self.read().entry(hostname).cloned()
    }

    /// What is served for exactly this name.
    pub(crate) fn served(&self, hostname: &Hostname) -> Option<Served> {
        self.read().served.get(hostname).cloned()
    }

    /// Whether the index knows a newer version than the one served.
    pub(crate) fn wants(&self, hostname: &Hostname) -> bool {
        let tables = self.read();
        let Some(entry) = tables.entry(hostname).filter(|entry| !entry.is_tombstone()) else { return false };
        tables.served.get(hostname).is_none_or(|served| served.version < entry.version)
    }

    /// Names in the index that are not removed, and how many of them are served.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let tables = self.read();
        (tables.present, tables.served.len())
    }

    /// When the certificates in service end, seen from now; to the hour, so that it costs as many steps as there are hours with an end.
    pub(crate) fn expiry(&self, now: UnixSeconds) -> Expiry {
        let tables = self.read();
        let known = || tables.ends.range(1..);
        Expiry {
            earliest: known().next().map(|(hour, _)| hour * HOUR_SECONDS),
            within: known().take_while(|(hour, _)| **hour * HOUR_SECONDS <= now + WEEK_SECONDS).map(|(_, count)| count).sum(),
            unknown: tables.ends.get(&0).copied().unwrap_or_default(),
        }
    }

    /// How far the index is: it grows with every change anywhere, and is the same on edges that know the same.
    pub(crate) fn generation(&self) -> u64 {
        self.read().shards.iter().map(|shard| shard.generation).fold(0, u64::saturating_add)
    }

    /// Merges a shard by version, and says what changed.
    ///
    /// # Errors
    /// [`LowerGeneration`] when a higher generation of this shard was already seen; nothing is changed then.
    pub(crate) fn apply(&self, offered: IndexShard) -> Result<Vec<Change>, LowerGeneration> {
        let mut tables = self.write();
        let have = tables.shards[usize::from(offered.shard)].generation;
        if offered.generation < have {
            return Err(LowerGeneration { shard: offered.shard, have, offered: offered.generation });
        }
        let mut changes = Vec::new();
        for (hostname, entry) in offered.entries {
            changes.extend(tables.merge(hostname, entry));
        }
        tables.shards[usize::from(offered.shard)].generation = offered.generation;
        Ok(changes)
    }

    /// Takes an accepted bundle into service, and gives back what it replaced.
    ///
    /// # Errors
    /// [`BundleError::Removed`] when the name was removed meanwhile, or those of [`check_replacement`].
    pub(crate) fn serve(&self, hostname: &Hostname, accepted: Served) -> Result<Option<Served>, BundleError> {
        let mut tables = self.write();
        match tables.entry(hostname) {
            Some(entry) if entry.is_tombstone() && entry.version >= accepted.version => {
                return Err(BundleError::Removed { version: entry.version });
            }
            _ => {}
        }
        if let Some(served) = tables.served.get(hostname) {
            check_replacement((served.version, served.digest), (accepted.version, accepted.digest))?;
        }
        // A bundle may be ahead of the index: the publisher writes it first.
        let entry =
            IndexEntry { version: accepted.version, tenant: Some(accepted.tenant.clone()), removed_at: None, digest: accepted.digest };
        tables.merge(hostname.clone(), entry);
        *tables.ends.entry(accepted.not_after / HOUR_SECONDS).or_default() += 1;
        let replaced = tables.served.insert(hostname.clone(), accepted);
        replaced.iter().for_each(|replaced| tables.ended(replaced));
        Ok(replaced)
    }

    /// Forgets that a version is on the local disk, because it turned out not to be.
    pub(crate) fn lose(&self, hostname: &Hostname, version: SiteVersion) {
        let mut tables = self.write();
        if tables.served.get(hostname).is_some_and(|served| served.version == version) {
            tables.unserve(hostname);
        }
    }

    /// Every name whose newest version is not served.
    pub(crate) fn all_wanted(&self) -> Vec<Hostname> {
        let tables = self.read();
        let entries = tables.shards.iter().flat_map(|shard| &shard.entries);
        let wanted = entries.filter(|(hostname, entry)| {
            !entry.is_tombstone() && tables.served.get(*hostname).is_none_or(|served| served.version < entry.version)
        });
        wanted.map(|(hostname, _)| hostname.clone()).collect()
    }

    /// A shard as it should be kept on the local disk: everything ever seen, without tombstones that are too old to matter.
    pub(crate) fn shard(&self, shard: u8, now: UnixSeconds) -> IndexShard {
        let mut copy = self.read().shards[usize::from(shard)].clone();
        let generation = copy.generation;
        copy.sweep(now);
        copy.generation = generation;
        copy
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn entry(&self, hostname: &Hostname) -> Option<&IndexEntry> {
        self.shards[usize::from(shard_of(hostname))].entries.get(hostname)
    }

    fn find(&self, hostname: &Hostname) -> Option<Match> {
        if let Some(served) = self.served.get(hostname) {
            let Served { version, tenant, origin, .. } = served.clone();
            return Some(Match { hostname: hostname.clone(), tenant, served: Some(version), origin });
        }
        let entry = self.entry(hostname).filter(|entry| !entry.is_tombstone())?;
        Some(Match { hostname: hostname.clone(), tenant: entry.tenant.clone()?, served: None, origin: None })
    }

    fn unserve(&mut self, hostname: &Hostname) {
        if let Some(served) = self.served.remove(hostname) {
            self.ended(&served);
        }
    }

    /// One fewer ends when this one does.
    fn ended(&mut self, served: &Served) {
        let hour = served.not_after / HOUR_SECONDS;
        if let Some(count) = self.ends.get_mut(&hour) {
            *count -= 1;
            if *count == 0 {
                self.ends.remove(&hour);
            }
        }
    }

    /// Takes an entry over when it is newer. An entry that is neither whole nor a tombstone says nothing and is left alone.
    fn merge(&mut self, hostname: Hostname, entry: IndexEntry) -> Option<Change> {
        if entry.tenant.is_none() && !entry.is_tombstone() {
            return None;
        }
        let shard = &mut self.shards[usize::from(shard_of(&hostname))];
        let was_present = shard.entries.get(&hostname).is_some_and(|known| !known.is_tombstone());
        let (version, removed, generation) = (entry.version, entry.is_tombstone(), shard.generation);
        let changed = shard.merge(&hostname, entry).unwrap_or(false);
        // The generation is the publisher's count, not ours.
        shard.generation = generation;
        if !changed {
            // A tombstone the index has left behind still ends what is older than it.
            let outlived = removed && self.served.get(&hostname).is_some_and(|served| served.version < version);
            return outlived.then(|| {
                self.unserve(&hostname);
                Change::Removed(hostname)
            });
        }
        self.present = self.present + usize::from(!removed) - usize::from(was_present);
        if removed {
            self.unserve(&hostname);
            return Some(Change::Removed(hostname));
        }
        match self.served.get(&hostname) {
            Some(served) if served.version >= version => None,
            served => Some(Change::Wanted { cold: served.is_none(), hostname }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Hostname {
        Hostname::parse_name(text).unwrap()
    }

    fn tenant(text: &str) -> TenantId {
        TenantId::parse(text).unwrap()
    }

    fn entry(version: u64, removed: bool) -> IndexEntry {
        IndexEntry {
            version: SiteVersion(version),
            tenant: (!removed).then(|| tenant("acme")),
            removed_at: removed.then_some(0),
            digest: Digest::of(&version.to_be_bytes()),
        }
    }

    fn served(version: u64) -> Served {
        Served {
            origin: None,
            version: SiteVersion(version),
            tenant: tenant("acme"),
            digest: Digest::of(&version.to_be_bytes()),
            not_after: version as i64 * WEEK_SECONDS,
        }
    }

    fn shard(hostname: &Hostname, generation: u64, entry: IndexEntry) -> IndexShard {
        let mut shard = IndexShard::empty(shard_of(hostname));
        shard.merge(hostname, entry).unwrap();
        shard.generation = generation;
        shard
    }

    #[test]
    fn the_first_end_is_that_of_a_certificate_in_service() {
        let names = Names::default();
        let (a, b) = (name("a.brand.com"), name("b.brand.com"));
        for hostname in [&a, &b] {
            names.apply(shard(hostname, 1, entry(1, false))).unwrap();
            names.serve(hostname, served(1)).unwrap();
        }
        let seen = |names: &Names| {
            let Expiry { earliest, within, unknown } = names.expiry(1);
            (earliest.map(|end| end / WEEK_SECONDS), within, unknown)
        };
        assert_eq!(seen(&names), (Some(1), 2, 0));
        names.serve(&a, served(3)).unwrap();
        assert_eq!(seen(&names), (Some(1), 1, 0));
        names.lose(&b, SiteVersion(1));
        assert_eq!(seen(&names), (Some(3), 0, 0));
        names.serve(&b, Served { not_after: 0, ..served(2) }).unwrap();
        assert_eq!(seen(&names), (Some(3), 0, 1));
        names.apply(shard(&a, 2, entry(4, true))).unwrap();
        assert_eq!(seen(&names), (None, 0, 1));
    }

    #[test]
    fn the_exact_name_is_found_before_the_wildcard_that_covers_it() {
        let names = Names::default();
        for hostname in [name("*.brand.com"), name("shop.brand.com")] {
            names.apply(shard(&hostname, 1, entry(1, false))).unwrap();
        }
        assert_eq!(names.find(&name("shop.brand.com")).unwrap().hostname, name("shop.brand.com"));
        assert_eq!(names.find(&name("other.brand.com")).unwrap().hostname, name("*.brand.com"));
        assert_eq!(names.find(&name("a.other.brand.com")), None);
        assert_eq!(names.find(&name("brand.com")), None);
    }

    #[test]
    fn a_shard_of_a_lower_generation_changes_nothing() {
        let (names, hostname) = (Names::default(), name("shop.brand.com"));
        names.apply(shard(&hostname, 5, entry(3, false))).unwrap();
        let refused = names.apply(shard(&hostname, 4, entry(9, true))).unwrap_err();
        assert_eq!((refused.have, refused.offered), (5, 4));
        assert_eq!(names.entry(&hostname), Some(entry(3, false)));
    }

    #[test]
    fn a_name_missing_from_a_newer_shard_is_still_served() {
        let (names, hostname) = (Names::default(), name("shop.brand.com"));
        names.apply(shard(&hostname, 1, entry(1, false))).unwrap();
        names.serve(&hostname, served(1)).unwrap();
        let mut without = IndexShard::empty(shard_of(&hostname));
        without.generation = 2;
        assert_eq!(names.apply(without).unwrap(), []);
        assert_eq!(names.find(&hostname).unwrap().served, Some(SiteVersion(1)));
    }

    #[test]
    fn what_comes_after_a_tombstone_must_be_newer_than_it() {
        let (names, hostname) = (Names::default(), name("shop.brand.com"));
        names.apply(shard(&hostname, 1, entry(1, false))).unwrap();
        assert_eq!(names.apply(shard(&hostname, 2, entry(2, true))).unwrap(), [Change::Removed(hostname.clone())]);
        for late in [1, 2] {
            assert_eq!(names.serve(&hostname, served(late)).unwrap_err().reason(), "removed");
        }
        assert_eq!(names.find(&hostname), None);
        assert_eq!(names.counts(), (0, 0));
        names.serve(&hostname, served(3)).unwrap();
        assert_eq!(names.counts(), (1, 1));
    }

    proptest! {
        #[test]
        fn in_any_order_of_shards_and_bundles_versions_only_rise_and_only_tombstones_remove(
            steps in proptest::collection::vec((0_u64..8, 0_u64..10, any::<bool>()), 1..40),
        ) {
            let (names, hostname) = (Names::default(), name("shop.brand.com"));
            let (mut highest_tombstone, mut last) = (0, None);
            for (generation, version, bundle) in steps {
                let removed = version % 4 == 3;
                if bundle && !removed {
                    // A bundle below the index is refused before it gets here.
                    if names.entry(&hostname).is_some_and(|entry| entry.version.0 > version) {
                        continue;
                    }
                    let _ = names.serve(&hostname, served(version));
                } else if names.apply(shard(&hostname, generation, entry(version, removed))).is_ok() && removed {
                    highest_tombstone = highest_tombstone.max(version);
                }
                let now = names.served(&hostname).map(|served| served.version.0);
                if let (Some(last), Some(now)) = (last, now) {
                    prop_assert!(now >= last);
                }
                if let (Some(last), None) = (last, now) {
                    prop_assert!(highest_tombstone > last);
                }
                prop_assert!(now.is_none_or(|now| now > highest_tombstone || highest_tombstone == 0));
                last = now.or(last);
            }
        }
    }
}
