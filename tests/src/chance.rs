//! Randomness that a printed seed repeats.

use std::{
    env,
    hash::{BuildHasher, RandomState},
};

/// A small generator: SplitMix64.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// A generator seeded by `NAMEPLATE_SEED`, or anew; the seed is printed, so that a failure can be repeated.
    pub fn seeded(what: &str) -> Self {
        let seed = match env::var("NAMEPLATE_SEED") {
            Ok(text) => text.parse().expect("NAMEPLATE_SEED is a whole number"),
            Err(_) => RandomState::new().hash_one(what),
        };
        println!("{what}: seed {seed} (repeat with NAMEPLATE_SEED={seed})");
        Self(seed)
    }

    /// A generator for one of several lanes, seeded by the one that was printed.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.bits() % bound.max(1) as u64).unwrap()
    }

    /// One of the choices.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// Another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
