//! Imports by the command, while the product is killed.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{path::Path, process::Stdio, time::Duration};

use http::Method;
use serde_json::Value;
use system_tests::{process::binary, product::Product, sizes::size, waiting::until};
use tokio::process::Command;

/// How often the product is killed, and how long it may take to get as far as that.
const CRASHES: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// How many lines of all imports were taken.
async fn lines_taken(product: &Product) -> usize {
    let page = product.api(Method::GET, "/v1/imports", None).await.granted();
    let count = |import: &Value| import["lines"].as_u64().unwrap() - import["left"].as_u64().unwrap();
    page["items"].as_array().unwrap().iter().map(count).sum::<u64>() as usize
}

fn import(product: &Product, file: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(binary("nameplate"));
    command.current_dir(product.folder()).args(["--json", "import"]).arg(file).args(more).env_remove("NAMEPLATE_CONFIG");
    command.env("NAMEPLATE_API", format!("http://{}", product.api_address())).env("NAMEPLATE_API_KEY", product.key());
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_survives_crashes_registers_each_name_once_and_tells_its_refused_lines() {
    let mut product = Product::start(&[]).await;
    let names = size(700, 3_000);
    let mut lines: Vec<String> = (0..names).map(|n| format!("shop{n}.brand{}.test,tenant{}", n % 40, n % 7)).collect();
    lines.insert(3, "no hostname,tenant1".into());
    lines.insert(600, "co.uk,tenant1".into());
    let file = product.folder().join("names.csv");
    std::fs::write(&file, format!("hostname,tenant\n{}\n", lines.join("\n"))).unwrap();

    let dry = import(&product, &file, &["--dry-run"]).output().await.unwrap();
    assert_eq!(dry.status.code(), Some(3), "{dry:?}");
    let told: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(told["forecast"]["names"], names, "{told}");
    assert_eq!(product.list("").await.len(), 0, "a dry run registers nothing");

    // Killed each time it has got a little further, so that every crash comes in the middle.
    let mut taken = 0;
    for _ in 0..CRASHES {
        let running = tokio::spawn(import(&product, &file, &[]).output());
        let wanted = taken + names / (2 * CRASHES);
        let what = format!("{wanted} lines are taken; logs are in {}", product.folder().display());
        taken = until(&what, PATIENCE, async || Some(lines_taken(&product).await).filter(|taken| *taken >= wanted)).await;
        assert!(taken < names, "it was done before the crash");
        product.kill().await;
        let _ = running.await.unwrap();
        product.restart().await;
    }
    println!("{CRASHES} crashes, the last after {taken} of {names} lines");
    let done = import(&product, &file, &[]).output().await.unwrap();
    assert_eq!(done.status.code(), Some(3), "{done:?}");
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    let refused: Vec<_> = told["refusals"].as_array().unwrap().iter().map(|line| (line["line"].as_u64().unwrap(), &line["code"])).collect();
    assert_eq!(refused, [(5, &"hostname.invalid".into()), (602, &"hostname.public_suffix".into())], "{told}");
    assert_eq!(told["accepted"].as_u64().unwrap() + told["already_there"].as_u64().unwrap(), names as u64, "{told}");
    let domains = product.list("").await;
    assert_eq!(domains.len(), names);
    for domain in domains.iter().step_by(53) {
        let (hostname, tenant) = (domain["hostname"].as_str().unwrap(), domain["tenant"].as_str().unwrap());
        let history = product.api(Method::GET, &format!("/v1/domains/{hostname}/history?tenant={tenant}"), None).await.granted();
        let registered = history["items"].as_array().unwrap().iter().filter(|entry| entry["event"] == "claim_registered").count();
        assert_eq!(registered, 1, "{history}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_leaves_the_api_to_others() {
    let product = Product::start(&[]).await;
    let lines: Vec<String> = (0..2_000).map(|n| format!("{{\"hostname\":\"bulk{n}.brand.test\",\"tenant\":\"bulk\"}}")).collect();
    let file = product.folder().join("names.ndjson");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let running = tokio::spawn(import(&product, &file, &[]).output());
    let mut slowest = Duration::ZERO;
    let mut asked = 0;
    while !running.is_finished() {
        let began = std::time::Instant::now();
        product.register(&format!("own{asked}.other.test"), "other").await;
        slowest = slowest.max(began.elapsed());
        asked += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let done = running.await.unwrap().unwrap();
    assert!(done.status.success(), "{done:?}");
    println!("{asked} requests beside an import of 2,000 names, the slowest {slowest:?}");
    assert!(asked > 5 && slowest < Duration::from_secs(2), "{asked} requests, the slowest took {slowest:?}");
}

#[tokio::test]
async fn a_plan_goes_by_the_ca_that_serve_would_order_at_and_not_by_another_products_limits() {
    let product = Product::start(&[]).await;
    let (names, file) = (product.folder().join("plan.csv"), product.folder().join("serve.toml"));
    std::fs::write(&names, (0..60).map(|n| format!("shop{n}.brand.com,acme\n")).collect::<String>()).unwrap();
    let settings =
        "data = \"elsewhere\"\norigin = \"http://127.0.0.1:3000\"\n[zone]\nname = \"edge.saas.net\"\naddresses = \"192.0.2.1\"\n";
    std::fs::write(&file, format!("{settings}[dns]\nserver = \"192.0.2.53:53\"\n")).unwrap();
    let plan = async |more: &[&str]| {
        let mut command = Command::new(binary("nameplate"));
        command.current_dir(product.folder()).args(["--json", "--config"]).arg(&file).arg("plan").arg(&names).args(more);
        command.env("NAMEPLATE_API", format!("http://{}", product.api_address())).env("NAMEPLATE_API_KEY", product.key());
        command.kill_on_drop(true).stdin(Stdio::null()).output().await.unwrap()
    };

    let told = plan(&["--fresh"]).await;
    let forecast: Value = serde_json::from_slice(&told.stdout).unwrap_or_else(|_| panic!("{told:?}"));
    assert_eq!(forecast["ca"], "acme-staging-v02.api.letsencrypt.org/directory", "the file leaves its CA to serve's default");

    // The demo's own CA has no limits; what is left of those says nothing of staging's.
    let told = plan(&[]).await;
    assert_eq!(told.status.code(), Some(64), "{told:?}");
    let said = String::from_utf8_lossy(&told.stderr).into_owned() + &String::from_utf8_lossy(&told.stdout);
    assert!(said.contains("acme-staging-v02") && said.contains("configuration file"), "{said}");
}
