//! The worker of imports as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::sync::Arc;

use domains::{Clock, SystemClock};
use import_domains::{BUDGET, ImportDomains};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use register_domain::Api;
use serde_json::Value;
use steps::settings::{ProcessEnv, read};
use storage::aws::{Access, AwsHome, Places};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let (places, zone, hostnames) = read(&ProcessEnv, |read| {
        let (places, zone, hostnames) = (Places::read(|name, what| read.text(name, what)), read.zone(), read.hostnames());
        Some((places?, zone?, hostnames?))
    })?;
    tracing::info!(?places, ?zone, ?hostnames, "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = Arc::new(AwsHome::open(&Access::Ambient, places, clock.clone()).await);
    let api = Api::over(home, zone, hostnames, Vec::new(), clock);
    let imports = ImportDomains { api: Arc::new(api), budget: BUDGET };
    run(service_fn(|event: LambdaEvent<Value>| async { Ok::<_, Error>(imports.handle(event.payload).await?) })).await
}
