//! The API's document and what the API answers are one thing.
#![allow(clippy::unwrap_used, reason = "a test may; its helpers too")]

mod stand;

use std::collections::BTreeSet;

use http::Method;
use serde_json::Value;
use stand::{OPERATOR, Stand, TENANT};

const METHODS: &[&str] = &["get", "put", "post", "delete", "options", "head", "patch", "trace"];

async fn document(stand: &Stand) -> Value {
    let (status, document) = stand.ask(Method::GET, "/v1/openapi.json", None, "").await;
    assert_eq!(status, 200);
    document
}

/// Every operation of the document: method, path, description.
fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (name, operation) in item.as_object().unwrap() {
            assert!(METHODS.contains(&name.as_str()), "{path}: {name}");
            found.push((name.to_uppercase().parse().unwrap(), path.clone(), operation.clone()));
        }
    }
    found
}

/// The path with values in its variable parts.
fn filled(path: &str) -> String {
    path.replace("{hostname}", "shop.client-brand.com").replace("{secret}", "guess").replace("{id}", "one")
}

/// Every `$ref` of a value.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match value.as_str().filter(|_| name == "$ref") {
                    Some(target) => drop(found.insert(target.to_owned())),
                    None => references(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_described_operation_is_answered_and_every_other_method_refused() {
    let stand = Stand::new().await;
    let document = document(&stand).await;
    assert_eq!(document["openapi"], "3.1.1");
    let operations = operations(&document);
    assert!(operations.len() >= 11, "{}", operations.len());
    let paths: BTreeSet<&str> = operations.iter().map(|(_, path, _)| path.as_str()).collect();
    for path in paths {
        for method in METHODS.iter().map(|name| name.to_uppercase().parse::<Method>().unwrap()) {
            let (status, answer) = stand.ask(method.clone(), &filled(path), Some(OPERATOR), "").await;
            let described = operations.iter().any(|(known, at, _)| *known == method && at == path);
            assert_eq!(status != 405, described, "{method} {path}: {status} {answer}");
            assert_ne!(answer["code"], "request.no_such_path", "{method} {path} is described and not answered");
        }
    }
    let (status, answer) = stand.ask(Method::GET, "/v1/nothing", Some(OPERATOR), "").await;
    assert_eq!((status, &answer["code"]), (404, &"request.no_such_path".into()));
}

#[tokio::test]
async fn what_the_api_answers_is_described_with_status_and_code() {
    let stand = Stand::new().await;
    let document = document(&stand).await;
    stand.ask(Method::POST, "/v1/domains", Some(OPERATOR), "{\"hostname\":\"shop.client-brand.com\",\"tenant\":\"brand\"}").await;
    let bodies = ["", "{", "{\"hostname\":\"a_b.com\",\"tenant\":\"t\"}", "{\"hostname\":\"b.client-brand.com\"}", "[1]"];
    let queries =
        ["", "?tenant=brand", "?tenant=%20", "?limit=0&state=active", "?limit=x", "?after=nobody", "?limit=1&limit=2", "?state=nosuch"];
    for (method, path, operation) in operations(&document) {
        for key in [None, Some("np_unknown"), Some(TENANT), Some(OPERATOR)] {
            for body in bodies {
                for query in queries {
                    let (status, answer) = stand.ask(method.clone(), &format!("{}{query}", filled(&path)), key, body).await;
                    let described = &operation["responses"][status.to_string()];
                    assert!(described.is_object(), "{method} {path}{query} {body}: {status} is not described: {answer}");
                    if status >= 400 {
                        let codes = &described["content"]["application/problem+json"]["schema"]["properties"]["code"]["enum"];
                        assert!(codes.as_array().unwrap().contains(&answer["code"]), "{method} {path}{query} {body}: {answer} of {codes}");
                    }
                }
            }
        }
        let is_public = operation["security"].as_array().is_some_and(Vec::is_empty);
        let (status, _) = stand.ask(method.clone(), &filled(&path), None, "").await;
        assert_eq!(status != 401, is_public, "{method} {path}: {status}");
    }
}

#[tokio::test]
async fn references_and_links_of_the_document_lead_somewhere() {
    let stand = Stand::new().await;
    let document = document(&stand).await;
    let mut targets = BTreeSet::new();
    references(&document, &mut targets);
    assert!(targets.contains("#/components/schemas/DomainView"), "{targets:?}");
    for target in targets {
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} leads nowhere");
    }
    let operations = operations(&document);
    let ids: BTreeSet<&str> = operations.iter().map(|(_, _, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len(), "an operationId is used twice");
    let mut links = 0;
    for (_, path, operation) in &operations {
        for (_, response) in operation["responses"].as_object().unwrap() {
            for (name, link) in response["links"].as_object().into_iter().flatten() {
                let target = link["operationId"].as_str().unwrap();
                let (_, _, target) = operations.iter().find(|(_, _, known)| known["operationId"] == target).unwrap();
                for parameter in link["parameters"].as_object().unwrap().keys() {
                    let (place, wanted) = parameter.split_once('.').unwrap();
                    let known = target["parameters"].as_array().unwrap().iter().any(|p| p["name"] == wanted && p["in"] == place);
                    assert!(known, "{path}: link {name} fills {parameter}, which its target does not have");
                }
                links += 1;
            }
        }
    }
    assert!(links >= 8, "{links} links");
}

#[tokio::test]
async fn a_tenants_key_reads_its_own_events_and_no_operators_secret() {
    let stand = Stand::new().await;
    for (hostname, tenant) in [("a.client-brand.com", "brand"), ("b.client-brand.com", "other")] {
        let body = format!("{{\"hostname\":\"{hostname}\",\"tenant\":\"{tenant}\"}}");
        assert_eq!(stand.ask(Method::POST, "/v1/domains", Some(OPERATOR), &body).await.0, 201);
    }
    let (status, all) = stand.ask(Method::GET, "/v1/events", Some(OPERATOR), "").await;
    assert_eq!((status, all["items"].as_array().unwrap().len()), (200, 2), "{all}");
    let (_, own) = stand.ask(Method::GET, "/v1/events", Some(TENANT), "").await;
    assert_eq!(own["items"].as_array().unwrap().len(), 1, "{own}");
    assert_eq!((&own["items"][0]["tenant"], &own["items"][0]["event"]), (&"brand".into(), &"claim_registered".into()));
    let cursor = own["cursor"].as_str().unwrap();
    let (status, more) = stand.ask(Method::GET, &format!("/v1/events?after={cursor}"), Some(TENANT), "").await;
    assert_eq!((status, more["items"].as_array().unwrap().len()), (200, 0), "{more}");
    // A cursor of one's own feed tells nothing in the operator's.
    let (status, refused) = stand.ask(Method::GET, &format!("/v1/events?after={cursor}"), Some(OPERATOR), "").await;
    assert_eq!((status, &refused["code"]), (422, &"request.invalid_cursor".into()));
    assert_eq!(stand.ask(Method::GET, "/v1/events?tenant=other", Some(TENANT), "").await.0, 403);
    for (method, path) in [(Method::GET, "/v1/ask"), (Method::POST, "/v1/ask/rotate")] {
        assert_eq!(stand.ask(method, path, Some(TENANT), "").await.0, 403);
    }
}
