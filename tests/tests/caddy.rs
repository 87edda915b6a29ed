//! A Caddy that gets certificates on demand asks us first: owned names get one, others do not.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use http::Method;
use system_tests::{ports, process::Folder, product::Product, tools::install, visitor::Visitor, waiting::until};
use tokio::process::{Child, Command};

/// How long a certificate of Caddy's own CA may take, and its start.
const PATIENCE: Duration = Duration::from_secs(20);

struct Caddy {
    _process: Child,
    https: SocketAddr,
    root: PathBuf,
}

impl Caddy {
    /// Starts it with its own CA and our `ask`; nothing of it leaves the folder.
    async fn start(folder: &Path, ask: &str) -> Self {
        let binary = install("install-caddy", "caddy/usr/bin/caddy");
        let (https, http) = (ports::free(), ports::free());
        let data = folder.join("caddy");
        fs::create_dir_all(&data).unwrap();
        let config = format!(
            "{{\n\tadmin off\n\tskip_install_trust\n\tauto_https disable_redirects\n\thttp_port {}\n\thttps_port {}\n\tstorage file_system {}\n\
             \ton_demand_tls {{\n\t\task {ask}\n\t}}\n}}\nhttps:// {{\n\tbind 127.0.0.1\n\ttls internal {{\n\t\ton_demand\n\t}}\n\trespond \"served by Caddy\"\n}}\n",
            http.port(),
            https.port(),
            data.display()
        );
        let file = folder.join("Caddyfile");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(folder.join("caddy.log")).unwrap();
        let process = Command::new(binary)
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(&file)
            .env("HOME", folder)
            .env("XDG_DATA_HOME", folder)
            .env("XDG_CONFIG_HOME", folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let root = data.join("pki/authorities/local/root.crt");
        let what = format!("Caddy listens and has a CA; its log is in {}", folder.display());
        until(&what, PATIENCE, async || {
            let listens = tokio::net::TcpStream::connect(https).await.is_ok();
            (listens && root.is_file()).then_some(())
        })
        .await;
        Self { _process: process, https, root }
    }

    fn visitor(&self) -> Visitor {
        Visitor::new(self.https, &self.root)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caddy_gets_certificates_for_owned_names_only() {
    let product = Product::start(&[]).await;
    let folder = Folder::new();
    let records = product.register("owned.brand.test", "brand").await;
    product.register("claimed.brand.test", "brand").await;
    product.set_dns(&records).await;
    product.served("owned.brand.test", PATIENCE).await;

    let ask = product.api(Method::GET, "/v1/ask", None).await.granted();
    let url = format!("http://{}{}", product.api_address(), ask["path"].as_str().unwrap());
    let caddy = Caddy::start(folder.path(), &url).await;
    let visitor = caddy.visitor();
    let visit = until("Caddy serves the owned name", PATIENCE, async || visitor.get("owned.brand.test", "/").await.ok()).await;
    assert_eq!((visit.answer.status.as_u16(), &visit.answer.body[..]), (200, &b"served by Caddy"[..]));
    for refused in ["claimed.brand.test", "stranger.brand.test"] {
        let error = visitor.get(refused, "/").await.expect_err(refused);
        assert!(error.starts_with("handshake: received fatal alert"), "{refused}: {error}");
    }
    // Still there for who is owned: it was the names that were refused.
    assert_eq!(visitor.get("owned.brand.test", "/").await.unwrap().answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caddy_with_a_wrong_secret_gets_no_certificate() {
    let product = Product::start(&[]).await;
    let folder = Folder::new();
    let records = product.register("owned.brand.test", "brand").await;
    product.set_dns(&records).await;
    product.served("owned.brand.test", PATIENCE).await;
    let caddy = Caddy::start(folder.path(), &format!("http://{}/ask/guess", product.api_address())).await;
    let error = caddy.visitor().get("owned.brand.test", "/").await.expect_err("a certificate");
    assert!(error.starts_with("handshake: received fatal alert"), "{error}");
}
