//! `nameplate serve` as a new operator meets it, with a foreign name server and Pebble; then a backup, a loss, and a restore.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http::Method;
use serde_json::Value;
use system_tests::{
    client::{KeptAlive, ask},
    serving::Machine,
    waiting::until,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

/// What a busy machine may take for a certificate.
const PATIENCE: Duration = Duration::from_secs(90);

fn verdicts(report: &Value, verdict: &str) -> Vec<String> {
    let checks = report["checks"].as_array().expect("checks").iter().filter(|check| check["verdict"] == verdict);
    checks.map(|check| format!("{}: {}", check["check"], check["saw"])).collect()
}

fn fine(report: &Value, what: &str) -> bool {
    report["checks"].as_array().expect("checks").iter().any(|check| check["check"] == what && check["verdict"] == "fine")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_operator_follows_the_guide_from_an_empty_folder_to_verified_https() {
    let mut machine = Machine::prepare().await;
    let refused = machine.run(&["serve"]).await;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("nameplate setup"), "{said}");
    let unasked = machine.run(&["setup"]).await;
    let said = String::from_utf8_lossy(&unasked.stderr).into_owned();
    assert!(!unasked.status.success() && said.contains("--agree-tos"), "{said}");
    assert_eq!(machine.pebble.requests("sign-me-up"), 0, "no account is made before somebody agrees");

    machine.follow_setup().await;
    let report = machine.done(&["--json", "doctor"]).await;
    assert!(["clock", "account", "targets", "terms"].iter().all(|what| fine(&report, what)), "{report}");
    machine.serve().await;
    let report = machine.done(&["--json", "doctor"]).await;
    assert!(["answer zone", "delegation", "edge", "challenges", "queues"].iter().all(|what| fine(&report, what)), "{report}");
    assert!(verdicts(&report, "failed").is_empty(), "{report}");

    machine.add("shop.brand.test").await;
    machine.served("shop.brand.test", PATIENCE).await;
    assert_eq!(machine.issued(), 1, "the CA's log is {}", machine.pebble.log.display());

    // What the doctor is for: the wildcard goes, and he says so.
    machine.dns.remove("*.t.edge.saas.test").await;
    let ill = machine.run(&["--json", "doctor"]).await;
    assert_eq!(ill.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&ill.stdout).unwrap();
    assert!(verdicts(&report, "failed").iter().any(|check| check.contains("targets")), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_backup_issues_nothing_again_and_brings_nothing_back() {
    let mut machine = Machine::set_up().await;
    machine.serve().await;
    let kept = machine.add("keep.brand.test").await;
    machine.add("gone.brand.test").await;
    for name in ["keep.brand.test", "gone.brand.test"] {
        machine.served(name, PATIENCE).await;
    }
    let hook = machine.done(&["--json", "webhooks", "add", "https://hooks.brand.test/"]).await["id"].as_str().unwrap().to_owned();
    let ask = machine.done(&["--json", "ask"]).await["path"].clone();
    let backup = machine.folder().join("backup");
    let file = backup.to_str().unwrap();
    machine.done(&["--json", "backup", "--with-keys", "--to", file]).await;

    // After the backup: one name comes, one goes.
    machine.add("late.brand.test").await;
    let late = machine.served("late.brand.test", PATIENCE).await.serial;
    let keep = machine.served("keep.brand.test", PATIENCE).await.serial;
    machine.done(&["--json", "domains", "remove", "gone.brand.test", "--tenant", "brand", "--wait"]).await;
    machine.refused("gone.brand.test", PATIENCE).await;
    assert_eq!(machine.issued(), 3);

    // The store is lost, the bucket is not.
    machine.kill().await;
    let home = machine.data().join("home");
    let refused = machine.run(&["restore", "--from", file]).await;
    assert!(!refused.status.success(), "a store that is there is not replaced");
    for ending in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(home.join(format!("home.sqlite3{ending}")));
    }
    let report: Value = serde_json::from_slice(&machine.run(&["--json", "doctor"]).await.stdout).unwrap();
    let lost = |check: &String| check.contains("the bucket serves 2 names, and the store knows 0");
    assert!(verdicts(&report, "failed").iter().any(lost), "a lost store goes unnoticed: {report}");
    let told = machine.done(&["--json", "restore", "--from", file]).await;
    assert_eq!(told["taken_over"], serde_json::json!(["late.brand.test"]), "{told}");
    assert_eq!(told["gone"], serde_json::json!(["gone.brand.test"]), "{told}");
    assert_eq!(told["withheld"], serde_json::json!([]), "{told}");
    assert_eq!(told["paused_webhooks"], serde_json::json!([{ "id": hook, "url": "https://hooks.brand.test/" }]), "{told}");
    machine.serve().await;
    let shown = machine.done(&["--json", "webhooks", "show", &hook]).await;
    assert!(shown["disabled"]["why"].as_str().is_some_and(|why| why.contains("webhooks redeliver")), "{shown}");
    assert_eq!(machine.done(&["--json", "ask"]).await["path"], ask, "a Caddy that asks goes on");
    assert_eq!(machine.served("late.brand.test", PATIENCE).await.serial, late);
    assert_eq!(machine.served("keep.brand.test", PATIENCE).await.serial, keep);
    settled(&machine, &["late.brand.test", "keep.brand.test"]).await;
    assert_eq!(machine.domain("gone.brand.test").await["state"], "removed");
    machine.refused("gone.brand.test", Duration::ZERO).await;
    assert_eq!(machine.issued(), 3, "nothing is issued again; the CA's log is {}", machine.pebble.log.display());

    // Everything is lost but the backup, and a customer's old record still leads here.
    machine.kill().await;
    std::fs::remove_dir_all(machine.data()).unwrap();
    let removed = machine.folder().join("removed");
    std::fs::write(&removed, "gone.brand.test\n").unwrap();
    let removed = removed.to_str().unwrap();
    let told = machine.done(&["--json", "restore", "--from", file, "--removed", removed, "--keep-webhooks", "--new-ask-secret"]).await;
    assert_eq!(told["paused_webhooks"], serde_json::json!([]), "{told}");
    assert_eq!(
        (told["gone"].clone(), told["withheld"].clone()),
        (serde_json::json!(["gone.brand.test"]), serde_json::json!(["keep.brand.test"])),
        "{told}"
    );
    // What leads elsewhere by now is not served before it leads here again.
    machine.lead_elsewhere("keep.brand.test").await;
    machine.serve().await;
    assert!(machine.done(&["--json", "webhooks", "show", &hook]).await["disabled"].is_null());
    assert_ne!(machine.done(&["--json", "ask"]).await["path"], ask);
    until("the look that finds it elsewhere", PATIENCE, async || {
        let domain = machine.domain("keep.brand.test").await;
        (!domain["problem"].is_null()).then_some(())
    })
    .await;
    machine.refused("keep.brand.test", Duration::ZERO).await;
    machine.dns.remove("keep.brand.test").await;
    machine.dns.add(&kept).await;
    machine.done(&["--json", "domains", "check", "keep.brand.test", "--tenant", "brand"]).await;
    assert_eq!(machine.served("keep.brand.test", PATIENCE).await.serial, keep, "with the certificate that it had");
    machine.refused("gone.brand.test", Duration::ZERO).await;
    assert_eq!(machine.issued(), 3, "nothing is issued again; the CA's log is {}", machine.pebble.log.display());
}

/// Waits until each name was looked at after the start.
async fn settled(machine: &Machine, names: &[&str]) {
    for name in names {
        machine.done(&["--json", "domains", "check", name, "--tenant", "brand"]).await;
        until(&format!("{name} is ready after a look"), PATIENCE, async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            (machine.domain(name).await["ready"] == true).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_behind_held_sockets_refuses_and_fails_nobody() {
    let mut machine = Machine::set_up().await;
    let held = machine.bind();
    let handed = || held.iter().map(|(name, socket)| (*name, socket.try_clone().unwrap().into())).collect();
    machine.serve_on(handed()).await;
    machine.add("shop.brand.test").await;
    machine.served("shop.brand.test", PATIENCE).await;

    let (stop, mut stopped) = watch::channel(false);
    let (told, mut answered) = watch::channel(0);
    let application = tokio::spawn(use_the_api(machine.api(), machine.operator_key(), told, stop.subscribe()));
    let visitor = machine.visitor();
    let visits = tokio::spawn(async move {
        let (mut longest, mut count, mut failed) = (Duration::ZERO, 0_u32, Vec::new());
        while !*stopped.borrow_and_update() {
            let began = Instant::now();
            match visitor.get("shop.brand.test", "/").await {
                Ok(visit) if visit.answer.status == 200 => count += 1,
                Ok(visit) => failed.push(visit.answer.status.to_string()),
                Err(error) => failed.push(error),
            }
            longest = longest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        (longest, count, failed)
    });
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        // However busy the machine is, each process answers the application before it is told to leave.
        let before = *answered.borrow_and_update();
        answered.wait_for(|answered| *answered >= before + 10).await.unwrap();
        let half_sent = HalfSent::begin(machine.api(), machine.operator_key()).await;
        let (answer, ()) = tokio::join!(half_sent.finish_once_it_leaves(), machine.stop());
        assert!(answer.starts_with("HTTP/1.1 20"), "a request under way when the product was told to leave got {answer:?}");
        machine.serve_on(handed()).await;
    }
    stop.send_replace(true);
    let (longest, count, failed) = visits.await.unwrap();
    println!("{count} visits over three restarts, none refused; the longest took {longest:?}");
    assert!(failed.is_empty(), "{failed:?}");
    assert!(count > 20, "{count} visits show little");
    let (connections, failed) = application.await.unwrap();
    let answered = *answered.borrow();
    println!("{answered} API requests over three restarts, none failed; {connections} kept connections");
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(connections, 4, "one for each process");
}

/// An application that asks all the time, over a connection that it keeps and over new ones, and tells how many requests were answered.
/// Returns how many connections it kept one after the other, and what failed.
async fn use_the_api(api: SocketAddr, key: String, told: watch::Sender<u32>, mut stopped: watch::Receiver<bool>) -> (u32, Vec<String>) {
    const PATH: &str = "/v1/domains/shop.brand.test?tenant=brand";
    let mut kept = KeptAlive::new(&api.to_string(), &key);
    let mut failed = Vec::new();
    while !*stopped.borrow_and_update() {
        let new = ask(Method::GET, &format!("http://{api}{PATH}"), Some(&key), None).await.map(|answer| answer.status);
        for asked in [new, kept.get(PATH).await] {
            match asked {
                Ok(status) if status == 200 => told.send_modify(|answered| *answered += 1),
                Ok(status) => failed.push(status.to_string()),
                Err(error) => failed.push(error),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (kept.connections, failed)
}

/// A request of which the server has the head and not the body.
struct HalfSent {
    stream: TcpStream,
    beside: KeptAlive,
}

impl HalfSent {
    const BODY: &str = r#"{"hostname":"half.brand.test","tenant":"brand"}"#;

    async fn begin(api: SocketAddr, key: String) -> Self {
        let mut stream = TcpStream::connect(api).await.unwrap();
        let length = Self::BODY.len();
        let head = format!(
            "POST /v1/domains HTTP/1.1\r\nhost: {api}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The handler has begun: it asks for the body.
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        Self { stream, beside: KeptAlive::new(&api.to_string(), &key) }
    }

    /// Sends the body once the server says on another connection that it leaves, or is gone.
    async fn finish_once_it_leaves(mut self) -> String {
        while self.beside.get("/v1/openapi.json").await.is_ok() && self.beside.is_kept() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut answer = String::new();
        let _ = self.stream.write_all(Self::BODY.as_bytes()).await;
        let _ = self.stream.read_to_string(&mut answer).await;
        answer
    }
}
