//! The look at DNS as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::sync::Arc;

use aws_lambda_events::event::sqs::SqsEvent;
use domains::{Clock, LookSchedule, SystemClock};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use lookups::{LookupConfig, Lookups};
use steps::{
    handle_batch,
    settings::{ProcessEnv, read},
};
use storage::aws::{Access, AwsHome, Places};
use telemetry::LogFormat;
use verify_ownership::VerifyOwnership;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let (places, zone, dns) = read(&ProcessEnv, |read| {
        let (places, zone, dns) = (Places::read(|name, what| read.text(name, what)), read.zone(), read.dns());
        let accounts = read.acme_account_urls();
        accounts.and(Some((places?, zone?, dns?)))
    })?;
    tracing::info!(?places, ?zone, ?dns, "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let lookups = LookupConfig::asking(dns.resolver).with(dns.authority_port, dns.allow_non_global);
    let home = Arc::new(AwsHome::open(&Access::Ambient, places, clock.clone()).await);
    let verify = VerifyOwnership {
        table: home.clone(),
        documents: home,
        lookup: Arc::new(Lookups::new(lookups)),
        zone,
        looks: LookSchedule::default(),
        clock,
    };
    run(service_fn(|event: LambdaEvent<SqsEvent>| async { Ok::<_, Error>(handle_batch(&verify, event.payload).await) })).await
}
