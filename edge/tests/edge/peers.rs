//! The vectors against other servers, for comparison: the same bytes, the same origin as the judge. Not a check of anything of ours, so it is
//! run by hand:
//!
//! ```console
//! scripts/install-peers
//! cargo test --release -p edge --test edge -- --ignored --nocapture the_same_vectors
//! ```

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{FutureExt, future::join_all};

use crate::{
    bucket::{VALID, leaf},
    client,
    program::Running,
    setup::{Setup, eventually},
    strict_origin::StrictOrigin,
    vectors::{FILES, HOST, OTHER, Passed, compare},
};

/// After this a server is taken to say no more; what it does to a connection does not count here, only what its origin sees.
const WAIT: Duration = Duration::from_millis(400);

const PEERS: [(&str, &str); 4] = [
    ("nginx", "nginx/usr/sbin/nginx"),
    ("haproxy", "haproxy/usr/sbin/haproxy"),
    ("caddy", "caddy/usr/bin/caddy"),
    ("h2o", "h2o/usr/bin/h2o"),
];

#[tokio::test]
#[ignore = "a comparison that takes minutes; see the module"]
async fn the_same_vectors_for_the_edge_and_its_peers() {
    let mut runs = vec![edge().boxed_local()];
    for (name, program) in PEERS {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("target/tools/peers").join(program);
        match program.exists() {
            true => runs.push(peer(name, program).boxed_local()),
            false => println!("{name} is not here; run scripts/install-peers"),
        }
    }
    println!(
        "| server | vectors | malformed at the origin | passed on, which the edge refuses | legal, and not passed on | legal, and changed |"
    );
    println!("|---|---|---|---|---|---|");
    for (server, passed) in join_all(runs).await {
        let count = |wanted| passed.iter().filter(|passed| **passed == wanted).count();
        let [malformed, refusable, missing, changed] = [Passed::Malformed, Passed::Refusable, Passed::Missing, Passed::Changed].map(count);
        println!("| {server} | {} | {malformed} | {refusable} | {missing} | {changed} |", passed.len());
    }
}

async fn edge() -> (String, Vec<Passed>) {
    let origin = StrictOrigin::start().await;
    let setup = Setup::configured(&[HOST, OTHER], |config| config.origin = origin.address.to_string()).await;
    setup.until_warm().await;
    ("edge".to_owned(), judged(setup.https(), &origin).await)
}

async fn peer(name: &'static str, program: PathBuf) -> (String, Vec<Passed>) {
    let (origin, folder) = (StrictOrigin::start().await, tempfile::tempdir().unwrap());
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(&program);
    let libraries = program.ancestors().nth(3).unwrap().join("usr/lib/x86_64-linux-gnu");
    command.env("LD_LIBRARY_PATH", libraries).env("HOME", folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    configure(name, &mut command, folder.path(), port, origin.address);
    let _running = Running(command.spawn().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually(name, async || client::connect(address, HOST).await.is_ok()).await;
    let mut asked = Command::new(&program);
    asked.env("LD_LIBRARY_PATH", program.ancestors().nth(3).unwrap().join("usr/lib/x86_64-linux-gnu"));
    let asked = asked.arg(if name == "caddy" { "version" } else { "-v" }).output().unwrap();
    let said = [asked.stdout, asked.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let version = said.split([' ', '/', '\n']).find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    (format!("{name} {}", version.unwrap_or("")), judged(address, &origin).await)
}

async fn judged(address: SocketAddr, origin: &StrictOrigin) -> Vec<Passed> {
    let mut all = Vec::new();
    for (file, _) in FILES {
        all.extend(compare(file, address, origin, WAIT).await);
    }
    all
}

/// As a careful operator configures it for one name: HTTP/1.1 and kept connections to the origin.
fn configure(name: &str, command: &mut Command, folder: &Path, port: u16, origin: SocketAddr) {
    let (chain, key) = leaf(&[HOST, OTHER], VALID);
    let key = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key));
    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (chain, key, both) = (file("chain.pem", &chain), file("key.pem", &key), file("both.pem", &format!("{chain}{key}")));
    let (tmp, root) = (folder.display(), fs::metadata(folder).unwrap().uid() == 0);
    match name {
        "nginx" => {
            let user = if root { "user root; " } else { "" };
            let config = file(
                "nginx.conf",
                &format!(
                    "{user}worker_processes 1; daemon off; pid {tmp}/pid; error_log {tmp}/log error; events {{ }}
http {{ access_log off; client_body_temp_path {tmp}; proxy_temp_path {tmp}; fastcgi_temp_path {tmp}; uwsgi_temp_path {tmp}; scgi_temp_path {tmp};
upstream origin {{ server {origin}; keepalive 16; }}
server {{ listen 127.0.0.1:{port} ssl http2; server_name {HOST}; ssl_certificate {chain}; ssl_certificate_key {key};
location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host; }} }} }}\n"
                ),
            );
            command.args(["-p", &tmp.to_string(), "-c", &config, "-e", &format!("{tmp}/log")]);
        }
        "haproxy" => {
            let config = format!(
                "defaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect 5s\nfrontend tls\n bind 127.0.0.1:{port} ssl crt {both} alpn h2,http/1.1\n default_backend origin\nbackend origin\n server origin {origin}\n"
            );
            command.args(["-db", "-f", &file("haproxy.cfg", &config)]);
        }
        "h2o" => {
            let user = if root { "user: root\n" } else { "" };
            let config = format!(
                "{user}num-threads: 1\nlisten:\n  host: 127.0.0.1\n  port: {port}\n  ssl: {{ certificate-file: {chain}, key-file: {key} }}\nproxy.preserve-host: ON\nhosts:\n  \"{HOST}:{port}\":\n    paths:\n      /:\n        proxy.reverse.url: \"http://{origin}/\"\n"
            );
            command.args(["-c", &file("h2o.conf", &config)]);
        }
        _ => {
            let config = format!(
                "{{\n admin off\n auto_https off\n}}\nhttps://{HOST}:{port} {{\n bind 127.0.0.1\n tls {chain} {key}\n reverse_proxy {origin}\n}}\n"
            );
            command.args(["run", "--adapter", "caddyfile", "--config", &file("Caddyfile", &config)]);
        }
    }
}
