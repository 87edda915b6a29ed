//! A receiver of webhooks over HTTPS: takes what is sent, can be away, and checks signatures by its own arithmetic.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

/// SHA-256's block. Source: FIPS 180-4.
const BLOCK: usize = 64;
/// How long one message may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The headers, in lower case.
    pub headers: HashMap<String, String>,
    /// The text.
    pub body: Vec<u8>,
}

impl Received {
    /// The text as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a message is JSON")
    }

    /// Whether one of its signatures was made with the secret.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret says what it is")).expect("a secret is base64");
        let mut signed = format!("{}.{}.", self.headers["webhook-id"], self.headers["webhook-timestamp"]).into_bytes();
        signed.extend_from_slice(&self.body);
        let wanted = format!("v1,{}", STANDARD.encode(hmac_sha256(&key, &signed)));
        self.headers["webhook-signature"].split(' ').any(|signature| signature == wanted)
    }
}

/// HMAC as RFC 2104, section 2, writes it down, so that the product's own library does not vouch for itself.
fn hmac_sha256(key: &[u8], text: &[u8]) -> Vec<u8> {
    let key = if key.len() > BLOCK { Sha256::digest(key).to_vec() } else { key.to_vec() };
    let padded = |pad: u8| -> Vec<u8> { (0..BLOCK).map(|at| key.get(at).copied().unwrap_or(0) ^ pad).collect() };
    let inner = Sha256::digest([padded(0x36), text.to_vec()].concat());
    Sha256::digest([padded(0x5c), inner.to_vec()].concat()).to_vec()
}

/// A receiver; ends when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    state: Arc<Mutex<State>>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    status: u16,
    received: Vec<Received>,
    connections: usize,
}

impl Receiver {
    /// Starts one whose certificate is written to a file, to be trusted.
    pub async fn start(root: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
        std::fs::write(root, made.cert.pem()).expect("the certificate is written");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("certificate and key belong together");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port for the receiver");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(State { status: 204, received: Vec::new(), connections: 0 }));
        let mut receiver = Self { address, tls: Arc::new(tls), state, accepting: None };
        receiver.accept(listener);
        receiver
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("https://{}/hooks?from=nameplate", self.address)
    }

    /// Goes away: nothing listens.
    pub async fn leave(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            let _ = accepting.await;
        }
    }

    /// Comes back where it was.
    pub async fn come_back(&mut self) {
        let listener = TcpListener::bind(self.address).await.expect("the port is free again");
        self.accept(listener);
    }

    /// From now on answers with this status.
    pub fn answer(&self, status: u16) {
        self.state.lock().expect("nobody panicked").status = status;
    }

    /// What it has taken, in the order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.state.lock().expect("nobody panicked").received.clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state.lock().expect("nobody panicked").connections
    }

    fn accept(&mut self, listener: TcpListener) {
        let (acceptor, state) = (TlsAcceptor::from(self.tls.clone()), self.state.clone());
        self.accepting = Some(tokio::spawn(async move {
            // Whoever goes away hangs up, too.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), state.clone());
                state.lock().expect("nobody panicked").connections += 1;
                connections.spawn(async move {
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        while let Ok(Ok(true)) = tokio::time::timeout(PATIENCE, take(&mut stream, &state)).await {}
                    }
                });
            }
        }));
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }
}

/// Takes one message; `false` at the connection's end.
async fn take(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), state: &Mutex<State>) -> std::io::Result<bool> {
    let mut came = Vec::new();
    let end = loop {
        if let Some(end) = came.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut came).await? == 0 {
            return Ok(false);
        }
    };
    let head = String::from_utf8_lossy(&came[..end]).into_owned();
    let headers: HashMap<String, String> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while came.len() < end + 4 + length {
        if stream.read_buf(&mut came).await? == 0 {
            return Ok(false);
        }
    }
    let body = came[end + 4..end + 4 + length].to_vec();
    assert!(head.starts_with("POST /hooks?from=nameplate HTTP/1.1"), "{head}");
    let status = {
        let mut state = state.lock().expect("nobody panicked");
        if state.status < 300 {
            state.received.push(Received { headers, body });
        }
        state.status
    };
    let answer = format!("HTTP/1.1 {status} As Told\r\nlocation: https://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_arithmetic_is_that_of_the_rfc() {
        // RFC 4231, test case 2.
        let told: String = hmac_sha256(b"Jefe", b"what do ya want for nothing?").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(told, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
