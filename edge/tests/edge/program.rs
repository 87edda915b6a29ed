//! The program itself: its environment, its exit codes, its signals.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
};

use command_fds::{CommandFdExt, FdMapping};

use crate::{bucket::Bucket, origin::Origin, setup::eventually};

/// The number of the first file that a supervisor hands over. Source: sd_listen_fds(3).
const FIRST_HANDED: i32 = 3;

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

#[test]
fn a_socket_that_is_none_of_ours_is_told_and_ends_with_64() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    for (name, told) in
        [("htps", "handed over as `htps`, which is none of https, http or private"), ("", "handed over as ``, which is none")]
    {
        let ended = handed(edge(), &socket, name).output().unwrap();
        assert_eq!(ended.status.code(), Some(64));
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains(told), "{said}");
    }
}

/// Hands a socket over, as a supervisor does.
fn handed(mut command: Command, socket: &TcpListener, name: &str) -> Command {
    let parent_fd = socket.try_clone().unwrap().into();
    command.fd_mappings(vec![FdMapping { parent_fd, child_fd: FIRST_HANDED }]).unwrap();
    command.env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", name);
    command
}

/// The program, with an environment that serves a bucket.
pub(crate) struct Process {
    pub(crate) https: SocketAddr,
    pub(crate) private: SocketAddr,
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
        let process = Self::spawned(command, cache, keys);
        eventually("it serves", async || crate::client::connect(process.https, "shop.brand.com").await.is_ok()).await;
        process
    }

    /// Starts it on a socket that stays, with an empty disk, and waits until it says that it is ready.
    pub(crate) async fn start_on(socket: &TcpListener, bucket: &Bucket, origin: &Origin, env: &[(&str, &str)]) -> Self {
        let (cache, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut command = handed(serving(bucket, origin, cache.path(), &keys.path().join("seal.json")), socket, "https");
        command.envs(env.iter().copied());
        let process = Self::spawned(command, cache, keys);
        eventually("it is ready", async || process.readiness().await.starts_with("HTTP/1.1 200 ")).await;
        process
    }

    fn spawned(mut command: Command, cache: tempfile::TempDir, keys: tempfile::TempDir) -> Self {
        let mut running = Running(command.spawn().unwrap());
        let [https, private] = told_addresses(&mut running);
        Self { https, private, running, _cache: cache, _keys: keys }
    }

    /// What its private port says of it.
    pub(crate) async fn readiness(&self) -> String {
        crate::client::plain(self.private, "GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await
    }

    /// Tells it to leave.
    pub(crate) fn terminate(&self) {
        let told = Command::new("kill").arg("-TERM").arg(self.pid().to_string()).status().unwrap();
        assert!(told.success());
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        tokio::task::spawn_blocking(move || self.running.0.wait().unwrap()).await.unwrap()
    }

    fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// Its resident memory.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap()
    }

    /// The highest number of a descriptor that it opened under a limit; what it was born with may lie above.
    pub(crate) fn highest_descriptor(&self, limit: u64) -> u64 {
        let taken = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().map(|entry| entry.unwrap().file_name());
        taken.map(|name| name.to_str().unwrap().parse().unwrap()).filter(|number| *number < limit).max().unwrap()
    }

    /// Changes how many descriptors it may have while it runs.
    pub(crate) fn limit_descriptors(&self, limit: u64) {
        let changed = Command::new("prlimit").arg(format!("--pid={}", self.pid())).arg(format!("--nofile={limit}:")).status();
        assert!(changed.unwrap().success());
    }
}

/// Where it says that it listens: for TLS, and for its operator.
fn told_addresses(running: &mut Running) -> [SocketAddr; 2] {
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let started = lines.by_ref().map(Result::unwrap).find(|line| line.contains("edge started")).unwrap();
    let started: serde_json::Value = serde_json::from_str(&started).unwrap();
    // Read on, so that the program never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    ["https", "private"].map(|port| started[port].as_str().unwrap().parse().unwrap())
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
    let [https, _] = told_addresses(&mut running);
    eventually("it serves", async || crate::client::served(https, hostname).await.is_ok()).await;

    let told = Command::new("kill").arg("-TERM").arg(running.0.id().to_string()).status().unwrap();
    assert!(told.success());
    let code = tokio::task::spawn_blocking(move || running.0.wait().unwrap().code()).await.unwrap();
    assert_eq!(code, Some(0));
}
