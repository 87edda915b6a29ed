//! The AWS home passes the suite over real sockets: against ministack, and against an account when there is one to test with.
//!
//! `NAMEPLATE_AWS_TEST=1 scripts/test -p storage --features aws --test aws` with ordinary AWS credentials runs the second, in tables, queues and
//! buckets of its own, which it deletes; without it those tests are told as ignored.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

#[path = "aws/answers.rs"]
mod answers;
#[path = "stand/ministack.rs"]
mod ministack;
#[path = "aws/played.rs"]
mod played;
#[path = "aws/secrets.rs"]
mod secrets;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use domains::{
    BucketShape, BundleBucket, Clock, CommitError, DomainTable, Lane, LedgerMove, Limits, ObjectCondition, Reserved, StoreError,
    SystemClock, TenantId, Timestamp,
    ledger::{Level, Need, Reservation},
};
use futures_util::{FutureExt, StreamExt, stream};
use ministack::Ministack;
use storage::{
    aws::{Access, AwsHome, Places, definitions},
    conformance::{self, Stand, fixtures},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const MAX_RECEIVES: u32 = 4;
/// How many checks run at once; most of their time they wait.
const AT_ONCE: usize = 8;

/// Homes of their own, under one prefix.
struct AwsStand {
    access: Access,
    prefix: String,
    made: AtomicUsize,
    places: Mutex<Vec<Places>>,
}

impl AwsStand {
    fn new(access: Access) -> Self {
        // Bucket names are the world's: the moment makes them ours.
        let prefix = format!("nameplate-test-{}-{}", std::process::id(), SystemClock.now().as_microsecond());
        Self { access, prefix, made: AtomicUsize::new(0), places: Mutex::default() }
    }

    /// Deletes everything it made.
    async fn clear(&self) {
        let places = std::mem::take(&mut *self.places.lock().unwrap());
        for places in places {
            definitions::delete(&self.access, &places).await.unwrap();
        }
    }
}

/// One check's own view of the stand: what was made last is its own.
struct One {
    stand: Arc<AwsStand>,
    last: Mutex<Option<Places>>,
}

#[async_trait]
impl Stand for One {
    type Home = AwsHome;

    async fn fresh(&self) -> AwsHome {
        let number = self.stand.made.fetch_add(1, Ordering::Relaxed);
        let made = definitions::create(&self.stand.access, &format!("{}-{number}", self.stand.prefix), MAX_RECEIVES).await;
        let places = made.unwrap();
        self.stand.places.lock().unwrap().push(places.clone());
        *self.last.lock().unwrap() = Some(places.clone());
        AwsHome::open(&self.stand.access, places, Arc::new(SystemClock)).await
    }

    async fn reopened(&self, home: AwsHome) -> AwsHome {
        drop(home);
        let places = self.last.lock().unwrap().clone().unwrap();
        AwsHome::open(&self.stand.access, places, Arc::new(SystemClock)).await
    }

    async fn pass(&self, _: &AwsHome, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    fn max_receives(&self) -> u32 {
        MAX_RECEIVES
    }
}

async fn passes_the_suite(access: Access) {
    let stand = Arc::new(AwsStand::new(access));
    let began = Instant::now();
    let only = std::env::var("NAMEPLATE_CHECK").ok();
    let checks = conformance::CHECKS.iter().filter(|check| only.as_deref().is_none_or(|only| only == **check));
    let failed: Vec<&str> = stream::iter(checks)
        .map(|check| {
            let one = One { stand: stand.clone(), last: Mutex::default() };
            async move {
                let began = Instant::now();
                let ran = AssertUnwindSafe(conformance::run(&one, check)).catch_unwind().await;
                println!("{check}: {} in {:.1?}", if ran.is_ok() { "holds" } else { "DOES NOT HOLD" }, began.elapsed());
                ran.err().map(|_| *check)
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(async |failed| failed)
        .collect()
        .await;
    stand.clear().await;
    println!("{} checks in {:.1?}", conformance::CHECKS.len(), began.elapsed());
    assert!(failed.is_empty(), "the AWS home does not keep to its contract: {failed:?}");
}

fn stand_in() -> (tempfile::TempDir, Ministack, Access) {
    let folder = tempfile::tempdir().unwrap();
    let ministack = Ministack::start(&folder.path().join("ministack.log"));
    let access = Access::StandIn { endpoint: ministack.endpoint.clone() };
    (folder, ministack, access)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_aws_home_passes_the_suite_on_a_stand_in() {
    let (_folder, _ministack, access) = stand_in();
    passes_the_suite(access).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "not run: NAMEPLATE_AWS_TEST=1 scripts/test -p storage --features aws --test aws runs the suite against that account"]
async fn the_aws_home_passes_the_suite_on_an_account() {
    passes_the_suite(Access::Ambient).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_or_not_answering_is_never_an_absence() {
    let (_folder, ministack, access) = stand_in();
    let made = definitions::create(&access, "nameplate-errors", MAX_RECEIVES).await.unwrap();
    let nowhere = Places { table: "no-such-table".into(), bucket: "no-such-bucket".into(), ..made.clone() };
    let home = AwsHome::open(&access, nowhere, Arc::new(SystemClock)).await;
    assert!(matches!(home.claim(&fixtures::key(1)).await, Err(StoreError::Defect { .. })), "a missing table is ours to mend");
    assert!(matches!(home.get("edge.json").await, Err(StoreError::Defect { .. })), "a missing bucket is not a missing object");
    let put = home.put("edge.json", b"x", &ObjectCondition::Absent).await;
    assert!(matches!(put, Err(CommitError::Store(StoreError::Defect { .. }))), "{put:?}");

    let home = AwsHome::open(&access, made, Arc::new(SystemClock)).await;
    assert_eq!(home.claim(&fixtures::key(1)).await.unwrap(), None);
    drop(ministack);
    assert!(matches!(home.claim(&fixtures::key(1)).await, Err(StoreError::Unavailable { .. })), "nobody answers");
    assert!(matches!(home.get("edge.json").await, Err(StoreError::Unavailable { .. })), "nobody answers");
    let created = home.commit(&fixtures::created(fixtures::claim(fixtures::key(1), 1, SystemClock.now()))).await;
    assert!(matches!(created, Err(CommitError::Store(StoreError::Unavailable { .. }))), "{created:?}");
}

/// Passes connections on, and cuts the first that carries a transaction when that is answered, so that its answer is lost.
async fn losing_one_answer(endpoint: &str) -> (String, Arc<AtomicUsize>) {
    let behind = endpoint.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, lost) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = lost.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (behind, lost) = (behind.clone(), counter.clone());
            tokio::spawn(async move {
                let mut server = TcpStream::connect(behind).await.unwrap();
                let ((mut asked, mut to_client), (mut answered, mut to_server)) = (client.split(), server.split());
                let (mut request, mut answer, mut is_cut) = (vec![0; 65_536], vec![0; 65_536], false);
                // Either side may close first; that is the end of this connection and of nothing else.
                loop {
                    tokio::select! {
                        read = asked.read(&mut request) => match read {
                            Ok(read @ 1..) => {
                                let is_transaction = String::from_utf8_lossy(&request[..read]).contains("TransactWriteItems");
                                is_cut |= is_transaction && lost.fetch_add(1, Ordering::SeqCst) == 0;
                                let Ok(()) = to_server.write_all(&request[..read]).await else { return };
                            }
                            _ => return,
                        },
                        read = answered.read(&mut answer) => match read {
                            Ok(read @ 1..) if !is_cut => {
                                let Ok(()) = to_client.write_all(&answer[..read]).await else { return };
                            }
                            _ => return,
                        },
                    }
                }
            });
        }
    });
    (format!("http://{address}"), lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_not_taken_for_another_writers() {
    let (_folder, ministack, access) = stand_in();
    let places = definitions::create(&access, "nameplate-lost", MAX_RECEIVES).await.unwrap();
    let (endpoint, lost) = losing_one_answer(&ministack.endpoint).await;
    let home = AwsHome::open(&Access::StandIn { endpoint }, places, Arc::new(SystemClock)).await;
    let claim = fixtures::claim(fixtures::key(1), 1, SystemClock.now());
    home.commit(&fixtures::created(claim.clone())).await.unwrap();
    assert_eq!(lost.load(Ordering::SeqCst), 2, "one attempt whose answer was lost, and one more");
    assert_eq!(home.claim(&claim.key).await.unwrap().as_ref(), Some(&claim));
    let again = home.commit(&fixtures::created(claim)).await;
    assert!(matches!(again, Err(CommitError::Conflict)), "a second commit is another one: {again:?}");
}

const SHAPE: BucketShape = BucketShape { capacity: 100, refill: Duration::from_secs(3_600) };

fn reserve(attempt: &str) -> LedgerMove {
    let need = Need { bucket: "ca|orders".into(), shape: SHAPE, keeps: 0, reserve: 0, is_returned: false };
    let (attempt, tenant) = (attempt.to_owned(), TenantId::parse("acme").unwrap());
    LedgerMove::Reserve(Reservation { attempt, tenant, lane: Lane::New, needs: vec![need], remembered: Duration::from_secs(60) })
}

async fn left(home: &AwsHome, now: Timestamp) -> u32 {
    let items = home.ledger_items(&["ca|orders".to_owned()]).await.unwrap();
    Level::of("ca|orders", items[0].as_deref(), SHAPE, now).unwrap().left
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reservation_whose_answer_was_lost_takes_one_token() {
    let (_folder, ministack, access) = stand_in();
    let places = definitions::create(&access, "nameplate-reserved", MAX_RECEIVES).await.unwrap();
    let (endpoint, lost) = losing_one_answer(&ministack.endpoint).await;
    let home = AwsHome::open(&Access::StandIn { endpoint }, places, Arc::new(SystemClock)).await;
    let now = SystemClock.now();
    assert_eq!(home.apply(&reserve("one"), now).await.unwrap(), Reserved::Granted);
    assert_eq!(lost.load(Ordering::SeqCst), 2, "one attempt whose answer was lost, and one more");
    assert_eq!(left(&home, now).await, SHAPE.capacity - 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_ledger_remembers_past_its_time_is_as_good_as_swept() {
    let (_folder, _ministack, access) = stand_in();
    let places = definitions::create(&access, "nameplate-expired", MAX_RECEIVES).await.unwrap();
    let home = AwsHome::open(&access, places, Arc::new(SystemClock)).await;
    let now = SystemClock.now();
    // Long enough for the attempt to be forgotten, and the bucket to be full again: nothing has swept either yet.
    let later = now.checked_add(Duration::from_secs(30 * 86_400)).unwrap();
    for now in [now, later] {
        assert_eq!(home.apply(&reserve("one"), now).await.unwrap(), Reserved::Granted);
        assert_eq!(left(&home, now).await, SHAPE.capacity - 1, "one token, taken by one attempt of this month");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_that_reserve_at_once_are_all_answered() {
    let (_folder, _ministack, access) = stand_in();
    let places = definitions::create(&access, "nameplate-crowd", MAX_RECEIVES).await.unwrap();
    let home = AwsHome::open(&access, places, Arc::new(SystemClock)).await;
    let (now, began) = (SystemClock.now(), Instant::now());
    let crowd = (0..50).map(|number| {
        let home = home.clone();
        tokio::spawn(async move { home.apply(&reserve(&format!("a{number}")), now).await })
    });
    for answered in futures_util::future::join_all(crowd).await {
        assert_eq!(answered.unwrap().unwrap(), Reserved::Granted);
    }
    println!("answered in {:.1?}", began.elapsed());
    assert_eq!(left(&home, now).await, SHAPE.capacity - 50);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn purging_leaves_one_stored_version() {
    let (_folder, _ministack, access) = stand_in();
    let places = definitions::create(&access, "nameplate-versions", MAX_RECEIVES).await.unwrap();
    let home = AwsHome::open(&access, places.clone(), Arc::new(SystemClock)).await;
    let (name, neighbour) = ("sites/shop.brand.com.json", "sites/shop.brand.com.json.more");
    for (name, body) in [(name, "1"), (neighbour, "1"), (name, "2"), (neighbour, "2"), (name, "3")] {
        let seen = home.get(name).await.unwrap().map_or(ObjectCondition::Absent, |(_, etag)| ObjectCondition::Matches(etag));
        home.put(name, body.as_bytes(), &seen).await.unwrap();
    }
    assert_eq!(definitions::stored_versions(&access, &places, name).await.unwrap(), 5, "the name and its neighbour");
    home.purge_older(name).await.unwrap();
    assert_eq!(definitions::stored_versions(&access, &places, name).await.unwrap(), 3, "a neighbour's versions stay");
    assert_eq!(home.get(name).await.unwrap().unwrap().0, b"3");
}
