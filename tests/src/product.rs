//! `nameplate dev` from outside: started in a folder of its own, asked through its API, killed and started again.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http::Method;
use serde_json::{Value, json};

use crate::{
    aws::Aws,
    client::{self, Answer},
    pebble::{Demands, Pebble},
    peers::{Peers, edit_dns},
    ports,
    process::{Folder, Process, binary},
    visitor::Visitor,
    waiting::until,
};

/// How often a start is tried again when another process took a port in between.
const STARTS: usize = 5;

/// Everything the product listens with.
const LISTENERS: &[&str] = &["API", "HTTPS", "HTTP", "PRIVATE", "DNS", "DNS_ADMIN", "CA", "CA_CONTROL", "ORIGIN", "ANSWERS"];

/// The whole product, running or killed.
#[derive(Debug)]
pub struct Product {
    // Dropped before the folder that they write to.
    process: Option<Process>,
    /// DNS and CA of their own, if any.
    pub peers: Option<Peers>,
    /// A stand-in for AWS, if that is its home.
    pub aws: Option<Aws>,
    binary: PathBuf,
    settings: Vec<(String, String)>,
    endpoints: Value,
    key: String,
    folder: Folder,
}

impl Product {
    /// Starts it with its own DNS and CA, and with settings by the names of their environment variables.
    pub async fn start(settings: &[(&str, &str)]) -> Self {
        Self::new(binary("nameplate"), Folder::new()).launch(settings).await
    }

    /// Starts it with DNS and CA in processes of their own.
    pub async fn start_with_peers(settings: &[(&str, &str)]) -> Self {
        Self::start_binary_with_peers(binary("nameplate"), settings).await
    }

    /// Starts it with DNS and Pebble in processes of their own.
    pub async fn start_with_pebble(demands: &Demands, settings: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let peers = Peers::start_with_pebble(folder.path(), demands).await;
        Self { peers: Some(peers), ..Self::new(binary("nameplate"), folder) }.launch(settings).await
    }

    /// The same with its home on AWS: a stand-in, which stays while the product is killed, as DNS and Pebble do.
    pub async fn start_on_aws_with_pebble(demands: &Demands, settings: &[(&str, &str)]) -> Self {
        Self::start_binary_on_aws_with_pebble(binary("nameplate"), demands, settings).await
    }

    /// The same with another build of it.
    pub async fn start_binary_on_aws_with_pebble(binary: PathBuf, demands: &Demands, settings: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let aws = Aws::start(folder.path()).await;
        let peers = Peers::start_with_pebble(folder.path(), demands).await;
        Self { peers: Some(peers), aws: Some(aws), ..Self::new(binary, folder) }.launch(settings).await
    }

    /// The same with another build of it.
    pub async fn start_binary_with_peers(binary: PathBuf, settings: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let peers = Peers::start(folder.path()).await;
        Self { peers: Some(peers), ..Self::new(binary, folder) }.launch(settings).await
    }

    fn new(binary: PathBuf, folder: Folder) -> Self {
        let (settings, endpoints, key) = (Vec::new(), Value::Null, String::new());
        Self { process: None, peers: None, aws: None, binary, settings, endpoints, key, folder }
    }

    async fn launch(self, settings: &[(&str, &str)]) -> Self {
        let mut product = self;
        for _ in 0..STARTS {
            product.settings = LISTENERS.iter().map(|name| (format!("NAMEPLATE_LISTEN_{name}"), ports::free().to_string())).collect();
            // Later ones win: the peers know the challenge port, and the test knows best.
            product.settings.extend(product.peers.iter().flat_map(Peers::settings));
            if let Some(aws) = &product.aws {
                product.settings.extend(aws.environment());
                product.settings.push(("NAMEPLATE_HOME".to_owned(), "aws".to_owned()));
            }
            product.settings.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            product.settings.push(("NAMEPLATE_DATA".to_owned(), product.data().display().to_string()));
            if product.try_restart(&[]).await {
                return product;
            }
        }
        panic!("the product did not start; its log is {}", product.log().display());
    }

    /// Starts it again where it was, with settings beside the usual ones. `false` when it ended before it was ready.
    pub async fn try_restart(&mut self, extra: &[(&str, &str)]) -> bool {
        assert!(self.process.is_none(), "it runs already");
        let mut environment = self.settings.clone();
        environment.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let mut process = Process::start(&self.binary, &["dev", "--json"], &environment, self.folder.path());
        let Some(ready) = process.ready().await else { return false };
        assert_eq!(ready["ready"], true, "{ready}");
        self.endpoints = ready["endpoints"].clone();
        self.key = fs::read_to_string(self.data().join("operator.key")).expect("the operator's key").trim().to_owned();
        self.process = Some(process);
        true
    }

    /// Starts it again where it was.
    pub async fn restart(&mut self) {
        assert!(self.try_restart(&[]).await, "it did not start again; its log is {}", self.log().display());
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(&mut self) {
        self.process.take().expect("it runs").kill().await;
    }

    /// Waits until it has ended by itself; whether it has.
    pub async fn ended(&mut self, within: Duration) -> bool {
        let ended = self.process.as_mut().expect("it was started").ended(within).await;
        if ended {
            self.process = None;
        }
        ended
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_alive)
    }

    /// The folder with all its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The folder the edge reads.
    pub fn bucket(&self) -> PathBuf {
        self.data().join("home/bucket")
    }

    /// A folder for the test's own files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its log is.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("nameplate.log")
    }

    fn endpoint(&self, name: &str) -> &str {
        self.endpoints[name].as_str().unwrap_or_else(|| panic!("there is no endpoint {name} in {}", self.endpoints))
    }

    /// Where the API is.
    pub fn api_address(&self) -> SocketAddr {
        self.endpoint("api").strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// The operator's API key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Where the edge is.
    pub fn https(&self) -> SocketAddr {
        self.endpoint("https").parse().unwrap()
    }

    /// A visitor of its edge who trusts its CA.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.https(), Path::new(self.endpoint("ca_root")))
    }

    /// What the edge's private port tells.
    pub async fn metrics(&self) -> String {
        let answer = client::ask(Method::GET, &format!("http://{}/metrics", self.endpoint("private")), None, None).await.expect("metrics");
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    /// Asks the API as the operator. `Err` when nobody answers.
    pub async fn try_api(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, String> {
        client::ask(method, &format!("{}{path}", self.endpoint("api")), Some(&self.key), body).await
    }

    /// Asks the API as the operator; whatever it answers.
    pub async fn api(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.try_api(method, path, body).await.unwrap_or_else(|error| panic!("the API: {error}; its log is {}", self.log().display()))
    }

    /// Registers a hostname and gives the records that it asks for, as the DNS editor wants them. Changes nothing in DNS.
    pub async fn register(&self, hostname: &str, tenant: &str) -> Vec<Value> {
        let body = json!({ "hostname": hostname, "tenant": tenant });
        records_of(&self.api(Method::POST, "/v1/domains", Some(&body)).await.granted())
    }

    /// Sets records at the customers' DNS provider.
    pub async fn set_dns(&self, records: &[Value]) {
        edit_dns(self.dns_admin(), records).await;
    }

    fn dns_admin(&self) -> &str {
        self.peers.as_ref().map_or_else(|| self.endpoint("dns_admin"), |peers| &peers.dns_admin)
    }

    /// A domain as the API shows it.
    pub async fn domain(&self, hostname: &str, tenant: &str) -> Value {
        self.api(Method::GET, &format!("/v1/domains/{hostname}?tenant={tenant}"), None).await.granted()
    }

    /// Starts a Pebble beside the CA of the peers.
    pub async fn start_second_pebble(&self, demands: &Demands) -> Pebble {
        self.peers.as_ref().expect("it was started with peers").second_pebble(self.folder.path(), demands).await
    }

    /// The CA, given that it was started with Pebble.
    pub fn pebble(&self) -> &Pebble {
        self.peers.as_ref().and_then(|peers| peers.pebble.as_ref()).expect("it was started with Pebble")
    }

    /// What happened at the CA.
    pub async fn ca_counters(&self) -> Value {
        let control = match &self.peers {
            None => self.endpoint("ca_control"),
            Some(peers) => peers.ca_control.as_deref().expect("Pebble has no counters"),
        };
        client::ask(Method::GET, &format!("{control}/counters"), None, None).await.expect("the CA answers").granted()
    }

    /// Waits until a verified request for the hostname gets 200.
    pub async fn served(&self, hostname: &str, within: Duration) -> crate::visitor::Visit {
        let visitor = self.visitor();
        let what = format!("https://{hostname} answers 200; logs are in {}", self.folder.path().display());
        until(&what, within, async || visitor.get(hostname, "/").await.ok().filter(|visit| visit.answer.status == 200)).await
    }

    /// Waits until every one of `count` domains is ready, by the API's list.
    pub async fn all_ready(&self, count: usize, within: Duration) {
        let what = format!("{count} domains are ready; logs are in {}", self.folder.path().display());
        until(&what, within, async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let ready = self.list("").await.iter().filter(|domain| domain["ready"] == true).count();
            (ready == count).then_some(())
        })
        .await;
    }

    /// Every domain, page by page; `query` narrows it down, such as `&state=active`.
    pub async fn list(&self, query: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.api(Method::GET, &format!("/v1/domains?limit=200{query}{cursor}"), None).await.granted();
            all.extend(page["items"].as_array().expect("a list").iter().cloned());
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return all,
            }
        }
    }
}

/// The records that a domain asks for now, as the DNS editor wants them: those of one name and type together.
pub fn records_of(domain: &Value) -> Vec<Value> {
    let mut records: Vec<Value> = Vec::new();
    let due = |wanted: &&Value| wanted["due"] == "now";
    for wanted in domain["records"].as_array().expect("a registered domain asks for records").iter().filter(due) {
        match records.iter_mut().find(|known| known["name"] == wanted["name"] && known["type"] == wanted["type"]) {
            Some(known) => known["data"].as_array_mut().unwrap().push(wanted["value"].clone()),
            None => records.push(json!({ "name": wanted["name"], "type": wanted["type"], "data": [wanted["value"]] })),
        }
    }
    records
}
