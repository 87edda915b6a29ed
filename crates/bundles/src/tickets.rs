//! The keys that edges share for TLS session tickets: made by the pipeline, opened only by the edge.
//!
//! Arrives: new random bytes at the pipeline, a [`TicketKey`] of `edge.json` at the edge. Leaves: the sealed key, or the opened one. Goes
//! wrong: a key for a seal key we do not hold, or one whose id or times were altered.

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{BundleError, Digest, SealKeys, SealPublicKey, SealedKey, UnixSeconds};

/// Separates these from whatever else is sealed to the same key pair.
const INFO: &[u8] = b"nameplate sealed ticket key v1";

/// Hex digits of a key's id.
const ID_DIGITS: usize = 32;

/// A key that all edges seal session tickets with for a while, and open them with for longer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketKey {
    /// Names the key; it follows from the secret and tells nothing of it.
    pub id: String,
    /// When edges begin to seal with it: late enough for all of them to have read it.
    pub issue_from: UnixSeconds,
    /// When its tickets end.
    pub accept_until: UnixSeconds,
    /// The secret.
    pub sealed_key: SealedKey,
}

impl TicketKey {
    /// Bytes of the secret.
    pub const BYTES: usize = 32;

    /// Seals a new key, bound to its times.
    ///
    /// # Errors
    /// [`BundleError::BadSealKey`] when there is no X25519 public key to seal to.
    pub fn seal(
        to: &SealPublicKey,
        secret: &[u8; Self::BYTES],
        issue_from: UnixSeconds,
        accept_until: UnixSeconds,
    ) -> Result<Self, BundleError> {
        let mut id = Digest::of(&Zeroizing::new([INFO, secret].concat())).to_string();
        id.truncate(ID_DIGITS);
        let sealed_key = to.seal_bytes(INFO, &additional_data(&id, issue_from, accept_until), secret)?;
        Ok(Self { id, issue_from, accept_until, sealed_key })
    }

    /// The secret.
    ///
    /// # Errors
    /// [`BundleError::UnknownSealKey`] when it is sealed to another pair, [`BundleError::Unsealable`] when id or times are not its own,
    /// [`BundleError::BadKey`] when it has not [`Self::BYTES`].
    pub fn open(&self, seal_keys: &SealKeys) -> Result<Zeroizing<[u8; Self::BYTES]>, BundleError> {
        let opened = seal_keys.open_bytes(&self.sealed_key, INFO, &additional_data(&self.id, self.issue_from, self.accept_until))?;
        let secret = <[u8; Self::BYTES]>::try_from(opened.as_slice());
        secret
            .map(Zeroizing::new)
            .map_err(|_| BundleError::BadKey(rustls::Error::General(format!("{} bytes are no ticket key", opened.len()))))
    }
}

/// `id | from | until`: read from its end it is one way only, since numbers have no `|`.
fn additional_data(id: &str, issue_from: UnixSeconds, accept_until: UnixSeconds) -> Vec<u8> {
    format!("{id}|{issue_from}|{accept_until}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EdgeSettings, SealKeyPair};

    #[test]
    fn a_sealed_ticket_key_opens_with_its_own_id_and_times_only() {
        let pair = SealKeyPair::generate().unwrap();
        let key = TicketKey::seal(pair.public(), &[7; 32], 5, 90).unwrap();
        let other = TicketKey::seal(pair.public(), &[8; 32], 5, 90).unwrap();
        assert_ne!(key.id, other.id);
        let short = pair.public().seal_bytes(INFO, &additional_data(&key.id, 5, 90), &[7; 31]).unwrap();
        let keys: SealKeys = [pair].into_iter().collect();
        assert_eq!(*key.open(&keys).unwrap(), [7; 32]);
        for moved in [
            TicketKey { id: other.id, ..key.clone() },
            TicketKey { issue_from: 4, ..key.clone() },
            TicketKey { accept_until: i64::MAX, ..key.clone() },
        ] {
            assert_eq!(moved.open(&keys).unwrap_err().reason(), "unsealable");
        }
        assert_eq!(TicketKey { sealed_key: short, ..key.clone() }.open(&keys).unwrap_err().reason(), "bad_key");
        let foreign: SealKeys = [SealKeyPair::generate().unwrap()].into_iter().collect();
        assert_eq!(key.open(&foreign).unwrap_err().reason(), "unknown_seal_key");
    }

    #[test]
    fn settings_carry_ticket_keys_and_read_without_any() {
        let pair = SealKeyPair::generate().unwrap();
        let settings = EdgeSettings::new(2, vec![]).with_ticket_keys(vec![TicketKey::seal(pair.public(), &[7; 32], 5, 90).unwrap()]);
        assert_eq!(EdgeSettings::from_bytes(&settings.to_bytes()).unwrap(), settings);
        let read = EdgeSettings::from_bytes(br#"{"format":1,"generation":3,"challenge_thumbprints":["a"]}"#).unwrap();
        assert!(read.ticket_keys.is_empty());
    }
}
