//! The program itself: its environment, its exit codes, its signals.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{bucket::Bucket, origin::Origin, setup::eventually};

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

/// The program, with an environment that serves a bucket.
pub(crate) struct Process {
    pub(crate) https: SocketAddr,
    running: Running,
    _cache: tempfile::TempDir,
    _keys: tempfile::TempDir,
}

fn serving(bucket: &Bucket, origin: &Origin, cache: &Path, key_file: &Path) -> Command {
    fs::write(key_file, bucket.seal_key_json()).unwrap();
    fs::set_permissions(key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = edge();
    command
        .env("EDGE_HTTPS_LISTEN", "127.0.0.1:0")
        .env("EDGE_HTTP_LISTEN", "127.0.0.1:0")
        .env("EDGE_PRIVATE_LISTEN", "127.0.0.1:0")
        .env("EDGE_ORIGIN", origin.address.to_string())
        .env("EDGE_CACHE_DIR", cache)
        .env("EDGE_SOURCE_FOLDER", bucket.path())
        .env("EDGE_SEAL_KEYS", key_file)
        .env("EDGE_DRAIN_TIMEOUT", "200ms")
        .env("EDGE_DRAIN_GRACE", "100ms")
        .env("EDGE_LOG_FORMAT", "json");
    command
}

impl Process {
    /// Starts it, with so many file descriptors where that is said, and waits until it serves.
    pub(crate) async fn start(bucket: &Bucket, origin: &Origin, env: &[(&str, &str)], descriptors: Option<u64>) -> Self {
        let (cache, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut command = serving(bucket, origin, cache.path(), &keys.path().join("seal.json"));
        command.envs(env.iter().copied());
        if let Some(descriptors) = descriptors {
            let limited = format!("ulimit -n {descriptors}; exec \"$0\"");
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(limited).arg(command.get_program()).env_clear();
            shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command = shell;
        }
        let mut running = Running(command.spawn().unwrap());
        let https = told_https(&mut running);
        eventually("it serves", async || crate::client::connect(https, "shop.brand.com").await.is_ok()).await;
        Self { https, running, _cache: cache, _keys: keys }
    }

    fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// Its resident memory.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap()
    }

    /// The number that its next descriptor would have.
    pub(crate) fn lowest_free_descriptor(&self) -> u64 {
        let taken = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().map(|entry| entry.unwrap().file_name());
        let taken: BTreeSet<u64> = taken.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
        (0..).find(|number| !taken.contains(number)).unwrap()
    }

    /// Changes how many descriptors it may have while it runs.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let changed = Command::new("prlimit").arg(format!("--pid={}", self.pid())).arg(format!("--nofile={limit}:")).status();
        assert!(changed.unwrap().success());
    }
}

/// Where it says that it listens.
fn told_https(running: &mut Running) -> SocketAddr {
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let started = lines.by_ref().map(Result::unwrap).find(|line| line.contains("edge started")).unwrap();
    let started: serde_json::Value = serde_json::from_str(&started).unwrap();
    // Read on, so that the program never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    started["https"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_program_serves_from_its_environment_and_leaves_on_sigterm() {
    let (bucket, origin) = (Bucket::new(), Origin::start().await);
    let hostname = "shop.brand.com";
    bucket.put(hostname, "acme", 1);
    let (cache, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key_file = keys.path().join("seal.json");
    let mut command = serving(&bucket, &origin, cache.path(), &key_file);

    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("open to others"));

    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut running = Running(command.spawn().unwrap());
    let https = told_https(&mut running);
    eventually("it serves", async || crate::client::served(https, hostname).await.is_ok()).await;

    let told = Command::new("kill").arg("-TERM").arg(running.0.id().to_string()).status().unwrap();
    assert!(told.success());
    let code = tokio::task::spawn_blocking(move || running.0.wait().unwrap().code()).await.unwrap();
    assert_eq!(code, Some(0));
}
