//! Pebble as a process, and the edge it fetches challenges from.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, TcpListener as Unused},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    task::JoinSet,
};

/// How long Pebble may take to answer on a busy machine.
const READY: Duration = Duration::from_secs(60);

/// A running Pebble; it ends when this is dropped.
pub(crate) struct Pebble {
    pub(crate) directory: String,
    /// For its HTTPS, and for what it issues, PEM.
    pub(crate) roots: String,
    _child: Child,
    _folder: tempfile::TempDir,
}

/// Where the binary is, installed first if it is not there. Without it the comparison is not made, and so the test fails.
fn binary() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install-pebble");
    let installed = std::process::Command::new(&script).stdin(Stdio::null()).output().expect("scripts/install-pebble runs");
    let said = String::from_utf8_lossy(&installed.stderr);
    assert!(installed.status.success(), "this test needs Pebble, which scripts/install-pebble could not provide: {said}");
    PathBuf::from(String::from_utf8_lossy(&installed.stdout).trim())
}

impl Pebble {
    /// Starts one that looks names up at `dns` and fetches http-01 challenges from `http_port`.
    pub(crate) async fn start(dns: SocketAddr, http_port: u16) -> Self {
        let program = binary();
        let folder = tempfile::tempdir().unwrap();
        let (acme, management, tls) = (free(), free(), free());
        let (root, chain, key) = certificates();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("chain.pem"), chain).unwrap();
        std::fs::write(at("key.pem"), key).unwrap();
        let config = json!({ "pebble": {
            "listenAddress": acme.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": at("chain.pem"),
            "privateKey": at("key.pem"),
            "httpPort": http_port,
            "tlsPort": tls.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "keyAlgorithm": "ecdsa",
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": { "default": { "description": "of the tests", "validityPeriod": 7_776_000 } },
        }});
        std::fs::write(at("pebble.json"), config.to_string()).unwrap();
        let mut command = Command::new(&program);
        command.arg("-config").arg(at("pebble.json")).arg("-dnsserver").arg(dns.to_string());
        command.env("PEBBLE_VA_NOSLEEP", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
        let issuing = issuing_root(management, &root).await;
        Self {
            directory: format!("https://localhost:{}/dir", acme.port()),
            roots: format!("{root}\n{issuing}"),
            _child: child,
            _folder: folder,
        }
    }
}

/// The root of what it issues, new with every start; asked for until it answers.
async fn issuing_root(management: SocketAddr, root: &str) -> String {
    let mut store = RootCertStore::empty();
    store.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(store)
        .with_no_client_auth();
    let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let started = Instant::now();
    loop {
        let asked = client.get(format!("https://localhost:{}/roots/0", management.port()).parse().unwrap()).await;
        if let Ok(answer) = asked
            && answer.status().is_success()
        {
            return String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
        }
        assert!(started.elapsed() < READY, "Pebble does not answer at {management}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// An address nobody listens at.
fn free() -> SocketAddr {
    Unused::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A root, and a certificate for `localhost` under it.
fn certificates() -> (String, String, String) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &root).unwrap();
    (root.pem(), leaf.pem(), key.serialize_pem())
}

/// Port 80 of an edge: answers every token with one account's thumbprint.
pub(crate) struct Edge {
    port: u16,
    thumbprint: Arc<Mutex<String>>,
    _serving: JoinSet<()>,
}

impl Edge {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let thumbprint = Arc::new(Mutex::new(String::new()));
        let known = Arc::clone(&thumbprint);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let known = Arc::clone(&known);
                let service = service_fn(move |request: Request<Incoming>| {
                    let token = request.uri().path().strip_prefix("/.well-known/acme-challenge/").unwrap_or_default().to_owned();
                    let answer = format!("{token}.{}", known.lock().unwrap());
                    async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer)))) }
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, thumbprint, _serving: serving }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn answer_for(&self, thumbprint: &str) {
        *self.thumbprint.lock().unwrap() = thumbprint.to_owned();
    }
}
