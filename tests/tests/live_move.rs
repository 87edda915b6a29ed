//! A site that another server serves moves here, and nobody notices.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_resolver::TokioResolver;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use system_tests::{product::Product, resolver::resolver, visitor::Visitor, waiting::until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::{interval, sleep},
};

const NAME: &str = "shop.brand.test";
/// Where the other server is: an address of this machine that the edge does not have.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 7, 9);
/// How often a visitor comes.
const PACE: Duration = Duration::from_millis(50);
/// How long a record's old value may stay with resolvers.
const OLD_VALUES_LAST: Duration = Duration::from_secs(2);

/// Another TLS server with a certificate of another CA.
struct Other {
    address: SocketAddr,
    root: CertificateDer<'static>,
    serving: JoinHandle<()>,
}

impl Other {
    async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&key, &root).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((ELSEWHERE, 0)).await.expect("Linux gives all of 127.0.0.0/8 to this machine");
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut buffer = [0; 4096];
                    while let Ok(1..) = stream.read(&mut buffer).await {
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nold\n").await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, root: root.der().clone(), serving }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What one visit met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Met {
    Old,
    Ours,
}

/// A visitor who asks DNS each time, goes where it says, and trusts there only the CA that belongs there.
struct Wanderer {
    resolver: TokioResolver,
    old: Visitor,
    ours: Visitor,
}

impl Wanderer {
    fn new(dns: SocketAddr, other: &Other, product: &Product) -> Self {
        Self { resolver: resolver(dns), old: Visitor::trusting(other.address, other.root.clone()), ours: product.visitor() }
    }

    async fn visit(&self) -> Result<Met, String> {
        let addresses = self.resolver.ipv4_lookup(format!("{NAME}.")).await.map_err(|error| format!("DNS: {error}"))?;
        let found = addresses.answers().iter().find_map(|record| record.data.ip_addr()).ok_or("DNS: no address")?;
        let (visitor, met) = if found == IpAddr::V4(ELSEWHERE) { (&self.old, Met::Old) } else { (&self.ours, Met::Ours) };
        let visit = visitor.get(NAME, "/").await.map_err(|error| format!("{met:?}: {error}"))?;
        match visit.answer.status.as_u16() {
            200 => Ok(met),
            status => Err(format!("{met:?}: status {status}")),
        }
    }
}

fn record<'d>(domain: &'d Value, name: &str) -> &'d Value {
    let found = domain["records"].as_array().unwrap().iter().find(|record| record["name"] == name);
    found.unwrap_or_else(|| panic!("no record at {name}: {domain}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_served_elsewhere_moves_here_without_one_failed_visit() {
    let other = Other::start().await;
    let product = Product::start_with_peers(&[]).await;
    let dns: SocketAddr = product.peers.as_ref().unwrap().dns.parse().unwrap();
    let before = [
        json!({ "name": NAME, "type": "CNAME", "ttl": 1, "data": ["shops.other-host.test"] }),
        json!({ "name": "shops.other-host.test", "type": "A", "ttl": 1, "data": [ELSEWHERE.to_string()] }),
    ];
    product.set_dns(&before).await;

    let over = Arc::new(AtomicBool::new(false));
    let met = Arc::new(Mutex::new(Vec::<(Duration, Result<Met, String>)>::new()));
    let wanderer = Wanderer::new(dns, &other, &product);
    let coming = tokio::spawn({
        let (over, met) = (over.clone(), met.clone());
        async move {
            let (began, mut pace) = (Instant::now(), interval(PACE));
            while !over.load(Ordering::Relaxed) {
                pace.tick().await;
                let outcome = wanderer.visit().await;
                met.lock().unwrap().push((began.elapsed(), outcome));
            }
        }
    });

    product.register(NAME, "brand").await;
    // The first look sees that it is served elsewhere, and the path becomes another.
    let challenge = format!("_acme-challenge.{NAME}");
    let within = Duration::from_secs(20);
    let domain = until("the name is seen to be served elsewhere", within, async || {
        let domain = product.domain(NAME, "brand").await;
        (domain["path"] == "delegation").then_some(domain)
    })
    .await;
    assert_eq!(domain["problem"]["code"], "dns.live_elsewhere", "{domain}");
    let (first, last) = (record(&domain, &challenge), record(&domain, NAME));
    assert_eq!((&first["due"], &first["order"], &first["purpose"]), (&json!("now"), &json!(1), &json!("proof")), "{domain}");
    assert_eq!((&last["due"], &last["order"], &last["purpose"]), (&json!("once_served"), &json!(2), &json!("routing")), "{domain}");
    let target = last["value"].clone();

    product.set_dns(&[json!({ "name": challenge, "type": "CNAME", "data": [first["value"]] })]).await;
    let domain = until("the last record is due", within, async || {
        let domain = product.domain(NAME, "brand").await;
        (record(&domain, NAME)["due"] == "now").then_some(domain)
    })
    .await;
    assert_eq!((&domain["state"], &domain["problem"]["code"]), (&json!("active"), &json!("domain.not_routed")), "{domain}");
    assert_eq!(domain["ready"], true, "{domain}");
    assert!(domain["problem"]["action"].as_str().unwrap().contains(target.as_str().unwrap()), "{domain}");
    let issued = product.ca_counters().await["finalized_orders"].clone();

    product.set_dns(&[json!({ "name": NAME, "type": "CNAME", "ttl": 1, "data": [target] })]).await;
    let domain = until("the domain has no problem any more", within, async || {
        let domain = product.domain(NAME, "brand").await;
        domain["problem"].is_null().then_some(domain)
    })
    .await;
    assert_eq!(record(&domain, NAME)["seen"], true, "{domain}");
    assert!(record(&domain, &challenge)["removable"].as_str().unwrap().contains("when the domain is removed"));
    sleep(OLD_VALUES_LAST).await;
    over.store(true, Ordering::Relaxed);
    coming.await.unwrap();

    let met = met.lock().unwrap().clone();
    let failed: Vec<_> = met.iter().filter(|(_, outcome)| outcome.is_err()).collect();
    let count = |kind| met.iter().filter(|(_, outcome)| *outcome == Ok(kind)).count();
    let (old, ours) = (count(Met::Old), count(Met::Ours));
    println!("{} visits: {old} at the other server, {ours} here, {} failed", met.len(), failed.len());
    assert!(failed.is_empty(), "{failed:?}; logs are in {}", product.folder().display());
    assert!(old >= 20 && ours >= 20, "{old} and {ours} visits show nothing");
    assert_eq!(issued, 1, "one certificate");
    assert_eq!(product.ca_counters().await["finalized_orders"], issued, "the switch costs none");
    let left = resolver(dns).txt_lookup(format!("{}.", record(&domain, &challenge)["value"].as_str().unwrap())).await;
    assert!(left.as_ref().is_err_and(|error| error.is_nx_domain()), "the answers of the challenges were taken away: {left:?}");
}
