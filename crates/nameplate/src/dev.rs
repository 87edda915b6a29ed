//! `nameplate dev`: the whole product on loopback, with no account anywhere.
//!
//! Arrives: a [`Config`]. Leaves: the [`Product`], and around it a world of its own: demo DNS, local CA and demo origin, each unless the
//! configuration names another; everything is kept in the data folder, so that a stop and a start carry on. Goes wrong: as the product.

use std::net::SocketAddr;

use lookups::LookupConfig;
use tokio::task::JoinHandle;

use crate::{
    accounts::CaPlace,
    config::Config,
    demo_origin,
    files::Endpoints,
    product::{Ground, Product, Sockets, StartError, listen, local, start_failed},
};

/// The running product in its own world.
pub(crate) struct Dev {
    pub(crate) endpoints: Endpoints,
    product: Product,
    ca: Option<dev_ca::DevCa>,
    dns: Option<dev_dns::DevDns>,
    origin: Option<JoinHandle<()>>,
}

impl Dev {
    /// Starts everything, in the order in which the parts need each other.
    pub(crate) async fn start(config: &Config) -> Result<Self, StartError> {
        let (origin_url, origin) = start_origin(config).await?;
        let ground = Ground::lay(config, &origin_url, Sockets::default()).await?;
        let dns = start_dns(config, ground.answers()).await?;
        let resolver = dns.as_ref().map_or(config.dns_server, |dns| Some(dns.dns_addr())).unwrap_or(config.listen.dns);
        let ca = start_ca(config, resolver, ground.http_port()).await?;
        let place = match &ca {
            Some(ca) => CaPlace { directory: ca.directory_url(), root_pem: Some(ca.root_pem().to_owned()) },
            None => CaPlace::of(&config.acme)?,
        };
        let cas = ground.cas(config, place)?;
        // A demo's CA is on this machine; whoever names another one agrees to its terms by that.
        cas.make_missing_accounts().await?;
        let issuers = cas.open(ground.answer_zone())?;
        let lookup = match config.dns_server.is_some_and(|server| !server.ip().is_loopback()) {
            true => LookupConfig::asking(resolver),
            false => LookupConfig::on_loopback(resolver),
        };
        let product = Product::assemble(ground, config, issuers, lookup).await?;

        let mut endpoints = product.endpoints(config);
        endpoints.dns_admin = dns.as_ref().and_then(dev_dns::DevDns::admin_addr).map(|address| format!("http://{address}"));
        if let Some(ca) = &ca {
            endpoints.ca_root = ca.root_path().map(|path| path.display().to_string()).or(endpoints.ca_root);
            endpoints.ca_directory = ca.directory_url();
            endpoints.ca_control = ca.control_url();
        }
        endpoints.store(&config.data)?;
        Ok(Self { endpoints, product, ca, dns, origin })
    }

    /// Stops everything, and says whether all of it ended in time.
    pub(crate) async fn stop(self) -> bool {
        let mut clean = self.product.stop().await;
        if let Some(origin) = self.origin {
            // It only echoes: nothing of its is lost.
            origin.abort();
        }
        if let Some(ca) = self.ca {
            ca.shutdown().await;
        }
        if let Some(dns) = self.dns
            && let Err(error) = dns.shutdown().await
        {
            tracing::warn!(error = telemetry::error_chain(&error), "the demo DNS did not stop cleanly");
            clean = false;
        }
        clean
    }
}

async fn start_origin(config: &Config) -> Result<(String, Option<JoinHandle<()>>), StartError> {
    if let Some(url) = &config.origin {
        return Ok((url.clone(), None));
    }
    let listener = listen(config.listen.origin, "the demo origin", "listen.origin").await?;
    let address = local(&listener, config.listen.origin);
    Ok((format!("http://{address}"), Some(demo_origin::serve(listener))))
}

async fn start_dns(config: &Config, answers: Option<SocketAddr>) -> Result<Option<dev_dns::DevDns>, StartError> {
    if config.dns_server.is_some() {
        return Ok(None);
    }
    let settings = dev_dns::Config {
        dns: config.listen.dns,
        admin: Some(config.listen.dns_admin),
        file: Some(config.data.join("dns.json")),
        apexes: vec![config.zone.zone.to_string()],
        forwards: answers.map(|answers| (config.zone.answers_zone(), answers)).into_iter().collect(),
        ..dev_dns::Config::default()
    };
    let dns = dev_dns::DevDns::start(settings).await.map_err(|error| start_failed("the demo DNS")(&error))?;
    seed_zone(&dns, config).await?;
    Ok(Some(dns))
}

/// The operator's own records: one wildcard leads every claim's target to the edge.
async fn seed_zone(dns: &dev_dns::DevDns, config: &Config) -> Result<(), StartError> {
    let failed = |detail: String| StartError::Start { what: "the demo DNS", detail };
    let targets = format!("*.{}", config.zone.targets_zone());
    for (record_type, addresses) in [
        (dev_dns::RecordType::A, config.zone.edge_addresses.iter().filter(|address| address.is_ipv4()).collect::<Vec<_>>()),
        (dev_dns::RecordType::Aaaa, config.zone.edge_addresses.iter().filter(|address| address.is_ipv6()).collect()),
    ] {
        let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let data: Vec<&str> = texts.iter().map(String::as_str).collect();
        if !data.is_empty() {
            dns.zone().set(&targets, record_type, &data).map_err(|error| failed(error.to_string()))?;
        }
    }
    dns.zone().saved().await.map_err(|error| failed(error.to_string()))
}

async fn start_ca(config: &Config, dns: SocketAddr, http_port: u16) -> Result<Option<dev_ca::DevCa>, StartError> {
    if config.acme.directory.is_some() {
        return Ok(None);
    }
    let settings = dev_ca::Config {
        listen: config.listen.ca,
        state: Some(config.data.join("ca")),
        dns,
        http_port,
        control: Some(config.listen.ca_control),
        lifetime: config.certificate_lifetime,
        limits: config.acme_limits.of_local_ca(),
        ..dev_ca::Config::default()
    };
    dev_ca::DevCa::start(settings).await.map(Some).map_err(|error| start_failed("the local CA")(&error))
}
