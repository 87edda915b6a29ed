//! The keys that edges share for TLS session tickets: each in the bucket before any edge seals with it, and gone with its last ticket.
//!
//! Arrives: the keys there are, and the time. Leaves: what is to be made and retired. Goes wrong: a timer that is late; edges seal with
//! keys of their own from a key's end on, until they have read the next one.

use std::time::Duration;

use aws_lc_rs::rand;
use bundles::{SealPublicKey, TicketKey, UnixSeconds};
use domains::StoreError;

use crate::keys::defect;

/// How long a key seals tickets before the next one takes over: whoever learns it reads no more than this and what it is kept after.
pub const SEALS_FOR: Duration = Duration::from_secs(12 * 3600);
/// How long a key opens tickets once the next one took over: a ticket's life at the edge.
pub const OPENS_AFTER: Duration = Duration::from_secs(12 * 3600);
/// How long a key lies in the bucket before it seals: many times what an edge needs to see a change, and longer than clocks differ.
pub const SHARED_AHEAD: Duration = Duration::from_secs(3600);

/// What is to be done about the keys there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// A new key is to be made that seals from then on.
    make: Option<UnixSeconds>,
    /// Keys that have ended by then are not needed any more.
    retire: Option<UnixSeconds>,
}

/// Decides what the time asks for; a key sealed to another seal key than today's is followed by one that is not.
pub(crate) fn plan(keys: &[TicketKey], seal_key_id: &str, shared: bool, now: UnixSeconds) -> Plan {
    let [seals_for, ahead] = [SEALS_FOR, SHARED_AHEAD].map(|span| span.as_secs().cast_signed());
    let make = match keys.iter().max_by_key(|key| key.issue_from) {
        // With none in use there is no ticket that an edge without the new key could fail to open.
        None => Some(now),
        Some(newest) if newest.accept_until <= now => Some(now),
        Some(newest) if newest.sealed_key.seal_key_id != seal_key_id => Some(now + ahead),
        Some(newest) => {
            let ends = newest.issue_from + seals_for;
            (now >= ends - ahead).then(|| ends.max(now + ahead))
        }
    };
    Plan { make: make.filter(|_| shared), retire: keys.iter().any(|key| key.accept_until <= now).then_some(now) }
}

impl Plan {
    pub(crate) fn apply(&self, keys: &mut Vec<TicketKey>, seal_to: &SealPublicKey) -> Result<(), StoreError> {
        if let Some(now) = self.retire {
            keys.retain(|key| key.accept_until > now);
        }
        let Some(issue_from) = self.make else { return Ok(()) };
        let mut secret = zeroize::Zeroizing::new([0; TicketKey::BYTES]);
        rand::fill(secret.as_mut()).map_err(|_| defect("the machine gave no randomness"))?;
        let accept_until = issue_from + (SEALS_FOR + OPENS_AFTER).as_secs().cast_signed();
        let key = TicketKey::seal(seal_to, &secret, issue_from, accept_until).map_err(defect)?;
        tracing::info!(step = "schedule-renewals", key = key.id, issue_from, accept_until, "a new key for session tickets");
        keys.push(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::SealKeyPair;

    const HOUR: i64 = 3600;

    fn keys(pair: &SealKeyPair, times: &[UnixSeconds]) -> Vec<TicketKey> {
        times.iter().map(|&from| TicketKey::seal(pair.public(), &[7; 32], from, from + 24 * HOUR).unwrap()).collect()
    }

    #[test]
    fn the_next_key_is_in_the_bucket_before_it_seals_however_late_the_timer_is() {
        let pair = SealKeyPair::generate().unwrap();
        let make = |times: &[UnixSeconds], now| plan(&keys(&pair, times), pair.id(), true, now).make;
        assert_eq!(make(&[], 5), Some(5));
        assert_eq!(make(&[0], 11 * HOUR - 1), None);
        assert_eq!(make(&[0], 11 * HOUR), Some(12 * HOUR));
        assert_eq!(make(&[0, 12 * HOUR], 11 * HOUR), None);
        assert_eq!(make(&[0], 23 * HOUR), Some(24 * HOUR));
        assert_eq!(make(&[0], 24 * HOUR), Some(24 * HOUR), "nothing in use any more");
        assert_eq!(plan(&keys(&pair, &[0]), "another seal key", true, HOUR).make, Some(2 * HOUR));
    }

    #[test]
    fn a_key_ends_with_its_last_ticket_and_none_is_made_where_edges_do_not_share() {
        let pair = SealKeyPair::generate().unwrap();
        let two = keys(&pair, &[0, 12 * HOUR]);
        assert_eq!(plan(&two, pair.id(), true, 23 * HOUR - 1), Plan::default());
        let due = plan(&two, pair.id(), true, 24 * HOUR);
        let mut after = two.clone();
        due.apply(&mut after, pair.public()).unwrap();
        assert_eq!(after[0], two[1]);
        assert_eq!(after.len(), 2);
        assert_eq!((after[1].issue_from, after[1].accept_until), (25 * HOUR, 49 * HOUR));

        assert_eq!(plan(&[], pair.id(), false, 0), Plan::default());
        assert_eq!(plan(&two, pair.id(), false, 24 * HOUR), Plan { make: None, retire: Some(24 * HOUR) });
    }
}
