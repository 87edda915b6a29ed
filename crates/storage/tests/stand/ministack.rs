//! ministack, a stand-in for AWS, as a process of its own on loopback.

use std::{
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long it may take to listen.
const START: Duration = Duration::from_secs(60);

/// A running stand-in; ends when dropped, and when this process ends however it ends.
pub(crate) struct Ministack {
    pub(crate) endpoint: String,
    child: Child,
}

/// Ends its command when nobody holds the other end of its standard input any more.
const LEASH: &str = r#""$@" </dev/null & child=$!; read -r _; kill "$child" 2>/dev/null; wait "$child""#;

impl Ministack {
    /// Installs it if it is not there, and starts it.
    ///
    /// # Panics
    /// When it cannot be installed or does not start: a suite that did not run must not look like one that passed.
    pub(crate) fn start(log: &Path) -> Self {
        let root = workspace();
        let installed = Command::new(root.join("scripts/install-ministack")).output().expect("scripts/install-ministack is run");
        assert!(
            installed.status.success(),
            "ministack cannot be installed, so the AWS home was not tested: {}",
            String::from_utf8_lossy(&installed.stderr)
        );
        let python = root.join("target/tools/ministack/bin/python");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("sh");
        command.args(["-c", LEASH, "sh"]).arg(python).args(["-m", "ministack"]);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TMPDIR", log.parent().unwrap());
        for (name, value) in [
            ("BIND_HOST", "127.0.0.1"),
            ("GATEWAY_PORT", &port.to_string()),
            ("IOT_MTLS_ENABLED", "0"),
            ("SFTP_ENABLED", "0"),
            ("LOG_LEVEL", "WARNING"),
        ] {
            command.env(name, value);
        }
        let log_file = std::fs::File::create(log).unwrap();
        command.stdin(Stdio::piped()).stdout(log_file.try_clone().unwrap()).stderr(log_file);
        let mut started = Self { endpoint: format!("http://127.0.0.1:{port}"), child: command.spawn().expect("ministack is started") };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = started.child.try_wait().unwrap();
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(ended.is_none(), "ministack ended while it started: {}", said());
            assert!(began.elapsed() < START, "ministack does not listen after {START:?}: {}", said());
            std::thread::sleep(Duration::from_millis(50));
        }
        started
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

fn workspace() -> PathBuf {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    above.map(Path::to_owned).find(|folder| folder.join("scripts/install-ministack").is_file()).expect("the workspace's scripts")
}
