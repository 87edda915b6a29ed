//! The writer of the bucket as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::sync::Arc;

use aws_lambda_events::event::sqs::SqsEvent;
use domains::{Clock, SystemClock};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use publish_site::PublishSite;
use steps::settings::{ProcessEnv, read};
use storage::aws::{Access, AwsHome, Places};
use telemetry::LogFormat;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let (places, thumbprints) = read(&ProcessEnv, |read| {
        let places = Places::read(|name, what| read.text(name, what));
        // The thumbprints and not the account: whoever writes the bucket needs no key that can order.
        let thumbprints = read.list("NAMEPLATE_ACME_THUMBPRINTS", "the thumbprints of the accounts at the CA", thumbprint);
        Some((places?, thumbprints?))
    })?;
    tracing::info!(?places, ?thumbprints, "settings");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let home = Arc::new(AwsHome::open(&Access::Ambient, places, clock.clone()).await);
    let publish = PublishSite { table: home.clone(), bucket: home, clock };
    publish.publish_edge_settings(&thumbprints).await?;
    run(service_fn(|event: LambdaEvent<SqsEvent>| async { Ok::<_, Error>(publish.handle_batch(event.payload).await) })).await
}

/// SHA-256 in base64url without padding (RFC 7638, section 3).
fn thumbprint(text: &str) -> Result<String, String> {
    let fine = text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if fine { Ok(text.to_owned()) } else { Err(format!("`{text}` is not the thumbprint of an account: 43 letters, digits, `-` and `_`")) }
}
