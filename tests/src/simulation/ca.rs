//! A CA that signs real certificates with the dates of virtual time, holds to limits, and fails in every way a CA fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bundles::Digest;
use domains::{
    Attempt, CaChoice, ClaimKey, Clock, HandClock, Hostname, IssueError, Issued, Issuer, OrderPlan, PreparedKey, RenewalWindow, Timestamp,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    PublicKeyData, SerialNumber,
};

use super::{later, locked};

/// How long this CA wants renewal information to be left alone, unless a test says otherwise: Let's Encrypt's word (read 2026-11).
const WINDOW_PACE: Duration = Duration::from_secs(6 * 3_600);

/// The wait that it asks for when it is busy.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// A CA that signs real certificates with the dates of virtual time, and remembers every one.
pub struct SimulatedCa {
    clock: Arc<HandClock>,
    root: CertifiedIssuer<'static, KeyPair>,
    seal_key: bundles::SealPublicKey,
    /// How long a certificate is valid.
    pub lifetime: Duration,
    /// Whether it offers renewal information.
    pub has_windows: bool,
    window_pace: Mutex<Duration>,
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
    keeps_open: bool,
    done: BTreeMap<u64, Timestamp>,
    orders: u64,
    polls: u64,
    issued: BTreeMap<String, Vec<(Timestamp, Timestamp)>>,
    is_down: bool,
}

impl SimulatedCa {
    pub(super) fn new(clock: Arc<HandClock>, seal_key: bundles::SealPublicKey, lifetime: Duration, has_windows: bool) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Simulated Root");
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self {
            clock,
            root,
            seal_key,
            lifetime,
            has_windows,
            window_pace: Mutex::new(WINDOW_PACE),
            book: Mutex::default(),
            limits: Mutex::default(),
        }
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

    /// Takes orders and finalizes none, or finalizes them again.
    pub fn keep_orders_open(&self, keeps_open: bool) {
        locked(&self.book).keeps_open = keeps_open;
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

    /// Wants to be asked for a renewal window no more often than this.
    pub fn ask_for_windows_each(&self, pace: Duration) {
        *locked(&self.window_pace) = pace;
    }

    /// How often it told a renewal window.
    pub fn polls(&self) -> u64 {
        locked(&self.book).polls
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
            return Err(IssueError::Unavailable { retry_after: Some(BUSY_FOR), detail: "503: service busy".into() });
        }
        Ok(())
    }

    fn ari_id(&self, serial: u64) -> Option<String> {
        self.has_windows.then(|| serial.to_string())
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
        if locked(&self.book).keeps_open {
            return Err(IssueError::NotYet { retry_after: Some(BUSY_FOR) });
        }
        locked(&self.book).open.remove(hostname.as_str());
        // An order that was finalized has its certificate for whoever asks again, with the key of its CSR.
        if let Some(not_before) = locked(&self.book).done.get(&serial).copied() {
            let not_after = later(not_before, self.lifetime);
            let chain = self.sign(attempt, not_before, not_after, serial);
            return Ok(Issued { chain, serial: format!("{serial:x}"), not_before, not_after, ari_id: self.ari_id(serial) });
        }
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
        let mut book = locked(&self.book);
        book.windows.insert(serial, window);
        book.done.insert(serial, not_before);
        drop(book);
        Ok(Issued { chain, serial: format!("{serial:x}"), not_before, not_after, ari_id: self.ari_id(serial) })
    }

    async fn renewal_window(&self, _: CaChoice, ari_id: &str) -> Result<Option<RenewalWindow>, IssueError> {
        self.unless_down()?;
        let serial: u64 = ari_id.parse().expect("an identifier of ours");
        locked(&self.book).polls += 1;
        let (start, end) = *locked(&self.book).windows.get(&serial).expect("a certificate of ours");
        Ok(Some(RenewalWindow { start, end, retry_after: *locked(&self.window_pace) }))
    }
}
