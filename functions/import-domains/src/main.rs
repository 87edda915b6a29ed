//! The worker of imports as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::sync::Arc;

use domains::{Clock, HostnamePolicy, LookSchedule, SystemClock};
use import_domains::{BUDGET, ImportDomains};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use register_domain::{Api, Memory, Pace, SystemEntropy};
use serde_json::Value;
use steps::settings::{ProcessEnv, read};
use storage::aws::{Access, AwsHome, Places};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let (places, zone, special) = read(&ProcessEnv, |read| {
        let (places, zone) = (Places::read(|name, what| read.text(name, what)), read.zone());
        // As the API's own: the same hostnames are refused.
        let special =
            read.optional("NAMEPLATE_HOSTNAMES_ALLOW_SPECIAL_USE", |text| Ok(text.split(',').map(str::trim).map(str::to_owned).collect()));
        Some((places?, zone?, special?.unwrap_or_default()))
    })?;
    tracing::info!(?places, ?zone, ?special, "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = Arc::new(AwsHome::open(&Access::Ambient, places, clock.clone()).await);
    let api = Api {
        table: home.clone(),
        listings: home.clone(),
        events: home.clone(),
        documents: home.clone(),
        callers: home.clone(),
        limits: home,
        ca_limits: Vec::new(),
        policy: HostnamePolicy { operator_zones: vec![zone.zone.clone()], tenant_wildcards: false, allowed_special_use: special },
        zone,
        looks: LookSchedule::default(),
        pace: Pace::default(),
        clock,
        entropy: Arc::new(SystemEntropy),
        memory: Memory::default(),
    };
    let imports = ImportDomains { api: Arc::new(api), budget: BUDGET };
    run(service_fn(|event: LambdaEvent<Value>| async { Ok::<_, Error>(imports.handle(event.payload).await?) })).await
}
