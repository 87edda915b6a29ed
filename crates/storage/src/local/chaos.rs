//! What a queue, a feed or an index of the harder home may do to us, done on purpose.
//!
//! Arrives: a seed. Leaves: duplicates, other orders and delays, the same for the same seed and the same calls. Goes wrong: nothing; every
//! step must withstand all of it.

use std::{sync::Mutex, time::Duration};

use super::locked;

/// How unkind the home is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chaos {
    /// What everything below follows from; printed when the home opens.
    pub seed: u64,
    /// How many feed records and messages of a hundred come twice.
    pub duplicates_percent: u64,
    /// The longest that a feed record is held back, in the home's own clock.
    pub feed_delay: Duration,
    /// The oldest that the due-index is shown, in the home's own clock.
    pub index_age: Duration,
}

impl Chaos {
    /// The unkindness the contracts allow, from this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, duplicates_percent: 10, feed_delay: Duration::from_millis(500), index_age: Duration::from_secs(1) }
    }
}

/// The unkindness at work.
#[derive(Debug)]
pub(crate) struct Mischief {
    chaos: Chaos,
    dice: Mutex<u64>,
}

impl Mischief {
    pub(crate) fn new(chaos: Chaos) -> Self {
        let dice = Mutex::new(chaos.seed);
        Self { chaos, dice }
    }

    /// How often this record or message is delivered.
    pub(crate) fn copies(&self) -> u32 {
        1 + u32::from(self.below(100) < self.chaos.duplicates_percent)
    }

    /// How long this feed record is held back, in microseconds.
    pub(crate) fn feed_delay(&self) -> i64 {
        self.up_to(self.chaos.feed_delay)
    }

    /// How old the due-index is this time, in microseconds.
    pub(crate) fn index_age(&self) -> i64 {
        self.up_to(self.chaos.index_age)
    }

    /// How long a superseded entry of the due-index may still be shown, in microseconds.
    pub(crate) fn longest_index_age(&self) -> i64 {
        i64::try_from(self.chaos.index_age.as_micros()).unwrap_or(i64::MAX)
    }

    /// Another order.
    pub(crate) fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap_or(0);
            items.swap(last, other);
        }
    }

    fn up_to(&self, longest: Duration) -> i64 {
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX - 1);
        i64::try_from(self.below(micros.saturating_add(1))).unwrap_or(i64::MAX)
    }

    /// SplitMix64: small, seeded, and good enough to be unkind with.
    fn below(&self, bound: u64) -> u64 {
        let mut state = locked(&self.dice);
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_unkind_in_the_same_way() {
        let run = |seed| {
            let mischief = Mischief::new(Chaos::seeded(seed));
            let mut order: Vec<u32> = (0..50).collect();
            mischief.shuffle(&mut order);
            let copies: Vec<u32> = (0..1000).map(|_| mischief.copies()).collect();
            (order, copies, mischief.feed_delay(), mischief.index_age())
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let twice = run(7).1.into_iter().filter(|copies| *copies == 2).count();
        assert!((50..=160).contains(&twice), "{twice} duplicates in a thousand");
    }
}
