//! The change feed's reader as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::sync::Arc;

use aws_lambda_events::event::dynamodb::Event;
use domains::{Clock, SystemClock};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use route_changes::RouteChanges;
use steps::settings::{ProcessEnv, read};
use storage::aws::{Access, AwsHome, Places};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let places = read(&ProcessEnv, |read| Places::read(|name, what| read.text(name, what)))?;
    tracing::info!(?places, "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = AwsHome::open(&Access::Ambient, places, clock.clone()).await;
    let route = RouteChanges { queue: Arc::new(home), clock };
    run(service_fn(|event: LambdaEvent<Event>| async { Ok::<_, Error>(route.handle(event.payload).await) })).await
}
