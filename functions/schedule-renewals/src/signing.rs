//! The keys of tenant assertions: made before they are needed, published before they are used, kept for a while after.
//!
//! Arrives: the keys there are, and the time. Leaves: what is to be made and retired. Goes wrong: a timer that is late; the key in use stays
//! in use, however long.

use std::time::Duration;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use bundles::{SealPublicKey, SigningKey, UnixSeconds};
use domains::StoreError;

use crate::keys::defect;

/// How long a key signs before the next one takes over.
pub const SIGNS_FOR: Duration = Duration::from_secs(30 * 86_400);
/// How long a key is published before it signs: many times what a verifier may keep the key set for.
pub const PUBLISHED_AHEAD: Duration = Duration::from_secs(2 * 86_400);
/// How long a key stays published after the next one took over: many times an assertion's life, and longer than an edge's clock may be late.
pub const PUBLISHED_AFTER: Duration = Duration::from_secs(86_400);

/// What is to be done about the keys there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// A new key is to be made that signs from then on.
    make: Option<UnixSeconds>,
    /// Keys signing from these times on are not needed any more.
    retire: Vec<UnixSeconds>,
}

/// Decides what the time asks for; a key sealed to another seal key than today's is followed by one that is not.
pub(crate) fn plan(keys: &[SigningKey], seal_key_id: &str, now: UnixSeconds) -> Plan {
    let [signs_for, ahead, after] = [SIGNS_FOR, PUBLISHED_AHEAD, PUBLISHED_AFTER].map(|span| span.as_secs().cast_signed());
    let Some(newest) = keys.iter().max_by_key(|key| key.sign_from) else {
        // Nobody verifies yet, so nobody has to learn of it first.
        return Plan { make: Some(now), retire: Vec::new() };
    };
    let ends = newest.sign_from + signs_for;
    let make =
        if newest.sealed_key.seal_key_id != seal_key_id { Some(now + ahead) } else { (now >= ends - ahead).then(|| ends.max(now + ahead)) };
    let succeeded = |key: &SigningKey| keys.iter().any(|next| next.sign_from > key.sign_from && next.sign_from + after <= now);
    Plan { make, retire: keys.iter().filter(|key| succeeded(key)).map(|key| key.sign_from).collect() }
}

impl Plan {
    pub(crate) fn apply(&self, keys: &mut Vec<SigningKey>, seal_to: &SealPublicKey) -> Result<(), StoreError> {
        keys.retain(|key| !self.retire.contains(&key.sign_from));
        if let Some(sign_from) = self.make {
            let key = make(seal_to, sign_from)?;
            tracing::info!(step = "schedule-renewals", kid = key.kid, sign_from, "a new key for tenant assertions");
            keys.push(key);
        }
        Ok(())
    }
}

fn make(seal_to: &SealPublicKey, sign_from: UnixSeconds) -> Result<SigningKey, StoreError> {
    let no_key = |_| defect("the machine gave no signing key");
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(no_key)?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).map_err(defect)?;
    SigningKey::seal(seal_to, pkcs8.as_ref(), pair.public_key().as_ref(), sign_from).map_err(defect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::SealKeyPair;

    const DAY: i64 = 86_400;

    fn keys(pair: &SealKeyPair, times: &[UnixSeconds]) -> Vec<SigningKey> {
        let point = [vec![4], vec![1; 64]].concat();
        times.iter().map(|&from| SigningKey::seal(pair.public(), b"key", &point, from).unwrap()).collect()
    }

    #[test]
    fn the_next_key_is_published_before_it_signs_however_late_the_timer_is() {
        let pair = SealKeyPair::generate().unwrap();
        let make = |times: &[UnixSeconds], now| plan(&keys(&pair, times), pair.id(), now).make;
        assert_eq!(make(&[], 5), Some(5));
        assert_eq!(make(&[0], 28 * DAY - 1), None);
        assert_eq!(make(&[0], 28 * DAY), Some(30 * DAY));
        assert_eq!(make(&[0], 300 * DAY), Some(302 * DAY));
        assert_eq!(make(&[0, 30 * DAY], 29 * DAY), None);
        assert_eq!(plan(&keys(&pair, &[0]), "another seal key", DAY).make, Some(3 * DAY));
    }

    #[test]
    fn a_key_stays_published_for_a_while_after_the_next_one_took_over() {
        let pair = SealKeyPair::generate().unwrap();
        let retire = |now| plan(&keys(&pair, &[0, 30 * DAY]), pair.id(), now).retire;
        assert_eq!(retire(31 * DAY - 1), [] as [i64; 0]);
        assert_eq!(retire(31 * DAY), [0]);
    }
}
