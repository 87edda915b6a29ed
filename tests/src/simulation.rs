//! The whole pipeline on virtual time: the real handlers over the real local home, with only DNS and the CA played.
//!
//! Arrives: hostnames, registered through the real API handler, and faults. Leaves: what the record, the bucket and the CA then hold. Goes
//! wrong: anything unexpected is a panic. Time moves only in [`Simulation::run_until`], from one thing that is due to the next, so that
//! months pass in seconds and no test sleeps. The home duplicates, reorders and delays, from the printed seed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bundles::{Digest, SealKeyPair};
use bytes::Bytes;
use domains::{
    Answer, Attempt, CaChoice, Caller, Callers, ChainEnd, Claim, ClaimKey, Clock, Dispatch, HandClock, Hostname, HostnamePolicy,
    IssuancePolicy, IssueError, Issued, Issuer, Listings, Look, LookSchedule, LookSubject, Observed, OrderPlan, OwnershipLookup,
    PreparedKey, RenewalWindow, Role, ServerAnswer, StepQueue, StoreError, Timestamp, ZoneCut, ZoneSettings, ledger::CaLimits,
};
use http::{Method, Request};
use issue_certificate::IssueCertificate;
use pipeline::Pipeline;
use publish_site::PublishSite;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    PublicKeyData, SerialNumber,
};
use register_domain::{Api, Memory, Pace, SystemEntropy, key_sha256};
use route_changes::RouteChanges;
use schedule_renewals::ScheduleRenewals;
use serde_json::{Value, json};
use storage::{
    consumers::{FeedConsumer, FeedRecord},
    local::{Chaos, LocalConfig, LocalHome},
};
use tempfile::TempDir;
use verify_ownership::VerifyOwnership;

use crate::chance::Chance;

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

/// The customers' DNS: what each hostname's CNAME says, the same at the zone's servers and at the resolver.
#[derive(Debug, Default)]
pub struct SimulatedDns {
    cnames: Mutex<HashMap<String, String>>,
    looks: Mutex<BTreeMap<String, u32>>,
}

impl SimulatedDns {
    /// Points a hostname at a target.
    pub fn point(&self, hostname: &str, target: &str) {
        locked(&self.cnames).insert(hostname.to_owned(), target.to_owned());
    }

    /// How often each hostname was looked at since this was asked last.
    pub fn take_looks(&self) -> BTreeMap<String, u32> {
        std::mem::take(&mut *locked(&self.looks))
    }
}

#[async_trait]
impl OwnershipLookup for SimulatedDns {
    async fn look(&self, subject: &LookSubject) -> Look {
        let hostname = subject.hostname.to_string();
        *locked(&self.looks).entry(hostname.clone()).or_default() += 1;
        let target = locked(&self.cnames).get(&hostname).cloned();
        let observed = |name: &str, answer: Answer| Observed {
            name: name.to_owned(),
            authority: vec![ServerAnswer { server: "ns1.dns.net (192.0.2.53)".into(), answer: answer.clone() }],
            resolver: answer,
        };
        let cname = target.as_ref().map_or(Answer::NxDomain, |target| Answer::Records(vec![target.clone()]));
        let address = if target.is_some() { Answer::NoData } else { Answer::NxDomain };
        Look {
            zone: Ok(ZoneCut {
                apex: subject.hostname.registered_domain().unwrap_or_default().into(),
                servers: vec!["ns1.dns.net".into()],
            }),
            cname: observed(&hostname, cname),
            chain: target.into_iter().collect(),
            chain_end: ChainEnd::Complete,
            a: observed(&hostname, address.clone()),
            aaaa: observed(&hostname, address),
            txt: observed(&subject.txt_name, Answer::NxDomain),
            txt_doubled: None,
            further: domains::Further::default(),
            delegation: None,
            queries: 6,
        }
    }
}

/// A CA that signs real certificates with the dates of virtual time, and remembers every one.
pub struct SimulatedCa {
    clock: Arc<HandClock>,
    root: CertifiedIssuer<'static, KeyPair>,
    seal_key: bundles::SealPublicKey,
    /// How long a certificate is valid.
    pub lifetime: Duration,
    /// Whether it offers renewal information.
    pub has_windows: bool,
    book: Mutex<Book>,
    /// The limits it holds us to, counted by the local CA's own book.
    limits: Mutex<(dev_ca::Limits, dev_ca::LimitBook)>,
}

#[derive(Default)]
struct Book {
    refused: Vec<String>,
    unprovable: BTreeSet<String>,
    crash_percent: u64,
    throttle_percent: u64,
    asked: u64,
    windows: BTreeMap<u64, (Timestamp, Timestamp)>,
    crashes: u64,
    crashed: BTreeSet<u64>,
    open: BTreeMap<String, u64>,
    orders: u64,
    issued: BTreeMap<String, Vec<(Timestamp, Timestamp)>>,
    is_down: bool,
}

impl SimulatedCa {
    fn new(clock: Arc<HandClock>, seal_key: bundles::SealPublicKey, lifetime: Duration, has_windows: bool) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Simulated Root");
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { clock, root, seal_key, lifetime, has_windows, book: Mutex::default(), limits: Mutex::default() }
    }

    /// Takes the CA down, or up again.
    pub fn set_down(&self, is_down: bool) {
        locked(&self.book).is_down = is_down;
    }

    /// Holds orders to limits from now on.
    pub fn hold_to(&self, limits: dev_ca::Limits) {
        locked(&self.limits).0 = limits;
    }

    /// What its limits refused so far, in its words.
    pub fn refused(&self) -> Vec<String> {
        locked(&self.book).refused.clone()
    }

    /// Never can prove this name from now on.
    pub fn fail(&self, hostname: &str) {
        locked(&self.book).unprovable.insert(hostname.to_owned());
    }

    /// Of 100 orders, how many end their worker before it hears that the order was made.
    pub fn crash(&self, percent: u64) {
        locked(&self.book).crash_percent = percent;
    }

    /// Of 100 requests, how many it answers with 503 and a wait.
    pub fn throttle(&self, percent: u64) {
        locked(&self.book).throttle_percent = percent;
    }

    /// Wants every certificate of now to be renewed at once, by its renewal information.
    pub fn renew_everything(&self) {
        let now = self.clock.now();
        let past = |hours: u64| now.checked_sub(Duration::from_secs(hours * 3_600)).expect("a time within the simulation");
        let mut book = locked(&self.book);
        for window in book.windows.values_mut() {
            *window = (past(2), past(1));
        }
    }

    /// How many workers it ended.
    pub fn crashes(&self) -> u64 {
        locked(&self.book).crashes
    }

    /// When each certificate of each name was issued and when it ends, oldest first.
    pub fn issued(&self) -> BTreeMap<String, Vec<(Timestamp, Timestamp)>> {
        locked(&self.book).issued.clone()
    }

    /// How many orders were made.
    pub fn orders(&self) -> u64 {
        locked(&self.book).orders
    }

    fn unless_down(&self) -> Result<(), IssueError> {
        let down = || IssueError::Unavailable { retry_after: None, detail: "503 from a CA that is down".into() };
        let mut book = locked(&self.book);
        if book.is_down {
            return Err(down());
        }
        book.asked += 1;
        // A prime stride, so that no name meets it each time.
        if (book.asked * 37) % 100 < book.throttle_percent {
            return Err(IssueError::Unavailable { retry_after: Some(Duration::from_secs(20)), detail: "503: service busy".into() });
        }
        Ok(())
    }

    fn sign(&self, attempt: &Attempt, not_before: Timestamp, not_after: Timestamp, serial: u64) -> String {
        let csr = BASE64_STANDARD.decode(&attempt.csr).expect("the CSR that was stored");
        let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).expect("a CSR");
        let date = |at: Timestamp| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.as_second().unsigned_abs());
        (csr.params.not_before, csr.params.not_after) = (date(not_before), date(not_after));
        csr.params.serial_number = Some(SerialNumber::from(serial));
        csr.signed_by(&self.root).expect("a certificate").pem()
    }
}

#[async_trait]
impl Issuer for SimulatedCa {
    fn prepare(&self, key: &ClaimKey) -> Result<PreparedKey, IssueError> {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![key.hostname.to_string()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&pair).unwrap();
        let spki = Digest::of(&pair.subject_public_key_info());
        let sealed = self.seal_key.seal(&key.hostname, &key.tenant, spki.as_bytes(), pair.serialized_der()).unwrap();
        let sealed_key = serde_json::to_string(&sealed).unwrap();
        Ok(PreparedKey { csr: BASE64_STANDARD.encode(csr.der()), sealed_key, spki_sha256: spki.to_string() })
    }

    async fn order(&self, hostname: &Hostname, _: &OrderPlan) -> Result<String, IssueError> {
        self.unless_down()?;
        let names = [hostname.to_string()];
        let judged = {
            let (limits, used) = &mut *locked(&self.limits);
            used.order(limits, "ours", &names, false, self.clock.now())
        };
        let mut book = locked(&self.book);
        if let Err(refused) = judged {
            book.refused.push(refused.detail.clone());
            return Err(IssueError::RateLimited { retry_after: refused.retry_after, detail: refused.detail });
        }
        // An order that is open is given out again.
        let number = match book.open.get(&names[0]) {
            Some(number) => *number,
            None => {
                book.orders += 1;
                let number = book.orders;
                book.open.insert(names[0].clone(), number);
                number
            }
        };
        if number % 100 < book.crash_percent && book.crashed.insert(number) {
            book.crashes += 1;
            drop(book);
            // As a panic, but without its noise.
            std::panic::resume_unwind(Box::new("the worker ends here"));
        }
        Ok(format!("https://ca.simulated.test/order/{hostname}/{number}"))
    }

    async fn complete(&self, hostname: &Hostname, order_url: &str, attempt: &Attempt) -> Result<Issued, IssueError> {
        self.unless_down()?;
        let serial: u64 = order_url.rsplit('/').next().and_then(|number| number.parse().ok()).expect("an order of ours");
        locked(&self.book).open.remove(hostname.as_str());
        let is_shown = !locked(&self.book).unprovable.contains(hostname.as_str());
        {
            let (limits, used) = &mut *locked(&self.limits);
            used.proved(limits, "ours", hostname.base(), is_shown, self.clock.now());
            if is_shown {
                used.issued(limits, &[hostname.to_string()], false, self.clock.now());
            }
        }
        if !is_shown {
            return Err(IssueError::ChallengeFailed { detail: "nobody answers there".into() });
        }
        let not_before = Timestamp::from_second(self.clock.now().as_second()).expect("now");
        let not_after = later(not_before, self.lifetime);
        let chain = self.sign(attempt, not_before, not_after, serial);
        locked(&self.book).issued.entry(hostname.to_string()).or_default().push((not_before, not_after));
        let ideal = self.lifetime / 3 * 2;
        let window = (later(not_before, ideal - self.lifetime / 100), later(not_before, ideal + self.lifetime / 100));
        locked(&self.book).windows.insert(serial, window);
        let ari_id = self.has_windows.then(|| serial.to_string());
        Ok(Issued { chain, serial: format!("{serial:x}"), not_before, not_after, ari_id })
    }

    async fn renewal_window(&self, _: CaChoice, ari_id: &str) -> Result<Option<RenewalWindow>, IssueError> {
        self.unless_down()?;
        let serial: u64 = ari_id.parse().expect("an identifier of ours");
        let (start, end) = *locked(&self.book).windows.get(&serial).expect("a certificate of ours");
        Ok(Some(RenewalWindow { start, end, retry_after: Duration::from_secs(6 * 3_600) }))
    }
}

/// Stands between the functions and their feed and queues, keeps a copy of everything that passes, and can deliver it all again.
pub struct Recorder {
    home: LocalHome,
    passed: Mutex<Passed>,
}

#[derive(Default)]
struct Passed {
    is_kept: bool,
    records: Vec<FeedRecord>,
    nudges: Vec<Dispatch>,
    again: VecDeque<FeedRecord>,
}

impl Recorder {
    /// Keeps everything from now on.
    pub fn keep(&self) {
        locked(&self.passed).is_kept = true;
    }

    /// Delivers every change and every nudge that ever passed once more, in an order of chance, beginning now.
    pub async fn replay(&self, chance: &mut Chance) -> usize {
        let (mut records, mut nudges) = {
            let passed = locked(&self.passed);
            (passed.records.clone(), passed.nudges.clone())
        };
        chance.shuffle(&mut records);
        chance.shuffle(&mut nudges);
        let count = records.len() + nudges.len();
        nudges.iter_mut().for_each(|dispatch| dispatch.delay = Duration::ZERO);
        self.home.send(&nudges).await.unwrap();
        let mut passed = locked(&self.passed);
        passed.is_kept = false;
        passed.again.extend(records);
        count
    }
}

#[async_trait]
impl StepQueue for Recorder {
    async fn send(&self, dispatches: &[Dispatch]) -> Result<(), StoreError> {
        {
            let mut passed = locked(&self.passed);
            if passed.is_kept {
                passed.nudges.extend_from_slice(dispatches);
            }
        }
        self.home.send(dispatches).await
    }
}

#[async_trait]
impl FeedConsumer for Recorder {
    async fn next_batch(&self, max: usize, wait: Duration) -> Result<Vec<FeedRecord>, StoreError> {
        {
            let mut passed = locked(&self.passed);
            if !passed.again.is_empty() {
                let some = max.min(passed.again.len());
                return Ok(passed.again.drain(..some).collect());
            }
        }
        let batch = self.home.next_batch(max, wait).await?;
        let mut passed = locked(&self.passed);
        if passed.is_kept {
            passed.records.extend_from_slice(&batch);
        }
        Ok(batch)
    }

    async fn acknowledge(&self, sequences: &[u64]) -> Result<(), StoreError> {
        self.home.acknowledge(sequences).await
    }
}

/// A pipeline whose time the test owns.
pub struct Simulation {
    /// The time.
    pub clock: Arc<HandClock>,
    /// The store.
    pub home: LocalHome,
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
    api: Api,
    next_tick: Timestamp,
    _folder: TempDir,
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
        let folder = TempDir::new().unwrap();
        let clock = Arc::new(HandClock::starting_at(BEGINNING.parse().unwrap()));
        let mut config = LocalConfig::new(folder.path(), clock.clone() as Arc<dyn Clock>);
        config.chaos = Some(Chaos::seeded(seed));
        let home = LocalHome::open(config).unwrap();
        home.admit(&key_sha256(KEY), &Caller { role: Role::Operator, tenant: None }).await.unwrap();
        let dns = Arc::new(SimulatedDns::default());
        let ca = Arc::new(SimulatedCa::new(clock.clone(), SealKeyPair::generate().unwrap().public().clone(), lifetime, has_windows));
        let zone = ZoneSettings {
            zone: Hostname::parse_name("edge.saas.net").unwrap(),
            txt_prefix: "_nameplate".into(),
            edge_addresses: vec!["192.0.2.10".parse().unwrap()],
            issuers: Vec::new(),
        };
        let looks = LookSchedule::default();
        let api = Api {
            table: Arc::new(home.clone()),
            listings: Arc::new(home.clone()),
            events: Arc::new(home.clone()),
            documents: Arc::new(home.clone()),
            callers: Arc::new(home.clone()),
            limits: Arc::new(home.clone()),
            ca_limits: vec![CaLimits::none("ca.simulated.test")],
            policy: HostnamePolicy::default(),
            zone: zone.clone(),
            looks,
            pace: Pace::default(),
            clock: clock.clone(),
            entropy: Arc::new(SystemEntropy),
            memory: Memory::default(),
        };
        let recorder = Arc::new(Recorder { home: home.clone(), passed: Mutex::default() });
        let pipeline = pipeline(&home, &recorder, &dns, &ca, &clock, zone, looks);
        let next_tick = later(clock.now(), TICK);
        Self { clock, home, dns, ca, recorder, pipeline, workers: Vec::new(), timer: true, tick: TICK, api, next_tick, _folder: folder }
    }

    /// Has so many workers, each holding itself to these limits; the CA holds all of them to its own.
    pub fn work_under(&mut self, limits: &CaLimits, workers: usize) {
        let zone = self.pipeline.verify.zone.clone();
        let another = || pipeline(&self.home, &self.recorder, &self.dns, &self.ca, &self.clock, zone.clone(), LookSchedule::default());
        self.workers = std::iter::repeat_with(another).take(workers.saturating_sub(1)).collect();
        for worker in std::iter::once(&mut self.pipeline).chain(&mut self.workers) {
            worker.issue.ca_limits = limits.clone();
        }
        self.api.ca_limits = vec![limits.clone()];
    }

    /// Asks the API as the operator.
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {KEY}"));
        let answer = self.api.handle(request.body(Bytes::from(body)).unwrap()).await;
        assert!(answer.status().is_success(), "{path}: {} {:?}", answer.status(), answer.body());
        serde_json::from_slice(answer.body()).unwrap()
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
            let workers = std::iter::once(&self.pipeline).chain(&self.workers);
            futures_util::future::try_join_all(workers.map(Pipeline::settle)).await.unwrap();
            let delivery = self.home.next_delivery().await.unwrap();
            let tick = self.timer.then_some(self.next_tick);
            let next = [delivery, tick].into_iter().flatten().min().filter(|next| *next <= end);
            let Some(next) = next else {
                self.move_to(end);
                return;
            };
            self.move_to(next);
            if self.timer && self.next_tick <= self.clock.now() {
                self.pipeline.timer.tick().await.unwrap();
                self.next_tick = later(self.clock.now(), self.tick);
            }
        }
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

    /// Never backwards; the clock counts whole milliseconds, the home's times do not.
    fn move_to(&self, at: Timestamp) {
        let ahead = at.as_microsecond().saturating_sub(self.clock.now().as_microsecond());
        self.clock.advance(Duration::from_millis(u64::try_from(ahead).unwrap_or(0).div_ceil(1_000)));
        self.home.time_has_moved();
    }
}

fn pipeline(
    home: &LocalHome,
    recorder: &Arc<Recorder>,
    dns: &Arc<SimulatedDns>,
    ca: &Arc<SimulatedCa>,
    clock: &Arc<HandClock>,
    zone: ZoneSettings,
    looks: LookSchedule,
) -> Pipeline {
    let clock: Arc<dyn Clock> = clock.clone();
    let home = || Arc::new(home.clone());
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
            clock: clock.clone(),
        },
        publish: Arc::new(PublishSite { table: home(), bucket: home(), clock: clock.clone() }),
        timer: ScheduleRenewals { due: home(), queue: recorder.clone(), marks: home(), clock, grace: GRACE },
        timer_interval: None,
        stream: true,
    }
}
