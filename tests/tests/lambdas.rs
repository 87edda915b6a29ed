//! The functions as Lambdas: each one's real program, over a stand-in for AWS, invoked as AWS invokes it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
    time::Duration,
};

use bundles::SealKeyPair;
use domains::{Callers, Clock, Role, Step, SystemClock};
use issuers::acme::{AcmeAccount, AcmeConfig};
use register_domain::key_sha256;
use serde_json::{Value, json};
use storage::{
    aws::AwsHome,
    consumers::{Message, QueueConsumer},
};
use system_tests::{
    aws::Aws,
    lambda::Lambda,
    origin::Origin,
    peers::{LoneEdge, Peers, edit_dns},
    process::Folder,
    product::records_of,
    visitor::Visitor,
    waiting::until,
};

/// A message stays with its function for longer than an invocation may take.
const VISIBILITY: Duration = Duration::from_secs(90);
/// How long one hostname may take from its registration to its first visitor.
const PATIENCE: Duration = Duration::from_secs(90);

fn sample(path: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("events").join(path);
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// What AWS does between the functions: it shows them the stream and the queues.
struct Between {
    home: AwsHome,
    route: Lambda,
    steps: [(Step, &'static str, Lambda); 3],
    shown: HashSet<String>,
    invoked: Vec<&'static str>,
}

impl Between {
    /// Shows what is new in the stream to route-changes, as an event source mapping does.
    async fn stream(&mut self, aws: &Aws) {
        let mut records = aws.stream_records().await;
        records.retain(|record| !self.shown.contains(record["dynamodb"]["SequenceNumber"].as_str().unwrap()));
        if records.is_empty() {
            return;
        }
        let told = records.iter().map(|record| record["dynamodb"]["SequenceNumber"].as_str().unwrap().to_owned());
        self.shown.extend(told.collect::<Vec<_>>());
        let answer = self.route.answer(json!({ "Records": records })).await;
        assert_eq!(answer["batchItemFailures"], json!([]), "{answer}");
        self.invoked.push("route-changes");
    }

    /// Hands each queue's messages to its function, and deletes those that it does not report.
    async fn queues(&mut self) {
        for (step, name, function) in &self.steps {
            let messages = self.home.receive(*step, 10, VISIBILITY, Duration::ZERO).await.unwrap();
            if messages.is_empty() {
                continue;
            }
            let answer = function.answer(sqs_event(name, &messages)).await;
            let failed: Vec<&str> =
                answer["batchItemFailures"].as_array().unwrap().iter().map(|failure| failure["itemIdentifier"].as_str().unwrap()).collect();
            for message in messages {
                match failed.contains(&message.id.as_str()) {
                    true => self.home.change_visibility(&message.receipt, Duration::from_secs(1)).await.unwrap(),
                    false => self.home.delete(&message.receipt).await.unwrap(),
                }
            }
            self.invoked.push(name);
        }
    }
}

/// The sample of this function's event with these messages in it.
fn sqs_event(name: &str, messages: &[Message]) -> Value {
    let mut event = sample(&format!("sqs/{name}.json"));
    let pattern = event["Records"][0].clone();
    let records = messages.iter().map(|message| {
        let mut record = pattern.clone();
        record["messageId"] = json!(message.id);
        record["body"] = json!(message.body);
        record
    });
    event["Records"] = records.collect();
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hostname_travels_through_the_real_lambdas_into_the_bucket_and_is_served() {
    let folder = Folder::new();
    let aws = Aws::start(folder.path()).await;
    let home = aws.home().await;
    let peers = Peers::start(folder.path()).await;
    let origin = Origin::start().await;

    // What an operator makes once: an account at the CA, a seal key, an API key.
    let pair = SealKeyPair::generate().unwrap();
    let seal_key = folder.path().join("seal.json");
    system_tests::published::write_secret(&seal_key, &pair.to_json());
    let (directory, root) = (peers.setting("NAMEPLATE_ACME_DIRECTORY"), peers.setting("NAMEPLATE_ACME_ROOT"));
    let config = AcmeConfig {
        extra_root_pem: Some(std::fs::read_to_string(&root).unwrap()),
        ..AcmeConfig::new(&directory, pair.public().clone(), std::sync::Arc::new(SystemClock) as std::sync::Arc<dyn Clock>)
    };
    let account = AcmeAccount::create(&config).await.unwrap();
    aws.keep_secret("nameplate/account", account.to_json()).await;
    aws.keep_secret("nameplate/seal-key", &serde_json::to_string(pair.public()).unwrap()).await;
    let operator = domains::Caller { role: Role::Operator, tenant: None };
    home.admit(&key_sha256("np_sample_key_of_the_operator"), &operator).await.unwrap();

    let dns_port = peers.dns.rsplit_once(':').unwrap().1;
    let mut environment = aws.environment();
    for (name, value) in [
        ("NAMEPLATE_ZONE_NAME", "edge.nameplate.test"),
        ("NAMEPLATE_ZONE_ADDRESSES", "127.0.0.1"),
        ("NAMEPLATE_DNS_SERVER", &peers.dns),
        ("NAMEPLATE_DNS_AUTHORITY_PORT", dns_port),
        ("NAMEPLATE_DNS_ALLOW_NON_GLOBAL", "on"),
        ("NAMEPLATE_ACME_ACCOUNT_URL", account.url()),
        ("NAMEPLATE_ACME_DIRECTORY", &directory),
        ("NAMEPLATE_ACME_ROOT", &root),
        ("NAMEPLATE_ACME_ACCOUNT_SECRET", "nameplate/account"),
        ("NAMEPLATE_SEAL_PUBLIC_KEY_SECRET", "nameplate/seal-key"),
        ("NAMEPLATE_ACME_THUMBPRINTS", account.thumbprint()),
    ] {
        environment.push((name.to_owned(), value.to_owned()));
    }
    let start = async |name| Lambda::start(name, &environment, folder.path()).await;
    let register = start("register-domain").await;
    let timer = start("schedule-renewals").await;
    let mut between = Between {
        home: home.clone(),
        route: start("route-changes").await,
        steps: [
            (Step::VerifyOwnership, "verify-ownership", start("verify-ownership").await),
            (Step::IssueCertificate, "issue-certificate", start("issue-certificate").await),
            (Step::PublishSite, "publish-site", start("publish-site").await),
        ],
        shown: HashSet::new(),
        invoked: Vec::new(),
    };
    let mut source = aws.environment();
    source.push(("EDGE_SOURCE_BUCKET".to_owned(), format!("s3://{}", aws.places.bucket)));
    let http = peers.setting("NAMEPLATE_LISTEN_HTTP").parse().unwrap();
    let edge = LoneEdge::start_reading(folder.path(), &source, &folder.path().join("cache"), &seal_key, origin.address, http).await;

    // The sample request of the API, as API Gateway hands it over.
    let answer = register.answer(sample("apigateway/create-domain.json")).await;
    assert_eq!(answer["statusCode"], 201, "{answer}");
    let domain: Value = serde_json::from_str(answer["body"].as_str().unwrap()).unwrap();
    assert_eq!((&domain["hostname"], &domain["tenant"]), (&json!("shop.client-brand.com"), &json!("brand")), "{domain}");
    edit_dns(&peers.dns_admin, &records_of(&domain)).await;
    let key = domains::ClaimKey {
        hostname: domains::Hostname::parse_name("shop.client-brand.com").unwrap(),
        tenant: domains::TenantId::parse("brand").unwrap(),
    };

    let began = std::time::Instant::now();
    let visitor = Visitor::new(edge.https, Path::new(&root));
    let visit = loop {
        between.stream(&aws).await;
        between.queues().await;
        if let Ok(visit) = visitor.get("shop.client-brand.com", "/").await {
            break visit;
        }
        let claim = domains::DomainTable::claim(&home, &key).await.unwrap();
        assert!(began.elapsed() < PATIENCE, "not served after {:?}: {:?}; {claim:?}", began.elapsed(), between.invoked);
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    println!("served {:.1?} after its registration; invoked {:?}", began.elapsed(), between.invoked);
    assert_eq!(visit.answer.status, 200, "{visit:?}");
    let claim = domains::DomainTable::claim(&home, &key).await.unwrap().unwrap();
    assert_eq!(claim.state.name().as_str(), "active", "{claim:?}");
    for name in ["route-changes", "verify-ownership", "issue-certificate", "publish-site"] {
        assert!(between.invoked.contains(&name), "{name} was never invoked: {:?}", between.invoked);
    }
    // The timer finds nothing that is due; it is the next one who must not find an unfinished look.
    timer.answer(sample("schedule/tick.json")).await;
    let marked =
        until("the timer leaves its mark", PATIENCE, async || domains::Marks::load(&home, "schedule-renewals").await.unwrap()).await;
    println!("the timer's mark: {marked}");
}

/// The functions that must be told a variable, by the table in their README.
fn needed_by(name: &str) -> BTreeSet<String> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("functions/README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let variable = cells.next()?.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        Some((variable, cells.next()?.to_owned()))
    });
    rows.filter(|(_, who)| who == "all" || who.split(", ").any(|one| one == name)).map(|(variable, _)| variable).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lambda_without_its_settings_says_all_that_are_missing_as_documented_and_ends() {
    let folder = Folder::new();
    for name in [
        "register-domain",
        "route-changes",
        "verify-ownership",
        "issue-certificate",
        "publish-site",
        "import-domains",
        "deliver-events",
        "schedule-renewals",
    ] {
        let mut lambda = Lambda::start(name, &[], folder.path()).await;
        assert!(lambda.ended(Duration::from_secs(20)).await, "{name} runs without settings");
        let said = std::fs::read_to_string(lambda.log()).unwrap();
        let missing: BTreeSet<String> =
            said.lines().filter_map(|line| Some(line.split_once(" is not set")?.0.rsplit(' ').next()?.to_owned())).collect();
        assert_eq!(missing, needed_by(name), "{name}: {said}");
    }
}
