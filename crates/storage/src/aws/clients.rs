//! How AWS is asked: where, as whom, how long and how often.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::config::Credentials;

/// How long a connection may take to come about.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How long one attempt may take.
pub(super) const ATTEMPT: Duration = Duration::from_secs(5);
/// How long a call may take with all its attempts: less than any step's deadline.
const CALL: Duration = Duration::from_secs(15);
/// How often a call is attempted.
const ATTEMPTS: u32 = 4;
/// The pause before the second attempt; it doubles, with jitter, up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// The longest pause between two attempts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// Where AWS is and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// As the SDKs of every language find it: environment, profile, container or function role.
    Ambient,
    /// A stand-in for AWS at this URL, which believes anyone.
    StandIn {
        /// Such as `http://127.0.0.1:4566`.
        endpoint: String,
    },
}

/// The region a stand-in plays.
const STAND_IN_REGION: &str = "eu-central-1";

/// What every client is made from.
pub(super) async fn sdk_config(access: &Access) -> SdkConfig {
    let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(FIRST_BACKOFF).with_max_backoff(LONGEST_BACKOFF);
    let loader = aws_config::defaults(BehaviorVersion::latest()).timeout_config(timeouts(Duration::ZERO)).retry_config(retries);
    match access {
        Access::Ambient => loader.load().await,
        Access::StandIn { endpoint } => {
            let anyone = Credentials::new("test", "test", None, None, "stand-in");
            loader.endpoint_url(endpoint).region(Region::new(STAND_IN_REGION)).credentials_provider(anyone).load().await
        }
    }
}

/// The timeouts of a call that its peer may leave unanswered for `quiet` on purpose.
pub(super) fn timeouts(quiet: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ATTEMPT + quiet).operation_timeout(CALL + quiet).build()
}
