//! The deliverer of webhooks as a Lambda: environment in, handler running.
//!
//! The home is the local one, a folder that one process holds at a time; the home on AWS will be chosen here, and nowhere else.

use std::sync::Arc;

use deliver_events::{BUDGET, DeliverEvents, HttpsSender};
use domains::{Clock, SystemClock};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use serde_json::Value;
use steps::settings::{ProcessEnv, read};
use storage::local::{LocalConfig, LocalHome};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let folder = read(&ProcessEnv, |read| read.home())?;
    tracing::info!(home = %folder.display(), "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = Arc::new(LocalHome::open(LocalConfig::new(folder, clock.clone()))?);
    let sender = Arc::new(HttpsSender::new(None, false)?);
    let deliverer = DeliverEvents { documents: home.clone(), events: home, sender, clock, budget: BUDGET };
    run(service_fn(|event: LambdaEvent<Value>| async { Ok::<_, Error>(deliverer.handle(event.payload).await?) })).await
}
