//! The API as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::sync::Arc;

use domains::{Clock, OriginName, SystemClock, ledger::CaLimits};
use lambda_http::{Error, Request, run, service_fn};
use register_domain::{Api, answer};
use steps::settings::{ProcessEnv, read};
use storage::aws::{Access, AwsHome, Places};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let (places, zone, hostnames, ca_limits, origins) = read(&ProcessEnv, |read| {
        let (places, zone, hostnames) = (Places::read(|name, what| read.text(name, what)), read.zone(), read.hostnames());
        // Whose limits are shown; without it there are none to show.
        let first = read.optional("NAMEPLATE_ACME_DIRECTORY", |url| Ok(CaLimits::of_directory(url)));
        let second = read.second_directory().map(|url| url.map(|url| CaLimits::of_directory(&url)));
        // As the edge's EDGE_ORIGINS names them.
        let origins = read.optional("NAMEPLATE_ORIGINS", |text| {
            text.split(',').map(|name| OriginName::parse(name.trim()).map_err(|error| error.to_string())).collect::<Result<_, _>>()
        });
        let ca_limits: Vec<CaLimits> = first?.into_iter().chain(second?).collect();
        Some((places?, zone?, hostnames?, ca_limits, origins?.unwrap_or_default()))
    })?;
    tracing::info!(?places, ?zone, ?hostnames, ?origins, "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = Arc::new(AwsHome::open(&Access::Ambient, places, clock.clone()).await);
    let api = Api { origins, ..Api::over(home, zone, hostnames, ca_limits, clock) };
    api.prepare().await.map_err(|refusal| refusal.detail)?;
    run(service_fn(|request: Request| async { Ok::<_, Error>(answer(&api, request).await) })).await
}
