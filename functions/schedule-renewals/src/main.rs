//! The timer as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::{sync::Arc, time::Duration};

use bundles::SealPublicKey;
use domains::{Clock, SystemClock};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use schedule_renewals::{EdgeKeys, ScheduleRenewals};
use serde_json::Value;
use steps::settings::{ProcessEnv, read};
use storage::aws::{Access, AwsHome, Places, Secrets};
use telemetry::LogFormat;

/// How long what is due is left to the message that its own change sent: longer than a queue usually takes, shorter than a tick.
const GRACE: Duration = Duration::from_secs(30);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let (places, seal_key, shared_tickets) = read(&ProcessEnv, |read| {
        let places = Places::read(|name, what| read.text(name, what));
        let seal_key = read.seal_public_key_secret();
        let shared_tickets = read.shared_tickets();
        Some((places?, seal_key?, shared_tickets?))
    })?;
    tracing::info!(?places, seal_key, shared_tickets, "settings");
    let seal_to: SealPublicKey = serde_json::from_str(Secrets::open(&Access::Ambient).await.text(&seal_key).await?.expose())?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = Arc::new(AwsHome::open(&Access::Ambient, places, clock.clone()).await);
    let keys = EdgeKeys { bucket: home.clone(), seal_to, shared_tickets };
    let timer = ScheduleRenewals { due: home.clone(), queue: home.clone(), marks: home, keys, clock, grace: GRACE };
    run(service_fn(|event: LambdaEvent<Value>| async { Ok::<_, Error>(timer.handle(event.payload).await?) })).await
}
