//! Pebble, the test CA that Let's Encrypt itself uses, as a process: another pair of eyes on everything we say in ACME.
//!
//! It is installed by `scripts/install-pebble`, which a test that needs it runs. It forgets everything when it stops, roots included.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::{ports, visitor::Visitor, waiting::until};

/// How long it may take to answer; installing it is a download besides.
const READY: Duration = Duration::from_secs(30);

/// What Pebble is told beside where to listen.
#[derive(Clone, Debug)]
pub struct Demands {
    /// Of 100 good nonces, how many are refused.
    pub bad_nonces: u8,
    /// Of 100 names proved before, how many are believed again without a new challenge.
    pub authorization_reuse: u8,
    /// Key identifier and HMAC key (base64url) without which it makes no account.
    pub external_account: Option<(String, String)>,
    /// How long its certificates live.
    pub validity: Duration,
}

impl Default for Demands {
    /// Pebble's own defaults, which are there to find clients that rely on luck.
    fn default() -> Self {
        Self { bad_nonces: 5, authorization_reuse: 50, external_account: None, validity: Duration::from_secs(90 * 86_400) }
    }
}

/// A running Pebble; it ends when this is dropped.
#[derive(Debug)]
pub struct Pebble {
    /// The directory that clients are given.
    pub directory: String,
    /// What clients must trust, PEM: for its HTTPS, and for what it issues.
    pub roots: PathBuf,
    /// Where its log is.
    pub log: PathBuf,
    management: SocketAddr,
    tls_root: CertificateDer<'static>,
    _child: Child,
}

/// Where Pebble's binary is, installed first if it is not there.
///
/// # Panics
/// When it cannot be had, with the reason.
pub fn binary() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/install-pebble");
    let installed = std::process::Command::new(&script).stdin(Stdio::null()).output().expect("scripts/install-pebble runs");
    let said = String::from_utf8_lossy(&installed.stderr);
    assert!(installed.status.success(), "this test needs Pebble, which scripts/install-pebble could not provide: {said}");
    PathBuf::from(String::from_utf8_lossy(&installed.stdout).trim())
}

impl Pebble {
    /// Starts one that looks names up at `dns` and fetches http-01 challenges from `http_port`.
    pub async fn start(folder: &Path, dns: SocketAddr, http_port: u16, demands: &Demands) -> Self {
        let program = binary();
        let (acme, management, unused) = (ports::free(), ports::free(), ports::free());
        let home = folder.join(format!("pebble-{}", acme.port()));
        fs::create_dir_all(&home).unwrap();
        let (tls_root_pem, chain, key) = tls();
        fs::write(home.join("chain.pem"), chain).unwrap();
        fs::write(home.join("key.pem"), key).unwrap();
        let keys: serde_json::Map<_, _> = demands.external_account.iter().map(|(id, key)| (id.clone(), json!(key))).collect();
        let profile = |seconds: u64| json!({ "description": "of the tests", "validityPeriod": seconds });
        let config = json!({ "pebble": {
            "listenAddress": acme.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": home.join("chain.pem"),
            "privateKey": home.join("key.pem"),
            "httpPort": http_port,
            "tlsPort": unused.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": demands.external_account.is_some(),
            "externalAccountMACKeys": keys,
            "keyAlgorithm": "ecdsa",
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": { "default": profile(demands.validity.as_secs()), "tlsserver": profile(demands.validity.as_secs() / 2) },
        }});
        fs::write(home.join("pebble.json"), config.to_string()).unwrap();

        let log = home.join("pebble.log");
        let output = fs::File::create(&log).unwrap();
        let mut command = Command::new(&program);
        command.arg("-config").arg(home.join("pebble.json")).arg("-dnsserver").arg(dns.to_string());
        command.env("PEBBLE_VA_NOSLEEP", "1");
        command.env("PEBBLE_WFE_NONCEREJECT", demands.bad_nonces.to_string());
        command.env("PEBBLE_AUTHZREUSE", demands.authorization_reuse.to_string());
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).kill_on_drop(true);
        let child = command.spawn().unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));

        let tls_root = CertificateDer::from_pem_slice(tls_root_pem.as_bytes()).unwrap();
        let management_api = Visitor::trusting(management, tls_root.clone());
        let root = until(&format!("Pebble answers; its log is {}", log.display()), READY, async || {
            let visit = management_api.get("localhost", "/roots/0").await.ok()?;
            (visit.answer.status == 200).then(|| String::from_utf8_lossy(&visit.answer.body).into_owned())
        })
        .await;
        let roots = home.join("roots.pem");
        // What it issues first: a visitor of the product trusts the first alone.
        fs::write(&roots, format!("{}\n{tls_root_pem}", root.trim_end())).unwrap();
        Self { directory: format!("https://localhost:{}/dir", acme.port()), roots, log, management, tls_root, _child: child }
    }

    /// How many requests came to a resource, by its name in Pebble's paths.
    pub fn requests(&self, resource: &str) -> usize {
        self.logged(&format!("POST /{resource}"))
    }

    /// How often something stands in its log.
    pub fn logged(&self, what: &str) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().matches(what).count()
    }

    /// What it knows of a certificate, by its serial number in hex; `None` when it issued none.
    pub async fn certificate(&self, serial: &str) -> Option<serde_json::Value> {
        let visitor = Visitor::trusting(self.management, self.tls_root.clone());
        let visit = visitor.get("localhost", &format!("/cert-status-by-serial/{serial}")).await.ok()?;
        (visit.answer.status == 200).then(|| visit.answer.json())
    }
}

/// A root, and a certificate for `localhost` under it: Pebble brings none of its own in Debian's package.
fn tls() -> (String, String, String) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "the tests' root for Pebble's own HTTPS");
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &root).unwrap();
    (root.pem(), leaf.pem(), key.serialize_pem())
}
