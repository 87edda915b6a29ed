//! The names this edge knows: the index in memory.
//!
//! Arrives: index shards, and bundles that were accepted. Leaves: for any name, whose it is and which version is served. Goes wrong: a
//! shard of a lower generation is refused. Nothing here ever goes backwards: versions only rise, and a name goes only by a tombstone.
//!
//! Each of the index's 256 shards has a lock of its own, which is held for a look or for a few names at a time: however much is read anew, a
//! handshake waits for next to nothing. A name costs one row and one word of a table; what is served is told apart from what the index says
//! only where they differ.

mod table;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use bundles::{BundleError, Digest, IndexEntry, IndexShard, UnixSeconds, check_replacement, shard_of};
use domains::{Hostname, OriginName, SiteVersion, TenantId};

use self::table::{Holder, InService, Row, Table};

/// How many names are merged before whoever looks for one gets a turn.
const MERGED_AT_ONCE: usize = 128;

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
    /// A name that was there, or what was served for it, is gone; a newer version may be wanted all the same.
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

/// The names.
#[derive(Debug)]
pub(crate) struct Names {
    /// By number, as in the index.
    shards: Box<[RwLock<Shard>]>,
    present: AtomicUsize,
    served: AtomicUsize,
    /// How many of those served end in each hour since 1970.
    ends: Mutex<BTreeMap<i64, usize>>,
}

/// One shard: every entry ever seen, at its highest version, and what may be handed out now.
#[derive(Debug, Default)]
struct Shard {
    generation: u64,
    rows: Table,
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
        let shards = (0..=u8::MAX).map(|_| RwLock::default()).collect();
        Self { shards, present: AtomicUsize::new(0), served: AtomicUsize::new(0), ends: Mutex::default() }
    }
}

impl Names {
    /// Finds a name: exactly, then by the wildcard that covers it.
    pub(crate) fn find(&self, hostname: &Hostname) -> Option<Match> {
        self.find_exactly(hostname).or_else(|| self.find_exactly(&hostname.covering_wildcard()?))
    }

    fn find_exactly(&self, hostname: &Hostname) -> Option<Match> {
        let shard = self.read(shard_of(hostname));
        let row = shard.rows.find(hostname)?;
        if let Some(served) = row.served() {
            let Served { version, tenant, origin, .. } = served;
            return Some(Match { hostname: row.hostname.clone(), tenant, served: Some(version), origin });
        }
        Some(Match { hostname: row.hostname.clone(), tenant: row.tenant()?.clone(), served: None, origin: None })
    }

    /// The entry of exactly this name, tombstones included.
    pub(crate) fn entry(&self, hostname: &Hostname) -> Option<IndexEntry> {
        self.read(shard_of(hostname)).rows.find(hostname).map(Row::entry)
    }

    /// What is served for exactly this name.
    pub(crate) fn served(&self, hostname: &Hostname) -> Option<Served> {
        self.read(shard_of(hostname)).rows.find(hostname)?.served()
    }

    /// The same name, as the index holds it, so that its text is there once.
    pub(crate) fn shared(&self, hostname: Hostname) -> Hostname {
        self.read(shard_of(&hostname)).rows.find(&hostname).map_or(hostname, |row| row.hostname.clone())
    }

    /// Whether the index knows a newer version than the one served.
    pub(crate) fn wants(&self, hostname: &Hostname) -> bool {
        self.read(shard_of(hostname)).rows.find(hostname).is_some_and(Row::is_wanted)
    }

    /// Names in the index that are not removed, and how many of them are served.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.present.load(Ordering::Relaxed), self.served.load(Ordering::Relaxed))
    }

    /// When the certificates in service end, seen from now; to the hour, so that it costs as many steps as there are hours with an end.
    pub(crate) fn expiry(&self, now: UnixSeconds) -> Expiry {
        let ends = self.ends();
        let known = || ends.range(1..);
        Expiry {
            earliest: known().next().map(|(hour, _)| hour * HOUR_SECONDS),
            within: known().take_while(|(hour, _)| **hour * HOUR_SECONDS <= now + WEEK_SECONDS).map(|(_, count)| count).sum(),
            unknown: ends.get(&0).copied().unwrap_or_default(),
        }
    }

    /// How far the index is: it grows with every change anywhere, and is the same on edges that know the same.
    pub(crate) fn generation(&self) -> u64 {
        (0..=u8::MAX).map(|shard| self.read(shard).generation).fold(0, u64::saturating_add)
    }

    /// Merges a shard by version, and says what changed. Looks go on meanwhile; they see each name as it was, or as it is now.
    ///
    /// # Errors
    /// [`LowerGeneration`] when a higher generation of this shard was already seen; nothing is changed then.
    pub(crate) fn apply(&self, offered: IndexShard) -> Result<Vec<Change>, LowerGeneration> {
        let (mut merging, mut changes) = (self.merging(offered)?, Vec::new());
        while merging.go_on(&mut changes) {}
        Ok(changes)
    }

    fn merging(&self, offered: IndexShard) -> Result<Merging<'_>, LowerGeneration> {
        let IndexShard { shard, generation, entries, .. } = offered;
        let mut known = self.write(shard);
        if generation < known.generation {
            return Err(LowerGeneration { shard, have: known.generation, offered: generation });
        }
        known.rows.expect(entries.len());
        Ok(Merging { names: self, shard, generation, entries: entries.into_iter() })
    }

    /// Takes an accepted bundle into service, and gives back what it replaced.
    ///
    /// # Errors
    /// [`BundleError::Removed`] when the name was removed meanwhile, or those of [`check_replacement`].
    pub(crate) fn serve(&self, hostname: &Hostname, accepted: Served) -> Result<Option<Served>, BundleError> {
        let mut shard = self.write(shard_of(hostname));
        if let Some(row) = shard.rows.find(hostname) {
            if row.is_tombstone() && row.version >= accepted.version {
                return Err(BundleError::Removed { version: row.version });
            }
            if let Some(served) = row.served() {
                check_replacement((served.version, served.digest), (accepted.version, accepted.digest))?;
            }
        }
        // A bundle may be ahead of the index: the publisher writes it first.
        let entry =
            IndexEntry { version: accepted.version, tenant: Some(accepted.tenant.clone()), removed_at: None, digest: accepted.digest };
        self.merge(&mut shard.rows, hostname.clone(), entry);
        let Some(row) = shard.rows.find_mut(hostname) else {
            return Err(BundleError::Removed { version: accepted.version });
        };
        *self.ends().entry(accepted.not_after / HOUR_SECONDS).or_default() += 1;
        let replaced = row.serve(accepted);
        match &replaced {
            Some(replaced) => self.ended(replaced),
            None => drop(self.served.fetch_add(1, Ordering::Relaxed)),
        }
        Ok(replaced)
    }

    /// Forgets that a version is on the local disk, because it turned out not to be.
    pub(crate) fn lose(&self, hostname: &Hostname, version: SiteVersion) {
        let mut shard = self.write(shard_of(hostname));
        if let Some(row) = shard.rows.find_mut(hostname)
            && row.served().is_some_and(|served| served.version == version)
        {
            self.unserve(row);
        }
    }

    /// Every name whose newest version is not served.
    pub(crate) fn all_wanted(&self) -> Vec<Hostname> {
        let mut wanted = Vec::new();
        for shard in 0..=u8::MAX {
            let shard = self.read(shard);
            wanted.extend(shard.rows.iter().filter(|row| row.is_wanted()).map(|row| row.hostname.clone()));
        }
        wanted
    }

    /// A shard as it should be kept on the local disk: everything ever seen, without tombstones that are too old to matter.
    pub(crate) fn shard(&self, shard: u8, now: UnixSeconds) -> IndexShard {
        let known = self.read(shard);
        let mut copy = IndexShard::empty(shard);
        copy.entries = known.rows.iter().map(|row| (row.hostname.clone(), row.entry())).collect();
        let generation = known.generation;
        drop(known);
        copy.sweep(now);
        copy.generation = generation;
        copy
    }

    /// Takes an entry over when it is newer. An entry that is neither whole nor a tombstone says nothing and is left alone.
    fn merge(&self, rows: &mut Table, hostname: Hostname, entry: IndexEntry) -> Option<Change> {
        let IndexEntry { version, tenant, removed_at, digest } = entry;
        let holder = match (removed_at, tenant) {
            (Some(at), _) => Holder::Removed(at),
            (None, Some(tenant)) => Holder::Tenant(tenant),
            (None, None) => return None,
        };
        let removed = matches!(holder, Holder::Removed(_));
        let Some(row) = rows.find_mut(&hostname) else {
            rows.push(Row { hostname: hostname.clone(), version, digest, holder, in_service: InService::Nothing });
            self.present.fetch_add(usize::from(!removed), Ordering::Relaxed);
            return (!removed).then_some(Change::Wanted { hostname, cold: true });
        };
        if row.version >= version {
            // A tombstone the index has left behind still ends what is older than it.
            let outlived = removed && row.served().is_some_and(|served| served.version < version);
            return outlived.then(|| {
                self.unserve(row);
                Change::Removed(hostname)
            });
        }
        let was_present = !row.is_tombstone();
        row.replace(version, digest, holder);
        match (was_present, !removed) {
            (true, false) => drop(self.present.fetch_sub(1, Ordering::Relaxed)),
            (false, true) => drop(self.present.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        if removed {
            self.unserve(row);
            return was_present.then_some(Change::Removed(hostname));
        }
        row.is_wanted().then_some(Change::Wanted { cold: matches!(row.in_service, InService::Nothing), hostname })
    }

    fn unserve(&self, row: &mut Row) {
        if let Some(served) = row.unserve() {
            self.served.fetch_sub(1, Ordering::Relaxed);
            self.ended(&served);
        }
    }

    /// One fewer ends when this one does.
    fn ended(&self, served: &Served) {
        let (hour, mut ends) = (served.not_after / HOUR_SECONDS, self.ends());
        if let Some(count) = ends.get_mut(&hour) {
            *count -= 1;
            if *count == 0 {
                ends.remove(&hour);
            }
        }
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<i64, usize>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, shard: u8) -> RwLockReadGuard<'_, Shard> {
        self.shards[usize::from(shard)].read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, shard: u8) -> RwLockWriteGuard<'_, Shard> {
        self.shards[usize::from(shard)].write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A shard on its way into the names.
struct Merging<'a> {
    names: &'a Names,
    shard: u8,
    generation: u64,
    entries: std::collections::btree_map::IntoIter<Hostname, IndexEntry>,
}

impl Merging<'_> {
    /// Merges the next few names; says whether there may be more. Only then does the shard count as seen.
    fn go_on(&mut self, changes: &mut Vec<Change>) -> bool {
        let mut known = self.names.write(self.shard);
        for _ in 0..MERGED_AT_ONCE {
            let Some((hostname, entry)) = self.entries.next() else {
                known.generation = known.generation.max(self.generation);
                return false;
            };
            changes.extend(self.names.merge(&mut known.rows, hostname, entry));
        }
        true
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

    #[test]
    fn a_look_waits_for_a_few_names_of_a_large_shard_and_no_more() {
        let names = Names::default();
        let of_shard = |number: &usize| shard_of(&name(&format!("shop-{number}.brand.com"))) == 0;
        let hostnames: Vec<_> = (0..).filter(of_shard).take(1000).map(|number| name(&format!("shop-{number}.brand.com"))).collect();
        let mut large = IndexShard::empty(0);
        assert!(hostnames.iter().all(|hostname| large.merge(hostname, entry(1, false)).unwrap()));
        let last = large.entries.keys().next_back().unwrap().clone();
        let (mut merging, mut changes, mut steps) = (names.merging(large).unwrap(), Vec::new(), 0);
        loop {
            // Between two steps the lock is free, and each step takes in so many names at most.
            assert!(names.shards[0].try_write().is_ok());
            assert!(names.counts().0 <= steps * MERGED_AT_ONCE);
            assert_eq!(names.generation(), 0);
            if !merging.go_on(&mut changes) {
                break;
            }
            steps += 1;
        }
        assert_eq!((names.counts().0, changes.len(), steps), (1000, 1000, 1000 / MERGED_AT_ONCE));
        assert!(names.find(&last).is_some());
        assert_eq!(names.generation(), 1000);
    }

    #[test]
    fn what_is_served_stays_what_it_was_while_the_index_is_ahead() {
        let (names, hostname) = (Names::default(), name("shop.brand.com"));
        names.apply(shard(&hostname, 1, entry(1, false))).unwrap();
        names.serve(&hostname, served(1)).unwrap();
        assert_eq!(names.served(&hostname), Some(served(1)));
        let moved = IndexEntry { tenant: Some(tenant("other")), ..entry(2, false) };
        names.apply(shard(&hostname, 2, moved.clone())).unwrap();
        assert_eq!((names.served(&hostname), names.entry(&hostname)), (Some(served(1)), Some(moved)));
        assert_eq!(names.find(&hostname).unwrap().tenant, tenant("acme"));
        assert!(names.wants(&hostname));
        let newer = Served { tenant: tenant("other"), ..served(2) };
        assert_eq!(names.serve(&hostname, newer.clone()).unwrap(), Some(served(1)));
        assert_eq!((names.served(&hostname), names.wants(&hostname)), (Some(newer), false));
        assert_eq!(names.all_wanted(), []);
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
