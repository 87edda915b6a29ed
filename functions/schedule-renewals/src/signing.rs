//! The keys of tenant assertions: made before they are needed, published before they are used, kept for a while after.
//!
//! Arrives: a tick. Leaves: `edge.json` with a key in use and, towards its end, the next one. Goes wrong: a bucket that cannot be asked; the
//! key in use stays in use, however long, and the next tick makes up for it.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use bundles::{EDGE_SETTINGS_OBJECT, EdgeSettings, SealPublicKey, SigningKey, UnixSeconds};
use domains::{BundleBucket, CommitError, ObjectCondition, StoreError, Timestamp};

/// How long a key signs before the next one takes over.
pub const SIGNS_FOR: Duration = Duration::from_secs(30 * 86_400);
/// How long a key is published before it signs: many times what a verifier may keep the key set for.
pub const PUBLISHED_AHEAD: Duration = Duration::from_secs(2 * 86_400);
/// How long a key stays published after the next one took over: many times an assertion's life, and longer than an edge's clock may be late.
pub const PUBLISHED_AFTER: Duration = Duration::from_secs(86_400);

/// Keeps the keys of tenant assertions fresh.
pub struct SigningKeys {
    /// Where the edge reads them.
    pub bucket: Arc<dyn BundleBucket>,
    /// What private halves are sealed to.
    pub seal_to: SealPublicKey,
}

/// What is to be done about the keys there are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// A new key is to be made that signs from then on.
    make: Option<UnixSeconds>,
    /// Keys signing from these times on are not needed any more.
    retire: Vec<UnixSeconds>,
}

impl SigningKeys {
    /// Makes and retires keys as their times come.
    ///
    /// Losing a race is no failure: whoever won did the same, or the next tick does.
    ///
    /// # Errors
    /// [`StoreError`] when the bucket cannot be asked or holds something unreadable.
    pub async fn rotate(&self, now: Timestamp) -> Result<(), StoreError> {
        let present = self.bucket.get(EDGE_SETTINGS_OBJECT).await?;
        let (mut settings, condition) = match present {
            Some((bytes, etag)) => (EdgeSettings::from_bytes(&bytes).map_err(defect)?, ObjectCondition::Matches(etag)),
            None => (EdgeSettings::new(0, Vec::new()), ObjectCondition::Absent),
        };
        let plan = plan(&settings.signing_keys, &self.seal_to.id, now.as_second());
        if plan == Plan::default() {
            return Ok(());
        }
        settings.generation += 1;
        settings.signing_keys.retain(|key| !plan.retire.contains(&key.sign_from));
        if let Some(sign_from) = plan.make {
            let key = self.make(sign_from)?;
            tracing::info!(step = "schedule-renewals", kid = key.kid, sign_from, "a new key for tenant assertions");
            settings.signing_keys.push(key);
        }
        match self.bucket.put(EDGE_SETTINGS_OBJECT, &settings.to_bytes(), &condition).await {
            Ok(()) | Err(CommitError::Conflict) => Ok(()),
            Err(CommitError::Store(error)) => Err(error),
        }
    }

    fn make(&self, sign_from: UnixSeconds) -> Result<SigningKey, StoreError> {
        let no_key = |_| defect("the machine gave no signing key");
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).map_err(no_key)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).map_err(defect)?;
        SigningKey::seal(&self.seal_to, pkcs8.as_ref(), pair.public_key().as_ref(), sign_from).map_err(defect)
    }
}

/// Decides what the time asks for; a key sealed to another seal key than today's is followed by one that is not.
fn plan(keys: &[SigningKey], seal_key_id: &str, now: UnixSeconds) -> Plan {
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

fn defect(error: impl std::fmt::Display) -> StoreError {
    StoreError::Defect { detail: format!("keys of tenant assertions: {error}") }
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
