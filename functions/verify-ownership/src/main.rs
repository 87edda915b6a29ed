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
    let (places, zone, resolver) = read(&ProcessEnv, |read| {
        let (places, zone, resolver) = (Places::read(|name, what| read.text(name, what)), read.zone(), read.resolver());
        Some((places?, zone?, resolver?))
    })?;
    tracing::info!(?places, ?zone, %resolver, "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // A resolver on loopback is the whole DNS of a machine of one's own.
    let lookups = if resolver.ip().is_loopback() { LookupConfig::on_loopback(resolver) } else { LookupConfig::asking(resolver) };
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
