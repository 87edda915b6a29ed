//! One machine as its operator sets it up: a configuration file, `setup`, the records it asks for at a foreign DNS provider, `serve`.

use std::{
    fs,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use serde_json::Value;

use crate::{
    foreign_dns::ForeignDns,
    origin::Origin,
    pebble::{Demands, Pebble},
    ports,
    process::{Folder, Process, binary},
    visitor::{Visit, Visitor},
    waiting::until,
};

/// The operator's edge zone, a child of the zone at the provider.
pub const ZONE: &str = "edge.saas.test";

/// A machine, its world, and the product on it when it runs.
#[derive(Debug)]
pub struct Machine {
    process: Option<Process>,
    /// Where customers and operator have their zones: `saas.test` and `brand.test`.
    pub dns: ForeignDns,
    /// The CA.
    pub pebble: Pebble,
    /// Where TLS arrives.
    pub https: SocketAddr,
    http: SocketAddr,
    api: SocketAddr,
    _resolver: Process,
    _origin: Origin,
    folder: Folder,
}

impl Machine {
    /// Prepares one: everything but what the operator does.
    pub async fn prepare() -> Self {
        let folder = Folder::new();
        let origin = Origin::start().await;
        let [https, http, private, api, answers] = std::array::from_fn(|_| ports::free());
        let dns = ForeignDns::start(folder.path(), answers.port(), &["saas.test", "brand.test"]).await;
        // A resolver finds its way from the root; this one is told both ways, since neither server has port 53.
        let ways = [format!("saas.test={}", dns.address), format!("brand.test={}", dns.address), format!("acme.{ZONE}={answers}")];
        let mut arguments = vec!["--dns", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        for way in &ways {
            arguments.extend(["--forward", way]);
        }
        let mut resolver = Process::start(&binary("dev-dns"), &arguments, &[], folder.path());
        let ready = resolver.ready().await.expect("the resolver starts");
        let asked = ready["dns"].as_str().expect("an address").to_owned();
        let pebble = Pebble::start(folder.path(), asked.parse().unwrap(), http.port(), &Demands::default()).await;
        let config = format!(
            "data = \"{data}\"\norigin = \"http://{origin}\"\ndrain = \"3s\"\n\
             [zone]\nname = \"{ZONE}\"\naddresses = \"127.0.0.1\"\n\
             [listen]\nhttps = \"{https}\"\nhttp = \"{http}\"\nprivate = \"{private}\"\napi = \"{api}\"\nanswers = \"{answers}\"\n\
             [acme]\ndirectory = \"{directory}\"\nroot = \"{root}\"\ncontact = \"ops@saas.test\"\n\
             [dns]\nserver = \"{asked}\"\nauthority_port = {port}\nallow_non_global = \"on\"\n\
             [hostnames]\nallow_special_use = \"test\"\n\
             [looks]\nfloor = \"500ms\"\ncap = \"1s\"\n[timer]\ninterval = \"500ms\"\ngrace = \"1s\"\n[edge]\npoll = \"200ms\"\n",
            data = folder.path().join("var").display(),
            origin = origin.address,
            directory = pebble.directory,
            root = pebble.roots.display(),
            port = answers.port(),
        );
        fs::write(folder.path().join("nameplate.toml"), config).unwrap();
        Self { process: None, dns, pebble, https, http, api, _resolver: resolver, _origin: origin, folder }
    }

    /// Prepares one and does what the operator's guide says, up to the records.
    pub async fn set_up() -> Self {
        let mut machine = Self::prepare().await;
        machine.follow_setup().await;
        machine
    }

    /// Runs `setup` and creates at the provider what it asks for.
    pub async fn follow_setup(&mut self) -> Value {
        let told = self.done(&["--json", "setup", "--agree-tos"]).await;
        let records = told["records"].as_array().expect("records to create").iter().map(|record| {
            let text = |key: &str| record[key].as_str().expect("a text").to_owned();
            (text("name"), text("type"), text("value"))
        });
        self.dns.add(&records.collect::<Vec<_>>()).await;
        told
    }

    /// Where everything of the product lies.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("var")
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs a command of the product with this machine's configuration.
    pub async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = tokio::process::Command::new(binary("nameplate"));
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("NAMEPLATE_")) {
            command.env_remove(key);
        }
        command.arg("--config").arg(self.folder.path().join("nameplate.toml")).args(arguments).current_dir(self.folder.path());
        command.stdin(std::process::Stdio::null()).output().await.expect("the command starts")
    }

    /// Runs a command that must succeed, and reads its JSON; `Null` when it says nothing.
    pub async fn done(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments).await;
        let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {}\n{said}\n{error}", output.status);
        if said.trim().is_empty() { Value::Null } else { serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")) }
    }

    /// Starts `serve`.
    pub async fn serve(&mut self) {
        self.serve_on(Vec::new()).await;
    }

    /// Starts `serve` on sockets that are held for it.
    pub async fn serve_on(&mut self, sockets: Vec<(&str, OwnedFd)>) {
        assert!(self.process.is_none(), "it runs already");
        let file = self.folder.path().join("nameplate.toml").display().to_string();
        let arguments = ["serve", "--json", "--config", &file];
        let mut process = Process::start_with_sockets(&binary("nameplate"), &arguments, &[], self.folder.path(), sockets);
        let ready = process.ready().await;
        let ready = ready.unwrap_or_else(|| panic!("it did not start; its log is {}", process.log().display()));
        assert_eq!(ready["ready"], true, "{ready}");
        self.process = Some(process);
    }

    /// Asks it to leave, and waits until it has.
    pub async fn stop(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.signal("TERM").await;
        assert!(process.ended(Duration::from_secs(20)).await, "it did not leave; its log is {}", process.log().display());
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(&mut self) {
        self.process.take().expect("it runs").kill().await;
    }

    /// Sockets as a supervisor binds them, for TLS, HTTP and the API.
    pub fn bind(&self) -> Vec<(&'static str, std::net::TcpListener)> {
        let bound = [("https", self.https), ("http", self.http), ("api", self.api)];
        bound.into_iter().map(|(name, address)| (name, std::net::TcpListener::bind(address).expect("a free port"))).collect()
    }

    /// Where the API listens.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// The operator's API key.
    pub fn operator_key(&self) -> String {
        fs::read_to_string(self.data().join("operator.key")).expect("the operator's key").trim().to_owned()
    }

    /// Registers a hostname and creates the record it asks for at its provider.
    pub async fn add(&mut self, hostname: &str) -> Vec<(String, String, String)> {
        let domain = self.done(&["--json", "domains", "add", hostname, "--tenant", "brand"]).await;
        let records = crate::product::records_of(&domain);
        let texts = |value: &Value| value.as_str().expect("a text").to_owned();
        let records = records.iter().map(|record| (texts(&record["name"]), texts(&record["type"]), texts(&record["data"][0])));
        let records: Vec<_> = records.collect();
        self.dns.add(&records).await;
        records
    }

    /// Leads a name elsewhere at its provider.
    pub async fn lead_elsewhere(&mut self, hostname: &str) {
        self.dns.remove(hostname).await;
        self.dns.add(&[(hostname.to_owned(), "A".to_owned(), "127.0.7.9".to_owned())]).await;
    }

    /// A domain as the API shows it.
    pub async fn domain(&self, hostname: &str) -> Value {
        self.done(&["--json", "domains", "show", hostname, "--tenant", "brand"]).await
    }

    /// A visitor who trusts the CA.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.https, &self.pebble.roots)
    }

    /// Waits until a verified request gets 200.
    pub async fn served(&self, hostname: &str, within: Duration) -> Visit {
        let what = format!("https://{hostname} answers 200; logs are in {}", self.folder.path().display());
        let visitor = self.visitor();
        until(&what, within, async || visitor.get(hostname, "/").await.ok().filter(|visit| visit.answer.status == 200)).await
    }

    /// Waits until nobody gets a connection to the name any more.
    pub async fn refused(&self, hostname: &str, within: Duration) {
        let visitor = self.visitor();
        until(&format!("{hostname} is not served"), within, async || visitor.get(hostname, "/").await.err()).await;
    }

    /// How many certificates the CA has issued.
    pub fn issued(&self) -> usize {
        self.pebble.logged("Issued certificate serial")
    }
}
