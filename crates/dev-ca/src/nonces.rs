//! Nonces: each may be used once.
//!
//! Arrives: a nonce from a request. Leaves: whether this CA gave it out and nobody used it yet. Goes wrong: nothing; a flood only makes
//! the oldest nonces forgotten, and their owners are told `badNonce` and try again.

use std::collections::{HashSet, VecDeque};

/// How many nonces are remembered: each answer gives out one and most are never used, so this is a bound on memory (about 6 MB).
const REMEMBERED: usize = 65_536;

/// The nonces given out and not used.
#[derive(Debug, Default)]
pub(crate) struct Nonces {
    unused: HashSet<String>,
    oldest_first: VecDeque<String>,
}

impl Nonces {
    pub(crate) fn remember(&mut self, nonce: String) {
        self.unused.insert(nonce.clone());
        self.oldest_first.push_back(nonce);
        while self.oldest_first.len() > REMEMBERED {
            if let Some(forgotten) = self.oldest_first.pop_front() {
                self.unused.remove(&forgotten);
            }
        }
    }

    /// Uses a nonce up; false when it was never given out, was used before, or is forgotten.
    pub(crate) fn spend(&mut self, nonce: &str) -> bool {
        self.unused.remove(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_and_an_unknown_one_never() {
        let mut nonces = Nonces::default();
        nonces.remember("a".into());
        assert!(!nonces.spend("b"));
        assert!(nonces.spend("a"));
        assert!(!nonces.spend("a"));
    }

    #[test]
    fn a_flood_forgets_the_oldest_and_keeps_memory_bounded() {
        let mut nonces = Nonces::default();
        for number in 0..=REMEMBERED {
            nonces.remember(number.to_string());
        }
        assert_eq!(nonces.oldest_first.len(), REMEMBERED);
        assert!(!nonces.spend("0"), "the oldest is forgotten");
        assert!(nonces.spend("1"));
    }
}
