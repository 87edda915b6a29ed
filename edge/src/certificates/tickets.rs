//! TLS session tickets: all that a session needs travels with its client, sealed, and the edge keeps nothing for each.
//!
//! Arrives: rustls' sessions, tickets from strangers, shared keys of `edge.json`. Leaves: tickets, and sessions to the very site that they
//! were made at. Goes wrong: a ticket that does not open costs a full handshake, nothing else, and is counted by why.
//!
//! A ticket is bound to its site: hostname, tenant, and the site's version, which only grows, with each certificate, change of owner or
//! origin, and removal. So no ticket outlives any of these, not even where a name comes back to whom it belonged before, and a chain of
//! resumptions ends with the certificate that it began with. rustls compares the SNI too; this does not rest on it.
//!
//! A ticket is `key name | nonce | sealed session | tag`: AES-256-GCM-SIV (RFC 8452) with a random nonce and the site as additional data. One
//! key serves all sites and every edge of a fleet for hours, which is more tickets than random nonces of plain GCM are good for.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use bundles::{Digest, EdgeSettings, SealKeys, TicketKey, UnixSeconds};
use domains::{Clock, Hostname, SiteVersion, TenantId};
use rustls::server::ProducesTickets;
use zeroize::Zeroizing;

use crate::{
    config::TicketKeys,
    metrics::{EdgeMetrics, RefusedTicket},
};

/// How long a ticket is good for at least, which its client is told.
///
/// Source: RFC 8446, section 4.6.1 has seven days as the most; RFC 8446, appendix C.4, and RFC 5077, section 5.6, ask for little.
const LIFE_SECONDS: u32 = 12 * 3600;
/// How long a key of this process seals; it opens for a ticket's life more.
const OWN_SEALS_SECONDS: UnixSeconds = 12 * 3600;
/// The longest that a shared key may be good for, and the furthest ahead that it may begin: whoever writes otherwise is not our pipeline.
const MAX_SHARED_SECONDS: UnixSeconds = 3 * 86_400;
/// The most shared keys held at once; the pipeline needs three.
const MAX_SHARED: usize = 8;

const NAME_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = NAME_BYTES + NONCE_LEN;
/// The largest ticket looked at: rustls' session with the longest SNI, ALPN and secrets has less than half of it.
const MAX_TICKET_BYTES: usize = 1024;

/// A key, and when it may be used.
struct Key {
    name: [u8; NAME_BYTES],
    from: UnixSeconds,
    until: UnixSeconds,
    key: LessSafeKey,
}

impl Key {
    fn new(id: &str, secret: &[u8; TicketKey::BYTES], from: UnixSeconds, until: UnixSeconds) -> Option<Self> {
        let mut name = [0; NAME_BYTES];
        name.copy_from_slice(&Digest::of(id.as_bytes()).as_bytes()[..NAME_BYTES]);
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, secret).ok()?);
        Some(Self { name, from, until, key })
    }

    /// A new one that only this process has.
    fn of_this_process(now: UnixSeconds) -> Option<Self> {
        let (mut secret, mut id) = (Zeroizing::new([0; TicketKey::BYTES]), [0; NAME_BYTES]);
        rand::fill(secret.as_mut()).ok()?;
        rand::fill(&mut id).ok()?;
        Self::new(&Digest::of(&id).to_string(), &secret, now, now + OWN_SEALS_SECONDS + UnixSeconds::from(LIFE_SECONDS))
    }

    fn seals(&self, now: UnixSeconds) -> bool {
        (self.from..self.until).contains(&now)
    }

    fn seal(&self, site: &[u8; 32], session: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(HEAD_BYTES + session.len() + TAG_BYTES);
        ticket.extend_from_slice(&self.name);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(session);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(site), &mut ticket[HEAD_BYTES..]).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    /// Opens what follows the key's name.
    fn open(&self, site: &[u8; 32], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let mut session = sealed.to_vec();
        let opened = self.key.open_in_place(Nonce::try_assume_unique_for_key(nonce).ok()?, Aad::from(site), &mut session).ok()?.len();
        session.truncate(opened);
        Some(session)
    }
}

#[derive(Default)]
struct Keys {
    /// This process's own, newest last.
    own: Vec<Arc<Key>>,
    shared: Vec<Arc<Key>>,
}

impl Keys {
    fn own_at(&self, now: UnixSeconds) -> Option<&Arc<Key>> {
        self.own.last().filter(|key| (key.from..key.from + OWN_SEALS_SECONDS).contains(&now))
    }

    fn shared_at(&self, now: UnixSeconds) -> Option<&Arc<Key>> {
        self.shared.iter().filter(|key| key.seals(now)).max_by_key(|key| key.from)
    }

    fn drop_ended(&mut self, now: UnixSeconds) {
        self.own.retain(|key| key.until > now);
        self.shared.retain(|key| key.until > now);
    }
}

/// Seals and opens the tickets of all sites.
pub(crate) struct Tickets {
    whose: TicketKeys,
    clock: Arc<dyn Clock>,
    metrics: EdgeMetrics,
    keys: RwLock<Keys>,
}

impl Tickets {
    pub(crate) fn new(whose: TicketKeys, clock: Arc<dyn Clock>, metrics: EdgeMetrics) -> Self {
        Self { whose, clock, metrics, keys: RwLock::default() }
    }

    /// Takes the shared keys of new settings, where they are wanted.
    ///
    /// A key is kept to its own end whatever later settings say, and one that is known is never replaced: so no settings, however old, cut or
    /// forged, make the edge seal with an earlier key than it did, or forget one. Those that do not open, or claim to be good for longer than
    /// any of ours, are refused and counted.
    pub(crate) fn take(&self, settings: &EdgeSettings, seal_keys: &SealKeys) {
        if self.whose == TicketKeys::Process {
            return;
        }
        let now = self.clock.now().as_second();
        let known: Vec<_> = self.read().shared.iter().map(|key| key.name).collect();
        for offered in settings.ticket_keys.iter().filter(|key| key.accept_until > now) {
            match accept(offered, seal_keys, now) {
                Ok(key) if known.contains(&key.name) => {}
                Ok(key) => {
                    let mut keys = self.write();
                    keys.drop_ended(now);
                    if keys.shared.len() < MAX_SHARED {
                        tracing::info!(key = offered.id, from = key.from, until = key.until, "a shared key for session tickets");
                        keys.shared.push(Arc::new(key));
                    } else {
                        drop(keys);
                        self.refused(offered, "ticket_keys_too_many", "there are more than can be in use");
                    }
                }
                Err((reason, problem)) => self.refused(offered, reason, &problem),
            }
        }
    }

    fn refused(&self, key: &TicketKey, reason: &'static str, problem: &str) {
        self.metrics.object_refused(reason);
        tracing::error!(key = key.id, code = reason, problem, "a key for session tickets of the edge settings cannot be used");
    }

    /// Forgets keys that have ended, so that what was sealed with them stays sealed for ever.
    pub(crate) fn forget_ended(&self) {
        let now = self.clock.now().as_second();
        let keys = self.read();
        if keys.own.iter().chain(&keys.shared).any(|key| key.until <= now) {
            drop(keys);
            self.write().drop_ended(now);
        }
    }

    /// The key to seal with now, and whether it is a shared one.
    fn sealing(&self, now: UnixSeconds) -> Option<(Arc<Key>, bool)> {
        let keys = self.read();
        if let Some(key) = keys.shared_at(now) {
            return Some((Arc::clone(key), true));
        }
        if let Some(key) = keys.own_at(now) {
            return Some((Arc::clone(key), false));
        }
        drop(keys);
        let made = Arc::new(Key::of_this_process(now)?);
        let mut keys = self.write();
        keys.drop_ended(now);
        // Another thread may have been faster.
        if keys.own_at(now).is_none() {
            keys.own.push(made);
        }
        keys.own_at(now).map(|key| (Arc::clone(key), false))
    }

    fn seal(&self, site: &[u8; 32], session: &[u8]) -> Option<Vec<u8>> {
        let (key, shared) = self.sealing(self.clock.now().as_second())?;
        let ticket = key.seal(site, session)?;
        if shared { &self.metrics.tickets_shared } else { &self.metrics.tickets_own }.increment();
        Some(ticket)
    }

    fn open(&self, site: &[u8; 32], ticket: &[u8]) -> Result<Vec<u8>, RefusedTicket> {
        if ticket.len() > MAX_TICKET_BYTES {
            return Err(RefusedTicket::Malformed);
        }
        let (name, sealed) = ticket.split_first_chunk::<NAME_BYTES>().ok_or(RefusedTicket::Malformed)?;
        let now = self.clock.now().as_second();
        let keys = self.read();
        let named = keys.own.iter().chain(&keys.shared).find(|key| key.name == *name && now < key.until);
        let key = Arc::clone(named.ok_or(RefusedTicket::UnknownKey)?);
        drop(keys);
        key.open(site, sealed).ok_or(RefusedTicket::OtherSite)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Keys> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Judges a shared key that has not ended.
fn accept(offered: &TicketKey, seal_keys: &SealKeys, now: UnixSeconds) -> Result<Key, (&'static str, String)> {
    let times = || ("ticket_key_times", format!("it is for {} to {}", offered.issue_from, offered.accept_until));
    let life = offered.accept_until.checked_sub(offered.issue_from).ok_or_else(times)?;
    if !(1..=MAX_SHARED_SECONDS).contains(&life) || offered.issue_from > now + MAX_SHARED_SECONDS {
        return Err(times());
    }
    let secret = offered.open(seal_keys).map_err(|error| (error.reason(), telemetry::error_chain(&error)))?;
    Key::new(&offered.id, &secret, offered.issue_from, offered.accept_until).ok_or_else(|| ("bad_key", "it is no AES-256 key".to_owned()))
}

/// The tickets of one site.
pub(super) struct SiteTickets {
    site: [u8; 32],
    tickets: Arc<Tickets>,
}

impl SiteTickets {
    pub(super) fn new(hostname: &Hostname, tenant: &TenantId, version: SiteVersion, tickets: Arc<Tickets>) -> Self {
        // Neither a hostname nor a tenant can contain `|`, so no two sites are written alike.
        Self { site: *Digest::of(format!("{hostname}|{tenant}|{version}").as_bytes()).as_bytes(), tickets }
    }
}

impl fmt::Debug for SiteTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SiteTickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for SiteTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFE_SECONDS
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        self.tickets.seal(&self.site, session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.tickets.open(&self.site, ticket).map_err(|why| self.tickets.metrics.ticket_refused(why)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bundles::SealKeyPair;
    use domains::HandClock;
    use std::time::Duration;

    const HOUR: UnixSeconds = 3600;

    struct Stand {
        clock: Arc<HandClock>,
        metrics: EdgeMetrics,
        tickets: Arc<Tickets>,
        seal: SealKeyPair,
    }

    impl Stand {
        fn new(whose: TicketKeys) -> Self {
            let clock = Arc::new(HandClock::starting_at("2026-11-24T10:00:00Z".parse().unwrap()));
            let metrics = EdgeMetrics::new(0);
            let tickets = Arc::new(Tickets::new(whose, clock.clone(), metrics.clone()));
            Self { clock, metrics, tickets, seal: SealKeyPair::generate().unwrap() }
        }

        fn now(&self) -> UnixSeconds {
            self.clock.now().as_second()
        }

        fn advance(&self, hours: u64) {
            self.clock.advance(Duration::from_secs(hours * 3600));
        }

        fn site(&self, hostname: &str, tenant: &str, version: u64) -> SiteTickets {
            let (hostname, tenant) = (Hostname::parse_name(hostname).unwrap(), TenantId::parse(tenant).unwrap());
            SiteTickets::new(&hostname, &tenant, SiteVersion(version), Arc::clone(&self.tickets))
        }

        fn shop(&self) -> SiteTickets {
            self.site("shop.brand.com", "acme", 1)
        }

        fn key(&self, byte: u8, from: UnixSeconds, until: UnixSeconds) -> TicketKey {
            TicketKey::seal(self.seal.public(), &[byte; 32], from, until).unwrap()
        }

        fn take(&self, keys: &[TicketKey]) {
            let pair = SealKeyPair::from_json(&self.seal.to_json()).unwrap();
            self.tickets.take(&EdgeSettings::new(1, Vec::new()).with_ticket_keys(keys.to_vec()), &[pair].into_iter().collect());
        }

        fn count(&self, series: &str) -> u64 {
            let text = self.metrics.registry.to_prometheus();
            text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok()).unwrap_or(0)
        }

        fn refused(&self, reason: &str) -> u64 {
            self.count(&format!("nameplate_edge_tickets_refused_total{{reason=\"{reason}\"}}"))
        }

        fn object_refused(&self, reason: &str) -> u64 {
            self.count(&format!("nameplate_edge_objects_refused_total{{reason=\"{reason}\"}}"))
        }
    }

    #[test]
    fn a_ticket_opens_at_its_own_site_and_version_only_and_unaltered() {
        let stand = Stand::new(TicketKeys::Process);
        let ticket = stand.shop().encrypt(b"session").unwrap();
        assert_ne!(ticket, stand.shop().encrypt(b"session").unwrap());
        assert_eq!(stand.shop().decrypt(&ticket).unwrap(), b"session");
        for (hostname, tenant, version) in [("shop.other.com", "acme", 1), ("shop.brand.com", "other", 1), ("shop.brand.com", "acme", 2)] {
            assert_eq!(stand.site(hostname, tenant, version).decrypt(&ticket), None);
        }
        assert_eq!(stand.refused("other_site"), 3);
        for position in 0..ticket.len() {
            let mut altered = ticket.clone();
            altered[position] ^= 1;
            assert_eq!(stand.shop().decrypt(&altered), None, "{position}");
        }
        for length in 0..ticket.len() {
            assert_eq!(stand.shop().decrypt(&ticket[..length]), None, "{length}");
        }
        assert_eq!(stand.shop().decrypt(&[0; MAX_TICKET_BYTES + 1]), None);
    }

    #[test]
    fn keys_of_a_process_follow_one_another_and_open_for_a_tickets_life_longer() {
        let stand = Stand::new(TicketKeys::Process);
        let first = stand.shop().encrypt(b"session").unwrap();
        stand.advance(11);
        let late = stand.shop().encrypt(b"session").unwrap();
        assert_eq!(first[..NAME_BYTES], late[..NAME_BYTES]);
        stand.advance(1);
        let next = stand.shop().encrypt(b"session").unwrap();
        assert_ne!(late[..NAME_BYTES], next[..NAME_BYTES]);
        stand.advance(11);
        assert!(stand.shop().decrypt(&late).is_some(), "for its life of twelve hours");
        stand.advance(1);
        assert_eq!(stand.shop().decrypt(&late), None);
        assert_eq!(stand.refused("unknown_key"), 1);
        assert!(stand.shop().decrypt(&next).is_some());
        stand.tickets.forget_ended();
        assert_eq!(stand.tickets.read().own.len(), 1, "an ended key is nowhere any more");
        stand.advance(1000);
        assert_eq!(stand.shop().decrypt(&next), None);
        let fresh = stand.shop().encrypt(b"session").unwrap();
        assert!(stand.shop().decrypt(&fresh).is_some());
        assert_eq!(stand.tickets.read().own.len(), 1);
        // A clock that is set back makes a new key rather than one that never ends.
        stand.tickets.write().own.clear();
        stand.tickets.write().own.push(Arc::new(Key::of_this_process(stand.now() + 99 * HOUR).unwrap()));
        let after = stand.shop().encrypt(b"session").unwrap();
        assert!(stand.shop().decrypt(&after).is_some());
    }

    #[test]
    fn a_process_with_keys_of_its_own_takes_no_others() {
        let (one, two) = (Stand::new(TicketKeys::Process), Stand::new(TicketKeys::Process));
        let key = one.key(1, one.now(), one.now() + HOUR);
        one.take(&[key]);
        let ticket = one.shop().encrypt(b"session").unwrap();
        assert_eq!(two.shop().decrypt(&ticket), None);
        assert!(one.tickets.read().shared.is_empty());
    }

    #[test]
    fn the_newest_shared_key_whose_time_has_come_seals_and_older_ones_open_to_their_end() {
        let stand = Stand::new(TicketKeys::Shared);
        let begin = stand.now();
        let keys = [stand.key(1, begin, begin + 24 * HOUR), stand.key(2, begin + 12 * HOUR, begin + 36 * HOUR)];
        stand.take(&keys);
        let name = |ticket: &[u8]| ticket[..NAME_BYTES].to_vec();
        let first = stand.shop().encrypt(b"session").unwrap();
        stand.advance(12);
        let second = stand.shop().encrypt(b"session").unwrap();
        assert_ne!(name(&first), name(&second));
        stand.advance(11);
        assert!(stand.shop().decrypt(&first).is_some());
        stand.advance(1);
        assert_eq!(stand.shop().decrypt(&first), None);
        assert_eq!(stand.count("nameplate_edge_tickets_total{key=\"process\"}"), 0);
        // Nothing newer comes: past the end each process has keys of its own again, and that is counted.
        stand.advance(12);
        let own = stand.shop().encrypt(b"session").unwrap();
        assert!(stand.shop().decrypt(&own).is_some());
        assert_eq!(stand.shop().decrypt(&second), None);
        assert_eq!(stand.count("nameplate_edge_tickets_total{key=\"process\"}"), 1);
        assert_eq!(stand.count("nameplate_edge_tickets_total{key=\"shared\"}"), 2);
    }

    #[test]
    fn no_settings_make_it_seal_with_an_earlier_key_or_forget_one() {
        let stand = Stand::new(TicketKeys::Shared);
        let begin = stand.now();
        let (old, new) = (stand.key(1, begin - HOUR, begin + 23 * HOUR), stand.key(2, begin, begin + 24 * HOUR));
        stand.take(&[old.clone(), new.clone()]);
        let ticket = stand.shop().encrypt(b"session").unwrap();
        let seals_alike = || stand.shop().encrypt(b"session").unwrap()[..NAME_BYTES] == ticket[..NAME_BYTES];

        let foreign = TicketKey::seal(SealKeyPair::generate().unwrap().public(), &[9; 32], begin + 1, begin + HOUR).unwrap();
        stand.take(&[]);
        stand.take(&[old]);
        stand.take(&[stand.key(3, begin - 30 * HOUR, begin - HOUR)]);
        assert_eq!(stand.object_refused("ticket_key_times"), 0, "one that has ended is nobody's fault");
        stand.take(&[foreign]);
        assert_eq!(stand.object_refused("unknown_seal_key"), 1);
        stand.take(&[TicketKey { issue_from: begin - 1, ..new.clone() }]);
        assert_eq!(stand.object_refused("unsealable"), 1);
        for (from, until) in
            [(begin, begin + 100 * 24 * HOUR), (begin + 1000 * HOUR, begin + 1001 * HOUR), (begin + HOUR, begin + 1), (i64::MIN, i64::MAX)]
        {
            stand.take(&[stand.key(4, from, until)]);
        }
        assert_eq!(stand.object_refused("ticket_key_times"), 4);
        assert!(seals_alike() && stand.shop().decrypt(&ticket).is_some());

        let many: Vec<_> = (10..30).map(|byte| stand.key(byte, begin + HOUR, begin + 2 * HOUR)).collect();
        stand.take(&many);
        assert_eq!(stand.tickets.read().shared.len(), MAX_SHARED);
        assert_eq!(stand.object_refused("ticket_keys_too_many"), 14);
        assert!(seals_alike());
    }
}
