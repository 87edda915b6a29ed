//! What names and idle connections cost the edge in memory, and how soon it is ready with very many of them.
//!
//! Arrives: a site with its names, each with a key and certificate of its own. Leaves: a few lines. Goes wrong: an edge that is not ready
//! in time, or refuses a name it has.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    Failure,
    load::{Load, Operation},
    origin,
    site::{NAME, Site},
};

/// How long the edge may take to be ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// Names that are connected to, each once.
const VISITED: usize = 20_000;
/// Connections held open, after one request each.
const IDLE: usize = 5_000;
/// Handshakes at once.
const AT_ONCE: usize = 16;

struct Edge {
    child: Child,
    https: SocketAddr,
    ready: Duration,
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Measures, and says what was found.
pub(crate) async fn measure(program: &Path, site: &Site, names: usize, origin: SocketAddr) -> Result<String, Failure> {
    raise_open_files();
    let cold = Edge::start(program, site, origin)?;
    let (ready, at_first) = (cold.ready, cold.resident_kib()?);
    let load = Load::new(site, cold.https, Operation::Handshake);
    let visited = VISITED.min(names);
    let visits = (0..visited).map(|number| {
        // Spread over the whole index, and over its shards by their hash.
        let name = Site::name(number * (names / visited));
        let client = load.client();
        async move { client.connect(&name).await.map(drop) }
    });
    stream::iter(visits).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
    let after_visits = cold.resident_kib()?;
    drop(cold);

    let warm = Edge::start(program, site, origin)?;
    let load = Load::new(site, warm.https, Operation::Http1);
    let (before, mut open) = (warm.resident_kib()?, Vec::new());
    for _ in 0..IDLE {
        let client = load.client();
        let mut stream = client.connect(NAME).await?;
        client.get(&mut stream, "/small", origin::SMALL, &mut Vec::new()).await?;
        open.push(stream);
    }
    let held = warm.resident_kib()?.saturating_sub(before);
    drop(open);
    let mib = |kib: u64| kib as f64 / 1024.0;
    Ok(format!(
        "| {names} names | |\n|---|---:|\n| ready, with nothing on its disk | {:.2} s |\n| ready again after it was killed | {:.2} s |\n\
         | resident once ready | {:.1} MiB |\n| resident after {visited} distinct handshakes | {:.1} MiB |\n\
         | each of {IDLE} idle TLS connections | {:.1} KiB |",
        ready.as_secs_f64(),
        warm.ready.as_secs_f64(),
        mib(at_first),
        mib(after_visits),
        held as f64 / IDLE as f64
    ))
}

impl Edge {
    /// Starts the edge with its defaults on all cores, and waits until `/readyz` says 200.
    fn start(program: &Path, site: &Site, origin: SocketAddr) -> Result<Self, Failure> {
        let [https, private] = [free()?, free()?];
        let mut command = Command::new(std::path::absolute(program)?);
        command.env("EDGE_HTTPS_LISTEN", https.to_string()).env("EDGE_HTTP_LISTEN", "127.0.0.1:0");
        command.env("EDGE_PRIVATE_LISTEN", private.to_string()).env("EDGE_ORIGIN", origin.to_string());
        command.env("EDGE_CACHE_DIR", site.path("cache")).env("EDGE_SOURCE_FOLDER", site.path("bucket"));
        command.env("EDGE_SEAL_KEYS", site.path("seal.json")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        let mut edge = Self { child: command.spawn()?, https, ready: Duration::ZERO };
        while !is_ready(private) {
            if began.elapsed() > PATIENCE || edge.child.try_wait()?.is_some() {
                return Err("the edge is not ready".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        edge.ready = began.elapsed();
        Ok(edge)
    }

    fn resident_kib(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        resident.ok_or_else(|| "the edge's memory cannot be read".into())
    }
}

fn is_ready(private: SocketAddr) -> bool {
    let ask = || {
        let mut tcp = TcpStream::connect(private)?;
        tcp.set_read_timeout(Some(Duration::from_secs(1)))?;
        tcp.write_all(b"GET /readyz HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        tcp.read_exact(&mut answer).map(|()| answer)
    };
    ask().is_ok_and(|answer: [u8; 12]| answer.ends_with(b" 200"))
}

fn free() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// As many open files as the system allows; each held connection needs one here.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Where that fails, connecting will say so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
