//! Traffic that never pauses while the store is down, silent, slow, or lies: no request for a known name fails, and each lie is counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bundles::{
    Digest, EDGE_SETTINGS_OBJECT, EdgeSettings, IndexShard, MAX_INDEX_BYTES, SiteObject, Tombstone, index_object, shard_of, site_object,
};
use domains::SiteVersion;
use http::StatusCode;
use hyper::{body::Incoming, client::conn};

use crate::{
    bucket::name,
    chance::Chance,
    client,
    never_backwards::{ALL_BAD, Good, Kind, SHOP},
    setup::{Setup, eventually},
};

/// Known as `SHOP` is; nothing is ever published for it again.
const CALM: &str = "calm.brand.com";

/// Requests that must be answered while a lie is in the store, after it was noticed.
const MORE: usize = 6;

/// Clients that ask until told to stop: one for each name, each time over a new connection, and one that keeps its connection.
struct Traffic {
    answered: Arc<AtomicUsize>,
    failed: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    fn start(edge: SocketAddr) -> Self {
        let mut traffic = Self { answered: Arc::default(), failed: Arc::default(), stop: Arc::default(), clients: Vec::new() };
        for hostname in [SHOP, CALM] {
            let (answered, failed, stop) = (Arc::clone(&traffic.answered), Arc::clone(&traffic.failed), Arc::clone(&traffic.stop));
            traffic.clients.push(tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    match ask(edge, hostname).await {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::SeqCst)),
                        Err(problem) => failed.lock().unwrap().push(format!("{hostname}: {problem}")),
                    }
                }
            }));
        }
        let (answered, failed, stop) = (Arc::clone(&traffic.answered), Arc::clone(&traffic.failed), Arc::clone(&traffic.stop));
        traffic.clients.push(tokio::spawn(async move {
            let mut kept = client::h2(edge, SHOP).await;
            while !stop.load(Ordering::SeqCst) {
                match is_good(kept.send_request(client::get_h2(SHOP, "/echo")).await).await {
                    Ok(()) => drop(answered.fetch_add(1, Ordering::SeqCst)),
                    Err(problem) => return failed.lock().unwrap().push(format!("the kept connection: {problem}")),
                }
            }
        }));
        traffic
    }

    /// Waits until the edge noticed a lie, and has served on for a while since.
    async fn through(&self, lie: &str, noticed: impl AsyncFn() -> bool) {
        eventually(&format!("{lie} is counted"), noticed).await;
        let before = self.answered.load(Ordering::SeqCst);
        let served_on = async || {
            assert_eq!(*self.failed.lock().unwrap(), Vec::<String>::new(), "under {lie}");
            self.answered.load(Ordering::SeqCst) >= before + MORE
        };
        eventually(&format!("requests are answered under {lie}"), served_on).await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        assert_eq!(*self.failed.lock().unwrap(), Vec::<String>::new());
    }
}

async fn ask(edge: SocketAddr, hostname: &str) -> Result<(), String> {
    use hyper_util::rt::TokioIo;
    let stream = client::connect(edge, hostname).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    is_good(sender.send_request(client::get(hostname, "/echo")).await).await
}

async fn is_good(answer: hyper::Result<http::Response<Incoming>>) -> Result<(), String> {
    match answer {
        Ok(answer) if answer.status() == StatusCode::OK => {
            client::text(answer).await;
            Ok(())
        }
        Ok(answer) => Err(answer.status().to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// All that a store may do to an edge that reads it.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// Every read fails.
    Down,
    /// No read ends.
    Silent,
    /// A bundle that lies, of the kind, counted as the reason.
    Bundle(Kind, &'static str),
    /// An index that promises a bundle which is not there.
    Absent,
    /// A tombstone that the index knows nothing of.
    NotRemoved,
    /// An index that lies, counted as the reason.
    Index(&'static str),
    /// Edge settings from before.
    OldSettings,
}

use Trouble::*;

/// The index's lies.
const INDEX_LIES: [&str; 5] = ["lower_generation", "wrong_shard", "not_json", "truncated", "too_large"];

fn all_troubles() -> Vec<Trouble> {
    let bundles = ALL_BAD.into_iter().map(|(kind, reason)| Bundle(kind, reason));
    [Down, Silent, Absent, NotRemoved, OldSettings].into_iter().chain(bundles).chain(INDEX_LIES.map(Index)).collect()
}

/// An edge, the store it reads, and clients that never pause.
struct Stand {
    setup: Setup,
    traffic: Traffic,
    /// The index as it was at first.
    old_index: Vec<u8>,
    version: u64,
    good: Digest,
}

impl Stand {
    async fn start() -> Self {
        let setup = Setup::configured(&[SHOP, CALM], |config| config.refresh.source_timeout = Duration::from_millis(500)).await;
        setup.until_warm().await;
        let old_index = std::fs::read(setup.bucket.path().join(index_object(shard_of(&name(SHOP))))).unwrap();
        let good = client::served(setup.https(), SHOP).await.unwrap();
        let traffic = Traffic::start(setup.https());
        let mut stand = Self { setup, traffic, old_index, version: 1, good };
        stand.tell_the_truth().await;
        stand
    }

    /// Publishes a new bundle, and waits until it is served.
    async fn tell_the_truth(&mut self) {
        self.version += 1;
        self.good = Good.publish(&self.setup, self.version).unwrap();
        eventually("the truth is served", async || client::served(self.setup.https(), SHOP).await.unwrap() == self.good).await;
    }

    fn source_errors(&self, kind: &str) -> u64 {
        self.setup.metric(&format!("nameplate_edge_source_errors_total{{kind=\"{kind}\"}}"))
    }

    async fn through(&mut self, trouble: Trouble) {
        match trouble {
            Down => self.through_an_outage("failed", &self.setup.source.dead).await,
            Silent => self.through_an_outage("timeout", &self.setup.source.silent).await,
            Bundle(kind, reason) => {
                self.version += 1;
                let version = self.version;
                self.through_a_lie(trouble, reason, |setup| _ = kind.publish(setup, version)).await;
            }
            Absent => {
                self.version += 1;
                let version = self.version;
                let publish = |setup: &Setup| {
                    setup.bucket.lose(&site_object(&name(SHOP)));
                    setup.bucket.enter(SHOP, Some("acme"), version, b"nowhere");
                };
                self.through_a_lie(trouble, "absent", publish).await;
            }
            NotRemoved => {
                self.version += 1;
                let version = self.version;
                let publish = |setup: &Setup| {
                    let tombstone =
                        Tombstone { hostname: name(SHOP), version: SiteVersion(version), removed_at: 1_700_000_000, suspended: None };
                    setup.bucket.write(&site_object(&name(SHOP)), &SiteObject::Removed(tombstone).to_bytes().unwrap());
                    setup.bucket.enter(SHOP, Some("acme"), version, b"not removed");
                };
                self.through_a_lie(trouble, "removed", publish).await;
            }
            Index(reason) => {
                let shard = shard_of(&name(SHOP));
                let object = index_object(shard);
                let truth = std::fs::read(self.setup.bucket.path().join(&object)).unwrap();
                let lie = match reason {
                    "lower_generation" => self.old_index.clone(),
                    "wrong_shard" => IndexShard::empty(shard.wrapping_add(1)).to_bytes(),
                    "truncated" => truth[..truth.len() / 2].to_vec(),
                    "too_large" => vec![b' '; MAX_INDEX_BYTES + 1],
                    _ => b"<Error><Code>SlowDown</Code></Error>".to_vec(),
                };
                self.through_a_lie(trouble, reason, |setup| setup.bucket.write(&object, &lie)).await;
                self.setup.bucket.write(&object, &truth);
            }
            OldSettings => {
                let old = EdgeSettings::new(0, Vec::new()).to_bytes();
                let publish = |setup: &Setup| setup.bucket.write(EDGE_SETTINGS_OBJECT, &old);
                self.through_a_lie(trouble, "settings_lower_generation", publish).await;
            }
        }
    }

    async fn through_an_outage(&self, kind: &str, switch: &AtomicBool) {
        let before = self.source_errors(kind);
        switch.store(true, Ordering::SeqCst);
        // One failing poll may have begun before; the third was the store's word all along.
        self.traffic.through(kind, async || self.source_errors(kind) >= before + 3).await;
        switch.store(false, Ordering::SeqCst);
    }

    async fn through_a_lie(&self, trouble: Trouble, reason: &str, publish: impl FnOnce(&Setup)) {
        let before = self.setup.refused(reason);
        publish(&self.setup);
        self.traffic.through(&format!("{trouble:?}"), async || self.setup.refused(reason) > before).await;
        assert_eq!(client::served(self.setup.https(), SHOP).await.unwrap(), self.good, "{trouble:?}");
    }
}

#[tokio::test]
async fn no_request_fails_while_the_store_is_down_slow_or_lies_in_any_order_and_each_lie_is_counted() {
    let mut chance = Chance::seeded("a lying store");
    let mut troubles = all_troubles();
    chance.shuffle(&mut troubles);
    let mut stand = Stand::start().await;
    for trouble in troubles {
        let slow = chance.below(3) == 0;
        println!("{trouble:?}{}", if slow { ", slowly" } else { "" });
        stand.setup.source.slow.store(slow, Ordering::SeqCst);
        stand.through(trouble).await;
        stand.tell_the_truth().await;
    }
    stand.traffic.end().await;
}
