//! `nameplate serve`: one real machine with a real CA and real DNS.
//!
//! Arrives: a [`Config`], and the sockets that a supervisor holds. Leaves: the [`Product`], in the world as it is. Goes wrong: terms that
//! nobody agreed to, an account that was not made, and whatever the product says; each with what to do.

use std::sync::Arc;

use domains::{Clock, SystemClock};
use lookups::LookupConfig;

use crate::{
    accounts::{CaPlace, Cas},
    config::Config,
    consent,
    failure::Failure,
    files::Endpoints,
    product::{self, Ground, Product, Sockets, StartError},
};

/// The running product.
pub(crate) struct Serving {
    pub(crate) endpoints: Endpoints,
    product: Product,
}

impl Serving {
    /// Starts it, or says what must be done first.
    pub(crate) async fn start(config: &Config, sockets: Sockets) -> Result<Self, Failure> {
        refuse_without_setup(config).map_err(started)??;
        let (Some(origin), Some(resolver)) = (&config.origin, config.dns_server) else {
            return Err(Failure::configuration("origin and dns.server must be set"));
        };
        let ground = Ground::lay(config, origin, sockets).await.map_err(started)?;
        let issuers = ground.cas(config, CaPlace::of(&config.acme).map_err(started)?).and_then(|cas| cas.open(ground.answer_zone()));
        let issuers = issuers.map_err(started)?;
        let product = Product::assemble(ground, config, issuers, lookups_of(config, resolver)).await.map_err(started)?;
        let endpoints = product.endpoints(config);
        endpoints.store(&config.data).map_err(|error| started(error.into()))?;
        Ok(Self { endpoints, product })
    }

    /// Stops everything, and says whether all of it ended in time.
    pub(crate) async fn stop(self) -> bool {
        self.product.stop().await
    }
}

/// Whom looks ask on the public internet.
pub(crate) fn lookups_of(config: &Config, resolver: std::net::SocketAddr) -> LookupConfig {
    LookupConfig { authority_port: config.authority_port, allow_non_global: config.allow_non_global, ..LookupConfig::asking(resolver) }
}

fn started(error: StartError) -> Failure {
    Failure::failed(error.to_string(), "`nameplate doctor` with the same configuration says what is wrong with this machine")
}

/// Nobody's terms are agreed to by starting a program: `setup` asks, once.
fn refuse_without_setup(config: &Config) -> Result<Result<(), Failure>, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let Some(seal_key) = product::read_seal_key(&config.data)? else { return Ok(Err(not_set_up("there are no keys in the data folder"))) };
    let cas = Cas::configured(config, CaPlace::of(&config.acme)?, seal_key.public(), &clock)?;
    for ca in cas.all() {
        let directory = &ca.acme.directory_url;
        if !consent::is_given(&config.data, directory)? {
            return Ok(Err(not_set_up(&format!("nobody agreed to the terms of the CA at {directory}"))));
        }
        if ca.account()?.is_none() {
            return Ok(Err(not_set_up(&format!("there is no account at {directory}"))));
        }
    }
    Ok(Ok(()))
}

fn not_set_up(what: &str) -> Failure {
    let mut failure = Failure::configuration(format!("{what}, and `serve` makes neither"));
    failure.hint = Some("run `nameplate setup` with the same configuration, as the same user".to_owned());
    failure
}
