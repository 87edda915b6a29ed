//! The whole pipeline on virtual time: the real handlers over the real local home, with only DNS and the CA played.
//!
//! Arrives: hostnames, registered through the real API handler, and faults. Leaves: what the record, the bucket and the CA then hold. Goes
//! wrong: anything unexpected is a panic. Time moves only in [`Simulation::run_until`], from one thing that is due to the next, so that
//! months pass in seconds and no test sleeps. The home duplicates, reorders and delays, from the printed seed.

//! - [`front`]: the home as the functions see it, counted and throttled; [`recorder`]: what passes between the functions.
//! - [`ca`] and [`dns`]: what is played. `served`: what an edge would serve, which is the judge.

pub mod ca;
pub mod dns;
pub mod front;
pub mod recorder;
mod served;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{Arc, LazyLock, Mutex, MutexGuard},
    time::Duration,
};

use backups::{Restore, Restored};
use bundles::{Digest, IndexShard, SealKeyPair, SealKeys, SealPublicKey, SiteObject, index_object, site_object};
use bytes::Bytes;
use domains::{
    BundleBucket, Caller, Callers, Claim, Clock, HandClock, Hostname, HostnamePolicy, IssuancePolicy, Listings, LookSchedule, Role,
    StoreError, Timestamp, ZoneSettings, ledger::CaLimits,
};
use http::{Method, Request};
use issue_certificate::IssueCertificate;
use pipeline::Pipeline;
use publish_site::PublishSite;
use register_domain::{Api, Memory, Pace, SystemEntropy, key_sha256};
use route_changes::RouteChanges;
use schedule_renewals::{EdgeKeys, ScheduleRenewals, Tick};
use serde_json::{Value, json};
use storage::local::{Chaos, LocalConfig, LocalHome, back_up};
use tempfile::TempDir;
use verify_ownership::VerifyOwnership;

use crate::chance::Chance;
use ca::SimulatedCa;
use dns::SimulatedDns;
use front::Front;
use recorder::Recorder;

/// Where there is a file system in memory: what a test writes need not survive it, and nothing then waits for a disk.
const MEMORY: &str = "/dev/shm";
/// How often in a row the home may refuse before a simulation gives up.
const PATIENCE: usize = 1_000;
/// When every simulation begins.
const BEGINNING: &str = "2026-11-01T00:00:00Z";
/// The operator's API key.
const KEY: &str = "np_simulation";
/// How long after the timer's grace an entry counts as the timer's to heal, as on AWS.
const GRACE: Duration = Duration::from_secs(60);
/// How often the timer ticks, as on AWS.
const TICK: Duration = Duration::from_secs(60);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no other thread panicked")
}

/// `at + by`.
pub fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).expect("a time within the simulation")
}

/// A pipeline whose time the test owns.
pub struct Simulation {
    /// The time.
    pub clock: Arc<HandClock>,
    /// The store.
    pub home: LocalHome,
    /// The store as the functions see it.
    pub front: Arc<Front>,
    /// The customers' DNS.
    pub dns: Arc<SimulatedDns>,
    /// The CA.
    pub ca: Arc<SimulatedCa>,
    /// What passed between the functions.
    pub recorder: Arc<Recorder>,
    /// The functions.
    pub pipeline: Pipeline,
    /// More workers beside it, over the same home.
    pub workers: Vec<Pipeline>,
    /// Whether the timer ticks.
    pub timer: bool,
    /// How often.
    pub tick: Duration,
    /// The shortest step of the clock: with many names something is due at every moment, and a step takes all that is due in it.
    pub grain: Duration,
    api: Api,
    next_tick: Timestamp,
    seed: u64,
    seal_pair: Arc<SealKeyPair>,
    held_to: Option<(CaLimits, usize)>,
    folder: TempDir,
}

/// What is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The store; the bucket is there.
    Store,
    /// Everything on the machine.
    Machine,
}

impl Simulation {
    /// A simulation whose CA issues for `lifetime`.
    pub async fn new(what: &str, lifetime: Duration) -> Self {
        Self::build(what, lifetime, false).await
    }

    /// The same with a CA that offers renewal information.
    pub async fn with_windows(what: &str, lifetime: Duration) -> Self {
        Self::build(what, lifetime, true).await
    }

    async fn build(what: &str, lifetime: Duration, has_windows: bool) -> Self {
        let seed = Chance::seeded(what).bits();
        let folder = in_memory();
        let clock = Arc::new(HandClock::starting_at(BEGINNING.parse().unwrap()));
        let home = open(folder.path(), &clock, seed).await;
        let dns = Arc::new(SimulatedDns::default());
        let seal_pair = Arc::new(SealKeyPair::generate().unwrap());
        let ca = Arc::new(SimulatedCa::new(clock.clone(), seal_pair.public().clone(), lifetime, has_windows));
        let api = api_over(&home, &clock);
        let front = Arc::new(Front::of(home.clone(), seed));
        let recorder = Arc::new(Recorder::over(front.clone()));
        let pipeline = pipeline(&front, &recorder, &dns, &ca, &clock, zone(), LookSchedule::default());
        let next_tick = later(clock.now(), TICK);
        Self {
            clock,
            home,
            front,
            dns,
            ca,
            recorder,
            pipeline,
            workers: Vec::new(),
            timer: true,
            tick: TICK,
            grain: Duration::ZERO,
            api,
            next_tick,
            seed,
            seal_pair,
            held_to: None,
            folder,
        }
    }

    /// Takes a backup, as the command does.
    pub fn back_up(&self, to: &Path) {
        back_up(self.folder.path(), to, "simulation", &[], self.clock.now()).unwrap();
    }

    /// Loses the store, or everything, makes it again from a backup as the command does, and serves from then on. CA and DNS remember.
    pub async fn lose_and_restore(&mut self, loss: Loss, from: &Path, removed: &[String], suspended: &[String]) -> Restored {
        self.home.close().await.unwrap();
        let named = |names: &[String]| names.iter().map(|name| Hostname::parse_name(name).unwrap()).collect::<BTreeSet<_>>();
        let (removed, suspended) = (named(removed), named(suspended));
        let served = match loss {
            Loss::Store => {
                for ending in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(self.folder.path().join(format!("home.sqlite3{ending}")));
                }
                self.front.served.clone()
            }
            Loss::Machine => {
                self.folder = in_memory();
                Arc::default()
            }
        };
        let mut seal_keys = SealKeys::default();
        seal_keys.insert(SealKeyPair::from_json(&self.seal_pair.to_json()).unwrap());
        let limits = self.held_to.as_ref().map(|(limits, _)| limits.clone());
        let asked = Restore {
            from,
            home: self.folder.path(),
            edge_cache: None,
            seal_keys: &seal_keys,
            removed: &removed,
            suspended: &suspended,
            limits: limits.as_slice(),
            keep_webhooks: false,
            new_ask_secret: false,
            clock: self.clock.clone(),
        };
        let restored = backups::restore(&asked).await.unwrap();
        self.home = open(self.folder.path(), &self.clock, self.seed).await;
        self.api = api_over(&self.home, &self.clock);
        let mut front = Front::of(self.home.clone(), self.seed);
        front.served = served;
        self.front = Arc::new(front);
        self.recorder = Arc::new(Recorder::over(self.front.clone()));
        self.pipeline = pipeline(&self.front, &self.recorder, &self.dns, &self.ca, &self.clock, zone(), LookSchedule::default());
        if let Some((limits, workers)) = self.held_to.take() {
            self.work_under(&limits, workers);
        }
        restored
    }

    /// Has so many workers, each holding itself to these limits; the CA holds all of them to its own.
    pub fn work_under(&mut self, limits: &CaLimits, workers: usize) {
        let zone = self.pipeline.verify.zone.clone();
        let looks = self.pipeline.verify.looks;
        let another = || pipeline(&self.front, &self.recorder, &self.dns, &self.ca, &self.clock, zone.clone(), looks);
        self.workers = std::iter::repeat_with(another).take(workers.saturating_sub(1)).collect();
        for worker in &mut self.workers {
            // A feed has one reader.
            worker.stream = false;
        }
        for worker in std::iter::once(&mut self.pipeline).chain(&mut self.workers) {
            worker.issue.ca_limits = limits.clone();
        }
        self.api.ca_limits = vec![limits.clone()];
        self.held_to = Some((limits.clone(), workers));
    }

    /// Asks the API as the operator.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {KEY}"));
        let answer = self.api.handle(request.body(Bytes::from(body)).unwrap()).await;
        assert!(answer.status().is_success(), "{path}: {} {:?}", answer.status(), answer.body());
        serde_json::from_slice(answer.body()).unwrap()
    }

    /// Works on the open imports, as their schedule does; says how many lines were taken.
    pub async fn work_imports(&self) -> usize {
        self.api.work_imports(Duration::from_secs(60)).await.unwrap().lines
    }

    /// Registers a hostname and does what its customer is asked to do.
    pub async fn onboard(&self, hostname: &str, tenant: &str) {
        let answer = self.ask(Method::POST, "/v1/domains", Some(&json!({ "hostname": hostname, "tenant": tenant }))).await;
        let record = &answer["records"][0];
        assert_eq!(record["type"], "CNAME", "{answer}");
        self.dns.point(hostname, record["value"].as_str().unwrap());
    }

    /// Lets time pass until `end`: everything that is visible is taken, then the clock goes to the next thing that is due.
    pub async fn run_until(&mut self, end: Timestamp) {
        loop {
            self.settle().await;
            let delivery = self.home.next_delivery().await.unwrap();
            let soonest = later(self.clock.now(), self.grain);
            let delivery = delivery.map(|at| at.max(soonest));
            let tick = self.timer.then_some(self.next_tick);
            let next = [delivery, tick].into_iter().flatten().min().filter(|next| *next <= end);
            let Some(next) = next else {
                self.move_to(end);
                return;
            };
            self.move_to(next);
            if self.timer && self.next_tick <= self.clock.now() {
                // A tick that fails is made up for by the next.
                let _ = self.tick().await;
                self.next_tick = later(self.clock.now(), self.tick);
            }
        }
    }

    /// Lets the timer tick now.
    ///
    /// # Errors
    /// As the home's, when it is throttled.
    pub async fn tick(&self) -> Result<Tick, StoreError> {
        self.pipeline.timer.tick().await
    }

    /// Takes everything that is visible, as often as the home refuses.
    pub async fn settle(&self) {
        for _ in 0..PATIENCE {
            let workers = std::iter::once(&self.pipeline).chain(&self.workers);
            match futures_util::future::try_join_all(workers.map(Pipeline::settle)).await {
                Ok(_) => return,
                Err(StoreError::Unavailable { .. }) => {}
                Err(defect) => panic!("{defect}"),
            }
        }
        panic!("the home refused {PATIENCE} times");
    }

    /// Lets this much time pass.
    pub async fn run_for(&mut self, time: Duration) {
        self.run_until(later(self.clock.now(), time)).await;
    }

    /// Every claim.
    pub async fn claims(&self) -> Vec<Claim> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.home.claims(None, None, cursor.as_deref(), 200).await.unwrap();
            all.extend(page.items);
            cursor = page.cursor;
            if cursor.is_none() {
                return all;
            }
        }
    }

    /// Every certificate of now is recalled, as after an error of the CA: its windows say so, and it is worth nothing from `when` on.
    pub fn recall_everything(&self, when: Timestamp) {
        self.ca.renew_everything();
        locked(&self.front.served).revoke(when);
    }

    /// Each name whose certificate ended, or was revoked, while it was served, with the moment.
    pub fn ended_in_service(&self) -> Vec<String> {
        locked(&self.front.served).ended()
    }

    /// How many names are served, as counted from what was written into the bucket.
    pub fn served(&self) -> usize {
        locked(&self.front.served).count()
    }

    /// Reads the whole bucket as a new edge would: says how many names the index has, each with the very object that it names and a
    /// certificate that is valid now, the one that the judge knows of. Not while revoked certificates are being replaced.
    pub async fn read_bucket(&self) -> usize {
        let now = self.clock.now();
        let mut count = 0;
        for shard in 0..=u8::MAX {
            let name = index_object(shard);
            let Some((bytes, _)) = self.home.get(&name).await.unwrap() else { continue };
            let index = IndexShard::from_bytes(&bytes).unwrap();
            for (hostname, entry) in index.entries.iter().filter(|(_, entry)| !entry.is_tombstone()) {
                let (bytes, _) = self.home.get(&site_object(hostname)).await.unwrap().unwrap_or_else(|| panic!("{hostname} has no object"));
                assert_eq!(Digest::of(&bytes), entry.digest, "{hostname}: the index names another object");
                let SiteObject::Present(bundle) = SiteObject::from_bytes(&bytes).unwrap() else {
                    panic!("{hostname} is listed and removed")
                };
                bundle.check(now.as_second()).unwrap_or_else(|error| panic!("{hostname}: {error}"));
                let end = Timestamp::from_second(bundle.not_after).unwrap();
                assert_eq!(locked(&self.front.served).end(hostname), Some(end), "{hostname}: the judge was misled");
                count += 1;
            }
        }
        count
    }

    /// What the index names, read as a new edge reads it: each name with its version, and whose it is where it is served.
    pub async fn edge_view(&self) -> BTreeMap<String, (u64, Option<String>)> {
        let mut view = BTreeMap::new();
        for shard in 0..=u8::MAX {
            let Some((bytes, _)) = self.home.get(&index_object(shard)).await.unwrap() else { continue };
            for (hostname, entry) in IndexShard::from_bytes(&bytes).unwrap().entries {
                let (bytes, _) = self.home.get(&site_object(&hostname)).await.unwrap().unwrap();
                let tenant = match SiteObject::from_bytes(&bytes).unwrap() {
                    SiteObject::Present(bundle) if !entry.is_tombstone() => Some(bundle.tenant.to_string()),
                    _ => None,
                };
                view.insert(hostname.to_string(), (entry.version.0, tenant));
            }
        }
        view
    }

    /// Never backwards; the clock counts whole milliseconds, the home's times do not.
    fn move_to(&self, at: Timestamp) {
        let ahead = at.as_microsecond().saturating_sub(self.clock.now().as_microsecond());
        self.clock.advance(Duration::from_millis(u64::try_from(ahead).unwrap_or(0).div_ceil(1_000)));
        self.home.time_has_moved();
        locked(&self.front.served).at(self.clock.now());
    }
}

fn in_memory() -> TempDir {
    if Path::new(MEMORY).is_dir() { TempDir::new_in(MEMORY) } else { TempDir::new() }.unwrap()
}

/// Opens the home that duplicates, reorders and delays, and admits the operator, as the product does when it starts.
async fn open(folder: &Path, clock: &Arc<HandClock>, seed: u64) -> LocalHome {
    let mut config = LocalConfig::new(folder, clock.clone() as Arc<dyn Clock>);
    config.chaos = Some(Chaos::seeded(seed));
    let home = LocalHome::open(config).unwrap();
    home.admit(&key_sha256(KEY), &Caller { role: Role::Operator, tenant: None }).await.unwrap();
    home
}

fn zone() -> ZoneSettings {
    ZoneSettings {
        zone: Hostname::parse_name("edge.saas.net").unwrap(),
        txt_prefix: "_nameplate".into(),
        edge_addresses: vec!["192.0.2.10".parse().unwrap()],
        issuers: Vec::new(),
    }
}

fn api_over(home: &LocalHome, clock: &Arc<HandClock>) -> Api {
    Api {
        table: Arc::new(home.clone()),
        listings: Arc::new(home.clone()),
        events: Arc::new(home.clone()),
        documents: Arc::new(home.clone()),
        callers: Arc::new(home.clone()),
        limits: Arc::new(home.clone()),
        ca_limits: vec![CaLimits::none("ca.simulated.test")],
        policy: HostnamePolicy::default(),
        zone: zone(),
        origins: BTreeSet::new(),
        looks: LookSchedule::default(),
        pace: Pace::default(),
        clock: clock.clone(),
        entropy: Arc::new(SystemEntropy),
        memory: Memory::default(),
    }
}

fn pipeline(
    front: &Arc<Front>,
    recorder: &Arc<Recorder>,
    dns: &Arc<SimulatedDns>,
    ca: &Arc<SimulatedCa>,
    clock: &Arc<HandClock>,
    zone: ZoneSettings,
    looks: LookSchedule,
) -> Pipeline {
    // One for every pipeline of the process: another seal key would call for new signing keys.
    static SEAL_TO: LazyLock<SealPublicKey> = LazyLock::new(|| SealKeyPair::generate().unwrap().public().clone());
    let clock: Arc<dyn Clock> = clock.clone();
    let (home, seal_to) = (|| front.clone(), SEAL_TO.clone());
    Pipeline {
        feed: recorder.clone(),
        queues: home(),
        route: RouteChanges { queue: recorder.clone(), clock: clock.clone() },
        verify: VerifyOwnership { table: home(), documents: home(), lookup: dns.clone(), zone: zone.clone(), looks, clock: clock.clone() },
        issue: IssueCertificate {
            table: home(),
            issuer: ca.clone(),
            lookup: dns.clone(),
            documents: home(),
            zone,
            looks,
            policy: IssuancePolicy::default(),
            limits: home(),
            ca_limits: CaLimits::none("ca.simulated.test"),
            second_ca_limits: None,
            has_answer_zone: true,
            clock: clock.clone(),
        },
        publish: Arc::new(PublishSite { table: home(), bucket: home(), clock: clock.clone() }),
        timer: ScheduleRenewals {
            due: home(),
            queue: recorder.clone(),
            marks: home(),
            keys: EdgeKeys { bucket: home(), seal_to, shared_tickets: false },
            clock,
            grace: GRACE,
        },
        timer_interval: None,
        stream: true,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
        time::Instant,
    };

    use bundles::Tombstone;
    use domains::{ObjectCondition, SiteVersion};

    use super::*;

    #[tokio::test]
    async fn the_judge_hears_of_what_came_into_the_bucket_though_its_writer_ended_before_the_answer() {
        let mut world = Simulation::new("an_answer_nobody_waits_for", Duration::from_secs(30 * 86_400)).await;
        world.onboard("shop.brand.com", "acme").await;
        world.run_for(Duration::from_secs(3_600)).await;
        assert_eq!(world.served(), 1);

        let hostname = Hostname::parse_name("shop.brand.com").unwrap();
        let name = site_object(&hostname);
        let (_, etag) = world.home.get(&name).await.unwrap().unwrap();
        let tombstone = Tombstone { hostname, version: SiteVersion(9), removed_at: world.clock.now().as_second(), suspended: None };
        let (bytes, condition) = (SiteObject::Removed(tombstone).to_bytes().unwrap(), ObjectCondition::Matches(etag));
        {
            let mut put = pin!(world.front.put(&name, &bytes, &condition));
            assert!(put.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        let began = Instant::now();
        while world.served() > 0 {
            assert!(began.elapsed() < Duration::from_secs(20), "the judge goes on believing in what is gone");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
