//! The names that exist, with their versions: 256 shards, so that one changed name moves one small object.
//!
//! Arrives: entries from the publisher, shards from the bucket. Leaves: shards in which every name stands at its highest version.
//! Goes wrong: a shard that is cut off, of another format, or lists a name that is not its own.

use std::collections::BTreeMap;

use domains::{Hostname, SiteVersion, TenantId};
use serde::{Deserialize, Serialize};

use crate::{BundleError, Digest, FORMAT, UnixSeconds, encoding};

/// The largest shard accepted: a million names make 4,000 a shard, at some 300 bytes each.
pub const MAX_INDEX_BYTES: usize = 32 * 1024 * 1024;

/// How long a removed name's entry stays, so that no late writer brings the name back: 30 days.
pub const TOMBSTONE_KEPT_SECONDS: UnixSeconds = 30 * 24 * 60 * 60;

/// One name in the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexEntry {
    /// The version of what the name's site should be.
    pub version: SiteVersion,
    /// Whose the name is; `None` once it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// When the name was removed; `None` while it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<UnixSeconds>,
    /// The digest of the name's object, bundle or tombstone, at this version.
    pub digest: Digest,
}

impl IndexEntry {
    /// Whether the entry says that the name is gone.
    pub fn is_tombstone(&self) -> bool {
        self.removed_at.is_some()
    }
}

/// One of the 256 parts of the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexShard {
    format: u32,
    /// Which part: the first byte of the hostname's SHA-256.
    pub shard: u8,
    /// Grows with every change; a reader ignores a lower one than it has.
    pub generation: u64,
    /// The names, each at its highest version.
    pub entries: BTreeMap<Hostname, IndexEntry>,
}

impl IndexShard {
    /// A shard nothing was written to yet.
    pub fn empty(shard: u8) -> Self {
        Self { format: FORMAT, shard, generation: 0, entries: BTreeMap::new() }
    }

    /// Takes an entry over when it is newer, and says whether that changed the shard; the generation then grows.
    ///
    /// # Errors
    /// [`BundleError::WrongShard`] when the name belongs in another shard.
    pub fn merge(&mut self, hostname: &Hostname, entry: IndexEntry) -> Result<bool, BundleError> {
        self.owns(hostname)?;
        if self.entries.get(hostname).is_some_and(|known| known.version >= entry.version) {
            return Ok(false);
        }
        self.entries.insert(hostname.clone(), entry);
        self.generation += 1;
        Ok(true)
    }

    /// Drops tombstones older than [`TOMBSTONE_KEPT_SECONDS`] and says how many; the generation grows when there were any.
    pub fn sweep(&mut self, now: UnixSeconds) -> usize {
        let before = self.entries.len();
        self.entries.retain(|_, entry| entry.removed_at.is_none_or(|removed_at| now.saturating_sub(removed_at) <= TOMBSTONE_KEPT_SECONDS));
        let swept = before - self.entries.len();
        self.generation += u64::from(swept > 0);
        swept
    }

    /// Writes the object.
    pub fn to_bytes(&self) -> Vec<u8> {
        encoding::write(self)
    }

    /// Reads the object and checks that every name in it is the shard's own.
    ///
    /// # Errors
    /// [`BundleError::TooLarge`], [`BundleError::Truncated`], [`BundleError::NotJson`], [`BundleError::Format`] or [`BundleError::WrongShard`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BundleError> {
        // A shard may have thousands of names, so a sound one is read once; what is wrong with another takes a second look to tell.
        let sound = || serde_json::from_slice(bytes).ok().filter(|shard: &Self| shard.format == FORMAT);
        let shard = match (bytes.first() == Some(&b'{') && bytes.len() <= MAX_INDEX_BYTES).then(sound).flatten() {
            Some(shard) => shard,
            None => encoding::read(bytes, MAX_INDEX_BYTES)?,
        };
        shard.entries.keys().try_for_each(|hostname| shard.owns(hostname))?;
        Ok(shard)
    }

    fn owns(&self, hostname: &Hostname) -> Result<(), BundleError> {
        match shard_of(hostname) == self.shard {
            true => Ok(()),
            false => Err(BundleError::WrongShard { hostname: hostname.clone(), shard: self.shard }),
        }
    }
}

/// The shard a hostname belongs in: the first byte of its SHA-256.
pub fn shard_of(hostname: &Hostname) -> u8 {
    Digest::of(hostname.as_str().as_bytes()).as_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names_of_one_shard() -> Vec<Hostname> {
        let names = (0..).map(|n| Hostname::parse_name(&format!("shop-{n}.brand.com")).unwrap());
        let first = shard_of(&Hostname::parse_name("shop-0.brand.com").unwrap());
        names.filter(|name| shard_of(name) == first).take(3).collect()
    }

    /// One version of one name has one content, as the publisher promises.
    fn entry(name: &Hostname, version: u64) -> IndexEntry {
        let removed = version.is_multiple_of(2);
        IndexEntry {
            version: SiteVersion(version),
            tenant: (!removed).then(|| TenantId::parse("acme").unwrap()),
            removed_at: removed.then_some(version as i64),
            digest: Digest::of(format!("{name} {version}").as_bytes()),
        }
    }

    fn merged(entries: &[(Hostname, IndexEntry)]) -> IndexShard {
        let mut shard = IndexShard::empty(shard_of(&names_of_one_shard()[0]));
        for (name, entry) in entries {
            shard.merge(name, entry.clone()).unwrap();
        }
        shard
    }

    proptest! {
        #[test]
        fn entries_in_any_order_and_any_number_of_times_end_at_the_same_names(
            picks in proptest::collection::vec((0_usize..3, 0_u64..12), 0..24),
            shuffle in any::<u64>(),
        ) {
            let names = names_of_one_shard();
            let entries: Vec<_> = picks.iter().map(|(n, v)| (names[*n].clone(), entry(&names[*n], *v))).collect();
            let once = merged(&entries);
            let mut other = entries.clone();
            other.extend(entries.clone());
            let length = other.len().max(1);
            other.rotate_left(shuffle as usize % length);
            if shuffle % 2 == 0 { other.reverse(); }
            prop_assert_eq!(&merged(&other).entries, &once.entries);
        }

        #[test]
        fn no_merge_lowers_a_version_and_only_a_change_moves_the_generation(
            picks in proptest::collection::vec((0_usize..3, 0_u64..12), 0..24),
        ) {
            let names = names_of_one_shard();
            let mut shard = IndexShard::empty(shard_of(&names[0]));
            for (n, v) in picks {
                let (before, had) = (shard.generation, shard.entries.get(&names[n]).map(|e| e.version));
                let changed = shard.merge(&names[n], entry(&names[n], v)).unwrap();
                prop_assert!(shard.entries[&names[n]].version >= had.unwrap_or_default());
                prop_assert_eq!(changed, had != Some(shard.entries[&names[n]].version));
                prop_assert_eq!(shard.generation, before + u64::from(changed));
            }
            let read = IndexShard::from_bytes(&shard.to_bytes()).unwrap();
            prop_assert_eq!(read, shard);
        }

        #[test]
        fn random_bytes_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(IndexShard::from_bytes(&bytes).is_err());
        }
    }

    #[test]
    fn a_name_in_a_foreign_shard_is_refused_both_ways() {
        let name = names_of_one_shard().remove(0);
        let mut shard = IndexShard::empty(shard_of(&name).wrapping_add(1));
        assert_eq!(shard.merge(&name, entry(&name, 1)).unwrap_err().reason(), "wrong_shard");
        shard.entries.insert(name.clone(), entry(&name, 1));
        assert_eq!(IndexShard::from_bytes(&shard.to_bytes()).unwrap_err().reason(), "wrong_shard");
    }

    #[test]
    fn tombstones_are_swept_after_thirty_days_and_not_before() {
        let names = names_of_one_shard();
        let mut shard = merged(&[(names[0].clone(), entry(&names[0], 2)), (names[1].clone(), entry(&names[1], 1))]);
        let generation = shard.generation;
        assert_eq!(shard.sweep(2 + TOMBSTONE_KEPT_SECONDS), 0);
        assert_eq!(shard.generation, generation);
        assert_eq!(shard.sweep(3 + TOMBSTONE_KEPT_SECONDS), 1);
        assert_eq!(shard.generation, generation + 1);
        assert_eq!(shard.entries.keys().collect::<Vec<_>>(), [&names[1]]);
    }
}
