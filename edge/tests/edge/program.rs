//! The program itself: its environment, its exit codes, its signals.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use crate::{
    bucket::Bucket,
    setup::{Setup, eventually},
};

fn edge() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Ended when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_wrong_environment_is_told_whole_and_ends_with_64() {
    let ended = edge().env("EDGE_HTTPS_LISTEN", "nowhere").env("EDGE_ORIGIN", "127.0.0.1:1").output().unwrap();
    assert_eq!(ended.status.code(), Some(64));
    let said = String::from_utf8(ended.stderr).unwrap();
    for name in ["EDGE_HTTPS_LISTEN", "EDGE_CACHE_DIR", "EDGE_SOURCE_FOLDER", "EDGE_SEAL_KEYS"] {
        assert!(said.contains(name), "{name}: {said}");
    }
}

#[tokio::test]
async fn the_program_serves_from_its_environment_and_leaves_on_sigterm() {
    let setup = Setup::with(&[]).await;
    let bucket = Bucket::new();
    let hostname = "shop.brand.com";
    bucket.put(hostname, "acme", 1);
    let (cache, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key_file = keys.path().join("seal.json");
    fs::write(&key_file, bucket.seal_key_json()).unwrap();
    let mut command = edge();
    command
        .env("EDGE_HTTPS_LISTEN", "127.0.0.1:0")
        .env("EDGE_HTTP_LISTEN", "127.0.0.1:0")
        .env("EDGE_PRIVATE_LISTEN", "127.0.0.1:0")
        .env("EDGE_ORIGIN", setup.origin.address.to_string())
        .env("EDGE_CACHE_DIR", cache.path())
        .env("EDGE_SOURCE_FOLDER", bucket.path())
        .env("EDGE_SEAL_KEYS", &key_file)
        .env("EDGE_DRAIN_TIMEOUT", "200ms")
        .env("EDGE_DRAIN_GRACE", "100ms")
        .env("EDGE_LOG_FORMAT", "json");

    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("open to others"));

    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut running = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let started = lines.by_ref().map(Result::unwrap).find(|line| line.contains("edge started")).unwrap();
    let started: serde_json::Value = serde_json::from_str(&started).unwrap();
    let https = started["https"].as_str().unwrap().parse().unwrap();
    // Read on, so that the program never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    eventually("it serves", async || crate::client::served(https, hostname).await.is_ok()).await;

    let told = Command::new("kill").arg("-TERM").arg(running.0.id().to_string()).status().unwrap();
    assert!(told.success());
    let code = tokio::task::spawn_blocking(move || running.0.wait().unwrap().code()).await.unwrap();
    assert_eq!(code, Some(0));
}
