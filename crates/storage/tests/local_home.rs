//! What only the local home promises: one folder to one product, nothing lost in a crash, nothing left of what was removed.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

mod stand;

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use domains::{
    AnswerZone, BundleBucket, Caller, Callers, Change, Claim, Clock, CommitError, Dispatch, Documents, DomainTable, Issuance, Listings,
    Marks, ObjectCondition, Proof, Put, Role, SiteVersion, State, Step, StepQueue, StoreError, SystemClock, TenantId,
    webhooks::{PROGRESS_KIND, Progress},
};
use rusqlite::{Connection, params};
use stand::LocalStand;
use storage::{
    conformance::{
        Stand,
        fixtures::{attempt, certificate, claim, created, entry, hostname, key, nudge, owner, replaced},
    },
    consumers::{FeedConsumer, QueueConsumer},
    local::{BackupError, LocalConfig, LocalHome, OpenError, back_up, etag, is_under_way, place as make_store, read_backup, restored},
};
use tempfile::TempDir;

fn database(folder: &Path) -> Connection {
    Connection::open(folder.join("home.sqlite3")).unwrap()
}

/// How many pieces of each numbered sealed key stand in any file below the folder.
fn pieces(folder: &Path) -> HashMap<usize, usize> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            for (number, times) in pieces(&path) {
                *found.entry(number).or_insert(0) += times;
            }
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for piece in bytes.windows(MARKER.len() + 5).filter(|window| window.starts_with(MARKER)) {
            if let Some(number) = std::str::from_utf8(&piece[MARKER.len()..]).ok().and_then(|digits| digits.parse().ok()) {
                *found.entry(number).or_insert(0) += 1;
            }
        }
    }
    found
}

async fn empty_feed(home: &LocalHome) {
    loop {
        let batch = home.next_batch(1000, Duration::ZERO).await.unwrap();
        if batch.is_empty() {
            return;
        }
        home.acknowledge(&batch.iter().map(|record| record.sequence).collect::<Vec<_>>()).await.unwrap();
    }
}

fn issuing(number: usize, version: u64, stand: &LocalStand, sealed_key: Option<&str>) -> Claim {
    let now = stand.now();
    let attempt = sealed_key.map(|sealed_key| attempt(now, sealed_key));
    let state = State::Issuing { proof: Proof::Txt, issuance: Issuance { attempt, ..Issuance::new(now) } };
    Claim { state, ..claim(key(number), version, now) }
}

/// What every piece of a sealed key begins with.
const MARKER: &[u8] = b"sealed-";

/// A sealed key that is long enough to be split over pages and is recognised by any piece of it.
fn sealed(number: usize) -> String {
    format!("<sealed-{number:05}>").repeat(40)
}

#[test]
fn another_programs_database_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    database(folder.path()).execute_batch("CREATE TABLE photos (name TEXT)").unwrap();
    let before = fs::read(folder.path().join("home.sqlite3")).unwrap();
    let stand = LocalStand::new(None);
    assert!(matches!(LocalHome::open(stand.config(folder.path())), Err(OpenError::NotAHome)));
    assert_eq!(fs::read(folder.path().join("home.sqlite3")).unwrap(), before);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = TempDir::new().unwrap();
    let words = "these are somebody's notes, and not a database at all. ".repeat(50);
    fs::write(folder.path().join("home.sqlite3"), &words).unwrap();
    let stand = LocalStand::new(None);
    assert!(matches!(LocalHome::open(stand.config(folder.path())), Err(OpenError::Sqlite(_))));
    assert_eq!(fs::read_to_string(folder.path().join("home.sqlite3")).unwrap(), words);
}

#[tokio::test]
async fn a_newer_schema_is_refused_with_both_numbers() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    stand.open(folder.path()).close().await.unwrap();
    database(folder.path()).execute("INSERT INTO schema_versions VALUES (99, 'later')", []).unwrap();
    match LocalHome::open(stand.config(folder.path())) {
        Err(error @ OpenError::NewerSchema { found: 99, .. }) => assert!(error.to_string().contains("99"), "{error}"),
        other => panic!("{other:?}"),
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_folder_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("deep/home");
    let home = LocalStand::new(None).open(&path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    home.close().await.unwrap();
}

#[tokio::test]
async fn a_closed_home_refuses_and_its_folder_is_free() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    let home = stand.open(folder.path());
    home.store("mark", "1").await.unwrap();
    home.close().await.unwrap();
    assert!(matches!(home.load("mark").await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(home.store("mark", "2").await, Err(StoreError::Unavailable { .. })));
    let again = stand.open(folder.path());
    assert_eq!(again.load("mark").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test]
async fn a_row_that_does_not_read_is_a_defect_with_its_name_and_never_an_absence() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    let home = stand.open(folder.path());
    let now = stand.now();
    let hash = "ab".repeat(32);
    for number in [1, 2] {
        let change = Change {
            owner: Some(Put { item: owner(hostname(number), None, 1), expected: None }),
            certificate: Some(certificate(hostname(number), 1, "sealed")),
            history: vec![entry(key(number), 1, now)],
            ..created(claim(key(number), 1, now))
        };
        home.commit(&change).await.unwrap();
    }
    home.admit(&hash, &domains::Caller { role: domains::Role::Operator, tenant: None }).await.unwrap();
    let name = hostname(1);
    let break_item = |table: &str, item: &str| {
        let statement = format!("UPDATE {table} SET item = ?1 WHERE hostname = ?2");
        assert_eq!(database(folder.path()).execute(&statement, params![item, name.as_str()]).unwrap(), 1);
    };
    let names_it = |answer: Result<(), StoreError>| match answer {
        Err(StoreError::Defect { detail }) => {
            assert!(detail.contains(name.as_str()) && !detail.contains("secret"), "{detail}");
        }
        other => panic!("{other:?}"),
    };
    for broken in ["", "{", "null", "{\"schema\":1,\"sealed_key\":\"secret\"}", "[\"secret\"]"] {
        for table in ["claims", "owners", "certificates", "history"] {
            break_item(table, broken);
        }
        names_it(home.claim(&key(1)).await.map(drop));
        names_it(home.owner(&name).await.map(drop));
        names_it(home.certificate(&name, SiteVersion(1)).await.map(drop));
        names_it(home.history(&key(1), 0, 10).await.map(drop));
        names_it(home.claims(None, None, None, 10).await.map(drop));
        names_it(home.claims_to(&name).await.map(drop));
    }
    let other = serde_json::to_string(&claim(key(2), 1, now)).unwrap();
    break_item("claims", &other);
    names_it(home.claim(&key(1)).await.map(drop));
    assert!(home.claim(&key(2)).await.unwrap().is_some(), "a broken neighbour");
    database(folder.path()).execute("UPDATE callers SET item = '{}'", []).unwrap();
    assert!(matches!(home.caller(&hash).await, Err(StoreError::Defect { .. })));
}

#[tokio::test]
async fn a_broken_feed_record_is_shown_and_does_not_stop_the_feed() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    let home = stand.open(folder.path());
    for number in 1..=2 {
        home.commit(&created(claim(key(number), 1, stand.now()))).await.unwrap();
    }
    database(folder.path()).execute("UPDATE feed SET image = '{broken' WHERE sequence = 1", []).unwrap();
    let batch = home.next_batch(10, Duration::ZERO).await.unwrap();
    assert_eq!(batch.len(), 2);
    assert!(matches!(batch[0].claim(), Err(StoreError::Defect { detail }) if detail.contains('1')));
    assert_eq!(batch[1].claim().unwrap().key, key(2));
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_not_absent() {
    let folder = TempDir::new().unwrap();
    let home = LocalStand::new(None).open(folder.path());
    fs::create_dir_all(home.bucket_folder().join("sites/a.json")).unwrap();
    assert!(matches!(home.get("sites/a.json").await, Err(StoreError::Defect { .. })));
    fs::write(home.bucket_folder().join("index"), "a file where the folder should be").unwrap();
    assert!(matches!(home.get("index/00.json").await, Err(StoreError::Defect { .. })));
    let put = home.put("index/00.json", b"x", &ObjectCondition::Absent).await;
    assert!(matches!(put, Err(CommitError::Store(_))), "{put:?}");
}

#[tokio::test]
async fn what_a_crash_left_unfinished_in_the_bucket_is_cleared_away() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    let home = stand.open(folder.path());
    home.put("sites/a.json", b"kept", &ObjectCondition::Absent).await.unwrap();
    let litter = home.bucket_folder().join("sites/.unfinished-7");
    fs::write(&litter, "half").unwrap();
    home.close().await.unwrap();
    let home = stand.open(folder.path());
    assert!(!litter.exists());
    let (bytes, tag) = home.get("sites/a.json").await.unwrap().unwrap();
    assert_eq!((bytes.as_slice(), tag), (b"kept".as_slice(), etag(b"kept")));
    home.put("sites/a.json", b"new", &ObjectCondition::Matches(etag(b"kept"))).await.unwrap();
    home.put("sites/a.json", b"late", &ObjectCondition::Matches(etag(b"kept"))).await.unwrap_err();
    let files: Vec<_> = fs::read_dir(home.bucket_folder().join("sites")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["a.json"], "a write left something behind");
}

#[tokio::test]
async fn an_unread_feed_is_kept_a_day_and_no_longer() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    let home = stand.open(folder.path());
    let mut writing = tokio::task::JoinSet::new();
    for number in 0..2500 {
        let (home, now) = (home.clone(), stand.now());
        writing.spawn(async move { home.commit(&created(claim(key(number), 1, now))).await.unwrap() });
    }
    writing.join_all().await;
    stand.pass(&home, Duration::from_secs(86_400 - 60)).await;
    home.sweep().await.unwrap();
    home.commit(&created(claim(key(9000), 1, stand.now()))).await.unwrap();
    let count = || database(folder.path()).query_row("SELECT count(*) FROM feed", [], |row| row.get::<_, u64>(0)).unwrap();
    assert_eq!(count(), 2501);
    stand.pass(&home, Duration::from_secs(120)).await;
    home.sweep().await.unwrap();
    assert_eq!(count(), 1);
    assert_eq!(home.next_batch(10, Duration::ZERO).await.unwrap()[0].claim().unwrap().key, key(9000));
}

#[tokio::test]
async fn a_message_nobody_takes_is_kept_two_weeks_and_no_longer() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    let home = stand.open(folder.path());
    let step = Step::PublishSite;
    home.send(&[Dispatch { step, nudge: nudge(1), delay: Duration::ZERO }]).await.unwrap();
    stand.pass(&home, Duration::from_secs(13 * 86_400)).await;
    home.sweep().await.unwrap();
    assert_eq!(home.receive(step, 1, Duration::from_secs(1), Duration::ZERO).await.unwrap().len(), 1);
    stand.pass(&home, Duration::from_secs(2 * 86_400)).await;
    home.sweep().await.unwrap();
    assert_eq!(home.next_delivery().await.unwrap(), None);
}

#[tokio::test]
async fn the_next_delivery_is_told_to_whoever_moves_the_clock() {
    let stand = LocalStand::new(None);
    let home = stand.fresh().await;
    assert_eq!(home.next_delivery().await.unwrap(), None);
    let delay = Duration::from_secs(90);
    home.send(&[Dispatch { step: Step::PublishSite, nudge: nudge(1), delay }]).await.unwrap();
    assert_eq!(home.next_delivery().await.unwrap(), Some(stand.now().checked_add(delay).unwrap()));
    home.commit(&created(claim(key(1), 1, stand.now()))).await.unwrap();
    assert!(home.next_delivery().await.unwrap().unwrap() <= stand.now());
}

#[tokio::test]
async fn a_waiting_receiver_gets_a_delayed_message_when_it_is_due() {
    let folder = TempDir::new().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = LocalHome::open(LocalConfig::new(folder.path(), clock)).unwrap();
    let step = Step::VerifyOwnership;
    let delay = Duration::from_millis(300);
    home.send(&[Dispatch { step, nudge: nudge(1), delay }]).await.unwrap();
    let began = Instant::now();
    let messages = home.receive(step, 10, Duration::from_secs(30), Duration::from_secs(20)).await.unwrap();
    assert_eq!(messages.len(), 1);
    assert!(began.elapsed() < Duration::from_secs(10), "waited for something else than the message: {:?}", began.elapsed());
    let nothing = home.receive(step, 10, Duration::from_secs(30), Duration::from_millis(50)).await.unwrap();
    assert_eq!(nothing, vec![]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_disk_is_unavailable_in_time_and_what_was_given_up_is_not_written_later() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    let config = LocalConfig { patience: Duration::from_millis(200), ..stand.config(folder.path()) };
    let home = LocalHome::open(config).unwrap();
    home.store("mark", "before").await.unwrap();
    let stranger = database(folder.path());
    stranger.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let answer = home.store("mark", "given up").await;
    assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(home.load("mark").await.unwrap().as_deref(), Some("before"), "readers wait for a writer");
    stranger.execute_batch("ROLLBACK").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while home.store("other", "after").await.is_err() {
        assert!(Instant::now() < deadline, "did not recover");
    }
    assert_eq!(home.load("mark").await.unwrap().as_deref(), Some("before"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_sealed_key_once_it_is_removed() {
    const NAMES: usize = 240;
    let folder = TempDir::new().unwrap();
    let stand = Arc::new(LocalStand::new(None));
    let home = stand.open(folder.path());
    // Rows of all sizes come and go beside each other, so that SQLite moves them between pages.
    let mut walks = tokio::task::JoinSet::new();
    for number in 0..NAMES {
        let (home, stand) = (home.clone(), Arc::clone(&stand));
        walks.spawn(async move {
            home.commit(&created(claim(key(number), 1, stand.now()))).await.unwrap();
            home.commit(&replaced(issuing(number, 2, &stand, None))).await.unwrap();
            home.commit(&replaced(issuing(number, 3, &stand, Some(&sealed(number))))).await.unwrap();
            let recorded = Change {
                certificate: Some(certificate(hostname(number), 1, &sealed(number))),
                ..replaced(issuing(number, 4, &stand, Some(&sealed(number + NAMES))))
            };
            home.commit(&recorded).await.unwrap();
            // The renewal's attempt is over; names of an even number lose their certificate.
            let dropped = if number % 2 == 0 { vec![(hostname(number), SiteVersion(1))] } else { vec![] };
            if number % 3 == 0 {
                home.commit(&Change { dropped_certificates: dropped, ..replaced(issuing(number, 5, &stand, None)) }).await.unwrap();
            } else {
                home.commit(&replaced(issuing(number, 5, &stand, None))).await.unwrap();
                home.commit(&Change { dropped_certificates: dropped, ..Change::default() }).await.unwrap();
            }
        });
    }
    walks.join_all().await;
    assert!(pieces(folder.path()).contains_key(&1), "the search does not find what is there");
    empty_feed(&home).await;
    home.scrub().await.unwrap();
    let left = pieces(folder.path());
    for number in 0..NAMES {
        assert_eq!(left.contains_key(&number), number % 2 == 1, "{:?} pieces of the key of name {number}", left.get(&number));
    }
    let overwritten: Vec<_> = left.keys().filter(|number| **number >= NAMES).collect();
    assert!(overwritten.is_empty(), "pieces of overwritten attempts: {overwritten:?}");
}

#[tokio::test]
async fn a_dropped_certificate_leaves_the_files_by_itself_within_seconds() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    let home = stand.open(folder.path());
    let recorded = Change { certificate: Some(certificate(hostname(1), 1, &sealed(1))), ..Change::default() };
    home.commit(&recorded).await.unwrap();
    assert!(pieces(folder.path()).contains_key(&1));
    let dropped = Change { dropped_certificates: vec![(hostname(1), SiteVersion(1))], ..Change::default() };
    home.commit(&dropped).await.unwrap();
    let began = Instant::now();
    while pieces(folder.path()).contains_key(&1) {
        assert!(began.elapsed() < Duration::from_secs(5), "still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(home.certificate(&hostname(1), SiteVersion(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_stranger_who_reads_the_file_for_long_delays_the_erasing_but_no_writer() {
    let folder = TempDir::new().unwrap();
    let stand = LocalStand::new(None);
    let home = LocalHome::open(LocalConfig { patience: Duration::from_secs(2), ..stand.config(folder.path()) }).unwrap();
    home.commit(&Change { certificate: Some(certificate(hostname(1), 1, &sealed(1))), ..Change::default() }).await.unwrap();
    let stranger = database(folder.path());
    stranger.execute_batch("BEGIN").unwrap();
    stranger.query_row("SELECT count(*) FROM certificates", [], |_| Ok(())).unwrap();
    let dropped = Change { dropped_certificates: vec![(hostname(1), SiteVersion(1))], ..Change::default() };
    home.commit(&dropped).await.unwrap();
    let answer = home.scrub().await;
    assert!(matches!(answer, Err(StoreError::Unavailable { .. })), "{answer:?}");
    for number in 0..20 {
        home.commit(&created(claim(key(number), 1, stand.now()))).await.unwrap();
    }
    stranger.execute_batch("ROLLBACK").unwrap();
    home.scrub().await.unwrap();
    assert_eq!(pieces(folder.path()), HashMap::new());
}

const CHILD_FOLDER: &str = "NAMEPLATE_TEST_CHILD_FOLDER";

/// Not a test by itself: the process that the next test kills. Says each thing once it was answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the test that kills it"]
async fn the_process_that_is_killed() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let stand = Arc::new(LocalStand::new(None));
    let home = stand.open(Path::new(&folder));
    let mut busy = tokio::task::JoinSet::new();
    for number in 0..24 {
        let (home, stand) = (home.clone(), Arc::clone(&stand));
        busy.spawn(async move {
            home.commit(&created(claim(key(number), 1, stand.now()))).await.unwrap();
            for version in 2.. {
                let change = Change {
                    history: vec![entry(key(number), version, stand.now())],
                    ..replaced(claim(key(number), version, stand.now()))
                };
                home.commit(&change).await.unwrap();
                println!("claim {number} {version}");
                let name = format!("sites/{number}-{version}.json");
                home.put(&name, name.as_bytes(), &ObjectCondition::Absent).await.unwrap();
                println!("object {number} {version}");
                home.send(&[Dispatch { step: Step::PublishSite, nudge: nudge(number), delay: Duration::ZERO }]).await.unwrap();
                println!("nudge {number} {version}");
            }
        });
    }
    busy.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_it_answered_and_its_folder_is_held_until_then() {
    let folder = TempDir::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--ignored", "--nocapture"])
        .env(CHILD_FOLDER, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let process = child.id();
    let stand = LocalStand::new(None);
    let mut answered: Vec<(String, usize, u64)> = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = |answered: &mut Vec<(String, usize, u64)>| -> bool {
        let Some(Ok(line)) = lines.next() else { return false };
        let words: Vec<&str> = line.split(' ').collect();
        if let [what @ ("claim" | "object" | "nudge"), number, version] = words[..]
            && let (Ok(number), Ok(version)) = (number.parse(), version.parse())
        {
            answered.push((what.to_owned(), number, version));
        }
        true
    };
    while answered.len() < 600 {
        assert!(read(&mut answered), "the process ended by itself after {} answers", answered.len());
    }
    match LocalHome::open(stand.config(folder.path())) {
        Err(error @ OpenError::InUse { .. }) => assert!(error.to_string().contains(&process.to_string()), "{error}"),
        other => panic!("two homes in one folder: {other:?}"),
    }
    child.kill().unwrap();
    child.wait().unwrap();
    while read(&mut answered) {}
    let home = stand.open(folder.path());
    let mut nudged = HashMap::new();
    for (what, number, version) in &answered {
        match what.as_str() {
            "claim" => {
                assert!(home.claim(&key(*number)).await.unwrap().unwrap().version >= *version);
                assert_eq!(home.history(&key(*number), version - 1, 1).await.unwrap()[0].sequence, *version);
            }
            "object" => {
                let name = format!("sites/{number}-{version}.json");
                assert_eq!(home.get(&name).await.unwrap().unwrap().0, name.as_bytes());
            }
            _ => *nudged.entry(*number).or_insert(0) += 1,
        }
    }
    let mut received = HashMap::new();
    loop {
        let messages = home.receive(Step::PublishSite, 10, Duration::from_secs(60), Duration::ZERO).await.unwrap();
        if messages.is_empty() {
            break;
        }
        for message in messages {
            *received.entry(message.nudge().unwrap().hostname).or_insert(0) += 1;
        }
    }
    for (number, sent) in nudged {
        assert!(received[&hostname(number)] >= sent, "nudges of {number} were lost");
    }
    // Nothing was half written: every claim's newest history item is its own version's.
    for claim in home.claims(None, None, None, 1000).await.unwrap().items {
        let history = home.history(&claim.key, 0, 1000).await.unwrap();
        assert_eq!(history.len() as u64, claim.version - 1, "{}", claim.key);
    }
    let check: String = database(folder.path()).query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement; run with --release and --nocapture"]
async fn how_many_commits_a_second() {
    let folder = TempDir::new().unwrap();
    let stand = Arc::new(LocalStand::new(None));
    let home = stand.open(folder.path());
    for callers in [1, 8, 64, 256] {
        let began = Instant::now();
        let mut busy = tokio::task::JoinSet::new();
        for caller in 0..callers {
            let (home, stand) = (home.clone(), Arc::clone(&stand));
            busy.spawn(async move {
                let mut commits = 0u64;
                while began.elapsed() < Duration::from_secs(5) {
                    let number = commits as usize * callers + caller;
                    let mut item = claim(key(0), 1, stand.now());
                    item.key.hostname = domains::Hostname::parse_name(&format!("c{callers}n{number}.brand.com")).unwrap();
                    let change = Change { history: vec![entry(item.key.clone(), 1, stand.now())], ..created(item) };
                    home.commit(&change).await.unwrap();
                    commits += 1;
                }
                commits
            });
        }
        let commits: u64 = busy.join_all().await.into_iter().sum();
        println!("{callers} callers: {:.0} commits/s", commits as f64 / began.elapsed().as_secs_f64());
    }
    let began = Instant::now();
    let mut busy = tokio::task::JoinSet::new();
    for caller in 0..32 {
        let home = home.clone();
        busy.spawn(async move {
            for number in 0..20 {
                let name = format!("sites/s{caller}-{number}.json");
                home.put(&name, &[b'x'; 6000], &ObjectCondition::Absent).await.unwrap();
            }
        });
    }
    busy.join_all().await;
    println!("32 callers: {:.0} objects/s", 640.0 / began.elapsed().as_secs_f64());
}

#[tokio::test]
async fn answers_of_challenges_stand_side_by_side_survive_a_restart_and_go_one_by_one() {
    let stand = LocalStand::new(None);
    let folder = TempDir::new().unwrap();
    let home = stand.open(folder.path());
    let name = "c1.acme.edge.saas.net";
    home.present(name, "of-the-apex").await.unwrap();
    home.present(name, "of-the-wildcard").await.unwrap();
    home.present(name, "of-the-apex").await.unwrap();
    assert_eq!(home.answer_book().values(name), ["of-the-apex", "of-the-wildcard"]);
    assert!(home.answer_book().has_below("acme.edge.saas.net") && !home.answer_book().has_below(name));
    assert!(!home.answer_book().has_below("cme.edge.saas.net"), "labels are compared whole");
    home.close().await.unwrap();
    drop(home);

    let home = stand.open(folder.path());
    assert_eq!(home.answer_book().values(name), ["of-the-apex", "of-the-wildcard"]);
    home.withdraw(name, "of-the-apex").await.unwrap();
    home.withdraw(name, "never-there").await.unwrap();
    assert_eq!(home.answer_book().values(name), ["of-the-wildcard"]);

    // What nobody takes away goes by itself, after any order has ended.
    stand.clock.advance(Duration::from_secs(9 * 86_400));
    home.sweep().await.unwrap();
    home.close().await.unwrap();
    drop(home);
    assert!(stand.open(folder.path()).answer_book().values(name).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_keep_to_the_contract_that_a_hosted_zone_keeps_to() {
    let home = LocalStand::new(None).fresh().await;
    let book = home.answer_book();
    let zone = std::sync::Arc::new(home);
    let name = "c1.acme.edge.saas.net";
    storage::conformance::answers::answers_stand_side_by_side_and_go_one_by_one(zone, name, async |name| book.values(name)).await;
}

#[tokio::test]
async fn one_name_takes_no_more_answers_than_challenges_can_be_under_way() {
    let stand = LocalStand::new(None);
    let home = stand.fresh().await;
    for number in 0..100 {
        stand.clock.advance(Duration::from_secs(1));
        home.present("c1.acme.edge.saas.net", &format!("value-{number:03}")).await.unwrap();
    }
    let values = home.answer_book().values("c1.acme.edge.saas.net");
    assert_eq!(values.len(), 32);
    assert!(values.contains(&"value-099".to_owned()) && !values.contains(&"value-000".to_owned()), "the oldest make room");
    assert!(home.present("c1.acme.edge.saas.net", &"x".repeat(256)).await.is_err());
}

#[tokio::test]
async fn a_backup_taken_beside_a_home_in_use_is_of_one_moment_and_makes_a_store_where_none_is() {
    let (stand, place) = (LocalStand::new(None), TempDir::new().unwrap());
    let (folder, file, other) = (place.path().join("home"), place.path().join("backup"), place.path().join("other"));
    let home = stand.open(&folder);
    for number in 0..50 {
        home.commit(&created(claim(key(number), 1, stand.now()))).await.unwrap();
    }
    let told = Progress { sequence: 7, passed: 3, ..Progress::default() };
    let told_before = home.put_document(PROGRESS_KIND, "hook", &serde_json::to_string(&told).unwrap(), None).await.unwrap();
    let (operator, tenant) = ("ab".repeat(32), "cd".repeat(32));
    home.admit(&operator, &Caller { role: Role::Operator, tenant: None }).await.unwrap();
    home.admit(&tenant, &Caller { role: Role::Tenant, tenant: Some(TenantId::parse("brand").unwrap()) }).await.unwrap();
    let secret = [("keys/seal.json".to_owned(), b"secret".to_vec())];
    let facts = back_up(&folder, &file, "1.2.3", &secret, stand.now()).unwrap();
    assert_eq!((facts.taken_at, facts.files), (stand.now(), vec!["keys/seal.json".to_owned()]));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(back_up(&folder, &file, "1.2.3", &[], stand.now()), Err(BackupError::InTheWay(_))));
    home.commit(&created(claim(key(50), 1, stand.now()))).await.unwrap();
    assert!(make_store(&file, &folder).is_err(), "a home in use is left alone");
    home.close().await.unwrap();
    assert!(matches!(make_store(&file, &folder), Err(BackupError::InTheWay(_))), "a store that is there stays");
    let strange = place.path().join("strange");
    fs::write(&strange, b"no database at all, and longer than a header would be, to be sure of it").unwrap();
    assert!(matches!(read_backup(&strange), Err(BackupError::NotABackup(_))));

    assert_eq!(read_backup(&file).unwrap().1, secret);
    make_store(&file, &other).unwrap();
    assert!(is_under_way(&other).unwrap());
    make_store(&file, &other).unwrap();
    restored(&other).unwrap();
    assert!(!is_under_way(&other).unwrap());
    let home = stand.open(&other);
    assert_eq!(home.claims(None, None, None, 100).await.unwrap().items.len(), 50, "as of that moment");
    assert!(home.caller(&operator).await.unwrap().is_none(), "the operator's key of before is not admitted by the backup");
    assert!(home.caller(&tenant).await.unwrap().is_some());
    assert!(home.next_batch(10, Duration::ZERO).await.unwrap().is_empty(), "what was to be routed then is found by what is due");
    // Numbers go on where none was ever given out.
    home.commit(&created(claim(key(51), 1, stand.now()))).await.unwrap();
    let fed = home.next_batch(10, Duration::ZERO).await.unwrap();
    assert!(fed[0].sequence > 1_000_000, "{}", fed[0].sequence);
    let kept = home.document(PROGRESS_KIND, "hook").await.unwrap().unwrap();
    let progress: Progress = serde_json::from_str(&kept.body).unwrap();
    assert!(progress.sequence > 1_000_000 && kept.version > told_before, "a receiver knows the numbers of after the backup: {kept:?}");
    assert_eq!(Progress { sequence: 7, ..progress }, told, "it is read on where it was");
}

#[tokio::test]
async fn a_store_made_from_a_backup_has_nothing_of_the_lost_ones_log_nor_of_the_keys_beside_it() {
    let (stand, place) = (LocalStand::new(None), TempDir::new().unwrap());
    let (folder, file) = (place.path().join("home"), place.path().join("backup"));
    let home = stand.open(&folder);
    home.commit(&created(claim(key(0), 1, stand.now()))).await.unwrap();
    let carried = [("keys/seal.json".to_owned(), [MARKER, b"00077"].concat().repeat(2_000))];
    back_up(&folder, &file, "1.2.3", &carried, stand.now()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    for number in 1..20 {
        home.commit(&created(claim(key(number), 1, stand.now()))).await.unwrap();
    }
    // The store is lost, and what it had not yet taken out of its log lies there still.
    let log = fs::read(folder.join("home.sqlite3-wal")).unwrap();
    assert!(!log.is_empty());
    home.close().await.unwrap();
    let left = place.path().join("left");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("home.sqlite3-wal"), &log).unwrap();
    fs::write(left.join(".restoring.sqlite3-journal"), &log).unwrap();

    make_store(&file, &left).unwrap();
    assert_eq!(fs::metadata(left.join("home.sqlite3")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!pieces(&left).contains_key(&77), "a key of the backup stays in the store");
    restored(&left).unwrap();
    let names = stand.open(&left).claims(None, None, None, 100).await.unwrap().items;
    assert_eq!(names.len(), 1, "the lost store's log was played into it");
}
