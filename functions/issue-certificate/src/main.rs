//! The order at the CA as a Lambda: environment in, handler running.
//!
//! The home is the local one, a folder that one process holds at a time; the home on AWS will be chosen here, and nowhere else.

use std::sync::Arc;

use aws_lambda_events::event::sqs::SqsEvent;
use bundles::SealPublicKey;
use domains::{Clock, IssuancePolicy, LookSchedule, SystemClock, ledger::CaLimits};
use issue_certificate::IssueCertificate;
use issuers::acme::{AcmeConfig, AcmeIssuer};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use lookups::{LookupConfig, Lookups};
use steps::{
    handle_batch,
    settings::{ProcessEnv, read},
};
use storage::local::{LocalConfig, LocalHome};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let (folder, zone, resolver, directory, root, account, seal_key) = read(&ProcessEnv, |read| {
        let (folder, zone, resolver) = (read.home(), read.zone(), read.resolver());
        let (directory, root, account) = (read.acme_directory(), read.acme_root(), read.acme_account());
        let seal_key = read.seal_public_key(|text| serde_json::from_str::<SealPublicKey>(text).map_err(|error| error.to_string()));
        Some((folder?, zone?, resolver?, directory?, root?, account?, seal_key?))
    })?;
    tracing::info!(home = %folder.display(), ?zone, %resolver, directory, seal_key = seal_key.id, "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ca_limits = CaLimits::of_directory(&directory);
    let home = Arc::new(LocalHome::open(LocalConfig::new(folder, clock.clone()))?);
    let acme = AcmeConfig { extra_root_pem: root, answers: Some(home.clone()), ..AcmeConfig::new(directory, seal_key, clock.clone()) };
    // A resolver on loopback is the whole DNS of a machine of one's own.
    let lookups = if resolver.ip().is_loopback() { LookupConfig::on_loopback(resolver) } else { LookupConfig::asking(resolver) };
    let issue = IssueCertificate {
        table: home.clone(),
        documents: home.clone(),
        limits: home,
        ca_limits,
        second_ca_limits: None,
        issuer: Arc::new(AcmeIssuer::open(acme, &account)?),
        lookup: Arc::new(Lookups::new(lookups)),
        zone,
        looks: LookSchedule::default(),
        policy: IssuancePolicy::default(),
        clock,
    };
    run(service_fn(|event: LambdaEvent<SqsEvent>| async { Ok::<_, Error>(handle_batch(&issue, event.payload).await) })).await
}
