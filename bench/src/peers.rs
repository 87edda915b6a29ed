//! The servers: each with one worker on the server's core, the same certificate, the same origin, keep-alive to it, and no request log.

use std::{
    ffi::OsString,
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    Failure,
    load::{Load, Operation},
    site::{NAME, Site},
};

/// How long a server may take to serve its first request.
const START: Duration = Duration::from_secs(30);

/// A server that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Edge,
    /// Another build of the edge, where one is named: what a change brought shows best within one run.
    Before,
    Nginx,
    /// The newest of Debian, with an OpenSSL that knows X25519MLKEM768; it brings its own libraries.
    NginxSid,
    Haproxy,
    H2o,
    Caddy,
}

/// A server that runs; ended when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Politely first, so that a server with children ends them.
        let _ = rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the edge as it is shipped, and says where it is.
pub(crate) fn build_edge() -> Result<PathBuf, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo).args(["build", "--release", "--locked", "-p", "edge"]).status()?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    if built.success() { Ok(target.join("release/edge")) } else { Err("the edge could not be built".into()) }
}

impl Peer {
    pub(crate) const ALL: [Self; 7] = [Self::Edge, Self::Before, Self::Nginx, Self::NginxSid, Self::Haproxy, Self::H2o, Self::Caddy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Before => "before",
            Self::Nginx => "nginx",
            Self::NginxSid => "nginx-sid",
            Self::Haproxy => "haproxy",
            Self::H2o => "h2o",
            Self::Caddy => "caddy",
        }
    }

    fn is_edge(self) -> bool {
        matches!(self, Self::Edge | Self::Before)
    }

    /// Where `scripts/install-peers` puts it, or where the system has it.
    fn program(self) -> Result<PathBuf, Failure> {
        let unpacked = match self {
            Self::Edge | Self::Before => return Err("it is no peer".into()),
            Self::Nginx => "nginx/usr/sbin/nginx",
            Self::NginxSid => "nginx-sid/usr/sbin/nginx",
            Self::Haproxy => "haproxy/usr/sbin/haproxy",
            Self::H2o => "h2o/usr/bin/h2o",
            Self::Caddy => "caddy/usr/bin/caddy",
        };
        let unpacked = Path::new("target/tools/peers").join(unpacked);
        if unpacked.exists() {
            return Ok(std::path::absolute(unpacked)?);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join(self.name())).find(|program| program.exists());
        found.ok_or_else(|| "not here; run scripts/install-peers".into())
    }

    /// Starts it on a port of its own, and waits until it serves.
    pub(crate) async fn start(self, edge: &Path, site: &Site, origin: SocketAddr, core: usize) -> Result<Running, Failure> {
        let free_port = || Ok::<_, Failure>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let (port, private_port) = (free_port()?, free_port()?);
        let program = if self.is_edge() { std::path::absolute(edge)? } else { self.program()? };
        let log = File::create(site.path(&format!("{}.log", self.name())))?;
        let mut command = Command::new("taskset");
        command
            .arg("-c")
            .arg(core.to_string())
            .args(self.loader(&program))
            .arg(&program)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.configure(&mut command, site, origin, port, private_port)?;
        let child = command.spawn().map_err(|error| format!("taskset (util-linux) cannot start it: {error}"))?;
        let version = self.version(&program);
        let mut running = Running { name: self.name(), version, address: SocketAddr::from(([127, 0, 0, 1], port)), child };
        let (began, mut load) = (Instant::now(), Load::new(site, running.address, Operation::Handshake));
        loop {
            let served = load.run(Duration::from_millis(1)).await;
            let Err(error) = served.and_then(|_| if self.is_edge() { has_all_names(private_port) } else { Ok(()) }) else {
                return Ok(running);
            };
            let ended = running.child.try_wait()?;
            if ended.is_some() || began.elapsed() > START {
                let said = std::fs::read_to_string(site.path(&format!("{}.log", self.name()))).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(5).collect();
                return Err(format!("it does not serve ({error}); its last words: {}", last.join(" / ")).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What starts a program with the C library unpacked beside it, where it is too new for this system's.
    fn loader(self, program: &Path) -> Vec<OsString> {
        if self != Self::NginxSid {
            return Vec::new();
        }
        let beside = program.ancestors().nth(3).map(library_folders).unwrap_or_default();
        let names = ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
        let loader = beside.iter().flat_map(|folder| names.map(|name| folder.join(name))).find(|loader| loader.exists());
        let paths = std::env::join_paths(&beside).unwrap_or_default();
        loader.map_or_else(Vec::new, |loader| vec![loader.into(), "--library-path".into(), paths])
    }

    fn version(self, program: &Path) -> String {
        let flag = match self {
            Self::Edge => return format!("{} (this tree)", env!("CARGO_PKG_VERSION")),
            Self::Before => return program.display().to_string(),
            Self::Caddy => "version",
            _ => "-v",
        };
        let loaded: Vec<OsString> = self.loader(program).into_iter().chain([program.as_os_str().to_owned()]).collect();
        let mut command = Command::new(&loaded[0]);
        command.args(&loaded[1..]);
        if self != Self::NginxSid {
            libraries(&mut command, program);
        }
        let said = command.arg(flag).output().map(|said| [said.stdout, said.stderr].concat()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let number = |word: &&str| word.trim_start_matches(['v', 'n', 'g', 'i', 'x', '/']).starts_with(|c: char| c.is_ascii_digit());
        said.split_whitespace().find(number).unwrap_or("?").trim_start_matches("nginx/").trim_end_matches(',').to_owned()
    }

    fn configure(self, command: &mut Command, site: &Site, origin: SocketAddr, port: u16, private_port: u16) -> Result<(), Failure> {
        let path = |file: &str| site.path(file).display().to_string();
        match self {
            Self::Edge | Self::Before => {
                // The defaults, all of them: no limit is lifted.
                command
                    .env("EDGE_HTTPS_LISTEN", format!("127.0.0.1:{port}"))
                    .env("EDGE_HTTP_LISTEN", "127.0.0.1:0")
                    .env("EDGE_PRIVATE_LISTEN", format!("127.0.0.1:{private_port}"))
                    .env("EDGE_ORIGIN", origin.to_string())
                    .env("EDGE_CACHE_DIR", site.path(if self == Self::Edge { "cache" } else { "cache-before" }))
                    .env("EDGE_SOURCE_FOLDER", site.path("bucket"))
                    .env("EDGE_SEAL_KEYS", site.path("seal.json"));
            }
            Self::Nginx | Self::NginxSid => {
                // The word after `listen` is not liked any more, and its successor not yet known, by one of the two.
                let (word, line) = if self == Self::Nginx { (" http2", "") } else { ("", "http2 on; ") };
                let (config_file, log, pid) =
                    (format!("{}.conf", self.name()), format!("{}.log", self.name()), format!("{}.pid", self.name()));
                let config = format!(
                    "{user}worker_processes 1; daemon off; pid {pid}; error_log {log} error; events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp}; uwsgi_temp_path {tmp}; scgi_temp_path {tmp};
tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 60s; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on;
upstream origin {{ server {origin}; keepalive 128; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} ssl{word} default_server backlog=4096; {line}ssl_reject_handshake on; }}
server {{ listen 127.0.0.1:{port} ssl{word}; {line}server_name {NAME}; ssl_certificate {chain}; ssl_certificate_key {key};
location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https; }} }} }}
",
                    user = as_root("user root; "),
                    pid = path(&pid), log = path(&log), tmp = path("tmp"), chain = path("chain.pem"), key = path("key.pem"),
                );
                site.write(&config_file, config.as_bytes())?;
                command.args(["-p", &path("tmp"), "-c", &path(&config_file), "-e", &path(&log)]);
            }
            Self::Haproxy => {
                let config = format!(
                    "global
 nbthread 1
 maxconn 4096
 tune.ssl.default-dh-param 2048
defaults
 mode http
 option forwardfor
 http-reuse always
 timeout client 60s
 timeout server 60s
 timeout connect 5s
 timeout http-keep-alive 60s
frontend tls
 bind 127.0.0.1:{port} ssl crt {both} strict-sni alpn h2,http/1.1
 http-request set-header X-Forwarded-Proto https
 default_backend origin
backend origin
 server origin {origin}
",
                    both = path("both.pem"),
                );
                site.write("haproxy.cfg", config.as_bytes())?;
                libraries(command, &self.program()?);
                command.args(["-db", "-f", &path("haproxy.cfg")]);
            }
            Self::H2o => {
                let config = format!(
                    "{user}num-threads: 1
pid-file: {pid}
listen:
  host: 127.0.0.1
  port: {port}
  ssl: {{ certificate-file: {chain}, key-file: {key} }}
proxy.timeout.keepalive: 60000
proxy.preserve-host: ON
hosts:
  \"{NAME}:{port}\":
    paths:
      /:
        proxy.reverse.url: \"http://{origin}/\"
",
                    user = as_root("user: root\n"),
                    pid = path("h2o.pid"),
                    chain = path("chain.pem"),
                    key = path("key.pem"),
                );
                site.write("h2o.conf", config.as_bytes())?;
                command.args(["-c", &path("h2o.conf")]);
            }
            Self::Caddy => {
                let config = format!(
                    "{{
 admin off
 auto_https off
 servers {{
  protocols h1 h2
 }}
 log {{
  level ERROR
 }}
}}
https://{NAME}:{port} {{
 bind 127.0.0.1
 tls {chain} {key}
 reverse_proxy {origin}
}}
",
                    chain = path("chain.pem"),
                    key = path("key.pem"),
                );
                site.write("Caddyfile", config.as_bytes())?;
                command.env("GOMAXPROCS", "1").env("HOME", site.path("tmp"));
                command.args(["run", "--adapter", "caddyfile", "--config", &path("Caddyfile")]);
            }
        }
        Ok(())
    }
}

/// Whether the edge has every name's bundle on its disk: fetching them is work of its start, and no request's.
fn has_all_names(private_port: u16) -> Result<(), Failure> {
    let mut private = TcpStream::connect(("127.0.0.1", private_port))?;
    private.set_read_timeout(Some(Duration::from_secs(1)))?;
    private.write_all(b"GET /metrics HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")?;
    let mut metrics = String::new();
    private.read_to_string(&mut metrics)?;
    metrics.contains("\nnameplate_edge_bundles_cold 0\n").then_some(()).ok_or_else(|| "it fetches names still".into())
}

/// What a server must be told to stay root, where we are: it would become somebody who cannot read our files.
fn as_root(line: &str) -> &str {
    if rustix::process::geteuid().is_root() { line } else { "" }
}

/// Lets an unpacked program find the libraries unpacked beside it.
fn libraries(command: &mut Command, program: &Path) {
    if let Some(root) = program.ancestors().find(|folder| folder.join("usr").is_dir() && folder.components().count() > 2)
        && let Ok(paths) = std::env::join_paths(library_folders(root))
    {
        command.env("LD_LIBRARY_PATH", paths);
    }
}

fn library_folders(root: &Path) -> Vec<PathBuf> {
    ["x86_64-linux-gnu", "aarch64-linux-gnu"].iter().map(|arch| root.join("usr/lib").join(arch)).collect()
}
