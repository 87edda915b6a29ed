//! What the product does not own: DNS and CA as processes of their own, and an edge without the rest of the product.

use std::{net::SocketAddr, path::Path};

use http::Method;
use serde_json::{Value, json};

use crate::{
    client,
    pebble::{Demands, Pebble},
    ports,
    process::{Process, binary},
};

/// The operator's zone, as the product has it by default.
const ZONE: &str = "edge.nameplate.test";

/// `dev-dns` and a CA, which stay while the product is killed.
#[derive(Debug)]
pub struct Peers {
    /// Where DNS is asked.
    pub dns: String,
    /// Where DNS is edited.
    pub dns_admin: String,
    /// The counters of `dev-ca`.
    pub ca_control: Option<String>,
    /// The CA, when it is Pebble.
    pub pebble: Option<Pebble>,
    settings: Vec<(String, String)>,
    _dns: Process,
    ca: Option<Process>,
}

impl Peers {
    /// Starts DNS and `dev-ca`, for a product whose edge will answer challenges at a port chosen here.
    pub async fn start(folder: &Path) -> Self {
        let mut peers = Self::dns_alone(folder).await;
        let state = folder.join("peers-ca").display().to_string();
        let (dns, port) = (peers.setting("NAMEPLATE_DNS_SERVER"), peers.http_port().to_string());
        let arguments = ["--state", &state, "--dns", &dns, "--http-port", &port, "--control", "127.0.0.1:0"];
        let (ca, ready) = started("dev-ca", &arguments, folder).await;
        peers.use_ca(text(&ready, "directory"), text(&ready, "root"));
        Self { ca_control: Some(text(&ready, "control")), ca: Some(ca), ..peers }
    }

    /// The same with Pebble as the CA.
    pub async fn start_with_pebble(folder: &Path, demands: &Demands) -> Self {
        let mut peers = Self::dns_alone(folder).await;
        let dns = peers.setting("NAMEPLATE_DNS_SERVER").parse().expect("the DNS server's address");
        let pebble = Pebble::start(folder, dns, peers.http_port(), demands).await;
        peers.use_ca(pebble.directory.clone(), pebble.roots.display().to_string());
        Self { pebble: Some(pebble), ..peers }
    }

    async fn dns_alone(folder: &Path) -> Self {
        let (http, answers) = (ports::free(), ports::free());
        let forward = format!("acme.{ZONE}={answers}");
        let dns_file = folder.join("peers-dns.json").display().to_string();
        let arguments = ["--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--file", &dns_file, "--apex", ZONE, "--forward", &forward];
        let (dns, ready) = started("dev-dns", &arguments, folder).await;
        let dns_admin = text(&ready, "admin");
        edit_dns(&dns_admin, &[json!({ "name": format!("*.t.{ZONE}"), "type": "A", "data": ["127.0.0.1"] })]).await;
        let settings = vec![
            ("NAMEPLATE_LISTEN_HTTP".to_owned(), http.to_string()),
            ("NAMEPLATE_LISTEN_ANSWERS".to_owned(), answers.to_string()),
            ("NAMEPLATE_DNS_SERVER".to_owned(), text(&ready, "dns")),
            // A CA of our own, unless a test holds it to limits.
            ("NAMEPLATE_ACME_LIMITS".to_owned(), "none".to_owned()),
        ];
        Self { dns: text(&ready, "dns"), dns_admin, ca_control: None, pebble: None, settings, _dns: dns, ca: None }
    }

    fn use_ca(&mut self, directory: String, root: String) {
        self.settings.push(("NAMEPLATE_ACME_DIRECTORY".to_owned(), directory));
        self.settings.push(("NAMEPLATE_ACME_ROOT".to_owned(), root));
    }

    /// What a product is told by the name of its variable.
    pub fn setting(&self, key: &str) -> String {
        self.settings.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone()).expect("a setting made at the start")
    }

    fn http_port(&self) -> u16 {
        self.setting("NAMEPLATE_LISTEN_HTTP").parse::<SocketAddr>().expect("an address").port()
    }

    /// Another Pebble beside the CA, which asks the same DNS and fetches from the same edge.
    pub async fn second_pebble(&self, folder: &Path, demands: &Demands) -> Pebble {
        Pebble::start(folder, self.dns.parse().expect("the DNS server's address"), self.http_port(), demands).await
    }

    /// Ends `dev-ca` as `kill -9` does.
    pub async fn kill_ca(&mut self) {
        self.ca.take().expect("it was started with dev-ca").kill().await;
    }

    /// What a product must be told to use them.
    pub fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }
}

async fn started(name: &str, arguments: &[&str], folder: &Path) -> (Process, Value) {
    let mut process = Process::start(&binary(name), arguments, &[], folder);
    let ready = process.ready().await;
    let ready = ready.unwrap_or_else(|| panic!("{name} ended before it was ready; its log is {}", process.log().display()));
    (process, ready)
}

fn text(ready: &Value, key: &str) -> String {
    ready[key].as_str().unwrap_or_else(|| panic!("{ready} has no {key}")).to_owned()
}

/// Sets records, all or none.
pub async fn edit_dns(admin: &str, records: &[Value]) {
    // Below the editor's bound on one body.
    for part in records.chunks(2_000) {
        client::ask(Method::PUT, &format!("{admin}/records"), None, Some(&json!(part))).await.expect("the DNS editor answers").granted();
    }
}

/// A standalone edge on loopback.
#[derive(Debug)]
pub struct LoneEdge {
    /// Where TLS arrives.
    pub https: SocketAddr,
    /// Where health and metrics are.
    pub private: SocketAddr,
    process: Process,
}

impl LoneEdge {
    /// Starts one with a folder as its source, a cache and seal keys; it answers health, but may not be ready yet.
    pub async fn start(folder: &Path, source: &Path, cache: &Path, seal_key: &Path, origin: SocketAddr) -> Self {
        let source = [("EDGE_SOURCE_FOLDER".to_owned(), source.display().to_string())];
        Self::start_reading(folder, &source, cache, seal_key, origin, ports::free()).await
    }

    /// The same with the variables that name its source, and the address at which it answers challenges.
    pub async fn start_reading(
        folder: &Path,
        source: &[(String, String)],
        cache: &Path,
        seal_key: &Path,
        origin: SocketAddr,
        http: SocketAddr,
    ) -> Self {
        let (https, private) = (ports::free(), ports::free());
        let set = |key: &str, value: String| (key.to_owned(), value);
        let environment = [
            set("EDGE_HTTPS_LISTEN", https.to_string()),
            set("EDGE_HTTP_LISTEN", http.to_string()),
            set("EDGE_PRIVATE_LISTEN", private.to_string()),
            set("EDGE_ORIGIN", origin.to_string()),
            set("EDGE_CACHE_DIR", cache.display().to_string()),
            set("EDGE_SEAL_KEYS", seal_key.display().to_string()),
            set("EDGE_POLL_INTERVAL", "500ms".to_owned()),
        ];
        let environment: Vec<_> = environment.into_iter().chain(source.iter().cloned()).collect();
        let process = Process::start(&binary("edge"), &[], &environment, folder);
        Self { https, private, process }
    }

    /// Whether `/readyz` says so.
    pub async fn is_ready(&self) -> bool {
        client::ask(Method::GET, &format!("http://{}/readyz", self.private), None, None).await.is_ok_and(|answer| answer.status == 200)
    }

    /// Known names, and how many of them are not on its disk.
    pub async fn names(&self) -> Option<(u64, u64)> {
        Some((self.metric("nameplate_edge_names_known").await?, self.metric("nameplate_edge_bundles_cold").await?))
    }

    /// One of its numbers, by its name with its labels.
    pub async fn metric(&self, name: &str) -> Option<u64> {
        let metrics = client::ask(Method::GET, &format!("http://{}/metrics", self.private), None, None).await.ok()?;
        let metrics = String::from_utf8(metrics.body.to_vec()).ok()?;
        metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// The memory it has for itself, in KiB.
    pub fn memory_kib(&self) -> u64 {
        self.process.memory_kib()
    }

    /// Fails when it ended by itself, as it does when it is told something that it cannot use.
    pub fn assert_alive(&mut self) {
        assert!(self.process.is_alive(), "the edge ended; its log is {}", self.process.log().display());
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(self) {
        self.process.kill().await;
    }
}
