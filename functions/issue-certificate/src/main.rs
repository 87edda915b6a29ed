//! The order at the CA as a Lambda: environment in, handler running.
//!
//! The home is the one on AWS: here it is chosen, and nowhere else.

use std::{sync::Arc, time::Duration};

use aws_lambda_events::event::sqs::SqsEvent;
use bundles::SealPublicKey;
use domains::{AnswerZone, Clock, Failover, IssuancePolicy, Issuer, LookSchedule, SystemClock, ledger::CaLimits};
use issue_certificate::IssueCertificate;
use issuers::acme::{AcmeConfig, AcmeIssuer, CaPair, named_in};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use lookups::{LookupConfig, Lookups};
use steps::{
    handle_batch,
    settings::{ProcessEnv, read},
};
use storage::aws::{Access, AwsHome, Places, Route53Zone, Secrets};
use telemetry::LogFormat;

/// How long one worker may hold an order: longer than the CA and a hosted zone may keep it, shorter than its message stays invisible.
const LEASE: Duration = Duration::from_secs(120);

/// How long one step may ask the CA and the hosted zone: longer than a change of the zone may take (60 s); with one more request, shorter than
/// the lease.
const BUDGET: Duration = Duration::from_secs(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    telemetry::init(LogFormat::Json);
    let (places, zone, dns, directory, root, account, seal_key, answers, second) = read(&ProcessEnv, |read| {
        let (places, zone, dns) = (Places::read(|name, what| read.text(name, what)), read.zone(), read.dns());
        let (directory, root) = (read.acme_directory(), read.acme_root());
        let (account, seal_key) = (read.acme_account_secret(), read.seal_public_key_secret());
        // Without an answer zone every name is proved by http-01, and wildcards by nothing.
        let answers = read.optional("NAMEPLATE_AWS_ANSWERS_HOSTED_ZONE", |text| Ok(text.to_owned()));
        let second = read.second_ca();
        Some((places?, zone?, dns?, directory?, root?, account?, seal_key?, answers?, second?))
    })?;
    tracing::info!(
        ?places,
        ?zone,
        ?dns,
        directory,
        account,
        seal_key,
        answers,
        second = second.as_ref().map(|ca| &ca.directory),
        "settings"
    );
    let secrets = Secrets::open(&Access::Ambient).await;
    let account = secrets.text(&account).await?;
    let seal_key: SealPublicKey = serde_json::from_str(secrets.text(&seal_key).await?.expose())?;
    let answers = match answers {
        Some(hosted_zone) => Some(Arc::new(Route53Zone::open(&Access::Ambient, hosted_zone).await) as Arc<dyn AnswerZone>),
        None => None,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ca_limits = CaLimits::of_directory(&directory);
    let home = Arc::new(AwsHome::open(&Access::Ambient, places, clock.clone()).await);
    let second_ca_limits = second.as_ref().map(|ca| CaLimits::of_directory(&ca.directory));
    let open = |directory, root, account: &str| {
        let ca = AcmeConfig::new(directory, seal_key.clone(), clock.clone());
        AcmeIssuer::open(AcmeConfig { extra_root_pem: root, answers: answers.clone(), step_budget: BUDGET, ..ca }, account)
    };
    let first = open(directory, root, account.expose())?;
    let second = match second {
        Some(ca) => Some(open(ca.directory, ca.root, secrets.text(&ca.account_secret).await?.expose())?),
        None => None,
    };
    let zone = named_in(&first, second.as_ref(), &zone);
    // The edge answers http-01 with one account's key.
    let http_01 = second.as_ref().is_none_or(|second| second.thumbprint() == first.thumbprint());
    let failover = second.is_some().then(|| Failover { http_01, ..Failover::default() });
    let second = second.map(|issuer| Arc::new(issuer) as Arc<dyn Issuer>);
    let lookups = LookupConfig::asking(dns.resolver).with(dns.authority_port, dns.allow_non_global);
    let issue = IssueCertificate {
        table: home.clone(),
        documents: home.clone(),
        limits: home,
        ca_limits,
        second_ca_limits,
        has_answer_zone: answers.is_some(),
        issuer: Arc::new(CaPair::new(Arc::new(first), second)),
        lookup: Arc::new(Lookups::new(lookups)),
        zone,
        looks: LookSchedule::default(),
        policy: IssuancePolicy { lease: LEASE, failover, ..IssuancePolicy::default() },
        clock,
    };
    run(service_fn(|event: LambdaEvent<SqsEvent>| async { Ok::<_, Error>(handle_batch(&issue, event.payload).await) })).await
}
