//! What the CA keeps between two starts, and how it runs as a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use dev_ca::{AuthorityError, Config, DevCa, Error, FileError};
use instant_acme::NewOrder;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{ServerName, UnixTime};
use serde_json::Value;
use support::{Wire, World, ders, dns, issue, kind, roots};
use tokio::io::{AsyncBufReadExt, BufReader};

fn config(world_state: &Path, world: &World) -> Config {
    Config { state: Some(world_state.to_owned()), dns: world.zone.address, http_port: world.web.address.port(), ..Config::default() }
}

#[tokio::test]
async fn a_restart_keeps_the_root_and_the_accounts() {
    let World { ca, zone, web, folder } = World::start().await;
    let state = folder.path().join("ca");
    let account =
        instant_acme::NewAccount { contact: &["mailto:ops@example.com"], terms_of_service_agreed: true, only_return_existing: false };
    let builder = instant_acme::Account::builder_with_root(ca.root_path().unwrap()).unwrap();
    let (account, credentials) = builder.create(&account, ca.directory_url(), None).await.unwrap();
    let (root, id) = (ca.root_pem().to_owned(), account.id().to_owned());
    web.answer_for(account.key_thumbprint());
    ca.shutdown().await;

    let restarted = Config { state: Some(state), dns: zone.address, http_port: web.address.port(), ..Config::default() };
    let ca = DevCa::start(restarted).await.unwrap();
    let world = World { ca, zone, web, folder };
    assert_eq!(world.ca.root_pem(), root);
    // Port 0 gave another port; a client that keeps its account's old URL is still known.
    let key = credentials.private_key().clone_key();
    let account = world.builder().from_parts(id, key, world.ca.directory_url()).await.unwrap();
    world.host("shop.example.com");
    let chain = ders(&issue(&account, &["shop.example.com"]).await);
    let verifier = WebPkiServerVerifier::builder(roots(&root).into()).build().unwrap();
    let name = ServerName::try_from("shop.example.com").unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).expect("trusted by who trusted the first start");
}

#[tokio::test]
async fn a_closed_account_stays_closed_over_a_restart() {
    let World { ca, zone, web, folder } = World::start().await;
    let world = World { ca, zone, web, folder };
    let (account, credentials) = world.account_and_credentials().await;
    let id = account.id().to_owned();
    account.deactivate().await.unwrap();
    let World { ca, zone, web, folder } = world;
    let state = folder.path().join("ca");
    ca.shutdown().await;
    let ca = DevCa::start(Config { state: Some(state), dns: zone.address, ..Config::default() }).await.unwrap();
    let world = World { ca, zone, web, folder };
    let key = credentials.private_key().clone_key();
    let account = world.builder().from_parts(id, key, world.ca.directory_url()).await.unwrap();
    assert_eq!(kind(&account.new_order(&NewOrder::new(&[dns("a.example.com")])).await.err().expect("closed")), "unauthorized");
}

#[cfg(unix)]
#[tokio::test]
async fn keys_are_for_the_owner_and_the_root_is_for_everyone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::start().await;
    world.account().await;
    for (file, mode) in
        [("root.pem", 0o644), ("root.key", 0o600), ("intermediate.pem", 0o644), ("intermediate.key", 0o600), ("accounts.json", 0o600)]
    {
        let metadata = std::fs::metadata(world.folder.path().join("ca").join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{file}");
    }
}

#[tokio::test]
async fn two_cas_do_not_share_a_folder() {
    let world = World::start().await;
    let state = world.folder.path().join("ca");
    let second = DevCa::start(config(&state, &world)).await;
    assert!(matches!(second, Err(Error::State(FileError::InUse { .. }))), "{second:?}");
    let again = config(&state, &world);
    world.ca.shutdown().await;
    DevCa::start(again).await.expect("free again");
}

#[tokio::test]
async fn a_damaged_folder_is_told_and_never_replaced() {
    let world = World::start().await;
    let state = world.folder.path().join("ca");
    let other = World::start().await;
    let again = || config(&state, &other);
    world.ca.shutdown().await;
    let root = std::fs::read(state.join("root.pem")).unwrap();

    let key = std::fs::read(state.join("intermediate.key")).unwrap();
    std::fs::remove_file(state.join("intermediate.key")).unwrap();
    match DevCa::start(again()).await {
        Err(Error::Authority(AuthorityError::Incomplete { path })) => assert!(path.ends_with("intermediate.key")),
        other => panic!("{other:?}"),
    }
    for damaged in [&b"not a key"[..], &std::fs::read(state.join("root.key")).unwrap()] {
        std::fs::write(state.join("intermediate.key"), damaged).unwrap();
        match DevCa::start(again()).await {
            Err(Error::Authority(AuthorityError::Corrupt { path, .. })) => assert!(path.ends_with("intermediate.pem")),
            other => panic!("{other:?}"),
        }
    }
    std::fs::write(state.join("intermediate.key"), key).unwrap();
    std::fs::write(state.join("accounts.json"), "{").unwrap();
    assert!(matches!(DevCa::start(again()).await, Err(Error::Accounts(_))));
    std::fs::remove_file(state.join("accounts.json")).unwrap();
    DevCa::start(again()).await.expect("whole again");
    assert_eq!(std::fs::read(state.join("root.pem")).unwrap(), root);
}

#[tokio::test]
async fn what_an_interrupted_first_start_left_behind_is_no_obstacle() {
    let world = World::start().await;
    let state = world.folder.path().join("half");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("root.key"), "half a k").unwrap();
    std::fs::write(state.join("intermediate.new"), "").unwrap();
    DevCa::start(config(&state, &world)).await.expect("nothing was handed out, so a new CA is made");
}

#[tokio::test]
async fn a_ca_without_a_folder_lives_in_memory() {
    support::install_provider();
    let ca = DevCa::start(Config::default()).await.unwrap();
    assert!(ca.root_path().is_none() && ca.control_url().is_none());
    let wire = Wire::new(ca.root_pem(), &ca.directory_url());
    assert_eq!(wire.get(&ca.directory_url()).await.status, 200);
    ca.shutdown().await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_command_says_where_it_is_and_ends_in_an_orderly_way_when_told() {
    let world = World::start().await;
    let state = world.folder.path().join("process");
    let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_dev-ca"))
        .args(["--state", state.to_str().unwrap(), "--dns", &world.zone.address.to_string()])
        .args(["--http-port", &world.web.address.port().to_string(), "--control", "127.0.0.1:0", "--lifetime", "3m"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.expect("ready in time").unwrap().unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap();
    let (directory, root) = (ready["directory"].as_str().unwrap(), ready["root"].as_str().unwrap());
    assert!(directory.starts_with("https://localhost:") && directory.ends_with("/directory"));

    world.host("shop.example.com");
    let account = instant_acme::NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let builder = instant_acme::Account::builder_with_root(root).unwrap();
    let (account, _) = builder.create(&account, directory.to_owned(), None).await.unwrap();
    world.web.answer_for(account.key_thumbprint());
    issue(&account, &["shop.example.com"]).await;
    let wire = Wire::new(&std::fs::read_to_string(root).unwrap(), directory);
    let counters = wire.get(&format!("{}/counters", ready["control"].as_str().unwrap())).await.json();
    assert_eq!(counters["finalized_orders"], 1);

    let told = tokio::process::Command::new("kill").args(["-TERM", &process.id().unwrap().to_string()]).status().await.unwrap();
    assert!(told.success());
    let ended = tokio::time::timeout(Duration::from_secs(20), process.wait()).await.expect("ends in time").unwrap();
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn the_command_says_in_one_line_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_dev-ca"))
        .args(["--state", file.to_str().unwrap(), "--dns", "127.0.0.1:53"])
        .output()
        .await
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(complaint.contains("a-file") && output.stdout.is_empty(), "{complaint}");
}
