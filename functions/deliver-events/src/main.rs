//! The deliverer of webhooks as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::sync::Arc;

use deliver_events::{BUDGET, DeliverEvents, HttpsSender};
use domains::{Clock, SystemClock};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;
use steps::settings::{ProcessEnv, read};
use storage::aws::{Access, AwsHome, Places};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let places = read(&ProcessEnv, |read| Places::read(|name, what| read.text(name, what)))?;
    tracing::info!(?places, "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = Arc::new(AwsHome::open(&Access::Ambient, places, clock.clone()).await);
    let sender = Arc::new(HttpsSender::new(None, false)?);
    let deliverer = DeliverEvents { documents: home.clone(), events: home, sender, clock, budget: BUDGET };
    run(service_fn(|event: LambdaEvent<Value>| async { Ok::<_, Error>(deliverer.handle(event.payload).await?) })).await
}
