//! What the tests stand on: a tiny DNS server, a tiny web server, an unchanged ACME client, and a raw one.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use dev_ca::{Config, DevCa};
use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use http::header::{CONTENT_TYPE, HOST, LOCATION};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use instant_acme::{Account, AccountCredentials, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus, RetryPolicy};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

/// How often and how long to look for something that comes soon.
pub const QUICKLY: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(5)).backoff(1.3).timeout(Duration::from_secs(10));

/// A CA with a DNS zone and a web server of its own.
pub struct World {
    pub ca: DevCa,
    pub zone: Zone,
    pub web: Web,
    pub folder: tempfile::TempDir,
}

impl World {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts with a changed configuration.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        install_provider();
        let (zone, web) = (Zone::start().await, Web::start().await);
        let folder = tempfile::tempdir().unwrap();
        let mut config =
            Config { state: Some(folder.path().join("ca")), dns: zone.address, http_port: web.address.port(), ..Config::default() };
        change(&mut config);
        let ca = DevCa::start(config).await.unwrap();
        Self { ca, zone, web, folder }
    }

    /// A fresh account whose challenges the web server answers for every host.
    pub async fn account(&self) -> Account {
        self.account_and_credentials().await.0
    }

    pub async fn account_and_credentials(&self) -> (Account, AccountCredentials) {
        let account = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = self.builder().create(&account, self.ca.directory_url(), None).await.unwrap();
        self.web.answer_for(account.key_thumbprint());
        (account, credentials)
    }

    pub fn builder(&self) -> instant_acme::AccountBuilder {
        Account::builder_with_root(self.ca.root_path().unwrap()).unwrap()
    }

    /// Points a name at the web server.
    pub fn host(&self, name: &str) {
        self.zone.set(name, RData::A(A(Ipv4Addr::LOCALHOST)));
    }

    pub fn wire(&self) -> Wire {
        Wire::new(self.ca.root_pem(), &self.ca.directory_url())
    }
}

pub fn install_provider() {
    // Another test of this process may have done it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

pub fn dns(name: &str) -> Identifier {
    Identifier::Dns(name.into())
}

/// Answers every pending challenge of a kind.
pub async fn set_ready(order: &mut Order, kind: &ChallengeType) {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.unwrap();
        if authorization.status == instant_acme::AuthorizationStatus::Pending {
            authorization.challenge(kind.clone()).unwrap().set_ready().await.unwrap();
        }
    }
}

/// Takes a new order through http-01 until it is ready.
pub async fn ready_order(account: &Account, names: &[&str]) -> Order {
    let identifiers: Vec<_> = names.iter().map(|name| dns(name)).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.unwrap();
    prove(&mut order).await;
    order
}

pub async fn prove(order: &mut Order) {
    set_ready(order, &ChallengeType::Http01).await;
    if order.state().status != OrderStatus::Ready {
        assert_eq!(order.poll_ready(&QUICKLY).await.unwrap(), OrderStatus::Ready);
    }
}

/// A CSR with a key of its own.
pub fn csr(names: &[&str]) -> (Vec<u8>, rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    (params.serialize_request(&key).unwrap().der().to_vec(), key)
}

/// Takes names from order to chain.
pub async fn issue(account: &Account, names: &[&str]) -> String {
    let mut order = ready_order(account, names).await;
    finish(&mut order, names).await
}

pub async fn finish(order: &mut Order, names: &[&str]) -> String {
    order.finalize_csr(&csr(names).0).await.unwrap();
    order.poll_certificate(&QUICKLY).await.unwrap()
}

pub fn ders(chain: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap()
}

pub fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    roots
}

/// The ACME error type in a client's error, without its namespace.
pub fn kind(error: &instant_acme::Error) -> String {
    let instant_acme::Error::Api(problem) = error else { panic!("not a problem document: {error:?}") };
    problem.r#type.as_deref().unwrap().trim_start_matches("urn:ietf:params:acme:error:").to_owned()
}

/// A DNS server over UDP and TCP for what was set, chasing CNAMEs; all other names do not exist.
pub struct Zone {
    pub address: SocketAddr,
    records: Records,
    failing: Arc<Mutex<Vec<String>>>,
    truncated: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

type Records = Arc<Mutex<HashMap<String, Vec<RData>>>>;

impl Zone {
    async fn start() -> Self {
        let (udp, tcp) = Self::bind().await;
        let zone = Self {
            address: udp.local_addr().unwrap(),
            records: Arc::default(),
            failing: Arc::default(),
            truncated: Arc::default(),
            _serving: JoinSet::new(),
        };
        let mut serving = JoinSet::new();
        let (records, failing, truncated) = (Arc::clone(&zone.records), Arc::clone(&zone.failing), Arc::clone(&zone.truncated));
        serving.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, peer) = udp.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..length]).unwrap();
                let mut answer = Self::answer(&query, &records.lock().unwrap(), &failing.lock().unwrap());
                if truncated.lock().unwrap().contains(&query.queries[0].name().to_ascii()) {
                    answer.answers.clear();
                    answer.metadata.truncation = true;
                }
                udp.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
            }
        });
        let (records, failing) = (Arc::clone(&zone.records), Arc::clone(&zone.failing));
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = tcp.accept().await.unwrap();
                connections.spawn(Self::serve_tcp(stream, Arc::clone(&records), Arc::clone(&failing)));
            }
        });
        Self { _serving: serving, ..zone }
    }

    async fn serve_tcp(mut stream: TcpStream, records: Records, failing: Arc<Mutex<Vec<String>>>) {
        while let Ok(length) = stream.read_u16().await {
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.unwrap();
            let query = Message::from_vec(&query).unwrap();
            let answer = Self::answer(&query, &records.lock().unwrap(), &failing.lock().unwrap()).to_vec().unwrap();
            stream.write_u16(answer.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }

    /// One port for both: a port free for TCP may be taken for UDP, so try a few.
    async fn bind() -> (UdpSocket, TcpListener) {
        for _ in 0..20 {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                return (udp, tcp);
            }
        }
        panic!("no port is free for both UDP and TCP");
    }

    fn answer(query: &Message, records: &HashMap<String, Vec<RData>>, failing: &[String]) -> Message {
        let mut answer = Message::response(query.id, OpCode::Query);
        answer.metadata.recursion_desired = true;
        answer.metadata.recursion_available = true;
        let question = query.queries[0].clone();
        let (kind, mut name) = (question.query_type(), question.name().clone());
        answer.add_query(question);
        loop {
            let key = name.to_ascii().to_ascii_lowercase();
            if failing.contains(&key) {
                answer.metadata.response_code = ResponseCode::ServFail;
                return answer;
            }
            let Some(found) = records.get(&key) else {
                answer.metadata.response_code = ResponseCode::NXDomain;
                return answer;
            };
            answer.add_answers(
                found.iter().filter(|data| data.record_type() == kind).map(|data| Record::from_rdata(name.clone(), 60, data.clone())),
            );
            let Some(RData::CNAME(CNAME(target))) = found.iter().find(|data| data.record_type() == RecordType::CNAME) else {
                return answer;
            };
            answer.add_answer(Record::from_rdata(name.clone(), 60, RData::CNAME(CNAME(target.clone()))));
            name = target.clone();
        }
    }

    pub fn set(&self, name: &str, data: RData) {
        self.records.lock().unwrap().insert(format!("{name}."), vec![data]);
    }

    pub fn add(&self, name: &str, data: RData) {
        self.records.lock().unwrap().entry(format!("{name}.")).or_default().push(data);
    }

    pub fn fail(&self, name: &str) {
        self.failing.lock().unwrap().push(format!("{name}."));
    }

    /// Answers questions about a name over TCP only.
    pub fn truncate(&self, name: &str) {
        self.truncated.lock().unwrap().push(format!("{name}."));
    }

    pub fn txt(&self, name: &str, parts: &[&str]) {
        self.set(name, RData::TXT(TXT::new(parts.iter().map(|part| (*part).to_owned()).collect())));
    }

    pub fn cname(&self, name: &str, target: &str) {
        self.set(name, RData::CNAME(CNAME(Name::from_ascii(format!("{target}.")).unwrap())));
    }

    pub fn aaaa(&self, name: &str, address: &str) {
        let IpAddr::V6(address) = address.parse().unwrap() else { panic!("{address} is not IPv6") };
        self.add(name, RData::AAAA(AAAA(address)));
    }
}

/// What the web server says to a request for a host.
#[derive(Clone)]
pub enum Says {
    Text(String),
    Status(u16),
    Redirect(String),
}

/// A web server that answers every challenge with the accounts' thumbprints, unless told otherwise for a host.
pub struct Web {
    pub address: SocketAddr,
    shared: Arc<Mutex<Script>>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Script {
    hosts: HashMap<String, Says>,
    thumbprint: String,
    seen: Vec<(String, String)>,
}

impl Script {
    fn says(&mut self, host: &str, path: &str) -> Says {
        self.seen.push((host.to_owned(), path.to_owned()));
        let token = path.rsplit('/').next().unwrap();
        self.hosts.get(host).cloned().unwrap_or_else(|| Says::Text(format!("{token}.{}\n", self.thumbprint)))
    }
}

impl Web {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared: Arc<Mutex<Script>> = Arc::default();
        let script = Arc::clone(&shared);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let script = Arc::clone(&script);
                let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                    let host = request.headers()[HOST].to_str().unwrap().to_owned();
                    let path = request.uri().path().to_owned();
                    let says = script.lock().unwrap().says(&host, &path);
                    let mut response = Response::new(Full::new(Bytes::new()));
                    match says {
                        Says::Text(text) => *response.body_mut() = Full::new(Bytes::from(text)),
                        Says::Status(status) => *response.status_mut() = StatusCode::from_u16(status).unwrap(),
                        Says::Redirect(to) => {
                            *response.status_mut() = StatusCode::FOUND;
                            response.headers_mut().insert(LOCATION, to.replace("{path}", &path).parse().unwrap());
                        }
                    }
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, shared, _serving: serving }
    }

    pub fn answer_for(&self, thumbprint: &str) {
        self.shared.lock().unwrap().thumbprint = thumbprint.to_owned();
    }

    pub fn say(&self, host: &str, says: Says) {
        self.shared.lock().unwrap().hosts.insert(host.into(), says);
    }

    /// The hosts and paths asked for, in order.
    pub fn seen(&self) -> Vec<(String, String)> {
        self.shared.lock().unwrap().seen.clone()
    }
}

/// An answer as it came over the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {self:?}")).to_str().unwrap()
    }

    /// The problem's status and type without its namespace.
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{problem}");
        (self.status, problem["type"].as_str().unwrap().strip_prefix("urn:ietf:params:acme:error:").unwrap().to_owned())
    }
}

/// A client that can break every rule.
pub struct Wire {
    tls: tokio_rustls::TlsConnector,
    directory: String,
    pub key: EcdsaKeyPair,
    pub kid: Option<String>,
}

impl Wire {
    pub fn new(root_pem: &str, directory: &str) -> Self {
        install_provider();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots(root_pem)).with_no_client_auth();
        Self {
            tls: tokio_rustls::TlsConnector::from(Arc::new(config)),
            directory: directory.to_owned(),
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            kid: None,
        }
    }

    /// Sends one request on a connection of its own; an error is a connection that closed without an answer.
    pub async fn send(&self, method: Method, url: &str, content_type: &str, body: impl Into<Bytes>) -> Result<Answer, hyper::Error> {
        let uri: Uri = url.parse().unwrap();
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, uri.port_u16().unwrap())).await.unwrap();
        let request = Request::builder()
            .method(method)
            .uri(uri.path())
            .header(HOST, uri.authority().unwrap().as_str())
            .header(CONTENT_TYPE, content_type)
            .body(Full::new(body.into()))
            .unwrap();
        let mut driver = JoinSet::new();
        let mut sender = if uri.scheme_str() == Some("https") {
            let tls = self.tls.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
            driver.spawn(async { drop(connection.await) });
            sender
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
            driver.spawn(async { drop(connection.await) });
            sender
        };
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    pub async fn get(&self, url: &str) -> Answer {
        self.send(Method::GET, url, "text/plain", "").await.unwrap()
    }

    pub async fn resource(&self, name: &str) -> String {
        self.get(&self.directory).await.json()[name].as_str().unwrap().to_owned()
    }

    pub async fn nonce(&self) -> String {
        let url = self.resource("newNonce").await;
        self.send(Method::HEAD, &url, "text/plain", "").await.unwrap().header("replay-nonce").to_owned()
    }

    pub fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = (BASE64_URL_SAFE_NO_PAD.encode(&point[1..33]), BASE64_URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
    }

    /// A good protected header for a URL.
    pub async fn header(&self, url: &str) -> Value {
        let mut header = json!({ "alg": "ES256", "nonce": self.nonce().await, "url": url });
        match &self.kid {
            Some(kid) => header["kid"] = kid.as_str().into(),
            None => header["jwk"] = self.jwk(),
        }
        header
    }

    pub fn sign(&self, header: &Value, payload: &str) -> String {
        let (header, payload) = (BASE64_URL_SAFE_NO_PAD.encode(header.to_string()), BASE64_URL_SAFE_NO_PAD.encode(payload));
        let signature = self.key.sign(&SystemRandom::new(), format!("{header}.{payload}").as_bytes()).unwrap();
        json!({ "protected": header, "payload": payload, "signature": BASE64_URL_SAFE_NO_PAD.encode(signature) }).to_string()
    }

    pub async fn post_signed(&self, url: &str, jws: String) -> Answer {
        self.send(Method::POST, url, "application/jose+json", jws).await.unwrap()
    }

    pub async fn post(&self, url: &str, payload: &str) -> Answer {
        self.try_post(url, payload).await.unwrap()
    }

    pub async fn try_post(&self, url: &str, payload: &str) -> Result<Answer, hyper::Error> {
        let header = self.header(url).await;
        self.send(Method::POST, url, "application/jose+json", self.sign(&header, payload)).await
    }

    /// Registers this client's key and signs with its account from now on.
    pub async fn register(&mut self) -> Answer {
        let url = self.resource("newAccount").await;
        let answer = self.post(&url, r#"{"termsOfServiceAgreed":true}"#).await;
        self.kid = Some(answer.header("location").to_owned());
        answer
    }

    pub async fn new_order(&self, payload: &Value) -> Answer {
        let url = self.resource("newOrder").await;
        self.post(&url, &payload.to_string()).await
    }
}
