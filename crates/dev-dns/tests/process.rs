//! What survives: the records' file, and the server as a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{net::SocketAddr, path::Path, process::Stdio};

use dev_dns::{Config, DevDns, Error, FileError, RecordType, SaveError};
use hickory_proto::rr::{RData, RecordType as WireType};
use serde_json::{Value, json};
use support::{PATIENCE, config, http, question, record, udp};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

fn kept_in(file: &Path) -> Config {
    Config { file: Some(file.to_owned()), ..config() }
}

async fn serial(server: &DevDns, zone: &str) -> u32 {
    let answer = udp(server.dns_addr(), &question(zone, WireType::SOA, false)).await;
    match &answer.answers[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other:?}"),
    }
}

/// The server as a process; killed when dropped.
struct Process {
    child: Child,
    dns: SocketAddr,
    admin: SocketAddr,
}

fn command(dns: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dev-dns"));
    command.args(["--dns", dns, "--admin", "127.0.0.1:0"]).args(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn spawn(arguments: &[&str]) -> Process {
    let mut child = command("127.0.0.1:0", arguments).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = timeout(PATIENCE, lines.next_line()).await.expect("a ready line in time").unwrap().expect("a ready line");
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let admin = ready["admin"].as_str().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    Process { child, dns: ready["dns"].as_str().unwrap().parse().unwrap(), admin }
}

#[tokio::test]
async fn a_restarted_server_carries_on_with_every_record_and_a_higher_serial() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new folder/zone.json");
    let first = DevDns::start(kept_in(&file)).await.unwrap();
    let zone = first.zone();
    zone.set("shop.brand.test", RecordType::Cname, &["x.t.edge.np.test"]).unwrap();
    zone.set("_p.brand.test", RecordType::Txt, &[r#""a \"b\" \255" "c""#]).unwrap();
    zone.set("brand.test", RecordType::Caa, &["0 issue ca.test"]).unwrap();
    zone.set("gone.brand.test", RecordType::A, &["127.0.0.1"]).unwrap();
    zone.unset("gone.brand.test", None).unwrap();
    let (before, serial_before) = (zone.list(), serial(&first, "brand.test.").await);
    first.shutdown().await.unwrap();

    let second = DevDns::start(kept_in(&file)).await.unwrap();
    assert_eq!(second.zone().list(), before);
    assert_eq!(before.len(), 3);
    assert!(serial(&second, "brand.test.").await > serial_before);
    second.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_server_killed_after_an_edit_was_answered_has_lost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zone.json");
    let arguments = ["--file", file.to_str().unwrap(), "--apex", "edge.np.test"];
    let mut first = spawn(&arguments).await;
    for n in 0..10 {
        let record = json!({ "name": format!("h{n}.brand.test"), "type": "A", "data": [format!("127.0.0.{n}")] });
        assert_eq!(http(first.admin, "PUT", "/records", &record.to_string()).await.0, 200);
    }
    first.child.kill().await.unwrap();

    let second = spawn(&arguments).await;
    for n in 0..10 {
        let answer = udp(second.dns, &question(&format!("h{n}.brand.test."), WireType::A, false)).await;
        assert_eq!(answer.answers[0].data.to_string(), format!("127.0.0.{n}"));
    }
}

#[tokio::test]
async fn a_server_told_to_terminate_ends_well() {
    let mut server = spawn(&[]).await;
    let id = server.child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
    assert!(timeout(PATIENCE, server.child.wait()).await.expect("an end in time").unwrap().success());
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why_and_fails() {
    let taken = spawn(&[]).await;
    let mut child = command(&taken.dns.to_string(), &[]).spawn().unwrap();
    let mut said = String::new();
    timeout(PATIENCE, child.stderr.take().unwrap().read_to_string(&mut said)).await.unwrap().unwrap();
    assert!(!child.wait().await.unwrap().success());
    assert!(said.contains(&format!("cannot listen on {} for DNS", taken.dns)) && said.contains("in use"), "{said}");
}

#[tokio::test]
async fn two_servers_never_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zone.json");
    let first = DevDns::start(kept_in(&file)).await.unwrap();
    let refused = DevDns::start(kept_in(&file)).await.unwrap_err();
    assert!(matches!(refused, Error::File(FileError::InUse { .. })), "{refused}");
    first.shutdown().await.unwrap();
    DevDns::start(kept_in(&file)).await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zone.json");
    let bad_record = json!({ "format": 1, "changes": 1, "records": [{ "name": "a.test", "type": "A", "data": ["x"] }] });
    for (text, says) in [
        ("not json".to_owned(), "is not a file of this server's"),
        (json!({ "format": 2, "changes": 1, "records": [] }).to_string(), "has format 2"),
        (bad_record.to_string(), "holds a record that this server refuses"),
    ] {
        std::fs::write(&file, &text).unwrap();
        let refused = DevDns::start(kept_in(&file)).await.unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    }
}

#[tokio::test]
async fn an_edit_that_cannot_be_saved_says_so_and_is_saved_once_the_disk_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let file = home.join("zone.json");
    let server = DevDns::start(kept_in(&file)).await.unwrap();
    std::fs::remove_dir_all(&home).unwrap();
    let zone = server.zone();
    zone.set("a.brand.test", RecordType::A, &["127.0.0.1"]).unwrap();
    assert!(matches!(zone.saved().await, Err(SaveError::Failed(_))));
    let body = json!({ "name": "b.brand.test", "type": "A", "data": ["127.0.0.1"] }).to_string();
    let (status, _, problem) = http(server.admin_addr().unwrap(), "PUT", "/records", &body).await;
    assert_eq!((status, &problem["title"]), (500, &json!("The change is not saved")));
    assert!(problem["detail"].as_str().unwrap().contains("in force but not on disk"), "{problem}");

    std::fs::create_dir(&home).unwrap();
    zone.set("c.brand.test", RecordType::A, &["127.0.0.1"]).unwrap();
    zone.saved().await.unwrap();
    let stored: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(stored["records"].as_array().unwrap().len(), 3);
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn thousands_of_edits_at_once_share_a_few_writes() {
    let folder = tempfile::tempdir().unwrap();
    let server = DevDns::start(kept_in(&folder.path().join("zone.json"))).await.unwrap();
    let zone = server.zone();
    zone.set_all((0..5000).map(|n| record(&format!("h{n}.brand.test"), RecordType::A, &["127.0.0.1"])).collect()).unwrap();
    let mut edits = tokio::task::JoinSet::new();
    for n in 0..2000 {
        let zone = zone.clone();
        edits.spawn(async move {
            zone.set(&format!("h{n}.brand.test"), RecordType::A, &["127.0.0.2"]).unwrap();
            zone.saved().await.unwrap();
        });
    }
    // One write of the whole file for each edit would take far longer than anybody's patience.
    timeout(PATIENCE, edits.join_all()).await.expect("all edits on disk in time");
    server.shutdown().await.unwrap();
}
