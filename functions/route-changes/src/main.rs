//! The change feed's reader as a Lambda: environment in, handler running.
//!
//! The home is the local one, a folder that one process holds at a time; the home on AWS will be chosen here, and nowhere else.

use std::sync::Arc;

use aws_lambda_events::event::dynamodb::Event;
use domains::{Clock, SystemClock};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use route_changes::RouteChanges;
use steps::settings::{ProcessEnv, read};
use storage::local::{LocalConfig, LocalHome};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let folder = read(&ProcessEnv, |read| read.home())?;
    tracing::info!(home = %folder.display(), "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = LocalHome::open(LocalConfig::new(folder, clock.clone()))?;
    let route = RouteChanges { queue: Arc::new(home), clock };
    run(service_fn(|event: LambdaEvent<Event>| async { Ok::<_, Error>(route.handle(event.payload).await) })).await
}
