//! Traffic that never pauses while the store is down, silent, or lies: no request for a known name fails, and each lie is counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bundles::{EDGE_SETTINGS_OBJECT, EdgeSettings, IndexShard, SiteObject, Tombstone, index_object, shard_of, site_object};
use domains::SiteVersion;
use http::StatusCode;

use crate::{
    bucket::name,
    client,
    never_backwards::{ALL_BAD, Good, SHOP},
    setup::{Setup, eventually},
};

/// Known as `SHOP` is; nothing is ever published for it again.
const CALM: &str = "calm.brand.com";

/// Requests that must be answered while a lie is in the store, after it was noticed.
const MORE: usize = 6;

/// Clients that ask one name after the other, each time over a new connection, until told to stop.
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
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let answer = sender.send_request(client::get(hostname, "/echo")).await.map_err(|error| error.to_string())?;
    match answer.status() {
        StatusCode::OK => {
            client::text(answer).await;
            Ok(())
        }
        status => Err(status.to_string()),
    }
}

/// An edge with every bundle on its disk, which gives the store up when it is silent for so long.
async fn warm(source_timeout: Duration) -> Setup {
    let setup = Setup::configured(&[SHOP, CALM], |config| config.refresh.source_timeout = source_timeout).await;
    setup.until_warm().await;
    setup
}

fn source_errors(setup: &Setup, kind: &str) -> u64 {
    setup.metric(&format!("nameplate_edge_source_errors_total{{kind=\"{kind}\"}}"))
}

#[tokio::test]
async fn no_request_fails_while_the_store_is_down_or_silent_and_each_is_counted_as_what_it_is() {
    let setup = warm(Duration::from_millis(300)).await;
    let traffic = Traffic::start(setup.https());
    for (kind, switch) in [("failed", &setup.source.dead), ("timeout", &setup.source.silent)] {
        let before = source_errors(&setup, kind);
        switch.store(true, Ordering::SeqCst);
        // One failing poll may have begun before; the third was the store's word all along.
        traffic.through(kind, async || source_errors(&setup, kind) >= before + 3).await;
        switch.store(false, Ordering::SeqCst);
    }
    let renewed = setup.bucket.put(SHOP, "acme", 2);
    eventually("what was published afterwards is served", async || client::served(setup.https(), SHOP).await.unwrap() == renewed).await;
    traffic.end().await;
}

#[tokio::test]
async fn no_request_fails_under_bundles_that_lie_and_each_lie_is_counted_by_its_kind() {
    let setup = warm(client::SOON).await;
    let traffic = Traffic::start(setup.https());
    let mut version = 1;
    for (kind, reason) in ALL_BAD {
        version += 1;
        let before = setup.refused(reason);
        kind.publish(&setup, version);
        traffic.through(&format!("{kind:?}"), async || setup.refused(reason) > before).await;
    }
    // An index that promises what is not there, and a tombstone that the index knows nothing of.
    let before = setup.refused("absent");
    setup.bucket.lose(&site_object(&name(SHOP)));
    version += 1;
    setup.bucket.enter(SHOP, Some("acme"), version, b"nowhere");
    traffic.through("an absent bundle", async || setup.refused("absent") > before).await;
    let before = setup.refused("removed");
    version += 1;
    let tombstone = Tombstone { hostname: name(SHOP), version: SiteVersion(version), removed_at: 1_700_000_000 };
    setup.bucket.write(&site_object(&name(SHOP)), &SiteObject::Removed(tombstone).to_bytes().unwrap());
    setup.bucket.enter(SHOP, Some("acme"), version, b"not removed");
    traffic.through("a tombstone nobody ordered", async || setup.refused("removed") > before).await;

    let good = Good.publish(&setup, version + 1).unwrap();
    eventually("the truth is served again", async || client::served(setup.https(), SHOP).await.unwrap() == good).await;
    traffic.end().await;
}

#[tokio::test]
async fn no_request_fails_under_an_index_that_lies_and_each_lie_is_counted_by_its_kind() {
    let setup = warm(client::SOON).await;
    let (shard, bucket) = (shard_of(&name(SHOP)), &setup.bucket);
    let object = index_object(shard);
    let old = std::fs::read(bucket.path().join(&object)).unwrap();
    let renewed = bucket.put(SHOP, "acme", 2);
    eventually("the renewed one is served", async || client::served(setup.https(), SHOP).await.unwrap() == renewed).await;
    let truth = std::fs::read(bucket.path().join(&object)).unwrap();
    let traffic = Traffic::start(setup.https());
    let elsewhere = IndexShard::empty(shard.wrapping_add(1)).to_bytes();
    let lies: [(&str, &[u8]); 5] = [
        ("lower_generation", &old),
        ("wrong_shard", &elsewhere),
        ("not_json", b"<Error><Code>SlowDown</Code></Error>"),
        ("truncated", &truth[..truth.len() / 2]),
        ("too_large", &vec![b' '; bundles::MAX_INDEX_BYTES + 1]),
    ];
    for (reason, lie) in lies {
        let before = setup.refused(reason);
        bucket.write(&object, lie);
        traffic.through(reason, async || setup.refused(reason) > before).await;
        assert_eq!(client::served(setup.https(), SHOP).await.unwrap(), renewed, "{reason}");
    }
    bucket.write(EDGE_SETTINGS_OBJECT, &EdgeSettings::new(0, Vec::new()).to_bytes());
    traffic.through("settings from before", async || setup.refused("settings_lower_generation") > 0).await;

    bucket.write(&object, &truth);
    let good = bucket.put(SHOP, "acme", 3);
    eventually("the truth is served again", async || client::served(setup.https(), SHOP).await.unwrap() == good).await;
    traffic.end().await;
}
