//! The API's document, OpenAPI 3.1, made from the descriptions by which requests are answered and from the types they are answered with.
//!
//! Arrives: the operations, the pace. Leaves: one JSON document. Goes wrong: nothing; it depends on nothing outside.
//!
//! Source: OpenAPI 3.1.1, spec.openapis.org (read 2026-11): schemas are JSON Schema 2020-12, which is what schemars writes.

use std::{collections::BTreeMap, time::Duration};

use domains::BucketShape;
use schemars::{
    SchemaGenerator,
    generate::{Contract, SchemaSettings},
};
use serde_json::{Map, Value, json};

use crate::{
    Code, Pace, ProblemDocument,
    operations::{Access, Description, Operation},
};

/// Writes the document.
pub(crate) fn document(pace: &Pace) -> Value {
    let settings = |contract: Contract| {
        let mut settings = SchemaSettings::draft2020_12();
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.contract = contract;
        settings
    };
    let mut answers = settings(Contract::Serialize).into_generator();
    let mut requests = settings(Contract::Deserialize).into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in Operation::ALL {
        let description = operation.description();
        let item = paths.entry(description.path).or_default();
        item.insert(description.method.as_str().to_lowercase(), operation_object(&description, pace, &mut answers, &mut requests));
    }
    let mut schemas = answers.take_definitions(true);
    schemas.extend(requests.take_definitions(true));
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Nameplate",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Custom domains for SaaS: every customer's own domain over HTTPS.",
            "description": "Registers hostnames, says which DNS records prove and route them, and shows what became of each. Nothing waits for \
                DNS or a certificate authority: what takes time shows in the domain. Every error is a problem document (RFC 9457) with a \
                stable `code`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "Where this document was found." }],
        "tags": [
            { "name": "domains", "description": "Hostnames and their walk to HTTPS." },
            { "name": "events", "description": "What happened." },
            { "name": "webhooks", "description": "Who is told what happens." },
            { "name": "imports", "description": "Many hostnames at once." },
            { "name": "ask", "description": "Answers for a Caddy that still serves some of the names." },
            { "name": "api", "description": "The API itself." },
        ],
        "security": [{ "apiKey": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, of the operator or of one tenant. A tenant's key sees and changes that tenant's domains only.",
                },
            },
            "schemas": schemas,
        },
    })
}

fn operation_object(description: &Description, pace: &Pace, answers: &mut SchemaGenerator, requests: &mut SchemaGenerator) -> Value {
    let mut object = json!({
        "operationId": description.id,
        "tags": [description.tag],
        "summary": description.summary,
        "parameters": description.parameters.iter().map(|parameter| parameter.document()).collect::<Vec<_>>(),
        "responses": responses(description, pace, answers),
    });
    let mut add = |name: &str, value: Value| drop(object.as_object_mut().map(|object| object.insert(name.to_owned(), value)));
    let access = match description.access {
        Access::Public => "Needs no API key.",
        Access::Key => "",
        Access::Operator => "Needs an operator's API key.",
    };
    let more = [description.more, access].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    if !more.is_empty() {
        add("description", more.into());
    }
    if description.access == Access::Public {
        add("security", json!([]));
    }
    if let Some((shape, example)) = &description.body {
        let content = json!({ "application/json": { "schema": shape(requests), "example": example() } });
        add("requestBody", json!({ "required": true, "content": content }));
    }
    object
}

/// The codes of the operation, with those that its access brings.
pub(crate) fn codes(description: &Description) -> Vec<Code> {
    let of_access: &[Code] = match description.access {
        Access::Public => &[],
        Access::Key | Access::Operator => &[Code::AuthMissing, Code::AuthUnknownKey, Code::AuthForbidden, Code::Unavailable],
    };
    of_access.iter().chain(&description.codes).copied().collect()
}

fn responses(description: &Description, pace: &Pace, answers: &mut SchemaGenerator) -> Map<String, Value> {
    let mut responses = Map::new();
    for success in &description.successes {
        let mut response = json!({ "description": success.meaning });
        if let Some(shape) = success.body {
            response["content"] = json!({ "application/json": { "schema": shape(answers) } });
        }
        if success.status == 201 {
            response["headers"] =
                json!({ "Location": { "description": "Where it is.", "required": true, "schema": { "type": "string" } } });
        }
        let links: Map<String, Value> = description.links.iter().map(|link| (link.name.to_owned(), link_object(link))).collect();
        if !links.is_empty() {
            response["links"] = links.into();
        }
        responses.insert(success.status.to_string(), response);
    }
    let mut refused: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes(description) {
        refused.entry(code.status().as_u16()).or_default().push(code);
    }
    for (status, codes) in refused {
        responses.insert(status.to_string(), refusal_object(status, &codes, pace, answers));
    }
    responses
}

fn link_object(link: &crate::operations::Link) -> Value {
    let parameters: Map<String, Value> = link
        .parameters
        .iter()
        .map(|(parameter, expression)| {
            let place = if parameter.is_in_path() { "path" } else { "query" };
            (format!("{place}.{}", parameter.name()), (*expression).into())
        })
        .collect();
    json!({ "operationId": link.to.description().id, "parameters": parameters })
}

fn refusal_object(status: u16, codes: &[Code], pace: &Pace, answers: &mut SchemaGenerator) -> Value {
    let meanings: Vec<String> = codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.meaning())).collect();
    let names: Vec<_> = codes.iter().map(|code| code.as_str()).collect();
    let schema = json!({
        "allOf": [answers.subschema_for::<ProblemDocument>()],
        "properties": { "status": { "const": status }, "code": { "enum": names } },
    });
    let mut response = json!({
        "description": meanings.join("\n"),
        "content": { "application/problem+json": { "schema": schema } },
    });
    let header = |meaning: &str, schema: Value| json!({ "description": meaning, "required": true, "schema": schema });
    match status {
        401 => response["headers"] = json!({ "WWW-Authenticate": header("`Bearer`.", json!({ "const": "Bearer" })) }),
        429 | 503 => {
            let seconds = json!({ "type": "integer", "minimum": 1 });
            response["headers"] = json!({ "Retry-After": header("How many seconds to wait.", seconds) });
        }
        _ => {}
    }
    let limits: Map<String, Value> =
        codes.iter().filter_map(|code| limit(*code, pace).map(|limit| (code.as_str().to_owned(), limit))).collect();
    if !limits.is_empty() {
        response["x-rate-limits"] = limits.into();
    }
    response
}

/// The rate limit behind a code.
fn limit(code: Code, pace: &Pace) -> Option<Value> {
    let (per, BucketShape { capacity, refill }) = match code {
        Code::TooManyClaims => ("tenant", pace.claims),
        Code::TooManyChecks => ("domain", pace.checks),
        _ => return None,
    };
    let seconds = |wait: Duration| wait.as_secs_f64();
    Some(json!({ "per": per, "burst": capacity, "seconds_per_request_afterwards": seconds(refill) }))
}
