//! The API as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::sync::Arc;

use domains::{Clock, HostnamePolicy, LookSchedule, SystemClock, ledger::CaLimits};
use lambda_http::{Error, Request, run, service_fn};
use register_domain::{Api, Memory, Pace, SystemEntropy, answer};
use steps::settings::{ProcessEnv, read};
use storage::aws::{Access, AwsHome, Places};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let (places, zone, special, ca_limits) = read(&ProcessEnv, |read| {
        let (places, zone) = (Places::read(|name, what| read.text(name, what)), read.zone());
        // Names under special-use domains get no public certificate; on a machine of one's own some may be claimed all the same.
        let special =
            read.optional("NAMEPLATE_HOSTNAMES_ALLOW_SPECIAL_USE", |text| Ok(text.split(',').map(str::trim).map(str::to_owned).collect()));
        // Whose limits are shown; without it there are none to show.
        let directory = read.optional("NAMEPLATE_ACME_DIRECTORY", |url| Ok(CaLimits::of_directory(url)));
        Some((places?, zone?, special?.unwrap_or_default(), directory?))
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
        ca_limits: ca_limits.into_iter().collect(),
        policy: HostnamePolicy { operator_zones: vec![zone.zone.clone()], tenant_wildcards: false, allowed_special_use: special },
        zone,
        looks: LookSchedule::default(),
        pace: Pace::default(),
        clock,
        entropy: Arc::new(SystemEntropy),
        memory: Memory::default(),
    };
    api.prepare().await.map_err(|refusal| refusal.detail)?;
    run(service_fn(|request: Request| async { Ok::<_, Error>(answer(&api, request).await) })).await
}
