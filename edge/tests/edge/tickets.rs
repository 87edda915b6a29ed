//! Sessions resume at the site they were made at and nowhere else, by TLS 1.2 and 1.3, at one edge or at all that share their keys.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use bundles::{Digest, EDGE_SETTINGS_OBJECT, EdgeSettings, TicketKey};
use domains::{Clock, HandClock, SystemClock};
use edge::{Config, Edge, Parts, config::TicketKeys};
use rustls::{
    ClientConfig, HandshakeKind, NamedGroup, RootCertStore, SupportedProtocolVersion,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
    version::{TLS12, TLS13},
};

use crate::{
    bucket::{Bucket, root},
    client::{self, SOON},
    origin::Origin,
    setup::{Watched, eventually},
};

const SHOP: &str = "shop.brand.com";
const OTHER: &str = "other.brand.com";
const HOUR: i64 = 3600;

/// Edges around one bucket, with a clock that the test turns.
struct Fleet {
    bucket: Bucket,
    source: Arc<Watched>,
    origin: Origin,
    clock: Arc<HandClock>,
}

/// An edge, and what it keeps over a restart.
struct Place {
    edge: Option<Edge>,
    cache: tempfile::TempDir,
    whose: TicketKeys,
}

impl Fleet {
    async fn new() -> Self {
        let bucket = Bucket::new();
        bucket.put(SHOP, "acme", 1);
        bucket.put(OTHER, "acme", 1);
        let source = Watched::new(bucket.path());
        Self { bucket, source, origin: Origin::start().await, clock: Arc::new(HandClock::starting_at(SystemClock.now())) }
    }

    async fn edge(&self, whose: TicketKeys) -> Place {
        let mut place = Place { edge: None, cache: tempfile::tempdir().unwrap(), whose };
        self.start(&mut place).await;
        eventually("every bundle is on the local disk", async || {
            let (known, served) = place.edge().names();
            known == 2 && served == 2
        })
        .await;
        place
    }

    async fn start(&self, place: &mut Place) {
        let mut config = Config::on_loopback(self.origin.address.to_string(), place.cache.path());
        config.refresh.poll_interval = Duration::from_millis(50);
        config.tickets = place.whose;
        let parts = Parts { source: self.source.clone(), seal_keys: self.bucket.seal_keys(), clock: self.clock.clone() };
        let edge = Edge::start(config, parts).await.unwrap();
        assert!(edge.until_ready(Duration::from_secs(20)).await);
        place.edge = Some(edge);
    }

    async fn restart(&self, place: &mut Place) {
        drop(place.edge.take());
        let lock = place.cache.path().join("lock");
        eventually("the cache folder is free", async || std::fs::File::open(&lock).unwrap().try_lock().is_ok()).await;
        self.start(place).await;
    }

    fn key(&self, byte: u8, from: i64, until: i64) -> TicketKey {
        let now = self.clock.now().as_second();
        TicketKey::seal(&self.bucket.seal_key, &[byte; 32], now + from, now + until).unwrap()
    }

    fn publish(&self, generation: u64, keys: &[TicketKey]) {
        let settings = EdgeSettings::new(generation, vec!["thumbprint".to_owned()]).with_ticket_keys(keys.to_vec());
        self.bucket.write(EDGE_SETTINGS_OBJECT, &settings.to_bytes());
    }

    fn advance(&self, hours: u64) {
        self.clock.advance(Duration::from_secs(hours * 3600));
    }
}

impl Place {
    fn edge(&self) -> &Edge {
        self.edge.as_ref().unwrap()
    }

    fn address(&self) -> SocketAddr {
        self.edge().https_addr
    }

    fn metric(&self, series: &str) -> u64 {
        let text = self.edge().metrics().to_prometheus();
        text.lines()
            .find_map(|line| line.strip_prefix("nameplate_edge_")?.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0)
    }

    fn refused(&self, reason: &str) -> u64 {
        self.metric(&format!("tickets_refused_total{{reason=\"{reason}\"}}"))
    }

    async fn until_served(&self, certificate: Digest) {
        eventually("the new certificate is served", async || {
            client::served(self.address(), SHOP).await.is_ok_and(|now| now == certificate)
        })
        .await;
    }
}

/// A client that offers the last session it was given to any name at any address.
struct Visitor(Arc<ClientConfig>);

/// What a visit saw.
#[derive(Debug)]
struct Seen {
    resumed: bool,
    tenant: String,
    certificate: Digest,
}

impl Visitor {
    fn new(version: &'static SupportedProtocolVersion) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let mut config = builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::store(Arc::new(Forgetful::default()));
        config.enable_early_data = true;
        Self(Arc::new(config))
    }

    async fn visit(&self, edge: SocketAddr, name: &str) -> Seen {
        let mut stream = client::connect_with(self.0.clone(), edge, name).await.unwrap();
        let request = format!("GET /echo HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        let (answer, ended) = client::talk(&mut stream, request.as_bytes(), SOON).await;
        assert!(ended && answer.starts_with("HTTP/1.1 200"), "{answer}");
        let tenant = answer.lines().find_map(|line| line.strip_prefix("x-nameplate-tenant: ")).unwrap().to_owned();
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        Seen { resumed, tenant, certificate: client::fingerprint(&stream) }
    }

    async fn resumes(&self, place: &Place) -> bool {
        self.visit(place.address(), SHOP).await.resumed
    }

    /// One that has a session of the shop.
    async fn returning(version: &'static SupportedProtocolVersion, place: &Place) -> Self {
        let visitor = Self::new(version);
        assert!(!visitor.resumes(place).await);
        visitor
    }
}

#[derive(Debug, Default)]
struct Forgetful(Mutex<(Option<Tls12ClientSessionValue>, Vec<Tls13ClientSessionValue>)>);

impl ClientSessionStore for Forgetful {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.lock().unwrap().0 = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.lock().unwrap().0.clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.lock().unwrap().0 = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.lock().unwrap().1.push(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap().1.pop()
    }
}

#[tokio::test]
async fn a_session_resumes_at_its_own_name_and_at_another_the_handshake_is_a_full_one() {
    let fleet = Fleet::new().await;
    let place = fleet.edge(TicketKeys::Process).await;
    let certificates = [client::served(place.address(), SHOP).await.unwrap(), client::served(place.address(), OTHER).await.unwrap()];
    for (round, version) in [&TLS13, &TLS12].into_iter().enumerate() {
        let visitor = Visitor::returning(version, &place).await;
        assert!(visitor.resumes(&place).await && visitor.resumes(&place).await, "once and again");
        let elsewhere = visitor.visit(place.address(), OTHER).await;
        assert!(!elsewhere.resumed && elsewhere.certificate == certificates[1], "{elsewhere:?}");
        let back = visitor.visit(place.address(), SHOP).await;
        assert!(!back.resumed && back.certificate == certificates[0], "{back:?}");
        // Each was refused because it does not open there, before rustls compared the names inside.
        assert_eq!(place.refused("other_site"), 2 * (round as u64 + 1));
        assert_eq!(place.metric("handshakes_resumed_total"), 2 * (round as u64 + 1));
    }
}

#[tokio::test]
async fn no_session_outlives_a_transfer_a_removal_or_a_renewal_even_where_a_name_comes_back() {
    for version in [&TLS13, &TLS12] {
        let fleet = Fleet::new().await;
        let place = fleet.edge(TicketKeys::Process).await;
        let of_acme = [
            Visitor::returning(version, &place).await,
            Visitor::returning(version, &place).await,
            Visitor::returning(version, &place).await,
        ];
        place.until_served(fleet.bucket.put(SHOP, "newcomer", 2)).await;
        let seen = of_acme[0].visit(place.address(), SHOP).await;
        assert!(!seen.resumed && seen.tenant == "newcomer", "{seen:?}");

        place.until_served(fleet.bucket.put(SHOP, "acme", 3)).await;
        let seen = of_acme[1].visit(place.address(), SHOP).await;
        assert!(!seen.resumed && seen.tenant == "acme", "it was another's in between: {seen:?}");

        fleet.bucket.remove(SHOP, 4);
        eventually("the name is gone", async || client::served(place.address(), SHOP).await.is_err()).await;
        place.until_served(fleet.bucket.put(SHOP, "acme", 5)).await;
        assert!(!of_acme[2].resumes(&place).await);

        let before_renewal = Visitor::returning(version, &place).await;
        let renewed = fleet.bucket.put(SHOP, "acme", 6);
        place.until_served(renewed).await;
        let seen = before_renewal.visit(place.address(), SHOP).await;
        assert!(!seen.resumed && seen.certificate == renewed, "who resumes for ever would never see it: {seen:?}");
        assert!(before_renewal.resumes(&place).await);
    }
}

#[tokio::test]
async fn a_session_resumes_for_half_a_day_and_not_after_a_day_nor_after_a_restart() {
    for version in [&TLS13, &TLS12] {
        let fleet = Fleet::new().await;
        let mut place = fleet.edge(TicketKeys::Process).await;
        let [early, late] = [Visitor::returning(version, &place).await, Visitor::returning(version, &place).await];
        fleet.advance(12);
        assert!(early.resumes(&place).await, "the key has changed; the one before it still opens");
        fleet.advance(12);
        assert!(!late.resumes(&place).await);
        assert_eq!(place.refused("unknown_key"), 1);

        fleet.restart(&mut place).await;
        assert!(!late.resumes(&place).await, "the keys went with the process");
        assert_eq!(place.refused("unknown_key"), 1);
        assert!(late.resumes(&place).await);
    }
}

#[tokio::test]
async fn edges_that_share_keys_resume_each_others_sessions_and_others_do_not() {
    let fleet = Fleet::new().await;
    fleet.publish(2, &[fleet.key(1, -HOUR, 23 * HOUR), fleet.key(2, 11 * HOUR, 35 * HOUR)]);
    let (here, mut there) = (fleet.edge(TicketKeys::Shared).await, fleet.edge(TicketKeys::Shared).await);
    let (alone, lonely) = (fleet.edge(TicketKeys::Process).await, fleet.edge(TicketKeys::Process).await);
    for version in [&TLS13, &TLS12] {
        let visitor = Visitor::returning(version, &here).await;
        assert!(visitor.resumes(&there).await && visitor.resumes(&here).await);
        assert!(!visitor.visit(there.address(), OTHER).await.resumed, "shared between edges, never between names");

        let visitor = Visitor::returning(version, &here).await;
        assert!(!visitor.resumes(&alone).await && !visitor.resumes(&lonely).await && !visitor.resumes(&here).await);
    }

    // The store dies, and an edge restarts: what was shared is on its disk, and the next key's time comes all the same.
    fleet.source.dead.store(true, Ordering::SeqCst);
    let visitors = [Visitor::returning(&TLS13, &here).await, Visitor::returning(&TLS12, &here).await];
    fleet.restart(&mut there).await;
    fleet.advance(12);
    for visitor in &visitors {
        assert!(visitor.resumes(&there).await && visitor.resumes(&here).await);
    }
    assert_eq!(here.metric("tickets_total{key=\"process\"}"), 0);
    // Past the last key's end each edge is on its own, and says so.
    fleet.advance(24);
    for visitor in &visitors {
        assert!(!visitor.resumes(&there).await && visitor.resumes(&there).await && !visitor.resumes(&here).await);
    }
    assert_eq!(there.metric("tickets_total{key=\"process\"}"), 4);
}

#[tokio::test]
async fn settings_that_are_old_or_lie_take_no_shared_key_away_and_bring_no_old_one_back() {
    let fleet = Fleet::new().await;
    let (old, new) = (fleet.key(1, -HOUR, 23 * HOUR), fleet.key(2, 0, 24 * HOUR));
    fleet.publish(5, &[old.clone(), new]);
    let (here, there) = (fleet.edge(TicketKeys::Shared).await, fleet.edge(TicketKeys::Shared).await);
    let refused = |place: &Place, reason: &str| place.metric(&format!("objects_refused_total{{reason=\"{reason}\"}}"));
    let visitors = [Visitor::returning(&TLS13, &here).await, Visitor::returning(&TLS12, &here).await];

    fleet.publish(4, &[fleet.key(3, 0, HOUR)]);
    eventually("a lower generation is refused", async || refused(&there, "settings_lower_generation") > 0).await;
    // Of a higher generation, and with the older key alone; the one beside it is sealed to nobody here.
    let foreign = TicketKey { sealed_key: old.sealed_key.clone(), ..fleet.key(4, 0, HOUR) };
    fleet.publish(6, &[old, foreign]);
    eventually("the key that does not open is refused", async || refused(&there, "unsealable") > 0 && refused(&here, "unsealable") > 0)
        .await;
    for visitor in visitors {
        assert!(visitor.resumes(&there).await, "made before the lies");
        assert!(visitor.resumes(&here).await, "made after them");
    }
}

#[tokio::test]
async fn nobody_is_offered_early_data() {
    let fleet = Fleet::new().await;
    let place = fleet.edge(TicketKeys::Process).await;
    let visitor = Visitor::returning(&TLS13, &place).await;
    assert!(visitor.resumes(&place).await, "there is a session that could be offered with some");
    let mut next = rustls::ClientConnection::new(visitor.0.clone(), ServerName::try_from(SHOP).unwrap()).unwrap();
    assert!(next.early_data().is_none(), "a session that allows it would be offered here");
    assert!(next.wants_write());
}
