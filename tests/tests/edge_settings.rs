//! What the configuration file tells the edge reaches it, and the timer with it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use system_tests::{product::Product, waiting::until};

const NAME: &str = "shop.brand.test";
/// How soon what is asked for is there.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn sessions_outlive_a_crash_where_keys_are_shared_and_the_log_and_the_metrics_are_as_the_settings_say() {
    let settings = |log: &str| {
        [("NAMEPLATE_EDGE_TICKETS", "shared"), ("NAMEPLATE_EDGE_ACCESS_LOG", log), ("NAMEPLATE_EDGE_METRICS_TENANTS", "off")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let settings = settings(&log.display().to_string());
    let settings = settings.each_ref().map(|(key, value)| (key.as_str(), value.as_str()));
    let mut product = Product::start(&settings).await;
    let records = product.register(NAME, "brand").await;
    product.set_dns(&records).await;
    product.served(NAME, SOON).await;

    let visitor = product.visitor().returning();
    let visit = async || visitor.get(NAME, "/visited?secret=1").await.unwrap();
    until("a ticket is sealed with a shared key", SOON, async || {
        visit().await;
        let told = product.metrics().await;
        told.lines().any(|line| line.starts_with("nameplate_edge_tickets_total{key=\"shared\"}") && !line.ends_with(" 0")).then_some(())
    })
    .await;
    assert!(visit().await.resumed);
    product.kill().await;
    product.restart().await;
    assert!(visit().await.resumed, "the session was made before the crash; logs are in {}", product.folder().display());

    let told = product.metrics().await;
    assert!(!told.contains("tenant=\"brand\"") && told.contains("tenant=\"(other)\""), "{told}");
    until("the visits are in the access log", SOON, async || {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(!lines.contains("secret"), "{lines}");
        (lines.contains("\"/visited\"") && lines.contains("127.0.0.0")).then_some(())
    })
    .await;
}
