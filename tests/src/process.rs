//! One child process: started with an environment of its own, read until it is ready, killed when dropped.

use std::{
    env,
    fs::{File, OpenOptions},
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdout, Command},
};

/// The number of the first file that a supervisor hands over. Source: sd_listen_fds(3).
const FIRST_HANDED: i32 = 3;

/// How long a process may take to say that it is ready.
const READY: Duration = Duration::from_secs(60);

/// Where a binary of this workspace is: in the folder above the test's own executable.
///
/// # Panics
/// When it was not built; nothing here builds it, because a test that builds waits for the one that runs it.
pub fn binary(name: &str) -> PathBuf {
    let own = env::current_exe().expect("the test's own executable");
    let folder = own.ancestors().nth(2).expect("the test runs from target/<profile>/deps");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: the system tests run the binaries of this workspace; `scripts/test` builds them all first",
        path.display()
    );
    path
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Kept open, so that a child that prints is not ended by it.
    _stdout: Option<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Process {
    /// Starts a program in `folder`; what it says on standard error is appended to `<name>.log` there.
    pub fn start(binary: &Path, arguments: &[&str], environment: &[(String, String)], folder: &Path) -> Self {
        Self::start_with_sockets(binary, arguments, environment, folder, Vec::new())
    }

    /// The same, with sockets handed over under names, as a supervisor does (sd_listen_fds(3)).
    pub fn start_with_sockets(
        binary: &Path,
        arguments: &[&str],
        environment: &[(String, String)],
        folder: &Path,
        sockets: Vec<(&str, OwnedFd)>,
    ) -> Self {
        let name = binary.file_name().unwrap().to_string_lossy();
        let log = folder.join(format!("{name}.log"));
        let mut file: File = OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        writeln!(file, "---- {name} {}", arguments.join(" ")).expect("a log line");
        let mut command = Command::new(binary);
        // Nothing of the tester's own settings may reach the product.
        for (key, _) in env::vars_os() {
            if key.to_str().is_some_and(|key| ["NAMEPLATE_", "EDGE_", "AWS_"].iter().any(|ours| key.starts_with(ours))) {
                command.env_remove(key);
            }
        }
        command.args(arguments).envs(environment.iter().map(|(key, value)| (key, value))).current_dir(folder).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
        if !sockets.is_empty() {
            let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
            let mappings = sockets.into_iter().zip(FIRST_HANDED..).map(|((_, parent_fd), child_fd)| FdMapping { parent_fd, child_fd });
            command.fd_mappings(mappings.collect()).expect("no number is given twice");
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", binary.display()));
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, _stdout: stdout, log }
    }

    /// Reads the line of JSON with which it says that it is ready. `None` when it ended instead.
    pub async fn ready(&mut self) -> Option<Value> {
        let mut line = String::new();
        let stdout = self._stdout.as_mut().expect("standard output is read once it is started");
        let read = tokio::time::timeout(READY, stdout.read_line(&mut line)).await;
        let read = read.unwrap_or_else(|_| panic!("not ready within {READY:?}; its log is {}", self.log.display()));
        match read.expect("standard output reads") {
            0 => None,
            _ => Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("`{line}` is not the ready line: {error}"))),
        }
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Asks it to leave, or to read its files again: a signal by its name, as `kill` takes it.
    pub async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args([&format!("-{signal}"), &id]).status().await.expect("kill starts");
        assert!(sent.success(), "process {id} took no {signal}");
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("its status can be asked").is_none()
    }

    /// Waits until it has ended by itself; `false` when it has not within the time.
    pub async fn ended(&mut self, within: Duration) -> bool {
        tokio::time::timeout(within, self.child.wait()).await.is_ok()
    }

    /// The memory it has for itself, in KiB: what is not shared and not a file's.
    pub fn memory_kib(&self) -> u64 {
        let id = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells a process's status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

/// A folder for one test; it goes with the test, and stays when the test fails.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// Makes one.
    #[allow(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("nameplate-test-").tempdir().expect("a temporary folder"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("logs and data are kept in {}", self.0.path().display());
        }
    }
}
