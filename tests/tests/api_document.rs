//! The API withstands whoever reads its document: schemathesis makes requests from it, valid and invalid, follows its links, and compares
//! every answer with it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use http::Method;
use serde_json::{Value, json};
use system_tests::{
    product::Product,
    tools::{install, workspace},
};
use tokio::process::Command;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The share of operations that a stranger with the document and an operator's key must reach, in parts of 100.
const REACHED_PERCENT: usize = 80;

/// Whether a path is one of the template's.
fn is_of(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(path).all(|(wanted, part)| wanted.starts_with('{') || *wanted == part)
}

/// How many requests of the report each operation answered with success.
fn successes(document: &Value, report: &Value) -> BTreeMap<String, usize> {
    let mut successes = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            successes.insert(format!("{} {path}", method.to_uppercase()), 0);
        }
    }
    for entry in report["log"]["entries"].as_array().expect("a HAR report") {
        let (method, url) = (entry["request"]["method"].as_str().unwrap(), entry["request"]["url"].as_str().unwrap());
        if !(200..300).contains(&entry["response"]["status"].as_i64().unwrap_or_default()) {
            continue;
        }
        let path = url.split("://").nth(1).and_then(|rest| rest.split_once('/')).map_or("", |(_, path)| path);
        let path = format!("/{}", path.split(['?', '#']).next().unwrap());
        // A literal path comes before one with a variable part, as it does in the product.
        let operations = successes.keys().filter(|known| {
            let (known_method, template) = known.split_once(' ').unwrap();
            known_method == method && is_of(template, &path)
        });
        let operation = operations.min_by_key(|known| known.contains('{')).cloned();
        operation.and_then(|operation| successes.get_mut(&operation)).into_iter().for_each(|count| *count += 1);
    }
    successes
}

fn report(folder: &Path) -> Value {
    let files = fs::read_dir(folder).expect("a folder of reports").map(|entry| entry.unwrap().path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "json")).expect("a report");
    serde_json::from_slice(&fs::read(file).unwrap()).expect("the report reads")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_the_document_finds_no_failure_and_reaches_the_operations() {
    let tool = install("install-schemathesis", "schemathesis/bin/st");
    // Whatever URLs it thinks of, nothing is sent there.
    let product = Product::start(&[("NAMEPLATE_WEBHOOKS_INTERVAL", "")]).await;
    // Seeds: a served domain, one that waits, one that several tenants claim.
    let records = product.register("served.brand.test", "brand").await;
    product.set_dns(&records).await;
    product.served("served.brand.test", Duration::from_secs(20)).await;
    product.register("waits.brand.test", "brand").await;
    for tenant in ["brand", "other"] {
        product.register("contested.brand.test", tenant).await;
    }

    let import = json!({ "domains": [{ "hostname": "imported.brand.test", "tenant": "brand" }] });
    product.api(Method::POST, "/v1/imports", Some(&import)).await.granted();
    product.api(Method::POST, "/v1/webhooks", Some(&json!({ "url": "https://hooks.brand.test/" }))).await.granted();

    let url = format!("http://{}/v1/openapi.json", product.api_address());
    let reports = product.folder().join("reports");
    let run = Command::new(&tool)
        .arg("--config-file")
        .arg(workspace().join("tests/schemathesis.toml"))
        .args([
            "run",
            &url,
            "--no-color",
            "--header",
            &format!("Authorization: Bearer {}", product.key()),
            "--report",
            "har",
            "--report-dir",
        ])
        .arg(&reports)
        .env("HOME", product.folder())
        .current_dir(product.folder())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("schemathesis ends in time").unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "schemathesis found failures:\n{said}{}", String::from_utf8_lossy(&output.stderr));

    let document = product.api(Method::GET, "/v1/openapi.json", None).await.granted();
    let successes = successes(&document, &report(&reports));
    let reached = successes.values().filter(|count| **count > 0).count();
    println!("{reached} of {} operations answered with success: {successes:#?}", successes.len());
    assert!(reached * 100 >= successes.len() * REACHED_PERCENT, "{successes:#?}");
}
